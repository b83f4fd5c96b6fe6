"""m = 1 in closed form: the equilibria of stop gradient and moving average are spheres (P Prop 4.11).

With X = ρ > 0, Y = τ and one weight decay λ, Δ = τ² − 4ρλ decides: for Δ >= 0 the nonzero
equilibria are A = a with ‖a‖ = r, B = τ a aᵀ/(ρ r² + λ), where ρ r² − |τ| r + λ = 0, so

    r₁,₂ = (|τ| ∓ √Δ) / (2ρ):     S₁ (inner) a saddle, S₂ (outer) stable.

For Δ < 0 there is none. The origin is an equilibrium for every draw, and stable for λ > 0. In units
a = (τ/ρ)â, B = (τ/ρ)B̂, t = (ρ/τ²)t̂ a single number is left: ε = λρ/τ², with Δ >= 0 iff ε <= ¼.

For a predictor learning rate ratio α_p ≠ 1 the same r is the norm of B, and ‖a‖ = r/√α_p by the
balance law; existence does not change.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..arrays import ScalarLike
from ..checks import checked_arguments
from .siamese import SiameseState, StudentState, TeacherState


class ScalarData(NamedTuple):
    """What decides the m = 1 equilibria: ρ = E[x²] > 0, τ = E[yx], weight decay λ and α_p (default 1)."""

    rho: ScalarLike
    tau: ScalarLike
    weight_decay: ScalarLike
    predictor_lr_ratio: ScalarLike = 1.0


class Radii(NamedTuple):
    """‖a‖ on the inner sphere S₁ and the outer sphere S₂; NaN where Δ < 0."""

    inner: Float[Array, "..."]
    outer: Float[Array, "..."]


def discriminant(data: ScalarData) -> Float[Array, "..."]:
    """Δ = τ² − 4ρλ: nonzero equilibria exist iff Δ >= 0 (P Prop 4.11). Arrays broadcast."""
    return jnp.asarray(data.tau) ** 2 - 4 * jnp.asarray(data.rho) * jnp.asarray(data.weight_decay)


@checked_arguments
def radii(data: ScalarData) -> Radii:
    """r₁,₂ = (|τ| ∓ √Δ)/(2ρ√α_p), computed without cancellation: r₁ = 2λ/((|τ| + √Δ)√α_p).

    Example:
        >>> inner, outer = radii(ScalarData(rho=1.0, tau=1.0, weight_decay=0.09))
        >>> round(float(inner), 6), round(float(outer), 6)
        (0.1, 0.9)
    """
    delta = discriminant(data)
    root = jnp.sqrt(jnp.where(delta >= 0, delta, jnp.nan))
    larger = jnp.abs(jnp.asarray(data.tau)) + root
    balance = jnp.sqrt(jnp.asarray(data.predictor_lr_ratio))
    return Radii(2 * jnp.asarray(data.weight_decay) / larger / balance, larger / (2 * jnp.asarray(data.rho)) / balance)


def sphere_state(direction: Float[Array, " n"], radius: ScalarLike, data: ScalarData) -> TeacherState:
    """The point (A, B, C = A) of the sphere ‖a‖ = radius in the given (nonzero) direction."""
    a = jnp.asarray(radius) * direction / jnp.linalg.norm(direction)
    ratio = jnp.asarray(data.predictor_lr_ratio)
    b = ratio * data.tau * jnp.outer(a, a) / (ratio * data.rho * jnp.asarray(radius) ** 2 + data.weight_decay)
    return TeacherState(a[:, None], b, a[:, None])


def distance_to_sphere(state: SiameseState, radius: ScalarLike, data: ScalarData) -> Float[Array, ""]:
    """Distance of a state (A, B[, C]) to the point of the sphere that lies in the direction of A.

    An upper bound of the distance to the sphere itself, zero exactly on it. A NaN radius gives NaN.
    """
    a = state.encoder[:, 0]
    direction = jnp.where(jnp.any(a != 0), a, jnp.zeros_like(a).at[0].set(1))
    nearest = sphere_state(direction, radius, data)
    if isinstance(state, StudentState):
        nearest = nearest[:2]
    return jnp.sqrt(sum(jnp.sum((have - want) ** 2) for have, want in zip(state, nearest, strict=True)))
