"""The paper's claims: which comparisons of its tables hold in the measured ones, and how certainly.

    make claims        (sppnet reproduce claims --profile mini)

Compares the two cells of each claim in results/<profile>/table<n>.json.  The interval of their difference comes from
resampling what each test image contributed (results/<profile>/outcomes).

Cost: seconds with the mini tables, minutes with those of the full test sets.
"""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from sppnet_cli import console
from sppnet_cli.stages.profiles import find_profile
from sppnet_cli.tables.claims import (
    both_sides,
    count_verdicts,
    difference,
    speed_table,
    summary,
    verdict,
    write_claims,
)

FILES = ("claims.csv", "claims.md")
COLOURS = {"holds": "green", "fails": "red"}


def write(folder: Path, profile: str) -> dict[str, Any]:
    """Evaluate the claims on the tables in `folder`, write and print them; returns them for `--json`."""
    claims = write_claims(folder)
    show(claims, profile)
    console.status(f"{summary(claims)}; written to {folder}/claims.csv and .md")
    return {
        **count_verdicts(claims),
        "claims": [
            {name: or_none(value) for name, value in row.items()} for row in claims.to_dict("records")
        ],
    }


def show(claims: pd.DataFrame, profile: str) -> None:
    """Print the claims that were measured, and their speed-ups."""
    measured = claims[claims["verdict"] != "not measured"]
    rows, styles = [], {}
    for row in measured.to_dict("records"):
        text = verdict(row)
        bold = "bold " if ", clear" in text else ""
        styles[text] = bold + COLOURS[row["verdict"]]
        ours = both_sides(row["ours_better"], row["ours_worse"])
        interval = difference(row["id"], row["low"], row["high"]).removesuffix(" points")
        rows.append((row["id"], row["claim"], ours, interval, text))
    if rows:
        header = ["id", "claim", "ours", "better by (95%)", "verdict"]
        name = find_profile(profile).caveat or f" ({profile})"
        title = f"Claims of the paper{name}; percent and percentage points, or as they say"
        console.table(title, header, rows, styles=styles, fold="claim")
    speed = speed_table(claims)
    if speed.rows:
        console.table("Speed-ups over R-CNN", speed.header, speed.rows, fold="claim")


def or_none(value: object) -> object:
    """A value for JSON, which has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value
