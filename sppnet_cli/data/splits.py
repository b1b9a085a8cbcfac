"""Caltech101's protocol: random splits of every category into training and test images (paper section 3.3)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.errors import DataError


class Split(NamedTuple):
    """Rows of the training and of the test images, ascending."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


def caltech_splits(
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    count: int = 10,
    train: int = 30,
    test: int = 50,
    seed: int = 0,
) -> list[Split]:
    """`count` splits with `train` random images of each category to train on and up to `test` of the rest.

    labels: (N,) into `class_names`.  Split s is drawn from (seed, s) alone: it is the same in any number of
    splits.  Raises `DataError` for a category of at most `train` images.
    """
    rows = [np.flatnonzero(labels == label) for label in range(len(class_names))]
    for name, own in zip(class_names, rows, strict=True):
        if len(own) <= train:
            raise DataError(
                f"category {name} has {len(own)} images, but {train + 1} are needed: {train} to train and one "
                "to test; restore the rest or leave the category out"
            )
    splits = []
    for split in range(count):
        rng = np.random.default_rng((seed, split))
        drawn = [rng.permutation(own) for own in rows]
        splits.append(
            Split(
                np.sort(np.concatenate([own[:train] for own in drawn])),
                np.sort(np.concatenate([own[train : train + test] for own in drawn])),
            )
        )
    return splits
