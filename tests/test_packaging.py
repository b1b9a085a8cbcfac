"""What `pip install .` installs: the whole package, the experiments inside of it, and nothing beside it."""

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from sppnet_cli import __version__, cli
from sppnet_cli.provenance import code_digest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built without a network from a copy of what belongs to it."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("sppnet_cli", "experiments"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "tests").mkdir()
    (folder / "tests" / "__init__.py").touch()  # is not installed
    program = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return next((folder / "dist").glob("*.whl"))


def sources(folder):
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_every_file_of_the_package_is_installed_and_no_other(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    package = {f"sppnet_cli/{name}" for name in sources(ROOT / "sppnet_cli")}
    experiments = {f"sppnet_cli/experiments/{name}" for name in sources(ROOT / "experiments")}
    assert names == package | experiments
    assert "sppnet_cli/py.typed" in names
    assert "sppnet_cli/tables/published/table6.csv" in names
    assert "sppnet_cli/experiments/table6.py" in names


def test_the_installed_command_finds_its_experiments(wheel, tmp_path):
    site = tmp_path / "site packages"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    (site / "experiments").mkdir()  # of another distribution
    (site / "experiments" / "__init__.py").write_text("raise SystemExit('the wrong experiments')")
    program = (
        "from sppnet_cli.cli.reproduce import NAMES, experiment_module\n"
        "for name in NAMES:\n"
        "    print(experiment_module(name).__file__)\n"
        "from sppnet_cli.provenance import code_digest\n"
        "print(code_digest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *files, code = done.stdout.splitlines()
    assert {Path(name).parent for name in files} == {site / "sppnet_cli" / "experiments"}
    assert code == code_digest()  # its runs and those of the source tree are the same


def test_the_makefile_refuses_as_the_package_does():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    requires = settings["options"]["python_requires"]
    rule = re.search(r"not (\(.*\)) <= sys.version_info\[:3\] < (\(.*?\))\)", (ROOT / "Makefile").read_text())
    assert rule is not None
    least, beyond = (".".join(re.findall("[0-9]+", part)) for part in rule.groups())
    assert requires == f">={least},<{beyond}"
    classifiers = re.findall(r"Python :: 3\.([0-9]+)", settings["metadata"]["classifiers"])
    assert list(map(int, classifiers)) == list(range(int(least.split(".")[1]), int(beyond.split(".")[1])))


@pytest.mark.parametrize("everything", [False, True])
def test_make_clean_keeps_networks(tmp_path, everything):
    for name in ("runs/mini/cache/x", "runs/mini/network-1/x", "my results/x", "results/x", ".venv/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    command = ["make", "-f", str(ROOT / "Makefile"), "clean", "RESULTS=my results"]
    subprocess.run(command + ["ALL=1"] * everything, cwd=tmp_path, check=True, capture_output=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("x")}
    assert left == {"results/x", ".venv/x"} | ({"runs/mini/network-1/x"} if not everything else set())


def test_results_may_lie_in_a_folder_whose_name_has_a_space(tmp_path):
    """No target hands `my` and `results` to a command as two words."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()
    targets = re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    command = ["make", "-f", str(ROOT / "Makefile"), "-n", "-o", ".venv/.installed", "RESULTS=my results"]
    taken = 0
    for target in targets:
        done = subprocess.run([*command, target], cwd=tmp_path, check=True, capture_output=True, text=True)
        words = shlex.split(done.stdout)
        assert not {"my", "results", "results/benchmark"} & set(words), target
        taken += any(word.startswith("my results") for word in words)
    assert taken > 20


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert citation["version"] == released[0] == __version__
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", __version__)
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["license"] == "MIT"


def test_windows_is_told_of_wsl(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(cli, "_register", lambda: pytest.fail("imports what Windows lacks"))
    with pytest.raises(SystemExit) as stop:
        cli.main()
    captured = capsys.readouterr()
    assert (stop.value.code, captured.out, captured.err.count("\n")) == (1, "", 1)
    assert "WSL" in captured.err


@pytest.mark.parametrize("module", ["sppnet_cli.cli", "sppnet_cli"])
def test_windows_gets_as_far_as_that_line(module):
    """What is imported before it needs nothing that Windows lacks."""
    program = (
        "import sys\n"
        "for name in ('resource', 'fcntl', 'pwd', 'grp', 'termios'): sys.modules[name] = None\n"
        f"import {module}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
