"""Stages are made one after another or side by side, to the same bytes; what ends one call ends it whole."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from artificial_stages import Gibs, Work, pairs, stage, work
from threadpoolctl import threadpool_info, threadpool_limits

from sppnet_cli import making
from sppnet_cli.chain import Resources, Stage, plan
from sppnet_cli.errors import DataError, SppnetError, UsageError
from sppnet_cli.learning.rows import RowsFull
from sppnet_cli.making import jobs_that_fit, make
from sppnet_cli.provenance import code_digest
from sppnet_cli.runs import read_manifest
from sppnet_cli.stages.profiles import find_profile
from sppnet_cli.stages.workspace import Column, NeedsData, Workspace


@pytest.fixture
def how(tmp_path):
    return Resources(cache=tmp_path / "notes", workers=1)


def notes(root):
    """What each stage noted, by its name."""
    return {path.stem: json.loads(path.read_text()) for path in (root / "notes").glob("*.json")}


def results(root):
    """All that was written, but for the manifests."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def no_child_is_left():
    """Waits two seconds at most."""
    return eventually(lambda: not children(os.getpid()), 2)


def children(pid):
    """Processes that a process has started, but for multiprocessing's tracker, which ends with it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                command = (entry / "cmdline").read_text()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] != "Z" and "resource_tracker" not in command:
                found.append(int(entry.name))
    return found


def eventually(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def overlap(a, b):
    return a["begin"] < b["end"] and b["begin"] < a["end"]


# One after another.


def test_what_a_stage_needs_is_made_first_and_only_once(tmp_path, how):
    data = stage(tmp_path, "data")
    one, two = stage(tmp_path, "one", [data]), stage(tmp_path, "two", [data])
    both = stage(tmp_path, "both", [one, two])
    found = make([both], how)
    assert [each.name for each in found.to_make] == ["data", "one", "two", "both"]
    assert (both.folder / "result.txt").read_text().count("data") == 2
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")}
    found = make([both], how)
    assert (found.to_make, [each.name for each in found.used]) == ([], ["both"])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")} == before
    assert {note["pid"] for note in notes(tmp_path).values()} == {os.getpid()}


def test_a_plan_names_the_folders_that_are_then_written(tmp_path, how):
    last = stage(tmp_path, "last", [stage(tmp_path, "data"), stage(tmp_path, "network")])
    expected = {each.folder for each in plan([last]).to_make}
    make([last], how)
    assert set((tmp_path / "runs").iterdir()) == expected


def test_the_manifest_names_the_inputs_folders(tmp_path, how):
    data = stage(tmp_path, "data")
    train = stage(tmp_path, "train", [data])
    make([train], how)
    manifest = read_manifest(train.folder)
    assert manifest["sources"] == {"data": str(data.folder)}
    assert manifest["inputs"] == {"data": data.digest} == {"data": read_manifest(data.folder)["fingerprint"]}
    assert (manifest["code"], manifest["machine"]["threads"]) == (code_digest(), 1)
    assert set(manifest["content"]) == {"begun.txt", "result.txt"}


@pytest.mark.parametrize(
    ("commit", "name"), [(None, "0123456789ab"), ("c0ffee" * 6, "c0ffeec, 0123456789ab")]
)
def test_one_line_warns_of_runs_that_other_code_made(tmp_path, how, capsys, commit, name):
    one, two, three = (stage(tmp_path, name) for name in ("one", "two", "three"))
    last = stage(tmp_path, "last", [one, two, three])
    make([one, two, three], how)
    by_other_code(one, commit)
    capsys.readouterr()
    make([one], how)
    expected = f"warning: {one.folder}: made by other code ({name}); --remake makes it anew\n"
    assert capsys.readouterr().err == expected
    by_other_code(two, commit)
    make([last], how)
    assert capsys.readouterr().err == expected.replace(": made", " and 1 more: made")
    make([last], how)
    assert capsys.readouterr().err == ""  # the last one is of this code


def by_other_code(stage, commit=None):
    path = stage.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"code": "0123456789ab", "commit": commit}))


def test_what_other_code_made_is_made_anew_with_what_follows_from_it(tmp_path, how, capsys):
    data, other = stage(tmp_path, "data"), stage(tmp_path, "other")
    middle = stage(tmp_path, "middle", [data])
    last = stage(tmp_path, "last", [middle, other])
    make([last], how)
    by_other_code(data)
    dates = {
        each.name: (each.folder / "manifest.json").stat().st_mtime_ns for each in (data, other, middle, last)
    }
    capsys.readouterr()
    found = make([last], how, remake=True)
    assert [each.name for each in found.to_make] == ["data", "middle", "last"]
    assert capsys.readouterr().err == ""
    made = {
        each.name
        for each in (data, other, middle, last)
        if (each.folder / "manifest.json").stat().st_mtime_ns != dates[each.name]
    }
    assert made == {"data", "middle", "last"}
    assert read_manifest(data.folder)["code"] == code_digest()


def test_what_a_call_that_was_cut_off_left_is_used_unless_it_is_not_to_be(tmp_path, how):
    broken = stage(tmp_path, "work", then="fail")
    left = broken.folder.with_name(broken.folder.name + ".partial")
    for resume in (True, False):
        with pytest.raises(DataError):
            make([broken], replace(how, resume=resume))
        assert (left / "begun.txt").is_file()
        (left / "mark").touch()
        with pytest.raises(DataError):
            make([broken], replace(how, resume=resume))
        assert (left / "mark").exists() == resume


def test_a_stage_computes_on_its_own_number_of_threads(tmp_path, how, torch_threads):
    torch_threads(2)
    with threadpool_limits(2):
        before = threadpool_info()
        make([stage(tmp_path, "one", threads=1), stage(tmp_path, "all", threads=None)], how)
        assert torch.get_num_threads() == 2
        assert threadpool_info() == before
    found = notes(tmp_path)
    assert (found["one"]["threads"], set(found["one"]["numpy"])) == (1, {1})
    # Some builds of OpenCV have a pool that stays at one.
    assert (found["all"]["threads"], max(found["all"]["numpy"])) == (2, 2)


def test_data_that_are_made_are_checked_before_any_longer_work(tmp_path, how):
    def refuse():
        raise DataError("too few images")

    long = stage(tmp_path, "long")
    data = stage(tmp_path, "data")
    train = stage(tmp_path, "train", [data], check=refuse)
    with pytest.raises(DataError, match="too few images"):
        make([long, train], how)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [data.folder.name]


@pytest.mark.parametrize("jobs", [1, 2])
def test_nothing_begins_before_the_users_files_are_there(tmp_path, how, jobs):
    data = stage(tmp_path, "data")
    late = Stage("late", Work(), {"data": data, "file": tmp_path / "gone"}, tmp_path / "late", work, Gibs(1))
    with pytest.raises(DataError, match="gone: no such file or folder"):
        make([data, late], how, jobs=jobs)
    mine = stage(tmp_path, "mine").at(tmp_path / "mine")
    make([mine], how)
    with pytest.raises(UsageError, match="text was 'mine', not 'other'"):
        make([data, replace(mine, config=Work("other"))], how, jobs=jobs)
    assert not data.folder.exists()


# How many at once.


@pytest.mark.parametrize(
    ("jobs", "threads", "cores", "gib", "stages", "expected"),
    [
        (None, 1, 8, 16.0, 9, 8),  # by cores
        (None, 2, 8, 16.0, 9, 4),
        (None, 3, 8, 16.0, 9, 2),
        (None, 16, 8, 16.0, 9, 1),
        (None, None, 8, 16.0, 9, 1),  # each takes all threads
        (None, 1, 8, 6.0, 9, 3),  # by memory: 2 GiB each
        (None, 1, 8, 0.5, 9, 1),
        (None, 1, 8, 16.0, 2, 2),  # by what there is
        (None, 1, 8, 16.0, 1, 1),
        (None, 1, 8, 16.0, 0, 1),
        (3, 4, 2, 1.0, 9, 3),  # as the user says
        (3, 1, 8, 16.0, 2, 2),
        (1, 1, 8, 16.0, 9, 1),
    ],
)
def test_as_many_as_cores_and_memory_allow(
    tmp_path, monkeypatch, jobs, threads, cores, gib, stages, expected
):
    monkeypatch.setattr(making, "cores", lambda: cores)
    some = [stage(tmp_path, f"s{k}", threads=threads) for k in range(stages)]
    assert jobs_that_fit(some, Resources(max_memory=gib), jobs) == expected


def test_what_measures_time_has_no_say_in_how_many(tmp_path, monkeypatch):
    monkeypatch.setattr(making, "cores", lambda: 4)
    alone = stage(tmp_path, "time", threads=None, alone=True)
    others = [stage(tmp_path, f"s{k}") for k in range(5)]
    assert jobs_that_fit([alone, *others], Resources(max_memory=64), None) == 4
    assert jobs_that_fit([alone, stage(tmp_path, "again", alone=True)], Resources(), None) == 1


@pytest.mark.parametrize("jobs", [None, 4])
def test_one_after_another_on_a_gpu_and_under_torchrun(tmp_path, monkeypatch, jobs):
    monkeypatch.setattr(making, "cores", lambda: 8)
    some = [stage(tmp_path, f"s{k}") for k in range(4)]
    assert jobs_that_fit(some, Resources(), jobs) == 4
    for device in ("cuda", "cuda:1", "mps"):
        assert jobs_that_fit(some, Resources(device=device), jobs) == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert jobs_that_fit(some, Resources(), jobs) == 1


# Side by side.


def crowd(root):
    """A chain of three, two stages that memory keeps apart, short ones, and one that measures time."""
    chain = ["first", "short0"]  # what the others wait for, so that they end in no other order
    short = [stage(root, f"short{k}", beside=chain) for k in range(3)]
    # The first of them still runs when there is room for another stage, but not for that much memory.
    large = [
        stage(root, "large0", beside=[*chain, "middle"], seconds=0.5, gib=5.0),
        stage(root, "large1", beside=chain, gib=5.0),
    ]
    first = stage(root, "first", beside=chain)
    last = stage(root, "last", [stage(root, "middle", [first])])
    timed = stage(root, "timed", [short[0]], seconds=0.2, alone=True, threads=None)
    return [*large, *short[::-1], last, timed]


def test_side_by_side(tmp_path, how):
    root = tmp_path / "three"
    make(crowd(root), replace(how, cache=root / "notes", workers=7, max_memory=8.0), jobs=3)
    assert no_child_is_left()

    found = notes(root)
    assert len(found) == 9
    timed = found.pop("timed")
    assert timed["pid"] == os.getpid()
    assert not any(overlap(timed, note) for note in found.values())
    # In processes that are used again.
    pids = {note["pid"] for note in found.values()}
    assert 2 <= len(pids) <= 3
    assert os.getpid() not in pids
    assert {note["workers"] for note in found.values()} == {2}  # 7 of them, shared among three
    assert {note["threads"] for note in found.values()} == {1}
    # All have waited for `first` and `short0`, so these began first: the longest chains are behind them.
    assert not overlap(found["large0"], found["large1"])
    for moment in (note["begin"] for note in found.values()):
        running = [name for name, note in found.items() if note["begin"] <= moment < note["end"]]
        assert len(running) <= 3
        assert sum(5 if name.startswith("large") else 1 for name in running) <= 8

    # The bytes are those of one process, which has nothing to wait for.
    one = tmp_path / "one"
    (one / "notes").mkdir(parents=True)
    for name in ("first", "short0", "middle"):
        (one / "notes" / f"{name}.begun").touch()
    make(crowd(one), replace(how, cache=one / "notes"), jobs=1)
    assert {note["pid"] for note in notes(one).values()} == {os.getpid()}
    assert results(one / "runs") == results(root / "runs")


def test_what_the_most_work_waits_for_begins_first(tmp_path):
    """Two short stages in a row take less than a long one, wherever the long one stands."""
    short = stage(tmp_path, "short", cost=1.0)
    after = stage(tmp_path, "after", [short], cost=1.0)
    long = stage(tmp_path, "long", [stage(tmp_path, "before long", cost=0.5)], cost=5.0)
    remaining = making._remaining_seconds([short, after, *long.needs, long])
    assert {folder.name.rsplit("-", 1)[0]: seconds for folder, seconds in remaining.items()} == {
        "short": 2.0,
        "after": 1.0,
        "before long": 5.5,
        "long": 5.0,
    }


@pytest.mark.parametrize(("costs", "jobs", "expected"), [
    ([], 2, 0.0),
    ([1, 1, 5], 1, 7.0),
    ([1, 1, 5], 2, 5.0),  # the longest one
    ([1] * 6, 2, 3.0),
])  # fmt: skip
def test_how_long_stages_take_among_the_jobs(tmp_path, how, costs, jobs, expected):
    some = [stage(tmp_path, f"s{k}", cost=float(cost)) for k, cost in enumerate(costs)]
    assert making.expected_seconds(some, how, jobs) == expected


def test_how_long_a_chain_takes(tmp_path, how):
    short = stage(tmp_path, "short", cost=1.0)
    after = stage(tmp_path, "after", [short], cost=2.0)
    assert making.expected_seconds([short, after, stage(tmp_path, "other", cost=1.0)], how, 3) == 3.0


def test_those_that_fill_the_same_cache_begin_apart(tmp_path, how):
    """The second that would fill it takes its turn after one that fills another."""
    beside = {"a0": ["b0"], "a1": ["b0"], "b0": ["a0"], "b1": ["a0"]}
    some = [stage(tmp_path, name, beside=beside[name], shares=name[0]) for name in ("a0", "a1", "b0", "b1")]
    make(some, how, jobs=2)
    assert set(notes(tmp_path)) == set(beside)


def test_where_nothing_else_can_they_run_beside_each_other(tmp_path, how, capsys):
    some = [stage(tmp_path, f"a-{k}", beside=[f"a-{1 - k}"], shares="a", said=f"I am {k}") for k in range(2)]
    make(some, how, jobs=2)
    assert set(notes(tmp_path)) == {"a-0", "a-1"}
    # What they say begins with what they are called.
    assert sorted(capsys.readouterr().err.splitlines()) == ["a-0: I am 0", "a-1: I am 1"]
    make([stage(tmp_path, "one", said="I am alone")], how, jobs=2)
    assert capsys.readouterr().err == "I am alone\n"


def test_one_that_fails_ends_the_others(tmp_path, how):
    good = stage(tmp_path, "good", seconds=120)
    bad = stage(tmp_path, "bad", beside=["good"], then="fail")
    later = stage(tmp_path, "later", [bad])
    begin = time.monotonic()
    with pytest.raises(DataError, match=r"^x\.jpg: broken; restore it$"):
        make([good, later], how, jobs=2)
    assert time.monotonic() - begin < 100
    assert no_child_is_left()
    assert not good.folder.exists()
    assert not later.folder.exists()
    assert good.folder.with_name(good.folder.name + ".partial").is_dir()  # to be resumed


def test_a_process_that_dies_is_said_in_one_line(tmp_path, how):
    some = [stage(tmp_path, "good", seconds=120), stage(tmp_path, "bad", beside=["good"], then="die")]
    with pytest.raises(SppnetError, match="perhaps for lack of memory; the same command resumes") as caught:
        make(some, how, jobs=2)
    assert "\n" not in str(caught.value)
    assert no_child_is_left()


def test_errors_come_through_whole():
    """From one process to another."""
    errors = (DataError("a: b"), UsageError("c"), SppnetError("d"), NeedsData("give --data", "VOC 2007"))
    for error in (*errors, RowsFull("e")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy)) == (type(error), str(error))
    assert pickle.loads(pickle.dumps(errors[-1])).what == "VOC 2007"


# What is killed or interrupted.

SCRIPT = """
import sys
from pathlib import Path
import artificial_stages
from sppnet_cli.chain import Resources
from sppnet_cli.cli import run
from sppnet_cli.making import make

if __name__ == "__main__":
    root, stages = Path(sys.argv[1]), getattr(artificial_stages, sys.argv[2])
    run(lambda **_: make(stages(root), Resources(cache=root / "notes"), jobs=2) and None)
"""

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="needs Linux's list of processes"
)


def start(tmp_path, root, stages):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, str(script), str(root), stages],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def begun(root):
    return len(list(root.glob("runs/*.partial/begun.txt")))


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@needs_proc
def test_a_killed_call_ends_its_processes_and_goes_on_to_the_same_bytes(tmp_path):
    root = tmp_path / "killed"
    process = start(tmp_path, root, "pairs")
    assert eventually(lambda: begun(root) == 2, 60)
    workers = children(process.pid)
    assert len(workers) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert eventually(lambda: not any(map(is_alive, workers)), 2)
    assert not list(root.glob("runs/after*"))

    make(pairs(root), Resources(cache=root / "notes"), jobs=2)
    whole = tmp_path / "whole"
    (whole / "notes").mkdir(parents=True)
    (whole / "notes" / "s1.begun").touch()
    make(pairs(whole), Resources(cache=whole / "notes"))
    assert results(root / "runs") == results(whole / "runs")
    assert not list(root.glob("runs/*.partial"))


@needs_proc
@pytest.mark.parametrize("to_all", [True, False], ids=["Ctrl-C", "kill -INT"])
def test_ctrl_c_ends_all(tmp_path, to_all):
    """A terminal's Ctrl-C reaches every process; the first one answers."""
    root = tmp_path / "interrupted"
    process = start(tmp_path, root, "endless")
    assert eventually(lambda: begun(root) == 2, 60)
    workers = children(process.pid)
    (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert re.fullmatch(r"error: interrupted; [^\n]*\n", err)
    assert eventually(lambda: not any(map(is_alive, workers)), 2)


# A real chain.


@pytest.mark.slow
def test_the_number_of_jobs_changes_no_bit_of_a_chain(tmp_path):
    profile = replace(find_profile("tiny"), finetune=((1e-3, 3),), train_windows=20, test_windows=20)
    roots = [tmp_path / f"jobs{jobs}" for jobs in (1, 2)]
    for root, jobs in zip(roots, (1, 2), strict=True):
        ws = Workspace(profile, root=root, jobs=jobs)
        few = replace(ws, limit=8)
        detections = [few.detections("spp", (480,), row) for row in ("ftfc7 bb", "pool5")]
        svms = ws.tested_svms(Column("spp6", "full", 224), "fc7", "VOC")
        few.make(*detections)
        ws.make(*svms)
    one, two = (without_places_and_speeds(root) for root in roots)
    assert len(one) > 30
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []


def without_places_and_speeds(root):
    """All results; the folder above them, and how quick training was, are no part of what was computed."""
    found = {}
    for name, value in results(root / "tiny").items():
        if name.endswith("metrics.jsonl"):
            value = re.sub(rb'"(seconds|images_per_second)": [0-9.]+', b"", value)
        if not name.startswith("cache"):
            found[name] = value.replace(bytes(root), b"")
    return found
