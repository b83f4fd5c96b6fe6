"""How random trials start and when they stop: settings only, free of JAX."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..checks import number, whole_number
from .laws import Law, LawLike


def parse_laws(settings: Any, *names: str) -> None:
    """Turn these settings of a frozen dataclass into laws; ValueError that names the one that cannot be read."""
    for name in names:
        try:
            object.__setattr__(settings, name, Law.parse(getattr(settings, name)))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def plain_settings(settings: Any, kind: type) -> dict[str, Any]:
    """The settings that `kind` names as plain text and numbers; `kind(**…)` has them again."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(kind)}
    return {
        name: value if not isinstance(value, Law) else value.parameters[0] if value.kind == "constant" else str(value)
        for name, value in values.items()
    }


@dataclass(frozen=True)
class Starts:
    """Laws of the starting weights, entries drawn independently; a teacher starts as a copy of the encoder.

    Laws are a `Law`, a number or text such as "uniform(-1, 1)". The defaults are ours.

    Raises:
        ValueError: naming the setting, what was expected and what came.

    Example:
        >>> Starts(n=3, encoder="normal(0, 1)").encoder
        Law(kind='normal', parameters=(0.0, 1.0))
    """

    n: int | None = None
    """Embedding dimension; default: m + 1."""
    encoder: LawLike = "uniform(-1.5, 1.5)"
    """Law of the entries of A(0)."""
    predictor: LawLike = "uniform(-1.5, 1.5)"
    """Law of the entries of B(0)."""

    def __post_init__(self):
        parse_laws(self, "encoder", "predictor")
        if self.n is not None:
            object.__setattr__(self, "n", whole_number("n", self.n, high=10_000))

    @property
    def laws(self) -> list[Law]:
        """Of encoder and predictor."""
        return [Law.parse(self.encoder), Law.parse(self.predictor)]

    @property
    def size(self) -> int:
        """n, once it is definite."""
        if self.n is None:
            raise ValueError("n: the embedding dimension is not definite yet")
        return self.n

    def with_n(self, m: int) -> "Starts":
        """The same with a definite n for moments of input dimension m."""
        return dataclasses.replace(self, n=m + 1) if self.n is None else self


@dataclass(frozen=True)
class Stopping:
    """When a trial stops, and how near an equilibrium it must be to belong to it.

    Raises:
        ValueError: naming the setting, what was expected and what came.
    """

    tolerance: float = 1e-7
    """Stop where one step moves the state by less than tolerance·μ·(1 + ‖state‖)."""
    max_steps: int = 400_000
    """Step limit of a trial."""
    match_tolerance: float = 1e-3
    """A stopped trial belongs to an equilibrium at a distance below match_tolerance·(1 + its radius)."""

    def __post_init__(self):
        checked = {
            "tolerance": number("tolerance", self.tolerance, above=0),
            "max_steps": whole_number("max_steps", self.max_steps, high=2**31 - 2**20),
            "match_tolerance": number("match_tolerance", self.match_tolerance, above=0),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
