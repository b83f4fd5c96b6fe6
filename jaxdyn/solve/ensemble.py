"""Many trials at once, each at its own pace: flows and procedures on the engines."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..arrays import real_numbers
from ..checks import checked_arguments, number, one_of, whole_number
from ..engines.base import Device
from ..progress import Progress
from ..schedules import Schedule, as_schedule, at, check_schedules
from ..systems.base import ContinuousSystem, DiscreteSystem, Field, Step, check_lr_with, check_rates, field_of
from .descent import check_procedure
from .fingerprint import fingerprint, is_own
from .members import Axes, Members, in_states_precision
from .methods.base import Held, Method, Save, check_rules, itself, rule_of
from .methods.events import Event
from .methods.procedure import Optimizer, Procedure, optimizer_memory, take_step
from .methods.rest import Rest, Until
from .methods.rk4 import RK4
from .methods.rodas5p import Rodas5P
from .methods.tsit5 import FixedTsit5, Tsit5
from .running import Clock, Options, Run
from .solution import Solution

SOLVERS: dict[str, type[Method]] = {"tsit5": Tsit5, "rodas5p": Rodas5P, "rk4": RK4}


@checked_arguments
@in_states_precision
def flow_ensemble(
    system: ContinuousSystem | Field,
    states: Any,
    data: Any,
    *,
    t1: Any,
    ts: Any = None,
    t0: float = 0.0,
    in_axes: Axes = (None, 0, None),
    solver: str = "tsit5",
    rtol: float | None = None,
    atol: float | None = None,
    dt: Any = None,
    until: Rest | Event | Until | None = None,
    events: Event | Sequence[Any] = (),
    max_events: int | None = None,
    save: Save | None = None,
    max_steps: int = 1_000_000,
    longest_first: Any = None,
    engine: str = "auto",
    devices: Sequence[Device] | None = None,
    progress: Progress | bool | None = None,
) -> Solution:
    """`flow` for many trials, each of which goes its own pace and stops by itself; arguments are `flow`'s.

    Args:
        system: a system, or a bare function field(t, state, data) of one trial.
        states: the starts, arrays with a [trials] axis; their dtype is the precision of the run.
        data: what the field takes.
        t1: end of time, in flow units, one number or one a trial [trials].
        in_axes: which of (system, state, data) differ from trial to trial, as `jax.vmap` takes it: 0 for a leading
            [trials] axis on every array, None for what all trials share, or a tree of these. Default: the starts alone.
        solver: "tsit5" (explicit, order 5), "rodas5p" (stiff flows: order 5, L-stable, exact Jacobian) or "rk4"
            (order 4, fixed steps).
        rtol, atol: of adaptive steps, as in diffrax: a step stands if the root mean square of
            error / (atol + rtol·max |state|) is below one. Default 1e-8 and 1e-10; 1e-5 and 1e-7 in float32.
        dt: a fixed step size, one number or one a trial; needed by "rk4", makes "tsit5" one of fixed steps. Time is
            cut into the least number of equal steps no longer than this.
        events: zeros of functions (`Event`) that are listed in the solution, with their times and states. Together
            with `ts` the trials run twice.
        max_events: so many of a trial at most, by default 100; more are counted, and not listed.
        max_steps: of a trial, accepted and rejected; status `OUT_OF_STEPS` beyond.
        longest_first: a number for every trial that grows with its expected length; longer ones start first.
        engine: "auto", "fused" or "xla"; see `jaxdyn.engines`.
        devices: where to run; default: the first device of the default backend.
        progress: True for a bar (in terminals and notebooks), or a function that is called with the number of trials
            newly finished, from any thread.

    Returns:
        A `Solution` on the host: what `jax.vmap(flow)` would give, each array with a leading [trials] axis. A trial
        whose steps become too short to advance the time is `DIVERGED`, like one that leaves the finite numbers.

    Raises:
        ValueError: for bad arguments. NotImplementedError: with engine "fused", for a function it cannot compile.

    Example:
        >>> import numpy as np
        >>> decay = lambda t, y, rate: -rate * y
        >>> rates = np.array([0.5, 1.0, 2.0], np.float32)
        >>> ends = flow_ensemble(decay, np.ones(3, np.float32), rates, t1=1.0, in_axes=(None, 0, 0))
        >>> [round(float(y), 3) for y in ends.final]
        [0.607, 0.368, 0.135]

    Source: methods: Tsitouras (2011); Steinebach (2023); Hairer, Nørsett & Wanner (first step).
    """
    field_of(system)
    one_of("solver", solver, tuple(SOLVERS))
    max_steps = whole_number("max_steps", max_steps)
    t0 = number("t0", t0)
    batch = Members.of(system, states, data, in_axes)
    clock = Clock(t0, batch.checked("t1", t1, above=t0))
    check_schedules("system", system, clock.t1, start=t0)
    check_rules(until, save, batch.dtype)
    events = _checked_events(events)
    if max_events is not None and not events:
        raise ValueError("max_events: there are no events to be listed")
    max_events = whole_number("max_events", 100 if max_events is None else max_events)
    times = None if ts is None else _checked_times(ts, t0, clock.t1)
    tolerance = _rest_tolerance(until)
    end = np.broadcast_to(clock.t1.astype(batch.dtype), (batch.n,))
    start, span = np.full(batch.n, t0, batch.dtype), np.broadcast_to(clock.span.astype(batch.dtype), (batch.n,))
    if dt is None:
        if solver == "rk4":
            raise ValueError('dt: expected the step size, which solver "rk4" needs')
        single = jnp.finfo(batch.dtype).bits <= 32
        relative, absolute = (1e-5, 1e-7) if single else (1e-8, 1e-10)
        held = batch.held(
            span, t0=start, t1=end, rtol=batch.numbers("rtol", relative if rtol is None else rtol, above=0),
            atol=batch.numbers("atol", absolute if atol is None else atol, above=0), tolerance=tolerance,
        )  # fmt: skip
        kind, limit, at_end = SOLVERS[solver], max_steps, True
    else:
        if solver == "rodas5p":
            raise ValueError('dt: solver "rodas5p" chooses its own steps')
        if rtol is not None or atol is not None:
            raise ValueError("rtol, atol: steps of a fixed size dt have no error to control")
        sizes, counts = _fixed_steps(clock.span, dt, batch.n, max_steps)
        held = batch.held(span, dt=sizes.astype(batch.dtype), t0=start, t1=end, n_steps=counts, tolerance=tolerance)
        kind = FixedTsit5 if solver == "tsit5" else SOLVERS[solver]
        at_end = bool((counts != counts[0]).any())  # else there is nothing to judge: the engine counts
        limit = max_steps if at_end else int(counts[0])
    meaning = _meaning(system, batch, held, until, save, events=events)
    program = kind(batch.parts, *_endings(until), save or itself, at_end, meaning, events)
    options = Options(engine, devices, progress, _order(longest_first, batch.n))
    return Run(program, batch, held, clock, times, limit, options, max_events).solve()


@checked_arguments
@in_states_precision
def descend_ensemble(
    system: DiscreteSystem | Step,
    states: Any,
    data: Any,
    *,
    lr: Any,
    steps: int,
    optimizer: Optimizer | None = None,
    in_axes: Axes = (None, 0, None),
    save_every: int | None = None,
    until: Rest | Until | None = None,
    save: Save | None = None,
    longest_first: Any = None,
    engine: str = "auto",
    devices: Sequence[Device] | None = None,
    progress: Progress | bool | None = None,
) -> Solution:
    """`descend` for many trials, each of which goes its own pace and stops by itself; arguments are `descend`'s.

    Args:
        system: a system, or a bare function step(state, data, lr) of one trial.
        states: the starts, arrays with a [trials] axis; their dtype is the precision of the run.
        data: what the procedure takes.
        lr: learning rate, a number, one a trial [trials], or a schedule; `Schedule(function, *parameters)` may have
            parameters [trials].
        steps: at most so many.
        in_axes: which of (system, state, data) differ from trial to trial, see `flow_ensemble`.
        longest_first, engine, devices, progress: see `flow_ensemble`.

    Returns:
        A `Solution` on the host, what `jax.vmap(descend)` would give.

    Raises:
        ValueError: for bad arguments. NotImplementedError: with engine "fused", for a function it cannot compile.

    Example:
        >>> import numpy as np
        >>> halve = lambda state, data, lr: state * (1 - lr)
        >>> descend_ensemble(halve, np.array([1.0, 8.0]), None, lr=0.5, steps=3).final.tolist()
        [0.125, 1.0]

    Source: P §4 (procedures SG, EMA).
    """
    check_procedure(system, optimizer)
    steps = whole_number("steps", steps, high=2**31 - 2**20)
    batch = Members.of(system, states, data, in_axes)
    lr = as_schedule(lr)
    if isinstance(lr, Schedule):
        check_schedules("lr", lr, steps)
        rates = jax.tree.map(lambda leaf: batch.numbers("lr", leaf), lr)
    else:
        rates = batch.numbers("lr", lr, above=0)
        check_lr_with(system, lr)
    check_schedules("system", system, steps)
    check_rates(system, lr, steps)
    check_rules(until, save, batch.dtype, lr)
    times = None
    if save_every is not None:
        every = whole_number("save_every", save_every)
        times = np.array(sorted({*range(0, steps + 1, every), steps}), np.float64)
    held = batch.held(np.zeros(batch.n, np.int32), lr=rates, tolerance=_rest_tolerance(until))
    meaning = _meaning(system, batch, held, until, save, optimizer)
    program = Procedure(batch.parts, *_endings(until), save or itself, False, meaning, (), optimizer)
    options = Options(engine, devices, progress, _order(longest_first, batch.n))
    return Run(program, batch, held, None, times, steps, options).solve()


def _checked_events(events: Any) -> tuple[Event, ...]:
    listed = (events,) if isinstance(events, Event) else events
    if not isinstance(listed, Sequence) or not all(isinstance(each, Event) for each in listed):
        raise ValueError(f"events: expected an Event, or a list of them, got {type(events).__name__}")
    return tuple(listed)


def _meaning(
    system: Any, batch: Members, held: Held, until: Any, save: Any, optimizer: Any = None, events: Sequence[Event] = ()
) -> str:
    """The fingerprint of the user's functions, of one trial; a flow's where there is no learning rate."""
    is_flow = isinstance(held.lr, tuple)
    times = held.t0 if is_flow else np.zeros(batch.n, np.int32)
    one = jax.tree.map(lambda leaf: leaf[0], (times, batch.states, batch.data))
    numbers = jax.tree.map(lambda leaf: leaf[0], batch.system)
    rule = rule_of(until)
    whole = batch.parts.whole
    if is_flow:
        rate = lambda t, y, data, own: field_of(at(whole(own), t, batch.dtype))(t, y, data)  # noqa: E731
        rules = [(each, one) for each in (rule, save, *(event.value for event in events))]
        return fingerprint((None if is_own(system) else rate, (*one, numbers)), *rules)
    lr = jax.tree.map(lambda leaf: leaf[0], held.lr)
    plain = is_own(system) and optimizer is None and not isinstance(lr, Schedule)
    memory = optimizer_memory(whole(numbers), one[1], optimizer, lr)
    step = lambda taken, y, data, own, memory, lr: take_step(whole(own), optimizer, taken, y, memory, data, lr)  # noqa: E731
    return fingerprint((None if plain else step, (*one, numbers, memory, lr)), (rule, one), (save, one))


def _endings(until: Any) -> tuple[Until | Event | None, bool]:
    """A method's `until` and `rests`."""
    return (None, True) if isinstance(until, Rest) else (until, False)


def _rest_tolerance(until: Any) -> float | None:
    return float(until.tolerance) if isinstance(until, Rest) else None


def _order(longest_first: Any, n: int) -> np.ndarray | None:
    if longest_first is None:
        return None
    length = np.asarray(longest_first)
    if length.shape != (n,) or not np.isfinite(length).all():
        raise ValueError(f"longest_first: expected one finite number for each of {n} trials, got shape {length.shape}")
    return np.argsort(-length, kind="stable")


def _checked_times(ts: Any, t0: float, t1: np.ndarray) -> np.ndarray:
    times, last = real_numbers("ts", ts), float(np.max(t1))
    if times.ndim != 1 or times.size == 0 or not np.isfinite(times).all():
        raise ValueError(f"ts: expected a non-empty list of finite times, got shape {times.shape}")
    slack = 1e-6 * max(abs(t0), abs(last))  # times computed in another precision may pass t1 by a rounding
    if (np.diff(times) < 0).any() or times[0] < t0 or times[-1] > last + slack:
        raise ValueError(f"ts: expected increasing times in [t0, t1] = [{t0:g}, {last:g}]")
    return np.minimum(times, last)


def _fixed_steps(spans: np.ndarray, dt: Any, n: int, max_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and numbers of equal steps no longer than dt, [trials]."""
    wanted = real_numbers("dt", dt)
    if wanted.shape not in ((), (n,)) or not (np.isfinite(wanted) & (wanted > 0)).all():
        raise ValueError(f"dt: expected a number > 0 or one for each of {n} trials")
    counts = np.broadcast_to(np.ceil(spans / wanted * (1 - 1e-12)), (n,))
    if counts.max() > max_steps:
        raise ValueError(f"max_steps: {counts.max():.0f} steps of dt are needed, more than {max_steps}")
    return np.broadcast_to(spans / counts, (n,)), counts.astype(np.int32)


__all__ = ["SOLVERS", "descend_ensemble", "flow_ensemble"]
