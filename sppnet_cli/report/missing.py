"""What was not measured, and the command that measures it."""

from dataclasses import dataclass

from sppnet_cli.report.results import NUMBERED, SMALL, Results
from sppnet_cli.report.section import Section
from sppnet_cli.tables.paper import LAYOUTS

_MORE_SEEDS = "0,1,2"


@dataclass(frozen=True)
class Missing:
    """What, and how to get it."""

    what: str
    command: str


def missing(results: Results, has_training: bool) -> Section:
    """Everything that the page could show of this profile and does not."""
    tables = {f"table{number}": f"Table {number}: {layout.caption}" for number, layout in LAYOUTS.items()}
    titles = tables | {name: f"{title}." for name, (title, _) in SMALL.items()}
    found = [
        Missing(titles[name], results.command(name))
        for name in (*NUMBERED, *SMALL)
        if name not in results.records
    ]
    if not has_training:
        found.append(
            Missing("Convergence of single- and multi-size training.", results.command("convergence"))
        )
    table6 = results.records.get("table6")
    if table6 is not None and table6["values"]["pool5"]["rcnn"] is None:
        found.append(Missing("R-CNN's mAP in Table 6.", results.command("table6", "--rcnn", "full")))
    single = [name for name, record in results.records.items() if len(record["seeds"]) == 1]
    if single:
        names = " ".join(single)
        found.append(
            Missing(
                "The deviation over seeds of what was measured with one.",
                results.command(names, "--seeds", _MORE_SEEDS).replace(f"'{names}'", names),
            )
        )
    return Section(
        "missing",
        "What was not measured",
        "Each line is something that this page would show, and the command that measures it.",
        "missing.html",
        {"missing": found, "own": "sppnet train PHOTOS --out my-detector && sppnet report my-detector"},
    )
