"""Data goes from left to right: a folder imports only what stands to its left (DESIGN section 1)."""

import ast
import functools
from pathlib import Path

import pytest

PACKAGE = "sppnet_cli"
ROOT = Path(__file__).parents[1] / PACKAGE
FOLDERS = (
    "data", "kernels", "network", "features", "learning", "detection", "export", "evaluation", "stages", "tables", "report", "benchmark", "cli",
)  # fmt: skip
TOP = (
    "api", "atomic", "building", "chain", "clock", "console", "digests", "distributed", "errors", "files", "inventory", "libraries", "making", "memory", "names",
    "processes", "protocols", "provenance", "records", "relay", "runs",
    "threads",
)  # fmt: skip
SOURCES = sorted(ROOT.rglob("*.py"))


def module_of(path):
    """The dotted name of a source file, and of the package that its relative imports start from."""
    parts = (PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__":
        return parts[:-1], parts[:-1]
    return parts, parts[:-1]


@functools.cache
def imports_of(path):
    """Every module that a source file imports, wherever in the file, as tuples of names."""
    _, package = module_of(path)
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            # `from a.b import c`: c may be a module.
            found += [(*base, alias.name) for alias in node.names]
    return found


def rank(module):
    """Position from left to right of a module of the package; 0 for what stands at its top."""
    part = module[1] if len(module) > 1 else ""
    return FOLDERS.index(part) + 1 if part in FOLDERS else 0


def test_every_folder_and_top_module_has_its_place():
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert folders <= set(FOLDERS)
    assert {path.stem for path in ROOT.glob("*.py")} == {"__init__", "__main__", *TOP}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_come_from_the_left(path):
    module, _ = module_of(path)
    if module in ((PACKAGE,), (PACKAGE, "__main__"), (PACKAGE, "api")):
        return  # doors: of the command line, and of the public API
    wrong = [
        ".".join(found) for found in imports_of(path) if found[0] == PACKAGE and rank(found) > rank(module)
    ]
    assert not wrong


def test_main_opens_the_command_line_alone():
    found = {rank(module) for module in imports_of(ROOT / "__main__.py") if module[0] == PACKAGE}
    assert found == {rank((PACKAGE, "cli"))}


def test_only_the_command_line_knows_click():
    users = {
        path.relative_to(ROOT).parts[0] for path in SOURCES if "click" in {m[0] for m in imports_of(path)}
    }
    assert users == {"cli"}


def test_only_the_console_knows_rich():
    users = {
        path.relative_to(ROOT).parts[0] for path in SOURCES if "rich" in {m[0] for m in imports_of(path)}
    }
    assert users == {"console.py"}


def test_only_the_command_line_and_the_page_know_tables():
    users = {
        path.relative_to(ROOT).parts[0]
        for path in SOURCES
        if any(module[:2] == (PACKAGE, "tables") for module in imports_of(path))
    }
    assert users <= {"tables", "report", "cli"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import click", [("click",)]),
        ("import rich.table as t, os", [("rich", "table"), ("os",)]),
        ("def f():\n    from sppnet_cli.data import voc", [("sppnet_cli", "data", "voc")]),
        ("from . import zf5", [("sppnet_cli", "network", "zf5")]),
        ("from ..data.voc import load_voc", [("sppnet_cli", "data", "voc", "load_voc")]),
        ("from .. import console", [("sppnet_cli", "console")]),
    ],
)
def test_the_reading_of_imports(source, expected, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "network").mkdir()
    path = tmp_path / "network" / "module.py"
    path.write_text(source)
    assert imports_of(path) == expected
