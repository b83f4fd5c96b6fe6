"""Equilibria that persist for all moments within a radius: theorems about open sets of data, each with its certificate.

The radius is the largest that `proofs.check` proves, to a twentieth. `python -m jaxdyn.equilibria.theorems` writes the
certificates that are kept in `proofs`.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..moments import Moments
from ..proofs import check
from ..systems.siamese import MovingAverage, Siamese, StopGradient
from .census import equilibria
from .records import proved, record

FOLDER = Path(check.__file__).parent
_SMALLEST = 1e-12  # of ‖(X, Y)‖: a radius below it is none


class Theorem(NamedTuple):
    """For all X, Y within `radius` of each entry of these there is an equilibrium of this rank and unstable count."""

    name: str
    statement: str
    system: Siamese
    moments: tuple[Any, Any]
    rank: int
    unstable: int


_TWO = ([[1.0, 0.125], [0.125, 1.5]], [[0.75, 0.0625], [-0.03125, 0.875]])
_THREE = (
    [[1.0, 0.125, 0.0], [0.125, 1.5, 0.0625], [0.0, 0.0625, 1.25]],
    [[0.75, 0.0625, 0.0], [-0.03125, 0.875, 0.0625], [0.03125, 0.0, 0.8125]],
)
_SADDLE, _PARTIAL = "saddles of full rank on an open set of data", "stable partial collapse on an open set of data"
_SG, _EMA = StopGradient(0.0625), MovingAverage(0.0625, ema_rate=0.25)
THEOREMS = (
    Theorem("saddle-m2", f"SG has {_SADDLE}, m = 2", _SG, _TWO, 2, 1),
    Theorem("saddle-m2-ema", f"EMA has {_SADDLE}, m = 2", _EMA, _TWO, 2, 1),
    Theorem("saddle-m3", f"SG has {_SADDLE}, m = 3", _SG, _THREE, 3, 1),
    Theorem("partial-m2", f"SG has {_PARTIAL}, m = 2", _SG, _TWO, 1, 0),
    Theorem("partial-m2-ema", f"EMA has {_PARTIAL}, m = 2", _EMA, _TWO, 1, 0),
    Theorem("partial-m3", f"SG has {_PARTIAL}, m = 3", _SG, _THREE, 2, 0),
)


def largest_radius(
    gram: np.ndarray, rank: int, unstable: int, system: Siamese, moments: Moments, n: int
) -> tuple[float, dict[str, Any]]:
    """The largest radius of X's and Y's entries that is proved, to a twentieth, and its certificate; 0 if none is."""
    size = float(max(np.abs(moments.xx).max(), np.abs(moments.yx).max()))
    found = 0.0, record([(gram, rank, unstable)], system, moments, n)
    if not proved(found[1]):
        return found
    for spread in (2.0, 4.0, 8.0, 16.0, 32.0):
        certificate = lambda radius: record([(gram, rank, unstable)], system, moments, n, radius, spread)  # noqa: B023, E731
        low, high = max(found[0], _SMALLEST * size), size
        if not proved(best := certificate(low)):
            continue
        while high / low > 1.05:
            middle = float(np.sqrt(low * high))
            tried = certificate(middle)
            low, high, best = (middle, high, tried) if proved(tried) else (low, middle, best)
        found = low, best
    return found


def certificate_of(theorem: Theorem) -> tuple[float, dict[str, Any]]:
    """The theorem's widest radius and its certificate; ValueError where the census has no such equilibrium."""
    moments = Moments(*theorem.moments)
    found = equilibria(theorem.system, moments)
    radii = [largest_radius(item.gram, item.rank, item.n_unstable, theorem.system, moments, found.n)
             for item in found if (item.rank, item.n_unstable) == (theorem.rank, theorem.unstable)]  # fmt: skip
    if not radii:
        raise ValueError(f"{theorem.name}: no equilibrium of rank {theorem.rank} with {theorem.unstable} growing")
    return max(radii, key=lambda each: each[0])


def path_of(theorem: Theorem) -> Path:
    return FOLDER / f"{theorem.name}.json"


if __name__ == "__main__":
    for each in THEOREMS:
        radius, told = certificate_of(each)
        path_of(each).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        print(f"{each.name}: {each.statement}, radius {radius:.3g}")
