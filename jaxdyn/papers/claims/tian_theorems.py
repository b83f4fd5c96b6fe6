"""Claims of Tian, Chen & Ganguli 2021 about the matrix systems: lemma, theorems, data models, fixed points."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...analysis.invariants import balance
from ...moments import Moments
from ...solve.flow import flow
from ...systems.eigenspace import SymmetricEigenspace, alignment_matrix, commutator
from ...systems.modes import ModeData
from ...systems.siamese import MovingAverage, Objective
from .base import Evidence, claim, clause, finite, limit, shown, worst


def normal(key: Any, *shapes: Any):
    """Standard normal numbers of these shapes."""
    return [
        jax.random.normal(k, shape, jnp.float64)
        for k, shape in zip(jax.random.split(key, len(shapes)), shapes, strict=True)
    ]


def _symmetric_moments(key: Any, m: int) -> Moments:
    """Exchangeable views: X = Σᵈ + X′, Y = Σᵈ, both symmetric positive definite, not commuting."""
    signal, noise = normal(key, (m, m), (m, m))
    shared, extra = signal @ signal.T / m, noise @ noise.T / m + 0.1 * jnp.eye(m)
    return Moments(shared + extra, shared, shared + extra)


def in_turn(one: Any, keys: Any) -> Any:
    """Draw after draw: a batch's several eigenproblems at once could wait for each other (see `linear.after`)."""
    return jax.jit(lambda keys: jax.lax.map(one, keys))(keys)


@claim(
    "T-Lemma1",
    source="T Lemma 1, eqs 2-3",
    statement="The average stop-gradient gradient of the BYOL loss over data and augmentations is the stated field.",
)
def lemma_1(fast: bool) -> Evidence:
    samples, n, m, draws = (20_000 if fast else 100_000), 3, 4, 4
    deviations, entries = [], draws * (n * m + n * n)
    with jax.enable_x64(True):
        for seed in range(draws):
            keys = jax.random.split(jax.random.key(seed), 6)
            # Non-Gaussian data and augmentation: skewed base points, augmentation that depends on the point.
            base = jax.random.exponential(keys[0], (samples, m)) @ normal(keys[1], (m, m))[0]
            views = [base + 0.5 * (1 + jnp.abs(base)) * jax.random.laplace(k, (samples, m)) for k in keys[2:4]]
            w, w_p, w_a = normal(keys[4], (n, m), (n, n), (n, m))

            def loss(online: Any, x: Any, y: Any, held: Any = w_a):
                return jnp.sum((online[1] @ online[0] @ x - jax.lax.stop_gradient(held @ y)) ** 2) / 2

            gradients = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))((w, w_p), *views)
            # The moments in closed form, from the same laws: E[x xᵀ] and E[y xᵀ] by the law of total variance.
            second = base.T @ base / samples
            spread = 0.25 * 2 * jnp.diag(jnp.mean((1 + jnp.abs(base)) ** 2, 0))
            system = MovingAverage(0.0, ema_rate=0.1)
            field = system.field(
                0.0, system.state(encoder=w, predictor=w_p, teacher=w_a), Moments(second + spread, second)
            )
            for gradient, rate in zip(gradients, (field.encoder, field.predictor), strict=True):
                error = gradient.std(0) / np.sqrt(samples)
                deviations.append(jnp.abs((gradient.mean(0) + rate) / error))
    return Evidence(
        "autodiff gradients of the sampled loss against the field on the conditional second moments; the largest of "
        f"{entries} entries is beyond 4.5 standard errors once in {1 / (6.8e-6 * entries):.0f} times if they agree",
        (
            clause(
                "the average gradient is the stated field",
                limit("largest deviation, in standard errors", worst(deviations), below=4.5, at={"entries": entries}),
            ),
        ),
        (shown("settings", draws), shown("samples each", samples)),
    )


@claim(
    "T-Thm1",
    source="T Thm 1, eq 5 (and eq 41 as printed in its appendix)",
    statement="W Wᵀ = W_pᵀ W_p/α_p + e^(−2ηt) C with constant C, whatever the teacher does.",
)
def theorem_1(fast: bool) -> Evidence:
    draws = 200 if fast else 2000

    def one(key: Any, ratio: Any) -> tuple[Any, Any]:
        moments = _symmetric_moments(key, 3)
        w, w_p, w_a = normal(key, (4, 3), (4, 4), (4, 3))
        system = MovingAverage(0.07, ratio, ema_rate=0.3)
        state = system.state(encoder=w, predictor=w_p, teacher=w_a)
        rate = (system.field(0.0, state, moments),)
        k, change = jax.jvp(lambda s: balance(system, s), (state,), rate)
        printed = lambda s: s.encoder @ s.encoder.T - s.predictor.T @ s.predictor  # noqa: E731
        k_printed, change_printed = jax.jvp(printed, (state,), rate)
        relative = lambda a, b: jnp.linalg.norm(a + 0.14 * b) / jnp.linalg.norm(a)  # noqa: E731
        return relative(change, k), relative(change_printed, k_printed)

    with jax.enable_x64(True):
        ratios = jnp.exp(jax.random.uniform(jax.random.key(1), (draws,), jnp.float64, -1.5, 1.5))
        holds, printed = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), draws), ratios)
        holds, printed = float(holds.max()), float(jnp.median(printed))
    right = limit("largest relative error", holds, below=1e-10)
    return Evidence(
        "the rate of the difference along the field, against −2η times itself, over random moments, weights, teachers "
        "and α_p (rounding, < 1e-10)",
        (
            clause("eq 5: d/dt of WWᵀ − W_pᵀW_p/α_p is −2η times itself, whatever the teacher does", right),
            clause(
                "eq 41 of the appendix: the same without 1/α_p",
                limit("median relative error", printed, below=1e-10),
                instead=clause("with 1/α_p, as in eq 5", right),
            ),
        ),
        (shown("draws", draws),),
    )


@claim(
    "T-Thm2",
    source="T Thm 2, eqs 6 and 45",
    statement="Without stop gradient d vec(W)/dt = −[X′ ⊗ (W_pᵀW_p + I) + X ⊗ (W_p − I)ᵀ(W_p − I)] vec(W), so W → 0.",
)
def theorem_2(fast: bool) -> Evidence:
    draws = 16 if fast else 128

    def one(key: Any) -> tuple[Any, Any, Any]:
        n, m = 3, 2
        moments = _symmetric_moments(key, m)
        w, w_p = normal(key, (n, m), (n, n))
        extra, eye = moments.xx - moments.yx, jnp.eye(n)
        tilde = w_p - eye
        vector = w.T.ravel()  # stacks columns
        stated = -(jnp.kron(extra, w_p.T @ w_p + eye) + jnp.kron(moments.yx, tilde.T @ tilde)) @ vector
        printed = -(jnp.kron(extra, w_p.T @ w_p) + jnp.kron(moments.yx, tilde.T @ tilde)) @ vector
        system = Objective(0.0)
        state = system.state(encoder=w, predictor=w_p)
        rate = system.field(0.0, state, moments).encoder.T.ravel()
        relative = lambda other: jnp.linalg.norm(rate - other) / jnp.linalg.norm(rate)  # noqa: E731
        end = flow(system, state, moments, t1=200.0, rtol=1e-7, atol=1e-12).final
        return relative(stated), relative(printed), jnp.linalg.norm(end.encoder) / jnp.linalg.norm(w)

    with jax.enable_x64(True):
        stated, printed, left = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), draws))
        stated, printed, left = float(stated.max()), float(jnp.median(printed)), float(left.max())
    right = limit("largest relative error", stated, below=1e-11)
    return Evidence(
        "the objective's field against the Kronecker form over random exchangeable moments and weights (rounding, "
        "< 1e-11), and what is left of W after t = 200 without weight decay (< 1e-6)",
        (
            clause("eq 6: d/dt vec(W) = −H(t) vec(W)", right),
            clause(
                "eq 45 of the appendix: H without the + I of W_pᵀW_p + I",
                limit("median relative error", printed, below=1e-11),
                instead=clause("with + I, as in eq 6", right),
            ),
            clause("so W → 0", limit("largest ‖W(200)‖/‖W(0)‖", left, below=1e-6)),
        ),
        (shown("draws", draws),),
    )


@claim(
    "T-Thm3",
    source="T Thm 3, eqs 8-10",
    statement="L = [F, W_p] obeys L̇ = −LK − KL, and ‖L(t)‖ <= e^(−2λ₀t)‖L(0)‖ with λ₀ the smallest λ_min K(t) > 0.",
)
def theorem_3(fast: bool) -> Evidence:
    draws, n, t1 = (48 if fast else 400), 3, 6.0
    times = np.linspace(0.0, t1, 61)

    def one(key: Any) -> tuple[Any, Any, Any, Any, Any]:
        key_w, key_h = jax.random.split(key)
        w, g = normal(key_w, (n, n), (n, n))
        u = jax.random.uniform(key_h, (5,), jnp.float64)
        size = 0.05 + 0.95 * u[4]
        data = ModeData.isotropic(u[0])
        system = SymmetricEigenspace(0.3 * u[1] ** 2, 0.1 + 3 * u[2] ** 2, teacher_ratio=0.2 + 0.8 * u[3])
        state = system.state(predictor=size * (w @ w.T / n + (w + w.T) / 4), correlation=size**2 * g @ g.T / n)
        bracket = lambda s: commutator(s.correlation, s.predictor)  # noqa: E731
        start, rate = jax.jvp(bracket, (state,), (system.field(0.0, state, data),))
        k = alignment_matrix(system, state, data)
        identity = jnp.linalg.norm(rate + start @ k + k @ start) / jnp.linalg.norm(rate)
        path = flow(system, state, data, t1=t1, ts=times, rtol=1e-9, atol=1e-13).states
        lowest = jax.vmap(lambda s: jnp.linalg.eigvalsh(alignment_matrix(system, s, data))[0])(path)
        size_of = jax.vmap(lambda s: jnp.linalg.norm(bracket(s)))(path)
        excess = lambda rate0: (jnp.log(size_of / size_of[0]) + 2 * rate0 * times).max()  # noqa: E731
        return identity, lowest.min(), excess(lowest.min()), excess(lowest.max()), (size_of / size_of[0]).max()

    with jax.enable_x64(True):
        identity, lowest, by_minimum, by_maximum, growth = map(
            np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(3), draws))
        )
    finite(identity, lowest, by_minimum, by_maximum, growth)
    stable = lowest > 0
    tested = limit("draws it is tested on", int(stable.sum()), above=draws // 10 - 1)
    broken = lambda excess: int((~(excess[stable] <= 1e-5)).sum())  # noqa: E731
    at = {"draws with λ_min K > 0 at all times": int(stable.sum())}
    return Evidence(
        "the identity by differentiation along the symmetrised field (rounding, < 1e-10), and the bound at 61 times of "
        "flows to t = 6 from random symmetric starts, σ, η, α_p, τ. The paper prints the maximum over t of λ_min K "
        "where its proof needs the minimum",
        (
            clause("L̇ = −LK − KL", limit("largest relative error", identity.max(), below=1e-10)),
            clause(
                "‖L(t)‖ <= e^(−2λ₀t)‖L(0)‖ with λ₀ = max over t of λ_min K(t)",
                limit("draws whose bound is broken", broken(by_maximum), equals=0, at=at),
                tested,
                instead=clause(
                    "with λ₀ = min over t of λ_min K(t)",
                    limit("draws whose bound is broken", broken(by_minimum), equals=0, at=at),
                    tested,
                ),
            ),
        ),
        (
            shown("draws with λ_min K < 0 at some time, of which ‖L‖ grew beyond its start",
                  [int((~stable).sum()), int((growth[~stable] > 1 + 1e-6).sum())]),
            shown("… largest growth of ‖L‖", float(growth[~stable].max()) if (~stable).any() else 1.0),
        ),
    )  # fmt: skip


@claim(
    "T-97",
    source="T App. D.1, eq 97",
    statement="Without weight decay W_p W = W Σᵈ(Σˢ)⁻¹, W_a = W is a manifold of equilibria of dimension n², closed "
    "under W_p → G W_p G⁻¹, W → G W.",
)
def fixed_point_manifold(fast: bool) -> Evidence:
    draws, n, m = (20 if fast else 200), 2, 4
    system = MovingAverage(0.0, 1.3, ema_rate=0.4)

    def one(key: Any) -> tuple[Any, Any, Any, Any]:
        keys = jax.random.split(key, 2)
        moments = _symmetric_moments(keys[0], m)
        # Left eigenvectors of Σᵈ(Σˢ)⁻¹, by its symmetric relative (Σˢ)^(−½) Σᵈ (Σˢ)^(−½).
        sizes, frame = jnp.linalg.eigh(moments.xx)
        half = (frame / jnp.sqrt(sizes)) @ frame.T
        values, vectors = jnp.linalg.eigh(half @ moments.yx @ half)
        w, w_p = vectors[:, -n:].T @ half, jnp.diag(values[-n:])
        pull = moments.yx @ jnp.linalg.inv(moments.xx)

        def field_size(a: Any, b: Any) -> jax.Array:
            rate = system.field(0.0, system.state(encoder=a, predictor=b), moments)
            size = jnp.stack([jnp.abs(part).max() for part in rate]).max()
            return size / (jnp.linalg.norm(b) ** 2 * jnp.linalg.norm(a) * jnp.linalg.norm(moments.xx))

        def defect(flat: Any) -> jax.Array:
            a, b = flat[: n * m].reshape(n, m), flat[n * m :].reshape(n, n)
            return (b @ a - a @ pull).ravel()

        g = normal(keys[1], (n, n))[0] + 2 * jnp.eye(n)
        jac = jax.jacfwd(defect)(jnp.concatenate([w.ravel(), w_p.ravel()]))
        rank = jnp.sum(jnp.linalg.svd(jac, compute_uv=False) > 1e-9)
        turned = field_size(g @ w, g @ w_p @ jnp.linalg.inv(g))
        return field_size(w, w_p), turned, n * m + n * n - rank, field_size(w, 1.1 * w_p)

    with jax.enable_x64(True):
        on, turned, dimensions, off = map(np.asarray, in_turn(one, jax.random.split(jax.random.key(4), draws)))
    finite(on, turned, off)
    return Evidence(
        "random noncommuting Σᵈ, Σˢ (n = 2, m = 4): EMA field at the eigenvector solutions (relative, < 1e-12) and at "
        "their images under a random invertible G (< 1e-10), the dimension of the manifold as the nullity of the "
        "constraint's Jacobian, and as a control the field with W_p scaled by 1.1 (> 1e-4)",
        (
            clause("these are equilibria", limit("largest field (relative)", on.max(), below=1e-12)),
            clause("their manifold has dimension n²", limit("dimensions found", sorted(set(dimensions.tolist())),
                                                            equals=[n * n])),
            clause("it is closed under G", limit("largest field after G (relative)", turned.max(), below=1e-10)),
            clause("other points are none (control)",
                   limit("smallest field with W_p scaled by 1.1 (relative)", off.min(), above=1e-4)),
        ),
        (shown("draws", draws),),
    )  # fmt: skip
