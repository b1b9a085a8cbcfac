"""docs/architecture.md and CONTRIBUTING.md name files and functions that exist."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sppnet_cli"
PAGES = ("docs/architecture.md", "CONTRIBUTING.md")
WRITTEN = {"detections.csv", "proposal_recall.csv", "manifest.json"}  # files of runs


def spans(page):
    """What stands between backticks, outside of blocks of code."""
    text = re.sub(
        r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    return re.findall(r"`([^`\n]+)`", text)


@functools.cache
def names_of(path):
    """Functions, methods, classes, constants and fields that a source file defines."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def all_names():
    return set().union(
        *(
            names_of(path)
            for folder in ("sppnet_cli", "experiments")
            for path in (ROOT / folder).rglob("*.py")
        )
    )


def places(span):
    """Where a file or folder of this name may lie."""
    return [ROOT / span, PACKAGE / span]


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page):
    named = [span for span in spans(page) if re.fullmatch(r"[\w/]+(\.(py|md|csv|json|cfg|toml)|/)", span)]
    assert len(named) > 5
    assert [span for span in named if span not in WRITTEN and not any(p.exists() for p in places(span))] == []


@pytest.mark.parametrize("page", PAGES)
def test_named_functions_and_classes_exist(page):
    called = [span[:-2] for span in spans(page) if re.fullmatch(r"\w+\(\)", span)]
    classes = [span for span in spans(page) if re.fullmatch(r"[A-Z]+[a-z]\w+", span)]
    constants = [
        span
        for span in spans(page)
        if re.fullmatch(r"[A-Z][A-Z_]{2,}", span) and not span.startswith("SPPNET_")
    ]
    known = all_names()
    assert [name for name in (*called, *classes, *constants) if name not in known] == []


def test_the_functions_of_the_walk_are_in_its_files():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d+ \| .* \| `([\w/]+\.py)` \| (.*) \|$", page, flags=re.MULTILINE)
    assert len(rows) == len(dict(rows)) == 20
    for file, functions in rows:
        path = next(place for place in places(file) if place.is_file())
        for name in re.findall(r"`(\w+)(?:\(\))?`", functions):
            assert name in names_of(path), f"{name} is not in {file}"


def test_functions_named_with_their_file_are_in_it():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").replace("\n", " ")
    pairs = re.findall(r"`(\w+)(?:\(\))?` in `([\w/]+\.py)`", page)
    assert len(pairs) > 10
    for name, file in pairs:
        path = next(place for place in places(file) if place.is_file())
        assert name in names_of(path), f"{name} is not in {file}"
