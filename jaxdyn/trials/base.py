"""What a problem of random trials is: what each trial draws, and how its end is classified.

A problem has `m` and two functions, which `functions_of` finds:

    draw(problem, starts, seed, indices, dtype) -> Drawn
    classify(problem, ended) -> Classified

Trial i is a function of (seed, i) and the settings alone. To add one: a dataclass with the settings, and these two
functions registered for it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..moments import Moments
from ..status import Status
from .starts import Starts, Stopping

UNSETTLED = ("undecided", "out_of_steps", "diverged")


class Drawn(NamedTuple):
    """What trials draw, arrays [trials, …]: systems, moments, learning rates, starts, and columns of the result."""

    systems: Any
    moments: Moments
    lr: np.ndarray
    states: Any
    columns: dict[str, np.ndarray]
    tracks_energy: bool


class Ended(NamedTuple):
    """Trials that have ended: what they drew, their final states, `Status` [trials], n and the rules of stopping."""

    drawn: Drawn
    states: Any
    status: np.ndarray
    n: int
    stopping: Stopping


class Classified(NamedTuple):
    """`outcome` [trials] as an index into `names`, the last three of which are `UNSETTLED`; columns with attributes;
    attributes of the result."""

    outcome: np.ndarray
    names: tuple[str, ...]
    columns: dict[str, Any]
    attributes: dict[str, Any]


def settled(found: np.ndarray, status: np.ndarray, count: int) -> np.ndarray:
    """Outcomes: the equilibrium found of `count` (−1: none), or why there is none."""
    outcome = np.where(found < 0, count, found)
    outcome = np.where(status == Status.OUT_OF_STEPS, count + 1, outcome)
    return np.where(status == Status.DIVERGED, count + 2, outcome).astype(np.int8 if count < 100 else np.int32)


Draw = Callable[[Any, Starts, int, np.ndarray, np.dtype], Drawn]
Classify = Callable[[Any, Ended], Classified]
