"""A run of an ensemble: what its engine is given, and the `Solution` made of what comes back."""

import contextvars
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from .. import engines
from ..checks import one_of
from ..engines.blocks import blockwise
from ..names import ENGINES
from ..progress import shown
from ..status import Status
from .members import Members
from .methods.base import Carried, Held, Method, Save, itself
from .methods.events import Event, Events
from .methods.procedure import Procedure
from .solution import Solution


class Clock(NamedTuple):
    """A user's times, in float64; what runs counts from t0, in the precision of the run. t1 is [] or [trials]."""

    t0: float
    t1: np.ndarray

    @property
    def span(self) -> np.ndarray:
        return np.asarray(self.t1 - self.t0)

    def reached(self, passed: np.ndarray, span: np.ndarray) -> np.ndarray:
        """The time when so much of the span has passed; at its end t1 itself."""
        return np.where(passed >= span, self.t1, self.t0 + passed.astype(np.float64)).astype(passed.dtype)


class Options(NamedTuple):
    engine: str
    devices: Any
    progress: Any
    order: Any


@dataclass(frozen=True)
class Part:
    """A function of a program that is equal for equal programs: compilations are shared."""

    program: Method
    name: str

    def __call__(self, *arguments: Any) -> Any:
        return getattr(self.program, self.name)(*arguments)


@dataclass(frozen=True)
class Init:
    """`init` as a step of an engine, so that bits do not depend on the batch."""

    program: Method

    def __call__(self, carried: Carried, held: Held) -> Carried:
        return self.program.init(carried.state, held)


class Run(NamedTuple):
    """A program, the trials with what each is held to, and until when; procedures count steps and have no clock."""

    program: Method
    batch: Members
    held: Held
    clock: Clock | None
    times: Any
    limit: int
    options: Options
    max_events: int = 0

    @property
    def done(self) -> Any:
        return Part(self.program, "terminate") if self.program.judged else None

    @property
    def passes(self) -> list[dict[str, Any]]:
        """What is kept on the way, for the engine: states at times, events, or of both one in each of two passes."""
        begin = 0 if self.clock is None else self.clock.t0
        saved = {} if self.times is None else {"record": Part(self.program, "record"), "times": self.times - begin}
        if not self.program.events:
            return [saved]
        listed = {"record": Part(self.program, "listed"), "times": np.arange(self.max_events, dtype=np.float64)}
        return [listed] if self.times is None else [saved, listed]

    def solve(self) -> Solution:
        options = self.options
        one_of("engine", options.engine, ENGINES)
        if _ONLY_SET_UP.get():
            raise _Held(self)
        on = {"devices": options.devices, "order": options.order}
        finished = []
        with shown(options.progress, self.batch.n) as report:
            begun = started(self, lambda *each: engines.run(options.engine, *each, **on))
            step = Part(self.program, "move")
            for recording in self.passes:
                told = report if not finished else None
                trials = (step, self.done, begun, self.held, self.limit)
                finished.append(engines.run(options.engine, *trials, **on, progress=told, **recording))
        return self.solution(finished)

    def solution(self, passes: Sequence[Any]) -> Solution:
        """What the engine has given, in the user's terms."""
        finished, program, batch, held, clock = passes[0], self.program, self.batch, self.held, self.clock
        end = finished.states
        passed = np.asarray(end.t)
        reached = passed if clock is None else clock.reached(passed, held.span)
        completed = _completed(program, finished, held, self.limit)
        status = np.where(completed, Status.COMPLETED, finished.status).astype(np.int8)
        if self.times is None:
            asked = (
                np.full(batch.n, self.limit)
                if clock is None
                else np.broadcast_to(clock.t1.astype(batch.dtype), (batch.n,))
            )
            at = asked[:1] if (asked == asked[0]).all() else asked[:, None]
            states = _saved(program.save, reached[:, None], end.state, held.data)
        else:
            at = self.times.astype(np.int64 if clock is None else batch.dtype)
            last = _saved(program.save, reached[:, None], end.state, held.data)
            begin = 0 if clock is None else clock.t0
            states = _repeated(finished, last, self.times <= begin, batch, program, held)
        events = _events(passes[-1], clock, held.span) if program.events and clock is not None else None
        return Solution(at, states, end.state, status, finished.steps, reached, events)


class _Held(BaseException):
    """Leaves an ensemble that is not to be solved."""

    def __init__(self, run: Run):
        self.run = run


_ONLY_SET_UP: contextvars.ContextVar[bool] = contextvars.ContextVar("only_set_up", default=False)


def set_up(ensemble: Callable[[], Any]) -> Run:
    """The run that an ensemble would solve, with all that is looked at before."""
    token = _ONLY_SET_UP.set(True)
    try:
        ensemble()
    except _Held as held:
        return held.run
    finally:
        _ONLY_SET_UP.reset(token)
    raise AssertionError("an ensemble solves one run")


def started(run: Run, on_engine: Callable[..., Any]) -> Carried:
    """What the trials carry into the first step; `on_engine(step, done, states, params, limit)` computes it."""
    begun, none = _started(run, on_engine), np.zeros(run.batch.n, np.int32)
    ended = none if isinstance(run.program.until, Event) else ()
    return begun._replace(ended=ended, seen=none if run.program.events else ())


def _started(run: Run, on_engine: Callable[..., Any]) -> Carried:
    program, batch, held = run.program, run.batch, run.held
    n, dtype = batch.n, batch.dtype
    if isinstance(program, Procedure):
        blank = Carried(np.zeros(n, np.int32), batch.states)
        if program.optimizer is None:
            return blank
        init = jax.jit(jax.vmap(lambda state, held: program.init(state, held).memory))
        return blank._replace(memory=blockwise(init, batch.states, held))
    time = np.zeros(n, dtype)
    if not program.needs_init:
        return Carried(time, batch.states, taken=np.zeros(n, np.int32))
    # The rate is kept, or nothing is; a field's rate has its state's shape.
    rate = jax.tree.map(np.zeros_like, batch.states) if program.keeps_rate else ()
    carried = Carried(time, batch.states, np.zeros(n, dtype), rate)
    return on_engine(Init(program), None, carried, held, 1).states


def _events(finished: Any, clock: Clock, span: np.ndarray) -> Events:
    """The events that were listed, in the user's times."""
    (passed, states, which), count = finished.saved, np.asarray(finished.states.seen)
    most = int(finished.n_saved.max())
    there = np.arange(most) < finished.n_saved[:, None]
    own = clock._replace(t1=np.reshape(clock.t1, (-1, 1)))
    times = np.where(there, own.reached(passed[:, :most], span[:, None]), np.nan).astype(passed.dtype)

    def listed(leaf: np.ndarray) -> np.ndarray:
        here = there.reshape(*there.shape, *(1,) * (leaf.ndim - 2))
        return np.where(here, leaf[:, :most], np.nan).astype(leaf.dtype)

    return Events(times, jax.tree.map(listed, states), np.where(there, which[:, :most], -1), count)


def _completed(program: Method, finished: Any, held: Held, limit: int) -> np.ndarray:
    """The trials that reached the end of their time, or all the steps that were asked for."""
    if isinstance(program, Procedure):
        return (finished.status != Status.DIVERGED) & (finished.steps >= limit)
    return (finished.status != Status.DIVERGED) & (np.asarray(finished.states.t) >= held.span)


def _saved(save: Save, times: np.ndarray, states: Any, data: Any) -> Any:
    """What `save` returns at each trial's end, [trials, 1, …]."""
    if save is itself:
        return jax.tree.map(lambda leaf: leaf[:, None], states)
    of_end = jax.jit(jax.vmap(save))
    return jax.tree.map(lambda leaf: leaf[:, None], blockwise(of_end, times[:, 0], states, data))


def _repeated(finished: Any, last: Any, at_start: np.ndarray, batch: Members, program: Method, held: Held) -> Any:
    """The saved rows; the start where a time is the start, and the end from where a trial ended on."""
    missing = (np.arange(at_start.size) >= finished.n_saved[:, None]) & ~at_start
    begin = np.zeros(batch.n) if isinstance(program, Procedure) else held.t0
    first = _saved(program.save, begin[:, None], batch.states, held.data)
    at_start = np.broadcast_to(at_start, missing.shape)

    def leaf(values: Any, begun: Any, ended: Any):
        if at_start.any():
            np.copyto(values, begun, where=at_start.reshape(*at_start.shape, *(1,) * (values.ndim - 2)))
        if missing.any():
            np.copyto(values, ended, where=missing.reshape(*missing.shape, *(1,) * (values.ndim - 2)))
        return values

    return jax.tree.map(leaf, finished.saved, first, last)
