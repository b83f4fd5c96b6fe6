"""Equilibria by search: damped Newton from many random starts. What it finds is real; what it misses is unknown."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..analysis.linearise import jacobian
from ..engines.kept import Kept
from ..moments import Moments
from ..progress import Progress
from ..systems.siamese import StopGradient, StudentState
from .result import Completeness, Paths
from .strata import Stratum, refine, unequal

STARTS = 400
_STEPS = 60


def search(
    xx: np.ndarray, yx: np.ndarray, rank: int, progress: Progress | None = None, *, starts: int = STARTS, seed: int = 0
) -> list[Stratum]:
    """Equilibria of one rank of each reduced problem, from `starts` random (A, B) with n = rank."""
    m = xx.shape[-1]
    rng = np.random.default_rng([seed, m, rank])
    size = rank * m + rank * rank
    strata = []
    for x, y in zip(xx, yx, strict=True):
        # Radii of a single mode range from ε to 1/ε in these units; starts cover them evenly in logarithm.
        spread = np.exp(rng.uniform(-1.0, 1.0, (starts, 1)) * np.log(1 + np.linalg.norm(y, 2)))
        guesses = rng.normal(size=(starts, size)) * np.sqrt(spread / m)
        ends = np.asarray(_newton(m, rank)(guesses, x, y))
        if progress is not None:
            progress(starts)
        a = ends[:, : rank * m].reshape(-1, rank, m)
        grams = np.swapaxes(a, -1, -2) @ a
        finite = np.isfinite(grams).all((1, 2))
        grams = grams[finite]
        values = np.linalg.eigvalsh(grams) if grams.size else np.zeros((0, m))
        grams = grams[values[:, m - rank] > 1e-8 * values[:, -1]] if grams.size else grams
        count = grams.shape[0]
        refined, trusted = refine(grams, rank, np.repeat(x[None], count, 0), np.repeat(y[None], count, 0))
        grams = unequal(refined[trusted])
        check = f"a search from {starts} starts, which may have missed some"
        paths = Paths(starts, int(trusted.sum()), 0, 0, 0, check, Completeness.SEARCH)
        strata.append(Stratum(rank, grams, grams.shape[0], paths))
    return strata


@functools.lru_cache(maxsize=32)
def _newton(m: int, rank: int) -> Any:
    """Compiled: Levenberg-Marquardt on the field of the reduced problem, batched over starts."""
    system = StopGradient(1.0)

    def one(start: Any, xx: Any, yx: Any):
        moments = Moments(xx, yx)

        def state_of(y: Any):
            return StudentState(y[: rank * m].reshape(rank, m), y[rank * m :].reshape(rank, rank))

        def field(y: Any):
            rates = system.field(0.0, state_of(y), moments)
            return jnp.concatenate([rates.encoder.ravel(), rates.predictor.ravel()])

        def step(carry: Any, _):
            y, damping = carry
            r, j = field(y), jacobian(system, state_of(y), moments)
            normal = j.T @ j
            trial = y - jnp.linalg.solve(normal + damping * jnp.trace(normal) / y.size * jnp.eye(y.size), j.T @ r)
            better = jnp.sum(field(trial) ** 2) < jnp.sum(r**2)
            damping = jnp.clip(jnp.where(better, damping / 5, damping * 4), 1e-14, 1e3)
            return (jnp.where(better, trial, y), damping), None

        (end, _), _ = jax.lax.scan(step, (start, jnp.asarray(1e-2)), None, length=_STEPS)
        return end

    return Kept(jax.vmap(one, in_axes=(0, None, None)))
