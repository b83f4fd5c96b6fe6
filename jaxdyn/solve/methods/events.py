"""Zeros of a function along a flow, found between a step's ends: where a trial ends, or what is listed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

_MOST = 100  # looks at a function between two ends: bisection alone needs 64


class Event(eqx.Module):
    """A time at which value(t, state, data) is zero.

    It is found where the value changes its sign from one step's end to the next, or is zero there; then the zero is
    looked for on the interpolant of the step, down to rounding. Two zeros within a step are not seen, and a value that
    is zero at the start is no event.

    Args:
        value: value(t, state, data) -> a real number that changes continuously.
        direction: 1: only where the value rises; −1: only where it falls; 0: both.
    """

    value: Any = eqx.field(static=True)
    direction: Any = eqx.field(static=True, default=0)

    def __check_init__(self) -> None:
        if not callable(self.value) or isinstance(self.value, type):
            raise ValueError(f"value: expected a function (t, state, data) -> number, got {self.value!r}")
        if isinstance(self.direction, bool) or self.direction not in (-1, 0, 1):
            raise ValueError(f"direction: expected -1, 0 or 1, got {self.direction!r}")

    def of(self, t: Any, state: Any, data: Any) -> Any:
        """The value, which must be one real number; at trace time."""
        value = self.value(t, state, data)
        try:
            number = jnp.asarray(value)
            got = f"{number.dtype}{list(number.shape)}"
        except (TypeError, ValueError):
            number, got = jnp.zeros(0), type(value).__name__
        if number.shape or not jnp.issubdtype(number.dtype, jnp.floating):
            raise ValueError(f"event: expected value(t, state, data) to be one real number, got {got}")
        return number

    def passed(self, before: Any, after: Any) -> Any:
        """Whether the value was zero on the way, or is now."""
        rises, falls = (before < 0) & (after >= 0), (before > 0) & (after <= 0)
        return rises if self.direction > 0 else falls if self.direction < 0 else rises | falls


class Events(NamedTuple):
    """The events of an ensemble's trials in the order in which they happened, `most` of them a trial.

    `times` [trials, most]: in flow units. `states`: the state's pytree there, [trials, most, …].
    `which` [trials, most]: the number of the event among those asked for.
    `count` [trials]: how many there were. Rows beyond are NaN, `which` is −1; what is beyond `max_events` is counted,
    and not listed.
    """

    times: Any
    states: Any
    which: Any
    count: Any


class Bracket(NamedTuple):
    """Two places x, y, at one of which the value is below zero, and at the other not; the place z before them;
    and where to look next, x + share·(y − x).

    Source: Chandrupatla (1997), Advances in Engineering Software 28: inverse quadratic steps where they are safe.
    """

    x: Any
    y: Any
    z: Any
    fx: Any
    fy: Any
    fz: Any
    share: Any

    @classmethod
    def of(cls, x: Any, y: Any, fx: Any, fy: Any) -> "Bracket":
        return cls(x, y, x, fx, fy, fx, jnp.full_like(x, 0.5))

    @property
    def next(self) -> Any:
        return self.x + self.share * (self.y - self.x)

    @property
    def best(self) -> Any:
        return jnp.where(jnp.abs(self.fx) < jnp.abs(self.fy), self.x, self.y)

    @property
    def _tolerance(self) -> Any:
        """As a share of the bracket: four roundings of its ends."""
        wide = jnp.abs(self.y - self.x)
        size = jnp.maximum(jnp.abs(self.x), jnp.abs(self.y))
        return 4 * jnp.finfo(self.x.dtype).eps * size / jnp.where(wide == 0, 1, wide)

    @property
    def found(self) -> Any:
        """Whether there is nothing more to find: ends as close as can be, or both below zero, or neither."""
        unlike = (self.fx < 0) != (self.fy < 0)
        return ~unlike | (self._tolerance > 0.5) | (self.x == self.y)

    def narrowed(self, value: Any) -> "Bracket":
        """After a look at `next`."""
        there = self.next
        same = (value < 0) == (self.fx < 0)
        pick = lambda yes, no: jnp.where(same, yes, no)  # noqa: E731
        x, fx, y, fy = there, value, pick(self.y, self.x), pick(self.fy, self.fx)
        z, fz = pick(self.x, self.y), pick(self.fx, self.fy)
        xi, phi = (x - y) / (z - y), (fx - fy) / (fz - fy)
        safe = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
        inverse = fx / (fy - fx) * fz / (fy - fz) + (z - x) / (y - x) * fx / (fz - fx) * fy / (fz - fy)
        least = jnp.minimum(Bracket(x, y, z, fx, fy, fz, self.share)._tolerance, 0.5)
        share = jnp.clip(jnp.where(safe & jnp.isfinite(inverse), inverse, 0.5), least, 1 - least)
        return Bracket(x, y, z, fx, fy, fz, share)


def zero_between(value: Callable[[Any], Any], before: Any, after: Any) -> Any:
    """The place in [0, 1] where value(place) becomes zero, from its values at the ends; an end if it does not."""
    sign = jnp.where(before > 0, -1, 1).astype(before.dtype)  # it begins below zero
    bracket = Bracket.of(jnp.zeros_like(before), jnp.ones_like(before), sign * before, sign * after)

    def look(carry: tuple[Any, Bracket]) -> tuple[Any, Bracket]:
        count, bracket = carry
        return count + 1, bracket.narrowed(sign * value(bracket.next))

    goes_on = lambda carry: (carry[0] < _MOST) & ~carry[1].found  # noqa: E731
    return jax.lax.while_loop(goes_on, look, (jnp.int32(0), bracket))[1].best


def where_met(met: Any, found: Callable[[], Any], otherwise: Any) -> Any:
    """found() where an event was met; a loop, which engines do not enter where none of their trials wants to."""
    return jax.lax.while_loop(lambda carry: carry[0], lambda _: (jnp.zeros((), bool), found()), (met, otherwise))[1]
