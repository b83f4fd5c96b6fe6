"""Every system the tests run over, with its oracle; a new system is tested by being listed here."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import jaxdyn as jd

SHAPES = [(1, 1), (2, 1), (3, 2), (2, 3), (4, 4)]  # (n, m)


@dataclass(frozen=True)
class Example:
    """A system with random hyperparameters, and the oracle's arguments for the same."""

    name: str
    system: Any
    oracle: dict[str, float]

    def state(self, n, m, seed=0):
        rng = np.random.default_rng(seed)
        parts = {"encoder": rng.normal(size=(n, m)), "predictor": rng.normal(size=(n, n))}
        if self.name == "ema":
            parts["teacher"] = rng.normal(size=(n, m))
        return self.system.state(**parts)

    def rates(self, state, moments):
        import oracles

        x, y, z = (np.asarray(part) for part in (moments.xx, moments.yx, moments.yy))
        return oracles.rates(self.name, tuple(np.asarray(part) for part in state), x, y, z, **self.oracle)


EXAMPLES = {
    "sg": Example("sg", jd.StopGradient((0.07, 0.11), 1.7), {"decay_a": 0.07, "decay_b": 0.11, "ratio": 1.7}),
    "ema": Example(
        "ema",
        jd.MovingAverage((0.07, 0.11), 0.6, ema_rate=0.3),
        {"decay_a": 0.07, "decay_b": 0.11, "ratio": 0.6, "beta": 0.3},
    ),
    "objective": Example(
        "objective", jd.Objective((0.07, 0.11), 1.3), {"decay_a": 0.07, "decay_b": 0.11, "ratio": 1.3}
    ),
}


def moments(m, seed=0):
    return jd.Moments.random(jax.random.key(seed), m)
