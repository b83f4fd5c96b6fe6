"""The largest learning rate at which a procedure keeps an equilibrium stable."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..arrays import floating_state, in_float64, refuse_traced
from ..checks import checked_arguments, number
from ..schedules import is_scheduled
from ..solve.methods.procedure import Optimizer, check_optimizer, transformation
from .linearise import MANY, Linearisation, linearise

_GRID = 200  # points of the first look
_HALVINGS = 60


@checked_arguments
@in_float64
def largest_lr(
    system: Any, state: Any, data: Any, *, optimizer: Optimizer | None = None, low: float = 1e-4, high: float = 1e3
) -> float:
    """The learning rate up to which the procedure is stable at an equilibrium, from `low` on.

    Where the largest modulus of the step's Jacobian, off the orbit, first reaches one: looked for on a logarithmic grid
    of 200 learning rates, then halved to rounding. A stretch of instability between two grid points is missed.

    Args:
        system: with its hyperparameters per unit of time, which do not change with the learning rate.
        state: the equilibrium, see `linearise`.
        data: `Moments`, or what the system takes.
        optimizer: a function of the learning rate, such as `lambda lr: optax.sgd(lr, momentum=0.9)`; default: the
            procedure as written.
        low, high: where it is looked for.

    Returns:
        The learning rate; 0 where the procedure is unstable at `low` already, infinity where it is stable up to `high`.

    Raises:
        ValueError: where the linearisation at `low` decides nothing, for `linearise`'s reasons, or the optimizer does
            nothing with its learning rate.

    Example:
        >>> halve = lambda state, data, lr: state - lr * data * state
        >>> round(largest_lr(halve, jnp.zeros(1), 4.0), 6)
        0.5

    Source: P §4 (the procedures); T App. B (weight decay and momentum of the experiments).
    """
    refuse_traced("system, state, data", system, state, data)
    low = number("low", low, above=0)
    high = number("high", high, above=low)
    if isinstance(optimizer, optax.GradientTransformation):
        raise ValueError("optimizer: expected a function of the learning rate, such as lambda lr: optax.sgd(lr, 0.9)")
    if is_scheduled(system):
        raise ValueError("system: a schedule has no equilibrium; take its numbers at one step, jd.at(system, step)")
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), floating_state(state)[0])
    if optimizer is not None:
        _check_uses_lr(system, state, optimizer, low, high)
    bound = _bound(system)
    high = min(high, bound)
    at = jax.jit(jax.vmap(functools.partial(_at, system, state, data, optimizer)))
    first = jax.tree.map(lambda leaf: leaf[0], at(jnp.array([low])))
    if int(first.doubt):
        raise ValueError(f"state: no learning rate can be said: {first}")
    grid = np.geomspace(low, high, _GRID)
    grows = ~(np.asarray(at(jnp.asarray(grid)).margin) >= 0)  # NaN is no stability
    if not grows.any():
        return bound if high == bound else float("inf")
    index = int(np.argmax(grows))
    if not index:
        return 0.0
    inside, outside = grid[index - 1], grid[index]
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if not float(at(jnp.array([middle])).margin[0]) >= 0:
            outside = middle
        else:
            inside = middle
    return float(inside)


def _at(system: Any, state: Any, data: Any, optimizer: Any, lr: Any) -> Linearisation:
    return linearise(system, state, data, lr=lr, optimizer=optimizer)


def _check_uses_lr(system: Any, state: Any, optimizer: Optimizer, low: float, high: float) -> None:
    """ValueError for an optimizer whose updates are the same at both learning rates, after many steps."""
    check_optimizer(system, optimizer)
    learned = system.learns(state)
    gradient = jax.tree.map(jnp.ones_like, learned)

    def update(lr: float):
        chosen = transformation(optimizer, lr)
        late = lambda leaf: jnp.full_like(leaf, MANY) if jnp.issubdtype(leaf.dtype, jnp.integer) else leaf  # noqa: E731
        return jax.tree.leaves(chosen.update(gradient, jax.tree.map(late, chosen.init(learned)), learned)[0])

    if all((one == other).all() for one, other in zip(update(low), update(high), strict=True)):
        raise ValueError("optimizer: its steps do not depend on the learning rate that it is given")


def _bound(system: Any) -> float:
    """The learning rate 1/β beyond which a teacher's decay would be negative."""
    rate = getattr(system, "ema_rate", None)
    return 1 / float(rate) if rate is not None and float(rate) > 0 else float("inf")
