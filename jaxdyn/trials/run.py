"""Random trials of any problem: draw, run, say where each one ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .. import engines
from ..checks import checked_arguments, fits_in_memory, one_of, whole_number
from ..engines.base import Device
from ..engines.blocks import blockwise
from ..engines.kept import Kept
from ..names import DTYPES, ENGINES
from ..progress import Progress, shown
from ..provenance import provenance
from ..solve.methods.base import Carried, Held, Skeleton
from ..solve.methods.procedure import Procedure
from . import problems, scalar
from .base import Classified, Ended
from .scalar_laws import ScalarLaws
from .starts import Starts, Stopping, plain_settings

BATCH = 2**20  # trials held at once
_RISE = 1e-8  # relative; below it a rise of an energy cannot be told from rounding

PROBLEMS: dict[type, tuple[Any, Any]] = {
    ScalarLaws: (scalar.draw, scalar.classify),
    problems.Given: (problems.draw_given, problems.classify_given),
    problems.RandomMoments: (problems.draw_moments, problems.classify_moments),
}
Problem = ScalarLaws | problems.Given | problems.RandomMoments


@checked_arguments
def run_trials(
    problem: Problem,
    n_trials: int,
    *,
    starts: Starts | None = None,
    stopping: Stopping | None = None,
    seed: int = 0,
    engine: str = "auto",
    dtype: str = "float64",
    batch_size: int | None = None,
    devices: Sequence[Device] | None = None,
    progress: Progress | bool | None = None,
) -> xr.Dataset:
    """Run random trials of a discrete procedure and classify where each one ends.

    Trial i is a function of (seed, i) and the settings alone, bit for bit, whatever the number of
    trials, the batch size and the number of devices of one kind. SG, EMA and objective trials with
    the same seed share their draws.

    Args:
        problem: `ScalarLaws` (random m = 1 problems, the published experiment), `Given` (one system on given moments)
            or `RandomMoments` (a problem drawn anew for each trial).
        n_trials: trials 0 … n_trials − 1 are run.
        starts: laws of the starting weights, and n; default: `Starts()`, n = m + 1.
        stopping: when a trial stops, and what it is matched with; default: `Stopping()`.
        seed: of the experiment, a whole number in [0, 2³²).
        engine: "auto", "fused" or "xla"; see `jaxdyn.engines`.
        dtype: "float64" or "float32", of the run; draws are made in float64 and cast.
        batch_size: trials drawn and held at once; bounds memory. Default: about a million.
        devices: where to run; default: the first device of the default backend.
        progress: True for a bar (in terminals and notebooks), or a function that is called with the number of trials
            newly finished, from any thread.

    Returns:
        A dataset along `trial`: `outcome`, whose attribute `flag_meanings` names the classes (the equilibria, then
        "undecided", "out_of_steps", "diverged"), `steps`, `lr`, and what the problem adds. `ScalarLaws`: the draws
        (rho, tau, weight_decay, discriminant, epsilon, start_radius), `final_radius`, `distance` to the nearest
        equilibrium and `sphere_distance` to the nearest sphere (NaN if there is none); the trials' target moment
        E[y²] is max(ρ, τ²/ρ), see `Moments.scalar`. `Given`: final states and distances. Where Z is drawn: E
        (`objective_*`) and F (`surrogate_*`) at start and end, the largest rise of each above its own past minimum and
        whether it exceeds rounding (`*_rose`).

    Raises:
        ValueError: for bad settings.

    Example:
        >>> data = run_trials(ScalarLaws("sg"), 4, stopping=Stopping(max_steps=100))
        >>> data.sizes["trial"]
        4

    Source: P §5 (the experiment, m = 1) and Prop 4.11 (the equilibria).
    """
    (dataset,) = run_problems(
        [problem], n_trials, starts=[starts], stopping=stopping, seed=seed, engine=engine, dtype=dtype,
        batch_size=batch_size, devices=devices, progress=progress,
    )  # fmt: skip
    return dataset


def run_problems(
    several: Sequence[Problem],
    n_trials: int,
    *,
    starts: Sequence[Starts | None] | None = None,
    stopping: Stopping | None = None,
    seed: int = 0,
    engine: str = "auto",
    dtype: str = "float64",
    batch_size: int | None = None,
    devices: Sequence[Device] | None = None,
    progress: Progress | bool | None = None,
) -> list[xr.Dataset]:
    """`run_trials` for several problems of one kind in one batch, so that they share compilations and stragglers.

    They must agree on the kind of system, on m and n. Returns one dataset for each, bit for bit what `run_trials`
    returns for it alone.
    """
    stopping = Stopping() if stopping is None else stopping
    for name, value, kind in [
        ("stopping", stopping, Stopping),
        *(("starts", each, Starts) for each in starts or () if each),
    ]:
        if not isinstance(value, kind):
            raise ValueError(f"{name}: expected {kind.__name__}, got {type(value).__name__}")
    first = _checked(several, engine, dtype, stopping)
    n_trials = whole_number("n_trials", n_trials, high=2**32)
    seed = whole_number("seed", seed, low=0, high=2**32 - 1)
    batch_size = BATCH if batch_size is None else whole_number("batch_size", batch_size)
    begins = [(each or Starts()).with_n(first.m) for each in (starts or [None] * len(several))]
    if len(begins) != len(several) or len({each.n for each in begins}) > 1:
        raise ValueError("starts: expected one for each problem, all with the same n")
    # What is kept of a trial: its draws, end and energies, in float64.
    numbers = 20 + 2 * begins[0].size * (2 * first.m + begins[0].size)
    fits_in_memory("n_trials", 8 * numbers * n_trials * len(several))
    with jax.enable_x64(dtype == "float64"):
        devices = jax.local_devices()[:1] if devices is None else list(devices)
        held = max(1, batch_size // len(several))
        with shown(progress, n_trials * len(several)) as report:
            run = _Run(list(several), begins, stopping, seed, np.dtype(dtype), engine, devices, report)
            segments = [run.segment(np.arange(at, min(at + held, n_trials))) for at in range(0, n_trials, held)]
    return [run.dataset([segment[k] for segment in segments], k, n_trials) for k in range(len(several))]


def _checked(several: Sequence[Problem], engine: str, dtype: str, stopping: Stopping) -> Problem:
    one_of("engine", engine, ENGINES)
    one_of("dtype", dtype, DTYPES)
    if not several:
        raise ValueError("problems: expected at least one")
    for each in several:
        if type(each) not in PROBLEMS:
            known = ", ".join(kind.__name__ for kind in PROBLEMS)
            raise ValueError(f"problem: expected one of {known}, got {type(each).__name__}")
    if len({(type(each), each.m) for each in several}) > 1:
        raise ValueError("problems: expected one kind, with the same m")
    if dtype == "float32" and stopping.tolerance < 1e-6:
        raise ValueError(f"tolerance: float32 cannot resolve {stopping.tolerance:g}; use at least 1e-6, or float64")
    return several[0]


class Energy(NamedTuple):
    """An energy's lowest value so far and its largest rise above it."""

    lowest: Any
    rise: Any


class Watched(NamedTuple):
    """A trial on its way, with the energies E and F seen so far; () where they are not followed."""

    carried: Carried
    objective: Any
    surrogate: Any


@dataclass(frozen=True)
class _Step:
    """One step of the procedure; the energies are those of the state it starts from."""

    program: Procedure

    def __call__(self, tracked: Watched, held: Held) -> Watched:
        new = self.program.step(tracked.carried, held)
        if not tracked.objective:
            return Watched(new, (), ())
        energies = _energies(self.program.parts.whole(held.system), tracked.carried.state, held.data)
        return Watched(new, *(map(_watch, (tracked.objective, tracked.surrogate), energies)))


@dataclass(frozen=True)
class _Done:
    program: Procedure

    def __call__(self, previous: Watched, tracked: Watched, held: Held) -> Any:
        return self.program.terminate(previous.carried, tracked.carried, held)


def _energies(system: Any, state: Any, moments: Any) -> tuple[Any, Any]:
    return system.objective(state, moments), system.surrogate(state, moments)


def _watch(energy: Energy, value: jax.Array) -> Energy:
    lowest = jnp.minimum(energy.lowest, value)
    return Energy(lowest, jnp.maximum(energy.rise, value - lowest))


class _Part(NamedTuple):
    """One problem's trials of a segment."""

    classified: Classified
    columns: dict[str, Any]
    engine: str


@dataclass
class _Run:
    problems: list[Problem]
    starts: list[Starts]
    stopping: Stopping
    seed: int
    dtype: np.dtype
    engine: str
    devices: list[Any]
    progress: Progress | None

    def segment(self, indices: np.ndarray) -> list[_Part]:
        """The trials with these indices of every problem, in one batch."""
        draw, classify = PROBLEMS[type(self.problems[0])]
        draws = [draw(problem, start, self.seed, indices, self.dtype)
                 for problem, start in zip(self.problems, self.starts, strict=True)]  # fmt: skip
        if len({jax.tree.structure((each.systems, each.states)) for each in draws}) > 1:
            raise ValueError("problems: expected one kind of system, and schedules that are the same")
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *[each[:4] for each in draws])
        parts, numbers = Skeleton.of(joined[0])
        program = Procedure(parts, rests=True, at_end=False)
        begun, ended, steps, status, engine = self._run(program, numbers, joined, draws[0].tracks_energy)
        own = lambda tree, k: jax.tree.map(lambda leaf: leaf[k * indices.size : (k + 1) * indices.size], tree)  # noqa: E731
        found = []
        for k, (problem, drawn) in enumerate(zip(self.problems, draws, strict=True)):
            state = own(ended.carried.state, k)
            end = Ended(drawn, state, own(status, k), self.starts[k].size, self.stopping)
            columns = {"lr": drawn.lr, "steps": own(steps, k)}
            if drawn.tracks_energy:
                with_end = (own(begun, k), own(ended, k), own(joined[0], k), own(joined[1], k))
                columns |= blockwise(_energy_columns, *with_end)
            found.append(_Part(classify(problem, end), columns, engine))
        return found

    def _run(self, program: Procedure, numbers: Any, joined: Any, tracks: bool) -> Any:
        systems, moments, lr, states = joined
        tolerance = np.full(lr.size, self.stopping.tolerance, self.dtype)
        held = Held(numbers, moments, np.zeros(lr.size, np.int32), lr=lr, tolerance=tolerance)
        carried = Carried(np.zeros(lr.size, np.int32), states)
        begun = Watched(carried, (), ())
        if tracks:
            energies = blockwise(_start_energies, systems, states, moments)
            begun = Watched(carried, *(Energy(value, np.zeros_like(value)) for value in energies))
        step, done = _Step(program), _Done(program)
        engine = self.engine
        if engine == "auto":
            engine = engines.choose(step, done, begun, held, devices=self.devices)
        ended, steps, status, *_ = engines.run(
            engine, step, done, begun, held, self.stopping.max_steps, devices=self.devices, progress=self.progress
        )
        return begun, ended, steps, status, engine

    def dataset(self, parts: list[_Part], k: int, n_trials: int) -> xr.Dataset:
        """All segments of one problem, with names and units."""
        problem, start = self.problems[k], self.starts[k]
        classified = parts[0].classified
        variables: dict[str, Any] = {}
        # A column is let go of where it was once it is in one piece: the whole is never held twice.
        for name, attributes in {name: about for name, (_, about) in classified.columns.items()}.items():
            values = np.concatenate([part.classified.columns.pop(name)[0] for part in parts])
            axes = ("trial", *attributes.get("axes", ()))
            variables[name] = (axes, values, {key: text for key, text in attributes.items() if key != "axes"})
        for name in [*parts[0].columns]:
            variables[name] = ("trial", np.concatenate([part.columns.pop(name) for part in parts]), _ATTRIBUTES[name])
        outcome = np.concatenate([part.classified.outcome for part in parts])
        flags = {"flag_values": np.arange(len(classified.names), dtype=outcome.dtype),
                 "flag_meanings": " ".join(classified.names)}  # fmt: skip
        variables["outcome"] = ("trial", outcome, {"long_name": "where the trial ended"} | flags)
        settings = {"n_trials": n_trials, "seed": self.seed, "engine": parts[0].engine, **_settings(problem)}
        settings |= plain_settings(start, Starts) | plain_settings(self.stopping, Stopping)
        kind = problem.system if isinstance(problem.system, str) else type(problem.system).__name__
        attributes = {"title": f"m = {problem.m} trials, {kind}", "system": kind, "m": problem.m, "n": start.size}
        origin = provenance(settings=settings, precision=self.dtype.name, devices=self.devices)
        index = ("trial", np.arange(n_trials), {"long_name": "trial index i"})
        return xr.Dataset(variables, {"trial": index}, attributes | classified.attributes | origin)


def _settings(problem: Problem) -> dict[str, Any]:
    if isinstance(problem, problems.Given):
        return {"system": repr(problem.system), "lr": problem.lr, "moments": repr(problem.moments)}
    plain = plain_settings(problem, type(problem))
    return {
        name: value if isinstance(value, str | int | float | None) else repr(value) for name, value in plain.items()
    }


_start_energies = Kept(jax.vmap(_energies))


@Kept
@jax.vmap
def _energy_columns(begun: Watched, ended: Watched, system: Any, moments: Any) -> dict[str, Any]:
    values = _energies(system, ended.carried.state, moments)
    columns = {}
    for name, value in zip(("objective", "surrogate"), values, strict=True):
        lowest, rise = _watch(getattr(ended, name), value)
        begin = getattr(begun, name).lowest
        scale = jnp.maximum(jnp.abs(begin), jnp.maximum(jnp.abs(value), jnp.abs(lowest)))
        columns |= {
            f"{name}_start": begin,
            f"{name}_end": value,
            f"{name}_rise": rise,
            f"{name}_rose": rise > _RISE * scale,
        }
    return columns


_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "lr": {"symbol": "μ", "long_name": "learning rate", "units": "time/step"},
    "steps": {"long_name": "steps taken", "units": "step"},
} | {
    f"{name}_{what}": {"symbol": f"{symbol}{mark}", "long_name": f"{long} {text}"}
    for name, symbol, long in (("objective", "E", "objective"), ("surrogate", "F", "surrogate"))
    for what, mark, text in (
        ("start", "(0)", "at the start"),
        ("end", "(T)", "at the end"),
        ("rise", "", "largest rise above its own past minimum"),
        ("rose", "", "ever rose by more than rounding"),
    )
}
