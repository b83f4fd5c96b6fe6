"""Discrete time: the training procedures as written, or with any optax transformation; one trial."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..arrays import ScalarLike, floating_state, scalar, traceable
from ..checks import checked_arguments, whole_number
from ..schedules import Schedule, as_schedule, at, check_schedules
from ..status import Status
from ..systems.base import DiscreteSystem, Step, check_rates, check_with, step_of
from .fingerprint import fingerprint, is_own
from .methods.base import Save, check_rules, checked_rule, itself
from .methods.procedure import Optimizer, check_optimizer, optimizer_memory, take_step
from .methods.rest import Rest, Until
from .solution import Solution


@checked_arguments
def descend(
    system: DiscreteSystem | Step,
    state: Any,
    data: Any,
    *,
    lr: ScalarLike | Schedule | Callable[[Any], Any],
    steps: int,
    optimizer: Optimizer | None = None,
    save_every: int | None = None,
    until: Rest | Until | None = None,
    save: Save | None = None,
) -> Solution:
    """Run the discrete procedure for `steps` steps: one trial, traceable.

    Args:
        system: a system, or a bare function step(state, data, lr). Its schedules are functions of the steps taken.
        state: the start, any pytree of floating arrays.
        data: passed to the procedure: `Moments` for the registered systems.
        lr: learning rate μ > 0, a number or a schedule; also the length of a step in flow units: the teacher's decay
            is α = 1 − β·lr.
        steps: how many steps to take.
        optimizer: what turns the system's descent directions into updates of encoder and predictor, in place of
            −lr·gradient: a function of the learning rate such as `optax.sgd`, or an optax transformation, whose own
            learning rate then counts (`lr` only sets the teacher's decay). α_p and weight decay act inside the
            gradient.
        save_every: return the start and every such step (and the last); default: only the last.
        until: `Rest(tolerance)`, or until(steps taken, state, data) -> bool, ends the run where it holds after a step:
            status `CONVERGED`. Such a run has no reverse-mode derivative.
        save: save(steps taken, state, data) -> what `states` has at each time; default: the state.

    Returns:
        A `Solution` whose times are numbers of steps.

    Raises:
        ValueError: for bad arguments or shapes, and where β·lr > 1 (a decay α < 0).

    Example:
        >>> import jax.numpy as jnp
        >>> halve = lambda state, data, lr: state * (1 - lr)
        >>> descend(halve, jnp.ones(()), None, lr=0.5, steps=3, save_every=1).states.tolist()
        [1.0, 0.5, 0.25, 0.125]

    Source: P §4 (procedures SG, EMA); optax for everything beyond plain steps.
    """
    state, dtype = floating_state(state)
    check_procedure(system, optimizer)
    lr = as_schedule(lr)
    if not isinstance(lr, Schedule):
        lr = scalar("lr", lr, above=0)
    check_with(system, state, data, lr)
    steps = whole_number("steps", steps, high=2**31 - 1)
    save_every = None if save_every is None else whole_number("save_every", save_every)
    check_schedules("system", system, steps)
    check_schedules("lr", lr, steps)
    check_rates(system, lr, steps)
    check_rules(until, save, dtype, lr)
    memory = optimizer_memory(system, state, optimizer, lr)
    numbers = traceable((system, optimizer, memory, data, lr, until), dtype)
    taken, own_rule = np.zeros((), np.int32), None if isinstance(until, Rest) else until
    moving, fixed = eqx.partition(numbers[:5], eqx.is_array)  # numbers are no part of the meaning

    def step(taken: Any, state: Any, moving: Any) -> Any:
        system, optimizer, memory, data, lr = eqx.combine(moving, fixed)
        return take_step(system, optimizer, taken, state, memory, data, lr)

    plain = is_own(system) and optimizer is None and not isinstance(lr, Schedule)
    given = (taken, state, numbers[3])
    meaning = fingerprint((None if plain else step, (taken, state, moving)), (own_rule, given), (save, given))
    return _iterate(numbers, state, steps, save_every, itself if save is None else save, meaning)


def check_procedure(system: Any, optimizer: Any) -> None:
    """ValueError unless the system has a procedure, or a gradient for the optimizer."""
    if optimizer is None:
        step_of(system)
    else:
        check_optimizer(system, optimizer)


@eqx.filter_jit
def _iterate(numbers: Any, state: Any, steps: int, save_every: int | None, save: Save, meaning: str) -> Solution:
    system, optimizer, memory, data, lr, until = numbers

    def move(carry: Any):
        taken, state, memory, status = carry
        new, memory = take_step(system, optimizer, taken, state, memory, data, lr)
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(new)]).all()
        runs = (status == Status.COMPLETED) & finite
        status = jnp.where((status == Status.COMPLETED) & ~finite, Status.DIVERGED, status)
        if until is not None:
            ended = (
                until.of_step(state, new, at(lr, jnp.asarray(taken, jnp.result_type(*jax.tree.leaves(new)))))
                if isinstance(until, Rest)
                else checked_rule(until, taken + 1, new, data)
            )
            status = jnp.where(runs & ended, Status.CONVERGED, status)
        state = jax.tree.map(lambda old, fresh: jnp.where(runs, fresh, old), state, new)
        return taken + runs, state, memory, status

    def advance(carry: Any, count: Any) -> tuple[Any, ...]:
        if until is None:
            return jax.lax.fori_loop(0, count, lambda _, carry: move(carry), carry)
        on = lambda pair: (pair[0] < count) & (pair[1][3] == Status.COMPLETED)  # noqa: E731
        return jax.lax.while_loop(on, lambda pair: (pair[0] + 1, move(pair[1])), (0, carry))[1]

    carry = (jnp.zeros((), jnp.int32), state, memory, jnp.asarray(Status.COMPLETED, jnp.int32))
    if save_every is None:
        carry = advance(carry, steps)
        times, states = [steps], jax.tree.map(lambda leaf: leaf[None], carry[1])
    else:
        whole, rest = divmod(steps, save_every)

        def block(carry: Any, _) -> tuple[Any, Any]:
            carry = advance(carry, save_every)
            return carry, carry[1]

        carry, saved = jax.lax.scan(block, carry, length=whole)
        parts = [jax.tree.map(lambda leaf: leaf[None], state), saved]
        times = list(range(0, whole * save_every + 1, save_every))
        if rest:
            carry = advance(carry, rest)
            parts.append(jax.tree.map(lambda leaf: leaf[None], carry[1]))
            times.append(steps)
        states = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    taken, final, _, status = carry
    status = jnp.where((status == Status.CONVERGED) & (taken == steps), Status.COMPLETED, status)
    times = jnp.asarray(times)
    if save is not itself:
        states = jax.vmap(lambda step, state: save(step, state, data))(jnp.minimum(times, taken), states)
    return Solution(times, states, final, status, taken, taken)
