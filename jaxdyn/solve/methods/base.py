"""What a method is: how one trial of a flow or procedure goes on, for every engine.

A program is written for a single trial in plain JAX, like the systems themselves:

    init(state, held) -> carried             what is needed before the first step
    step(carried, held) -> carried           one step, of an adaptive method one attempt
    move(carried, held) -> carried           the same, with an eye on events
    terminate(previous, carried, held)       whether the trial ends here
    record(previous, carried, held, when)    whether the step passed a time, and what is saved there
    listed(previous, carried, held, when)    whether the step passed an event of that number, and what it was

`carried` changes from step to step, `held` does not. To add an integrator: a file with a final class of these, and its
name in `ensemble.SOLVERS`.
"""

import abc
import functools
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...arrays import is_traced
from ...schedules import at, is_scheduled
from ...systems.base import field_of
from .events import Event, where_met, zero_between
from .rest import Rest, Until

Save = Callable[[Any, Any, Any], Any]
_TOGETHER = 1e4  # roundings of an event's value before the step, by which another one may miss its zero


class Held(NamedTuple):
    """What a trial keeps: its system's numbers, its data, how long it runs, and the method's numbers.

    Flows go from t0 to t1, the times that fields and rules are told; adaptive methods have tolerances, fixed steps
    their size and how many they are; procedures have their learning rate. `tolerance` is that of rest.
    """

    system: Any
    data: Any
    span: Any
    dt: Any = ()
    rtol: Any = ()
    atol: Any = ()
    t0: Any = ()
    t1: Any = ()
    n_steps: Any = ()
    lr: Any = ()
    tolerance: Any = ()


class Carried(NamedTuple):
    """What a trial carries: its time (of procedures: steps taken) and state; for adaptive methods the next step and the
    rate at `t`, for fixed steps how many were taken, for optimizers their memory.

    Time is counted from the trial's start: far from zero the clock's would be too coarse for small steps. `ended` says
    that the event was met at which a trial ends, `seen` how many of those to be listed were passed.
    """

    t: Any
    state: Any
    dt: Any = ()
    rate: Any = ()
    taken: Any = ()
    memory: Any = ()
    ended: Any = ()
    seen: Any = ()


@dataclass(frozen=True)
class Skeleton:
    """A system without its numbers, which are each trial's own; equal systems are equal, and share compilations.

    `kinds` tells apart what compares equal: 1 and 1.0, 0.0 and −0.0.
    """

    static: Any
    kinds: str

    @classmethod
    def of(cls, system: Any) -> tuple["Skeleton", Any]:
        """The parts of a system, and its numbers (arrays and floats)."""
        numbers, static = eqx.partition(system, lambda leaf: eqx.is_inexact_array_like(leaf) or eqx.is_array(leaf))
        return cls(static, repr(jax.tree.leaves(static))), numbers

    def whole(self, numbers: Any) -> Any:
        """The system with these numbers."""
        return eqx.combine(numbers, self.static)


def itself(t: Any, state: Any, data: Any) -> Any:
    """What is saved by default."""
    return state


@dataclass(frozen=True)
class Method(abc.ABC):
    """A trial's method with what it integrates.

    `rests` ends a trial by `Rest`, `until` by a rule of the user's or at an event; `save` says what is recorded;
    `at_end` whether a trial ends by its own span (if not, the engine counts the steps); `meaning` is the user's
    functions' fingerprint; `events` are listed.
    """

    parts: Skeleton
    until: Until | Event | None = None
    rests: bool = False
    save: Save = itself
    at_end: bool = True
    meaning: str = ""
    events: tuple[Event, ...] = ()

    # Whether a method needs more than the time and state before the first step, which `init` computes from the field.
    needs_init: ClassVar[bool] = False
    keeps_rate: ClassVar[bool] = False

    @abc.abstractmethod
    def init(self, state: Any, held: Held) -> Carried:
        """What is carried into the first step."""

    @abc.abstractmethod
    def step(self, carried: Carried, held: Held) -> Carried:
        """One step or attempt."""

    @abc.abstractmethod
    def between(self, previous: Carried, carried: Carried, held: Held) -> Callable[[Any], Any]:
        """The state as a function of a share in [0, 1] of the last step."""

    @abc.abstractmethod
    def at_rest(self, previous: Carried, carried: Carried, held: Held) -> Any:
        """Whether `Rest` holds after this step."""

    @property
    def judged(self) -> bool:
        """Whether `terminate` can be true."""
        return self.at_end or self.rests or self.until is not None

    def clock(self, t: Any, held: Held) -> Any:
        """The time that a user's functions are told."""
        return t

    def terminate(self, previous: Carried, carried: Carried, held: Held) -> Any:
        ended = carried.t >= held.span if self.at_end else jnp.zeros((), bool)
        # A step that was rejected moved nothing, which a rule must not take for rest.
        moved = carried.t > previous.t
        if self.rests:
            ended |= moved & self.at_rest(previous, carried, held)
        if isinstance(self.until, Event):
            ended |= carried.ended > 0
        elif self.until is not None:
            ended |= moved & checked_rule(self.until, self.clock(carried.t, held), carried.state, held.data)
        return ended

    def move(self, carried: Carried, held: Held) -> Carried:
        """One step, which ends at the event at which the trial does; events on the way are counted."""
        new = self.step(carried, held)
        if isinstance(self.until, Event):
            met = self._is_passed(self.until, carried, new, held)
            t, state = where_met(met, lambda: self._at(self.until, carried, new, held), (new.t, new.state))
            new = new._replace(t=t, state=state, ended=met.astype(jnp.int32))
        if self.events:
            counts = [self._is_listed(event, carried, new, held).astype(jnp.int32) for event in self.events]
            new = new._replace(seen=carried.seen + total(counts))
        return new

    def _is_listed(self, event: Event, previous: Carried, carried: Carried, held: Held) -> Any:
        return carried.ended > 0 if event == self.until else self._is_passed(event, previous, carried, held)

    def _values(self, event: Event, previous: Carried, carried: Carried, held: Held) -> tuple[Any, Any]:
        """Before and after a step; what is zero together with the event at which the trial has ended is zero there."""
        before, after = (event.of(self.clock(each.t, held), each.state, held.data) for each in (previous, carried))
        if not isinstance(carried.ended, tuple):
            nothing = jnp.abs(after) <= _TOGETHER * jnp.finfo(after.dtype).eps * jnp.abs(before)
            after = jnp.where((carried.ended > 0) & nothing, jnp.zeros_like(after), after)
        return before, after

    def _is_passed(self, event: Event, previous: Carried, carried: Carried, held: Held) -> Any:
        return event.passed(*self._values(event, previous, carried, held)) & (carried.t > previous.t)

    def _share(self, event: Event, previous: Carried, carried: Carried, held: Held, between: Any) -> Any:
        """At which share of a step that has passed the event it is."""
        before, after = self._values(event, previous, carried, held)
        span = carried.t - previous.t
        value = lambda x: event.of(self.clock(previous.t + x * span, held), between(x), held.data)  # noqa: E731
        x = zero_between(value, before, after).astype(span.dtype)
        return x if isinstance(carried.ended, tuple) else jnp.where((carried.ended > 0) & (after == 0), 1, x)

    def _at(self, event: Any, previous: Carried, carried: Carried, held: Held) -> tuple[Any, Any]:
        """Time and state at an event that the step has passed."""
        between = self.between(previous, carried, held)
        x = self._share(event, previous, carried, held, between)
        return previous.t + x * (carried.t - previous.t), between(x)

    def listed(self, previous: Carried, carried: Carried, held: Held, when: Any) -> tuple[Any, Any]:
        """Whether the step passed the event of this number; its time since the start, its state, and which it is."""
        between = self.between(previous, carried, held)
        shares = []
        for event in self.events:
            passed = self._is_listed(event, previous, carried, held)
            x = 1 if event == self.until else self._share(event, previous, carried, held, between)
            shares.append(jnp.where(passed, x, 2).astype(carried.t.dtype))
        rank = jnp.clip(when - previous.seen, 0, len(shares) - 1).astype(jnp.int32)
        which, x = jax.lax.sort_key_val(jnp.stack(shares), jnp.arange(len(shares), dtype=jnp.int32))[::-1]
        x = jnp.minimum(x[rank], 1)
        found = (previous.t + x * (carried.t - previous.t), between(x), which[rank])
        return when < carried.seen, found

    def record(self, previous: Carried, carried: Carried, held: Held, when: Any) -> tuple[Any, Any]:
        """Whether the step passed the time `when` after the start, and what is saved of the state there."""
        when = when.astype(jnp.result_type(carried.t, float))
        due = (when <= carried.t) & (carried.t > previous.t)
        span = jnp.where(carried.t > previous.t, carried.t - previous.t, 1)
        x = jnp.clip((when - previous.t) / span, 0, 1)
        return due, self.save(self.clock(when, held), self.between(previous, carried, held)(x), held.data)


class Flow(Method):
    """Methods that integrate a field."""

    def clock(self, t: Any, held: Held) -> Any:
        return jnp.where(t >= held.span, held.t1, held.t0 + t)  # the end is the user's own, to the last bit

    def rate(self, t: Any, state: Any, held: Held) -> Any:
        """The system's field, which must be like the state, and its schedules at time t after the start."""
        t = held.t0 + t
        system = at(self.parts.whole(held.system), t, jnp.result_type(*jax.tree.leaves(state)))
        rate = field_of(system)(t, state, held.data)
        check_rate(state, rate)
        return rate

    def at_rest(self, previous: Carried, carried: Carried, held: Held) -> Any:
        return Rest(held.tolerance).of_rate(self.rate(carried.t, carried.state, held), carried.state)


class Fixed(Flow):
    """Steps of a fixed size, `held.dt`: `held.n_steps` of them are `held.span`."""

    def init(self, state: Any, held: Held) -> Carried:
        return Carried(jnp.zeros_like(held.span), state, taken=jnp.zeros((), jnp.int32))

    def step(self, carried: Carried, held: Held) -> Carried:
        # By the count: a sum of steps would drift.
        taken = carried.taken + 1
        then = jnp.where(taken >= held.n_steps, held.span, taken.astype(held.dt.dtype) * held.dt)
        return Carried(then, self.advance(carried, held), taken=taken)

    @abc.abstractmethod
    def advance(self, carried: Carried, held: Held) -> Any:
        """The state one step later."""


def check_rate(state: Any, rate: Any) -> None:
    """ValueError unless a rate is like the state; at trace time."""
    like = [jax.tree.structure(tree) for tree in (state, rate)]
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (state, rate)]
    if like[0] != like[1] or shapes[0] != shapes[1]:
        described = [jax.tree.map(jnp.shape, tree) for tree in (state, rate)]
        raise ValueError(f"system: expected a rate like the state, shapes {described[0]}, got {described[1]}")


def checked_rule(until: Until, t: Any, state: Any, data: Any) -> Any:
    """until(t, state, data), which must be one truth value; at trace time."""
    ended = until(t, state, data)
    if jnp.shape(ended) or not jnp.issubdtype(jnp.result_type(ended), jnp.bool_):
        got = f"{jnp.result_type(ended)}{list(jnp.shape(ended))}"
        raise ValueError(f"until: expected one truth value, got {got}; reduce it by .all()")
    return ended


def rule_of(until: Any) -> Any:
    """The user's function in it, if there is one."""
    return None if isinstance(until, Rest) else until.value if isinstance(until, Event) else until


def check_rules(until: Any, save: Any, dtype: Any, lr: Any = None) -> None:
    """ValueError unless `until` and `save` are what they can be, and rest can be told from rounding."""
    if save is not None and not callable(save):
        raise ValueError(f"save: expected a function (t, state, data), got {save!r}")
    if until is None or is_traced(until, lr):
        return
    if isinstance(until, Event):
        return
    if not isinstance(until, Rest):
        if not callable(until) or isinstance(until, type):
            raise ValueError(
                f"until: expected Rest(tolerance), Event(value) or a function (t, state, data) -> bool, got {until!r}"
            )
        return
    tolerance, eps = float(until.tolerance), float(jnp.finfo(dtype).eps)
    if tolerance < 4 * eps:
        raise ValueError(f"until: {dtype} cannot resolve rest to {tolerance:g}; use float64, or a larger one")
    if lr is not None and not is_scheduled(lr) and tolerance * float(np.min(lr)) < eps:
        raise ValueError(f"until: a step of {float(np.min(lr)):g} at rest to {tolerance:g} is below {dtype}'s rounding")


def check_like(name: str, state: Any, new: Any) -> None:
    """ValueError unless a new state is like the old one, in structure, shapes and floating dtype; at trace time."""
    told = [jax.tree.map(lambda leaf: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}", tree) for tree in (state, new)]
    same = jax.tree.structure(state) == jax.tree.structure(new) and all(
        jnp.shape(a) == jnp.shape(b) and jnp.issubdtype(jnp.result_type(b), jnp.floating)
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True)
    )
    if not same:
        raise ValueError(f"{name}: expected a state like its argument's, {told[0]}, got {told[1]}")


def plus(state: Any, *terms: tuple[Any, Any]) -> Any:
    """state + Σ factor·tree."""

    def leaf(y: Any, *slopes: Any):
        for (factor, _), slope in zip(terms, slopes, strict=True):
            y = y + factor * slope
        return y

    return jax.tree.map(leaf, state, *(tree for _, tree in terms))


def combination(factors: Any, trees: Any) -> Any:
    """Σ factor·tree, without the zeros."""
    chosen = [(factor, tree) for factor, tree in zip(factors, trees, strict=True) if not _is_zero(factor)]
    return jax.tree.map(lambda *leaves: total(f * leaf for (f, _), leaf in zip(chosen, leaves, strict=True)),
                        *(tree for _, tree in chosen))  # fmt: skip


def total(terms: Iterable[Any]) -> Any:
    """Their sum, from the first on: Python's begins with a zero, which changes that of −0."""
    return functools.reduce(operator.add, terms)


def _is_zero(factor: Any) -> bool:
    return isinstance(factor, float) and float(factor) == 0.0
