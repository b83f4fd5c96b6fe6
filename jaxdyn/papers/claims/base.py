"""The papers' claims as computations: each returns numbers and a verdict that follows from them.

A claim that cannot fail is a defect: a verdict is always the outcome of comparisons between computed
numbers, and breaking a formula of the library must turn the claims that rest on it.
"""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np


class Judgement(enum.StrEnum):
    """What the computation says of a claim."""

    REPRODUCED = "reproduced"
    WITHIN_FAMILY = "reproduced within a stated family"
    CONTRADICTED = "contradicted"
    NOT_TESTABLE = "not testable here"
    PARTLY_SEEN = "seen in part at this scale"
    NOT_SEEN = "not seen at this scale"


@dataclass(frozen=True)
class Evidence:
    """A verdict, the numbers it follows from, and in words what was computed and compared."""

    verdict: Judgement
    computed: str
    numbers: dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """A statement of a paper in our words, where it stands there, and how its evidence is computed.

    `compute(fast)` returns the evidence; `fast` takes fewer draws.
    """

    id: str
    source: str
    statement: str
    compute: Callable[[bool], Evidence]


CLAIMS: dict[str, Claim] = {}


def claim(id: str, *, source: str, statement: str) -> Callable[[Callable[[bool], Evidence]], Claim]:
    """Register the decorated function as the computation of a claim."""

    def register(compute: Callable[[bool], Evidence]) -> Claim:
        if id in CLAIMS:
            raise ValueError(f"id: claim {id} is registered already")
        CLAIMS[id] = Claim(id, source, statement, compute)
        return CLAIMS[id]

    return register


def worst(values: Iterable[Any]) -> float:
    """The largest of all entries; infinite if any is not finite or there is none: no failed computation passes."""
    entries = [np.ravel(np.asarray(value)) for value in values]
    together = np.concatenate(entries) if entries else np.array([])
    return float(together.max()) if together.size and np.isfinite(together).all() else np.inf


def verdict_if(holds: bool, otherwise: Judgement = Judgement.CONTRADICTED) -> Judgement:
    """`REPRODUCED` if every comparison came out as claimed."""
    return Judgement.REPRODUCED if holds else otherwise
