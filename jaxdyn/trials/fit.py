"""Which unpublished settings give a published pair of percentages: the m = 1 experiment read backwards.

The share of SG trials on the outer sphere depends on the scale of the starting weights; with that settled, EMA's share
depends on the teacher's decay. Each is looked for on a grid of settings, run in one batch on the same draws.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..checks import number, whole_number
from ..progress import Progress
from .laws import Law
from .run import run_problems
from .scalar import Outcome
from .scalar_laws import ScalarLaws
from .shares import outcome_shares
from .starts import Starts, Stopping

_GRID = 25
_HALF_WIDTHS = (0.1, 10.0)
_OPENNESS = (1e-4, 0.5)  # 1 − α
_AROUND = 3  # steps of the coarse grid to each side
_Z = 1.96


class Fitted(NamedTuple):
    """A setting that gives a share, and the settings that cannot be told from it (95 %; None: not seen)."""

    value: float
    low: float | None
    high: float | None


class Fit(NamedTuple):
    """One way to get SG's share, the half-width of the starting law, and the decays that then give EMA's.

    `decays` is empty where EMA's share is out of reach; `ema_low` to `ema_high` is what there is.
    """

    half_width: Fitted
    decays: list[Fitted]
    ema_low: float
    ema_high: float


def fit_pair(
    sg: float,
    ema: float,
    n_trials: int = 4000,
    *,
    published_trials: int,
    problem: ScalarLaws | None = None,
    starts: Starts | None = None,
    stopping: Stopping | None = None,
    seed: int = 0,
    engine: str = "auto",
    dtype: str = "float64",
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> list[Fit]:
    """Every half-width h of a uniform starting law at which SG has its share, and the decays α that then give EMA's.

    SG's share rises and falls with h, so there may be several.

    Args:
        sg, ema: shares of resolved trials on the outer sphere, fractions in (0, 1).
        n_trials: trials of each of the settings that are tried, 25 at a time.
        published_trials: how many trials the pair was counted in; with `n_trials` it makes the intervals.
        problem, starts, stopping, seed, engine, dtype, batch_size, progress: see `run_trials`; everything but the
            starting law and the decay is kept.

    Returns:
        A `Fit` for each h, with A(0) and B(0) drawn from uniform(-h, h). An interval holds the settings whose share is
        within 1.96 standard errors (of both counts, and all trials resolved) of the one looked for.

    Raises:
        ValueError: where no half-width on the grid gives SG's share, with the shares that there are.
    """
    problem, starts = problem or ScalarLaws(), starts or Starts()
    for name, share in (("sg", sg), ("ema", ema)):
        if not 0 < number(name, share) < 1:
            raise ValueError(f"{name}: expected a share between 0 and 1, got {share:g}")
    whole_number("n_trials", n_trials)
    whole_number("published_trials", published_trials)

    def shares(problems: list[ScalarLaws], begins: list[Starts]) -> np.ndarray:
        runs = run_problems(
            problems, n_trials, starts=begins, stopping=stopping, seed=seed, engine=engine, dtype=dtype,
            batch_size=batch_size, progress=progress,
        )  # fmt: skip
        found = [outcome_shares(each, resolved=True).get(Outcome.OUTER) for each in runs]
        return np.array([np.nan if each is None else each.fraction for each in found])

    def by_width(widths: np.ndarray) -> np.ndarray:
        plain = dataclasses.replace(problem, system="sg", ema_decay=ScalarLaws.ema_decay)
        return shares([plain] * widths.size, [_uniform(starts, half) for half in widths])

    fits = []
    widths = np.geomspace(*_HALF_WIDTHS, _GRID)
    coarse = by_width(widths)
    weight = 1 / published_trials + 1 / n_trials
    for place in _passes(coarse - sg):
        half = _refined(by_width, widths, place, sg, weight)
        if half is None:
            continue
        begin = _uniform(starts, half.value)

        def by_openness(openness: np.ndarray, begin: Starts = begin) -> np.ndarray:
            decays = [dataclasses.replace(problem, system="ema", ema_decay=float(1 - each)) for each in openness]
            return shares(decays, [begin] * openness.size)

        openness = np.geomspace(*_OPENNESS, _GRID)
        reached = by_openness(openness)
        opened = [_refined(by_openness, openness, at, ema, weight) for at in _passes(reached - ema)]
        decays = [Fitted(1 - each.value, _closed(each.high), _closed(each.low)) for each in opened if each]
        fits.append(Fit(half, decays, float(np.nanmin(reached)), float(np.nanmax(reached))))
    if not fits:
        low, high = (100 * part for part in (np.nanmin(coarse), np.nanmax(coarse)))
        raise ValueError(
            f"sg: no starting law of half-width {widths[0]:g} to {widths[-1]:g} gives {100 * sg:.1f} %, there are "
            f"shares from {low:.1f} to {high:.1f} % (of {n_trials} trials each)"
        )
    return fits


def _uniform(starts: Starts, half: float) -> Starts:
    law = Law("uniform", (-float(half), float(half)))
    return dataclasses.replace(starts, encoder=law, predictor=law)


def _closed(openness: float | None) -> float | None:
    return None if openness is None else 1 - openness


def _passes(off: np.ndarray) -> list[int]:
    """The places before a change of sign."""
    signs = np.sign(off)
    return np.flatnonzero(np.isfinite(off[:-1]) & np.isfinite(off[1:]) & (signs[:-1] != signs[1:])).tolist()


def _refined(
    shares_of: Callable[[np.ndarray], np.ndarray], grid: np.ndarray, place: int, wanted: float, weight: float
) -> Fitted | None:
    """The setting after `place` on the grid, by a cubic through the shares on a finer one around it.

    None where the cubic does not come near the share: the pass on the coarse grid was noise.
    """
    fine = np.geomspace(grid[max(place - _AROUND, 0)], grid[min(place + 1 + _AROUND, grid.size - 1)], grid.size)
    values = shares_of(fine)
    known = np.isfinite(values)
    curve = np.polynomial.Polynomial.fit(np.log(fine[known]), values[known], 3)
    dense = np.geomspace(fine[0], fine[-1], 4001)
    off = np.abs(curve(np.log(dense)) - wanted)
    own = (dense >= grid[place] / (1 + 1e-9)) & (dense <= grid[place + 1] * (1 + 1e-9))
    best = int(np.where(own, off, np.inf).argmin())
    is_outside = off > _Z * np.sqrt(wanted * (1 - wanted) * weight)
    if is_outside[best]:
        return None
    outside = np.flatnonzero(is_outside)
    below, above = outside[outside < best], outside[outside > best]
    low = float(dense[below.max() + 1]) if below.size else None
    high = float(dense[above.min() - 1]) if above.size else None
    return Fitted(float(dense[best]), low, high)
