"""Symmetries: orbits of states, their tangent spaces, and whether a system really has the symmetry it declares.

The Siamese systems have O(n): (A, B, C) → (U A, U B Uᵀ, U C) maps solutions to solutions.
"""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Integer

from ..systems.siamese import SiameseState, TeacherState

State = TypeVar("State", bound=SiameseState)


def rotate(u: Float[Array, "n n"], state: State) -> State:
    """The action of an orthogonal U: (U A, U B Uᵀ[, U C])."""
    moved = {"encoder": u @ state.encoder, "predictor": u @ state.predictor @ u.T}
    if isinstance(state, TeacherState):
        moved["teacher"] = u @ state.teacher
    return state._replace(**moved)


class Orbit(NamedTuple):
    """Orthonormal columns [size, directions] that span an orbit's tangent space (zero beyond its dimension), the
    dimension, and whether the linearisation leaves them alone, as it must where the symmetry is one."""

    basis: Float[Array, "size directions"]
    dimension: Integer[Array, ""]
    is_kept: Bool[Array, ""]


_SPANS, _KEPT = 1e-10, 1e-7


def orbit_of(directions: Any, state: Any, growth: Float[Array, "size size"], memory: int = 0) -> Orbit:
    """The orbit at an equilibrium whose linearised rate of change is `growth` (J, or a step's Jacobian less one).

    A symmetry maps equilibria to equilibria, so J v = 0 for its tangents v: that is checked. Of an optimizer's map on
    (state, memory) the tangents are lifted: the memory w that goes with v solves (J v)_memory = 0 in the memory.

    Args:
        directions: function from the state to tangents of its orbit with a leading axis, or None.
        state: the equilibrium.
        growth: over the flattened state, then `memory` numbers of an optimizer.
    """
    flat = ravel_pytree(state)[0]
    size = growth.shape[0]
    if directions is None:
        return Orbit(jnp.zeros((size, 1)), jnp.asarray(0), jnp.asarray(True))
    tangents = jnp.reshape(jax.vmap(lambda d: ravel_pytree(d)[0])(directions(state)), (-1, flat.size))
    if not tangents.shape[0]:
        return Orbit(jnp.zeros((size, 1)), jnp.asarray(0), jnp.asarray(True))
    # Left singular vectors beyond the rank are masked, so that shapes do not depend on the rank.
    spanning, sizes, _ = jnp.linalg.svd(tangents.T, full_matrices=False)
    spans = sizes > _SPANS * (1 + jnp.linalg.norm(flat))
    spanning = jnp.where(spans, spanning, 0)
    if memory:
        inner, outer = growth[flat.size :, flat.size :], growth[flat.size :, : flat.size]
        lifted = -jnp.linalg.lstsq(inner, outer @ spanning)[0]
        spanning = jnp.concatenate([spanning, lifted])
        spanning = jnp.where(spans, jnp.linalg.qr(spanning)[0], 0)
    moved = jnp.linalg.norm(growth @ spanning, axis=0)
    return Orbit(spanning, jnp.sum(spans), jnp.all(moved <= _KEPT * jnp.linalg.norm(growth)))
