"""The largest learning rate at which a procedure keeps an equilibrium stable."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..arrays import floating_state, in_float64, refuse_traced
from ..checks import checked_arguments, number
from ..schedules import is_scheduled
from ..solve.methods.procedure import Optimizer, check_optimizer, transformation
from .linearise import Linearisation, after_many_steps, linearise, meaning_of

_GRID = 200  # points of the first look
_ROUNDS = 8  # of refining the grid, each by its size


@checked_arguments
@in_float64
def largest_lr(
    system: Any, state: Any, data: Any, *, optimizer: Optimizer | None = None, low: float = 1e-4, high: float = 1e3
) -> float:
    """The learning rate up to which the procedure is stable at an equilibrium, from `low` on.

    Where the largest modulus of the step's Jacobian, off the orbit, first reaches one: looked for on a logarithmic grid
    of 200 learning rates, then refined to rounding. A stretch of instability between two grid points is missed.

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
    at = _linearised_at(system, state, data, optimizer, low)
    grid = np.geomspace(low, high, _GRID)
    found = at(jnp.asarray(grid))
    first = jax.tree.map(lambda leaf: leaf[0], found)
    if int(first.doubt):
        raise ValueError(f"state: no learning rate can be said: {first}")
    grows = ~(np.asarray(found.margin) >= 0)  # NaN is no stability
    if not grows.any():
        return bound if high == bound else float("inf")
    if grows[0]:
        return 0.0
    for _ in range(_ROUNDS):
        index = int(np.argmax(grows))
        grid = np.linspace(grid[index - 1], grid[index], _GRID)
        grows = ~(np.asarray(at(jnp.asarray(grid)).margin) >= 0)
        grows[0], grows[-1] = False, True  # as they were found
    return float(grid[int(np.argmax(grows)) - 1])


def _linearised_at(system: Any, state: Any, data: Any, optimizer: Any, low: float) -> Callable[[Any], Linearisation]:
    """`linearise` over learning rates; compiled once for all states and numbers of our own systems."""
    meaning = meaning_of(system, state, data, low, optimizer)
    if meaning is None:
        return jax.jit(jax.vmap(lambda lr: linearise(system, state, data, lr=lr, optimizer=optimizer)))
    return lambda rates: _own_at(system, state, data, optimizer, meaning, rates)


@eqx.filter_jit
def _own_at(system: Any, state: Any, data: Any, optimizer: Any, meaning: str, rates: Any) -> Linearisation:
    return jax.vmap(lambda lr: linearise(system, state, data, lr=lr, optimizer=optimizer))(rates)


def _check_uses_lr(system: Any, state: Any, optimizer: Optimizer, low: float, high: float) -> None:
    """ValueError for an optimizer whose updates are the same at both learning rates, after many steps."""
    check_optimizer(system, optimizer)
    learned = system.learns(state)
    gradient = jax.tree.map(jnp.ones_like, learned)

    def update(lr: float):
        chosen = transformation(optimizer, lr)
        memory = after_many_steps(chosen.init(learned))
        return jax.tree.leaves(chosen.update(gradient, memory, learned)[0])

    if all(bool(jnp.all(one == other)) for one, other in zip(update(low), update(high), strict=True)):
        raise ValueError("optimizer: its steps do not depend on the learning rate that it is given")


def _bound(system: Any) -> float:
    """The learning rate 1/β beyond which a teacher's decay would be negative."""
    rate = getattr(system, "ema_rate", None)
    return 1 / float(rate) if rate is not None and float(rate) > 0 else float("inf")
