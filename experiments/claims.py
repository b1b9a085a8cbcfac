"""The paper's claims: which comparisons of its tables hold in the measured ones, and how surely.

    python -m experiments.claims --profile mini

Compares the two cells of each claim in results/<profile>/table<n>.json.  The interval of their difference comes
from what each test image contributed (results/<profile>/outcomes), where the table's experiment kept that.

Cost: seconds with the mini tables, minutes with those of the full test sets.
"""

import math
from pathlib import Path

import click
import pandas as pd

from sppnet_cli import console
from sppnet_cli.cli import run
from sppnet_cli.cli.options import say
from sppnet_cli.tables.claims import (
    both_sides,
    certainty,
    count_verdicts,
    difference,
    speed_table,
    summary,
    write_claims,
)

COLOURS = {"holds": "green", "fails": "red"}


@click.command(help=(__doc__ or "").split("\n")[0], context_settings={"show_default": True})
@click.option(
    "--profile",
    type=click.Choice(["mini", "pretrained", "paper", "tiny"]),
    default="mini",
    help="Whose tables.",
)
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"), help="Where tables are.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on standard output, all else on standard error."
)
def command(profile: str, results: Path, as_json: bool) -> None:
    """Evaluate the claims, write them and print them."""
    console.configure(json=as_json)
    folder = results / profile
    claims = write_claims(folder)
    show(claims, profile)
    result = {
        **count_verdicts(claims),
        "claims": [
            {name: or_none(value) for name, value in row.items()} for row in claims.to_dict("records")
        ],
    }
    say(as_json, result, f"{summary(claims)}; written to {folder}/claims.csv and .md")


def show(claims: pd.DataFrame, profile: str) -> None:
    """Print the claims that were measured, and their speed-ups."""
    measured = claims[claims["verdict"] != "not measured"]
    rows, styles = [], {}
    for row in measured.to_dict("records"):
        sure = certainty(row["low"], row["high"], row["images"])
        verdict = ", ".join(filter(None, (row["verdict"], sure)))
        styles[verdict] = COLOURS[row["verdict"]] if sure != "clear" else f"bold {COLOURS[row['verdict']]}"
        ours = both_sides(row["ours_better"], row["ours_worse"])
        interval = difference(row["id"], row["low"], row["high"]).removesuffix(" points")
        rows.append((row["id"], row["claim"], ours, interval, verdict))
    if rows:
        header = ["id", "claim", "ours", "better by (95%)", "verdict"]
        title = f"Claims of the paper ({profile}); percent and percentage points, or as they say"
        console.table(title, header, rows, styles=styles, fold="claim")
    speed = speed_table(claims)
    if speed.rows:
        console.table("Speed-ups over R-CNN", speed.header, speed.rows, fold="claim")


def or_none(value: object) -> object:
    """A value for JSON, which has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


if __name__ == "__main__":
    run(command)
