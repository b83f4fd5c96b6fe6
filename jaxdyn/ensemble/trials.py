"""Random trials at m = 1: draw, run, say where each one ended.

One trial is a random (ρ, τ, λ) and random starting weights, run by a discrete procedure until it
stops moving; its outcome is the equilibrium of P Prop 4.11 that it stopped at, or why there is none.
"""

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..checks import one_of, whole_number
from ..moments import Moments
from ..names import ALGORITHMS, DTYPES
from ..provenance import provenance
from ..status import Status
from ..systems.siamese import MovingAverage, Objective, Siamese, SiameseState, StopGradient
from ..systems.spheres import ScalarData, distance_to_sphere, radii
from . import engines
from .draws import Draw, blockwise, draw_trials
from .engines.base import Device, Progress
from .protocol import Protocol

BATCH = 2**20  # trials held at once
_RISE = 1e-8  # relative; below it a rise of an energy cannot be told from rounding


class Outcome(enum.IntEnum):
    """Where a trial ended: on a sphere of P Prop 4.11, at the origin, or why it has no such place.

    `UNDECIDED` stopped moving, but not close enough to any equilibrium to be told apart (Δ near 0
    makes the approach algebraically slow and the spheres merge); `OUT_OF_STEPS` was still moving at
    the step limit; `DIVERGED` left the finite numbers. With a fixed learning rate the last two are
    draws of small ρ, for which the step is so long that the outer sphere is unstable under the
    procedure (about μτ²/ρ > 2 for SG): they cycle around it or blow up. `Protocol.lr_cap` cures it.
    """

    OUTER = 0
    ORIGIN = 1
    INNER = 2
    UNDECIDED = 3
    OUT_OF_STEPS = 4
    DIVERGED = 5


class Energy(NamedTuple):
    """An energy's lowest value so far and its largest rise above it."""

    lowest: Any
    rise: Any


class Tracked(NamedTuple):
    """What a trial carries from step to step: the state, and the energies E and F seen on the way."""

    state: SiameseState
    objective: Energy
    surrogate: Energy


class Trial(NamedTuple):
    """What a trial keeps: its system, moments, learning rate and stopping tolerance."""

    system: Siamese
    moments: Moments
    lr: Any
    tolerance: Any


def run_trials(
    algorithm: str,
    protocol: Protocol,
    n_trials: int,
    seed: int = 0,
    *,
    engine: str = "auto",
    dtype: str = "float64",
    batch_size: int | None = None,
    devices: Sequence[Device] | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Run random m = 1 trials of a discrete procedure and classify where each one ends.

    Trial i is a function of (seed, i) and the protocol alone, bit for bit, whatever the number of
    trials, the batch size and the number of devices of one kind. SG, EMA and objective trials with
    the same seed share their draws.

    Args:
        algorithm: "sg", "ema" or "objective".
        protocol: what a trial draws and when it stops.
        n_trials: trials 0 … n_trials − 1 are run.
        seed: of the experiment, a whole number in [0, 2³²).
        engine: "auto", "fused" or "xla"; see `jaxdyn.ensemble.engines`.
        dtype: "float64" or "float32", of the run; draws are made in float64 and cast.
        batch_size: trials drawn and held at once; bounds memory. Default: about a million.
        devices: where to run; default: the first device of the default backend.
        progress: called with the number of trials newly finished, from any thread.

    Returns:
        A dataset along `trial`: the draws (rho, tau, weight_decay, lr, discriminant, epsilon,
        start_radius), `outcome` (an `Outcome`), `steps`, `final_radius`, `distance` to the nearest
        equilibrium and `sphere_distance` to the nearest sphere (NaN if there is none), E
        (`objective_*`) and F (`surrogate_*`) at start and end, the largest rise of
        each above its own past minimum and whether it exceeds rounding (`*_rose`). The trials'
        target moment E[y²] is max(ρ, τ²/ρ), see `Moments.scalar`; SG and EMA do not depend on it.

    Raises:
        ValueError: for bad settings.

    Example:
        >>> data = run_trials("sg", Protocol(max_steps=100), n_trials=4, seed=0)
        >>> data.sizes["trial"]
        4

    Source: P §5 (the experiment, m = 1) and Prop 4.11 (the equilibria).
    """
    (dataset,) = run_protocols(
        algorithm, [protocol], n_trials, seed,
        engine=engine, dtype=dtype, batch_size=batch_size, devices=devices, progress=progress,
    )  # fmt: skip
    return dataset


def run_protocols(
    algorithm: str,
    protocols: Sequence[Protocol],
    n_trials: int,
    seed: int = 0,
    *,
    engine: str = "auto",
    dtype: str = "float64",
    batch_size: int | None = None,
    devices: Sequence[Device] | None = None,
    progress: Progress | None = None,
) -> list[xr.Dataset]:
    """`run_trials` for several protocols in one batch, so that they share compilations and stragglers.

    The protocols must agree on `n` and `max_steps`. Returns one dataset for each, bit for bit what
    `run_trials` returns for it alone.
    """
    one_of("algorithm", algorithm, tuple(ALGORITHMS))
    one_of("engine", engine, ("auto", *engines.ENGINES))
    one_of("dtype", dtype, DTYPES)
    n_trials = whole_number("n_trials", n_trials, high=2**32)
    seed = whole_number("seed", seed, low=0, high=2**32 - 1)
    batch_size = BATCH if batch_size is None else whole_number("batch_size", batch_size)
    if not all(isinstance(protocol, Protocol) for protocol in protocols):
        raise ValueError(f"protocol: expected a Protocol, got {type(protocols[0]).__name__}")
    if not protocols or len({(protocol.n, protocol.max_steps) for protocol in protocols}) > 1:
        raise ValueError("protocols: expected at least one, all with the same n and max_steps")
    smallest = min(protocol.tolerance for protocol in protocols)
    if dtype == "float32" and smallest < 1e-6:
        raise ValueError(f"tolerance: float32 cannot resolve {smallest:g}; use at least 1e-6, or float64")
    with jax.enable_x64(dtype == "float64"):
        devices = jax.local_devices()[:1] if devices is None else list(devices)
        options = {"devices": devices, "progress": progress}
        held = max(1, batch_size // len(protocols))
        segments = [
            _run_segment(algorithm, protocols, seed, np.arange(start, min(start + held, n_trials)), np.dtype(dtype),
                         engine, options)
            for start in range(0, n_trials, held)
        ]  # fmt: skip
    parts, engine = [part for part, _ in segments], segments[0][1]
    datasets = []
    for index, protocol in enumerate(protocols):
        settings = {"algorithm": algorithm, "n_trials": n_trials, "seed": seed, "engine": engine}
        variables = {
            name: ("trial", np.concatenate([part[name][index] for part in parts]), attributes)
            for name, attributes in _ATTRIBUTES.items()
        }
        datasets.append(
            xr.Dataset(
                variables,
                coords={"trial": ("trial", np.arange(n_trials), {"long_name": "trial index i"})},
                attrs={"title": f"m = 1 trials, {ALGORITHMS[algorithm]}", "algorithm": algorithm}
                | provenance(settings=settings | protocol.settings(), precision=dtype, devices=devices),
            )
        )
    return datasets


def _run_segment(
    algorithm: str,
    protocols: Sequence[Protocol],
    seed: int,
    indices: np.ndarray,
    dtype: np.dtype,
    engine: str,
    options: dict[str, Any],
) -> tuple[dict[str, np.ndarray], str]:
    """Trials with these indices for every protocol, each result [protocols, trials]; and the engine that ran them."""
    draws = [draw_trials(protocol, seed, indices) for protocol in protocols]
    draw = jax.tree.map(lambda *leaves: np.concatenate(leaves).astype(dtype), *draws)
    ratio, ema_decay, tolerance, match_tolerance = (
        np.repeat(np.array([getattr(protocol, name) for protocol in protocols], dtype), indices.size)
        for name in ("predictor_lr_ratio", "ema_decay", "tolerance", "match_tolerance")
    )
    start, trials = blockwise(_SETUP[algorithm], draw, ratio, ema_decay, tolerance)
    if engine == "auto":
        engine = engines.choose(step, done, start, trials, devices=options["devices"])
    end, steps, status, *_ = engines.run(engine, step, done, start, trials, protocols[0].max_steps, **options)
    data = ScalarData(draw.rho, draw.tau, draw.weight_decay, ratio)
    results = blockwise(_summarise, start, end, trials, data, status, match_tolerance)
    results |= {"rho": draw.rho, "tau": draw.tau, "weight_decay": draw.weight_decay, "lr": draw.lr, "steps": steps}
    return {name: values.reshape(len(protocols), indices.size) for name, values in results.items()}, engine


def _setup(algorithm: str):
    """Compiled: from a block of draws to the engine's states and parameters."""

    def one(draw: Draw, predictor_lr_ratio, ema_decay, tolerance) -> tuple[Tracked, Trial]:
        if algorithm == "ema":
            system = MovingAverage.from_decay(
                draw.weight_decay, predictor_lr_ratio, ema_decay=ema_decay, lr=draw.lr
            )  # fmt: skip
        else:
            system = {"sg": StopGradient, "objective": Objective}[algorithm](draw.weight_decay, predictor_lr_ratio)
        moments = Moments.scalar(draw.rho, draw.tau)
        state = system.state(encoder=draw.encoder, predictor=draw.predictor)
        e, f = system.objective(state, moments), system.surrogate(state, moments)
        none = jnp.zeros_like(e)
        return Tracked(state, Energy(e, none), Energy(f, none)), Trial(system, moments, draw.lr, tolerance)

    return jax.jit(jax.vmap(one))


_SETUP = {algorithm: _setup(algorithm) for algorithm in ALGORITHMS}


def step(tracked: Tracked, trial: Trial) -> Tracked:
    """One step of the procedure; the energies are those of the state it starts from."""
    state, system, moments = tracked.state, trial.system, trial.moments
    return Tracked(
        system.step(state, moments, trial.lr),
        _watch(tracked.objective, system.objective(state, moments)),
        _watch(tracked.surrogate, system.surrogate(state, moments)),
    )


def done(previous: Tracked, tracked: Tracked, trial: Trial) -> jax.Array:
    """Whether the step moved the state by less than tolerance·μ·(1 + ‖state‖)."""
    pairs = list(zip(previous.state, tracked.state, strict=True))
    moved = jnp.sqrt(sum(jnp.sum((new - old) ** 2) for old, new in pairs))
    size = jnp.sqrt(sum(jnp.sum(new**2) for _, new in pairs))
    return moved < trial.tolerance * trial.lr * (1 + size)


def _watch(energy: Energy, value: jax.Array) -> Energy:
    lowest = jnp.minimum(energy.lowest, value)
    return Energy(lowest, jnp.maximum(energy.rise, value - lowest))


@jax.jit
@jax.vmap
def _summarise(start: Tracked, end: Tracked, trial: Trial, data: ScalarData, status, match_tolerance) -> dict[str, Any]:
    system, moments = trial.system, trial.moments
    inner, outer = radii(data)
    origin_distance = _norm(*end.state)
    places = jnp.stack([outer, jnp.zeros_like(outer), inner])
    distances = jnp.stack(
        [distance_to_sphere(end.state, outer, data), origin_distance, distance_to_sphere(end.state, inner, data)]
    )
    spheres = jnp.fmin(distances[0], distances[2])
    distances = jnp.where(jnp.isnan(distances), jnp.inf, distances)
    nearest = jnp.argmin(distances)
    distance, second = jnp.sort(distances)[:2]
    # Close in absolute terms, and much closer than to the next equilibrium.
    decided = (distance <= match_tolerance * (1 + places[nearest])) & (distance <= second / 4)
    outcome = jnp.where(decided, nearest, Outcome.UNDECIDED)
    outcome = jnp.where(status == Status.OUT_OF_STEPS, Outcome.OUT_OF_STEPS, outcome)
    outcome = jnp.where(status == Status.DIVERGED, Outcome.DIVERGED, outcome)
    summary = {
        "discriminant": data.tau**2 - 4 * data.rho * data.weight_decay,
        "epsilon": data.weight_decay * data.rho / data.tau**2,
        "start_radius": _norm(start.state.encoder),
        "outcome": outcome.astype(jnp.int8),
        "final_radius": _norm(end.state.encoder),
        "distance": distance,
        "sphere_distance": spheres,
    }
    for name in ("objective", "surrogate"):
        value = getattr(system, name)(end.state, moments)
        lowest, rise = _watch(getattr(end, name), value)
        begin = getattr(start, name).lowest
        scale = jnp.maximum(jnp.abs(begin), jnp.maximum(jnp.abs(value), jnp.abs(lowest)))
        summary |= {
            f"{name}_start": begin,
            f"{name}_end": value,
            f"{name}_rise": rise,
            f"{name}_rose": rise > _RISE * scale,
        }
    return summary


def _norm(*arrays: jax.Array) -> jax.Array:
    """Euclidean norm without overflow: a diverged trial's last finite state may be near the largest number."""
    largest = jnp.maximum(jnp.stack([jnp.abs(array).max() for array in arrays]).max(), jnp.finfo(arrays[0].dtype).tiny)
    return largest * jnp.sqrt(sum(jnp.sum((array / largest) ** 2) for array in arrays))


_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "rho": {"symbol": "ρ", "long_name": "second moment of the source view"},
    "tau": {"symbol": "τ", "long_name": "cross moment of target and source view"},
    "weight_decay": {"symbol": "λ", "long_name": "weight decay", "units": "1/time"},
    "lr": {"symbol": "μ", "long_name": "learning rate", "units": "time/step"},
    "discriminant": {"symbol": "Δ", "long_name": "τ² − 4ρλ"},
    "epsilon": {"symbol": "ε", "long_name": "λρ/τ²"},
    "start_radius": {"symbol": "‖a(0)‖", "long_name": "norm of the encoder at the start"},
    "final_radius": {"symbol": "‖a‖", "long_name": "norm of the encoder at the end"},
    "distance": {"long_name": "distance of the final state to the nearest equilibrium"},
    "sphere_distance": {"long_name": "distance of the final state to the nearest sphere; NaN where Δ < 0"},
    "steps": {"long_name": "steps taken", "units": "step"},
    "outcome": {
        "long_name": "where the trial ended",
        "flag_values": np.array([int(outcome) for outcome in Outcome], np.int8),
        "flag_meanings": " ".join(outcome.name.lower() for outcome in Outcome),
    },
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
