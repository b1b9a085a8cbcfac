"""docs/own-photos.md explains every kind that an import counts."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_kind_is_explained():
    sources = "".join(path.read_text() for path in (ROOT / "sppnet_cli/data/imports").glob("*.py"))
    calls = re.findall(r"(?:\.mend|\.leave_out)\(\s*\"([a-z_]+)\"", sources)
    kinds = {
        *calls,
        *re.findall(r"kind = \"([a-z_]+)\" if", sources),
        "images_missing",
        "classes_without_objects",
    }
    page = (ROOT / "docs/own-photos.md").read_text()
    assert len(kinds) > 25
    assert [kind for kind in sorted(kinds) if kind.replace("_", " ") not in page] == []
