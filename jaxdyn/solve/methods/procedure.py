"""A discrete procedure: the system's own step, or an optimizer's; its time is the number of steps taken."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from ...schedules import at
from ...systems.base import TrainableSystem, step_of
from .base import Carried, Held, Method, check_like
from .rest import Rest

Optimizer: TypeAlias = optax.GradientTransformation | Callable[[Any], optax.GradientTransformation]


def check_optimizer(system: Any, optimizer: Any) -> None:
    """ValueError unless an optimizer can train the system."""
    if not isinstance(system, TrainableSystem):
        raise ValueError(
            "optimizer: expected a system with gradient, learns and advance (such as StopGradient), got "
            f"{type(system).__name__}"
        )
    if not (isinstance(optimizer, optax.GradientTransformation) or callable(optimizer)):
        raise ValueError(
            "optimizer: expected an optax transformation such as optax.adam(1e-3), or a function of the learning rate "
            f"such as optax.sgd, got {optimizer!r}"
        )


def transformation(optimizer: Optimizer, lr: Any) -> optax.GradientTransformation:
    """The optax transformation at a learning rate, which those that have their own do not see."""
    if isinstance(optimizer, optax.GradientTransformation):
        return optimizer
    made = optimizer(lr)
    if not isinstance(made, optax.GradientTransformation):
        raise ValueError(f"optimizer: expected optimizer(lr) to be an optax transformation, got {type(made).__name__}")
    return made


def optimizer_memory(system: Any, state: Any, optimizer: Optimizer | None, lr: Any) -> Any:
    """The optimizer's state before the first step."""
    if optimizer is None:
        return ()
    return transformation(optimizer, at(lr, 0.0)).init(system.learns(state))


def take_step(
    system: Any, optimizer: Optimizer | None, taken: Any, state: Any, memory: Any, data: Any, lr: Any
) -> tuple[Any, Any]:
    """(state, memory) after one more step, all schedules evaluated at the number of steps taken before."""
    dtype = jnp.result_type(*jax.tree.leaves(state))
    when = jnp.asarray(taken, dtype)
    now, lr = at(system, when, dtype), at(lr, when, dtype)
    if optimizer is None:
        new = step_of(now)(state, data, lr)
        check_like("step", state, new)
        return jax.tree.map(lambda part: part.astype(dtype), new), memory
    update, memory = transformation(optimizer, lr).update(now.gradient(state, data), memory, now.learns(state))
    return now.advance(state, jax.tree.map(lambda part: part.astype(dtype), update), lr), memory


@dataclass(frozen=True)
class Procedure(Method):
    """Steps of a system's procedure, or of an optimizer on its gradient."""

    optimizer: Optimizer | None = None

    def init(self, state: Any, held: Held) -> Carried:
        memory = optimizer_memory(self.parts.whole(held.system), state, self.optimizer, held.lr)
        return Carried(jnp.zeros((), jnp.int32), state, memory=memory)

    def step(self, carried: Carried, held: Held) -> Carried:
        system = self.parts.whole(held.system)
        arguments = (carried.t, carried.state, carried.memory, held.data, held.lr)
        state, memory = take_step(system, self.optimizer, *arguments)
        return Carried(carried.t + 1, state, memory=memory)

    def at_rest(self, previous: Carried, carried: Carried, held: Held) -> Any:
        lr = at(held.lr, jnp.asarray(previous.t, held.tolerance.dtype), held.tolerance.dtype)
        return Rest(held.tolerance).of_step(previous.state, carried.state, lr)

    def between(self, previous: Carried, carried: Carried, held: Held) -> Callable[[Any], Any]:
        return lambda x: jax.tree.map(lambda old, new: jnp.where(x < 1, old, new), previous.state, carried.state)
