"""Confidence intervals of proportions."""

import math
from typing import NamedTuple


class Interval(NamedTuple):
    """Lower and upper end, as fractions."""

    low: float
    high: float


def wilson(count: int, total: int, z: float = 1.959963984540054) -> Interval:
    """Wilson's score interval of a proportion; z = 1.96 gives 95 %.

    Example:
        >>> low, high = wilson(0, 100)
        >>> low, round(high, 4)
        (0.0, 0.037)

    Source: E. B. Wilson, JASA 22 (1927) 209-212.
    """
    if not 0 <= count <= total or total < 1:
        raise ValueError(f"count: expected 0 <= count <= total with total >= 1, got {count} of {total}")
    share = count / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return Interval(0.0 if count == 0 else centre - half, 1.0 if count == total else centre + half)
