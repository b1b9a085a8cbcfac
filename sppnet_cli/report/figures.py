"""Figures 2 and 6 of the paper: what conv5 responds to, and detections."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sppnet_cli.chain import Inputs, Resources
from sppnet_cli.data.images import read_image
from sppnet_cli.errors import DataError
from sppnet_cli.report.detections import Detections
from sppnet_cli.report.pictures import Picture, picture
from sppnet_cli.report.section import Section
from sppnet_cli.stages.visualize import (
    SHEET_FILE,
    DetectionPictures,
    ResponsePictures,
    picture_detections,
    picture_responses,
)

_SEARCHED = 48  # images that conv5's strongest responses are sought in
_RESPONSES = ResponsePictures(None, count=2, strongest=3, excited=4)
_SHOWN = 6  # images with detections
_SIZE_2, _SIZE_6 = (1260, 760), (460, 360)  # pixels


def figure_2(network: Path, images: Sequence[Path]) -> Section | None:
    """What conv5 of a network responds to in images, some of which are searched; None where that cannot be drawn."""
    places = np.unique(np.linspace(0, len(images) - 1, min(len(images), _SEARCHED)).round().astype(int))
    inputs = Inputs(network=network)
    inputs.images = tuple(images[place] for place in places)
    try:
        with tempfile.TemporaryDirectory() as folder:
            picture_responses(_RESPONSES, inputs, Path(folder), Resources())
            drawn = _read(sorted(Path(folder).glob("*.png")), _SIZE_2, "Strongest responses of conv5")
    except DataError:
        return None
    return Section(
        "figure2",
        "Figure 2: what conv5 responds to",
        "Each row is a filter: the place in the image that excites it most, its map, and the images that excite it most.",
        "figure2.html",
        {"pictures": drawn, "searched": len(inputs.images)},
    )


def figure_6(detections: Detections) -> Section | None:
    """Detections in some images, beside the ground truth; None where that cannot be drawn."""
    dataset = detections.dataset
    inputs = Inputs(detections=detections.run, data=dataset.root)
    try:
        with tempfile.TemporaryDirectory() as folder:
            picture_detections(
                DetectionPictures(dataset.split, count=_SHOWN), inputs, Path(folder), Resources()
            )
            files = sorted(set(Path(folder).glob("*.jpg")) - {Path(folder) / SHEET_FILE})
            drawn = _read(files, _SIZE_6, f"Detections by {detections.name}")
    except DataError:
        return None
    return Section(
        "figure6",
        "Figure 6: detections",
        "Coloured boxes are detected objects, dashed ones are the ground truth.",
        "figure6.html",
        {"pictures": drawn, "name": detections.name},
    )


def _read(files: Sequence[Path], most: tuple[int, int], text: str) -> list[Picture]:
    names = [file.stem.partition("-")[2] or file.stem for file in files]  # Figure 2's are numbered
    return [
        picture(read_image(file), f"{text} in image {name}", name, most)
        for file, name in zip(files, names, strict=True)
    ]
