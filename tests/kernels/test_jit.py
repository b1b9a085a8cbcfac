import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sppnet_cli
from sppnet_cli.kernels.jit import kernel

PACKAGE = Path(sppnet_cli.__file__).parent
OUTER = """
from inlined import FACTOR, twice
from sppnet_cli.kernels.jit import kernel

@kernel
def outer(x):
    return FACTOR * twice(x)
"""
INLINED = """
import numba

FACTOR = 1

@numba.njit(inline="always")
def twice(x):
    return 2 * x
"""
# Prints what the kernel gives for an int and for a float, and whether each was read back.
CALL = """
import outer
print(outer.outer(3), outer.outer(0.5), sum(outer.outer.stats.cache_hits.values()))
"""


def start(folder, script=CALL, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(PACKAGE.parent)])} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder, script=CALL, **environment):
    process = start(folder, script, **environment)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert err == ""
    return out.split()


@pytest.fixture
def toy(tmp_path):
    """Folder of a kernel and of what it inlines."""
    (tmp_path / "outer.py").write_text(OUTER)
    (tmp_path / "inlined.py").write_text(INLINED)
    return tmp_path


def kernels_in(folder):
    return sorted(path.name for path in folder.rglob("*.kernel"))


def test_a_kernel_is_compiled_once_and_read_back(toy):
    assert run(toy) == ["6", "1.0", "0"]
    kept = kernels_in(toy)
    assert len(kept) == 2  # for an int and for a float
    assert run(toy) == ["6", "1.0", "2"]
    assert kernels_in(toy) == kept


@pytest.mark.parametrize(
    ("old", "new", "expected"), [("2 * x", "5 * x", "15"), ("FACTOR = 1", "FACTOR = 7", "42")]
)
def test_a_change_in_an_inlined_file_is_seen(toy, old, new, expected):
    run(toy)
    before = kernels_in(toy)
    path = toy / "inlined.py"
    times = path.stat().st_mtime_ns
    path.write_text(INLINED.replace(old, new))
    os.utime(path, ns=(times, times))  # as after an unpacked archive
    assert run(toy)[::2] == [expected, "0"]
    assert not set(kernels_in(toy)) & set(before)  # what cannot be used any more is gone
    path.write_text(INLINED)
    assert run(toy) == ["6", "1.0", "0"]


def test_a_change_in_the_package_is_seen_by_the_kernels_that_inline_it(tmp_path):
    """`lrn.widen`, in a copy of the package, is inlined by `lrn_pool` beside it and by a kernel of another folder."""
    shutil.copytree(PACKAGE, tmp_path / "sppnet_cli", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "elsewhere.py").write_text("""
from sppnet_cli.kernels.jit import kernel
from sppnet_cli.kernels.lrn import widen

@kernel
def number(bits):
    return widen(bits)
""")
    script = """
import elsewhere, numpy, torch
from sppnet_cli.kernels import lrn_pool
maps, out = torch.ones(1, 3, 3, 1, dtype=torch.bfloat16), torch.empty(1, 1, 1, 1, dtype=torch.bfloat16)
lrn_pool.pool_rows(maps, out, 0, (0, 3), 0, 0.0)
print(lrn_pool.__file__, out.item(), elsewhere.number(numpy.uint16(0x3F80)))
"""
    environment = {"PYTHONPATH": str(tmp_path)}
    lrn = tmp_path / "sppnet_cli" / "kernels" / "lrn.py"
    assert run(tmp_path, script, **environment) == [str(lrn.with_name("lrn_pool.py")), "1.0", "1.0"]
    shift = "np.uint32(np.uint32(bits) << np.uint32(16))"
    text = lrn.read_text()
    assert text.count(shift) == 1
    lrn.write_text(text.replace(shift, f"np.uint32({shift} + np.uint32(1 << 23))"))  # twice the number
    assert run(tmp_path, script, **environment)[1:] == ["2.0", "2.0"]


def test_kernels_run_where_nothing_can_be_written(toy):
    """Neither the folder of the code nor the user's: a file lies where the folder would be made."""
    (toy / "__pycache__").write_text("")
    nowhere = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/cache", "PYTHONDONTWRITEBYTECODE": "1"}
    for _ in range(2):
        assert run(toy, **nowhere) == ["6", "1.0", "0"]
    assert kernels_in(toy) == []


def test_kernels_of_read_only_code_are_kept_for_the_user(toy, tmp_path):
    (toy / "__pycache__").write_text("")
    home = tmp_path / "home"
    environment = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    assert run(toy, **environment) == ["6", "1.0", "0"]
    assert run(toy, **environment) == ["6", "1.0", "2"]
    assert len(kernels_in(home)) == 2


def test_a_broken_file_is_compiled_again(toy):
    run(toy)
    kept = kernels_in(toy)
    for path, content in zip(sorted(toy.rglob("*.kernel")), (b"", b"broken"), strict=True):
        path.write_bytes(content)
    assert run(toy) == ["6", "1.0", "0"]
    assert kernels_in(toy) == kept
    assert run(toy) == ["6", "1.0", "2"]


def test_a_full_disk_keeps_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)

    @kernel
    def half(x):
        return x / 2

    assert half(3) == 1.5


def test_division_by_zero_is_infinite():
    @kernel
    def inverse(x):
        return 1 / x

    assert inverse(0.0) == float("inf")
