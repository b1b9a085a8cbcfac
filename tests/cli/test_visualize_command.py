"""`sppnet visualize` as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sppnet_cli.data.voc import load_voc

COLUMNS = ["image", "class", "score", "x1", "y1", "x2", "y2"]
TINY = ("--profile", "tiny", "--workers", "1", "-q")


@pytest.fixture
def voc(tiny_data):
    return tiny_data / "VOCdevkit"


@pytest.fixture
def run(voc, tmp_path):
    dataset = load_voc(voc, "test")
    rows = [(image_id, dataset.class_names[0], 0.5, 5, 5, 50, 60) for image_id in dataset.ids[:5]]
    folder = tmp_path / "run"
    folder.mkdir()
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "detections.csv", index=False)
    return folder


def test_detections(sppnet, run, voc, tmp_path):
    given = (*TINY, "--detections", run, "--data", voc)
    code, out, err = sppnet("visualize", "detections", *given, "--count", "3", "--no-truth", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert len(result["pictures"]) == 3
    assert all((tmp_path / path).is_file() for path in [*result["pictures"], result["contact_sheet"]])
    image_id = load_voc(voc, "test").ids[9]
    code, out, _ = sppnet("visualize", "detections", *given, image_id, "--out", "one", "--json")
    assert json.loads(out)["pictures"] == [f"one/{image_id}.jpg"]


def test_conv5(sppnet, tiny_network, voc, tmp_path):
    given = (*TINY, "--network", tiny_network, "--size", "128", "--json")
    code, out, err = sppnet("visualize", "conv5", *given, "--data", voc, "--limit", "4", "--count", "1")
    assert code == 0, err
    first = load_voc(voc, "test").ids[0]
    assert [Path(path).name for path in json.loads(out)["pictures"]] == [f"1-{first}.png"]
    images = load_voc(voc, "test").image_path(first).parent
    files = [images / f"{first}.jpg", images / f"{load_voc(voc, 'test').ids[3]}.jpg"]
    code, out, err = sppnet("visualize", "conv5", *given, *files, "--filters", "3,9", "--out", "two")
    assert code == 0, err
    assert len(json.loads(out)["pictures"]) == 2
    assert len(list((tmp_path / "two").glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["detections", "--data", "VOC", "--detections", "nowhere"], 3, "nowhere: no such CSV file"),
        (["detections", "--data", "VOC"], 3, "no detections of your own data"),
        (
            ["detections", "--data", "VOC", "--detections", "RUN", "000000"],
            2,
            "000000: no image of this name",
        ),
        (
            ["detections", "--data", "VOC", "--detections", "RUN", "--split", "trainval"],
            3,
            "is not in trainval",
        ),
        (
            ["detections", "--data", "VOC", "--detections", "RUN", "--split", "nosuch"],
            3,
            "no such split list",
        ),
        (["detections", "--data", "nowhere", "--detections", "RUN"], 3, "nowhere: no such folder"),
        (["conv5", "--network", "nowhere", "--data", "VOC"], 3, "nowhere: not a network folder"),
        (["conv5", "--network", "NETWORK", "--data", "VOC", "--filters", "16"], 2, "filters 0 to 15"),
        (["conv5", "--filters", "one"], 2, "--filters one: write 55 or 55,66"),
        (["conv5", "street.jpg", "--data", "VOC"], 2, "give IMAGES, or a data set"),
        (["conv5", "--network", "NETWORK", "nowhere.jpg"], 3, "nowhere.jpg: no such file"),
        (["conv5", "--size", "8"], 2, "is not in the range"),
    ],
)
def test_a_wrong_call_is_one_line_and_draws_nothing(
    sppnet, run, tiny_network, voc, tmp_path, arguments, code, message
):
    before = sorted(tmp_path.rglob("*"))
    places = {"VOC": voc, "RUN": run, "NETWORK": tiny_network}
    found, out, err = sppnet("visualize", *(places.get(word, word) for word in arguments), *TINY)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("what", ["detections", "conv5"])
def test_a_dry_run_tells_and_does_nothing(sppnet, tmp_path, what):
    code, out, err = sppnet("visualize", what, *TINY, "--dry-run", "--json")
    assert code == 0, err
    plan = json.loads(out)
    assert plan["steps"][-1]["step"] == "visualize"
    assert len(plan["steps"]) > 1
    assert plan["seconds"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["detections"], ["conv5"]])
def test_help_does_not_load_torch(arguments):
    program = (
        "import sys; sys.argv = ['sppnet', 'visualize', *sys.argv[1:], '--help']\n"
        "from sppnet_cli.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'cv2', 'pandas', 'numpy', 'rich', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} loaded' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: sppnet visualize")


def test_images_that_get_no_picture_are_counted(sppnet, tiny_network, voc):
    ids = load_voc(voc, "test").ids[:3]
    files = [load_voc(voc, "test").image_path(image_id) for image_id in ids]
    given = ("--profile", "tiny", "--network", tiny_network, "--size", "128", *files)
    code, _, err = sppnet("visualize", "conv5", *given, "--count", "2")
    assert code == 0, err
    assert "2 pictures in" in err
    assert "of the 3 images; --count 3 pictures all" in err


def test_a_remedy_is_named_only_where_it_works(sppnet, tiny_network, voc, tmp_path):
    file = load_voc(voc, "test").image_path(load_voc(voc, "test").ids[0])
    (tmp_path / "broken.jpg").touch()
    given = ("--profile", "tiny", "--network", tiny_network, "--size", "128", file, "broken.jpg")
    code, _, err = sppnet("visualize", "conv5", *given)
    assert code == 0, err
    assert "skipped: broken.jpg: is empty" in err
    assert "1 pictures in" in err
    assert "--count" not in err
