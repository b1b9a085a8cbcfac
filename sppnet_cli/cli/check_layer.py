"""`sppnet check-layer`."""

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sppnet_cli import console
from sppnet_cli.cli.options import json_option, option, say
from sppnet_cli.errors import UsageError

if TYPE_CHECKING:
    from sppnet_cli.network.layer_check import Finding

_ROWS = 12  # of the table of bins


@click.command("check-layer", short_help="Check whether a layer is spatial pyramid pooling.")
@click.argument("layer", metavar="FILE.py:CLASS")
@option("--levels", default="6,3,2,1", metavar="N,N,...", help="Bins along each side, level by level.")
@json_option
def command(layer: str, levels: str, as_json: bool) -> int:
    """Compare a layer with the definition of spatial pyramid pooling, on maps of 1 to 40 cells a side.

    \b
      sppnet check-layer mynet/layers.py:SPPLayer
      sppnet check-layer mynet/layers.py:SPPLayer --levels 4,2,1

    CLASS takes no arguments; its instance takes maps (N, C, H, W) and returns (N, C x bins).  FILE.py is executed.  The
    exit code is 0 if the layer equals the definition, else 1; then the bins that differ are shown, and the mistake is
    named if it is a known one.
    """
    from sppnet_cli.network.layer_check import MISTAKES, SIZES, check_layer, load_layer

    console.configure(json=as_json)
    file, colon, name = layer.rpartition(":")
    if not colon or not file or not name:
        raise UsageError(f"{layer}: write FILE.py:CLASS")
    pyramid = _levels(levels)
    with contextlib.redirect_stdout(sys.stderr):  # what the file prints is not our result
        check = check_layer(load_layer(Path(file), name), pyramid)
    result = {
        "layer": layer,
        "levels": pyramid,
        "equal": check.equal,
        "sizes": len(SIZES),
        "mistakes": {mistake: MISTAKES[mistake] for mistake in check.mistakes},
        "findings": [dataclasses.asdict(finding) for finding in check.findings],
    }
    if check.equal:
        say(as_json, result, f"{name} is spatial pyramid pooling: equal at all {len(SIZES)} sizes of map")
        return 0
    say(
        as_json,
        result,
        f"{name} is not spatial pyramid pooling: it differs at {len(check.findings)} of {len(SIZES)} sizes of map",
        *(f"known mistake: {MISTAKES[mistake]}" for mistake in check.mistakes),
        *([] if check.mistakes else ["it is none of the known mistakes"]),
    )
    _show(check.findings)
    return 1


def _levels(text: str) -> tuple[int, ...]:
    try:
        levels = tuple(int(part) for part in text.split(","))
    except ValueError:
        levels = ()
    if not levels or not all(1 <= n <= 40 for n in levels) or len(set(levels)) < len(levels):
        raise UsageError(f"--levels {text}: write different whole numbers from 1 to 40, as in 6,3,2,1")
    return levels


def _show(findings: "tuple[Finding, ...]") -> None:
    """The errors, shapes and bins of the first size of each kind."""
    for finding in {(f.error is None, f.shape is None): f for f in reversed(findings)}.values():
        height, width = finding.size
        where = f"maps of {height} x {width} cells"
        if finding.error is not None:
            console.status(f"{where}: {finding.error}")
        elif finding.shape is not None:
            console.status(f"{where}, a batch of 2 with 3 channels: it returns {finding.shape}")
        else:
            rows = [
                (
                    f"{b.level} x {b.level}",
                    b.row,
                    b.column,
                    "{}..{}, {}..{}".format(*b.cells[::2], *b.cells[1::2]),
                    b.difference,
                )
                for b in finding.bins[:_ROWS]
            ]
            more = f", the first {_ROWS} of {len(finding.bins)}" if len(finding.bins) > _ROWS else ""
            console.table(
                f"Bins that differ on {where}{more}",
                ["level", "row", "column", "cells x, y", "differs by up to"],
                rows,
            )
