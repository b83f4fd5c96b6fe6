"""Step sizes by the estimated error: what the adaptive integrators share."""

import abc
from typing import Any

import jax
import jax.numpy as jnp

from .base import Carried, Flow, Held, plus, total

_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 10.0  # of the step size, as diffrax has them


class Adaptive(Flow):
    """A step stands if the scaled root mean square of its error is below one; of pairs of order 5(4)."""

    needs_init = True

    @abc.abstractmethod
    def attempt(self, carried: Carried, held: Held, h: Any) -> tuple[Any, Any, Any]:
        """(new state, error, rate to keep) of a step of size h."""

    def init(self, state: Any, held: Held) -> Carried:
        """The first step size after Hairer, Nørsett & Wanner (II.4)."""
        start = jnp.zeros_like(held.span)
        rate = self.rate(start, state, held)
        size, speed = (self._scaled(tree, state, state, held) for tree in (state, rate))
        ready = (size > 1e-5) & (speed > 1e-5)
        small = jnp.where(ready, 0.01 * size / jnp.where(ready, speed, 1), 1e-6)
        ahead = self.rate(small, plus(state, (small, rate)), held)
        bend = self._scaled(jax.tree.map(jnp.subtract, ahead, rate), state, state, held) / small
        most = jnp.maximum(speed, bend)
        next_ = jnp.where(most <= 1e-15, jnp.maximum(1e-6, small * 1e-3), (0.01 / most) ** 0.2)
        dt = jnp.minimum(100 * small, next_)
        return Carried(start, state, jnp.where(jnp.isfinite(dt), dt, 1e-6), rate if self.keeps_rate else ())

    def step(self, carried: Carried, held: Held) -> Carried:
        # Of what remains, so that a rejected last step is a shorter one.
        last = carried.dt >= (held.span - carried.t) * (1 - 100 * jnp.finfo(carried.t.dtype).eps)
        then = jnp.where(last, held.span, carried.t + carried.dt)
        h = then - carried.t  # what the time really gains: far from the start not what was asked for
        new, error, rate = self.attempt(carried, held, h)
        square = self._mean_square(error, carried.state, new, held)
        stands = square < 1
        # The error goes with h⁵; log and exp are an engine's own code. A step to no finite number is shortened.
        factor = _SAFETY * jnp.exp(-0.1 * jnp.log(square))
        factor = jnp.clip(
            jnp.where(jnp.isfinite(square), factor, _SHRINK),
            jnp.where(stands, 1.0, _SHRINK),
            jnp.where(stands, _GROW, _SAFETY),
        )
        dt = jnp.where(h > 0, h, carried.dt) * factor
        # Steps that no longer advance the time: the trial cannot go on, which engines see by a number not finite.
        stuck = ((dt <= 4 * jnp.finfo(carried.t.dtype).eps * jnp.abs(carried.t)) & ~stands) | (~last & (h <= 0))
        keep = lambda new, old: jnp.where(stands, new, old)  # noqa: E731
        return Carried(
            keep(then, carried.t),
            jax.tree.map(keep, new, carried.state),
            jnp.where(stuck, jnp.nan, dt),
            jax.tree.map(keep, rate, carried.rate),
        )

    def _mean_square(self, error: Any, old: Any, new: Any, held: Held) -> Any:
        def leaf(e: Any, y: Any, z: Any):
            return jnp.sum((e / (held.atol + held.rtol * jnp.maximum(jnp.abs(y), jnp.abs(z)))) ** 2)

        count = sum(y.size for y in jax.tree.leaves(old))
        return total(jax.tree.leaves(jax.tree.map(leaf, error, old, new))) / count

    def _scaled(self, tree: Any, old: Any, new: Any, held: Held) -> Any:
        return jnp.sqrt(self._mean_square(tree, old, new, held))
