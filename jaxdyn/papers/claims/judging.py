"""Directions of effect between cells of seeds: paired Student's t, corrected for how many are asked at once.

What is compared is fixed before the data are seen. Seeds are pairs: cells share starts and batches. Every question has
a p-value that it holds and one that its opposite does; twice the smaller is corrected by Holm's method over all
questions of a claim, so that the chance that any is answered where nothing is there is at most 5 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import Clause, Result, Row, clause

LEVEL = 0.05
FEWEST = 5  # seeds: Student's t of fewer, where outcomes fall into two groups, is wrong far too often


@dataclass(frozen=True)
class Question:
    """Whether `left` is larger than `right` by more than `margin`, or, if `alike`, within ±margin of it.

    `left`, `right`: values [seed], paired. A negative margin asks whether `left` is not worse by more than that.
    """

    text: str
    left: Any
    right: Any
    margin: float = 0.0
    alike: bool = False
    unit: str = "points"

    def p_values(self) -> tuple[float, float]:
        """One-sided: that it holds, and that its opposite does; NaN where differences do not vary or are not finite."""
        mean, error, freedom = self._mean()
        if not (np.isfinite(mean) and error > 0):
            return math.nan, math.nan
        up, down = (mean - self.margin) / error, (mean + self.margin) / error
        if self.alike:
            # Two one-sided tests: above -margin and below margin; the opposite: beyond one of them.
            inside = max(_upper(down, freedom), _upper(-up, freedom))
            outside = 2 * min(_upper(up, freedom), _upper(-down, freedom))
            return inside, min(1.0, outside)
        return _upper(up, freedom), _upper(-up, freedom)

    def _mean(self) -> tuple[float, float, int]:
        left, right = np.asarray(self.left, float), np.asarray(self.right, float)
        difference = left - right
        count = difference.size
        if count < FEWEST:
            return float(difference.mean()) if count else math.nan, 0.0, count - 1
        # Differences equal up to rounding do not vary: there is nothing to measure an effect by.
        spread = float(difference.std(ddof=1))
        scale = max(float(np.abs(left).max()), float(np.abs(right).max()))
        spread = spread if spread > 1e-12 * scale else 0.0
        return float(difference.mean()), spread / math.sqrt(count), count - 1

    def row(self, p: float, outcome: Result) -> Row:
        """Mean difference, its 95 % interval by Student's t, d = mean/std of the differences, corrected p."""
        from scipy.special import stdtrit

        mean, error, freedom = self._mean()
        half = float(stdtrit(freedom, 0.975)) * error if error > 0 else math.nan
        size = mean / (error * math.sqrt(freedom + 1)) if error else math.nan
        rule = f"within ±{self.margin:g}" if self.alike else f"> {self.margin:g}"
        told = f"{rule}; d = {size:.2f}, corrected p = {p:.2g}, {freedom + 1} seeds"
        interval = (mean - half, mean + half) if math.isfinite(half) else None
        return Row("mean difference", mean, interval, self.unit, {}, told, outcome)


def answered(questions: Sequence[Question]) -> tuple[Clause, ...]:
    """A clause for each question: it holds, fails (its opposite holds), or is not decided."""
    pairs = [question.p_values() for question in questions]
    corrected = holm([min(1.0, 2 * min(pair)) if np.isfinite(pair).all() else 1.0 for pair in pairs])
    found = []
    for question, (holds, fails), p in zip(questions, pairs, corrected, strict=True):
        outcome = Result.OPEN
        if p < LEVEL:
            outcome = Result.HOLDS if holds < fails else Result.FAILS
        found.append(clause(question.text, question.row(p, outcome)))
    return tuple(found)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = float(largest)
    return corrected


def _upper(t: float, freedom: int) -> float:
    """The chance that Student's t exceeds this."""
    from scipy.special import stdtr

    return float(stdtr(freedom, -t))
