"""Argument checks: each raises a ValueError that names the argument, what was expected and what came.

Free of JAX, so that settings can be checked before anything heavy is imported.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any


def number(
    name: str, value: Any, *, low: float = -math.inf, high: float = math.inf, above: float | None = None
) -> float:
    """A finite real number in [low, high], and > `above` if that is given."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        real = float(value)
        if math.isfinite(real) and low <= real <= high and (above is None or real > above):
            return real
    if above is not None:
        want = f"a number > {above:g}" + (f" and <= {high:g}" if high < math.inf else "")
    elif high < math.inf:
        want = f"a number in [{low:g}, {high:g}]"
    else:
        want = f"a number >= {low:g}" if low > -math.inf else "a finite number"
    raise ValueError(f"{name}: expected {want}, got {value!r}")


def whole_number(name: str, value: Any, *, low: int = 1, high: int | None = None) -> int:
    """An integer in [low, high]."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        integer = int(value)
        if low <= integer and (high is None or integer <= high):
            return integer
    want = f">= {low}" if high is None else f"from {low} to {high}"
    raise ValueError(f"{name}: expected a whole number {want}, got {value!r}")


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """A value out of a list of names."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    return value
