"""Theorems about open sets of data, proved by the separate checker from the certificates that are kept."""

import json
from typing import Any

import jax
import numpy as np

from ...equilibria.census import equilibria
from ...equilibria.equations import decay_bound
from ...equilibria.records import proved
from ...equilibria.theorems import THEOREMS, Theorem, largest_radius, path_of
from ...moments import Moments
from ...systems.siamese import MovingAverage, StopGradient
from .base import Clause, Evidence, claim, clause, limit, share, shown

_SHARE = 0.05  # of the bound: the weight decay of random draws


@claim(
    "P-open-sets",
    source="ours; beside P Prop 4.10",
    statement="Saddles of full rank, and stable partial collapse, occur on open sets of data, for m = 2 and m = 3, SG "
    "and EMA.",
)
def open_sets(fast: bool) -> Evidence:
    clauses: list[Clause] = []
    with jax.enable_x64(True):
        for theorem in THEOREMS:
            told = json.loads(path_of(theorem).read_text(encoding="utf-8"))
            radius = float.fromhex(told["radius"])
            near = [_has(theorem, seed, radius) for seed in range(2 if fast else 20)]
            clauses.append(clause(
                theorem.statement,
                limit("the certificate is of this", _is_of(theorem, told), equals=True),
                limit("the checker verifies it", proved(told), equals=True),
                limit("radius of the entries of X and Y", radius, above=0),
                limit("random problems within it that have none, of the census", len(near) - sum(near), equals=0,
                      at={"problems": len(near)}),
            ))  # fmt: skip
        tried = [_is_proved_nearby(seed) for seed in range(6 if fast else 100)]
    had = [each for each in tried if each is not None]
    beside = [shown("random draws (m = 2), those with a saddle of full rank", [len(tried), len(had)])]
    if had:
        beside.append(share("… of these, proved on a ball of data about it", had))
    return Evidence(
        "each certificate is verified by `jaxdyn/proofs/check.py`, which shares no code with the library, for all X "
        "and Y within the radius; beside it, the library's census of random problems within the radius",
        tuple(clauses),
        tuple(beside),
    )


def _is_of(theorem: Theorem, told: dict[str, Any]) -> bool:
    """Whether the certificate is about what the theorem says."""
    system, (item,) = theorem.system, told["equilibria"]
    rate = system.ema_rate if isinstance(system, MovingAverage) else None
    same = [np.array_equal(_numbers(told[name]), values) for name, values in zip("XY", theorem.moments, strict=True)]
    same.append(_numbers(told["weight_decay"]) == [float(part) for part in system.weight_decay])
    same.append(float.fromhex(told["predictor_lr_ratio"]) == float(system.predictor_lr_ratio))
    same.append((None if told["ema_rate"] is None else float.fromhex(told["ema_rate"])) == rate)
    return all(same) and (item["rank"], item["unstable"]) == (theorem.rank, theorem.unstable)


def _numbers(told: Any) -> Any:
    return [_numbers(each) for each in told] if isinstance(told, list) else float.fromhex(told)


def _has(theorem: Theorem, seed: int, radius: float) -> bool:
    """Whether the census of a random problem within the radius lists such an equilibrium."""
    rng = np.random.default_rng(seed)
    xx, yx = (np.asarray(each) + rng.uniform(-radius, radius, np.shape(each)) for each in theorem.moments)
    found = equilibria(theorem.system, Moments((xx + xx.T) / 2, yx))
    return any((item.rank, item.n_unstable) == (theorem.rank, theorem.unstable) for item in found)


def _is_proved_nearby(seed: int) -> bool | None:
    """Of a random problem with a saddle of full rank: whether it is proved for all data near; None without one."""
    moments = Moments.random(jax.random.key(seed), 2)
    system = StopGradient(_SHARE * float(decay_bound(moments)))
    found = equilibria(system, moments)
    saddles = [item for item in found if item.rank == 2 and item.n_unstable and item.verdict.name == "SADDLE"]
    if not saddles:
        return None
    item = saddles[0]
    return largest_radius(item.gram, 2, item.n_unstable, system, moments, found.n)[0] > 0
