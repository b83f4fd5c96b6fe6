"""Laws of random numbers, written as a person would: "uniform(-1, 1)", "normal(0, 1)", "0.05".

Free of JAX, so that settings can be read and checked before anything heavy is imported.
"""

import math
import numbers
import re
from dataclasses import dataclass
from typing import TypeAlias

_KINDS = {
    "constant": ("value",),
    "uniform": ("low", "high"),
    "loguniform": ("low", "high"),
    "normal": ("mean", "std"),
}
_CALL = re.compile(r"\s*([a-z]+)\s*\(([^()]*)\)\s*")


@dataclass(frozen=True)
class Law:
    """The law of one real random number.

    `kind` is "constant" (value), "uniform" (low, high), "loguniform" (0 < low, high) or "normal"
    (mean, std); `parameters` are its numbers, in the units of what is drawn.

    Example:
        >>> Law.parse("uniform(-1, 1)")
        Law(kind='uniform', parameters=(-1.0, 1.0))
        >>> str(Law.parse(0.05))
        '0.05'
    """

    kind: str
    parameters: tuple[float, ...]

    def __post_init__(self):
        if self.kind not in _KINDS:
            raise ValueError(f"expected one of {', '.join(_KINDS)}, got {self.kind!r}")
        names = _KINDS[self.kind]
        if len(self.parameters) != len(names):
            raise ValueError(f"expected {self.kind}({', '.join(names)}), got {len(self.parameters)} numbers")
        if not all(math.isfinite(value) for value in self.parameters):
            raise ValueError(f"expected finite numbers, got {self}")
        if self.kind in ("uniform", "loguniform") and not self.parameters[0] < self.parameters[1]:
            raise ValueError(f"expected low < high, got {self}")
        if self.kind == "loguniform" and not self.parameters[0] > 0:
            raise ValueError(f"expected low > 0, got {self}")
        if self.kind == "normal" and not self.parameters[1] > 0:
            raise ValueError(f"expected std > 0, got {self}")

    def __str__(self) -> str:
        inside = ", ".join(f"{value:g}" if float(f"{value:g}") == value else repr(value) for value in self.parameters)
        return inside if self.kind == "constant" else f"{self.kind}({inside})"

    @property
    def support(self) -> tuple[float, float]:
        """Smallest and largest value that can be drawn."""
        if self.kind == "constant":
            return self.parameters[0], self.parameters[0]
        return (-math.inf, math.inf) if self.kind == "normal" else (self.parameters[0], self.parameters[1])

    @classmethod
    def parse(cls, text: "LawLike") -> "Law":
        """Read a law from a number or from text such as "uniform(-1, 1)"; a Law passes through."""
        if isinstance(text, Law):
            return text
        if isinstance(text, numbers.Real) and not isinstance(text, bool):
            return cls("constant", (float(text),))
        if isinstance(text, str):
            call = _CALL.fullmatch(text)
            kind, inside = (call[1], call[2]) if call else ("constant", text)
            try:
                parameters = tuple(float(part) for part in inside.split(","))
            except ValueError:
                pass
            else:
                return cls(kind, parameters)
        raise ValueError(
            f'expected a number or a law like "uniform(-1, 1)", "loguniform(1e-3, 1)" or "normal(0, 1)", got {text!r}'
        )


LawLike: TypeAlias = Law | str | float | int
