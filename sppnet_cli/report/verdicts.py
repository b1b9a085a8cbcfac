"""The paper's claims: a verdict each, both numbers, the interval of their difference, and the paper's."""

import math
from typing import Any

import pandas as pd

from sppnet_cli.report.results import Results
from sppnet_cli.report.section import Section
from sppnet_cli.tables.claims import (
    VERDICTS,
    both_sides,
    count_verdicts,
    difference,
    evaluate_claims,
    summary,
    verdict,
)
from sppnet_cli.tables.paper import claims

_LOWER_IS_BETTER = ("top1_error",)
_ROOM = 1.08  # of the axis beyond the outermost end of an interval


def verdicts(results: Results) -> tuple[Section, pd.DataFrame]:
    """The section, and the claims as `evaluate_claims` gives them."""
    found = evaluate_claims(results.folder)
    rows = found.merge(
        claims()[["paper_better", "paper_worse", "measure"]], left_on="id", right_index=True, validate="1:1"
    )
    reach = {
        key: _ROOM * max((_most(row) for row in of.to_dict("records")), default=0.0)
        for key, of in rows.groupby(["table", "measure"])
    }
    shown = [_claim(row, reach[row["table"], row["measure"]]) for row in rows.to_dict("records")]
    tables = [
        {
            "number": number,
            "claims": [claim for claim in shown if claim["table"] == number],
            "command": results.command(f"table{number}"),
            "measured": f"table{number}" in results.records,
        }
        for number in dict.fromkeys(rows["table"])
    ]
    section = Section(
        "claims",
        "The paper's claims",
        "Each line is one comparison that the paper draws from its tables: green where it holds here too, red where "
        "it fails, grey where it was not measured.",
        "verdicts.html",
        {
            "summary": summary(found),
            "counts": list(zip(VERDICTS, count_verdicts(found).values(), strict=True)),
            "tables": tables,
            "claims": shown,
        },
    )
    return section, found


def _claim(row: dict[Any, Any], reach: float) -> dict[str, Any]:
    measured = row["verdict"] != "not measured"
    return {
        "id": row["id"],
        "table": row["table"],
        "text": row["claim"],
        "better": row["better"],
        "worse": row["worse"],
        "verdict": row["verdict"],
        "certainty": verdict(row).removeprefix(row["verdict"]).lstrip(",: "),
        "ours": both_sides(row["ours_better"], row["ours_worse"]),
        "paper": both_sides(row["paper_better"], row["paper_worse"]),
        "interval": difference(row["id"], row["low"], row["high"]),
        "drawn": _drawn(row, reach) if measured and reach > 0 else None,
    }


def _drawn(row: dict[Any, Any], reach: float) -> dict[str, float | None]:
    """Places from 0 to 100 on an axis from `-reach` to `reach`, None for what there is not."""

    def place(value: float) -> float | None:
        return None if math.isnan(value) else round(50 + 50 * value / reach, 2)

    ours, paper = _gains(row)
    return {
        "low": place(row["low"]),
        "high": place(row["high"]),
        "ours": place(ours),
        "paper": place(paper),
    }


def _gains(row: dict[Any, Any]) -> tuple[float, float]:
    """By how much the better side is better, here and in the paper.

    NaN for seconds: their interval is of what is saved beyond the claimed factor, and the paper's are of its machine.
    """
    if row["measure"] == "seconds":
        return math.nan, math.nan
    sign = -1 if row["measure"] in _LOWER_IS_BETTER else 1
    ours, paper = (sign * (row[f"{side}_better"] - row[f"{side}_worse"]) for side in ("ours", "paper"))
    return ours, paper


def _most(row: dict[Any, Any]) -> float:
    values = (row["low"], row["high"], *_gains(row))
    return max((abs(value) for value in values if not math.isnan(value)), default=0.0)
