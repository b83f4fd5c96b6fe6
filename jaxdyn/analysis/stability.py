"""Linear stability of an equilibrium, transversally to its orbit under a symmetry.

An equilibrium of a Siamese system comes with its whole orbit, so the Jacobian J there has one zero
eigenvalue for each orbit dimension. They say nothing about stability and are projected out: with P
the projection off the orbit's tangent space, the eigenvalues of P J P are those that decide, plus
one exact zero for each orbit dimension. Any further zero leaves the verdict *undetermined*. For a
discrete procedure J is the step's Jacobian less the identity, and moduli are compared with one.
"""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Complex, Float, Integer

from ..systems.base import ContinuousSystem, DiscreteSystem, Field, Step, field_of, step_of
from ..systems.siamese import StudentState, TeacherState
from .symmetry import orbit_directions


class Verdict(enum.IntEnum):
    """What the linearisation says of an orbit of equilibria."""

    STABLE = 0
    SADDLE = 1
    REPELLER = 2
    UNDETERMINED = 3


class Stability(NamedTuple):
    """The linearisation at a state (arrays carry the batch axes of a `vmap`, if any).

    `eigenvalues` of the projected Jacobian, 1/time (of the step: its multipliers);
    `orbit_dim` dimension of the orbit; `nullity` how many eigenvalues decide nothing (zero real part,
    modulus one; at least `orbit_dim`); `n_unstable` how many grow; `verdict` a `Verdict`; `residual`
    the largest component of the field, or of what a step moves; `margin` −max Re, or one less the
    largest modulus, of the eigenvalues that are not the orbit's.
    """

    eigenvalues: Complex[Array, "*batch size"]
    orbit_dim: Integer[Array, "*batch"]
    nullity: Integer[Array, "*batch"]
    n_unstable: Integer[Array, "*batch"]
    verdict: Integer[Array, "*batch"]
    residual: Float[Array, "*batch"]
    margin: Float[Array, "*batch"]


def jacobian(system: ContinuousSystem | Field, state: Any, data: Any) -> Float[Array, "size size"]:
    """Exact Jacobian of the field, of the flattened state, by forward-mode differentiation."""
    flat, unravel = ravel_pytree(state)
    field = field_of(system)
    return jax.jacfwd(lambda y: ravel_pytree(field(0.0, unravel(y), data))[0])(flat)


def stability(
    system: ContinuousSystem | Field | DiscreteSystem | Step,
    state: Any,
    data: Any,
    *,
    lr: Any = None,
    directions: Callable[[Any], Any] | None = None,
    zero_tolerance: float = 1e-9,
) -> Stability:
    """Linearise a flow, or the procedure with learning rate `lr`, at an equilibrium, and count what grows.

    The state is taken as an equilibrium; `residual` says how far from one it is. Works under
    `jax.vmap` (on CPU: nonsymmetric eigenvalues).

    Args:
        system: a system, or a field (t, state, data), or with `lr` a step (state, data, lr).
        state: the equilibrium, a pytree in float64.
        data: what the field takes, such as Moments.
        lr: learning rate of the procedure; None for the flow.
        directions: the symmetry, a function from the state to tangent vectors of its orbit (a state
            with a leading axis). Default: rotations for the Siamese states, none for others.
        zero_tolerance: an eigenvalue counts as deciding nothing within zero_tolerance·‖J‖.

    Raises:
        ValueError: if the state is not in float64 (a verdict needs more digits than float32 has).

    Source: the claims it is used on are P Prop 4.10 and 4.11.
    """
    flat, unravel = ravel_pytree(state)
    if flat.dtype != jnp.float64:
        raise ValueError(f"state: stability needs float64, got {flat.dtype}; compute under jax.enable_x64(True)")
    if lr is None:
        field = field_of(system)  # type: ignore[arg-type]
        move = lambda y: ravel_pytree(field(0.0, unravel(y), data))[0]  # noqa: E731
    else:
        step = step_of(system)  # type: ignore[arg-type]
        move = lambda y: ravel_pytree(step(unravel(y), data, lr))[0] - y  # noqa: E731
    j = jax.jacfwd(move)(flat)
    size = flat.size
    if directions is None:
        directions = orbit_directions if isinstance(state, StudentState | TeacherState) else None
    basis, orbit_dim = _orbit_basis(directions, state, flat)
    off_orbit = jnp.eye(size) - basis @ basis.T
    eigenvalues = jnp.linalg.eigvals(off_orbit @ j @ off_orbit)
    growth = eigenvalues.real if lr is None else jnp.abs(1 + eigenvalues) - 1
    tolerance = zero_tolerance * jnp.linalg.norm(j)
    n_zero = jnp.sum(jnp.abs(growth) <= tolerance)
    n_unstable = jnp.sum(growth > tolerance)
    verdict = jnp.where(
        n_zero > orbit_dim,
        Verdict.UNDETERMINED,
        jnp.where(
            n_unstable == 0,
            Verdict.STABLE,
            jnp.where(n_unstable + orbit_dim == size, Verdict.REPELLER, Verdict.SADDLE),
        ),
    )
    # The orbit's zeros are exact up to rounding: leave out as many of the smallest as it has dimensions.
    order = jnp.argsort(jnp.abs(eigenvalues))
    margin = -jnp.max(jnp.where(jnp.arange(size) < orbit_dim, -jnp.inf, growth[order]))
    residual = jnp.max(jnp.abs(move(flat)))
    if lr is not None:
        eigenvalues = 1 + eigenvalues
    return Stability(eigenvalues, orbit_dim, n_zero, n_unstable, verdict, residual, margin)


def _orbit_basis(directions: Any, state: Any, flat: Array) -> tuple[Array, Array]:
    """Orthonormal columns that span the orbit's tangent space, and its dimension."""
    if directions is None:
        return jnp.zeros((flat.size, 1)), jnp.asarray(0)
    spanning = jnp.reshape(jax.vmap(lambda d: ravel_pytree(d)[0])(directions(state)), (-1, flat.size))
    # Left singular vectors beyond the rank are masked, so that shapes do not depend on the rank.
    basis, sizes, _ = jnp.linalg.svd(spanning.T, full_matrices=False)
    spans = sizes > 1e-10 * (1 + jnp.linalg.norm(flat))
    return jnp.where(spans, basis, 0), jnp.sum(spans)
