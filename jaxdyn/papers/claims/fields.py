"""Whether the update fields are gradients of a function (P Prop 3.2)."""

from typing import Any

import jax
import numpy as np

from ...analysis import integrability
from ...data import digits
from ...data.base import to_device
from ...moments import Moments
from ...networks.field import network_defect
from ...networks.recipe import stacked
from ...networks.training import advance, draw, program_of, start
from ...systems.siamese import MovingAverage, Objective, Siamese, StopGradient
from ..tables.ablations import KNOBS, STAGE
from .base import Clause, Evidence, Row, claim, clause, limit, shown
from .judging import Question, answered


@claim(
    "P-3.2",
    source="P Prop 3.2",
    statement="The fields of SG and EMA are not gradients of any smooth function, generically; the objective's is.",
)
def not_gradients(fast: bool) -> Evidence:
    draws = 20 if fast else 200
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(32), draws)

        def at(system: Siamese, key: Any, probes: int | None = None) -> Any:
            data, a, b, probe = jax.random.split(key, 4)
            state = system.state(encoder=jax.random.normal(a, (3, 2)), predictor=jax.random.normal(b, (3, 3)))
            moments, drawn = Moments.random(data, 2), None if probes is None else probe
            return integrability.gradient_defect(system, state, moments, probes=probes, key=drawn)

        systems = {"SG": StopGradient(0.05), "EMA": MovingAverage(0.05, ema_rate=0.1), "objective": Objective(0.05)}
        defects = {name: np.asarray(jax.jit(jax.vmap(lambda key, s=system: at(s, key).value))(keys))
                   for name, system in systems.items()}  # fmt: skip
        estimate = jax.jit(jax.vmap(lambda key: at(systems["SG"], key, 1000)))(keys)
        deviations = np.abs(np.asarray(estimate.value) - defects["SG"]) / np.asarray(estimate.standard_error)
    smallest = lambda name: limit("smallest ‖J − Jᵀ‖/‖J‖", defects[name].min(), above=1e-3)  # noqa: E731
    return Evidence(
        f"exact Jacobians at {draws} random states and moments, n = 3, m = 2; the estimate by random probes beside it",
        (
            clause("the field of SG is no gradient, generically", smallest("SG")),
            clause("the field of EMA is no gradient, generically", smallest("EMA")),
            clause(
                "the objective's is (control)",
                limit("largest ‖J − Jᵀ‖/‖J‖", defects["objective"].max(), below=1e-12),
            ),
            clause(
                "the defect is measured rightly (control)",
                limit("SG: 1,000 probes and the exact value, largest in standard errors", deviations.max(), below=6),
            ),
        ),
        tuple(shown("largest ‖J − Jᵀ‖/‖J‖", values.max(), system=name) for name, values in defects.items()),
    )


def _null_fields(rng: np.random.Generator) -> tuple[Clause, ...]:
    drawn = lambda level: level * np.exp(0.3 * rng.normal(size=5) - 0.045)  # noqa: E731
    return answered(_field_questions({"sg": drawn(0.1), "ema": drawn(0.1), "objective": drawn(1e-3)}))


@claim("P-3.2-networks", source="P Prop 3.2", statement="The update fields of SG and EMA are not gradients of any "
       "function (an MLP on digits); the objective's is.", null=_null_fields)  # fmt: skip
def networks_not_gradients(fast: bool) -> Evidence:
    seeds, steps, probes = (2, 20, 24) if fast else (5, 300, 64)
    dataset = digits()
    train = to_device(dataset.train)
    knobs = stacked([KNOBS.checked(STAGE)])
    recipe = STAGE.with_(steps=steps, batch=32, encoder="mlp", width=64, depth=1)
    program = program_of(recipe, dataset.shape)
    keys = jax.vmap(jax.random.key)(jax.numpy.arange(seeds))
    states, _ = advance(program, start(program, knobs, keys, train), knobs, keys, train, steps)
    knob = jax.tree.map(lambda leaf: leaf[0], knobs)
    defects: dict[str, np.ndarray] = {}
    rows: list[Row] = []
    # All three fields at the same weights, those that EMA has reached.
    for method in ("sg", "ema", "objective"):
        other = program._replace(recipe=recipe.with_(system=method))

        def one(pair: Any, other: Any = other):
            state, key = pair
            batch = draw(other, train, jax.random.fold_in(key, 2**31 - 3), 32)
            return network_defect(other, state, knob, batch, probes=probes, key=key)

        single = jax.tree.map(lambda leaf: leaf[:, 0], states)
        defect = jax.jit(lambda pairs, one=one: jax.lax.map(one, pairs))((single, keys))
        defects[method] = np.asarray(defect.value)
        for name, value in zip(("‖J − Jᵀ‖/‖J‖", "… its standard error", "‖J‖"), defect, strict=True):
            rows.append(shown(name, np.asarray(value), of=method))
    return Evidence(
        f"digits, {steps} steps of EMA, {seeds} seeds; the three fields at the weights it has reached, by {probes} "
        "random probes: paired differences with Student's t, corrected by Holm",
        answered(_field_questions(defects)),
        tuple(rows),
    )


def _field_questions(defects: dict[str, np.ndarray]) -> list[Question]:
    """A hundred times what rounding in single precision leaves of the objective's symmetric Jacobian is far."""
    far = [Question(f"{name.upper()}: far from a gradient", defects[name], 100 * defects["objective"], unit="share")
           for name in ("sg", "ema")]  # fmt: skip
    limit_of = np.full(defects["objective"].size, 1e-3)
    return [*far, Question("the objective's is one up to rounding (control)", limit_of, defects["objective"],
                           unit="share")]  # fmt: skip
