"""The O(n) symmetry of the Siamese systems: (A, B, C) → (U A, U B Uᵀ, U C) maps solutions to solutions."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..systems.siamese import SiameseState, TeacherState

State = TypeVar("State", bound=SiameseState)


def rotate(u: Float[Array, "n n"], state: State) -> State:
    """The action of an orthogonal U: (U A, U B Uᵀ[, U C])."""
    moved = {"encoder": u @ state.encoder, "predictor": u @ state.predictor @ u.T}
    if isinstance(state, TeacherState):
        moved["teacher"] = u @ state.teacher
    return state._replace(**moved)


def orbit_directions(state: State) -> State:
    """Velocities of the state under all infinitesimal rotations, with a leading axis [n(n−1)/2].

    For each basis element Ω of the skew matrices: (Ω A, Ω B − B Ω[, Ω C]). They span the orbit's
    tangent space; fewer of them are independent where the state has a continuous stabiliser.
    """
    n = state.encoder.shape[0]
    rows, columns = jnp.triu_indices(n, 1)
    index = jnp.arange(rows.size)
    skew = jnp.zeros((rows.size, n, n), state.encoder.dtype)
    skew = skew.at[index, rows, columns].set(1).at[index, columns, rows].set(-1)

    def velocity(omega):
        moved = {"encoder": omega @ state.encoder, "predictor": omega @ state.predictor - state.predictor @ omega}
        if isinstance(state, TeacherState):
            moved["teacher"] = omega @ state.teacher
        return state._replace(**moved)

    return jax.vmap(velocity)(skew)
