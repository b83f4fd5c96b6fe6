"""What `jaxdyn diagnose` and `jd.diagnose` share: the settings of a linear training. Free of JAX."""

from dataclasses import dataclass
from typing import Literal

from ..checks import number, one_of, whole_number


@dataclass(frozen=True)
class Setup:
    """A linear set-up: how it is trained, and from where."""

    system: Literal["sg", "ema"] = "sg"
    """Stop gradient or moving average."""
    m: int = 4
    """Input dimension: principal components that are kept."""
    n: int | None = None
    """Embedding dimension; default: m + 2."""
    weight_decay: float = 0.005
    """λ of encoder and predictor, per unit of time."""
    predictor_lr_ratio: float = 1.0
    """α_p, learning rate of the predictor over that of the encoder."""
    ema_rate: float = 0.2
    """β of the moving-average teacher, per unit of time (system ema)."""
    scale: float = 1.5
    """Size of the Gaussian starting weights: entries have standard deviation scale/√n."""
    lr: float = 0.05
    """Learning rate of the procedure on minibatches."""
    batch: int = 128
    """Pairs in a minibatch."""
    t1: float = 2000.0
    """Length of the training, in flow units (steps times learning rate)."""
    n_trials: int = 1000
    """Random starts whose fate is followed on exact moments."""
    resamples: int = 200
    """Bootstrap resamples of the data."""
    seeds: int = 5
    """Trainings on minibatches."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self):
        one_of("system", self.system, ("sg", "ema"))
        whole_number("m", self.m, high=10_000)
        for name in ("batch", "n_trials"):
            whole_number(name, getattr(self, name), high=10**6)
        whole_number("resamples", self.resamples, low=20, high=10**5)
        whole_number("seeds", self.seeds, low=2, high=10**4)
        whole_number("seed", self.seed, low=0, high=2**31)
        if self.n is not None:
            whole_number("n", self.n, low=self.m, high=10_000)
        number("weight_decay", self.weight_decay, above=0)
        number("ema_rate", self.ema_rate, low=0)
        for name in ("predictor_lr_ratio", "scale", "lr", "t1"):
            number(name, getattr(self, name), above=0)
        if self.system != "ema" and self.ema_rate != Setup.ema_rate:
            raise ValueError(f"ema_rate: it belongs to system ema, got system {self.system}")
        if self.system == "ema" and self.ema_rate * self.lr > 1:
            raise ValueError(f"ema_rate: expected ema_rate * lr <= 1, got {self.ema_rate * self.lr:g}")

    @property
    def embedding(self) -> int:
        """n."""
        return self.n or self.m + 2
