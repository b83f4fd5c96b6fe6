"""Confidence intervals of proportions."""

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

    Source: E. B. Wilson, JASA 22 (1927) 209-212; computed by SciPy.
    """
    from scipy.stats import binomtest  # takes as long to import as the rest of this package

    total = whole_number("total", total)
    count = whole_number("count", count, low=0, high=total)
    found = binomtest(count, total).proportion_ci(number("level", level, above=0, high=1), method="wilson")
    return Interval(float(found.low), float(found.high))
