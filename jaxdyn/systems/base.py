"""What a system of learning dynamics is, for everything that simulates or analyses one.

A system is written for a single trial, as pure JAX functions of immutable pytrees:

    field(t, state, data) -> rate of change of state        continuous time
    step(state, data, lr) -> next state                     one step of the discrete procedure

`state` is any pytree of floating arrays, `data` whatever the functions need (here: `Moments`).
Batching is always done outside, by `jax.vmap` or an engine. Either function alone is enough:
`flow` takes a system or a bare `field`, `descend` a system or a bare `step`.

To add a system: write an `eqx.Module` whose attributes are its hyperparameters, with `field` and,
where a discrete procedure exists, `step`; validate the hyperparameters in `__init__`; register an
example of it in `tests/registry.py`. Solvers, engines, stability and the tests then cover it.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

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
