from datetime import timedelta
from pathlib import Path

import filelock
import pytest

from sppnet_cli import inventory
from sppnet_cli.atomic import write_json
from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.inventory import Removable, Run, compare, delete, find_runs, stale


def manifest(**more):
    known = {"stage": "train", "config": {}, "inputs": {}, "fingerprint": "f", "command": "sppnet train"}
    return known | more


@pytest.fixture
def root(tmp_path):
    for name in ("mini/network-1a", "mini/network-1a/inner-2", "named"):
        (tmp_path / name).mkdir(parents=True)
        write_json(tmp_path / name / "manifest.json", manifest())
    (tmp_path / "mini" / "cache" / "spp").mkdir(parents=True)
    (tmp_path / "mini" / "cache" / "spp" / "x.npy").write_bytes(bytes(1000))
    (tmp_path / "mini" / "svm-3.partial").mkdir()
    (tmp_path / "mini" / "svm-3.partial" / ".lock").touch()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "x.txt").touch()
    (tmp_path / "link").symlink_to(tmp_path / "mini")
    return tmp_path


def test_what_lies_in_a_folder_of_runs(root):
    assert [run.folder for run in find_runs(root)] == [root / "mini/network-1a", root / "named"]
    assert inventory.caches(root) == [Removable(root / "mini/cache", "cache")]
    assert inventory.unfinished(root) == [Removable(root / "mini/svm-3.partial", "unfinished")]
    assert inventory.folder_size(root / "mini/cache") == 1000
    with pytest.raises(DataError, match="no such folder"):
        find_runs(root / "gone")


@pytest.mark.parametrize("text", ["{", "[]", '{"stage": 3}', ""])
def test_a_manifest_that_cannot_be_read_costs_no_other_run(root, capsys, text):
    (root / "named" / "manifest.json").write_text(text)
    assert [run.folder for run in find_runs(root)] == [root / "mini/network-1a"]
    assert f"warning: left out: {root}/named/manifest.json: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("date", "hour"),
    [
        ("2026-01-02T03:04:05+00:00", 3),
        ("2026-01-02T03:04:05", 3),
        ("2026-01-02", 0),
        ("soon", None),
        ("", None),
    ],
)
def test_a_date_without_a_zone_is_of_utc(date, hour):
    found = run_of("network-a-11", date=date).date
    assert found is None if hour is None else (found.hour, found.utcoffset()) == (hour, timedelta())


def test_what_is_being_made_stays(root):
    inventory.require_idle(root)
    lock = filelock.FileLock(root / "mini/svm-3.partial/.lock", is_singleton=False)
    with lock, pytest.raises(SppnetError, match=r"svm-3\.partial: is being made"):
        inventory.require_idle(root)
    inventory.require_idle(root)


def run_of(name, command="sppnet train", **more):
    return Run(Path("runs/mini") / name, manifest(command=command, **more))


def test_stale_is_what_its_own_command_would_make_otherwise():
    folder = Path("runs/mini")
    old, new, other = run_of("network-a-11"), run_of("network-a-22"), run_of("network-b-33")
    named = {"sppnet train": {folder / "network-a-22"}}
    assert stale([old, new, other], named) == [Removable(old.folder, "stale: now network-a-22")]
    # Another command still names it.
    assert stale([old], named | {"sppnet x": {folder / "network-a-11"}}) == []
    # It cannot be told, or the command speaks of another folder, or names nothing of the kind.
    for told in ({"sppnet train": None}, {}, {"sppnet train": {Path("elsewhere/network-a-22")}}):
        assert stale([old], told) == []
    assert stale([run_of("network")], {"sppnet train": {folder / "network-a-22"}}) == []


def test_what_differs_between_two_runs():
    first = run_of(
        "a", config={"rate": 0.1, "rules": {"iou": 0.3, "ties": "last"}}, code="c", inputs={"data": "1"}
    )
    second = run_of(
        "b", config={"rate": 0.1, "rules": {"iou": 0.6, "ties": "last"}}, code="d", inputs={"data": "2"}
    )
    assert compare(first, second) == [
        ("rules.iou", "0.3", "0.6"),
        ("inputs.data", "1", "2"),
        ("code", "c", "d"),
    ]
    assert compare(first, first) == []
    assert compare(
        first, run_of("c", stage="detect", config=first.manifest["config"], inputs={"data": "1"}, code="c")
    ) == [("stage", "train", "detect")]
    assert second.differences({"rate": 0.5, "rules": second.manifest["config"]["rules"]}) == [
        ("rate", 0.5, 0.1)
    ]


def test_deleting(root):
    delete([*inventory.caches(root), *inventory.unfinished(root)])
    assert {path.name for path in (root / "mini").iterdir()} == {"network-1a"}
    with pytest.raises(SppnetError, match="cannot be deleted"):
        delete([Removable(root / "gone", "cache")])
