"""Continuous time: the flow of a system, integrated by diffrax (the only module that imports it)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array

from ..arrays import ScalarLike, floating_state, is_traced, real_numbers, scalar, traceable
from ..checks import checked_arguments, one_of, whole_number
from ..schedules import at, check_schedules
from ..status import Status
from ..systems.base import ContinuousSystem, Field, check_with, field_of
from .fingerprint import fingerprint, is_own
from .methods.base import Save, check_rate, check_rules, checked_rule, itself, rule_of
from .methods.events import Bracket, Event
from .methods.rest import Rest, Until
from .solution import Solution

SOLVERS: dict[str, type[diffrax.AbstractSolver[Any]]] = {
    "tsit5": diffrax.Tsit5,
    "dopri8": diffrax.Dopri8,
    "kvaerno5": diffrax.Kvaerno5,
}


@checked_arguments
def flow(
    system: ContinuousSystem | Field,
    state: Any,
    data: Any,
    *,
    t1: ScalarLike,
    ts: Sequence[float] | np.ndarray | Array | None = None,
    t0: ScalarLike = 0.0,
    solver: str = "tsit5",
    rtol: ScalarLike | None = None,
    atol: ScalarLike | None = None,
    dt: ScalarLike | None = None,
    until: Rest | Event | Until | None = None,
    save: Save | None = None,
    max_steps: int = 100_000,
) -> Solution:
    """Integrate dstate/dt = field(t, state, data) from `t0` to `t1`: one trial, traceable.

    Under `jax.vmap` an adaptive solver goes on until its slowest trial is done; `flow_ensemble` lets each go its pace.

    Args:
        system: a system, or a bare function field(t, state, data). Its schedules are functions of the time t.
        state: the start, any pytree of floating arrays; its dtype is the precision of the run.
        data: passed to the field: `Moments` for the registered systems.
        t1: end of the integration, in flow units.
        ts: increasing times in [t0, t1] at which states are returned; default: only t1.
        t0: its start, from which time is counted inside: a run in float32 may begin at t0 = 10⁸.
        solver: "tsit5" (explicit, order 5), "dopri8" (explicit, order 8, for tight tolerances) or
            "kvaerno5" (implicit, order 5, L-stable, for stiff flows such as small ρ at m = 1).
        rtol, atol: error per step; default 1e-8 and 1e-10 in float64, 1e-5 and 1e-7 in float32.
        dt: if given, fixed steps of that size instead of adaptive ones.
        until: `Rest(tolerance)`, or until(t, state, data) -> bool, ends the run where it holds after a step; `Event`
            at the zero of its function: status `CONVERGED`.
        save: save(t, state, data) -> what `states` has at each of `ts`; default: the state.
        max_steps: limit on solver steps; status `OUT_OF_STEPS` when it is met.

    Returns:
        A `Solution`. Run-time failures are statuses: where the solver could not go on, the
        remaining states repeat the last one reached and `status` says why.

    Raises:
        ValueError: for bad arguments or shapes.

    Example:
        >>> import jax.numpy as jnp
        >>> decay = lambda t, y, rate: -rate * y
        >>> round(float(flow(decay, jnp.ones(()), 1.0, t1=1.0).final), 4)
        0.3679

    Source: the systems' own; solvers: diffrax (Tsitouras 2011; Prince & Dormand 1981; Kværnø 2004).
    """
    field_of(system)
    state, dtype = floating_state(state)
    check_with(system, state, data)
    t0 = scalar("t0", t0)
    t1 = scalar("t1", t1) if is_traced(t0) else scalar("t1", t1, above=float(t0))
    one_of("solver", solver, tuple(SOLVERS))
    check_schedules("system", system, t1, start=t0)
    check_rules(until, save, dtype)
    if dt is not None and solver != "kvaerno5" and (rtol is not None or atol is not None):
        raise ValueError("rtol, atol: steps of a fixed size dt have no error to control")
    single = jnp.finfo(dtype).bits <= 32
    rtol = scalar("rtol", (1e-5 if single else 1e-8) if rtol is None else rtol, above=0)
    atol = scalar("atol", (1e-7 if single else 1e-10) if atol is None else atol, above=0)
    dt = None if dt is None else scalar("dt", dt, above=0)
    max_steps = whole_number("max_steps", max_steps)
    ts = _checked_times(ts, t0, t1)
    clock = _Clock(jnp.asarray(t0, dtype), jnp.asarray(t1, dtype), _since(t0, t1, dtype))
    passed = jnp.clip(_since(t0, ts, dtype), 0, clock.span)
    numbers = traceable((system, data, clock, rtol, atol, dt, until), dtype)
    now, own_rule = numbers[0], rule_of(until)
    moving, fixed = eqx.partition(now, eqx.is_array)  # numbers are no part of the meaning
    rate = lambda t, y, data, moving: field_of(at(eqx.combine(moving, fixed), t, dtype))(t, y, data)  # noqa: E731
    given = (clock.t0, state, numbers[1])
    meaning = fingerprint((None if is_own(system) else rate, (*given, moving)), (own_rule, given), (save, given))
    found = _integrate(numbers, state, passed, solver, max_steps, itself if save is None else save, meaning)
    return found._replace(times=jnp.clip(jnp.asarray(ts, dtype), clock.t0, clock.t1))


class _Clock(NamedTuple):
    """A user's times; what runs counts from t0, since far from zero the clock is too coarse for small steps."""

    t0: Any
    t1: Any
    span: Any

    def at(self, passed: Any) -> Any:
        """The time when so much of the span has passed; at its end t1 itself."""
        return jnp.where(passed >= self.span, self.t1, self.t0 + passed)


def _since(t0: Any, times: Any, dtype: Any) -> Any:
    """times − t0, subtracted in float64 where they are known."""
    if is_traced(t0, times):
        return jnp.asarray(times, dtype) - jnp.asarray(t0, dtype)
    return jnp.asarray(np.asarray(times, np.float64) - float(t0), dtype)


def _checked_times(ts: Any, t0: Any, t1: Any) -> Any:
    if ts is None:
        return jnp.reshape(t1, (1,)) if is_traced(t1) else np.reshape(np.asarray(t1, np.float64), (1,))
    if is_traced(ts, t0, t1):
        return ts
    times = real_numbers("ts", ts)
    if times.ndim != 1 or times.size == 0:
        raise ValueError(f"ts: expected a non-empty list of times, got shape {times.shape}")
    # A millionth of slack: times that were computed in float32 may pass t1 by a rounding.
    if not (np.isfinite(times).all() and times[0] >= t0 and times[-1] <= t1 + 1e-6 * max(abs(t0), abs(t1))):
        raise ValueError(f"ts: expected finite times in [t0, t1] = [{t0:g}, {t1:g}]")
    if (np.diff(times) < 0).any():
        raise ValueError("ts: expected increasing times")
    return times


@eqx.filter_jit
def _integrate(numbers: Any, state: Any, times: Any, solver: Any, max_steps: Any, save: Any, meaning: str) -> Solution:
    """`times` are since the start, as everything here is but what the user's functions are told."""
    system, data, clock, rtol, atol, dt, until = numbers
    dtype = times.dtype
    # Traced times cannot be looked at before: what they ask for in vain is no result.
    known = jnp.isfinite(clock.t0) & jnp.isfinite(clock.span) & (clock.span > 0)
    known = known & jnp.isfinite(times).all() & (jnp.diff(times) >= 0).all()
    times = jnp.sort(times)

    def field(t: Any, y: Any, data: Any):
        now = clock.t0 + t
        rate = field_of(at(system, now, dtype))(now, y, data)
        check_rate(y, rate)
        return rate

    events: list[Any] = [_not_finite]
    if isinstance(until, Event):
        events += [_falling(until, clock, sign) for sign in (1, -1) if until.direction != sign]
    elif until is not None:
        events.append(_ended(until, clock))
    finder = _Zero() if isinstance(until, Event) else None
    if dt is None:
        controller = _Advancing(rtol=rtol, atol=atol, norm=_finite_norm)
        first = _first_step(field, state, data, clock.span, rtol, atol)
    else:
        controller, first = diffrax.ConstantStepSize(), dt
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: field(t, y, args)),
        _solver(solver, None if dt is None else (rtol, atol)),
        t0=jnp.zeros_like(clock.span),
        t1=clock.span,
        dt0=first,
        y0=state,
        args=data,
        saveat=diffrax.SaveAt(subs=[diffrax.SubSaveAt(ts=times), diffrax.SubSaveAt(t1=True)]),
        stepsize_controller=controller,
        event=diffrax.Event(events, finder, False),
        max_steps=max_steps,
        throw=False,
    )
    assert solution.ts is not None
    assert solution.ys is not None
    (saved, last), stopped_at = solution.ys, solution.ts[1][0]
    finite = _all_finite(jax.tree.map(lambda leaf: leaf[0], last))
    # diffrax fills what it did not reach with infinity: hold the last good state there. At the end itself an
    # interpolant may be off by a rounding.
    reached = (times < stopped_at) & jax.vmap(_all_finite)(saved)
    ended = jnp.any(jnp.stack([jnp.asarray(False), *solution.event_mask[1:]]))  # type: ignore[index]
    held = lambda s, f, y: _held(s, f[0], y, reached, times, finite)  # noqa: E731
    states = jax.tree.map(held, saved, last, state)
    final = jax.tree.map(lambda held, end: jnp.where(finite, end[0], held[-1]), states, last)
    result = solution.result
    stepped = (result == diffrax.RESULTS.successful) | (result == diffrax.RESULTS.event_occurred)
    status = jnp.where(
        result == diffrax.RESULTS.max_steps_reached,
        Status.OUT_OF_STEPS,
        jnp.where(
            stepped & finite,
            jnp.where(ended & (stopped_at < clock.span), Status.CONVERGED, Status.COMPLETED),
            Status.DIVERGED,
        ),
    )
    status = jnp.where(known, status, Status.DIVERGED)
    if save is not itself:
        states = jax.vmap(lambda t, y: save(t, y, data))(clock.at(jnp.minimum(times, stopped_at)), states)
    return Solution(times, states, final, status, solution.stats["num_steps"], clock.at(stopped_at))


def _held(saved: Array, last: Array, first: Array, reached: Array, times: Array, last_is_finite: Array):
    """Saved rows where they were reached; after that the last state if it is finite, else the last good row."""
    along = lambda mask: mask.reshape(mask.shape + (1,) * (saved.ndim - 1))  # noqa: E731
    row = jax.lax.cummax(jnp.where(reached, jnp.arange(times.size), -1))
    good = jnp.where(along(row >= 0), saved[jnp.maximum(row, 0)], first)
    held = jnp.where(last_is_finite, last, good)
    return jnp.where(along(times <= 0), first, jnp.where(along(reached), saved, held))


def _all_finite(state: Any) -> Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()


def _not_finite(t: Any, y: Any, args: Any, **kwargs: Any):
    return ~_all_finite(y)


def _finite_norm(error: Any) -> Array:
    """Root mean square; a step that leaves the finite numbers is a very bad one, to be retried shorter."""
    norm = optimistix.rms_norm(error)
    return jnp.where(jnp.isfinite(norm), norm, 1e8)


class _Advancing(diffrax.PIDController):
    """The PID controller; a solution that needs steps in which time hardly advances has blown up, and the run fails."""

    def adapt_step_size(
        self, t0: Any, t1: Any, y0: Any, y1_candidate: Any, args: Any, y_error: Any, error_order: Any,
        controller_state: Any,
    ):  # fmt: skip
        keeps, start, end, jumped, state, result = super().adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
        )
        stands = end - start <= 4 * jnp.finfo(jnp.result_type(start)).eps * jnp.abs(start)
        result = diffrax.RESULTS.where(stands, diffrax.RESULTS.dt_min_reached, result)
        return keeps, start, end, jumped, state, result


def _first_step(field: Field, state: Any, data: Any, span: Array, rtol: Array, atol: Array) -> Array:
    """A hundredth of the time in which the field would move the state by its own size (Hairer, Nørsett & Wanner)."""
    scaled = lambda tree: optimistix.rms_norm(  # noqa: E731
        jax.tree.map(lambda leaf, y: leaf / (atol + rtol * jnp.abs(y)), tree, state)
    )
    size, speed = scaled(state), scaled(field(jnp.zeros_like(span), state, data))
    step = jnp.where((size > 1e-5) & (speed > 1e-5), 0.01 * size / speed, 1e-6 * span)
    return jnp.clip(jnp.where(jnp.isfinite(step), step, 1e-6 * span), 1e-10 * span, span)


def _solver(name: str, tolerances: Any) -> diffrax.AbstractSolver[Any]:
    """The solver; an implicit one in fixed steps takes its root finder's tolerances from here."""
    if tolerances is None or not issubclass(SOLVERS[name], diffrax.AbstractImplicitSolver):
        return SOLVERS[name]()
    rtol, atol = tolerances
    return SOLVERS[name](root_finder=optimistix.Newton(rtol=rtol, atol=atol))  # type: ignore[call-arg]


def _falling(event: Event, clock: _Clock, sign: int) -> Callable[..., Any]:
    """The event's value, or its negative: where this falls, from above zero, diffrax is to see an event."""

    def condition(t: Any, y: Any, args: Any, **kwargs: Any):
        return sign * jnp.asarray(event.of(clock.at(t), y, args), t.dtype)

    return condition


class _Zero(optimistix.AbstractRootFinder[Any, Any, Any, Any]):
    """The zero between the ends of diffrax' last step; of its conditions those that did not hold are zero there."""

    rtol: float = 0.0
    atol: float = 0.0
    norm: Any = jnp.abs

    def init(self, fn: Any, y: Any, args: Any, options: Any, f_struct: Any, aux_struct: Any, tags: Any) -> Bracket:
        low, high = options["lower"], options["upper"]
        return Bracket.of(low, high, -_sum(fn(low, args)[0]), -_sum(fn(high, args)[0]))  # from below zero

    def step(self, fn: Any, y: Any, args: Any, options: Any, state: Bracket, tags: Any) -> tuple[Any, Bracket, Any]:
        values, aux = fn(state.next, args)
        state = state.narrowed(-_sum(values))
        return state.best, state, aux

    def terminate(self, fn: Any, y: Any, args: Any, options: Any, state: Bracket, tags: Any) -> tuple[Any, Any]:
        return state.found, optimistix.RESULTS.successful

    def postprocess(
        self, fn: Any, y: Any, aux: Any, args: Any, options: Any, state: Bracket, tags: Any, result: Any
    ) -> tuple[Any, Any, dict[str, Any]]:
        return y, aux, {}


def _sum(values: Any) -> Array:
    return jnp.sum(jnp.stack(jax.tree.leaves(values)))


def _ended(until: Any, clock: _Clock):
    def condition(t: Any, y: Any, args: Any, *, terms: Any, **kwargs: Any):
        if isinstance(until, Rest):
            return until.of_rate(terms.vf(t, y, args), y)
        return checked_rule(until, clock.t0 + t, y, args)

    return condition
