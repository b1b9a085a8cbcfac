"""The files that hold detections, and their columns."""

from pathlib import Path

import pandas as pd

from sppnet_cli.records import read_csv

DETECTIONS_FILE = "detections.csv"
COCO_FILE = "detections.json"  # what a detection may write beside its run, later
COLUMNS = ("image", "class", "score", "x1", "y1", "x2", "y2")
CALIBRATED_COLUMNS = ("image", "class", "score", "confidence", "x1", "y1", "x2", "y2")


def read_detection_rows(path: Path, remedy: str) -> pd.DataFrame:
    """A `detections.csv` as a frame of `COLUMNS` or `CALIBRATED_COLUMNS`.  Raises `DataError` for another file."""
    kinds: dict[str, type[str | float]] = {"image": str, "class": str}
    kinds |= dict.fromkeys(CALIBRATED_COLUMNS[2:], float)
    return read_csv(path, kinds, remedy=remedy, optional=["confidence"])
