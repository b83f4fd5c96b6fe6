"""The objective at the places where SG and EMA come to rest (P Prop 3.1), in the linear systems."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...equilibria.census import census
from ...equilibria.equations import decay_bound
from ...moments import Moments
from ...systems.siamese import MovingAverage, StopGradient, StudentState
from .base import Evidence, Row, claim, clause, limit

_SHARE = 0.1  # of the bound ¼‖YX^{−½}‖²
_STATIONARY = 1e-9  # of a gradient's own terms: rounding
_GENERIC = 1e-3  # of a gradient's own terms, far above rounding


@claim(
    "P-3.1-linear",
    source="P Prop 3.1",
    statement="At every equilibrium but the origin of SG and EMA, B minimises E(A, ·), ∇_B E = 0, but ∇_A E ≠ 0: E is "
    "not minimised.",
)
def not_minimised(fast: bool) -> Evidence:
    stationary: list[Row] = []
    minimal: list[Row] = []
    descending: list[Row] = []
    leaving: list[Row] = []
    rng = np.random.default_rng(31)
    with jax.enable_x64(True):
        for m, count in {1: 10, 2: 20, 3: 4}.items() if fast else {1: 200, 2: 200, 3: 100}.items():
            moments = [Moments.random(key, m) for key in jax.random.split(jax.random.key(m), count)]
            decays = [_SHARE * float(decay_bound(each)) for each in moments]
            for name, systems in (
                ("SG", [StopGradient(decay) for decay in decays]),
                ("EMA", [MovingAverage(decay, ema_rate=0.1) for decay in decays]),
            ):
                rows = [_at(item.state, answer.system, answer.moments, rng) for answer in census(systems, moments)
                        for item in answer if item.rank]  # fmt: skip
                by_b, by_a, fall, rise = (np.array(column) for column in zip(*rows, strict=True))
                at = {"system": name, "m": m, "equilibria": len(rows)}
                stationary.append(limit("largest ‖∇_B E‖ (of its terms)", by_b.max(), below=_STATIONARY, at=at))
                minimal.append(limit("least rise of E(A, ·) over 20 steps in B (of E)", rise.min(), above=0, at=at))
                descending.append(limit("smallest ‖∇_A E‖ (of its terms)", by_a.min(), above=_GENERIC, at=at))
                leaving.append(limit("largest change of E by a step along −∇E (of E)", fall.max(), below=0, at=at))
    return Evidence(
        f"every equilibrium but the origin, of any rank, of random moments at λ = {_SHARE:g} of the bound: E's "
        "gradient by automatic differentiation of the energy, and E at random steps in B from each",
        (
            clause("∇_B E = 0 at equilibria", *stationary),
            clause("B minimises E(A, ·) there", *minimal),
            clause("∇_A E ≠ 0 there, generically", *descending),
            clause("so E is not minimised: gradient descent on it leads away, downwards", *leaving),
        ),
    )


def _at(state: Any, system: Any, moments: Moments, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """‖∇_B E‖ and ‖∇_A E‖ against their terms, how E changes by a step downhill, and how much it rises at least along
    steps in B; both against E."""
    student = StudentState(state.encoder, state.predictor)
    steps = rng.normal(size=(20, *state.predictor.shape)) * np.linalg.norm(state.predictor)
    gradient, energy, moved, below = _landscape(student, steps, system.weight_decay, moments)
    decay = system.weight_decay
    by_b = np.linalg.norm(gradient.predictor) / (float(decay.predictor) * np.linalg.norm(state.predictor))
    by_a = np.linalg.norm(gradient.encoder) / (float(decay.encoder) * np.linalg.norm(state.encoder))
    fall, rise = float((below - energy) / energy), float((np.asarray(moved) - energy).min() / energy)
    return float(by_b), float(by_a), fall, rise


@jax.jit
def _landscape(student: StudentState, steps: Any, decay: Any, moments: Moments) -> Any:
    system = StopGradient(decay)
    energy = lambda each: system.objective(each, moments)  # noqa: E731
    along = jax.vmap(lambda step: energy(student._replace(predictor=student.predictor + step)))
    gradient = jax.grad(energy)(student)
    length = 1e-4 * jnp.linalg.norm(student.encoder) / jnp.linalg.norm(gradient.encoder)
    below = jax.tree.map(lambda part, slope: part - length * slope, student, gradient)
    return gradient, energy(student), along(jnp.asarray(steps)), energy(below)
