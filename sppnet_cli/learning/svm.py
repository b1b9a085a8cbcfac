"""One linear SVM per class on window features, with one pass of hard negative mining (R-CNN's)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from sppnet_cli.console import track
from sppnet_cli.errors import DataError
from sppnet_cli.features.layers import Layer
from sppnet_cli.features.windows import WindowSource
from sppnet_cli.learning.dual import score_rows, solve
from sppnet_cli.learning.negatives import negatives
from sppnet_cli.learning.rows import RowStore
from sppnet_cli.protocols import Protocol

_TOLERANCE = 1e-3  # of the dual's projected gradients; LinearSVC's scores to 2e-4
_NORM_IMAGES = _NORM_WINDOWS = 200


@dataclass(frozen=True)
class Svms:
    """Linear classifiers on scaled features: `scores = scale * features @ weights.T + bias`."""

    weights: NDArray[np.float32]  # (K, D)
    bias: NDArray[np.float32]  # (K,)
    scale: float  # brings the mean norm of the features to the protocol's 20


@dataclass
class _Class:
    """A class's examples in the shared store and its present classifier."""

    slots: NDArray[np.int64]
    alpha: NDArray[np.float64]
    positives: int  # the first of `slots`
    weights: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    offset: float = 0.0
    added: int = 0

    def add(self, slots: NDArray[np.int64]) -> None:
        self.slots = np.concatenate([self.slots, slots])
        self.alpha = np.concatenate([self.alpha, np.zeros(len(slots))])
        self.added += len(slots)


def feature_scale(source: WindowSource, layer: Layer, norm: float, seed: int) -> float:
    """`norm` over the mean L2 norm of the layer's features: 200 random images x 200 random windows (R)."""
    rng = np.random.default_rng(seed)
    images = np.sort(rng.permutation(len(source))[:_NORM_IMAGES])
    norms = []
    for index in track(images.tolist(), f"norm of {layer.name}"):
        windows = source.windows(index)
        rows = np.sort(rng.permutation(len(windows.boxes))[:_NORM_WINDOWS])
        norms.append(layer(source.pooled(index, rows)).norm(dim=1).cpu())
    mean = float(torch.cat(norms).mean())
    return norm / mean if mean > 0 else 1.0


def train_svms(source: WindowSource, layer: Layer, protocol: Protocol, *, seed: int, max_gib: float) -> Svms:
    """Train the SVMs of all classes of `source` (whose windows include the ground truth).

    Positives are a class's ground-truth windows, difficult ones included.  Negatives start as the first image's;
    each following image adds those scoring above the protocol's threshold; a class is trained anew after more
    than 2,000 additions and at the end, and then drops its easy ones.  A class without positives never fires:
    its bias is minus infinity.  Raises `DataError` where no image has an object.
    """
    classes = len(source.dataset.class_names)
    scale = feature_scale(source, layer, protocol.feature_norm, seed)

    def features(index: int, rows: NDArray[np.intp] | None = None) -> NDArray[np.float32]:
        return (layer(source.pooled(index, rows)) * scale).cpu().numpy()

    store, states = _positives(source, classes, features, max_gib)
    trainable = [k for k in range(classes) if states[k].positives]

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:

        def train(group: list[int]) -> None:
            # Release in a fixed order, so that slots are reused alike however the threads ran.
            for evicted in threads.map(lambda k: _train(store, states[k], protocol, seed), group):
                store.release(evicted)

        for index in track(range(len(source)), f"SVMs on {layer.name}"):
            rows = features(index)
            hard = negatives(source.windows(index), classes, source.extractor)
            if index > 0:
                weights = np.stack([s.weights for s in states])
                hard &= rows @ weights.T + [s.offset for s in states] > protocol.svm_hard_score
            hard[:, [k for k in range(classes) if k not in trainable]] = False
            _collect(store, states, rows, hard)
            train([k for k in trainable if index == 0 or states[k].added > protocol.svm_retrain_after])
        train([k for k in trainable if states[k].added])

    bias = [states[k].offset if k in trainable else -np.inf for k in range(classes)]
    return Svms(np.stack([s.weights for s in states]), np.array(bias, dtype=np.float32), scale)


def _positives(
    source: WindowSource,
    classes: int,
    features: Callable[[int, NDArray[np.intp]], NDArray[np.float32]],
    max_gib: float,
) -> tuple[RowStore, list[_Class]]:
    rows, labels = [], []
    for index in track(range(len(source)), "positives"):
        windows = source.windows(index)
        if windows.n_truth:
            rows.append(features(index, np.arange(windows.n_truth)))
            labels.append(windows.truth.labels)
    if not rows:
        raise DataError(
            f"{source.dataset.root}: no object in the training images; take more of them (--limit)"
        )
    label = np.concatenate(labels)
    dimension = rows[0].shape[1]
    store = RowStore(dimension, max_gib)
    slots = store.add(np.concatenate(rows))
    store.retain(slots)
    states = []
    for k in range(classes):
        own = slots[label == k]
        states.append(_Class(own, np.zeros(len(own)), len(own), np.zeros(dimension, np.float32)))
    return store, states


def _collect(
    store: RowStore, states: list[_Class], rows: NDArray[np.float32], hard: NDArray[np.bool_]
) -> None:
    wanted = np.flatnonzero(hard.any(axis=1))
    slot_of = np.full(len(rows), -1, dtype=np.int64)
    slot_of[wanted] = store.add(rows[wanted])
    for k, state in enumerate(states):
        slots = slot_of[hard[:, k]]
        store.retain(slots)
        state.add(slots)


def _train(store: RowStore, state: _Class, protocol: Protocol, seed: int) -> NDArray[np.int64]:
    """Train one class and evict its easy negatives; returns their slots, still to be released."""
    positive = np.arange(len(state.slots)) < state.positives
    state.weights, state.offset = solve(
        store.rows,
        state.slots,
        store.norms[state.slots],
        positive,
        state.alpha,
        c=protocol.svm_c,
        positive_weight=protocol.svm_positive_weight,
        bias=protocol.svm_bias,
        tolerance=_TOLERANCE,
        seed=seed,
    )
    scores = score_rows(store.rows, state.slots, state.weights, state.offset)
    keep = positive | (scores >= protocol.svm_evict_score)
    evicted = state.slots[~keep]
    state.slots, state.alpha, state.added = state.slots[keep], state.alpha[keep], 0
    return evicted
