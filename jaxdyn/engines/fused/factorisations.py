"""Factorisations of small matrices, as JAX functions of arithmetic that is the same for every trial."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .expressions import Unsupported

_LARGEST = 8  # rows of a matrix: more take seconds to compile


def _by_matrix(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of one matrix (or of several), over leading axes."""

    def all_of_them(*matrices: Any) -> Any:
        sizes = [size for each in matrices for size in each.shape[-2:]]
        if not min(sizes) or max(sizes) > _LARGEST:
            raise Unsupported(f"a factorisation of matrices with {max(sizes)} rows (none, or more than {_LARGEST})")
        call = function
        for _ in range(matrices[0].ndim - 2):
            call = jax.vmap(call)
        return call(*matrices)

    return all_of_them


def cholesky(*, symmetrize_input: bool = False, **_: Any):
    """The lower factor; NaN everywhere, as LAPACK's callers have it, where the matrix is not positive definite.

    A pivot that is NaN is no such finding: what does not depend on it stays.
    """

    def one(matrix: Any) -> Any:
        if symmetrize_input:
            matrix = (matrix + matrix.conj().T) / 2
        n = matrix.shape[0]
        rows: list[list[Any]] = [[jnp.zeros((), matrix.dtype)] * n for _ in range(n)]
        bad = jnp.zeros((), bool)
        for j in range(n):
            left = matrix[j, j].real - sum((rows[j][k] * rows[j][k].conj()).real for k in range(j))
            bad = bad | (left <= 0)
            root = jnp.sqrt(jnp.where(left > 0, left, jnp.nan))
            rows[j][j] = root.astype(matrix.dtype)
            for i in range(j + 1, n):
                rest = matrix[i, j] - sum(rows[i][k] * rows[j][k].conj() for k in range(j))
                rows[i][j] = rest / root
        factor = jnp.array(rows)
        return jnp.where(bad, jnp.nan, factor)

    return _by_matrix(one)


def triangular_solve(
    *, left_side: bool, lower: bool, transpose_a: bool, conjugate_a: bool, unit_diagonal: bool, **_: Any
):
    def one(a: Any, b: Any) -> Any:
        if conjugate_a:
            a = a.conj()
        upper = lower == transpose_a
        a = a.T if transpose_a else a
        if not left_side:  # x a = b is aᵀ xᵀ = bᵀ
            a, b, upper = a.T, b.T, not upper
        n = a.shape[0]
        rows: list[Any] = [None] * n
        for i in reversed(range(n)) if upper else range(n):
            known = range(i + 1, n) if upper else range(i)
            rest = b[i] - sum(a[i, k] * rows[k] for k in known)
            rows[i] = rest if unit_diagonal else rest / a[i, i]
        x = jnp.stack(rows)
        return x if left_side else x.T

    return _by_matrix(one)


def lu(**_: Any):
    """With partial pivoting: the factors in one matrix, the rows exchanged, and where each row came from."""

    def one(matrix: Any) -> Any:
        n_rows, n_columns = matrix.shape
        rows, at = list(matrix), [jnp.int32(k) for k in range(n_rows)]
        exchanged = []
        for k in range(min(n_rows, n_columns)):
            sizes = jnp.stack([jnp.abs(row[k].real) + jnp.abs(row[k].imag) for row in rows[k:]])
            best = k + jnp.argmax(sizes).astype(jnp.int32)
            exchanged.append(best)
            first, first_at = rows[k], at[k]
            for i in range(k + 1, n_rows):
                here = best == i
                rows[k], at[k] = jnp.where(here, rows[i], rows[k]), jnp.where(here, at[i], at[k])
                rows[i], at[i] = jnp.where(here, first, rows[i]), jnp.where(here, first_at, at[i])
            pivot = rows[k][k]
            for i in range(k + 1, n_rows):
                factor = jnp.where(pivot == 0, 0, rows[i][k] / jnp.where(pivot == 0, 1, pivot))
                left = jnp.concatenate([rows[i][:k], factor[None]])
                rows[i] = jnp.concatenate([left, rows[i][k + 1 :] - factor * rows[k][k + 1 :]])
        return jnp.stack(rows), jnp.stack(exchanged), jnp.stack(at)

    return _by_matrix(one)


def eigh(*, lower: bool, sort_eigenvalues: bool, subset_by_index: Any = None, **_: Any):
    """Eigenvectors and eigenvalues by Jacobi's rotations; the largest number of each vector is made positive.

    LAPACK leaves the vectors' signs to chance: what depends on them differs from engine to engine.
    """
    if subset_by_index is not None:
        raise Unsupported("eigh of a part of the eigenvalues")

    def one(matrix: Any) -> Any:
        _real_only("eigh", matrix)
        half = jnp.tril(matrix) if lower else jnp.triu(matrix)
        size = matrix.shape[0]
        full = half + half.T - jnp.diag(jnp.diagonal(half))
        rotated, vectors = _diagonalised(full, jnp.eye(size, dtype=full.dtype))
        values = jnp.diagonal(rotated)
        sign = jnp.where(jnp.take_along_axis(vectors, jnp.argmax(jnp.abs(vectors), 0)[None], 0) < 0, -1, 1)
        vectors = vectors * sign.astype(vectors.dtype)
        if sort_eigenvalues:
            values, *rows = jax.lax.sort((values, *vectors), num_keys=1)
            vectors = jnp.stack(rows)
        return vectors, values

    return _by_matrix(one)


def _diagonalised(matrix: Any, vectors: Any) -> tuple[Any, Any]:
    """Cyclic sweeps of rotations until what is off the diagonal is below rounding."""
    n = matrix.shape[0]
    eps = float(jnp.finfo(matrix.dtype).eps)

    def off(matrix: Any) -> Any:
        return sum((matrix[i, j] ** 2 for i in range(n) for j in range(i)), jnp.zeros((), matrix.dtype))

    scale = jnp.max(jnp.abs(matrix))
    usable = jnp.isfinite(scale)
    matrix = jnp.where(usable, matrix / jnp.where(scale == 0, 1, scale), jnp.zeros_like(matrix))

    def sweep(carry: Any) -> Any:
        count, matrix, vectors = carry
        rows, columns = [list(row) for row in matrix], [list(row) for row in vectors]
        for p in range(n):
            for q in range(p + 1, n):
                _rotate(rows, columns, p, q)
        return count + 1, jnp.array(rows), jnp.array(columns)

    goes_on = lambda carry: (off(carry[1]) > (eps / 8) ** 2) & (carry[0] < 40)  # noqa: E731
    _, matrix, vectors = jax.lax.while_loop(goes_on, sweep, (jnp.int32(0), matrix, vectors))
    return jnp.where(usable, matrix * scale, jnp.nan), jnp.where(usable, vectors, jnp.nan)


def _tangent(half_gap: Any, below: Any) -> Any:
    """Of the smaller angle by which two numbers on a diagonal, so far apart, are freed of the one beside them."""
    nothing = below == 0
    ratio = half_gap / jnp.where(nothing, 1, below)
    bounded = jnp.minimum(jnp.abs(ratio), 1e150 if below.dtype == np.float64 else 1e18)
    t = jnp.where(ratio < 0, -1, 1) / (bounded + jnp.sqrt(1 + bounded * bounded))
    return jnp.where(nothing, 0, t).astype(below.dtype)


def _rotate(a: list[list[Any]], v: list[list[Any]], p: int, q: int) -> None:
    """The rotation that makes a[p][q] zero, in place (Golub & Van Loan, section 8.5)."""
    n, below = len(a), a[p][q]
    t = _tangent((a[q][q] - a[p][p]) / 2, below)
    c = 1 / jnp.sqrt(1 + t * t)
    s = t * c
    a[p][p], a[q][q] = a[p][p] - t * below, a[q][q] + t * below
    a[p][q] = a[q][p] = jnp.zeros_like(below)
    for k in range(n):
        if k not in (p, q):
            first, second = a[k][p], a[k][q]
            a[k][p] = a[p][k] = c * first - s * second
            a[k][q] = a[q][k] = s * first + c * second
        first, second = v[k][p], v[k][q]
        v[k][p], v[k][q] = c * first - s * second, s * first + c * second


def _real_only(name: str, x: Any) -> None:
    if jnp.iscomplexobj(x):
        raise Unsupported(f"{name} of complex numbers")


def qr(*, full_matrices: bool, pivoting: bool = False, **_: Any):
    """By Householder's reflections, with LAPACK's signs: R's diagonal is opposite in sign to what was reflected."""
    if pivoting:
        raise Unsupported("qr with pivoting")

    def one(matrix: Any) -> Any:
        _real_only("qr", matrix)
        n_rows, n_columns = matrix.shape
        q, r = jnp.eye(n_rows, dtype=matrix.dtype), matrix
        for k in range(min(n_rows - 1, n_columns)):
            below = r[k:, k]
            rest = jnp.max(jnp.abs(below[1:]))  # zero: there is nothing to reflect
            scale = jnp.maximum(jnp.abs(below[0]), rest)
            unit = below / jnp.where(scale == 0, 1, scale)
            norm = jnp.copysign(jnp.sqrt(jnp.sum(unit * unit)), unit[0])
            v = jnp.concatenate([unit[:1] + norm, unit[1:]])
            v = jnp.where(rest == 0, 0, v)
            half = jnp.where(rest == 0, 1, jnp.sum(v * v) / 2)
            r = r.at[k:].add(-jnp.outer(v, (v @ r[k:]) / half))
            r = r.at[k + 1 :, k].set(0)
            q = q.at[:, k:].add(-jnp.outer((q[:, k:] @ v) / half, v))
        kept = n_rows if full_matrices else min(n_rows, n_columns)
        return q[:, :kept], jnp.triu(r[:kept])

    return _by_matrix(one)


def svd(*, compute_uv: bool, subset_by_index: Any = None, **_: Any):
    """The singular values, by rotations that make the columns orthogonal (Hestenes)."""
    if compute_uv or subset_by_index is not None:
        raise Unsupported("svd with its vectors, or of a part of the values")

    def one(matrix: Any) -> Any:
        _real_only("svd", matrix)
        tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
        n, scale = tall.shape[1], jnp.max(jnp.abs(tall))
        usable = jnp.isfinite(scale)
        tall = jnp.where(usable, tall / jnp.where(scale == 0, 1, scale), jnp.zeros_like(tall))
        eps = float(jnp.finfo(matrix.dtype).eps)

        def sweep(carry: Any) -> Any:
            count, _, columns = carry
            columns, worst = list(columns), jnp.zeros((), matrix.dtype)
            for p in range(n):
                for q in range(p + 1, n):
                    x, y = columns[p], columns[q]
                    a, b, c = jnp.sum(x * x), jnp.sum(y * y), jnp.sum(x * y)
                    bound = jnp.sqrt(a) * jnp.sqrt(b)
                    worst = jnp.maximum(worst, jnp.where(bound == 0, 0, jnp.abs(c) / jnp.where(bound == 0, 1, bound)))
                    t = _tangent((b - a) / 2, c)
                    cosine = 1 / jnp.sqrt(1 + t * t)
                    columns[p], columns[q] = cosine * (x - t * y), cosine * (t * x + y)
            return count + 1, worst, jnp.stack(columns)

        start = (jnp.int32(0), jnp.ones((), matrix.dtype), tall.T)
        goes_on = lambda carry: (carry[1] > n * eps) & (carry[0] < 40)  # noqa: E731
        columns = jax.lax.while_loop(goes_on, sweep, start)[2]
        values = jnp.sqrt(jnp.sum(columns * columns, 1)) * scale
        return jnp.where(usable, -jnp.sort(-values), jnp.nan)

    return _by_matrix(one)


FACTORISATIONS = {each.__name__: each for each in (cholesky, triangular_solve, lu, eigh, qr, svd)}
