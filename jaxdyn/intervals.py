"""Confidence intervals of proportions."""

import math
from typing import NamedTuple

from .checks import number, whole_number


class Interval(NamedTuple):
    """Lower and upper end, as fractions."""

    low: float
    high: float


def proportion(count: int, total: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion.

    Example:
        >>> low, high = proportion(0, 100)
        >>> low, round(high, 4)
        (0.0, 0.037)

    Source: E. B. Wilson, JASA 22 (1927) 209-212, the solutions p of (count/total − p)² = z² p(1 − p)/total.
    """
    from scipy.special import ndtri  # `scipy.stats` takes as long to import as the rest of this package

    total = whole_number("total", total)
    count = whole_number("count", count, low=0, high=total)
    z = float(ndtri((1 + number("level", level, above=0, high=1)) / 2))
    if math.isinf(z):
        return Interval(0.0, 1.0)
    middle, spread = count + z**2 / 2, z * math.sqrt(count * (total - count) / total + z**2 / 4)
    low = 0.0 if count == 0 else (middle - spread) / (total + z**2)
    high = 1.0 if count == total else (middle + spread) / (total + z**2)
    return Interval(low, high)
