"""Symmetries: orbits of states, their tangent spaces, and whether a system really has the symmetry it declares.

The Siamese systems have O(n): (A, B, C) → (U A, U B Uᵀ, U C) maps solutions to solutions.
"""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Integer

from ..arrays import matrix
from ..checks import checked_arguments
from ..systems.siamese import SiameseState, TeacherState
from .soundness import nearby

State = TypeVar("State", bound=SiameseState)


@checked_arguments
def rotate(u: Float[Array, "n n"], state: State) -> State:
    """The action of an orthogonal U: (U A, U B Uᵀ[, U C])."""
    u = matrix("u", u, square=True)
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
_SAME = 1e-9  # how well two ways round must agree, relative to the Jacobian


def tangents_of(directions: Any, state: Any) -> Float[Array, "directions size"]:
    """The tangents at a state, flattened; ValueError unless they are states with a leading axis."""
    if not callable(directions):
        raise ValueError(f"directions: expected a function of the state, got {directions!r}")
    found = directions(state)
    shapes = lambda tree, lead: [jnp.shape(leaf)[lead:] for leaf in jax.tree.leaves(tree)]  # noqa: E731
    if jax.tree.structure(found) != jax.tree.structure(state) or shapes(found, 1) != shapes(state, 0):
        raise ValueError(
            f"directions: expected states with a leading axis, {jax.tree.map(jnp.shape, state)} each, got "
            f"{jax.tree.map(jnp.shape, found)}"
        )
    return jax.vmap(lambda d: ravel_pytree(d)[0])(found)


def commutes(directions: Any, state: Any, move: Any, is_map: bool) -> Bool[Array, ""]:
    """Whether a field F, or the map x → x + F(x), commutes with the symmetry whose tangents v(x) are given.

    Looked at in the state and two others near it: DF·v = Dv·F for a field, v(x + F) = v + DF·v for a map.
    """
    flat, unravel = ravel_pytree(state)
    tangents = lambda x: tangents_of(directions, unravel(x))  # noqa: E731
    if not tangents(flat).size:
        return jnp.asarray(True)

    def at(x: Any) -> Array:
        moved, growth, along = move(x), jax.jacfwd(move)(x), tangents(x)
        pushed = along @ growth.T
        turned = tangents(x + moved) - along if is_map else jax.jvp(tangents, (x,), (moved,))[1]
        size = lambda rows: jnp.linalg.norm(rows, axis=1)  # noqa: E731
        allowed = _SAME * jnp.linalg.norm(growth) * size(along) + 10 * _SAME * (size(pushed) + size(turned))
        return jnp.all(size(pushed - turned) <= allowed)

    return jnp.all(jax.vmap(at)(jnp.stack([flat, nearby(flat, 0.02), nearby(flat, -0.03)])))


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
    tangents = tangents_of(directions, state)
    if not tangents.shape[0]:
        return Orbit(jnp.zeros((size, 1)), jnp.asarray(0), jnp.asarray(True))
    finite = jnp.isfinite(tangents).all()
    tangents = jnp.where(finite, tangents, 0)
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
    return Orbit(spanning, jnp.sum(spans), finite & jnp.all(moved <= _KEPT * jnp.linalg.norm(growth)))
