"""The polynomial equations of the equilibria of SG and EMA, in S = AᵀA (P Prop 4.5; docs/theory.md §4).

At an equilibrium C = A, BᵀB = (α_p λ_A/λ_B) A Aᵀ and, with ℓ = λ_B/α_p,

    B = A Y Aᵀ W⁻¹,  W = A X Aᵀ + ℓ I,      A·[(λ_A/ℓ)(XS + ℓ)(SX + ℓ) − Yᵀ S Y] = 0.

Measuring S in units of ℓ/x̄, with x̄ the mean of X's diagonal, leaves one *reduced* problem

    A·M(S) = 0,    M(S) = (XS + I)(SX + I) − Yᵀ S Y,

with X ← X/x̄ and Y ← Y/√(λ_A x̄): whatever λ_A, λ_B and α_p are, they only scale. It is itself the
equation of stop gradient with λ = α_p = 1. Any real symmetric
solution of M(S) = 0 is positive semidefinite if Y is invertible, since Yᵀ S Y = L Lᵀ with L = XS + I.
Symmetric S is packed as its upper triangle.
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..checks import checked_arguments
from ..moments import Moments
from ..systems.siamese import MovingAverage, Siamese, StudentState, TeacherState


class ReducedProblem(NamedTuple):
    """The reduced problem: X and Y [m, m], and the unit of S: AᵀA = unit·S."""

    xx: Any
    yx: Any
    unit: Any


def reduce(system: Siamese, moments: Moments) -> ReducedProblem:
    """The reduced problem of a system with positive weight decays and α_p, for moments with X ≠ 0."""
    decay = system.weight_decay
    return reduce_arrays(moments.xx, moments.yx, decay.encoder, decay.predictor / system.predictor_lr_ratio)


def reduce_arrays(xx: Any, yx: Any, decay: Any, level: Any) -> ReducedProblem:
    """`reduce` of X, Y, λ_A and ℓ = λ_B/α_p, as NumPy or JAX arrays."""
    size = xx.trace() / xx.shape[0]
    return ReducedProblem(xx / size, yx / (decay * size) ** 0.5, level / size)


@checked_arguments
def decay_bound(moments: Moments) -> Array:
    """λ_A above which no nonzero equilibrium exists: ¼ ‖Y X^{−½}‖² (largest singular value squared).

    From tr(Aᵀ·0) = ‖PX^{½}‖² − ⟨PX^{½}, AYX^{−½}⟩ + λ_A‖A‖² with P = BA: completing the square gives
    λ_A‖A‖² <= ¼‖A Y X^{−½}‖². At m = 1 it is the threshold τ²/(4ρ) itself; for m > 1 only a bound.
    Directions in which X vanishes (and Y must, for views that exist) are left out.
    """
    values, vectors = jnp.linalg.eigh(moments.xx)
    kept = values > 1e-12 * values[-1]
    root = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)
    return jnp.linalg.norm(moments.yx @ (vectors * root), ord=2) ** 2 / 4


def pack(s: Any) -> Any:
    """The upper triangle of symmetric [..., m, m] as [..., m(m+1)/2]."""
    rows, columns = _triangle(s.shape[-1])
    return s[..., rows, columns]


@functools.lru_cache(maxsize=64)
def _triangle(size: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(size)


def unpack(packed: Any, m: int) -> Any:
    """The symmetric matrix [m, m] of an upper triangle [m(m+1)/2]."""
    index = np.zeros((m, m), int)
    rows, columns = np.triu_indices(m)
    index[rows, columns] = index[columns, rows] = np.arange(rows.size)
    return packed[index]


def symmetric(packed: np.ndarray, m: int) -> np.ndarray:
    """Symmetric matrices [count, m, m] of upper triangles [count, m(m+1)/2]."""
    rows, columns = _triangle(m)
    full = np.zeros((packed.shape[0], m, m), packed.dtype)
    full[:, rows, columns] = full[:, columns, rows] = packed
    return full


def equation_matrix(s: Any, xx: Any, yx: Any) -> Any:
    """M(S) = (XS + I)(SX + I) − Yᵀ S Y [m, m], symmetric."""
    left = product(xx, s) + jnp.eye(s.shape[0], dtype=s.dtype)
    return product(left, left.T) - product(product(yx.T, s), yx)


def product(a: Any, b: Any) -> Any:
    """Matrix product of small matrices as a sum of products: three times as fast as a batched `@` on the CPU."""
    return jnp.sum(a[:, :, None] * b[None], 1)


class Chart(NamedTuple):
    """Symmetric S of rank k near a given one: S = P Ŝ Pᵀ, P = range + complement·Z.

    `range` [m, k] and `complement` [m, m − k] together are a basis of R^m. Coordinates are
    Ŝ (packed) and Z [m − k, k], m k − k(k − 1)/2 numbers.
    """

    range: Any
    complement: Any


def chart_at(s: Any, rank: int) -> tuple[Chart, Any]:
    """The chart around S ⪰ 0 (its `rank` largest eigenvectors and the rest), and S's coordinates."""
    xp = _library(s)
    values, vectors = xp.linalg.eigh(s)
    values, vectors = values[::-1], vectors[:, ::-1]
    coordinates = xp.concatenate([pack(xp.diag(values[:rank])), xp.zeros((s.shape[0] - rank) * rank)])
    return Chart(vectors[:, :rank], vectors[:, rank:]), coordinates


def _library(array: Any) -> Any:
    return np if isinstance(array, np.ndarray) else jnp


def chart_gram(coordinates: Any, chart: Chart) -> tuple[Any, Any]:
    """(S, P) at these coordinates."""
    m, k = chart.range.shape
    packed, z = coordinates[: k * (k + 1) // 2], coordinates[k * (k + 1) // 2 :].reshape(m - k, k)
    p = chart.range + product(chart.complement, z)
    return product(product(p, unpack(packed, k)), p.T), p


def chart_equations(coordinates: Any, chart: Chart, xx: Any, yx: Any) -> Any:
    """Pᵀ M(S) = 0 as a square system: Pᵀ M P packed, and Pᵀ M complement."""
    s, p = chart_gram(coordinates, chart)
    left = product(p.T, equation_matrix(s, xx, yx))
    return jnp.concatenate([pack(product(left, p)), product(left, chart.complement).T.ravel()])


def rank_one(xx: np.ndarray, yx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All 2m complex rank-one solutions of the reduced problem, in closed form up to an eigenproblem.

    S = σ² p pᵀ with ‖p‖ = 1 reduces M(S) p = 0 to (σ²X − σYᵀ + I)p = 0; with κ = 1/σ the pencil
    X − κYᵀ + κ²I is monic, so its 2m eigenvalues κ are those of a companion matrix. Real nonzero κ
    are equilibria.

    Returns:
        κ [..., 2m] and p [..., 2m, m], each scaled to unit length.
    """
    m = xx.shape[-1]
    zero, eye = np.zeros_like(xx), np.broadcast_to(np.eye(m), xx.shape)
    companion = np.concatenate(
        [np.concatenate([zero, eye], -1), np.concatenate([-xx, np.swapaxes(yx, -1, -2)], -1)], -2
    )
    kappa, vectors = np.linalg.eig(companion)
    p = np.swapaxes(vectors[..., :m, :], -1, -2)
    return kappa, p / np.linalg.norm(p, axis=-1, keepdims=True)


def thin_student(s: Any, rank: int, xx: Any, yx: Any, level: Any = 1.0) -> StudentState:
    """(A, B) with n = rank and AᵀA = S: A = Ŝ^{½}Pᵀ, B = A Y Aᵀ (A X Aᵀ + ℓ)⁻¹; of NumPy or JAX arrays."""
    xp = _library(s)
    values, vectors = xp.linalg.eigh(s)
    roots = xp.sqrt(xp.maximum(values[::-1][:rank], 0))
    a = roots[:, None] * vectors[:, ::-1][:, :rank].T
    w = a @ xx @ a.T + level * xp.eye(rank, dtype=s.dtype)
    return StudentState(a, xp.linalg.solve(w, a @ yx.T @ a.T).T)


def student(gram: Any, rank: int, n: int, system: Siamese, moments: Moments) -> StudentState:
    """(A, B) of an equilibrium with S = AᵀA = `gram` of this rank, for embedding dimension n."""
    xp = _library(gram)
    level = system.weight_decay.predictor / system.predictor_lr_ratio
    thin = thin_student(gram, rank, xp.asarray(moments.xx), xp.asarray(moments.yx), level)
    return StudentState(xp.pad(thin.encoder, ((0, n - rank), (0, 0))), xp.pad(thin.predictor, ((0, n - rank),) * 2))


def lift(gram: np.ndarray, rank: int, n: int, system: Siamese, moments: Moments) -> StudentState | TeacherState:
    """The state (A, B[, C = A]) of an equilibrium with S = AᵀA = `gram`, on the host."""
    a: Any
    b: Any
    a, b = student(gram, rank, n, system, moments) if rank else (np.zeros((n, gram.shape[0])), np.zeros((n, n)))
    return TeacherState(a, b, a) if isinstance(system, MovingAverage) else StudentState(a, b)
