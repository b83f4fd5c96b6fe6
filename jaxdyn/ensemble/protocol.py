"""What a random trial draws and when it stops: settings only, free of JAX.

The default is **ours**. The published experiment (P §5, m = 1, 10,000 trials) states the laws of ρ, τ
and λ alone; n, the laws of the initial entries, the learning rate, the teacher's decay, the stopping
rule and the treatment of Δ < 0 are not published. The default lies inside the family of settings that
gives the published pair of percentages (`jaxdyn trials --sensitivity` draws that family).
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ..checks import number, one_of, whole_number
from .laws import Law, LawLike

DISCRIMINANT_POLICIES = ("nonnegative", "any")


@dataclass(frozen=True)
class Protocol:
    """Settings of the m = 1 trials of stop gradient, moving average and objective.

    Laws are a `Law`, a number or text such as "uniform(-1, 1)".

    Raises:
        ValueError: naming the setting, what was expected and what came.

    Example:
        >>> Protocol(n=3, encoder="normal(0, 1)").encoder
        Law(kind='normal', parameters=(0.0, 1.0))
    """

    rho: LawLike = "uniform(0, 3)"
    """Law of ρ = E[x²] > 0."""
    tau: LawLike = "uniform(-1, 1)"
    """Law of τ = E[yx]."""
    weight_decay: LawLike = "uniform(0.01, 0.1)"
    """Law of the weight decay λ >= 0, of encoder and predictor alike."""
    discriminant: str = "nonnegative"
    """"nonnegative": redraw (ρ, τ, λ) until Δ = τ² − 4ρλ >= 0, so that nonzero equilibria exist; "any": keep all."""
    n: int = 2
    """Embedding dimension."""
    encoder: LawLike = "uniform(-1.5, 1.5)"
    """Law of the entries of A(0)."""
    predictor: LawLike = "uniform(-1.5, 1.5)"
    """Law of the entries of B(0)."""
    lr: LawLike = 0.05
    """Law of the learning rate μ > 0; a number is the same for every trial."""
    lr_cap: float | None = None
    """If given, a trial's learning rate is at most lr_cap·ρ/τ², which tames the stiff draws of small ρ."""
    predictor_lr_ratio: float = 1.0
    """α_p > 0, learning rate of the predictor over that of the encoder."""
    ema_decay: float = 0.9975
    """Decay α in [0, 1] of the moving-average teacher, per step: C ← αC + (1 − α)A. C(0) = A(0)."""
    tolerance: float = 1e-7
    """Stop where one step moves the state by less than tolerance·μ·(1 + ‖state‖)."""
    max_steps: int = 400_000
    """Step limit of a trial."""
    match_tolerance: float = 1e-3
    """A stopped trial belongs to an equilibrium at a distance below match_tolerance·(1 + its radius)."""

    def __post_init__(self):
        for name in ("rho", "tau", "weight_decay", "encoder", "predictor", "lr"):
            try:
                object.__setattr__(self, name, Law.parse(getattr(self, name)))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        for name, above in (("rho", 0.0), ("lr", 0.0)):
            low, high = self.law(name).support
            if low < above or high <= above:
                raise ValueError(f"{name}: expected a law of positive numbers, got {getattr(self, name)}")
        if self.law("weight_decay").support[0] < 0:
            raise ValueError(f"weight_decay: expected a law of numbers >= 0, got {self.weight_decay}")
        one_of("discriminant", self.discriminant, DISCRIMINANT_POLICIES)
        if self.discriminant == "nonnegative" and self._largest_discriminant() < 0:
            raise ValueError("discriminant: these laws of rho, tau and weight_decay never give τ² − 4ρλ >= 0")
        checked = {
            "n": whole_number("n", self.n),
            "max_steps": whole_number("max_steps", self.max_steps, high=2**31 - 2**20),
            "predictor_lr_ratio": number("predictor_lr_ratio", self.predictor_lr_ratio, above=0),
            "ema_decay": number("ema_decay", self.ema_decay, low=0, high=1),
            "tolerance": number("tolerance", self.tolerance, above=0),
            "match_tolerance": number("match_tolerance", self.match_tolerance, above=0),
            "lr_cap": None if self.lr_cap is None else number("lr_cap", self.lr_cap, above=0),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def law(self, name: str) -> Law:
        """The law of one of the drawn settings."""
        return Law.parse(getattr(self, name))

    def replace(self, **changes: Any) -> "Protocol":
        """A copy with some settings changed."""
        return dataclasses.replace(self, **changes)

    def settings(self) -> dict[str, Any]:
        """Every setting as plain text and numbers; `Protocol(**protocol.settings())` is the protocol."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(Protocol)}
        return {
            name: value
            if not isinstance(value, Law)
            else (value.parameters[0] if value.kind == "constant" else str(value))
            for name, value in values.items()
        }

    def _largest_discriminant(self) -> float:
        largest_tau = max(abs(bound) for bound in self.law("tau").support)
        smallest = self.law("rho").support[0] * self.law("weight_decay").support[0]
        return math.inf if math.isinf(largest_tau) else largest_tau**2 - 4 * smallest
