"""What `equilibria` and `threshold` share: which moments, which system."""

from dataclasses import dataclass
from typing import Any, Literal

from ..checks import number, one_of, whole_number


@dataclass(frozen=True)
class Problem:
    """Second moments and a system on them."""

    moments: str = "scalar"
    """"scalar" (m = 1: rho and tau below), a data set ("digits", "patches", …), an .npz file with xx and yx, or with
    paired views x and y, or two .npy files "x.npy,y.npy"."""
    rho: float = 1.0
    """E[x²] for scalar moments."""
    tau: float = 0.8
    """E[yx] for scalar moments."""
    m: int | None = None
    """Input dimension: principal components kept of data sets (default 2) or of views (default all)."""
    system: Literal["sg", "ema"] = "sg"
    """Stop gradient or moving average; they share equilibria, not their stability."""
    n: int | None = None
    """Embedding dimension; default: m + 1."""
    predictor_lr_ratio: float = 1.0
    """α_p, learning rate of the predictor over that of the encoder."""
    ema_rate: float = 0.05
    """β of the moving-average teacher, per unit of time (system ema)."""
    seed: int = 0
    """Seed of the digits' augmentations and of random starts."""

    def __post_init__(self):
        one_of("system", self.system, ("sg", "ema"))
        number("rho", self.rho, above=0)
        number("tau", self.tau)
        if self.moments != "scalar" and (self.rho, self.tau) != (1.0, 0.8):
            raise ValueError("rho, tau: they belong to --moments scalar")
        if self.system == "sg" and self.ema_rate != 0.05:
            raise ValueError("ema_rate: it belongs to --system ema")
        number("predictor_lr_ratio", self.predictor_lr_ratio, above=0)
        number("ema_rate", self.ema_rate, low=0)
        whole_number("seed", self.seed, low=0, high=2**32 - 1)
        for name in ("m", "n"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), high=10_000)


def load(settings: Problem) -> Any:
    """The moments, in float64 (call it under `jax.enable_x64`)."""

    from ..data.loading import load_moments
    from ..moments import Moments

    if settings.moments == "scalar":
        if settings.m not in (None, 1):
            raise ValueError(f"m: scalar moments have one dimension, got {settings.m}")
        return Moments.scalar(settings.rho, settings.tau)
    is_file = settings.moments.endswith((".npz", ".npy"))
    m = settings.m if settings.m is not None or is_file else 2
    return load_moments(settings.moments, m, seed=settings.seed)


def system_of(settings: Problem, weight_decay: Any) -> Any:
    """The system with this weight decay."""
    from ..systems.siamese import MovingAverage, StopGradient

    if settings.system == "sg":
        return StopGradient(weight_decay, settings.predictor_lr_ratio)
    return MovingAverage(weight_decay, settings.predictor_lr_ratio, ema_rate=settings.ema_rate)
