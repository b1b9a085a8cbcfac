"""Where a result comes from: code, commit, versions, machine, command."""

import re
import subprocess
import sys

import pytest
import torch

from sppnet_cli import provenance
from sppnet_cli.provenance import code_digest, code_name, command_line, commit, cores, environment, machine


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "package"
    (folder / "stages").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "stages" / "train.py").write_text("rate = 1\n")
    return folder


def digest(package):
    code_digest.cache_clear()
    return code_digest(package)


def test_the_digest_is_of_every_line_and_name_of_the_source(package):
    first = digest(package)
    assert re.fullmatch("[0-9a-f]{12}", first)
    (package / "notes.txt").write_text("nothing that runs")
    (package / "stages" / "train.pyc").write_text("what Python makes of it")
    assert digest(package) == first
    source = package / "stages" / "train.py"
    source.write_text("rate = 2\n")
    changed = digest(package)
    source.write_text("rate = 1\n")
    assert digest(package) == first != changed
    source.rename(package / "stages" / "test.py")
    moved = digest(package)
    (package / "more.py").write_text("")
    assert len({first, changed, moved, digest(package)}) == 4


def test_where_the_package_lies_does_not_matter(package, tmp_path):
    first = digest(package)
    assert digest(package.rename(tmp_path / "elsewhere")) == first


def test_the_packages_own_digest():
    assert code_digest() == code_digest(provenance.PACKAGE)
    assert (provenance.PACKAGE / "chain.py").is_file()


def git(folder, *arguments):
    identity = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_that_of_the_packages_own_repository(package, tmp_path):
    assert commit(package) is None
    commit.cache_clear()
    git(tmp_path, "init", "-q")
    assert commit(package) is None  # no commit yet
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    commit.cache_clear()
    assert commit(package) == git(tmp_path, "rev-parse", "HEAD")
    # A package that is installed somewhere below somebody's repository is not of it.
    inner = tmp_path / "site-packages" / "package"
    inner.mkdir(parents=True)
    assert commit(inner) is None


def test_without_git_there_is_no_commit(package, tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(package) is None


def test_how_code_is_called():
    assert code_name({"commit": "c0ffee" * 6, "code": "0123456789ab"}) == "c0ffeec, 0123456789ab"
    assert code_name({"commit": None, "code": "0123456789ab"}) == "0123456789ab"
    assert code_name({}) == "an unknown version"


def test_the_machine(torch_threads):
    torch_threads(2)
    found = machine()
    assert list(found) == ["processor", "system", "threads", "gpu", "library"]
    assert found["threads"] == 2
    assert (found["gpu"] is None) == (not torch.cuda.is_available())
    assert found["processor"] == provenance.processor()
    assert re.search("[A-Za-z]{3}", found["processor"])
    assert re.search("[A-Za-z]{3}", found["system"])


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (
            "Architecture:  x86_64\nModel name:  AMD EPYC\nCPU family:  25\nModel:  1\nModel:  99\n",
            "AMD EPYC (family 25, model 1)",
        ),
        ("Model name: Apple M2\n", "Apple M2"),
    ],
)
def test_the_processors_name(monkeypatch, told, name):
    monkeypatch.setattr("torch.utils.collect_env.get_cpu_info", lambda run: told)
    assert provenance.processor.__wrapped__() == name


def test_a_system_that_says_nothing_about_its_processor(monkeypatch):
    monkeypatch.setattr("torch.utils.collect_env.get_cpu_info", lambda run: None)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert provenance.processor.__wrapped__() == "riscv64"


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    assert cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert cores() == 1


def test_the_command_as_typed(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/me/.venv/bin/sppnet", "detect", "--data", "/data/VOCdevkit"])
    assert command_line() == "sppnet detect --data /data/VOCdevkit"


def test_versions():
    found = environment()
    assert {"sppnet", "python", "machine", "cpus", "torch", "torchvision", "numpy", "numba"} <= found.keys()
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
