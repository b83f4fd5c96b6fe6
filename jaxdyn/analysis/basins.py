"""Which share of random starts ends at which equilibrium: the procedure through the trial engine, against a census."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from ..arrays import in_float64, traceable
from ..checks import one_of, whole_number
from ..ensemble import engines
from ..ensemble.draws import blockwise, sample
from ..ensemble.engines.base import Progress
from ..ensemble.intervals import Interval, wilson
from ..ensemble.protocol import Protocol
from ..moments import Moments
from ..provenance import provenance
from ..status import Status
from ..systems.siamese import Siamese
from .equilibria.listing import Equilibria, Equilibrium, equilibria


class Share(NamedTuple):
    """Trials that ended at `equilibrium` (its index in the census), or for `reason` at none."""

    equilibrium: int | None
    reason: str
    trials: int
    fraction: float
    interval: Interval


@dataclass(frozen=True)
class Basins:
    """Shares of all trials (they add up to one), the census they refer to, and every trial's end."""

    shares: tuple[Share, ...]
    census: Equilibria
    trials: xr.Dataset

    def __str__(self) -> str:
        lines = [f"{'end':34} {'trials':>8} {'share':>9} {'95 % interval':>19}"]
        for share in self.shares:
            low, high = share.interval
            lines.append(f"{self._name(share):34} {share.trials:8,} {100 * share.fraction:7.2f} % "
                         f"{100 * low:7.2f} – {100 * high:6.2f} %")  # fmt: skip
        return "\n".join([lines[0], "-" * len(lines[1]), *lines[1:]])

    def _name(self, share: Share) -> str:
        if share.equilibrium is None:
            return share.reason
        item = self.census[share.equilibrium]
        return f"{share.equilibrium}: rank {item.rank}, {item.verdict.name.lower()}"


REASONS = ("unmatched", "out of steps", "diverged")


_AXES = {"encoder": ("embedding", "input"), "predictor": ("embedding", "embedding_in"),
         "teacher": ("embedding", "input")}  # fmt: skip


class _Trial(NamedTuple):
    system: Any
    moments: Any
    lr: Any
    tolerance: Any


@in_float64
def basin_fractions(
    system: Siamese,
    moments: Moments,
    protocol: Protocol | None = None,
    n_trials: int = 1000,
    *,
    seed: int = 0,
    engine: str = "auto",
    census: Equilibria | None = None,
    progress: Progress | None = None,
) -> Basins:
    """Run the discrete procedure from random starts and match every end to an equilibrium.

    Trial i is a function of (seed, i), the protocol and the system. A trial belongs to the equilibrium whose
    S = AᵀA and whose orbit are both within match_tolerance (relative) and much nearer than the next one's.

    Args:
        system, moments: the learning problem.
        protocol: n, the laws of A(0) and B(0), lr (a constant), tolerance, max_steps and match_tolerance are
            used; the laws of ρ, τ, λ and the rates belong to the system and moments here, and must be the
            defaults. Default: n = m + 1 and `Protocol`'s laws.
        n_trials: number of starts.
        census: an answer of `equilibria` to match against, default: computed here.

    Returns:
        `Basins`: shares with 95 % Wilson intervals; trials that match nothing are classes of their own.
    """
    protocol = Protocol(n=moments.m + 1) if protocol is None else protocol
    lr = _check(protocol)
    one_of("engine", engine, ("auto", *engines.ENGINES))
    n_trials = whole_number("n_trials", n_trials, high=2**32)
    seed = whole_number("seed", seed, low=0, high=2**32 - 1)
    found = equilibria(system, moments, protocol.n) if census is None else census
    if found.n != protocol.n:
        raise ValueError(f"census: expected one for n = {protocol.n}, got n = {found.n}")
    starts = _starts(protocol, moments.m, seed, n_trials)
    states = blockwise(_initial(type(system)), *starts, *_constant(system, n_trials))
    params = _Trial(*_constant(system, n_trials), *_constant(moments, n_trials), np.full(n_trials, lr),
                    np.full(n_trials, protocol.tolerance))  # fmt: skip
    end, steps, status, *_ = engines.run(engine, _step, _done, states, params, protocol.max_steps, progress=progress)
    match, gram_distance, orbit_distance = _match(end, found, protocol.match_tolerance)
    match = np.where(status == Status.OUT_OF_STEPS, -2, np.where(status == Status.DIVERGED, -3, match))
    with np.errstate(over="ignore"):
        size = np.sqrt((end.encoder**2).sum((1, 2)))
    trials = xr.Dataset(
        {
            "match": ("trial", match, {"long_name": "index in the census; −1 unmatched, −2 out of steps, −3 diverged"}),
            "steps": ("trial", steps, {"units": "step"}),
            "gram_distance": ("trial", gram_distance, {"long_name": "relative distance of S to the nearest"}),
            "orbit_distance": ("trial", orbit_distance, {"long_name": "relative distance of the state to its orbit"}),
            "size": ("trial", size, {"symbol": "‖A‖", "long_name": "norm of the encoder at the end"}),
        }
        | {
            name: (("trial", *_AXES[name]), np.asarray(part), {"long_name": f"{name} at the end"})
            for name, part in end._asdict().items()
        },
        attrs={"title": "basins"} | provenance(settings={"n_trials": n_trials, "seed": seed, **protocol.settings()},
                                               precision="float64", devices=jax.local_devices()[:1]),
    )  # fmt: skip
    return Basins(_shares(match, len(found)), found, trials)


def _check(protocol: Protocol) -> float:
    plain = Protocol()
    for name in ("rho", "tau", "weight_decay", "discriminant", "lr_cap", "predictor_lr_ratio", "ema_decay"):
        if getattr(protocol, name) != getattr(plain, name):
            raise ValueError(
                f"protocol: {name} is not drawn here, it belongs to the system and moments; leave it alone"
            )
    law = protocol.law("lr")
    if law.kind != "constant":
        raise ValueError(f"protocol: expected a constant lr for basins, got {protocol.lr}")
    return float(law.parameters[0])


def _starts(protocol: Protocol, m: int, seed: int, n_trials: int) -> tuple[np.ndarray, np.ndarray]:
    """A(0) [trials, n, m] and B(0) [trials, n, n], drawn by (seed, i)."""
    laws = [protocol.law(name) for name in ("encoder", "predictor")]
    draw = _draw(tuple(law.kind for law in laws), protocol.n, m)
    with jax.threefry_partitionable(True):
        parameters = [jnp.asarray(law.parameters, jnp.float64) for law in laws]
        key = jax.random.key(seed, impl="threefry2x32")
        return blockwise(lambda index: draw(key, index, parameters), np.arange(n_trials, dtype=np.uint32))


@functools.lru_cache(maxsize=16)
def _draw(kinds: tuple[str, ...], n: int, m: int) -> Any:
    def one(key, index, parameters):
        keys = jax.random.split(jax.random.fold_in(key, index), 2)
        shapes = ((n, m), (n, n))
        return tuple(
            sample(kind, k, p, shape) for kind, k, p, shape in zip(kinds, keys, parameters, shapes, strict=True)
        )

    return jax.jit(jax.vmap(one, in_axes=(None, 0, None)))


@functools.lru_cache(maxsize=8)
def _initial(kind: type) -> Any:
    return jax.jit(jax.vmap(lambda a, b, system: system.state(encoder=a, predictor=b)))


def _constant(tree: Any, count: int) -> tuple[Any]:
    return (jax.tree.map(lambda leaf: np.broadcast_to(leaf, (count, *np.shape(leaf))), traceable(tree, jnp.float64)),)


def _step(state: Any, trial: _Trial) -> Any:
    return trial.system.step(state, trial.moments, trial.lr)


def _done(previous: Any, state: Any, trial: _Trial) -> Array:
    """Whether the step moved the state by less than tolerance·μ·(1 + ‖state‖)."""
    moved = jnp.sqrt(sum(jnp.sum((new - old) ** 2) for old, new in zip(previous, state, strict=True)))
    size = jnp.sqrt(sum(jnp.sum(new**2) for new in state))
    return moved < trial.tolerance * trial.lr * (1 + size)


def orbit_distance(state: Any, reference: Any) -> Array:
    """Distance of a Siamese state to the O(n)-orbit of another: min over U of ‖state − (UA, UBUᵀ[, UC])‖.

    U is the one that brings the encoders closest (orthogonal Procrustes), so this is an upper bound, zero on
    the orbit.
    """
    left, _, right = jnp.linalg.svd(state.encoder @ reference.encoder.T)
    u = left @ right
    pairs = [(state.encoder, u @ reference.encoder), (state.predictor, u @ reference.predictor @ u.T)]
    if hasattr(state, "teacher"):
        pairs.append((state.teacher, u @ reference.teacher))
    return jnp.sqrt(sum(jnp.sum((have - want) ** 2) for have, want in pairs))


def _match(end: Any, found: Sequence[Equilibrium], tolerance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.errstate(all="ignore"):  # diverged trials overflow
        grams = np.swapaxes(end.encoder, 1, 2) @ end.encoder
        scale = np.array([1 + np.sqrt((np.asarray(item.state.encoder) ** 2).sum()) for item in found])
        by_gram = np.stack([np.sqrt(np.linalg.norm(grams - item.gram, axis=(1, 2))) / size if not item.rank
                            else np.linalg.norm(grams - item.gram, axis=(1, 2)) / size**2
                            for item, size in zip(found, scale, strict=True)])  # fmt: skip
        by_orbit = np.stack([blockwise(_distances, end, _constant(item.state, grams.shape[0])[0]) for item in found])
    by_orbit = np.nan_to_num(by_orbit / scale[:, None], nan=np.inf)
    order = np.argsort(by_orbit, axis=0)
    nearest = order[0]
    at = np.arange(grams.shape[0])
    distance = by_orbit[nearest, at]
    second = by_orbit[order[1], at] if len(found) > 1 else np.full_like(distance, np.inf)
    matched = (distance <= tolerance) & (by_gram[nearest, at] <= tolerance) & (distance <= second / 4)
    return np.where(matched, nearest, -1), by_gram[nearest, at], distance


_distances = jax.jit(jax.vmap(orbit_distance))


def _shares(match: np.ndarray, count: int) -> tuple[Share, ...]:
    rows: list[tuple[int | None, str, int]] = [(index, "", int((match == index).sum())) for index in range(count)]
    rows += [(None, reason, int((match == -1 - k).sum())) for k, reason in enumerate(REASONS)]
    total = match.size
    return tuple(Share(index, why, hits, hits / total, wilson(hits, total)) for index, why, hits in rows)
