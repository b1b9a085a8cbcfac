"""Time of an image: SPP-net beside R-CNN, with the limit that the arithmetic sets."""

import math
from typing import Any

import pandas as pd
from markupsafe import Markup

from sppnet_cli.report.plots import GRID, INK, MUTED, SERIES, as_svg, panel
from sppnet_cli.report.results import Results
from sppnet_cli.report.section import Section
from sppnet_cli.tables.claims import SPEED_COLUMNS, speed_table

_TOTAL, _CONV, _SPEEDUP = "total time (s)", "conv time (s)", "speedup vs R-CNN"
_NAMES = {"rcnn": "R-CNN", "spp_5scale": "SPP-net, 5 scales", "spp_1scale": "SPP-net, 1 scale"}


def times(results: Results, claims: pd.DataFrame) -> Section | None:
    """Bars and speed-ups, from Table 6; None where it was not measured."""
    record = results.records.get("table6")
    if record is None or record["values"].get(_TOTAL, {}).get("rcnn") is None:
        return None
    speeds = speed_table(claims)
    assert len(speeds.header) == 2 + len(SPEED_COLUMNS)
    timing = record.get("timing", {})
    return Section(
        "times",
        "Time of an image",
        "How long the features of one image take, and how much shorter SPP-net could be if its code did as many "
        "operations a second as R-CNN's.",
        "times.html",
        {
            "bars": _bars(record),
            "speeds": speeds,
            "images": timing.get("images"),
            "windows": timing.get("windows"),
        },
    )


def _bars(record: dict[str, Any]) -> Markup:
    """A bar for each method's total, on a logarithmic axis, with its conv part and the arithmetic's limit marked."""
    total, conv = record["values"][_TOTAL], record["values"][_CONV]
    limits = record.get("arithmetic", {}).get(_SPEEDUP, {})
    least = {name: total["rcnn"] / ratio for name, ratio in limits.items()}
    shown = [name for name in _NAMES if total.get(name)]
    known = [*(total[name] for name in shown), *(conv[name] for name in shown), *least.values()]
    low, high = 10 ** math.floor(math.log10(min(known))), 4 * max(known)
    figure, axes = panel(4.4, 0.45 * len(shown) + 0.6, left=1.15)
    axes.set_xscale("log")
    for place, name in enumerate(shown):
        colour = MUTED if name == "rcnn" else SERIES[0]
        axes.barh(place, total[name] - low, left=low, height=0.5, color=colour)
        axes.plot([conv[name]] * 2, [place - 0.25, place + 0.25], color=GRID, linewidth=1.5)
        ratio = "" if name == "rcnn" else f"  {total['rcnn'] / total[name]:.3g}x"
        axes.text(
            1.08 * max(total[name], least.get(name, 0)),
            place,
            f" {total[name]:.3g} s{ratio}",
            va="center",
            size=8,
            color=INK,
        )
        if name in least:
            axes.plot([least[name]] * 2, [place - 0.38, place + 0.38], color=SERIES[1], linewidth=2)
    axes.set(xlim=(low, high), yticks=range(len(shown)), yticklabels=[_NAMES[name] for name in shown])
    axes.set_xlabel("seconds, on a logarithmic axis")
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:g}")
    spoken = ", ".join(f"{_NAMES[name]} {total[name]:.3g} s" for name in shown)
    return as_svg(figure, "time-bars", f"Total time of an image: {spoken}")
