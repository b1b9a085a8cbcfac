"""Convergence of pre-training: errors by epoch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sppnet_cli.errors import DataError
from sppnet_cli.inventory import Run
from sppnet_cli.learning.pretrain import EpochMetrics, read_metrics
from sppnet_cli.report.plots import SERIES, as_svg, panel
from sppnet_cli.report.section import Section

_FEW = 4  # epochs: fewer are marked


def training(runs: Sequence[Run], seed: int | None, command: str | None) -> Section | None:
    """A panel for each network of the seed; None where none was trained.  `command` trains the two that are compared."""
    found: dict[str, list[EpochMetrics]] = {}
    sizes = set()
    for run in runs:
        config = run.manifest["config"]
        if run.stage == "pretrain" and seed in (None, config["seed"]):
            try:
                found.setdefault(network_name(config), read_metrics(run.folder))
                sizes.add(len(config["recipe"]["sizes"]))
            except DataError:  # the file was removed: nothing can be drawn
                continue
    found = {name: epochs for name, epochs in found.items() if epochs}
    if not found:
        return None
    last = max(len(epochs) for epochs in found.values())
    highest = max(max(e.train_top1_error, e.val_top1_error or 0) for es in found.values() for e in es)
    panels = [
        {"name": name, "svg": _panel(number, name, epochs, last, highest), "last": _last(epochs)}
        for number, (name, epochs) in enumerate(found.items(), 1)
    ]
    return Section(
        "training",
        "Training",
        "How the top-1 error falls while a network is trained: dotted on the images it learns from, solid on those "
        "held out.",
        "training.html",
        {"panels": panels, "command": command if len(sizes) < 2 else None},
    )


def network_name(config: Mapping[str, Any]) -> str:
    """What a pre-training run trains, such as `SPP {6,3,2,1}, 224 and 180 px`."""
    levels = config["levels"]
    pyramid = f"SPP {{{','.join(map(str, sorted(levels, reverse=True)))}}}" if levels else "no SPP"
    arch = "" if config["arch"] == "zf5" else f"{config['arch']}, "
    return f"{arch}{pyramid}, {' and '.join(map(str, config['recipe']['sizes']))} px"


def _panel(number: int, name: str, epochs: Sequence[EpochMetrics], last: int, highest: float) -> object:
    from matplotlib.ticker import FixedLocator, MaxNLocator

    figure, axes = panel(2.5, 1.9)
    mark = "o" if last < _FEW else ""
    places = [each.epoch for each in epochs]
    axes.plot(
        places,
        [100 * e.train_top1_error for e in epochs],
        color=SERIES[0],
        linestyle=":",
        marker=mark,
        markersize=3,
    )
    held_out = [math.nan if e.val_top1_error is None else 100 * e.val_top1_error for e in epochs]
    axes.plot(places, held_out, color=SERIES[0], linewidth=1.6, marker=mark, markersize=3)
    axes.set(ylim=(0, min(103, 105 * highest)))
    axes.set_xlim(*((0.5, last + 0.5) if last < _FEW else (1, last)))
    axes.xaxis.set_major_locator(FixedLocator(places) if last < _FEW else MaxNLocator(4, integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("top-1 error (%)")
    return as_svg(figure, f"training-{number}", f"Top-1 error by epoch of {name}: {_last(epochs)}")


def _last(epochs: Sequence[EpochMetrics]) -> str:
    end = epochs[-1]
    held_out = "" if end.val_top1_error is None else f", {100 * end.val_top1_error:.1f}% held out"
    return f"epoch {end.epoch}: {100 * end.train_top1_error:.1f}% in training{held_out}"
