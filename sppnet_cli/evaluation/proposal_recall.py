"""How well proposals cover the objects of a data set: recall and average best overlap."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sppnet_cli.data.boxes import iou
from sppnet_cli.data.voc import Annotation

RECALL_IOUS = (0.5, 0.7)


@dataclass(frozen=True)
class ProposalRecall:
    """The best IoU of a window with each object that is not difficult.

    Average best overlap (ABO) is its mean over the objects of a class, MABO the mean of ABO over the classes
    (Uijlings et al., "Selective Search for Object Recognition", IJCV 2013).
    """

    overlaps: dict[str, NDArray[np.float64]]  # of each class: (N,) IoU, 0 where no window touches the object
    windows: float  # per image, mean

    def table(self) -> pd.DataFrame:
        """A row per class and the row `all`; fractions, NaN for a class without objects.

        Columns: class, objects, `recall@0.5` and `recall@0.7` (the fraction of objects whose best IoU is at least
        that), ABO, windows (mean per image, in the row `all` alone).  The row `all` has the recall of all objects
        together, and MABO.
        """
        table = pd.DataFrame([self._row(name, best) for name, best in self.overlaps.items()])
        every = self._row("all", np.concatenate([np.empty(0), *self.overlaps.values()]))
        every |= {"ABO": table["ABO"].mean(), "windows": self.windows}
        return pd.concat([table, pd.DataFrame([every])], ignore_index=True)

    def _row(self, name: str, best: NDArray[np.float64]) -> dict[str, object]:
        known = len(best) > 0
        recalls = {f"recall@{level}": (best >= level).mean() if known else np.nan for level in RECALL_IOUS}
        return {"class": name, "objects": len(best), **recalls, "ABO": best.mean() if known else np.nan}


def proposal_recall(
    proposals: Iterable[np.ndarray], annotations: Iterable[Annotation], class_names: tuple[str, ...]
) -> ProposalRecall:
    """Measure windows against the objects of their images; difficult objects are left out.

    Args:
        proposals: per image (N_i, 4) x1, y1, x2, y2; 0-based inclusive pixels.
        annotations: the objects of each image.
        class_names: label k of an annotation is class `class_names[k]`.

    Raises:
        ValueError: there are more images in one of the two than in the other, or none at all.
    """
    best_parts, label_parts, counts = [np.empty(0)], [np.empty(0, np.int64)], []
    for windows, truth in zip(proposals, annotations, strict=True):
        counted = ~truth.difficult
        best_parts.append(iou(windows, truth.boxes[counted]).max(axis=0, initial=0))
        label_parts.append(truth.labels[counted])
        counts.append(len(windows))
    if not counts:
        raise ValueError("no images")
    best, labels = np.concatenate(best_parts), np.concatenate(label_parts)
    overlaps = {name: best[labels == label] for label, name in enumerate(class_names)}
    return ProposalRecall(overlaps, float(np.mean(counts)))
