"""Which detections are worth showing: those that a picture draws and a label file holds."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sppnet_cli.detection.detector import Detection

MIN_CONFIDENCE, MIN_SCORE = 0.5, 0.0  # where nothing else is asked for


@dataclass(frozen=True)
class Shown:
    """A detection is shown from a confidence on, without a calibration above a score; `min_score` wins when given."""

    min_score: float | None = None  # above it
    min_confidence: float | None = None  # from it on

    def __call__(self, detection: Detection) -> bool:
        """Whether a detection is shown."""
        if self.min_score is not None or detection.confidence is None:
            return detection.score > self._score
        return detection.confidence >= self._confidence

    def rows(self, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """The same for rows (N,) of `detections.csv`."""
        if self.min_score is not None or "confidence" not in frame:
            return frame["score"].to_numpy(float) > self._score
        return frame["confidence"].to_numpy(float) >= self._confidence

    @property
    def _score(self) -> float:
        return MIN_SCORE if self.min_score is None else self.min_score

    @property
    def _confidence(self) -> float:
        return MIN_CONFIDENCE if self.min_confidence is None else self.min_confidence

    def describe(self, calibrated: bool) -> str:
        """What is shown, in words."""
        if self.min_score is not None or not calibrated:
            return f"scoring above {self._score:g}"
        return f"of confidence {self._confidence:g} or more"
