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

from ..checks import number, one_of, whole_number
from ..moments import Moments
from ..status import Status
from ..systems.base import ContinuousSystem, Field, field_of
from ..systems.siamese import SiameseState, check_compatible

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
    t1: float,
    ts: Sequence[float] | np.ndarray | Array | None = None,
    *,
    solver: str = "tsit5",
    rtol: float | None = None,
    atol: float | None = None,
    dt: float | None = None,
    steady_tolerance: float | None = None,
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
    if isinstance(state, SiameseState) and isinstance(data, Moments):
        check_compatible(state, data)
    t1 = number("t1", t1, above=0)
    one_of("solver", solver, tuple(SOLVERS))
    single = jnp.finfo(dtype).bits <= 32
    rtol = number("rtol", (1e-5 if single else 1e-8) if rtol is None else rtol, above=0)
    atol = number("atol", (1e-7 if single else 1e-10) if atol is None else atol, above=0)
    dt = None if dt is None else number("dt", dt, above=0)
    if steady_tolerance is not None:
        steady_tolerance = number("steady_tolerance", steady_tolerance, above=0)
    max_steps = whole_number("max_steps", max_steps)
    times = jnp.asarray(np.minimum(_checked_times(ts, t1), t1), dtype)
    return _integrate(field, state, data, t1, times, rtol, atol, dt, steady_tolerance, solver, max_steps)


def _checked_times(ts: Any, t1: float) -> np.ndarray:
    times = np.asarray([t1] if ts is None else ts, np.float64)
    if times.ndim != 1 or times.size == 0:
        raise ValueError(f"ts: expected a non-empty list of times, got shape {times.shape}")
    # A millionth of slack: times that were computed in float32 may pass t1 by a rounding.
    if not (np.isfinite(times).all() and times[0] >= 0 and times[-1] <= t1 * (1 + 1e-6)):
        raise ValueError(f"ts: expected finite times in [0, t1] = [0, {t1:g}]")
    if (np.diff(times) < 0).any():
        raise ValueError("ts: expected increasing times")
    return times


@eqx.filter_jit
def _integrate(field, state, data, t1, times, rtol, atol, dt, steady_tolerance, solver, max_steps) -> Trajectory:
    dtype = times.dtype
    start, end = jnp.zeros((), dtype), jnp.asarray(t1, dtype)
    adaptive = diffrax.PIDController(rtol=rtol, atol=atol)
    event = None
    if steady_tolerance is not None:
        event = diffrax.Event(_steady(steady_tolerance))
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: field(t, y, args)),
        _solver(solver, None if dt is None else (rtol, atol)),
        t0=start,
        t1=end,
        dt0=None if dt is None else jnp.asarray(dt, dtype),
        y0=state,
        args=data,
        saveat=diffrax.SaveAt(subs=[diffrax.SubSaveAt(ts=times), diffrax.SubSaveAt(t1=True)]),
        stepsize_controller=diffrax.ConstantStepSize() if dt is not None else adaptive,
        event=event,
        max_steps=max_steps,
        throw=False,
    )
    assert solution.ts is not None
    assert solution.ys is not None
    (saved, last), last_time = solution.ys, solution.ts[1]
    # Times the solver did not reach are filled with infinity by diffrax: hold the last state there.
    reached = times <= last_time[0]
    states = jax.tree.map(lambda s, f: jnp.where(_along(reached, s), s, f), saved, last)
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(last)]).all()
    status = jnp.where(
        solution.result == diffrax.RESULTS.event_occurred,
        Status.CONVERGED,
        jnp.where(
            solution.result == diffrax.RESULTS.successful,
            Status.COMPLETED,
            jnp.where(solution.result == diffrax.RESULTS.max_steps_reached, Status.OUT_OF_STEPS, Status.DIVERGED),
        ),
    )
    status = jnp.where(finite, status, Status.DIVERGED)
    return Trajectory(times, states, status, last_time[0], solution.stats["num_steps"])


def _solver(name: str, tolerances: Any) -> diffrax.AbstractSolver:
    """The solver; an implicit one in fixed steps takes its root finder's tolerances from here."""
    if tolerances is None or not issubclass(SOLVERS[name], diffrax.AbstractImplicitSolver):
        return SOLVERS[name]()
    rtol, atol = tolerances
    return SOLVERS[name](root_finder=optimistix.Newton(rtol=rtol, atol=atol))  # type: ignore[call-arg]


def _steady(tolerance: float):
    def condition(t, y, args, *, terms, **kwargs):
        rate = terms.vf(t, y, args)
        return jnp.stack(
            [
                (jnp.abs(dy) <= tolerance * (1 + jnp.abs(leaf))).all()
                for dy, leaf in zip(jax.tree.leaves(rate), jax.tree.leaves(y), strict=True)
            ]
        ).all()

    return condition


def _along(mask: Array, leaf: Array) -> Array:
    return mask.reshape(mask.shape + (1,) * (leaf.ndim - 1))


def floating_state(state: Any) -> tuple[Any, jnp.dtype]:
    """The state with array leaves of one floating dtype, and that dtype; ValueError otherwise."""
    leaves = jax.tree.leaves(state)
    if not leaves:
        raise ValueError("state: expected a pytree with at least one array")
    arrays = [jnp.asarray(leaf) for leaf in leaves]
    dtype = jnp.result_type(*arrays)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"state: expected floating arrays, got {dtype}")
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), state), dtype
