"""conv5 responses drawn over their image, beside the images that excite the same filters most (Figure 2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from sppnet_cli.features.responses import Responses

_GREEN = "#00e000"


@dataclass(frozen=True)
class Excited:
    """An image with the strongest response of a filter in it."""

    image: NDArray[np.uint8]  # RGB (H, W, 3)
    response: float
    field: NDArray[np.float64]  # (4,) receptive field in the image


def draw_responses(
    title: str,
    image: NDArray[np.uint8],
    responses: Responses,
    filters: Sequence[int],
    excited: Sequence[Sequence[Excited]],
) -> NDArray[np.uint8]:
    """A picture `(h, w, 3)` RGB with a row for each of `filters` of an RGB image `(H, W, 3)`.

    From the left: the image with the receptive field of the filter's strongest response, if it responds at all; the
    filter's map over it, with that response marked; and the images of `excited`, each with its strongest receptive field.
    """
    columns = 2 + max(map(len, excited))
    figure = Figure(figsize=(2.1 * columns, 2.0 * len(filters) + 0.7), dpi=100, layout="constrained")
    grid = figure.subplots(len(filters), columns, squeeze=False)
    grey = image.mean(axis=2)
    for k, (row, images) in enumerate(zip(filters, excited, strict=True)):
        strongest = float(responses.strongest[row])
        _show(grid[k, 0], image, responses.fields[row] if strongest > 0 else None, f"filter {row}")
        axes = grid[k, 1]
        axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
        share = responses.maps[row] / max(strongest, 1e-12)
        axes.imshow(share, cmap="plasma", vmin=0, vmax=1, alpha=0.9 * share, extent=responses.extent)
        if strongest > 0:
            place = responses.centres[row]
            axes.plot(*place, "o", markersize=9, markerfacecolor="none", markeredgecolor=_GREEN)
        _finish(axes, image, f"strongest {strongest:.3g}" if strongest > 0 else "no response")
        for axes, other in zip(grid[k, 2:], images, strict=False):
            _show(axes, other.image, other.field, f"{other.response:.3g}")
        for axes in grid[k, 2 + len(images) :]:
            axes.set_axis_off()
    figure.suptitle(title, fontsize=11)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[:, :, :3]


def _show(axes: Axes, image: NDArray[np.uint8], field: NDArray[np.float64] | None, title: str) -> None:
    """An image with the receptive field of a response, None where there is no response."""
    axes.imshow(image)
    if field is not None:
        x1, y1, x2, y2 = field
        corner = (x1 - 0.5, y1 - 0.5)  # the edges of its first and last pixels
        axes.add_patch(Rectangle(corner, x2 - x1 + 1, y2 - y1 + 1, fill=False, edgecolor=_GREEN, linewidth=2))
    _finish(axes, image, title)


def _finish(axes: Axes, image: NDArray[np.uint8], title: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    axes.set_axis_off()
