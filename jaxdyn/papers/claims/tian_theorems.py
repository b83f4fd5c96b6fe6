"""Claims of Tian, Chen & Ganguli 2021 about the matrix systems: lemma, theorems, data models, fixed points."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...analysis.invariants import balance
from ...moments import Moments
from ...solve.flow import flow
from ...systems.eigenspace import SymmetricEigenspace, alignment_matrix, commutator
from ...systems.modes import ModeData, ScalarNetwork, ScalarState
from ...systems.predictor_free import PredictorFree, growth_operator
from ...systems.siamese import MovingAverage, Objective
from .base import Evidence, claim, verdict_if


def _normal(key: Any, *shapes: Any):
    return [
        jax.random.normal(k, shape, jnp.float64)
        for k, shape in zip(jax.random.split(key, len(shapes)), shapes, strict=True)
    ]


def _symmetric_moments(key: Any, m: int) -> Moments:
    """Exchangeable views: X = Σᵈ + X′, Y = Σᵈ, both symmetric positive definite, not commuting."""
    signal, noise = _normal(key, (m, m), (m, m))
    shared, extra = signal @ signal.T / m, noise @ noise.T / m + 0.1 * jnp.eye(m)
    return Moments(shared + extra, shared, shared + extra)


def _in_turn(one: Any, keys: Any) -> Any:
    """Draw after draw: a batch's several eigenproblems at once could wait for each other (see `linear.after`)."""
    return jax.jit(lambda keys: jax.lax.map(one, keys))(keys)


@claim(
    "T-Lemma1",
    source="T Lemma 1, eqs 2-3",
    statement="The average stop-gradient gradient of the BYOL loss over data and augmentations is the stated field.",
)
def lemma_1(fast: bool) -> Evidence:
    samples, n, m, draws = (20_000 if fast else 100_000), 3, 4, 4
    worst = 0.0
    numbers: dict[str, Any] = {"settings": draws, "samples each": samples}
    with jax.enable_x64(True):
        for seed in range(draws):
            keys = jax.random.split(jax.random.key(seed), 6)
            # Non-Gaussian data and augmentation: skewed base points, augmentation that depends on the point.
            base = jax.random.exponential(keys[0], (samples, m)) @ _normal(keys[1], (m, m))[0]
            views = [base + 0.5 * (1 + jnp.abs(base)) * jax.random.laplace(k, (samples, m)) for k in keys[2:4]]
            w, w_p, w_a = _normal(keys[4], (n, m), (n, n), (n, m))

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
                worst = max(worst, float(jnp.abs((gradient.mean(0) + rate) / error).max()))
    numbers["largest deviation, in standard errors"] = worst
    numbers["entries compared"] = draws * (n * m + n * n)
    return Evidence(
        verdict_if(worst < 4.5),
        "autodiff gradients of the sampled loss against the field on the conditional second moments; the largest of "
        f"{draws * (n * m + n * n)} entries within 4.5 standard errors",
        numbers,
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
        w, w_p, w_a = _normal(key, (4, 3), (4, 4), (4, 3))
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
    return Evidence(
        verdict_if(holds < 1e-10),
        "the rate of the difference along the field, against −2η times itself, over random moments, weights, teachers "
        "and α_p (rounding, < 1e-10); eq 41 is printed without 1/α_p, which does not hold",
        {"draws": draws, "eq 5: largest relative error": holds, "eq 41 as printed: median relative error": printed},
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
        w, w_p = _normal(key, (n, m), (n, n))
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
    return Evidence(
        verdict_if(stated < 1e-11 and left < 1e-6),
        "the objective's field against the Kronecker form over random exchangeable moments and weights (rounding, "
        "< 1e-11), and what is left of W after t = 200 without weight decay (< 1e-6); eq 45 of the appendix lacks "
        "the + I and does not hold",
        {
            "draws": draws,
            "eq 6: largest relative error": stated,
            "eq 45 as printed: median relative error": printed,
            "largest ‖W(200)‖/‖W(0)‖": left,
        },
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
        w, g = _normal(key_w, (n, n), (n, n))
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
    stable = lowest > 0
    numbers = {
        "draws": draws,
        "largest relative error of L̇ = −LK − KL": float(identity.max()),
        "draws with λ_min K > 0 at all times": int(stable.sum()),
        "… of these, bound with the minimum of λ_min K broken": int((by_minimum[stable] > 1e-5).sum()),
        "… of these, bound with the maximum, as printed, broken": int((by_maximum[stable] > 1e-5).sum()),
        "draws with λ_min K < 0 at some time": int((~stable).sum()),
        "… of these, ‖L‖ grew beyond its start": int((growth[~stable] > 1 + 1e-6).sum()),
        "… largest growth of ‖L‖": float(growth[~stable].max()) if (~stable).any() else 1.0,
    }
    holds = identity.max() < 1e-10 and stable.sum() >= draws // 10 and (by_minimum[stable] <= 1e-5).all()
    return Evidence(
        verdict_if(bool(holds)),
        "the identity by differentiation along the symmetrised field (rounding, < 1e-10), and the bound at 61 times of "
        "flows to t = 6 from random symmetric starts, σ, η, α_p, τ. The paper prints the maximum over t of λ_min K "
        "where its proof needs the minimum: both are counted",
        numbers,
    )


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

        g = _normal(keys[1], (n, n))[0] + 2 * jnp.eye(n)
        jac = jax.jacfwd(defect)(jnp.concatenate([w.ravel(), w_p.ravel()]))
        rank = jnp.sum(jnp.linalg.svd(jac, compute_uv=False) > 1e-9)
        turned = field_size(g @ w, g @ w_p @ jnp.linalg.inv(g))
        return field_size(w, w_p), turned, n * m + n * n - rank, field_size(w, 1.1 * w_p)

    with jax.enable_x64(True):
        on, turned, dimensions, off = map(np.asarray, _in_turn(one, jax.random.split(jax.random.key(4), draws)))
    holds = on.max() < 1e-12 and turned.max() < 1e-10 and (dimensions == n * n).all() and off.min() > 1e-4
    return Evidence(
        verdict_if(bool(holds)),
        "random noncommuting Σᵈ, Σˢ (n = 2, m = 4): EMA field at the eigenvector solutions (relative, < 1e-12) and at "
        "their images under a random invertible G (< 1e-10), the dimension of the manifold as the nullity of the "
        "constraint's Jacobian, and as a control the field with W_p scaled by 1.1 (> 1e-4)",
        {
            "draws": draws,
            "largest field on the manifold (relative)": float(on.max()),
            "largest field after G (relative)": float(turned.max()),
            "dimensions found": sorted(set(dimensions.tolist())),
            "smallest field of the control (relative)": float(off.min()),
        },
    )


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
        root, noise_root, basis = _normal(keys[0], (m, m), (m, m), (m, k))
        basis = jnp.linalg.qr(basis)[0]
        sigma, noise = root @ root.T, noise_root @ noise_root.T / 4
        u, n1, n2 = _normal(keys[1], (samples, m), (samples, m), (samples, m))
        u = u @ root.T
        additive = [u + part @ noise_root.T / 2 for part in (n1, n2)]
        g1, g2 = _normal(keys[2], (samples, k, k), (samples, k, k))
        keep = jnp.eye(m) - basis @ basis.T
        scramble = lambda g: u @ keep + jnp.einsum("skl,sl->sk", g, u @ basis) @ basis.T  # noqa: E731
        multiplicative = [scramble(g) for g in (g1, g2)]

        def deviation(left: Any, right: Any, want: Any):
            products = left[:, :, None] * right[:, None, :]
            return float((jnp.abs(products.mean(0) - want) / (products.std(0) / np.sqrt(samples) + 1e-12)).max())

        add, mult = Moments.additive_scrambling(sigma, noise), Moments.multiplicative_scrambling(sigma, basis)
        numbers = {
            "samples": samples,
            "additive Σˢ, largest deviation in standard errors": deviation(additive[0], additive[0], add.xx),
            "additive Σᵈ": deviation(additive[1], additive[0], add.yx),
            "multiplicative Σᵈ = PΣˣP": deviation(multiplicative[1], multiplicative[0], mult.yx),
            "multiplicative Σˢ = PΣˣP + tr(UᵀΣˣU) UUᵀ (derived)": deviation(
                multiplicative[0], multiplicative[0], mult.xx
            ),
            "multiplicative Σˢ = Σˣ (as printed)": deviation(multiplicative[0], multiplicative[0], sigma),
        }
    errors = list(numbers.values())[1:]
    return Evidence(
        verdict_if(max(errors) < 4.5),
        "sampled moments of both models against the stated ones (16 entries each, within 4.5 standard errors). The "
        "printed Σˢ = Σˣ of multiplicative scrambling is not what its definition gives; the derived form is",
        numbers,
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
        sigma_root, noise_root, rotation = _normal(key, (m, m), (m, m), (m, m))
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
        largest, neutral, unstable = map(np.asarray, _in_turn(growth, jax.random.split(jax.random.key(6), draws)))
    holds = (largest < 0).all() and (neutral == m - k).all() and unstable.max() < 1e-9
    return Evidence(
        verdict_if(bool(holds)),
        "eigenvalues of the linear predictor-free flow (EMA and stop gradient), random additive scrambling: all must "
        "decay; multiplicative scrambling of k = 2 of m = 4 eigendirections of Σˣ: exactly m − k neutral directions",
        {
            "draws": draws,
            "additive: largest growth rate": float(largest.max()),
            "multiplicative: neutral directions found": sorted(set(neutral.ravel().tolist())),
            "multiplicative: largest growth rate": float(unstable.max()),
        },
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
        frame, values, weights = _normal(key, (n, n), (2, n), (3, n))
        frame = jnp.linalg.qr(frame)[0]
        shared = jnp.abs(values[0]) + 0.1
        total = shared + jnp.abs(values[1])
        moments = Moments((frame * total) @ frame.T, (frame * shared) @ frame.T)
        w_p, w, w_a = weights
        full = MovingAverage(0.03, 1.4, ema_rate=0.6)
        start = full.state(encoder=w[:, None] * frame.T, predictor=jnp.diag(w_p), teacher=w_a[:, None] * frame.T)
        end = flow(full, start, moments, t1=5.0).final
        scalar = ScalarNetwork(0.03, 1.4, ema_rate=0.6)
        want = flow(scalar, ScalarState(w_p, w, w_a), ModeData(total, shared), t1=5.0).final
        gap = lambda a, b: jnp.abs(a - b).max()  # noqa: E731
        errors = [
            gap(end.encoder @ frame, jnp.diag(want.encoder)),
            gap(end.teacher @ frame, jnp.diag(want.teacher)),
            gap(end.predictor, jnp.diag(want.predictor)),
        ]
        return jnp.stack(errors).max(), gap(want.encoder, w)

    with jax.enable_x64(True):
        error, moved = map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(7), draws)))
    return Evidence(
        verdict_if(bool(error.max() < 1e-5 and moved.min() > 1e-3)),
        "full EMA flows to t = 5 from random decoupled starts, n = m = 3, against three scalar networks (solver error, "
        "< 1e-5), with weight decay and α_p = 1.4",
        {"draws": draws, "largest difference": float(error.max()), "smallest movement of w": float(moved.min())},
    )
