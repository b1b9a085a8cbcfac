"""The paper's claims: which comparisons of its tables hold in the measured ones, and how surely.

    make claims        (sppnet reproduce claims --profile mini)

Compares the two cells of each claim in results/<profile>/table<n>.json.  The interval of their difference comes
from what each test image contributed (results/<profile>/outcomes), where the table's experiment kept that.

Cost: seconds with the mini tables, minutes with those of the full test sets.
"""

import math
from pathlib import Path
from typing import Any

from sppnet_cli import console
from sppnet_cli.tables.claims import certainty, count_verdicts, difference, summary, write_claims


def write(folder: Path, profile: str) -> dict[str, Any]:
    """Evaluate the claims on the tables in `folder`, write and print them; returns them for `--json`."""
    claims = write_claims(folder)
    records = claims.to_dict("records")
    rows = [
        (
            row["id"],
            row["claim"],
            *(format_number(row[name]) for name in ("ours_better", "ours_worse")),
            difference(row["id"], row["low"], row["high"]),
            row["verdict"],
            certainty(row["low"], row["high"], row["images"]),
        )
        for row in records
    ]
    console.table(
        f"Claims of the paper ({profile})",
        ["id", "claim", "better", "worse", "better by (95%)", "verdict", ""],
        rows,
    )
    console.status(f"{summary(claims)}; written to {folder}/claims.csv and .md")
    return {
        **count_verdicts(claims),
        "claims": [{name: or_none(value) for name, value in row.items()} for row in records],
    }


def or_none(value: object) -> object:
    """A value for JSON, which has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


def format_number(value: float) -> str:
    """Four significant digits, empty where there is none."""
    return "" if math.isnan(value) else f"{value:.4g}"
