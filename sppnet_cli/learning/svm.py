"""One linear SVM per class on window features, with one pass of hard negative mining (R-CNN's)."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from numpy.typing import NDArray

from sppnet_cli.console import track, warn
from sppnet_cli.errors import DataError
from sppnet_cli.features.layers import Layer
from sppnet_cli.features.windows import WindowSource
from sppnet_cli.learning.dual import score_rows, solve
from sppnet_cli.learning.mining import Examples, Mining
from sppnet_cli.learning.negatives import negatives
from sppnet_cli.learning.rows import RowsFull, RowStore
from sppnet_cli.protocols import Protocol
from sppnet_cli.runs import CHECKPOINT

_TOLERANCE = 1e-3  # of the dual's projected gradients; LinearSVC's scores to 2e-4
_NORM_IMAGES = _NORM_WINDOWS = 200
_SAVE_SECONDS = 600


@dataclass(frozen=True)
class Svms:
    """Linear classifiers on scaled features: `scores = scale * features @ weights.T + bias`."""

    weights: NDArray[np.float32]  # (K, D)
    bias: NDArray[np.float32]  # (K,)
    scale: float  # brings the mean norm of the features to the protocol's 20


def feature_scale(source: WindowSource, layer: Layer, norm: float, seed: int) -> float:
    """`norm` over the mean L2 norm of the layer's features: 200 random images x 200 random windows (R).

    Raises `DataError` for features that are not finite.
    """
    rng = np.random.default_rng(seed)
    images = np.sort(rng.permutation(len(source))[:_NORM_IMAGES])
    norms = [np.zeros(0, np.float32)]
    for index in track(images.tolist(), f"norm of {layer.name}"):
        windows = source.windows(index)
        rows = np.sort(rng.permutation(len(windows.boxes))[:_NORM_WINDOWS])
        norms.append(layer(source.pooled(index, rows)).norm(dim=1).cpu().numpy())
    total = float(np.concatenate(norms).sum(dtype=np.float64))
    if not np.isfinite(total):
        raise DataError(f"features of {layer.name} are not finite: the network that made them has diverged")
    return norm * sum(map(len, norms)) / total if total > 0 else 1.0


def train_svms(
    source: WindowSource, layer: Layer, protocol: Protocol, *, seed: int, max_gib: float, folder: Path
) -> Svms:
    """Train the SVMs of all classes of `source` (whose windows include the ground truth).

    Positives are a class's ground-truth windows, difficult ones included.  Negatives start as the first image's;
    each following image adds those scoring above the protocol's threshold; a class is trained anew after more
    than 2,000 additions and after the last image, and then drops its easy ones.  A class without positives never
    fires: its bias is minus infinity.

    The rows take at most `max_gib`.  At that bound, and only there, all classes are trained early, which drops
    easy negatives; where that makes too little room, `RowsFull` is raised.  Every ten minutes the state is saved in
    `folder`, rows and all, and a later call goes on from there to the same bytes.  Raises `DataError` where no
    image has an object and for features that are not finite.
    """
    checkpoint = folder / CHECKPOINT
    mining = Mining.load(checkpoint, max_gib) or _begin(source, layer, protocol, seed, max_gib)
    store, classes = mining.store, mining.classes
    trainable = [k for k, examples in enumerate(classes) if examples.positives]
    last = len(source) - 1
    saved, early = monotonic(), False

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:

        def train(group: list[int]) -> None:
            # Release in a fixed order, so that slots are reused alike however the threads ran.
            for evicted in threads.map(lambda k: _train(store, classes[k], protocol, seed), group):
                store.release(evicted)

        for index in track(range(mining.done, len(source)), f"SVMs on {layer.name}"):
            if monotonic() - saved > _SAVE_SECONDS:
                mining.save(checkpoint)
                saved = monotonic()
            rows, hard = _hard_negatives(source, layer, mining, protocol, index)
            try:
                _collect(mining, rows, hard)
            except RowsFull:
                if not early:
                    warn(f"the SVM rows fill {max_gib:g} GiB: classes are trained early (see --max-memory)")
                early = True
                train([k for k in trainable if classes[k].added])
                _collect(mining, rows, hard)
            limit = protocol.svm_retrain_after
            train([k for k in trainable if index in (0, last) or classes[k].added > limit])
            mining.done = index + 1

    if checkpoint.is_file():  # a long training: what follows may be cut off, too
        mining.save(checkpoint)
    weights = np.stack([examples.weights for examples in classes])
    bias = [examples.offset if examples.positives else -np.inf for examples in classes]
    return Svms(weights, np.array(bias, dtype=np.float32), mining.scale)


def _features(
    source: WindowSource, layer: Layer, scale: float, index: int, rows: NDArray[np.intp] | None = None
) -> NDArray[np.float32]:
    return (layer(source.pooled(index, rows)) * scale).cpu().numpy()


def _begin(source: WindowSource, layer: Layer, protocol: Protocol, seed: int, max_gib: float) -> Mining:
    """The positives of all classes."""
    scale = feature_scale(source, layer, protocol.feature_norm, seed)
    store, slots, labels = None, [], []
    for index in track(range(len(source)), "positives"):
        windows = source.windows(index)
        if windows.n_truth:
            rows = _features(source, layer, scale, index, np.arange(windows.n_truth))
            store = RowStore(rows.shape[1], max_gib) if store is None else store
            slots.append(store.add(rows))
            store.retain(slots[-1])
            labels.append(windows.truth.labels)
    if store is None:
        raise DataError(
            f"{source.dataset.root}: no object in the training images; take more of them (--limit)"
        )
    slot, label = np.concatenate(slots), np.concatenate(labels)
    classes = []
    for k in range(len(source.dataset.class_names)):
        own = slot[label == k]
        weights = np.zeros(store.dimension, dtype=np.float32)
        classes.append(Examples(own, np.zeros(len(own)), len(own), weights))
    return Mining(scale, store, classes)


def _hard_negatives(
    source: WindowSource, layer: Layer, mining: Mining, protocol: Protocol, index: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Rows `(n, D)` of an image that are to be added to some class, and to which `(n, K)`."""
    rows = _features(source, layer, mining.scale, index)
    hard = negatives(source.windows(index), len(mining.classes), source.extractor)
    hard &= [examples.positives > 0 for examples in mining.classes]
    if index > 0:
        weights = np.stack([examples.weights for examples in mining.classes])
        offsets = [examples.offset for examples in mining.classes]
        hard &= rows @ weights.T + offsets > protocol.svm_hard_score
    wanted = hard.any(axis=1)
    return rows[wanted], hard[wanted]


def _collect(mining: Mining, rows: NDArray[np.float32], hard: NDArray[np.bool_]) -> None:
    slots = mining.store.add(rows)
    for k, examples in enumerate(mining.classes):
        own = slots[hard[:, k]]
        mining.store.retain(own)
        examples.add(own)


def _train(store: RowStore, examples: Examples, protocol: Protocol, seed: int) -> NDArray[np.int64]:
    """Train one class and evict its easy negatives; returns their slots, still to be released."""
    positive = np.arange(len(examples.slots)) < examples.positives
    examples.weights, examples.offset = solve(
        store,
        examples.slots,
        positive,
        examples.alpha,
        c=protocol.svm_c,
        positive_weight=protocol.svm_positive_weight,
        bias=protocol.svm_bias,
        tolerance=_TOLERANCE,
        seed=seed,
    )
    scores = score_rows(store, examples.slots, examples.weights, examples.offset)
    keep = positive | (scores >= protocol.svm_evict_score)
    evicted = examples.slots[~keep]
    examples.slots, examples.alpha, examples.added = examples.slots[keep], examples.alpha[keep], 0
    return evicted
