"""`run_ensemble`: any map or flow, many trials at once, each with its own parameters, steps and end."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..checks import one_of, whole_number
from ..names import ENGINES as ENGINE_NAMES
from ..status import Status
from . import engines
from .engines.base import Device, Progress, batch_size, in_jax_dtype
from .programs import METHODS, FixedTsit5, Map, Path, Program, Trial


class Ensemble(NamedTuple):
    """Results of an ensemble, on the host; every array has a leading [trials] axis.

    `states`: the final states (a diverged trial's last finite one). `times`: the time each trial reached, in flow
    units, or steps of a map. `status`: a `Status` each. `n_steps`: steps, for adaptive methods accepted and
    rejected. `saved`: what `save` returned at `ts` [trials, time, …], NaN (or 0 for whole numbers) where a trial
    ended before; None without `ts`.
    """

    states: Any
    times: np.ndarray
    status: np.ndarray
    n_steps: np.ndarray
    saved: Any = None


def run_ensemble(
    function: Callable[..., Any],
    states: Any,
    params: Any = None,
    *,
    method: str = "tsit5",
    t0: float = 0.0,
    t1: Any = None,
    dt: Any = None,
    steps: int | None = None,
    until: Callable[[Any, Any, Any], Any] | None = None,
    ts: Any = None,
    save: Callable[[Any, Any, Any], Any] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 1_000_000,
    longest_first: Any = None,
    engine: str = "auto",
    devices: list[Device] | None = None,
    progress: Progress | None = None,
) -> Ensemble:
    """Integrate a flow or iterate a map for many trials, each of which goes its own pace and stops by itself.

    Args:
        function: written for one trial: a flow's field(t, state, params) -> rate, such as a system's `field`, or
            for method "map" step(state, params) -> state. States and parameters are any pytrees of arrays.
        states: the starts, with a leading [trials] axis on every leaf; their dtype is the precision of the run.
        params: per-trial parameters, likewise; numbers without an axis are shared by all trials.
        method: "tsit5" (explicit, order 5), "rodas5p" (stiff flows: order 5, L-stable, exact Jacobian), "rk4"
            (order 4, fixed steps), or "map".
        t0, t1: start and end of time, in flow units; `t1` is one number or one a trial.
        dt: a fixed step size, one number or one a trial; needed by "rk4", makes "tsit5" one of fixed steps. Time is
            cut into the least number of equal steps no longer than this.
        steps: of a map: how many. May be left out with `until`.
        until: until(previous, state, params) -> bool ends a trial early, with status `CONVERGED`.
        ts: increasing times from t0 to t1 (of a map: numbers of steps) at which `save` is called, on interpolated
            states.
        save: save(t, state, params) -> any pytree; default: the state.
        rtol, atol: of adaptive steps, as in diffrax: a step stands if the root mean square of
            error / (atol + rtol·max |state|) is below one. Default 1e-8 and 1e-10; 1e-5 and 1e-7 in float32.
        max_steps: of a trial, accepted and rejected; status `OUT_OF_STEPS` beyond.
        longest_first: a number for every trial that grows with its expected length; longer ones start first.
        engine: "auto", "fused" or "xla"; see `jaxdyn.ensemble.engines`.
        devices: where to run; default: the first device of the default backend.
        progress: called with the number of trials newly finished, from any thread.

    Returns:
        An `Ensemble`. `COMPLETED` trials reached `t1` (or `steps`). A flow whose steps become too short to advance
        the time is `DIVERGED`, like one that leaves the finite numbers.

    Raises:
        ValueError: for bad arguments. NotImplementedError: with engine "fused", for a function it cannot compile.

    Example:
        >>> import numpy as np
        >>> decay = lambda t, y, rate: -rate * y
        >>> ends = run_ensemble(decay, np.ones(3, np.float32), np.array([0.5, 1.0, 2.0], np.float32), t1=1.0)
        >>> [round(float(y), 3) for y in ends.states]
        [0.607, 0.368, 0.135]

    Source: methods: Tsitouras (2011); Steinebach (2023); Hairer, Nørsett & Wanner (first step).
    """
    one_of("method", method, tuple(METHODS))
    one_of("engine", engine, ENGINE_NAMES)
    max_steps = whole_number("max_steps", max_steps)
    states, dtype = _floating(states) if method != "map" else (states, jnp.zeros(()).dtype)
    n = batch_size(states, ())
    params = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (n,)) if np.ndim(leaf) == 0 else np.asarray(leaf), params)
    batch_size(states, params)
    function, until, save, params = _own_numbers(function, until, save, params, n)
    order = _order(longest_first, n)
    times = None if ts is None else _checked_times(ts, t0, t1 if method != "map" else steps)
    options = {"devices": devices, "progress": progress, "order": order}
    if method == "map":
        program, trial, limit = _map(
            function, until, params, n, dtype, steps, max_steps, save if ts is not None else None
        )
    else:
        program, trial, limit = _flow(
            method, function, until, params, n, dtype, (t0, t1, dt), (rtol, atol), max_steps,
            save if ts is not None else None,
        )  # fmt: skip
    path = _started(program, states, trial, t0, dtype, engine, options)
    recording = {} if times is None else {"record": _Record(program), "times": times}
    done = _Done(program) if program.judged else None
    finished = engines.run(engine, program, done, path, trial, limit, **options, **recording)
    status = np.where(_completed(program, finished, trial, steps, limit), Status.COMPLETED, finished.status)
    saved = None
    if times is not None and finished.n_saved is not None:
        saved = _blanked(finished.saved, finished.n_saved, times.size)
    end = finished.states
    return Ensemble(end.state, np.asarray(end.t), status.astype(np.int8), finished.steps, saved)


def _floating(states: Any) -> tuple[Any, np.dtype]:
    """The starts on the host in one floating dtype, and that dtype."""
    leaves = [in_jax_dtype(leaf) for leaf in jax.tree.leaves(states)]
    if not leaves:
        raise ValueError("states: expected a pytree with at least one array")
    dtype = np.result_type(*leaves)
    if not np.issubdtype(dtype, np.floating):
        raise ValueError(f"states: expected floating arrays, got {dtype}")
    return jax.tree.unflatten(jax.tree.structure(states), [leaf.astype(dtype, copy=False) for leaf in leaves]), dtype


@dataclass(frozen=True)
class _Combined:
    """A module's function whose arrays are in the parameters; or one that is to leave them alone."""

    static: Any
    is_module: bool
    numbers: str = ""  # of the static part, so that 1 and 1.0, or 0.0 and -0.0, are not taken for the same

    def __call__(self, *arguments: Any) -> Any:
        *others, (dynamic, params) = arguments
        function = eqx.combine(dynamic, self.static) if self.is_module else self.static
        return function(*others, params)


def _own_numbers(function: Any, until: Any, save: Any, params: Any, n: int) -> tuple[Any, Any, Any, Any]:
    """Methods of modules (a system's field) hold arrays: these become parameters that all trials share.

    Then the function that is left can be compared with others, and a system with other numbers is not compiled anew.
    """
    save = _state_itself if save is None else save
    if not isinstance(function, eqx.Module):
        return function, until, save, params
    dynamic, static = eqx.partition(function, eqx.is_array)
    shared = jax.tree.map(lambda leaf: np.broadcast_to(np.asarray(leaf), (n, *leaf.shape)), dynamic)
    until = None if until is None else _Combined(until, False)
    numbers = repr(jax.tree.leaves(static))
    return _Combined(static, True, numbers), until, _Combined(save, False), (shared, params)


def _state_itself(t: Any, state: Any, params: Any) -> Any:
    return state


@dataclass(frozen=True)
class _Record:
    """A program's `record` and `done` as functions that are equal for equal programs: compilations are shared."""

    program: Program

    def __call__(self, *arguments: Any) -> Any:
        return self.program.record(*arguments)


@dataclass(frozen=True)
class _Done:
    program: Program

    def __call__(self, *arguments: Any) -> Any:
        return self.program.done(*arguments)


@dataclass(frozen=True)
class _Start:
    """From a path that only has its state to one that is ready: one step of an engine, so that bits do not depend on
    the batch."""

    program: Any

    def __call__(self, path: Path, trial: Any) -> Path:
        trial, t0 = trial
        return self.program.start(path.state, trial, t0)


def _started(program: Program, states: Any, trial: Trial, t0: float, dtype: Any, engine: str, options: Any) -> Path:
    n = batch_size(states, ())
    zeros, time = np.zeros(n, dtype), np.full(n, t0, dtype)
    if isinstance(program, Map):
        return Path(np.zeros(n, np.int32), states)
    if not program.adaptive:
        return Path(time, states, taken=np.zeros(n, np.int32))
    # The rate is kept, or nothing is; a field's rate has its state's shape.
    blank = jax.tree.map(np.zeros_like, states) if program.keeps_rate else ()
    path = Path(time, states, zeros, blank)
    quiet = {**options, "progress": None}
    start = (trial, np.full(n, t0, dtype))
    return engines.run(engine, _Start(program), None, path, start, 1, **quiet).states


def _per_trial(name: str, value: Any, n: int, dtype: Any, above: float | None = None) -> np.ndarray:
    array = np.asarray(value, dtype)
    if array.shape not in ((), (n,)):
        raise ValueError(f"{name}: expected one number or one for each of {n} trials, got shape {array.shape}")
    if not np.isfinite(array).all() or (above is not None and (array <= above).any()):
        raise ValueError(f"{name}: expected finite numbers{'' if above is None else f' above {above:g}'}")
    return np.broadcast_to(array, (n,))


def _map(function, until, params, n: int, dtype: Any, steps, max_steps: int, save) -> tuple[Map, Trial, int]:
    if steps is None and until is None:
        raise ValueError('steps: expected the number of steps of a map, or a rule "until" that ends it')
    limit = max_steps if steps is None else whole_number("steps", steps)
    # The engine counts the steps, so that a run of a fixed number has nothing to judge.
    return Map(function, until, save, at_end=False), Trial(params, np.zeros(n, np.int32)), limit


def _flow(method, function, until, params, n: int, dtype: Any, time, tolerances, max_steps: int, save):
    t0, t1, dt = time
    if t1 is None:
        raise ValueError("t1: expected the end of time")
    t1 = _per_trial("t1", t1, n, dtype, above=t0)
    if method == "rk4" and dt is None:
        raise ValueError('dt: expected the step size, which method "rk4" needs')
    if method == "rodas5p" and dt is not None:
        raise ValueError('dt: method "rodas5p" chooses its own steps')
    if dt is None:
        single = jnp.finfo(dtype).bits <= 32
        chosen = (given if given is not None else default for given, default in
                  zip(tolerances, (1e-5, 1e-7) if single else (1e-8, 1e-10), strict=True))  # fmt: skip
        rtol, atol = (
            _per_trial(name, value, n, dtype, 0) for name, value in zip(("rtol", "atol"), chosen, strict=True)
        )
        return METHODS[method](function, until, save), Trial(params, t1, (), rtol, atol), max_steps
    spans, wanted = (np.asarray(value, np.float64) for value in (np.subtract(time[1], t0), dt))
    _per_trial("dt", wanted, n, np.float64, above=0)
    counts = np.broadcast_to(np.ceil(spans / wanted * (1 - 1e-12)), (n,))
    if counts.max() > max_steps:
        raise ValueError(f"max_steps: {counts.max():.0f} steps of dt are needed, more than {max_steps}")
    sizes = np.broadcast_to(spans / counts, (n,)).astype(dtype)
    trial = Trial(params, t1, sizes, t0=np.full(n, t0, dtype), n_steps=counts.astype(np.int32))
    kind = FixedTsit5 if method == "tsit5" else METHODS[method]
    if (counts == counts[0]).all():  # nothing to judge: the engine counts
        return kind(function, until, save, at_end=False), trial, int(counts[0])
    return kind(function, until, save), trial, max_steps


def _order(longest_first: Any, n: int) -> np.ndarray | None:
    if longest_first is None:
        return None
    length = np.asarray(longest_first)
    if length.shape != (n,):
        raise ValueError(f"longest_first: expected one number for each of {n} trials, got shape {length.shape}")
    return np.argsort(-length, kind="stable")


def _checked_times(ts: Any, t0: float, t1: Any) -> np.ndarray:
    times = np.asarray(ts, np.float64)
    if times.ndim != 1 or times.size == 0 or not np.isfinite(times).all():
        raise ValueError(f"ts: expected a non-empty list of finite times, got shape {times.shape}")
    last = math.inf if t1 is None else float(np.max(t1))
    slack = 0.0 if t1 is None else 1e-6 * abs(last)  # times computed in another precision may pass t1 by a rounding
    if (np.diff(times) < 0).any() or times[0] < t0 or times[-1] > last + slack:
        raise ValueError(f"ts: expected increasing times from {t0:g} to the end")
    return np.minimum(times, last)


def _completed(program: Program, finished: Any, trial: Trial, steps: int | None, limit: int) -> np.ndarray:
    """The trials that reached the end of their time, or all the steps that were asked for."""
    if program.at_end:
        ended = finished.status == Status.CONVERGED
        return ended & (np.asarray(finished.states.t) >= trial.t1)
    asked = steps is not None or not isinstance(program, Map)
    return (finished.status == Status.OUT_OF_STEPS) & asked


def _blanked(saved: Any, n_saved: np.ndarray, n_times: int) -> Any:
    """NaN where a trial ended before the time."""
    missing = np.arange(n_times) >= n_saved[:, None]

    def leaf(values):
        if missing.any() and np.issubdtype(values.dtype, np.floating):
            values[missing] = np.nan
        return values

    return jax.tree.map(leaf, saved)


__all__ = ["Ensemble", "run_ensemble"]
