"""Draws docs/images/spp.png, the picture of the README, with the package's own code.

    make picture        (python docs/draw_picture.py [PROFILE] [IMAGE])

The image, its windows, the network and its conv5 map are those of the embedded data; what is missing under runs/ is made.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from sppnet_cli import pool_windows, propose, read_image
from sppnet_cli.chain import path_of
from sppnet_cli.data.boxes import iou
from sppnet_cli.data.voc import load_voc
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.kernels.pyramid import bin_edges
from sppnet_cli.network.weights import load_network
from sppnet_cli.protocols import PAPER, MappingRules, take
from sppnet_cli.stages.profiles import find_profile
from sppnet_cli.stages.workspace import Workspace

PICTURE = Path(__file__).parent / "images" / "spp.png"
COLOURS = ("#ff7f0e", "#17becf", "#e377c2")  # of the windows
LEVELS = (1, 2, 3, 6)
SCALE = 688  # pixels of the short side


def main(profile: str = "tiny", image_id: str = "000006") -> None:
    """Make what is missing, and draw."""
    ws = Workspace(find_profile(profile))
    stage = ws.trained_network()
    ws.make(stage)
    voc = load_voc(path_of(ws.voc()), "trainval")
    network = load_network(stage.folder)
    image = read_image(voc.image_path(image_id))
    windows = found_windows(propose(image), voc.annotation(image_id).boxes)

    spp = SppWindows(network, take(MappingRules, PAPER), (SCALE,))
    prepared = spp.prepare(image)
    maps = prepared.maps[0].permute(2, 0, 1).numpy()
    cells = spp.cells(prepared, windows, 0)
    shown = maps[[strongest_filter(maps, cells)]]
    draw(image, windows, shown[0], cells, pool_windows(shown, cells, LEVELS))


def found_windows(proposals: NDArray[np.float32], objects: NDArray[np.floating]) -> NDArray[np.float32]:
    """The proposal that overlaps each of the three largest objects best."""
    extent = objects[:, 2:] - objects[:, :2] + 1
    largest = objects[np.argsort(-extent.prod(axis=1))[: len(COLOURS)]]
    return proposals[iou(proposals, largest).argmax(axis=0)]


def strongest_filter(maps: NDArray[np.float32], cells: NDArray[np.int32]) -> int:
    """The filter that responds most to the windows, compared with the rest of the image."""
    inside = np.zeros(maps.shape[1:], dtype=bool)
    for x1, y1, x2, y2 in cells:
        inside[y1 : y2 + 1, x1 : x2 + 1] = True
    means = maps.mean(axis=(1, 2))
    contrast = maps[:, inside].mean(axis=1) / np.maximum(means, 1e-9)
    return int(np.argmax(np.where(means > np.median(means), contrast, 0)))


def draw(
    image: NDArray[np.uint8],
    windows: NDArray[np.float32],
    conv5: NDArray[np.float32],
    cells: NDArray[np.int32],
    vectors: NDArray[np.float32],
) -> None:
    """Photograph, conv5 map and each window's pyramid from left to right."""
    figure = Figure(figsize=(11, 2.75), dpi=110, facecolor="white")
    photo, map_ = (figure.add_axes(place) for place in ((0.01, 0.02, 0.32, 0.86), (0.34, 0.02, 0.32, 0.86)))
    photo.imshow(image)
    photo.set_title("1. photograph, with windows", fontsize=11)
    map_.imshow(conv5, cmap="Greys")
    map_.set_title("2. conv5 map, computed once", fontsize=11)
    for colour, window, box in zip(COLOURS, windows, cells, strict=False):
        outline(photo, window, colour, 2.5)
        outline(map_, box, colour, 2.5)
        x1, y1, x2, y2 = box
        for left, right in bin_edges(x2 - x1 + 1, LEVELS[-1]):
            for top, bottom in bin_edges(y2 - y1 + 1, LEVELS[-1]):
                outline(map_, (x1 + left, y1 + top, x1 + right - 1, y1 + bottom - 1), colour, 0.5)
    places = {"left": 0.67, "right": 0.99, "top": 0.83, "bottom": 0.03, "hspace": 0.25}
    inner = figure.add_gridspec(len(windows), len(LEVELS) + 1, width_ratios=(1, 1, 1, 1, 2), **places)
    for row, (colour, vector) in enumerate(zip(COLOURS, vectors, strict=False)):
        start = 0
        for column, n in enumerate(LEVELS):
            axes = figure.add_subplot(inner[row, len(LEVELS) - 1 - column])
            axes.imshow(vector[start : start + n * n].reshape(n, n), cmap="Greys", vmin=0, vmax=conv5.max())
            finish(axes, colour)
            if row == 0:
                axes.set_title(f"{n} x {n}", fontsize=8, pad=3)
            start += n * n
        axes = figure.add_subplot(inner[row, -1])
        axes.set_axis_off()
        axes.text(0, 0.5, "→ fc6, fc7\n→ classes, box", va="center", fontsize=10)
    figure.text(0.645, 0.905, "3. pyramid: 50 numbers, whatever the size", fontsize=11)
    for axes in (photo, map_):
        axes.set_axis_off()
    FigureCanvasAgg(figure).print_png(PICTURE)


def outline(axes: Axes, box: "NDArray[np.generic] | tuple[float, ...]", colour: str, width: float) -> None:
    """The outer edges of a box of pixels or cells."""
    x1, y1, x2, y2 = (float(side) for side in box)
    corner = (x1 - 0.5, y1 - 0.5)
    axes.add_patch(Rectangle(corner, x2 - x1 + 1, y2 - y1 + 1, fill=False, edgecolor=colour, linewidth=width))


def finish(axes: Axes, colour: str) -> None:
    """A frame in the window's colour, no ticks."""
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set(color=colour, linewidth=2)


if __name__ == "__main__":
    main(*sys.argv[1:])
