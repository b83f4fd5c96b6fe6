"""The problem of the published m = 1 experiment: what a trial draws. Settings only, free of JAX.

The defaults are **ours**. The published experiment (P §5, m = 1, 10,000 trials) states the laws of ρ, τ and λ alone;
n, the laws of the initial entries, the learning rate, the teacher's decay, the stopping rule and the treatment of Δ < 0
are not published. The defaults lie inside the family of settings that gives the published pair of percentages
(`jaxdyn trials --sensitivity` draws that family).
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..checks import number, one_of
from ..names import SYSTEMS
from .laws import Law, LawLike
from .starts import parse_laws

DISCRIMINANT_POLICIES = ("nonnegative", "any")


@dataclass(frozen=True)
class ScalarLaws:
    """Random (ρ, τ, λ) at m = 1: a problem of `run_trials`, classified by the spheres of P Prop 4.11.

    Laws are a `Law`, a number or text such as "uniform(-1, 1)".

    Raises:
        ValueError: naming the setting, what was expected and what came.

    Example:
        >>> ScalarLaws("ema", ema_decay=0.99).tau
        Law(kind='uniform', parameters=(-1.0, 1.0))

    Source: P §5 (the experiment), Prop 4.11 (the equilibria).
    """

    system: Literal["sg", "ema", "objective"] = "sg"
    """Stop gradient, moving average or the plain objective."""
    rho: LawLike = "uniform(0, 3)"
    """Law of ρ = E[x²] > 0."""
    tau: LawLike = "uniform(-1, 1)"
    """Law of τ = E[yx]."""
    weight_decay: LawLike = "uniform(0.01, 0.1)"
    """Law of the weight decay λ >= 0, of encoder and predictor alike."""
    discriminant: str = "nonnegative"
    """"nonnegative": redraw (ρ, τ, λ) until Δ = τ² − 4ρλ >= 0, so that nonzero equilibria exist; "any": keep all."""
    lr: LawLike = 0.05
    """Law of the learning rate μ > 0; a number is the same for every trial."""
    lr_cap: float | None = None
    """If given, a trial's learning rate is at most lr_cap·ρ/τ², which tames the stiff draws of small ρ."""
    predictor_lr_ratio: float = 1.0
    """α_p > 0, learning rate of the predictor over that of the encoder."""
    ema_decay: Any = 0.9975
    """Decay α in [0, 1] of the moving-average teacher, per step: C ← αC + (1 − α)A; or a schedule of the steps. Of
    system ema alone: for another one, what is not the default is refused."""

    m: ClassVar[int] = 1

    def __post_init__(self):
        one_of("system", self.system, tuple(SYSTEMS))
        parse_laws(self, "rho", "tau", "weight_decay", "lr")
        for name, above in (("rho", 0.0), ("lr", 0.0)):
            low, high = self.law(name).support
            if low < above or high <= above:
                raise ValueError(f"{name}: expected a law of positive numbers, got {getattr(self, name)}")
        if self.law("weight_decay").support[0] < 0:
            raise ValueError(f"weight_decay: expected a law of numbers >= 0, got {self.weight_decay}")
        one_of("discriminant", self.discriminant, DISCRIMINANT_POLICIES)
        if self.discriminant == "nonnegative" and self._largest_discriminant() < 0:
            raise ValueError("discriminant: these laws of rho, tau and weight_decay never give τ² − 4ρλ >= 0")
        number("predictor_lr_ratio", self.predictor_lr_ratio, above=0)
        if not callable(self.ema_decay):
            number("ema_decay", self.ema_decay, low=0, high=1)
        if self.system != "ema" and self.ema_decay != ScalarLaws.ema_decay:
            raise ValueError(f"ema_decay: it belongs to system ema, got {self.ema_decay!r} for {self.system}")
        if self.lr_cap is not None:
            number("lr_cap", self.lr_cap, above=0)

    def law(self, name: str) -> Law:
        """The law of one of the drawn settings."""
        return Law.parse(getattr(self, name))

    def _largest_discriminant(self) -> float:
        largest_tau = max(abs(bound) for bound in self.law("tau").support)
        smallest = self.law("rho").support[0] * self.law("weight_decay").support[0]
        return math.inf if math.isinf(largest_tau) else largest_tau**2 - 4 * smallest
