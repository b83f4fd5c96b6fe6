"""Every system the tests run over, with its oracle; a new system is tested by being listed here."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdyn as jd
from jaxdyn.systems.eigenspace import AsymmetricEigenspace, SymmetricEigenspace
from jaxdyn.systems.modes import (
    ModeData,
    Modes,
    ModeState,
    PairState,
    Parabola,
    ParabolaState,
    PredictorFreeScalar,
    ScalarNetwork,
    ScalarState,
    TiedScalar,
)
from jaxdyn.systems.predictor_free import PredictorFree
from jaxdyn.systems.related import VARIANTS, DeepLinear, DeepLinearData, EigenvalueFlow, SelfPredictive

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


def reduced():
    """Tian's reduced systems and their neighbours: name → (system, state, data)."""
    modes_data, p, s = ModeData(1.3, 0.9), jnp.array([0.3, -0.2]), jnp.array([0.4, 0.7])
    rng = np.random.default_rng(2)
    w, g = rng.normal(size=(2, 3, 3))
    f = jnp.asarray(g @ g.T / 3)
    eigenspaces = {
        f"{kind.__name__}{'-EMA' if ema else ''}{'-tied' if tied else ''}": (
            system := kind((0.05, 0.08), 1.4, **({"ema_rate": 0.3} if ema else {"teacher_ratio": 0.8})),
            system.state(predictor=(w + w.T) / 4, correlation=None if tied else f, teacher_ratio=0.4 if ema else None),
            modes_data,
        )
        for kind in (SymmetricEigenspace, AsymmetricEigenspace)
        for ema in (False, True)
        for tied in (False, True)
    }
    chain = rng.uniform(size=(4, 4))
    return eigenspaces | {
        "Modes": (Modes((0.05, 0.08), 1.4, teacher_ratio=0.8), ModeState(p, s), modes_data),
        "Modes-EMA": (Modes(0.05, 1.4, ema_rate=0.3), ModeState(p, s, 0.5 * s), modes_data),
        "Parabola": (Parabola(0.05), ParabolaState(s), modes_data),
        "Parabola-EMA": (Parabola(0.05, ema_rate=0.3), ParabolaState(s, 0.5 * s), modes_data),
        "ScalarNetwork": (ScalarNetwork(0.02, 1.4, ema_rate=0.6), ScalarState(p, s, 0.5 * s), modes_data),
        "TiedScalar": (TiedScalar(0.02), PairState(s, p), modes_data),
        "PredictorFreeScalar": (PredictorFreeScalar(0.02), PairState(s, p), modes_data),
        "PredictorFree": (PredictorFree(0.02, 0.4), PairState(jnp.asarray(w), jnp.asarray(g)), moments(3)),
        "PredictorFree-SG": (PredictorFree(0.02), PairState(jnp.asarray(w), jnp.asarray(w)), moments(3)),
        **{f"EigenvalueFlow-{v}": (EigenvalueFlow(0.7, v), s, modes_data) for v in VARIANTS},
        **{f"DeepLinear-{v}": (DeepLinear(2, v), s, DeepLinearData(0.8, 0.5)) for v in ("jepa", "mae")},
        "SelfPredictive": (
            SelfPredictive(), jnp.asarray(rng.normal(size=(4, 2))), jnp.asarray(chain / chain.sum(1, keepdims=True))
        ),
    }  # fmt: skip


def moments(m, seed=0):
    return jd.Moments.random(jax.random.key(seed), m)
