"""Ball arithmetic (Arb, through python-flint): matrices of numbers with proven error bounds."""

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from flint import arb, arb_mat, ctx


def precision(bits: int) -> AbstractContextManager[Any]:
    """Compute with this many bits inside the block."""
    return ctx.workprec(bits)


def cholesky(value: Any) -> Any:
    """Lower L with L Lᵀ = matrix in balls, or None where a pivot may not be positive."""
    size = value.nrows()
    lower = arb_mat(size, size)
    for j in range(size):
        pivot = value[j, j] - sum((lower[j, k] * lower[j, k] for k in range(j)), start=0 * value[j, j])
        if not pivot > 0:
            return None
        lower[j, j] = pivot.sqrt()
        for i in range(j + 1, size):
            inner = sum((lower[i, k] * lower[j, k] for k in range(j)), start=0 * value[j, j])
            lower[i, j] = (value[i, j] - inner) / lower[j, j]
    return lower


def matrix(values: np.ndarray) -> Any:
    """Float64 numbers as exact balls."""
    return arb_mat([[arb(float(value)) for value in row] for row in values])


def identity(size: int) -> Any:
    return matrix(np.eye(size))


def column(values: np.ndarray) -> Any:
    return matrix(values[:, None])


def list_column(entries: list[Any]) -> Any:
    return arb_mat([[entry] for entry in entries])


def floats(value: Any) -> np.ndarray:
    """Midpoints, rounded."""
    values = [float(entry.mid()) for entry in value.entries()]
    return np.array(values).reshape(value.nrows(), value.ncols())


def signs(value: Any) -> tuple[int, int]:
    """Proven numbers of positive and negative eigenvalues of a symmetric ball matrix: Gershgorin after a congruence."""
    _, vectors = np.linalg.eigh(floats(value))
    v = matrix(vectors)
    if not v.det().abs_lower() > 0:
        return 0, 0
    turned = v.transpose() * value * v
    size = turned.nrows()
    positive = negative = 0
    for i in range(size):
        off = sum((abs(turned[i, j]) for j in range(size) if j != i), start=0 * turned[i, i])
        positive += int(turned[i, i] - off > 0)
        negative += int(turned[i, i] + off < 0)
    return positive, negative


__all__ = ["arb", "arb_mat", "cholesky", "column", "floats", "identity", "list_column", "matrix", "precision", "signs"]
