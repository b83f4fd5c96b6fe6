"""Linear stability of an equilibrium, transversally to its orbit under the O(n) symmetry.

An equilibrium of a Siamese flow comes with its whole orbit, so the Jacobian J there has one zero
eigenvalue for each orbit dimension. They say nothing about stability and are projected out: with P
the projection off the orbit's tangent space, the eigenvalues of P J P are those that decide, plus
one exact zero for each orbit dimension. Any further zero leaves the verdict *undetermined*.
"""

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Complex, Float, Integer

from ..moments import Moments
from ..systems.base import ContinuousSystem, Field, field_of
from ..systems.siamese import SiameseState
from .symmetry import orbit_directions


class Verdict(enum.IntEnum):
    """What the linearisation says of an orbit of equilibria."""

    STABLE = 0
    SADDLE = 1
    REPELLER = 2
    UNDETERMINED = 3


class Stability(NamedTuple):
    """The linearisation at a state (arrays carry the batch axes of a `vmap`, if any).

    `eigenvalues` of the projected Jacobian, 1/time; `orbit_dim` dimension of the O(n) orbit;
    `nullity` how many eigenvalues count as zero (at least `orbit_dim`); `n_unstable` how many have
    positive real part; `verdict` a `Verdict`; `residual` the largest component of the field.
    """

    eigenvalues: Complex[Array, "*batch size"]
    orbit_dim: Integer[Array, "*batch"]
    nullity: Integer[Array, "*batch"]
    n_unstable: Integer[Array, "*batch"]
    verdict: Integer[Array, "*batch"]
    residual: Float[Array, "*batch"]


def jacobian(system: ContinuousSystem | Field, state: Any, data: Any) -> Float[Array, "size size"]:
    """Exact Jacobian of the field, of the flattened state, by forward-mode differentiation."""
    flat, unravel = ravel_pytree(state)
    field = field_of(system)
    return jax.jacfwd(lambda y: ravel_pytree(field(0.0, unravel(y), data))[0])(flat)


def stability(
    system: ContinuousSystem | Field,
    state: SiameseState,
    moments: Moments,
    *,
    zero_tolerance: float = 1e-9,
) -> Stability:
    """Linearise a Siamese flow at an equilibrium and count its transversal directions.

    The state is taken as an equilibrium; `residual` says how far from one it is. Works under
    `jax.vmap` (on CPU: nonsymmetric eigenvalues).

    Args:
        system: any registered Siamese system.
        state: the equilibrium, in float64.
        moments: second moments of the data.
        zero_tolerance: an eigenvalue of real part below zero_tolerance·‖J‖ counts as zero.

    Raises:
        ValueError: if the state is not in float64 (a verdict needs more digits than float32 has).

    Source: the claims it is used on are P Prop 4.10 and 4.11.
    """
    if state.encoder.dtype != jnp.float64:
        raise ValueError(
            f"state: stability needs float64, got {state.encoder.dtype}; compute under jax.enable_x64(True)"
        )
    j = jacobian(system, state, moments)
    size = j.shape[0]
    directions = jax.vmap(lambda d: ravel_pytree(d)[0])(orbit_directions(state))
    directions = jnp.reshape(directions, (-1, size))
    # Left singular vectors beyond the rank are masked, so that shapes do not depend on the rank.
    basis, sizes, _ = jnp.linalg.svd(directions.T, full_matrices=False)
    spans = sizes > 1e-10 * (1 + jnp.linalg.norm(ravel_pytree(state)[0]))
    basis = jnp.where(spans, basis, 0)
    off_orbit = jnp.eye(size) - basis @ basis.T
    eigenvalues = jnp.linalg.eigvals(off_orbit @ j @ off_orbit)
    orbit_dim = jnp.sum(spans)
    tolerance = zero_tolerance * jnp.linalg.norm(j)
    n_zero = jnp.sum(jnp.abs(eigenvalues.real) <= tolerance)
    n_unstable = jnp.sum(eigenvalues.real > tolerance)
    verdict = jnp.where(
        n_zero > orbit_dim,
        Verdict.UNDETERMINED,
        jnp.where(
            n_unstable == 0,
            Verdict.STABLE,
            jnp.where(n_unstable + orbit_dim == size, Verdict.REPELLER, Verdict.SADDLE),
        ),
    )
    residual = jnp.max(jnp.abs(ravel_pytree(field_of(system)(0.0, state, moments))[0]))
    return Stability(eigenvalues, orbit_dim, n_zero, n_unstable, verdict, residual)
