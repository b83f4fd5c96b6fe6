"""Settings that change during training: a function of the step in procedures, of the time in flows.

A hyperparameter of a system, or a procedure's learning rate, may be such a function: of the number of steps taken so
far in `descend`, as optax's schedules are, and of the time t in flow units in `flow`. The runner evaluates it and hands
the system its number, so that a field still reads like its equation.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .arrays import is_traced, real_numbers, scalar
from .checks import checked_arguments, whole_number

Tree = TypeVar("Tree")
_LOOKS, _SPARSELY = 257, 16  # points of a schedule looked at before a run; where there is one a trial, every 16th


class Schedule(eqx.Module):
    """A number that changes: `function(at, *parameters)`, of the steps taken (procedures) or the time (flows).

    A bare function in place of a hyperparameter is taken for a schedule without parameters; those given here may be
    arrays, and so differ from trial to trial.

    Example:
        >>> falling = Schedule(lambda step, top: top / (1 + step), 0.5)
        >>> round(float(at(falling, 4)), 6)
        0.1
    """

    function: Callable[..., Any] = eqx.field(static=True)
    parameters: tuple[Any, ...]

    def __init__(self, function: Callable[..., Any], *parameters: Any):
        if not callable(function):
            raise ValueError(f"schedule: expected a function of the step or time, got {type(function).__name__}")
        self.function, self.parameters = function, parameters

    def __call__(self, when: Any) -> Any:
        return self.function(when, *self.parameters)


def as_schedule(value: Any) -> Any:
    """A bare function as a `Schedule`; anything else as it is."""
    return Schedule(value) if callable(value) and not isinstance(value, Schedule) else value


def _is_schedule(leaf: Any) -> bool:
    return isinstance(leaf, Schedule)


def is_scheduled(tree: Any) -> bool:
    """Whether anything in the tree changes with the step or the time."""
    return any(map(_is_schedule, jax.tree.leaves(tree, is_leaf=_is_schedule)))


def at(tree: Tree, when: Any, dtype: Any = None) -> Tree:
    """The tree with every schedule replaced by its number at a step or time, in the given dtype."""

    if not is_traced(when):
        when = jnp.asarray(real_numbers("when", when)) if not isinstance(when, jax.Array) else when

    def number(leaf: Any):
        if not _is_schedule(leaf):
            return leaf
        value = leaf(when)
        if jnp.shape(value):
            raise ValueError(f"schedule: expected one number, got an array of shape {jnp.shape(value)}")
        return jnp.asarray(value, dtype)

    return jax.tree.map(number, tree, is_leaf=_is_schedule)


def numbers_at(tree: Tree, when: Any) -> Tree:
    """The same where schedules have parameters for many trials: their numbers are arrays."""
    return jax.tree.map(lambda leaf: leaf(when) if _is_schedule(leaf) else leaf, tree, is_leaf=_is_schedule)


def check_schedules(
    name: str, tree: Any, end: Any, *, start: Any = 0.0, low: float = 0.0, high: float = np.inf
) -> None:
    """ValueError unless all schedules in the tree stay finite and in [low, high] from `start` to `end`, where they are
    looked at: in 257 places, 17 where they differ from trial to trial; schedules with traced numbers are not."""
    if is_traced(tree, start, end):
        return
    places = np.linspace(float(start), float(np.max(end)), _LOOKS)
    for leaf in jax.tree.leaves(tree, is_leaf=_is_schedule):
        if not _is_schedule(leaf):
            continue
        try:
            several = bool(jnp.ndim(leaf(jnp.asarray(places[-1]))))
            looks = places[::_SPARSELY] if several else places
            values = np.asarray([leaf(jnp.asarray(place)) for place in looks] if several else jax.vmap(leaf)(looks))
        except (TypeError, ZeroDivisionError) as error:
            told = str(error).splitlines()[0]
            raise ValueError(
                f"{name}: expected a schedule, a function of one number in JAX operations: {told}"
            ) from None
        if values.dtype.kind not in "fiu":
            raise ValueError(f"{name}: expected a schedule of real numbers, got {values.dtype}")
        wrong = ~(np.isfinite(values) & (values >= low) & (values <= high))
        if wrong.any():
            first = tuple(np.argwhere(wrong)[0])
            want = f"numbers >= {low:g}" if np.isinf(high) else f"numbers in [{low:g}, {high:g}]"
            raise ValueError(f"{name}: expected a schedule of {want}, got {values[first]:g} at {looks[first[0]]:g}")


@checked_arguments
def byol_decay(ema_decay: float, steps: int) -> Schedule:
    """BYOL's rising decay of the teacher, α(k) = 1 − (1 − α₀)(1 + cos(πk/K))/2: α₀ at first, 1 after K = `steps` steps.

    Example:
        >>> [round(float(byol_decay(0.9, 100)(step)), 3) for step in (0, 50, 100, 200)]
        [0.9, 0.95, 1.0, 1.0]

    Source: Grill et al. 2020 (BYOL), §3.3.
    """
    ema_decay = scalar("ema_decay", ema_decay, low=0, high=1)
    return Schedule(_byol, ema_decay, float(whole_number("steps", steps)))


def _byol(step: Any, start: Any, steps: Any) -> Any:
    share = jnp.minimum(step / steps, 1.0)
    return 1 - (1 - start) * (1 + jnp.cos(jnp.pi * share)) / 2
