import hashlib
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import filelock
import pytest
from small_runs import INPUTS, Config, Recipe, cut_off, make, never, write

from sppnet_cli import building, distributed, provenance
from sppnet_cli.building import discard_partial
from sppnet_cli.errors import DataError, SppnetError, UsageError
from sppnet_cli.libraries import linear_library, use_linear_library
from sppnet_cli.runs import (
    CHECKPOINT,
    identity,
    is_run,
    read_manifest,
)

DEFAULT = Config()


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs" / "a"


def test_a_run_is_written_and_says_what_it_was_made_from(out):
    assert make(out) == out
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "result.txt"]
    assert list(out.parent.iterdir()) == [out]
    manifest = read_manifest(out)
    assert is_run(out)
    assert manifest["stage"] == "train"
    assert manifest["config"] == {
        "rate": 0.1,
        "sizes": [224, 180],
        "data": "somewhere",
        "recipe": {"batch": 8, "init": "he"},
    }
    assert manifest["inputs"] == INPUTS
    assert manifest["seconds"] >= 0
    assert {"sppnet", "python", "torch", "torchvision", "numpy"} <= manifest["environment"].keys()


def test_a_run_says_by_what_and_on_what_it_was_made(out, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/sppnet", "detect", "--limit", "3"])
    make(out, sources={"data": tmp_path / "VOCdevkit"})
    manifest = read_manifest(out)
    assert manifest["code"] == provenance.code_digest()
    assert manifest["commit"] == provenance.commit()
    assert manifest["command"] == "sppnet detect --limit 3"
    assert manifest["sources"] == {"data": str(tmp_path / "VOCdevkit")}
    assert manifest["machine"] == provenance.machine()
    assert set(manifest["machine"]) == {"processor", "system", "threads", "gpu", "library"}
    assert manifest["content"] == {"result.txt": hashlib.sha256(b"whole").hexdigest()[:16]}
    assert manifest["fingerprint"] == identity("train", Config(), INPUTS).digest
    assert 0.01 < manifest["peak_memory_gib"] < 100
    made = datetime.fromisoformat(manifest["date"])
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=5)


def test_a_complete_run_returns_at_once(out):
    make(out)
    before = (out / "manifest.json").read_bytes()
    assert make(out, never) == out
    assert (out / "manifest.json").read_bytes() == before


def test_an_unfinished_run_is_gone_on_with(out):
    def unfinished(folder):
        return (folder / "left").is_file()

    def begin(folder):
        write(folder)
        (folder / "left").write_text("")

    def finish(folder):
        assert folder == out.with_name("a.partial")
        assert sorted(path.name for path in folder.iterdir()) == [
            ".lock",
            "left",
            "result.txt",
            "started.json",
        ]
        (folder / "left").unlink()

    def run(build, config=DEFAULT):
        return make(out, build, config=config, unfinished=unfinished)

    run(begin)
    made = (out / "manifest.json").read_bytes()
    with pytest.raises(UsageError, match=r"rate was 0\.1, not 0\.2"):
        run(never, Config(rate=0.2))
    assert (out / "manifest.json").read_bytes() == made
    with pytest.raises(KeyboardInterrupt):
        run(cut_off)
    assert not out.exists()
    out.with_name("a.partial").joinpath("half.txt").unlink()
    run(finish)
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "result.txt"]
    run(never)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"config": Config(rate=0.2)}, "rate was 0.1, not 0.2"),
        ({"config": Config(sizes=(224,))}, "sizes was [224, 180], not [224]"),
        ({"config": Config(recipe=Recipe(batch=16))}, "settings: recipe.batch was 8, not 16. Remove it or"),
        ({"inputs": {"data": "abd"}}, "made from other sources: data. Remove it or"),
        ({"inputs": {}}, "from other sources: data"),
        ({"inputs": {"data": "abd", "head": "h"}}, "from other sources: data, head."),
        (
            {"config": Config(rate=0.2), "inputs": {"data": "abd"}},
            "made with other settings: rate was 0.1, not 0.2, and from other sources: data. Remove",
        ),
        ({"stage": "detect"}, "holds the result of train"),
    ],
)
def test_another_config_into_the_same_directory_is_an_error(out, changed, message):
    make(out)
    with pytest.raises(UsageError) as caught:
        make(out, never, **changed)
    assert message in str(caught.value)
    assert str(out) in str(caught.value)
    assert "--out" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert make(out, never) == out


def test_all_fields_that_differ_are_named(out):
    make(out)
    with pytest.raises(UsageError, match=r"rate was .*; sizes was ") as caught:
        make(out, config=Config(rate=1, sizes=(1,)))
    assert "somewhere" not in str(caught.value)


def test_a_stage_cut_off_leaves_nothing_at_its_name(out):
    with pytest.raises(KeyboardInterrupt):
        make(out, cut_off)
    assert not out.exists()
    assert [path.name for path in out.parent.iterdir()] == ["a.partial"]


def test_a_stage_cut_off_resumes_with_what_it_left(out):
    with pytest.raises(KeyboardInterrupt):
        make(out, cut_off)
    seen = []

    def resume(folder):
        seen.append((folder / "half.txt").read_text())
        write(folder)

    make(out, resume)
    assert seen == ["half"]
    assert sorted(path.name for path in out.iterdir()) == ["half.txt", "manifest.json", "result.txt"]
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"config": Config(rate=0.2)}, "begun with other settings: rate was 0.1, not 0.2. Start over with"),
        ({"inputs": {"data": "abd"}}, "begun from other sources: data. Start over with --no-resume or"),
        ({"stage": "detect"}, "holds the result of train"),
    ],
)
def test_what_another_config_left_is_kept(out, changed, message):
    with pytest.raises(KeyboardInterrupt):
        make(out, cut_off)
    with pytest.raises(UsageError) as caught:
        make(out, never, **changed)
    assert message in str(caught.value)
    make(out, lambda folder: (folder / "half.txt").rename(folder / "result.txt"))
    assert (out / "result.txt").read_text() == "half"


def test_a_start_that_left_nothing_stands_in_nobodys_way(out):
    def nothing(folder):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(out, nothing)
    make(out, config=Config(rate=0.2))
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "result.txt"]


def test_a_failure_that_left_no_file_leaves_no_folder(out):
    def fail(folder):
        (folder / "parts").mkdir()
        raise DataError("no data")

    with pytest.raises(DataError, match="no data"):
        make(out, fail)
    assert not out.parent.exists()  # which the call had made


def test_empty_folders_of_a_killed_start_stand_in_nobodys_way(out):
    script = (
        "import os, sys; from dataclasses import make_dataclass; from pathlib import Path\n"
        "from sppnet_cli.building import make_run; from sppnet_cli.runs import identity\n"
        "wanted = identity('train', make_dataclass('Config', [])(), {})\n"
        "def build(folder): (folder / 'parts').mkdir(); os._exit(9)\n"
        "make_run(Path(sys.argv[1]), wanted, build)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(out)], check=False).returncode == 9
    assert (out.with_name("a.partial") / "parts").is_dir()
    make(out)
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "result.txt"]


def test_paths_that_are_no_text_do_not_spoil_the_record(out, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sppnet", "caf\udce9.jpg"])
    make(out, sources={"data": tmp_path / "\udcff"})
    manifest = read_manifest(out)
    assert manifest["command"] == "sppnet 'caf\\udce9.jpg'"
    assert manifest["sources"] == {"data": f"{tmp_path}/\\udcff"}


@pytest.mark.parametrize("kind", ["file", "pipe", "link", "device"])
def test_what_is_no_folder_is_left_alone(out, kind):
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        out.write_text("years")
    elif kind == "pipe":
        os.mkfifo(out)
    else:
        out.symlink_to("/dev/null" if kind == "device" else __file__)
    with pytest.raises(UsageError, match="is no folder; give another --out"):
        make(out)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_folder_of_others_is_left_alone(out):
    out.mkdir(parents=True)
    (out / "thesis.tex").write_text("years")
    with pytest.raises(UsageError, match="was not made by sppnet train"):
        make(out)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_is_taken(out):
    out.mkdir(parents=True)
    make(out)
    assert (out / "result.txt").is_file()


def test_the_current_folder_cannot_be_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="give --out a new name"):
        make(Path())
    assert make(Path("a")) == Path("a")


def test_two_at_once(out):
    def second_while_the_first_runs(folder):
        with pytest.raises(SppnetError, match="another process is making it") as caught:
            make(out, never)
        assert str(out) in str(caught.value)
        write(folder)

    make(out, second_while_the_first_runs)
    assert (out / "result.txt").read_text() == "whole"


def test_a_checkpoint_stays_until_the_run_is_whole(out):
    def build(folder, cut=False):
        seen.append((folder / CHECKPOINT).is_file())
        (folder / CHECKPOINT).touch()
        if cut:
            raise KeyboardInterrupt

    seen = []
    with pytest.raises(KeyboardInterrupt):
        make(out, lambda folder: build(folder, cut=True))
    make(out, build)
    assert seen == [False, True]
    assert [path.name for path in out.iterdir()] == ["manifest.json"]
    (out / CHECKPOINT).touch()  # by a call that was killed before it removed it
    make(out, never)
    assert not (out / CHECKPOINT).exists()


def test_a_killed_process_holds_no_lock(out):
    script = (
        "import os, sys; from dataclasses import make_dataclass; from pathlib import Path\n"
        "from sppnet_cli.building import make_run; from sppnet_cli.runs import identity\n"
        "wanted = identity('train', make_dataclass('Config', [])(), {})\n"
        "make_run(Path(sys.argv[1]), wanted, lambda folder: os._exit(9))\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(out)], check=False)
    assert killed.returncode == 9
    assert not out.exists()
    make(out)
    assert (out / "result.txt").is_file()


def test_a_run_made_between_the_look_and_the_lock_is_not_made_again(out, monkeypatch):
    real = filelock.FileLock.acquire

    def late(self, *arguments, **options):
        out.mkdir()
        (out / "manifest.json").write_text("{}")
        return real(self, *arguments, **options)

    monkeypatch.setattr(filelock.FileLock, "acquire", late)
    with pytest.raises(SppnetError, match="another process is making it"):
        make(out, never)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        make(tmp_path / "a")


def test_a_run_is_made_anew_and_the_old_one_stays_until_then(out):
    make(out, lambda folder: (folder / "old.txt").write_text("old"))

    def build(folder):
        assert (out / "old.txt").read_text() == "old"
        assert is_run(out)
        write(folder)

    with pytest.raises(KeyboardInterrupt):
        make(out, cut_off, remake=True)
    assert (out / "old.txt").read_text() == "old"
    discard_partial(out)
    make(out, build, remake=True)
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "result.txt"]
    assert [path.name for path in out.parent.iterdir()] == ["a"]


def test_a_run_made_anew_is_still_only_of_its_settings(out):
    make(out)
    with pytest.raises(UsageError, match=r"rate was 0\.1, not 0\.2"):
        make(out, never, config=Config(rate=0.2), remake=True)


def test_what_was_begun_and_is_not_wanted_goes(out):
    with pytest.raises(KeyboardInterrupt):
        make(out, cut_off)
    discard_partial(out)
    assert not list(out.parent.iterdir())
    discard_partial(out)  # nothing there


def test_a_call_that_failed_leaves_no_lock(out):
    with pytest.raises(DataError):
        make(out, lambda folder: (_ for _ in ()).throw(DataError("no")))
    make(out)
    assert not list(out.parent.glob("*.partial"))


def test_of_several_processes_that_do_not_build_together_the_others_wait(out, monkeypatch):
    said = []
    monkeypatch.setattr("sppnet_cli.building.world", lambda: distributed.World(0, 2))
    monkeypatch.setattr("sppnet_cli.building.from_first", said.append)
    monkeypatch.setattr("sppnet_cli.building.barrier", lambda: said.append("barrier"))
    make(out)
    assert said == ["done"]
    said.clear()
    make(out.with_name("b"), together=True)
    assert said == ["start", "barrier", "done"]
    said.clear()
    with pytest.raises(UsageError):
        make(out, config=Config(rate=2))
    assert [type(word) for word in said] == [UsageError]


def test_the_others_build_where_the_first_does_or_fail_as_it_does(out, monkeypatch):
    monkeypatch.setattr("sppnet_cli.building.world", lambda: distributed.World(1, 2))
    monkeypatch.setattr("sppnet_cli.building.barrier", lambda: None)
    words = iter(["start", "done"])
    monkeypatch.setattr("sppnet_cli.building.from_first", lambda _: next(words))
    built = []
    make(out, built.append, together=True)
    assert built == [out.with_name("a.partial")]
    words = iter([DataError("no data")])
    with pytest.raises(DataError, match="no data"):
        make(out, never)


def test_a_resumed_run_keeps_the_library_it_was_begun_with(out):
    seen = []

    def begin(folder):
        seen.append(linear_library())
        cut_off(folder)

    def finish(folder):
        seen.append(linear_library())

    use_linear_library("mkl")
    with pytest.raises(KeyboardInterrupt):
        make(out, begin)
    use_linear_library("onednn")
    try:
        make(out, finish)
        assert linear_library() == "onednn"
    finally:
        use_linear_library(None)
    assert seen == ["mkl", "mkl"]
    assert read_manifest(out)["machine"]["library"] == "mkl"


@pytest.mark.parametrize(
    "text", ["{}", "[]", "{", "", '{"stage": "train", "config": {}, "inputs": 3}', "[" * 9999]
)
def test_what_says_what_was_begun_is_broken(out, text):
    with pytest.raises(KeyboardInterrupt):
        make(out, cut_off)
    partial = out.with_name("a.partial")
    (partial / "started.json").write_text(text)
    with pytest.raises(DataError, match=r"started\.json: .*; start over with --no-resume"):
        make(out)
    discard_partial(out)  # --no-resume
    make(out)


def test_what_other_code_began_is_resumed_with_a_warning_and_says_so(out, monkeypatch, capsys):
    monkeypatch.setattr(building, "code_digest", lambda: "older")
    with pytest.raises(KeyboardInterrupt):
        make(out, cut_off)
    monkeypatch.setattr(building, "code_digest", lambda: "newer")

    def resume(folder):
        assert (folder / "half.txt").read_text() == "half"
        write(folder)

    make(out, resume)
    assert (
        "a.partial: resumed, though begun by other code; --no-resume starts over" in capsys.readouterr().err
    )
    assert read_manifest(out)["code"] == "older"


def test_remake_starts_over_what_other_code_began(out, monkeypatch, capsys):
    monkeypatch.setattr(building, "code_digest", lambda: "older")
    with pytest.raises(KeyboardInterrupt):
        make(out, cut_off)
    monkeypatch.setattr(building, "code_digest", lambda: "newer")
    make(out, remake=True)
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "result.txt"]
    assert read_manifest(out)["code"] == "newer"
    assert capsys.readouterr().err == ""


def test_what_is_finished_later_keeps_the_code_it_was_made_by(out, monkeypatch):
    monkeypatch.setattr(building, "code_digest", lambda: "older")
    make(out)
    monkeypatch.setattr(building, "code_digest", lambda: "newer")
    make(out, unfinished=lambda folder: True)
    assert read_manifest(out)["code"] == "older"
