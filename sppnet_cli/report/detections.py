"""The detections that the page shows: whose they are, and the images that they are in."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sppnet_cli.data.voc import VocDetection, load_voc
from sppnet_cli.detection.detector_files import read_description
from sppnet_cli.errors import DataError
from sppnet_cli.inventory import Run, read_run
from sppnet_cli.runs import require_intact
from sppnet_cli.stages.score_detections import read_detections

_TITLES = {"spp": "SPP-net", "rcnn": "R-CNN"}
_ROWS = ("pool5", "fc6", "fc7", "ftfc6", "ftfc7", "pool5 bb", "fc6 bb", "fc7 bb", "ftfc6 bb", "ftfc7 bb")


@dataclass(frozen=True)
class Detections:
    """Detections of a split.

    Attributes:
        side: method and scales of the detector, such as `SPP-net, 5 scales`; of several, all of them.
        row: of Table 6, such as `ftfc7 bb`.
        dataset: the split.
        run: that holds them.
    """

    side: str
    row: str
    dataset: VocDetection
    run: Path

    @property
    def name(self) -> str:
        """Side and row."""
        return f"{self.side}, {self.row}"

    def frame(self) -> pd.DataFrame:
        """As `read_detections` gives it; read each time, since those of a table together may not fit into memory."""
        return read_detections(self.run, self.dataset)[0]


def read(run: Run) -> Detections:
    """The detections of a run of `detect`.  Raises `DataError` where its detector or data cannot be read, or it was changed."""
    require_intact(run.folder)
    config = run.manifest["config"]
    sources = {name: Path(path) for name, path in run.manifest["sources"].items()}
    about = [read_description(path) for name, path in sources.items() if name.startswith("detector")]
    if not about or "data" not in sources:
        raise DataError(f"{run.folder}: does not say which detector and data it is of; detect again")
    sides = [
        f"{_TITLES[each.method]}, {_scales(each.scales)}" if each.scales else _TITLES[each.method]
        for each in about
    ]
    dataset = load_voc(sources["data"], config["split"], config["limit"])
    row = f"{about[0].row}{' bb' * about[0].regressed}"
    side = sides[0] if len(sides) == 1 else f"{' and '.join(dict.fromkeys(sides))}, {len(sides)} combined"
    return Detections(side, row, dataset, run.folder)


def of_seed(runs: Iterable[Run], seed: int) -> list[Detections]:
    """Those of one seed, of each detector once, in the order of Table 6; what cannot be read is left out."""
    found: dict[tuple[str, str], Detections] = {}
    for run in runs:
        if run.stage == "detect":
            try:
                if _seed(run) == seed:
                    each = read(run)
                    found.setdefault((each.side, each.row), each)
            except DataError:
                continue
    sides = list(dict.fromkeys(side for side, _ in found))
    return sorted(found.values(), key=lambda each: (sides.index(each.side), _ROWS.index(each.row)))


def furthest(detections: Iterable[Detections]) -> list[Detections]:
    """Of each side the last row of Table 6."""
    return list({each.side: each for each in detections}.values())


def _scales(scales: tuple[int, ...]) -> str:
    return f"{len(scales)} scale{'s' * (len(scales) > 1)}"


def _seed(run: Run) -> int | None:
    """The seed of the detector's training; None where it says none."""
    while "seed" not in run.manifest["config"]:
        detector = run.manifest["sources"].get("detector")
        if detector is None:
            return None
        run = read_run(Path(detector))
    return int(run.manifest["config"]["seed"])
