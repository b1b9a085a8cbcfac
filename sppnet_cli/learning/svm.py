"""One linear SVM per class on window features, trained in one pass of hard negative mining (released code, R-CNN).

`train_svms` is the pass.  `negatives.py` says which windows are negatives of a class, `rows.py` stores the examples,
`solver.py` trains a class.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sppnet_cli.console import track, warn
from sppnet_cli.errors import DataError
from sppnet_cli.features.layers import Layer
from sppnet_cli.features.windows import WindowSource
from sppnet_cli.learning.checkpoint import load_checkpoint, restoring, save_checkpoint
from sppnet_cli.learning.negatives import negatives
from sppnet_cli.learning.rows import RowsFull, RowStore
from sppnet_cli.learning.solver import score_rows, solve
from sppnet_cli.protocols import SvmRules
from sppnet_cli.runs import CHECKPOINT

SAVE_SECONDS = 600
_NORM_IMAGES = _NORM_WINDOWS = 200


@dataclass(frozen=True)
class Svms:
    """Linear SVMs of K classes on scaled features: `scores = scale * features @ weights.T + bias`."""

    weights: NDArray[np.float32]  # (K, D)
    bias: NDArray[np.float32]  # (K,)
    scale: float  # brings the mean norm of the features to the protocol's 20


@dataclass
class ClassExamples:
    """The examples of one class, as slots of the shared store, and the SVM last trained on them."""

    slots: NDArray[np.int64]  # (n,), the positives first
    alpha: NDArray[np.float64]  # (n,) multipliers
    positives: int
    weights: NDArray[np.float32]  # (D,)
    offset: float = 0.0
    added: int = 0  # negatives since the last training

    def add(self, slots: NDArray[np.int64]) -> None:
        """Add negatives."""
        self.slots = np.concatenate([self.slots, slots])
        self.alpha = np.concatenate([self.alpha, np.zeros(len(slots))])
        self.added += len(slots)


@dataclass
class Mining:
    """The state of the pass after the first `done` images: what a checkpoint holds."""

    scale: float  # of the features
    store: RowStore
    classes: list[ClassExamples]
    done: int = 0


def train_svms(
    source: WindowSource, layer: Layer, rules: SvmRules, *, seed: int, max_gib: float, folder: Path
) -> Svms:
    """Train the SVMs of all classes of `source`, whose windows must include the ground truth.

    The positives of a class are its ground-truth windows, difficult ones included.  Its first negatives are those of
    the first image; every further image adds the negatives that score above the protocol's threshold.  A class is
    trained again after more than 2,000 additions and after the last image; each training then drops the negatives that
    have become easy.  A class without positives gets a bias of minus infinity: it never fires.

    The rows take at most `max_gib`.  When they fill it, all classes are trained early to drop easy negatives; if that
    does not make enough room, `RowsFull` is raised.  Every ten minutes the state, rows included, is saved in `folder`,
    and a later call continues from it to the same bytes.  Raises `DataError` if no image has an object, for features
    that are not finite and for a broken checkpoint.
    """
    checkpoint = folder / CHECKPOINT
    mining = _load(checkpoint, source, max_gib) or _start(source, layer, rules, seed, max_gib)
    classes = [examples for examples in mining.classes if examples.positives]
    last = len(source) - 1
    saved, full = monotonic(), False

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:

        def train(group: Iterable[ClassExamples]) -> None:
            # Released in a fixed order, so that slots are reused alike on any number of threads.
            for easy in threads.map(lambda one: _train(mining.store, one, rules, seed), group):
                mining.store.release(easy)

        for index in track(range(mining.done, len(source)), f"SVMs on {layer.name}, hard negatives"):
            if monotonic() - saved > SAVE_SECONDS:
                _save(mining, checkpoint)
                saved = monotonic()
            rows, hard = _hard_negatives(source, layer, rules, mining, index)
            try:
                slots = mining.store.add(rows)
            except RowsFull:
                if not full:
                    warn(f"the SVM rows fill {max_gib:g} GiB: classes are trained early (see --max-memory)")
                full = True
                train([examples for examples in classes if examples.added])
                slots = mining.store.add(rows)
            for examples, of_class in zip(mining.classes, hard.T, strict=True):
                mining.store.retain(slots[of_class])
                examples.add(slots[of_class])
            train([one for one in classes if index in (0, last) or one.added > rules.svm_retrain_after])
            mining.done = index + 1

    if checkpoint.is_file():  # training took long, and the rest of the stage may still be interrupted
        _save(mining, checkpoint)
    bias = [examples.offset if examples.positives else -np.inf for examples in mining.classes]
    weights = np.stack([examples.weights for examples in mining.classes])
    return Svms(weights, np.array(bias, dtype=np.float32), mining.scale)


def _start(source: WindowSource, layer: Layer, rules: SvmRules, seed: int, max_gib: float) -> Mining:
    """Store the positives of all classes: the features of every ground-truth window."""
    scale = feature_scale(source, layer, rules.feature_norm, seed)
    store, slots, labels = None, [], []
    for index in track(range(len(source)), f"{layer.name} features of ground-truth windows"):
        windows = source.windows(index)
        if windows.n_truth:
            rows = _features(source, layer, scale, index, np.arange(windows.n_truth))
            store = store or RowStore(rows.shape[1], max_gib)
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
        positives = slot[label == k]
        weights = np.zeros(store.dimension, dtype=np.float32)
        classes.append(ClassExamples(positives, np.zeros(len(positives)), len(positives), weights))
    return Mining(scale, store, classes)


def _hard_negatives(
    source: WindowSource, layer: Layer, rules: SvmRules, mining: Mining, index: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The rows `(n, D)` of an image that are hard negatives of some class, and of which `(n, K)`."""
    rows = _features(source, layer, mining.scale, index)
    hard = negatives(source.windows(index), len(mining.classes), source.extractor, rules)
    hard &= [examples.positives > 0 for examples in mining.classes]
    if index > 0:  # before the first training every negative counts as hard
        weights = np.stack([examples.weights for examples in mining.classes])
        offsets = [examples.offset for examples in mining.classes]
        hard &= rows @ weights.T + offsets > rules.svm_hard_score
    of_any = hard.any(axis=1)
    return rows[of_any], hard[of_any]


def _train(store: RowStore, examples: ClassExamples, rules: SvmRules, seed: int) -> NDArray[np.int64]:
    """Train one class and drop its easy negatives; returns their slots, for the caller to release."""
    positive = np.arange(len(examples.slots)) < examples.positives
    examples.weights, examples.offset = solve(
        store,
        examples.slots,
        positive,
        examples.alpha,
        c=rules.svm_c,
        positive_weight=rules.svm_positive_weight,
        bias=rules.svm_bias,
        tolerance=rules.svm_tolerance,
        seed=seed,
    )
    scores = score_rows(store, examples.slots, examples.weights, examples.offset)
    keep = positive | (scores >= rules.svm_evict_score)
    easy = examples.slots[~keep]
    examples.slots, examples.alpha, examples.added = examples.slots[keep], examples.alpha[keep], 0
    return easy


def feature_scale(source: WindowSource, layer: Layer, norm: float, seed: int) -> float:
    """`norm` over the mean L2 norm of the layer's features, of 200 random windows in each of 200 random images.

    Source: the released code, with norm 20.  Raises `DataError` for features that are not finite.
    """
    rng = np.random.default_rng(seed)
    images = np.sort(rng.permutation(len(source))[:_NORM_IMAGES])
    norms = [np.zeros(0, np.float32)]
    for index in track(images.tolist(), f"mean norm of {layer.name} features"):
        windows = source.windows(index)
        rows = np.sort(rng.permutation(len(windows.boxes))[:_NORM_WINDOWS])
        norms.append(layer(source.pooled(index, rows)).norm(dim=1).cpu().numpy())
    total = float(np.concatenate(norms).sum(dtype=np.float64))
    if not np.isfinite(total):
        raise DataError(f"features of {layer.name} are not finite: the network that made them has diverged")
    return norm * sum(map(len, norms)) / total if total > 0 else 1.0


def _features(
    source: WindowSource, layer: Layer, scale: float, index: int, rows: NDArray[np.intp] | None = None
) -> NDArray[np.float32]:
    return (layer(source.pooled(index, rows)) * scale).cpu().numpy()


def _save(mining: Mining, path: Path) -> None:
    state = {
        "scale": mining.scale,
        "done": mining.done,
        "dimension": mining.store.dimension,
        "store": _to_tensors(mining.store.state()),
        "classes": [_to_tensors(vars(examples)) for examples in mining.classes],
    }
    save_checkpoint(path, state)


def _load(path: Path, source: WindowSource, max_gib: float) -> Mining | None:
    # The rows go straight from the file into the store.
    state = load_checkpoint(path, "done", len(source), mmap=True)
    if state is None:
        return None
    with restoring(path):
        store = RowStore.restored(state["dimension"], max_gib, _to_arrays(state["store"]))
        classes = [ClassExamples(**_to_arrays(fields)) for fields in deepcopy(state["classes"])]
        if len(classes) != len(source.dataset.class_names):
            raise ValueError(f"it is of {len(classes)} classes")
        for examples in classes:
            store.require(examples.slots)
            if (
                examples.alpha.shape != examples.slots.shape
                or examples.weights.shape != (store.dimension,)
                or not 0 <= examples.positives <= len(examples.slots)
            ):
                raise ValueError("the examples of a class do not fit together")
        if not 0 < state["scale"] < np.inf:
            raise ValueError(f"the features' scale is {state['scale']}")
        return Mining(state["scale"], store, classes, state["done"])


def _to_tensors(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in fields.items()}


def _to_arrays(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in fields.items()}
