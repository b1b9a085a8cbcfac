"""Ridge regression on whitened targets, in bounded memory: the samples are added piece by piece."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import lapack

from sppnet_cli.errors import DataError
from sppnet_cli.kernels.linear import linear

_WHITENING = 0.001  # added to the variances of the targets
_BLOCK = 1024  # samples, or features, converted to 32 bits at a time


def ridge_memory(samples: int, dimension: int) -> tuple[int, int]:
    """Bytes that a `Ridge` takes while samples are added, and while it solves; a few blocks come on top."""
    if _in_the_dual(samples, dimension):
        rows = 2 * samples * dimension
        return rows, rows + 8 * samples**2
    gram = 8 * (dimension + 1) ** 2
    return gram, gram


class Ridge:
    """Ridge regression on features `(N, D)` and a constant 1, which is penalised like the features (R-CNN's code).

    The targets `(N, 4)` are whitened by the inverse square root of (covariance + .001 I).  The dual system is N x N
    and needs the samples, kept in 16 bits; the primal system is D + 1 square.  The one that takes less memory is used.
    Products are computed in 32 bits and summed over blocks in 64; the system is solved in 64.
    """

    def __init__(self, targets: NDArray[np.float64], dimension: int, penalty: float) -> None:
        self._mean = targets.mean(axis=0)
        centred = targets - self._mean
        variance, axes = np.linalg.eigh(centred.T @ centred / len(targets))
        root = np.sqrt(variance + _WHITENING)
        self._back = (axes * root) @ axes.T
        self._penalty = penalty
        self._system = (_Dual if _in_the_dual(len(targets), dimension) else _Primal)(
            centred @ (axes / root) @ axes.T, dimension
        )

    def add(self, features: NDArray[np.float16]) -> None:
        """Add the features `(n, D)` of the next samples, in the order of the targets."""
        self._system.add(features)

    def solve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weights `(D, 4)` and bias `(4,)`.  Call it once, after all samples have been added.

        Raises `DataError` for features that are not finite.
        """
        coefficients = self._system.solve(self._penalty) @ self._back
        return coefficients[:-1], coefficients[-1] + self._mean


def _in_the_dual(samples: int, dimension: int) -> bool:
    return 2 * samples * dimension + 8 * samples**2 <= 8 * (dimension + 1) ** 2


class _Dual:
    def __init__(self, targets: NDArray[np.float64], dimension: int) -> None:
        self._targets = targets
        self._rows = np.empty((len(targets), dimension), dtype=np.float16)
        self._filled = 0

    def add(self, features: NDArray[np.float16]) -> None:
        self._rows[self._filled : self._filled + len(features)] = features
        self._filled += len(features)

    def solve(self, penalty: float) -> NDArray[np.float64]:
        n, dimension = self._rows.shape
        blocks = [slice(i, i + _BLOCK) for i in range(0, n, _BLOCK)]
        gram = np.empty((n, n))
        for k, rows in enumerate(blocks):
            block = self._rows[rows].astype(np.float32)
            for others in blocks[: k + 1]:
                gram[rows, others] = _product(block, self._rows[others].astype(np.float32))
                gram[rows, others] += 1  # the constant
        multipliers = _solve_in_place(gram, self._targets, penalty)
        coefficients = np.empty((dimension + 1, 4))
        for start in range(0, dimension, _BLOCK):
            columns = slice(start, min(start + _BLOCK, dimension))
            coefficients[columns] = self._rows[:, columns].astype(np.float64).T @ multipliers
        coefficients[-1] = multipliers.sum(axis=0)
        return coefficients


class _Primal:
    def __init__(self, targets: NDArray[np.float64], dimension: int) -> None:
        self._targets = targets
        self._gram = np.zeros((dimension + 1, dimension + 1))
        self._right = np.zeros((dimension + 1, 4))
        self._block = np.ones((_BLOCK, dimension + 1), dtype=np.float16)
        self._filled = 0  # of the block
        self._done = 0

    def add(self, features: NDArray[np.float16]) -> None:
        while len(features):
            room = features[: _BLOCK - self._filled]
            self._block[self._filled : self._filled + len(room), :-1] = room
            self._filled += len(room)
            features = features[len(room) :]
            if self._filled == _BLOCK:
                self._sum_up()

    def solve(self, penalty: float) -> NDArray[np.float64]:
        self._sum_up()
        return _solve_in_place(self._gram, self._right, penalty)

    def _sum_up(self) -> None:
        rows = self._block[: self._filled].astype(np.float32)
        targets = self._targets[self._done : self._done + self._filled]
        for start in range(0, rows.shape[1], _BLOCK):
            columns = rows[:, start : start + _BLOCK].T
            self._gram[start : start + _BLOCK, : start + _BLOCK] += _product(
                columns, rows[:, : start + _BLOCK].T
            )
            self._right[start : start + _BLOCK] += columns.astype(np.float64) @ targets
        self._done += self._filled
        self._filled = 0


def _product(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """`a @ b.T` by the library of the fc layers."""
    product: NDArray[np.float32] = linear(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    return product


def _solve_in_place(
    gram: NDArray[np.float64], right: NDArray[np.float64], penalty: float
) -> NDArray[np.float64]:
    """`(gram + penalty I)^-1 right`, by Cholesky on the lower triangle of `gram`, which is overwritten."""
    gram[np.diag_indices(len(gram))] += penalty
    _, solution, failed = lapack.dposv(gram.T, right, lower=0, overwrite_a=1)
    if failed or not np.isfinite(solution).all():
        raise DataError("features for box regression are not finite: the network that made them has diverged")
    return np.ascontiguousarray(solution)
