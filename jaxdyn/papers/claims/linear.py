"""Claims about the linear systems' flows and equilibria: balance, collapse of the objective, the spheres."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...analysis.invariants import balance, encoder_decay_rate
from ...analysis.linearise import Verdict, linearise
from ...moments import Moments
from ...solve.flow import flow
from ...systems.siamese import MovingAverage, Objective, StopGradient
from ...systems.spheres import ScalarData, radii, sphere_state
from ...trials.run import run_trials
from ...trials.scalar import Outcome, draw_scalars
from ...trials.scalar_laws import ScalarLaws
from ...trials.starts import Starts
from .base import Clause, Evidence, Row, claim, clause, limit, shown, worst

SHAPES = ((2, 1), (4, 3), (2, 3))  # (n, m): wide and narrow embeddings


def _shapes(fast: bool) -> tuple[tuple[int, int], ...]:
    """All, or in fast runs a wide and a narrow one: each is compiled by itself."""
    return SHAPES[-2:] if fast else SHAPES


@claim(
    "P-balance",
    source="P §4, lemma BᵀB = AAᵀ; T Thm 1",
    statement="Along SG and EMA flows AAᵀ − BᵀB/α_p = e^(−2λt) K with constant K, whatever the teacher does.",
)
def balance_law(fast: bool) -> Evidence:
    draws = 16 if fast else 128
    times = np.linspace(0.0, 4.0, 9)

    def one(key: Any, system_of: Any, n: Any, m: Any) -> tuple[Any, Any]:
        keys = jax.random.split(key, 6)
        a, b, c = (jax.random.normal(k, (n, s), jnp.float64) for k, s in zip(keys[:3], (m, n, m), strict=True))
        moments = Moments.random(keys[3], m)
        decay = jax.random.uniform(keys[4], (), jnp.float64, 0.0, 0.3)
        system = system_of(decay, jnp.exp(jax.random.uniform(keys[5], (), jnp.float64, -1.5, 1.5)))
        parts = {"teacher": c} if isinstance(system, MovingAverage) else {}
        state = system.state(encoder=a, predictor=b, **parts)
        k0, rate = jax.jvp(lambda s: balance(system, s), (state,), (system.field(0.0, state, moments),))
        identity = jnp.linalg.norm(rate + 2 * decay * k0) / (jnp.linalg.norm(rate) + jnp.linalg.norm(k0))
        path = flow(system, state, moments, t1=4.0, ts=times, rtol=1e-10, atol=1e-12)
        k = jax.vmap(lambda s: balance(system, s))(path.states)
        want = jnp.exp(-2 * decay * path.times)[:, None, None] * k0
        return identity, jnp.linalg.norm(k - want, axis=(1, 2)).max() / jnp.linalg.norm(k0)

    systems = {
        "SG": lambda decay, ratio: StopGradient(decay, ratio),
        "EMA": lambda decay, ratio: MovingAverage(decay, ratio, ema_rate=0.5),
    }
    identities: list[Row] = []
    courses: list[Row] = []
    with jax.enable_x64(True):
        for name, system_of in systems.items():
            results = [
                jax.jit(jax.vmap(lambda key, s=system_of, n=n, m=m: one(key, s, n, m)))(
                    jax.random.split(jax.random.key(i), draws)
                )
                for i, (n, m) in enumerate(_shapes(fast))
            ]
            at = {"system": name}
            identities.append(limit("largest |K̇ + 2λK| (relative)", worst(r[0] for r in results), below=1e-12, at=at))
            courses.append(limit("largest |K(t) − e^(−2λt)K(0)| (relative)", worst(r[1] for r in results), below=1e-7,
                                 at=at))  # fmt: skip
    return Evidence(
        "random moments, weights, λ and α_p at (n, m) in "
        + ", ".join(map(str, _shapes(fast)))
        + ": the identity exactly "
        "(rounding, < 1e-12) by differentiation along the field, and along flows to t = 4 (solver error, < 1e-7); "
        "EMA's teacher starts anywhere",
        (
            clause("d/dt of K = AAᵀ − BᵀB/α_p is −2λK, for SG and EMA", *identities),
            clause("K(t) = e^(−2λt) K(0) along flows, whatever the teacher does", *courses),
        ),
        (shown("draws", draws * len(_shapes(fast)) * len(systems)),),
    )


@claim(
    "P-4.3",
    source="P Lemma 4.3; T Thm 2",
    statement="The objective's flow always collapses: ‖A(t)‖ <= e^(−λt)‖A(0)‖, and A, B tend to 0 for λ > 0.",
)
def objective_collapses(fast: bool) -> Evidence:
    draws = 16 if fast else 128
    times = np.concatenate([np.linspace(0.0, 30.0, 61), [300.0]])

    def one(key: Any, n: Any, m: Any) -> tuple[Any, Any, Any]:
        keys = jax.random.split(key, 4)
        moments = Moments.random(keys[0], m)
        decay = jax.random.uniform(keys[1], (), jnp.float64, 0.05, 0.3)
        system = Objective(decay)
        a, b = jax.random.normal(keys[2], (n, m), jnp.float64), jax.random.normal(keys[3], (n, n), jnp.float64)
        state = system.state(encoder=a, predictor=b)
        rate = jnp.sum(a * system.field(0.0, state, moments).encoder)
        bound = encoder_decay_rate(system, state, moments)
        path = flow(system, state, moments, t1=300.0, ts=times, rtol=1e-9, atol=1e-14)
        length = jnp.linalg.norm(path.states.encoder, axis=(1, 2))
        # Later, ‖A‖ is below what the solver resolves.
        ratio = jnp.where(path.times <= 30, length / (jnp.exp(-decay * path.times) * length[0]), 0)
        left = length[-1] / length[0] + jnp.linalg.norm(path.final.predictor) / jnp.linalg.norm(b)
        return jnp.abs(rate - bound) / jnp.abs(bound), ratio.max(), left

    with jax.enable_x64(True):
        results = [
            jax.jit(jax.vmap(lambda key, n=n, m=m: one(key, n, m)))(jax.random.split(jax.random.key(10 + i), draws))
            for i, (n, m) in enumerate(_shapes(fast))
        ]
        identity, ratio, left = (worst(r[j] for r in results) for j in range(3))
    return Evidence(
        "random realisable moments and weights, λ in [0.05, 0.3], flows to t = 300: the exact rate of ½‖A‖², the "
        "bound at 61 times up to t = 30 (< 1 + 1e-6 allows the solver's error), and what is "
        "left of A and B at the end (< 1e-5)",
        (
            clause(
                "‖A(t)‖ <= e^(−λt)‖A(0)‖",
                limit("largest |d/dt ½‖A‖² + E‖BAx − Ay‖² + λ‖A‖²| (relative)", identity, below=1e-10),
                limit("largest ‖A(t)‖ / (e^(−λt)‖A(0)‖)", ratio, below=1 + 1e-6),
            ),
            clause(
                "A and B tend to 0 for λ > 0",
                limit("largest (‖A‖ + ‖B‖)(300), relative to the start", left, below=1e-5),
            ),
        ),
        (shown("draws", draws * len(_shapes(fast))),),
    )


@claim(
    "P-4.11",
    source="P Prop 4.11",
    statement="m = 1: nonzero equilibria exist iff Δ = τ² − 4ρλ >= 0, on spheres of radii (|τ| ∓ √Δ)/2ρ; the outer "
    "sphere and the origin are stable, the inner sphere is a saddle.",
)
def spheres(fast: bool) -> Evidence:
    draws, n = (200, 3) if fast else (2000, 3)
    draw = draw_scalars(ScalarLaws(), Starts(n=n), 11, np.arange(draws))
    clauses: list[Clause] = []
    with jax.enable_x64(True):
        data = ScalarData(draw.rho, draw.tau, draw.weight_decay, np.ones(draws))
        inner, outer = radii(data)
        directions = jax.random.normal(jax.random.key(1), (draws, n), jnp.float64)
        for name, is_teacher in (("SG", False), ("EMA", True)):

            def judged(direction: Any, radius: Any, d: Any, is_teacher: Any = is_teacher):
                moments = Moments.scalar(d.rho, d.tau)
                a, b, c = sphere_state(direction, radius, d)
                if is_teacher:
                    system = MovingAverage(d.weight_decay, ema_rate=0.05)
                    state = system.state(encoder=a, predictor=b, teacher=c)
                else:
                    system = StopGradient(d.weight_decay)
                    state = system.state(encoder=a, predictor=b)
                result = linearise(system, state, moments)
                return result.verdict, result.orbit_dim, result.residual / (1 + radius)

            for place, radius, want in (
                ("outer sphere", outer, Verdict.STABLE),
                ("inner sphere", inner, Verdict.SADDLE),
                ("origin", jnp.zeros(draws), Verdict.STABLE),
            ):
                verdicts, orbit, residual = jax.jit(jax.vmap(judged))(directions, radius, data)
                other = int(jnp.sum(verdicts == Verdict.UNDETERMINED))
                dimension = 0 if place == "origin" else n - 1
                clauses.append(clause(
                    f"{name}: the {place} is {'a saddle' if want is Verdict.SADDLE else 'stable'}",
                    limit("draws as stated, or undetermined", int(jnp.sum(verdicts == want)) + other, equals=draws),
                    limit("… undetermined", other, below=draws // 200 + 1),
                    limit("largest field there (relative)", worst([residual]), below=1e-9),
                    limit("draws whose orbit has the sphere's dimension", int(jnp.sum(orbit == dimension)),
                          equals=draws),
                ))  # fmt: skip
    # Below Δ = 0 there must be no other place to go, above it the radius must be the outer sphere's.
    trials = run_trials(ScalarLaws(discriminant="any"), 500 if fast else 4000, seed=11)
    none = trials.where(trials["discriminant"] < 0, drop=True)["outcome"].values
    some = trials.where(trials["outcome"] == Outcome.OUTER, drop=True)
    expected = (np.abs(some["tau"]) + np.sqrt(some["discriminant"])) / (2 * some["rho"])
    deviation = float(np.abs(some["final_radius"] / expected - 1).max()) if some.sizes["trial"] else np.inf
    clauses += [
        clause(
            "without Δ >= 0 there is no equilibrium but the origin",
            limit("SG trials with Δ < 0", int(none.size), above=0),
            limit("… that did not end at the origin", int((none != Outcome.ORIGIN).sum()), equals=0),
        ),
        clause(
            "the outer sphere's radius is (|τ| + √Δ)/2ρ",
            limit("SG trials there: largest relative deviation of ‖a‖", deviation, below=1e-2),
        ),
    ]
    return Evidence(
        "random (ρ, τ, λ) of the published laws with Δ >= 0, n = 3: the field and the exact Jacobian's transversal "
        "spectrum at a random point of each sphere and at the origin (flow; at most 0.5 % may stay undetermined, "
        "near Δ = 0), and where random trials with either sign of Δ end",
        tuple(clauses),
        (shown("draws", draws),),
    )
