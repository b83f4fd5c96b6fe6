"""When a trial is at rest: the one rule, for flows and procedures, single and in ensembles."""

from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...arrays import scalar

Until: TypeAlias = Callable[[Any, Any, Any], Any]


class Rest(eqx.Module):
    """End a trial where ‖rate‖ < tolerance·(1 + ‖state‖), Euclidean norms over all parts of the state.

    The rate is the field, per unit of time, or what a step of a procedure moved, over its learning rate.

    Args:
        tolerance: > 0, in 1/time.
    """

    tolerance: Any = eqx.field(converter=lambda value: scalar("tolerance", value, above=0), default=1e-7)

    def of_rate(self, rate: Any, state: Any) -> Bool[Array, ""]:
        """Whether a state with this rate of change is at rest."""
        return norm(rate) < self.tolerance * (1 + norm(state))

    def of_step(self, previous: Any, state: Any, lr: Any) -> Bool[Array, ""]:
        """Whether the step from `previous` to `state` moved little enough for its length."""
        moved = norm(jax.tree.map(jnp.subtract, state, previous))
        return moved < self.tolerance * lr * (1 + norm(state))


def norm(tree: Any) -> Float[Array, ""]:
    """Euclidean norm over all leaves."""
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))
