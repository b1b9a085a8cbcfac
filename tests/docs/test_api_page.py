"""The recipes of docs/api.md run, one after another, as a reader would type them."""

import re
import shutil
from pathlib import Path

import sppnet_cli

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(block, names):
    exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102 - the page is ours


def test_the_recipes_run(tiny_data, random_detector, tmp_path, monkeypatch, capsys):
    photo = min((tiny_data / "VOCdevkit/VOC2007/JPEGImages").iterdir())
    shutil.copy(photo, tmp_path / "photo.jpg")
    shutil.copytree(random_detector, tmp_path / "my-detector")
    monkeypatch.chdir(tmp_path)
    names = {}
    blocks = BLOCK.findall(PAGE.read_text())
    for block in blocks[:3]:
        run(block, names)
    maps, cells, features = names["maps"], names["cells"], names["features"]
    assert len(features) == len(names["windows"]) > 20
    for number in (0, len(cells) // 2, len(cells) - 1):
        x1, y1, x2, y2 = cells[number]
        part = names["torch"].tensor(maps[None, :, y1 : y2 + 1, x1 : x2 + 1])
        assert (names["pyramid"](part).numpy() == features[number]).all()
    for block in blocks[3:]:
        run(block, names)
    assert names["features"].shape == (len(names["windows"]), 16 * 50)
    assert capsys.readouterr().out.count("\n") == 10


def test_the_page_names_all_of_the_api():
    assert [name for name in sppnet_cli.__all__ if name not in PAGE.read_text() + "__version__"] == []
