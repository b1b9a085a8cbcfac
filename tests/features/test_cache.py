import errno
import hashlib
import subprocess
import sys
import time
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock

from sppnet_cli.features import cache as module
from sppnet_cli.features.cache import FeatureCache

FILE = 2128  # bytes of 1,000 halves, with a header of 128
ONES = torch.ones(1000)


def arrays_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.npy"))


def bytes_below(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.npy"))


def fill(cache, names):
    for name in names:
        assert torch.equal(cache(f"{name}.npy", lambda: ONES), ONES.half())


def test_sixteen_bits_come_back_whether_kept_or_not(tmp_path):
    third = torch.tensor([1 / 3, 7.0])
    for gigabytes in (0.0, 1.0, 1.0):
        found = FeatureCache(tmp_path / "maps", gigabytes, weighed=False)("a.npy", lambda: third)
        assert found.dtype == torch.float16
        assert found.tolist() == [0.333251953125, 7.0]  # the nearest half to a third


def test_numbers_beyond_sixteen_bits_come_back_whole(tmp_path):
    large = torch.tensor([1 / 3, 65504.0])
    for gigabytes in (0.0, 1.0, 1.0):
        found = FeatureCache(tmp_path / "maps", gigabytes, weighed=False)("a.npy", lambda: large)
        assert torch.equal(found, large)


def test_what_other_caches_hold_counts(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.npy").write_bytes(bytes(6000))
    cache = FeatureCache(tmp_path / "mine", 1e-5, weighed=False)
    fill(cache, "abc")
    assert arrays_below(tmp_path / "mine") == ["a.npy"]
    assert not cache.keeps


def test_caches_filled_in_turns_keep_one_bound(tmp_path):
    caches = [FeatureCache(tmp_path / name, 10.5 * FILE / 1e9, weighed=False) for name in ("a", "a", "b")]
    for k in range(20):
        for number, cache in enumerate(caches):
            fill(cache, [f"{k}-{number}"])
    assert bytes_below(tmp_path) == 10 * FILE


def test_a_new_cache_counts_what_is_there_and_not_what_was_noted(tmp_path):
    fill(FeatureCache(tmp_path / "maps", 3.5 * FILE / 1e9, weighed=False), "a")
    (tmp_path / "maps" / "b.npy").write_bytes(bytes(2 * FILE))
    fill(FeatureCache(tmp_path / "maps", 3.5 * FILE / 1e9, weighed=False), "c")
    assert arrays_below(tmp_path) == ["maps/a.npy", "maps/b.npy"]


def test_there_is_room_again_once_files_are_removed(tmp_path):
    cache = FeatureCache(tmp_path / "maps", 2.5 * FILE / 1e9, weighed=False)
    fill(cache, "ab")
    for path in (tmp_path / "maps").iterdir():
        path.unlink()
    fill(cache, "cd")
    assert arrays_below(tmp_path) == ["maps/c.npy", "maps/d.npy"]


def test_what_a_killed_writer_left_behind_is_removed(tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / ".a.npy.123.tmp").write_bytes(bytes(9000))
    (tmp_path / "bytes").write_bytes(b"")
    fill(FeatureCache(tmp_path / "maps", 1.5 * FILE / 1e9, weighed=False), "a")
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["a.npy"]


def test_the_last_of_a_disk_is_left_to_results(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(int(2e9) + 3000 - bytes_below(tmp_path)))
    fill(FeatureCache(tmp_path / "mine", 50, weighed=False), "ab")
    assert arrays_below(tmp_path) == ["mine/a.npy"]


@pytest.mark.parametrize(
    "error", [OSError(errno.EROFS, "Read-only file system"), NotImplementedError("no flock")]
)
def test_a_folder_that_cannot_be_locked(tmp_path, capsys, monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(module.FileLock, "acquire", refuse)
    fill(FeatureCache(tmp_path / "mine", 1, weighed=False), "ab")
    assert arrays_below(tmp_path) == []
    assert capsys.readouterr().err.count("warning: features are no longer cached") == 1


def test_a_cache_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    fill(FeatureCache(tmp_path / "file" / "mine" / "deep", 1, weighed=False), "a")
    assert "warning: features are no longer cached" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "kept"), [(3.0, True), (1.0, False)])
def test_what_is_quicker_computed_than_read_is_not_cached(tmp_path, monkeypatch, capsys, seconds, kept):
    """To read takes 2 seconds of a clock that only this test moves."""
    hands = SimpleNamespace(now=0.0, perf_counter=lambda: hands.now)
    monkeypatch.setattr("sppnet_cli.clock.time", hands)
    read, computed = module.read_array, []

    def slow_read(*args):
        hands.now += 2
        return read(*args)

    monkeypatch.setattr(module, "read_array", slow_read)

    def compute():
        computed.append(None)
        hands.now += 100 if len(computed) < 3 else seconds  # the first computations are slow
        return torch.tensor([1 / 3])

    cache = FeatureCache(tmp_path / "mine", 1, weighed=True)
    for name in [*range(15), *range(15)]:
        assert cache(f"{name}.npy", compute).tolist() == [0.333251953125]  # the same bits either way
    assert len(arrays_below(tmp_path)) == (15 if kept else 10)
    assert len(computed) == (15 if kept else 30)
    assert cache.keeps == kept
    assert cache.has("3.npy")
    assert cache.reads("3.npy") == kept
    assert capsys.readouterr().err.count("conv5 maps are not cached") == (not kept)


def test_a_writer_that_takes_too_long_is_not_waited_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "FileLock", lambda path, timeout: FileLock(path, timeout=timeout / 100))
    cache = FeatureCache(tmp_path / "mine", 1, weighed=False)
    with FileLock(tmp_path / "lock"):
        fill(cache, "a")
    assert arrays_below(tmp_path) == []
    assert capsys.readouterr().err == ""
    fill(cache, "a")
    assert arrays_below(tmp_path) == ["mine/a.npy"]


def test_a_file_that_another_wrote_meanwhile_stays(tmp_path):
    first, second = (FeatureCache(tmp_path / "mine", 1, weighed=False) for _ in range(2))
    places = []

    def compute():
        fill(first, "a")  # another process, in the meantime
        places.append((tmp_path / "mine" / "a.npy").stat().st_ino)
        return ONES

    assert torch.equal(second("a.npy", compute), ONES.half())
    assert (tmp_path / "mine" / "a.npy").stat().st_ino == places[0]


PROCESS = """
import hashlib, sys, time
from pathlib import Path
import torch
from sppnet_cli.features.cache import FeatureCache

root, number, gigabytes, weighed, start = sys.argv[1:]
cache = FeatureCache(Path(root) / "maps", float(gigabytes), weighed=weighed == "True")
time.sleep(max(0, float(start) - time.time()))
for step in range(60):
    name = step if number == "0" else 59 - step  # the two meet halfway

    def compute():
        return torch.randn(20_000, generator=torch.Generator().manual_seed(name))

    array = cache(f"{name}.npy", compute)
    print(name, hashlib.sha256(array.numpy().tobytes()).hexdigest())
"""
SIZE = 2 * 20_000 + 128


def digest(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


@pytest.mark.parametrize(("room", "weighed"), [(13, False), (100, False), (100, True)])
def test_processes_side_by_side_share_files_and_bound_and_change_no_bit(tmp_path, room, weighed):
    expected = {
        str(name): digest(torch.randn(20_000, generator=torch.Generator().manual_seed(name)).half().numpy())
        for name in range(60)
    }
    start, gigabytes = time.time() + 4, (room + 0.5) * SIZE / 1e9
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, *map(str, (tmp_path, k, gigabytes, weighed, start))],
            stdout=subprocess.PIPE,
            text=True,
        )
        for k in range(2)
    ]
    while any(process.poll() is None for process in processes):
        for path in tmp_path.rglob("[0-9]*.npy"):
            assert digest(np.load(path)) == expected[path.stem]  # never a torn one
    for process in processes:
        out, _ = process.communicate()
        assert process.returncode == 0
        assert dict(line.split() for line in out.splitlines()) == expected
    kept = [path.stat().st_size for path in tmp_path.rglob("*.npy")]
    assert set(kept) == {SIZE}
    assert len(kept) <= min(room, 60) if weighed else len(kept) == min(room, 60)
    assert not list(tmp_path.rglob("*.tmp"))
