"""Which modes are learnt where the embedding is too small for all (Tian, Chen & Ganguli 2021, App. D.1-D.2)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...equilibria.census import census
from ...equilibria.equations import decay_bound
from ...moments import Moments
from ...solve.ensemble import flow_ensemble
from ...solve.methods.rest import Rest
from ...systems.siamese import MovingAverage, Siamese, StopGradient
from .base import Evidence, Row, claim, clause, finite, limit, share, shown

_N, _M = 2, 3
_SHARE = 0.003  # of the bound: η → 0
_ANGLE = 0.05  # sine of the largest angle to the principal subspace that counts as being it
_GAP = 0.1  # relative: modes nearer to one another are told apart at smaller η only
_LARGEST = "largest sine of the angle to the principal subspace"
_SYSTEMS: dict[str, Callable[[float], Siamese]] = {
    "SimSiam": lambda decay: StopGradient(decay), "BYOL, β = 0.5": lambda decay: MovingAverage(decay, ema_rate=0.5),
}  # fmt: skip


@claim(
    "T-D1",
    source="T App. D.1-D.2",
    statement="BYOL learns the principal eigenmodes of Σᵈ(Σˢ)⁻¹; under additive scrambling how much a dimension is "
    "learnt depends on its noise, not on the size of the data in it.",
)
def principal_modes(fast: bool) -> Evidence:
    draws, starts = (20, 40) if fast else (200, 400)
    stable: list[Row] = []
    ended: list[Row] = []
    opposite: list[Row] = []
    beside: list[Row] = []
    with jax.enable_x64(True):
        moments = [_scrambled(key) for key in jax.random.split(jax.random.key(97), draws)]
        decays = [_SHARE * float(decay_bound(each)) for each in moments]
        for name, system_of in _SYSTEMS.items():
            answers = census([system_of(decay) for decay in decays], moments, n=_N)
            for rank in range(1, _N + 1):
                at = {"system": name, "rank": rank}
                clear = [answer for answer in answers if _gap(answer.moments, rank) > _GAP]
                angles = [_angle(item.gram, answer.moments, rank) for answer in clear for item in answer.stable
                          if item.rank == rank]  # fmt: skip
                count = sum(item.rank == rank for answer in clear for item in answer)
                beside.append(shown("equilibria, of any stability", count, system=name, rank=rank))
                at |= {"stable ones": len(angles), "draws": len(clear)}
                stable.append(limit(_LARGEST, max(angles, default=np.nan), below=_ANGLE, at=at))
            ends = _ends(system_of(decays[0]), moments[0], starts)
            kept = np.array([_rank(gram) == _N for gram in ends])
            away = [_angle(gram, moments[0], _N) for gram in np.asarray(ends)[kept]]
            beside.append(share("random starts that end with rank n", kept, system=name))
            ended.append(limit("starts that end with rank n", int(kept.sum()), above=0, at={"system": name}))
            ended.append(limit(_LARGEST, max(away, default=np.nan), below=_ANGLE, at={"system": name}))
            opposite.append(limit(_LARGEST, _against_size(system_of), below=_ANGLE, at={"system": name}))
    return Evidence(
        f"n = {_N} < m = {_M}, additive scrambling with random Σˣ and Σⁿ, η at {_SHARE:g} of its bound: the census of "
        f"{draws} draws (where the modes' eigenvalues are {100 * _GAP:g} % apart), flows of {starts} random starts to "
        "rest, and data whose least noisy dimensions are the smallest",
        (
            clause("every stable equilibrium of rank k spans the k principal eigenmodes", *stable),
            clause("random starts that keep their rank end there", *ended),
            clause("the least noisy dimensions are learnt, though the data in them are the smallest", *opposite),
        ),
        tuple(beside),
    )


def _scrambled(key: Any) -> Moments:
    first, second = jax.random.normal(key, (2, _M, _M), jnp.float64)
    return Moments.additive_scrambling(first @ first.T / _M + 0.1 * jnp.eye(_M), second @ second.T / _M)


def _gap(moments: Moments, rank: int) -> float:
    """How far the last principal eigenvalue is from the next, relative."""
    from scipy.linalg import eigvalsh

    values = eigvalsh(np.asarray(moments.yx), np.asarray(moments.xx))[::-1]
    return float(1 - values[rank] / values[rank - 1])


def _angle(gram: np.ndarray, moments: Moments, rank: int) -> float:
    """Sine of the largest angle between the encoder's rows and the principal left eigenvectors of Σᵈ(Σˢ)⁻¹."""
    from scipy.linalg import eigh, subspace_angles

    values, vectors = eigh(np.asarray(moments.yx), np.asarray(moments.xx))
    principal = vectors[:, np.argsort(-values)[:rank]]
    rows = np.linalg.eigh(gram)[1][:, -rank:]
    return float(np.sin(subspace_angles(principal, rows).max()))


def _rank(gram: np.ndarray) -> int:
    values = np.linalg.eigvalsh(gram)
    return int((values > 1e-3 * max(values[-1], 1e-3)).sum())


def _ends(system: Siamese, moments: Moments, count: int) -> list[np.ndarray]:
    """AᵀA where flows from random starts come to rest."""
    a, b = jax.random.split(jax.random.key(5))
    encoders = 0.5 * jax.random.normal(a, (count, _N, _M), jnp.float64)
    predictors = 0.5 * jax.random.normal(b, (count, _N, _N), jnp.float64)
    states = jax.vmap(lambda a, b: system.state(encoder=a, predictor=b))(encoders, predictors)
    found = flow_ensemble(system, states, moments, t1=1e5, until=Rest(1e-9))
    encoder = np.asarray(found.final.encoder)
    finite(encoder)
    return list(np.swapaxes(encoder, 1, 2) @ encoder)


def _against_size(system_of: Any) -> float:
    """Where the data's variances and the modes' order are opposed: the angle to the least noisy dimensions."""
    sizes, noises = jnp.array([2.0, 1.0, 0.5]), jnp.array([4.0, 0.8, 0.1])
    moments = Moments.additive_scrambling(jnp.diag(sizes), jnp.diag(noises))
    grams = _ends(system_of(_SHARE * float(decay_bound(moments))), moments, 100)
    learnt = [gram for gram in grams if _rank(gram) == _N]
    axes = np.eye(_M)[:, 1:]
    rows = [np.linalg.eigh(gram)[1][:, -_N:] for gram in learnt]
    return max((float(np.linalg.norm(each - axes @ (axes.T @ each), 2)) for each in rows), default=np.nan)
