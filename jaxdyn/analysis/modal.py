"""JointModes of real data: the axes in which X and Y are most nearly diagonal, and what each mode would do by itself.

In exactly diagonal moments the dynamics are m copies of m = 1 (docs/theory.md §4); for real ones this is a first
prediction, `coupling` says how good, and `settled_spectrum` follows the coupled flow from it to the equilibrium nearby.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..arrays import is_traced, real_numbers, refuse_traced
from ..checks import checked_arguments, told
from ..moments import Moments
from ..solve.flow import flow
from ..systems.siamese import Siamese, StopGradient
from .invariants import gram


class JointModes(NamedTuple):
    """JointModes in descending threshold.

    axes [m, m]: orthonormal, a mode a column; rho, tau [m]: their E[x²] and E[yx]; coupling: the share of
    ‖X‖² + ‖½(Y + Yᵀ)‖² off the diagonal in these axes; skew: ‖Y − Yᵀ‖/2‖Y‖.
    """

    axes: Float[Array, "m m"]
    rho: Float[Array, " m"]
    tau: Float[Array, " m"]
    coupling: float
    skew: float


class ModeFates(NamedTuple):
    """What each mode does by itself (T eqs 11-16, P Prop 4.11), [m] each.

    threshold: the largest weight decay τ²/(4ρ) with a nonzero equilibrium; eigenvalue: of S at the outer one, 0 where
    there is none; inner: of S at the inner one, which starts must exceed; rate: of the slowest return to the outer
    equilibrium along the balanced parabola (or to 0), 1/time.
    """

    threshold: Array
    eigenvalue: Array
    inner: Array
    rate: Array


@checked_arguments
def modes_of(moments: Moments) -> JointModes:
    """The orthonormal axes in which X and the symmetric part of Y are jointly most nearly diagonal.

    Source: Jacobi rotations for a set of symmetric matrices (Cardoso & Souloumiac 1996).
    """
    refuse_traced("moments", moments)
    x, y = np.asarray(moments.xx, np.float64), np.asarray(moments.yx, np.float64)
    pair = np.stack([x, (y + y.T) / 2])
    scale = np.linalg.norm(pair, axis=(1, 2), keepdims=True)
    pair = pair / np.where(scale > 0, scale, 1)
    # Eigenvectors of a generic combination diagonalise commuting matrices, repeated eigenvalues and all.
    axes = np.linalg.eigh(pair[0] + 0.7 * pair[1])[1]
    pair = axes.T @ pair @ axes
    for _ in range(100):
        axes, pair, largest = _sweep(axes, pair)
        if largest < 1e-12:
            break
    rho, tau = np.einsum("ij,ik,kj->j", axes, x, axes), np.einsum("ij,ik,kj->j", axes, y, axes)
    order = np.argsort(-(tau**2) / np.maximum(rho, 1e-300))
    off = pair - np.stack([np.diag(np.diag(each)) for each in pair])
    size = np.linalg.norm(y)
    return JointModes(
        jnp.asarray(axes[:, order]), jnp.asarray(rho[order]), jnp.asarray(tau[order]),
        float(np.sum(off**2) / np.sum(pair**2)), float(np.linalg.norm(y - y.T) / (2 * size)) if size > 0 else 0.0,
    )  # fmt: skip


def _sweep(axes: np.ndarray, pair: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """One round of plane rotations, each the best for its plane; and the sine of the largest."""
    largest = 0.0
    for i in range(axes.shape[0]):
        for j in range(i + 1, axes.shape[0]):
            h = np.stack([pair[:, i, i] - pair[:, j, j], 2 * pair[:, i, j]])
            g = h @ h.T
            angle = 0.25 * np.arctan2(2 * g[0, 1], g[0, 0] - g[1, 1])
            c, s = np.cos(angle), np.sin(angle)
            largest = max(largest, abs(s))
            turn = np.eye(axes.shape[0])
            turn[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
            axes, pair = axes @ turn, turn.T @ pair @ turn
    return axes, pair, largest


def mode_fates(rho: Any, tau: Any, weight_decay: Any, predictor_lr_ratio: Any = 1.0) -> ModeFates:
    """Each mode by itself, with equal decays: p(τ − ρp) = λ and s = p²/α_p at its equilibria.

    Example:
        >>> fate = mode_fates(jnp.array([1.0]), jnp.array([1.0]), 0.16)
        >>> float(fate.threshold[0]), round(float(fate.eigenvalue[0]), 6), round(float(fate.inner[0]), 6)
        (0.25, 0.64, 0.04)
    """
    named = {"rho": rho, "tau": tau, "weight_decay": weight_decay, "predictor_lr_ratio": predictor_lr_ratio}
    for name, value in named.items():
        if is_traced(value):
            continue
        numbers = real_numbers(name, value)
        if not numbers.size or not (np.isfinite(numbers) & ((numbers >= 0) | (name == "tau"))).all():
            raise ValueError(f"{name}: expected finite numbers{'' if name == 'tau' else ' >= 0'}, got {told(value)}")
    rho, tau = jnp.asarray(rho), jnp.abs(jnp.asarray(tau))
    delta = tau**2 - 4 * rho * weight_decay
    alive = (delta >= 0) & (rho > 0)
    root, divisor = jnp.sqrt(jnp.maximum(delta, 0)), 2 * jnp.where(rho > 0, rho, 1)
    outer, inner = (tau + root) / divisor, (tau - root) / divisor
    # ṗ = p[p(τ − ρp) − λ] on the parabola (T eq 16); its slope at an equilibrium p is p(τ − 2ρp).
    slope = jnp.where(alive, outer * (2 * rho * outer - tau), weight_decay)
    threshold = jnp.where(rho > 0, tau**2 / jnp.where(rho > 0, 4 * rho, 1), 0)
    return ModeFates(
        threshold,
        jnp.where(alive, outer**2, 0) / predictor_lr_ratio,
        jnp.where(alive, inner**2, 0) / predictor_lr_ratio,
        slope,
    )


def settled_spectrum(
    system: Siamese, moments: Moments, fates: ModeFates, axes: Array, *, n: int, t1: float
) -> tuple[Float[Array, " m"], Any]:
    """Eigenvalues of S [m], descending, where the flow goes from the uncoupled prediction; and the state there.

    The start is A = √S in these axes, balanced, with a trace of every mode that should be dead. Stop gradient and
    moving average have the same equilibria, so the flow is stop gradient's.
    """
    m = moments.m
    root = jnp.sqrt(jnp.maximum(fates.eigenvalue, 1e-6))
    encoder = jnp.zeros((n, m)).at[:m].set((axes * root).T)
    ratio, decay = system.predictor_lr_ratio, system.weight_decay
    sign = jnp.sign(jnp.einsum("ij,ik,kj->j", axes, moments.yx, axes))
    predictor = jnp.zeros((n, n)).at[jnp.arange(m), jnp.arange(m)].set(sign * root * jnp.sqrt(ratio))
    plain = StopGradient((decay.encoder, decay.predictor), ratio)
    end = flow(plain, plain.state(encoder=encoder, predictor=predictor), moments, t1=t1, solver="kvaerno5").final
    return jnp.linalg.eigvalsh(gram(end))[::-1], end
