"""Claims of Tian, Chen & Ganguli 2021, appendix D: models of data, no predictor, and the scalar networks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...moments import Moments
from ...solve.flow import flow
from ...systems.modes import ModeData, ScalarNetwork, ScalarState
from ...systems.predictor_free import PredictorFree, growth_operator
from ...systems.siamese import MovingAverage
from .base import Evidence, claim, clause, finite, limit, shown
from .tian_theorems import in_turn, normal


@claim(
    "T-D2",
    source="T App. D.2",
    statement="Additive scrambling has Σˢ = Σˣ + Σⁿ, Σᵈ = Σˣ; multiplicative scrambling has Σᵈ = PΣˣP and, as printed, "
    "Σˢ = Σˣ.",
)
def data_models(fast: bool) -> Evidence:
    samples, m, k = (50_000 if fast else 400_000), 4, 2
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(5), 6)
        root, noise_root, basis = normal(keys[0], (m, m), (m, m), (m, k))
        basis = jnp.linalg.qr(basis)[0]
        sigma, noise = root @ root.T, noise_root @ noise_root.T / 4
        u, n1, n2 = normal(keys[1], (samples, m), (samples, m), (samples, m))
        u = u @ root.T
        additive = [u + part @ noise_root.T / 2 for part in (n1, n2)]
        g1, g2 = normal(keys[2], (samples, k, k), (samples, k, k))
        keep = jnp.eye(m) - basis @ basis.T
        scramble = lambda g: u @ keep + jnp.einsum("skl,sl->sk", g, u @ basis) @ basis.T  # noqa: E731
        multiplicative = [scramble(g) for g in (g1, g2)]

        def deviation(left: Any, right: Any, want: Any):
            products = left[:, :, None] * right[:, None, :]
            return float((jnp.abs(products.mean(0) - want) / (products.std(0) / np.sqrt(samples) + 1e-12)).max())

        add, mult = Moments.additive_scrambling(sigma, noise), Moments.multiplicative_scrambling(sigma, basis)
        near = lambda left, right, want: limit(  # noqa: E731
            "largest deviation of 16 entries, in standard errors", deviation(left, right, want), below=4.5
        )
        clauses = (
            clause("additive: Σˢ = Σˣ + Σⁿ", near(additive[0], additive[0], add.xx)),
            clause("additive: Σᵈ = Σˣ", near(additive[1], additive[0], add.yx)),
            clause("multiplicative: Σᵈ = PΣˣP", near(multiplicative[1], multiplicative[0], mult.yx)),
            clause(
                "multiplicative: Σˢ = Σˣ",
                near(multiplicative[0], multiplicative[0], sigma),
                instead=clause(
                    "multiplicative: Σˢ = PΣˣP + tr(UᵀΣˣU) UUᵀ (derived)",
                    near(multiplicative[0], multiplicative[0], mult.xx),
                ),
            ),
        )
    return Evidence(
        "sampled moments of both models against the stated ones: beyond 4.5 standard errors once in 9,000 times if "
        "they agree",
        clauses,
        (shown("samples", samples),),
    )


@claim(
    "T-D3",
    source="T App. D.3",
    statement="Without predictor only eigenvectors of Σᵈ(Σˢ)⁻¹ with eigenvalue 1 survive; "
    "under additive scrambling all collapse.",
)
def no_predictor(fast: bool) -> Evidence:
    draws, m, k = (50 if fast else 500), 4, 2

    def growth(key: Any):
        sigma_root, noise_root, rotation = normal(key, (m, m), (m, m), (m, m))
        sigma = sigma_root @ sigma_root.T
        additive = Moments.additive_scrambling(sigma, noise_root @ noise_root.T)
        # Commuting case: U spanned by eigenvectors of Σˣ, whose other directions are conserved exactly.
        frame = jnp.linalg.qr(rotation)[0]
        aligned = (frame * jnp.linspace(0.5, 2.0, m)) @ frame.T
        conserved = Moments.multiplicative_scrambling(aligned, frame[:, :k])
        systems = (PredictorFree(0.0, 0.5), PredictorFree(0.0))
        largest = [jnp.linalg.eigvals(growth_operator(s, additive)).real.max() for s in systems]
        neutral = [jnp.sum(jnp.abs(jnp.linalg.eigvals(growth_operator(s, conserved))) < 1e-9) for s in systems]
        unstable = [jnp.linalg.eigvals(growth_operator(s, conserved)).real.max() for s in systems]
        return jnp.stack(largest), jnp.stack(neutral), jnp.stack(unstable)

    with jax.enable_x64(True):
        largest, neutral, unstable = map(np.asarray, in_turn(growth, jax.random.split(jax.random.key(6), draws)))
    finite(largest, unstable)
    return Evidence(
        "eigenvalues of the linear predictor-free flow (EMA and stop gradient), random additive scrambling: all must "
        "decay; multiplicative scrambling of k = 2 of m = 4 eigendirections of Σˣ: exactly m − k neutral directions",
        (
            clause("additive scrambling: all collapse", limit("largest growth rate", largest.max(), below=0)),
            clause(
                "eigenvectors with eigenvalue 1 survive, no others",
                limit("neutral directions found", sorted(set(neutral.ravel().tolist())), equals=[m - k]),
                limit("largest growth rate", unstable.max(), below=1e-9),
            ),
        ),
        (shown("draws", draws),),
    )


@claim(
    "T-D4",
    source="T App. D.4, eqs 98-100",
    statement="For commuting Σˢ, Σᵈ and decoupled starts the full dynamics stays decoupled into scalar networks; the "
    "third equation's left side is ẇ_a (printed ẇ_p).",
)
def reduction(fast: bool) -> Evidence:
    draws, n = (16 if fast else 100), 3

    def one(key: Any):
        frame, values, weights = normal(key, (n, n), (2, n), (3, n))
        frame = jnp.linalg.qr(frame)[0]
        shared = jnp.abs(values[0]) + 0.1
        total = shared + jnp.abs(values[1])
        moments = Moments((frame * total) @ frame.T, (frame * shared) @ frame.T)
        w_p, w, w_a = weights
        full = MovingAverage(0.03, 1.4, ema_rate=0.6)
        start = full.state(encoder=w[:, None] * frame.T, predictor=jnp.diag(w_p), teacher=w_a[:, None] * frame.T)
        end = flow(full, start, moments, t1=5.0).final
        scalar = ScalarNetwork(0.03, 1.4, ema_rate=0.6)
        data, start = ModeData(total, shared), ScalarState(w_p, w, w_a)
        want, rate = flow(scalar, start, data, t1=5.0).final, scalar.field(0.0, start, data)
        third = scalar.ema_rate * (w - w_a)
        gap = lambda a, b: jnp.abs(a - b).max()  # noqa: E731
        errors = [
            gap(end.encoder @ frame, jnp.diag(want.encoder)),
            gap(end.teacher @ frame, jnp.diag(want.teacher)),
            gap(end.predictor, jnp.diag(want.predictor)),
        ]
        return jnp.stack(errors).max(), gap(want.encoder, w), gap(rate.predictor, third), gap(rate.teacher, third)

    with jax.enable_x64(True):
        error, moved, printed, right = map(
            np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(7), draws))
        )
    return Evidence(
        "full EMA flows to t = 5 from random decoupled starts, n = m = 3, against three scalar networks (solver error, "
        "< 1e-5), with weight decay and α_p = 1.4",
        (
            clause(
                "decoupled starts stay decoupled, and obey three scalar equations",
                limit("largest difference", error.max(), below=1e-5),
                limit("smallest movement of w (control)", moved.min(), above=1e-3),
            ),
            clause(
                "the third equation, β(w − w_a), is the rate of w_p",
                limit("median difference", np.median(printed), below=1e-12),
                instead=clause("it is the rate of w_a", limit("largest difference", right.max(), below=1e-12)),
            ),
        ),
        (shown("draws", draws),),
    )
