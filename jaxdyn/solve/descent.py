"""Discrete time: the training procedures as written, or with any optax transformation."""

from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Integer

from ..arrays import ScalarLike, floating_state, is_traced, scalar, traceable
from ..checks import whole_number
from ..status import Status
from ..systems.base import DiscreteSystem, Step, step_of
from ..systems.siamese import MovingAverage, Siamese, SiameseState, StudentState


class Descent(NamedTuple):
    """States along a discrete procedure.

    `steps` [time] counts steps from 0; `states` the state's pytree with a leading [time] axis;
    `status` is `COMPLETED`, or `DIVERGED` if the last state is not finite.
    """

    steps: Integer[Array, " time"]
    states: Any
    status: Integer[Array, ""]

    @property
    def final(self) -> Any:
        """The last state."""
        return jax.tree.map(lambda leaf: leaf[-1], self.states)


def descend(
    system: DiscreteSystem | Step,
    state: Any,
    data: Any,
    lr: ScalarLike,
    steps: int,
    optimizer: optax.GradientTransformation | None = None,
    *,
    save_every: int | None = None,
) -> Descent:
    """Run the discrete procedure for `steps` steps.

    Args:
        system: a system, or a bare function step(state, data, lr).
        state: the start, any pytree of floating arrays.
        data: passed to the procedure: `Moments` for the registered systems.
        lr: learning rate μ > 0, also the length of a step in flow units: the teacher's decay is
            α = 1 − β·lr.
        steps: how many steps to take.
        optimizer: an optax transformation that turns the system's descent directions into updates
            of encoder and predictor, in place of −lr·gradient (so its own learning rate counts, and
            `lr` only sets the teacher's decay). α_p and weight decay act inside the gradient.
        save_every: return the start and every such step (and the last); default: only the last.

    Returns:
        A `Descent`.

    Raises:
        ValueError: for bad arguments or shapes, and where β·lr > 1 (a decay α < 0).

    Example:
        >>> import jax.numpy as jnp
        >>> halve = lambda state, data, lr: state * (1 - lr)
        >>> descend(halve, jnp.ones(()), None, lr=0.5, steps=3, save_every=1).states.tolist()
        [1.0, 0.5, 0.25, 0.125]

    Source: P §4 (procedures SG, EMA); optax for everything beyond plain steps.
    """
    step = step_of(system)
    state, dtype = floating_state(state)
    if isinstance(system, Siamese):
        system.check(state, data)
    lr = scalar("lr", lr, above=0)
    steps = whole_number("steps", steps, high=2**31 - 1)
    save_every = None if save_every is None else whole_number("save_every", save_every)
    if isinstance(system, MovingAverage) and not is_traced(system.ema_rate, lr) and system.ema_rate * lr > 1 + 1e-6:
        product = float(system.ema_rate * lr)
        raise ValueError(f"ema_rate: expected ema_rate * lr <= 1 (a decay in [0, 1]), got {product:g}")
    if optimizer is None:
        return _iterate(traceable((_Plain(step), None, data, lr), dtype), state, steps, save_every)
    if not isinstance(system, Siamese):
        raise ValueError("optimizer: expected a system with gradient and advance (a Siamese system), got a bare step")
    if not isinstance(optimizer, optax.GradientTransformation):
        raise ValueError(f"optimizer: expected an optax transformation such as optax.adam(1e-3), got {optimizer!r}")
    carry = optimizer.init(_student(state))
    return _iterate(traceable((_Optimised(system, optimizer), carry, data, lr), dtype), state, steps, save_every)


class _Plain(eqx.Module):
    """The procedure as written, with nothing to remember between steps."""

    step: Step

    def __call__(self, carry, state, data, lr):
        return carry, self.step(state, data, lr)


class _Optimised(eqx.Module):
    """Encoder and predictor moved by an optax transformation, the teacher following as ever."""

    system: Siamese
    optimizer: optax.GradientTransformation

    def __call__(self, carry, state, data, lr):
        gradient = self.system.gradient(state, data)
        update, carry = self.optimizer.update(gradient, carry, _student(state))
        return carry, self.system.advance(state, cast(StudentState, update), lr)


def _student(state: SiameseState) -> StudentState:
    return StudentState(state.encoder, state.predictor)


@eqx.filter_jit
def _iterate(numbers, state, steps: int, save_every: int | None) -> Descent:
    move, carry, data, lr = numbers

    def advance(pair, count):
        return jax.lax.fori_loop(0, count, lambda _, pair: move(*pair, data, lr), pair)

    if save_every is None:
        last = advance((carry, state), steps)[1]
        times, states = [steps], jax.tree.map(lambda leaf: leaf[None], last)
    else:
        whole, rest = divmod(steps, save_every)

        def block(pair, _):
            pair = advance(pair, save_every)
            return pair, pair[1]

        pair, saved = jax.lax.scan(block, (carry, state), length=whole)
        parts = [jax.tree.map(lambda leaf: leaf[None], state), saved]
        times = list(range(0, whole * save_every + 1, save_every))
        if rest:
            parts.append(jax.tree.map(lambda leaf: leaf[None], advance(pair, rest)[1]))
            times.append(steps)
        states = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    finite = jnp.stack([jnp.isfinite(leaf[-1]).all() for leaf in jax.tree.leaves(states)]).all()
    return Descent(jnp.asarray(times), states, jnp.where(finite, Status.COMPLETED, Status.DIVERGED))
