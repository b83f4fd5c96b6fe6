"""Made-up tables in which nothing differs from anything, to measure how often a claim's judge sees something there.

Outcomes are as awkward as the real ones: a seed's own level, noise of each cell, and, in tables where the pilot saw two
groups, a share of runs that collapse.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import xarray as xr

from ...data.bundled import photographs
from ..tables.ablations import Table
from ..tables.pilot import MANY, planned_seeds
from .base import Claim, Clause, Result, Row, clause, share, trend
from .judging import Question

# Mean values of what each table's claims read; where a claim compares with a constant, the mean is that constant.
_LEVELS = {
    "T-Fig2": {"cosine": 0.5, "negative": 0.05, "asymmetry": 0.3},
    "P-Fig2": {"energy": 1.0, "surrogate": 1.0, "accuracy_attentive": 1 / len(photographs())},
    "P-collapse": {"energy": 1.0, "spread": 0.01, "accuracy_few": 0.7},
}
_INCREMENTS = ("increment_encoder", "increment_predictor", "increment_teacher")
_SHARES = np.linspace(0, 1, 11)
_MODES = 8


def made_up(table: Table, rng: np.random.Generator) -> xr.Dataset:
    """A table of made-up measurements [cell, seed, share] whose true means are all alike."""
    counts = [planned_seeds(table, cell) for cell in table.cells]
    shape = (len(table.cells), max(counts), _SHARES.size)
    lost = rng.choice([0.0, 0.2, 0.5]) if max(counts) == MANY else 0.0  # the share of runs that collapse
    measured: dict[str, Any] = {}
    for name, level in _LEVELS.get(table.id, {"accuracy_few": 0.7}).items():
        measured[name] = (("cell", "seed", "share"), _noisy(rng, shape, level, lost))
    for name in _INCREMENTS if table.id == "P-Fig2" else ():  # early ones 1, the last a tenth of them
        values = _noisy(rng, shape, 1.0, 0.0)
        values[..., -1] *= 0.1
        measured[name] = (("cell", "seed", "share"), values)
    if table.id == "T-Fig2":
        spectra = np.exp(np.stack([_noisy(rng, shape, 1.0, lost) for _ in range(_MODES)], -1))
        measured["f_eigenvalue"] = (("cell", "seed", "share", "mode"), spectra)
    labels = {name: ("cell", [getattr(cell, name) for cell in table.cells]) for name in ("row", "column", "at")}
    coordinates = {"share": _SHARES, "seeds": ("cell", counts), **labels}
    return xr.Dataset(measured, coordinates, {"data": "made up", "steps": 0})


def _noisy(rng: np.random.Generator, shape: tuple[int, ...], level: float, lost: float) -> np.ndarray:
    """Values about a mean level: of the seed, of the run, and, in this share of runs, a fall that is made up for."""
    cells, seeds, shares = shape
    own = 0.03 * rng.normal(size=(1, seeds, 1)) + 0.03 * rng.normal(size=(cells, seeds, shares))
    fell = (rng.uniform(size=(cells, seeds, shares)) < lost) - lost
    return level * (1 + own - 0.6 * fell)


def trends(*several: tuple[int, int], size: int = 4000) -> Callable[[np.random.Generator], tuple[Clause, ...]]:
    """Clauses on shares that do not change: (how many values, the sign of the trend that is asked for)."""

    def null(rng: np.random.Generator) -> tuple[Clause, ...]:
        found = []
        for count, sign in several:
            rows = alike_shares(rng, count, size)
            found.append(clause("a trend", *rows, trend("where there is none", rows, sign)))
        return tuple(found)

    return null


def alike_shares(rng: np.random.Generator, count: int, size: int) -> list[Row]:
    """Shares of so many trials with the same chance."""
    chance = rng.uniform(0.02, 0.98)
    return [share("share", rng.uniform(size=size) < chance) for _ in range(count)]


def at_null(question: Question) -> Question:
    """The question at the edge of what is not so: where it asks for a margin, the difference is that margin."""
    if question.margin == 0:
        return question
    return dataclasses.replace(question, left=np.asarray(question.left) + question.margin)


def one_sided(clauses: Iterable[Clause]) -> list[Clause]:
    """Clauses that a comparison with a limit decides: to fail is what they should do where there is no effect."""
    opened = lambda each: dataclasses.replace(each, printed=Result.OPEN)  # noqa: E731
    return [opened(each) if each.printed is Result.FAILS else each for each in clauses]


def false_positives(claim: Claim, runs: int = 1000, seed: int = 0) -> float:
    """The share of made-up data without effect in which any clause of the claim holds, or its opposite does."""
    null: Callable[..., Any] | None = claim.null
    if null is None:
        raise ValueError(f"{claim.id}: no clause of this claim is statistical")
    answered = 0
    for run in range(runs):
        found = null(np.random.default_rng([seed, run]))
        answered += any(each.printed in (Result.HOLDS, Result.FAILS) for each in found)
    return answered / runs
