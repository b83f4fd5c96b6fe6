"""What a system of learning dynamics is, for everything that simulates or analyses one.

A system is written for a single trial, as pure JAX functions of immutable pytrees:

    field(t, state, data) -> rate of change of state        continuous time
    step(state, data, lr) -> next state                     one step of the discrete procedure

`state` is any pytree of floating arrays, `data` whatever the functions need (here: `Moments`). Batching is always done
outside, by `jax.vmap` or an engine. Either function alone is enough, and a bare function does as well as an object.
Everything else is optional, a method of that name:

    check(state, data)               ValueError if they do not fit, in the system's own words
    check_lr(lr)                     the same for a learning rate that the procedure cannot have
    directions(state)                tangents of its symmetry, with a leading axis; verified before they are divided out
    gradient(state, data)            what an optimizer descends, a pytree of some of the state's parts
    learns(state)                    those parts of the state
    advance(state, update, lr)       add an optimizer's update, and let the rest of the state follow

Hyperparameters that change during training are a `Schedule` (`jaxdyn.schedules`): runners replace them by numbers.

To add a system: write an `eqx.Module` whose attributes are its hyperparameters, with `field` and,
where a discrete procedure exists, `step`; validate the hyperparameters in `__init__`; register an
example of it in `tests/registry.py`. Solvers, engines, stability and the tests then cover it.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..arrays import is_traced
from ..schedules import is_scheduled, numbers_at

Field = Callable[[Any, Any, Any], Any]
Step = Callable[[Any, Any, Any], Any]


@runtime_checkable
class ContinuousSystem(Protocol):
    """Anything with a vector field."""

    def field(self, t: Any, state: Any, data: Any, /) -> Any: ...


@runtime_checkable
class DiscreteSystem(Protocol):
    """Anything with a discrete procedure."""

    def step(self, state: Any, data: Any, lr: Any, /) -> Any: ...


@runtime_checkable
class TrainableSystem(Protocol):
    """Anything that an optimizer can train."""

    def gradient(self, state: Any, data: Any, /) -> Any: ...

    def learns(self, state: Any, /) -> Any: ...

    def advance(self, state: Any, update: Any, lr: Any, /) -> Any: ...


System = ContinuousSystem | DiscreteSystem | Field | Step


def field_of(system: ContinuousSystem | Field) -> Field:
    """The vector field of a system, or the bare function itself."""
    if isinstance(system, ContinuousSystem):
        return system.field
    if callable(system):
        return system
    raise ValueError(f"system: expected an object with field(t, state, data) or such a function, got {system!r}")


def step_of(system: DiscreteSystem | Step) -> Step:
    """The discrete procedure of a system, or the bare function itself."""
    if isinstance(system, DiscreteSystem):
        return system.step
    if callable(system):
        return system
    raise ValueError(f"system: expected an object with step(state, data, lr) or such a function, got {system!r}")


def check_with(system: Any, state: Any, data: Any, lr: Any = None) -> None:
    """The system's own checks of one trial, if it has any."""
    if isinstance(system, type):
        raise ValueError(f"system: expected an object, got the class {system.__name__}; call it with its settings")
    if hasattr(system, "check"):
        system.check(state, data)
    if lr is not None:
        check_lr_with(system, lr)


def check_lr_with(system: Any, lr: Any) -> None:
    """The system's own check of a learning rate, if it has one."""
    if hasattr(system, "check_lr"):
        system.check_lr(lr)


def check_rates(system: Any, lr: Any, steps: int) -> None:
    """`check_lr` along schedules, where they are looked at: at 17 places of a procedure of so many steps."""
    if not is_scheduled((system, lr)) or is_traced(system, lr):
        return
    for place in np.linspace(0, steps, 17):
        check_lr_with(numbers_at(system, place), numbers_at(lr, place))


def directions_of(system: Any) -> Callable[[Any], Any] | None:
    """The tangents of a system's symmetry, if it declares one."""
    return getattr(system, "directions", None)
