"""A transfer classifier as one thing: SVMs, the features they take, and the splits they were trained on."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from sppnet_cli.atomic import write_json
from sppnet_cli.data.splits import Split
from sppnet_cli.errors import DataError
from sppnet_cli.network.weights import read_state_dict

CLASSIFIER_FILE = "classifier.json"
SVM_FILE = "classifier.safetensors"

Dataset = Literal["VOC", "Caltech101"]


@dataclass(frozen=True)
class FeatureKind:
    """What an SVM's input is: features of another kind it cannot take."""

    layer: str
    view: str
    size: int  # pixels
    network: str  # fingerprint


@dataclass(frozen=True, eq=False)
class TransferClassifier:
    """One-vs-rest SVMs of S splits on l2-normalised features: `scores = x @ weights[s].T + bias[s]`.

    S is 1 for VOC, which has its own lists, and the number of random splits for Caltech101.
    """

    dataset: Dataset
    features: FeatureKind
    network: Path  # run directory that the features were made with
    images: str  # fingerprint of the training images
    class_names: tuple[str, ...]
    c: float
    splits: tuple[Split, ...]  # of Caltech101's images; none for VOC
    weights: NDArray[np.float32]  # (S, K, D)
    bias: NDArray[np.float32]  # (S, K)

    def save(self, folder: Path) -> None:
        """Write `classifier.json` and `classifier.safetensors` into an existing folder."""
        about = {
            "dataset": self.dataset,
            "features": asdict(self.features),
            "network": str(self.network.absolute()),
            "images": self.images,
            "class_names": self.class_names,
            "c": self.c,
            "splits": [{"train": s.train.tolist(), "test": s.test.tolist()} for s in self.splits],
        }
        tensors = {"weights": torch.from_numpy(self.weights), "bias": torch.from_numpy(self.bias)}
        save_file(tensors, folder / SVM_FILE)
        write_json(folder / CLASSIFIER_FILE, about)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote.  Raises `DataError` where it is not there or not whole."""
        try:
            about = json.loads((folder / CLASSIFIER_FILE).read_text(encoding="utf-8"))
            splits = tuple(Split(*(np.array(s[part]) for part in Split._fields)) for s in about["splits"])
            state = read_state_dict(folder / SVM_FILE)
            found = cls(
                dataset=about["dataset"],
                features=FeatureKind(**about["features"]),
                network=Path(about["network"]),
                images=about["images"],
                class_names=tuple(about["class_names"]),
                c=about["c"],
                splits=splits,
                weights=state["weights"].numpy(),
                bias=state["bias"].numpy(),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder}: not a classifier ({error}); make one with `sppnet train-svm --task classification`"
            ) from None
        shape = (len(splits) or 1, len(found.class_names))
        if found.weights.ndim != 3 or found.weights.shape[:2] != shape or found.bias.shape != shape:
            raise DataError(
                f"{folder / SVM_FILE}: weights of shape {found.weights.shape}, but {CLASSIFIER_FILE} tells of "
                f"{shape[0]} splits and {shape[1]} classes; train it anew"
            )
        return found
