"""matplotlib figures as SVG inside of the page: its fonts and its colours, which follow light and dark."""

import html
import io
import re
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#010101", "#010102", "#010103"
SERIES = ("#010104", "#010105", "#010106", "#010107")
"""Colours that stand for the page's own, whose names are `_VARIABLES`."""

_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    **dict(zip(SERIES, ("--accent", "--second", "--third", "--fourth"), strict=True)),
}
_SIZE = 8  # points of text


def panel(width: float, height: float, left: float = 0.5, bottom: float = 0.42) -> "tuple[Figure, Axes]":
    """A figure of so many inches with one pair of axes; `left` and `bottom` are the room for their labels, in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(left / width, bottom / height, 1 - 0.08 / width, 1 - 0.08 / height)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=MUTED, labelsize=_SIZE, length=2)
    axes.xaxis.label.set(color=MUTED, size=_SIZE)
    axes.yaxis.label.set(color=MUTED, size=_SIZE)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def as_svg(figure: "Figure", name: str, description: str) -> Markup:
    """The figure as an `<svg>` element.

    Args:
        figure: drawn in the colours of this module.
        name: different from that of any other picture of the page; its ids begin with it.
        description: for those who do not see it.
    """
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px", text)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{name}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    label = html.escape(description)
    head, _, body = text.partition(">")
    head = re.sub(r' (width|height|version|xmlns(:xlink)?)="[^"]*"', "", head)
    body = re.sub(r"\n *", " ", body.replace("xlink:href", "href"))
    return Markup(f'{head} role="img" aria-label="{label}">{body}')
