"""Whether the update fields are gradients of a function (P Prop 3.2)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

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

_RATIOS = (0.5, 1.0, 2.0, 5.0)  # α_p
_SYSTEMS: dict[str, Callable[[Any], Siamese]] = {
    "SG": lambda ratio: StopGradient(0.05, ratio),
    "EMA": lambda ratio: MovingAverage(0.05, ratio, ema_rate=0.1),
    "objective": lambda ratio: Objective(0.05, ratio),
}


@claim(
    "P-3.2",
    source="P Prop 3.2",
    statement="The fields of SG and EMA are not gradients of any smooth function, generically; the objective's is.",
)
def not_gradients(fast: bool) -> Evidence:
    draws = 20 if fast else 200
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(32), draws)
        plain, best, turned = ({name: _over_draws(measure, name, keys) for name in _SYSTEMS}
                               for measure in (_defect, _best_defect, _loop_work))  # fmt: skip
        estimate = jax.jit(jax.vmap(_estimated))(keys)
        deviations = np.abs(np.asarray(estimate.value) - plain["SG"][1]) / np.asarray(estimate.standard_error)
        crossed = np.asarray(jax.jit(jax.vmap(_cross_derivatives))(keys))
        near = np.asarray(jax.jit(jax.vmap(_near_no_correlation))(keys))
    smallest = lambda name: limit("smallest ‖J − Jᵀ‖/‖J‖", plain[name][1].min(), above=1e-3)  # noqa: E731
    units = [limit("smallest over draws and α_p", best[name].min(), above=1e-3, at={"system": name})
             for name in ("SG", "EMA")]  # fmt: skip
    loops = [limit("share of loops with work above 1e-6", float(np.mean(turned[name] > 1e-6)), above=0.99,
                   at={"system": name}) for name in ("SG", "EMA")]  # fmt: skip
    return Evidence(
        f"exact Jacobians at {draws} random states and moments, n = 3, m = 2, α_p in {_RATIOS}; beside them the "
        "estimate by random probes, other units of encoder, predictor and teacher, and the work along random circles",
        (
            clause("the field of SG is no gradient, generically", smallest("SG")),
            clause("the field of EMA is no gradient, generically", smallest("EMA")),
            clause(
                "SG: ∂_B v_A and ∂_A v_B differ by the form ⟨δB, δA Y Aᵀ⟩, which is 0 for Y Aᵀ = 0 alone",
                limit("largest error of the form (relative)", crossed.max(), below=1e-12),
            ),
            clause(
                "generic in the law of the data: where SG's field is a gradient, as for Y = 0, it is none for Y = εG",
                limit("Y = 0: largest ‖J − Jᵀ‖/‖J‖", near[:, 0].max(), below=1e-14),
                limit("smallest ‖J − Jᵀ‖/‖J‖/ε, ε = 1e-6", near[:, 1].min(), above=1e-3),
                limit("largest change of it from ε = 1e-6 to 1e-5 (relative)", near[:, 2].max(), below=1e-3),
            ),
            clause("nor in any other units of encoder, predictor and teacher", *units),
            clause("the field does work along closed loops, in the units in which the objective's does none", *loops),
            clause(
                "the objective's is a gradient, in the units of its learning rates (control)",
                limit("largest ‖J − Jᵀ‖/‖J‖, α_p = 1", plain["objective"][1].max(), below=1e-12),
                limit("… α_p = 2, in the given units", plain["objective"][2].max(), above=0.1),
                limit("… in the best units, all α_p", best["objective"].max(), below=1e-12),
                limit("largest work along a loop, relative to ∮|v||dx|", turned["objective"].max(), below=1e-12),
            ),
            clause(
                "the defect is measured rightly (control)",
                limit("SG: 1,000 probes and the exact value, largest in standard errors", deviations.max(), below=6),
            ),
        ),
        tuple(shown("largest ‖J − Jᵀ‖/‖J‖, α_p = 1", values[1].max(), system=name) for name, values in plain.items()),
    )


def _over_draws(measure: Callable[..., Any], name: str, keys: Any) -> np.ndarray:
    """[α_p, draws]."""
    one = lambda ratio, key: measure(_SYSTEMS[name](ratio), key)  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(jnp.array(_RATIOS), keys))


def _drawn(system: Siamese, key: Any) -> tuple[Any, Moments]:
    data, a, b, _ = jax.random.split(key, 4)
    parts = (
        {"teacher": jax.random.normal(jax.random.fold_in(a, 1), (3, 2))} if isinstance(system, MovingAverage) else {}
    )
    state = system.state(encoder=jax.random.normal(a, (3, 2)), predictor=jax.random.normal(b, (3, 3)), **parts)
    return state, Moments.random(data, 2)


def _defect(system: Siamese, key: Any) -> Any:
    return integrability.gradient_defect(system, *_drawn(system, key)).value


def _best_defect(system: Siamese, key: Any) -> Any:
    return integrability.gradient_defect(system, *_drawn(system, key), rescaled=True).value


def _estimated(key: Any) -> Any:
    system = _SYSTEMS["SG"](_RATIOS[1])
    return integrability.gradient_defect(system, *_drawn(system, key), probes=1000, key=jax.random.split(key, 4)[3])


def _loop_work(system: Siamese, key: Any, nodes: int = 32) -> Any:
    """|∮⟨v, dx⟩|/∮|v||dx| along a random circle, ⟨ , ⟩ with 1/α_p for the predictor.

    The field is a polynomial of degree 3: along a circle the trapezoidal rule with 32 nodes is exact.
    """
    state, moments = _drawn(system, key)
    flat, unravel = ravel_pytree(state)
    u, w = jax.random.normal(jax.random.fold_in(key, 9), (2, flat.size), flat.dtype)
    units = jax.tree.map(jnp.ones_like, state)
    metric, _ = ravel_pytree(units._replace(predictor=units.predictor / system.predictor_lr_ratio))
    angles = 2 * jnp.pi * jnp.arange(nodes) / nodes
    points = flat + jnp.cos(angles)[:, None] * u + jnp.sin(angles)[:, None] * w
    tangents = -jnp.sin(angles)[:, None] * u + jnp.cos(angles)[:, None] * w
    rates = jax.vmap(lambda y: ravel_pytree(system.field(0.0, unravel(y), moments))[0])(points)
    norm = lambda x: jnp.sqrt(jnp.sum(metric * x**2, 1))  # noqa: E731
    return jnp.abs(jnp.sum(metric * rates * tangents)) / jnp.sum(norm(rates) * norm(tangents))


def _cross_derivatives(key: Any) -> Any:
    """⟨δA, ∂_B v_A δB⟩ − ⟨δB, ∂_A v_B δA⟩ + ⟨δB, δA Y Aᵀ⟩ at α_p = 1, relative to its terms."""
    system = _SYSTEMS["SG"](1.0)
    state, moments = _drawn(system, key)
    first, second = jax.random.split(jax.random.fold_in(key, 8))
    da, db = jax.random.normal(first, state.encoder.shape), jax.random.normal(second, state.predictor.shape)
    field = lambda s: system.field(0.0, s, moments)  # noqa: E731
    still_a, still_b = jnp.zeros_like(da), jnp.zeros_like(db)
    of_a = jnp.vdot(da, jax.jvp(field, (state,), (state._replace(encoder=still_a, predictor=db),))[1].encoder)
    of_b = jnp.vdot(db, jax.jvp(field, (state,), (state._replace(encoder=da, predictor=still_b),))[1].predictor)
    form = jnp.vdot(db, da @ moments.yx @ state.encoder.T)
    return jnp.abs(of_a - of_b + form) / (jnp.abs(of_a) + jnp.abs(of_b) + jnp.abs(form))


def _near_no_correlation(key: Any) -> Any:
    """SG's defect for Y = 0; for Y = εG over ε, ε = 1e-6; and how far that is from being linear in ε."""
    system = _SYSTEMS["SG"](1.0)
    state, moments = _drawn(system, key)
    away = jax.random.normal(jax.random.fold_in(key, 7), moments.yx.shape)
    at = lambda size: integrability.gradient_defect(system, state, Moments(moments.xx, size * away)).value  # noqa: E731
    small, large = at(1e-6) / 1e-6, at(1e-5) / 1e-5
    return jnp.stack([at(0.0), small, jnp.abs(large / small - 1)])


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
