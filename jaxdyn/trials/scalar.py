"""Trials of `ScalarLaws`: random m = 1 problems, classified by the spheres of P Prop 4.11."""

import enum
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..engines.blocks import blockwise
from ..engines.kept import Kept
from ..moments import Moments
from ..schedules import as_schedule, check_schedules
from ..status import Status
from ..systems.siamese import MovingAverage, Objective, StopGradient
from ..systems.spheres import ScalarData, distance_to_sphere, radii
from .base import Classified, Drawn, Ended
from .draws import draw_blocks, sample
from .scalar_laws import ScalarLaws
from .starts import Starts

_MAX_REDRAWS = 10_000
_LONG = 400_000  # steps over which a schedule is looked at


class Outcome(enum.IntEnum):
    """Where a trial ended: on a sphere of P Prop 4.11, at the origin, or why it has no such place.

    `UNDECIDED` stopped moving, but not close enough to any equilibrium to be told apart (Δ near 0
    makes the approach algebraically slow and the spheres merge); `OUT_OF_STEPS` was still moving at
    the step limit; `DIVERGED` left the finite numbers. With a fixed learning rate the last two are
    draws of small ρ, for which the step is so long that the outer sphere is unstable under the
    procedure (about μτ²/ρ > 2 for SG): they cycle around it or blow up. `ScalarLaws.lr_cap` cures it.
    """

    OUTER = 0
    ORIGIN = 1
    INNER = 2
    UNDECIDED = 3
    OUT_OF_STEPS = 4
    DIVERGED = 5


class ScalarDraw(NamedTuple):
    """What one trial draws: ρ, τ, λ, μ, and the entries of A(0) [n, 1] and B(0) [n, n]."""

    rho: Float[Array, "*trials"]
    tau: Float[Array, "*trials"]
    weight_decay: Float[Array, "*trials"]
    lr: Float[Array, "*trials"]
    encoder: Float[Array, "*trials n 1"]
    predictor: Float[Array, "*trials n n"]


def draw_scalars(laws: ScalarLaws, starts: Starts, seed: int, indices: np.ndarray) -> ScalarDraw:
    """Draw the trials with these indices, as float64 arrays on the host.

    Raises:
        ValueError: if the laws give no parameters with Δ >= 0 where that is asked for.
    """
    several = [*map(laws.law, ("rho", "tau", "weight_decay", "lr")), *starts.laws]
    kinds = tuple(law.kind for law in several)
    one = functools.partial(_one, kinds=kinds, n=starts.size, policy=laws.discriminant, capped=laws.lr_cap is not None)
    cap = np.float64(0.0 if laws.lr_cap is None else laws.lr_cap)
    drawn, accepted = draw_blocks(one, several, seed, indices, cap)
    if not accepted.all():
        raise ValueError(
            f"discriminant: no draw with τ² − 4ρλ >= 0 in {_MAX_REDRAWS:,} tries for some trials; "
            'change the laws of rho, tau and weight_decay, or use discriminant = "any"'
        )
    return drawn


def _one(key: PRNGKeyArray, parameters: Any, cap: Any, *, kinds: tuple[str, ...], n: int, policy: str, capped: bool):
    key_data, key_lr, key_encoder, key_predictor = jax.random.split(key, 4)

    def candidate(attempt: Any):
        keys = jax.random.split(jax.random.fold_in(key_data, attempt), 3)
        rho, tau, weight_decay = (sample(kind, k, p, ()) for kind, k, p in zip(kinds, keys, parameters, strict=False))
        fine = rho > 0
        if policy == "nonnegative":
            fine &= tau**2 - 4 * rho * weight_decay >= 0
        return rho, tau, weight_decay, fine

    def retry(carry: Any):
        attempt, _ = carry
        return attempt + 1, candidate(attempt + 1)

    _, (rho, tau, weight_decay, fine) = jax.lax.while_loop(
        lambda carry: ~carry[1][3] & (carry[0] < _MAX_REDRAWS), retry, (jnp.uint32(0), candidate(0))
    )
    lr = sample(kinds[3], key_lr, parameters[3], ())
    if capped:
        lr = jnp.minimum(lr, cap * rho / tau**2)
    encoder = sample(kinds[4], key_encoder, parameters[4], (n, 1))
    predictor = sample(kinds[5], key_predictor, parameters[5], (n, n))
    return ScalarDraw(rho, tau, weight_decay, lr, encoder, predictor), fine


def draw(laws: ScalarLaws, starts: Starts, seed: int, indices: np.ndarray, dtype: np.dtype) -> Drawn:
    """See `trials.base`."""
    drawn = draw_scalars(laws, starts, seed, indices)
    cast = jax.tree.map(lambda leaf: leaf.astype(dtype), drawn)
    ratio = np.full(indices.size, laws.predictor_lr_ratio, dtype)
    scheduled = callable(laws.ema_decay)
    if scheduled:
        check_schedules("ema_decay", as_schedule(laws.ema_decay), _LONG, high=1.0)
    decay = None if scheduled else np.full(indices.size, laws.ema_decay, dtype)
    set_up = _set_up(laws.system, laws.ema_decay if scheduled else None)
    systems, moments, states = blockwise(set_up, cast, ratio, decay)
    columns = {name: getattr(cast, name) for name in ("rho", "tau", "weight_decay")} | {"ratio": ratio}
    return Drawn(systems, moments, cast.lr, states, columns, True)


@functools.lru_cache(maxsize=16)
def _set_up(name: str, schedule: Any) -> Any:
    """Compiled: from a block of draws to systems, moments and starts."""

    def one(draw: ScalarDraw, ratio: Any, ema_decay: Any):
        if name == "ema":
            alpha = ema_decay if schedule is None else schedule
            system = MovingAverage.from_decay(draw.weight_decay, ratio, ema_decay=alpha, lr=draw.lr)
        else:
            system = {"sg": StopGradient, "objective": Objective}[name](draw.weight_decay, ratio)
        moments = Moments.scalar(draw.rho, draw.tau)
        return system, moments, system.state(encoder=draw.encoder, predictor=draw.predictor)

    return Kept(jax.vmap(one))


def classify(laws: ScalarLaws, ended: Ended) -> Classified:
    """See `trials.base`."""
    drawn = ended.drawn
    data = ScalarData(*(drawn.columns[name] for name in ("rho", "tau", "weight_decay", "ratio")))
    match = np.full(ended.status.size, ended.stopping.match_tolerance, drawn.lr.dtype)
    results = blockwise(_nearest, drawn.states.encoder, ended.states, data, ended.status, match)
    outcome = results.pop("outcome")
    columns = results | {name: drawn.columns[name] for name in ("rho", "tau", "weight_decay")}
    names = tuple(each.name.lower() for each in Outcome)
    described = {name: (values, _ATTRIBUTES[name]) for name, values in columns.items()}
    return Classified(outcome, names, described, {})


@Kept
@jax.vmap
def _nearest(start: Array, end: Any, data: ScalarData, status: Array, match_tolerance: Array) -> dict[str, Any]:
    inner, outer = radii(data)
    places = jnp.stack([outer, jnp.zeros_like(outer), inner])
    distances = jnp.stack([distance_to_sphere(end, outer, data), safe_norm(*end), distance_to_sphere(end, inner, data)])
    spheres = jnp.fmin(distances[0], distances[2])
    distances = jnp.where(jnp.isnan(distances), jnp.inf, distances)
    nearest = jnp.argmin(distances)
    distance, second = jnp.sort(distances)[:2]
    # Close in absolute terms, and much closer than to the next equilibrium.
    decided = (distance <= match_tolerance * (1 + places[nearest])) & (distance <= second / 4)
    outcome = jnp.where(decided, nearest, Outcome.UNDECIDED)
    outcome = jnp.where(status == Status.OUT_OF_STEPS, Outcome.OUT_OF_STEPS, outcome)
    outcome = jnp.where(status == Status.DIVERGED, Outcome.DIVERGED, outcome)
    return {
        "discriminant": data.tau**2 - 4 * data.rho * data.weight_decay,
        "epsilon": data.weight_decay * data.rho / data.tau**2,
        "start_radius": safe_norm(start),
        "outcome": outcome.astype(jnp.int8),
        "final_radius": safe_norm(end.encoder),
        "distance": distance,
        "sphere_distance": spheres,
    }


def safe_norm(*arrays: jax.Array) -> jax.Array:
    """Euclidean norm without overflow: a diverged trial's last finite state may be near the largest number."""
    largest = jnp.maximum(jnp.stack([jnp.abs(array).max() for array in arrays]).max(), jnp.finfo(arrays[0].dtype).tiny)
    return largest * jnp.sqrt(sum(jnp.sum((array / largest) ** 2) for array in arrays))


_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "rho": {"symbol": "ρ", "long_name": "second moment of the source view"},
    "tau": {"symbol": "τ", "long_name": "cross moment of target and source view"},
    "weight_decay": {"symbol": "λ", "long_name": "weight decay", "units": "1/time"},
    "discriminant": {"symbol": "Δ", "long_name": "τ² − 4ρλ"},
    "epsilon": {"symbol": "ε", "long_name": "λρ/τ²"},
    "start_radius": {"symbol": "‖a(0)‖", "long_name": "norm of the encoder at the start"},
    "final_radius": {"symbol": "‖a‖", "long_name": "norm of the encoder at the end"},
    "distance": {"long_name": "distance of the final state to the nearest equilibrium"},
    "sphere_distance": {"long_name": "distance of the final state to the nearest sphere; NaN where Δ < 0"},
}
