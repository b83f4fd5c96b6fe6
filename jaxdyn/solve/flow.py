"""Continuous time: the flow of a system, integrated by diffrax (the only module that imports it)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, Float, Integer

from ..arrays import ScalarLike, floating_state, is_traced, scalar, traceable
from ..checks import one_of, whole_number
from ..status import Status
from ..systems.base import ContinuousSystem, Field, field_of
from ..systems.siamese import Siamese

SOLVERS: dict[str, type[diffrax.AbstractSolver]] = {
    "tsit5": diffrax.Tsit5,
    "dopri8": diffrax.Dopri8,
    "kvaerno5": diffrax.Kvaerno5,
}


class Trajectory(NamedTuple):
    """States along a flow.

    `times` [time] in flow units; `states` the state's pytree with a leading [time] axis; `status`
    a `Status`; `stopped_at` the time reached (earlier than the last of `times` after a steady-state
    stop, from where on the state is held); `n_steps` solver steps, accepted and rejected.
    """

    times: Float[Array, " time"]
    states: Any
    status: Integer[Array, ""]
    stopped_at: Float[Array, ""]
    n_steps: Integer[Array, ""]

    @property
    def final(self) -> Any:
        """The last state."""
        return jax.tree.map(lambda leaf: leaf[-1], self.states)


def flow(
    system: ContinuousSystem | Field,
    state: Any,
    data: Any,
    t1: ScalarLike,
    ts: Sequence[float] | np.ndarray | Array | None = None,
    *,
    solver: str = "tsit5",
    rtol: ScalarLike | None = None,
    atol: ScalarLike | None = None,
    dt: ScalarLike | None = None,
    steady_tolerance: ScalarLike | None = None,
    max_steps: int = 100_000,
) -> Trajectory:
    """Integrate dstate/dt = field(t, state, data) from t = 0 to `t1`.

    Args:
        system: a system, or a bare function field(t, state, data).
        state: the start, any pytree of floating arrays; its dtype is the precision of the run.
        data: passed to the field: `Moments` for the registered systems.
        t1: end of the integration, in flow units.
        ts: increasing times in [0, t1] at which states are returned; default: only t1.
        solver: "tsit5" (explicit, order 5), "dopri8" (explicit, order 8, for tight tolerances) or
            "kvaerno5" (implicit, order 5, L-stable, for stiff flows such as small ρ at m = 1).
        rtol, atol: error per step; default 1e-8 and 1e-10 in float64, 1e-5 and 1e-7 in float32.
        dt: if given, fixed steps of that size instead of adaptive ones.
        steady_tolerance: if given, stop where every component of the field is below
            steady_tolerance·(1 + |component of the state|): status `CONVERGED`.
        max_steps: limit on solver steps; status `OUT_OF_STEPS` when it is met.

    Returns:
        A `Trajectory`. Run-time failures are statuses: where the solver could not go on, the
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
    field = field_of(system)
    state, dtype = floating_state(state)
    if isinstance(system, Siamese):
        system.check(state, data)
    t1 = scalar("t1", t1, above=0)
    one_of("solver", solver, tuple(SOLVERS))
    single = jnp.finfo(dtype).bits <= 32
    rtol = scalar("rtol", (1e-5 if single else 1e-8) if rtol is None else rtol, above=0)
    atol = scalar("atol", (1e-7 if single else 1e-10) if atol is None else atol, above=0)
    dt = None if dt is None else scalar("dt", dt, above=0)
    if steady_tolerance is not None:
        steady_tolerance = scalar("steady_tolerance", steady_tolerance, above=0)
    max_steps = whole_number("max_steps", max_steps)
    times = jnp.minimum(jnp.asarray(_checked_times(ts, t1), dtype), jnp.asarray(t1, dtype))
    numbers = traceable((field, data, t1, rtol, atol, dt, steady_tolerance), dtype)
    return _integrate(numbers, state, times, solver, max_steps)


def _checked_times(ts: Any, t1: Any) -> Any:
    if ts is None:
        return jnp.reshape(jnp.asarray(t1), (1,))
    if is_traced(ts, t1):
        return ts
    times = np.asarray(ts, np.float64)
    if times.ndim != 1 or times.size == 0:
        raise ValueError(f"ts: expected a non-empty list of times, got shape {times.shape}")
    # A millionth of slack: times that were computed in float32 may pass t1 by a rounding.
    if not (np.isfinite(times).all() and times[0] >= 0 and times[-1] <= t1 * (1 + 1e-6)):
        raise ValueError(f"ts: expected finite times in [0, t1] = [0, {t1:g}]")
    if (np.diff(times) < 0).any():
        raise ValueError("ts: expected increasing times")
    return times


@eqx.filter_jit
def _integrate(numbers, state, times, solver, max_steps) -> Trajectory:
    field, data, t1, rtol, atol, dt, steady_tolerance = numbers
    dtype = times.dtype
    start = jnp.zeros((), dtype)
    events = [_not_finite] if steady_tolerance is None else [_not_finite, _steady(steady_tolerance)]
    if dt is None:
        # Below dtmin time no longer advances: a solution that needs such steps has blown up.
        dtmin = 8 * jnp.finfo(dtype).eps * t1
        controller = diffrax.PIDController(rtol=rtol, atol=atol, norm=_finite_norm, dtmin=dtmin)
        first = _first_step(field, state, data, t1, rtol, atol)
    else:
        controller, first = diffrax.ConstantStepSize(), dt
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: field(t, y, args)),
        _solver(solver, None if dt is None else (rtol, atol)),
        t0=start,
        t1=t1,
        dt0=first,
        y0=state,
        args=data,
        saveat=diffrax.SaveAt(subs=[diffrax.SubSaveAt(ts=times), diffrax.SubSaveAt(t1=True)]),
        stepsize_controller=controller,
        event=diffrax.Event(events),
        max_steps=max_steps,
        throw=False,
    )
    assert solution.ts is not None
    assert solution.ys is not None
    (saved, last), stopped_at = solution.ys, solution.ts[1][0]
    finite = _all_finite(jax.tree.map(lambda leaf: leaf[0], last))
    # diffrax fills what it did not reach with infinity: hold the last good state there.
    reached = (times <= stopped_at) & jax.vmap(_all_finite)(saved)
    steady = jnp.asarray(False) if steady_tolerance is None else solution.event_mask[1]  # type: ignore[index]
    states = jax.tree.map(lambda s, f, y: _held(s, f[0], y, reached, times, finite), saved, last, state)
    result = solution.result
    stepped = (result == diffrax.RESULTS.successful) | (result == diffrax.RESULTS.event_occurred)
    status = jnp.where(
        result == diffrax.RESULTS.max_steps_reached,
        Status.OUT_OF_STEPS,
        jnp.where(stepped & finite, jnp.where(steady, Status.CONVERGED, Status.COMPLETED), Status.DIVERGED),
    )
    return Trajectory(times, states, status, stopped_at, solution.stats["num_steps"])


def _held(saved: Array, last: Array, first: Array, reached: Array, times: Array, last_is_finite: Array) -> Array:
    """Saved rows where they were reached; after that the last state if it is finite, else the last good row."""
    along = lambda mask: mask.reshape(mask.shape + (1,) * (saved.ndim - 1))  # noqa: E731
    row = jax.lax.cummax(jnp.where(reached, jnp.arange(times.size), -1))
    good = jnp.where(along(row >= 0), saved[jnp.maximum(row, 0)], first)
    held = jnp.where(last_is_finite, last, good)
    return jnp.where(along(times <= 0), first, jnp.where(along(reached), saved, held))


def _all_finite(state: Any) -> Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()


def _not_finite(t, y, args, **kwargs):
    return ~_all_finite(y)


def _finite_norm(error: Any) -> Array:
    """Root mean square; a step that leaves the finite numbers is a very bad one, to be retried shorter."""
    norm = optimistix.rms_norm(error)
    return jnp.where(jnp.isfinite(norm), norm, 1e8)


def _first_step(field: Field, state: Any, data: Any, t1: Array, rtol: Array, atol: Array) -> Array:
    """A hundredth of the time in which the field would move the state by its own size (Hairer, Nørsett & Wanner)."""
    scaled = lambda tree: optimistix.rms_norm(  # noqa: E731
        jax.tree.map(lambda leaf, y: leaf / (atol + rtol * jnp.abs(y)), tree, state)
    )
    size, speed = scaled(state), scaled(field(jnp.zeros_like(t1), state, data))
    step = jnp.where((size > 1e-5) & (speed > 1e-5), 0.01 * size / speed, 1e-6 * t1)
    return jnp.clip(jnp.where(jnp.isfinite(step), step, 1e-6 * t1), 1e-10 * t1, t1)


def _solver(name: str, tolerances: Any) -> diffrax.AbstractSolver:
    """The solver; an implicit one in fixed steps takes its root finder's tolerances from here."""
    if tolerances is None or not issubclass(SOLVERS[name], diffrax.AbstractImplicitSolver):
        return SOLVERS[name]()
    rtol, atol = tolerances
    return SOLVERS[name](root_finder=optimistix.Newton(rtol=rtol, atol=atol))  # type: ignore[call-arg]


def _steady(tolerance: Any):
    def condition(t, y, args, *, terms, **kwargs):
        rate = terms.vf(t, y, args)
        return jnp.stack(
            [
                (jnp.abs(dy) <= tolerance * (1 + jnp.abs(leaf))).all()
                for dy, leaf in zip(jax.tree.leaves(rate), jax.tree.leaves(y), strict=True)
            ]
        ).all()

    return condition
