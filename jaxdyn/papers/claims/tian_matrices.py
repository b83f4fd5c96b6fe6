"""Claims of Tian, Chen & Ganguli 2021 about the reduced matrix systems: their fixed points, modes, and EMA's ratio."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...analysis.linearise import jacobian
from ...moments import Moments
from ...solve.flow import flow
from ...systems.eigenspace import AsymmetricEigenspace, EigenspaceState, SymmetricEigenspace
from ...systems.modes import ModeData, Modes, ModeState, ScalarNetwork, ScalarState
from ...systems.siamese import MovingAverage
from .base import Evidence, Row, claim, clause, limit, share, shown, worst
from .tian_theorems import normal


@claim(
    "T-59",
    source="T eqs 57-59, Figure 8",
    statement="For η > 0 the fixed point of W_p at given F is symmetric; for η = 0 and singular F there are infinitely "
    "many, some of them not symmetric; along the flow the antisymmetric part of W_p vanishes.",
)
def symmetric_fixed_point(fast: bool) -> Evidence:
    draws, n = (50 if fast else 500), 3

    def one(key: Any) -> tuple[Any, ...]:
        u = jax.random.uniform(key, (4,), jnp.float64)
        root, other, start = normal(key, (n, n - 1), (n, n), (n, n))
        data, tau, ratio, eta = ModeData.isotropic(u[0]), 0.2 + 0.8 * u[1], 0.3 + 2 * u[2], 0.01 + 0.3 * u[3]
        f = root @ root.T  # singular
        rate = lambda w_p, decay: AsymmetricEigenspace(decay, ratio, teacher_ratio=tau).field(  # noqa: E731
            0.0, EigenspaceState(w_p, f), data).predictor  # fmt: skip
        zero, size = jnp.zeros((n, n)), jnp.linalg.norm(f)
        # Ẇ_p is affine in W_p: its operator's singular values say how many fixed points there are.
        sizes = [jnp.linalg.svd(jax.jacfwd(lambda w, e=each: rate(w, e).ravel())(zero).reshape(n * n, -1),
                                compute_uv=False) for each in (eta, 0.0)]  # fmt: skip
        values, vectors = jnp.linalg.eigh(f)
        stated = (vectors * (tau * values / (data.total * values + eta / ratio))) @ vectors.T
        # At η = 0: the pseudo-inverse's solution, and what F's kernel adds to it.
        free = (vectors * jnp.where(values > 1e-9 * size, tau / data.total, 0)) @ vectors.T
        free = free + other @ (jnp.eye(n) - vectors[:, 1:] @ vectors[:, 1:].T)
        end = flow(AsymmetricEigenspace(0.05, ratio, teacher_ratio=tau),
                   EigenspaceState(0.5 * start, 0.25 * other @ other.T), data, t1=400.0).final.predictor  # fmt: skip
        skew = lambda w: jnp.linalg.norm(w - w.T)  # noqa: E731
        return (jnp.linalg.norm(rate(stated, eta)) / size, sizes[0][-1] / sizes[0][0],
                jnp.sum(sizes[1] < 1e-9 * sizes[1][0]), jnp.linalg.norm(rate(free, 0.0)) / size, skew(free),
                skew(end) / skew(0.5 * start))  # fmt: skip

    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(59), draws)
        at, unique, nullity, many, uneven, left = map(np.asarray, jax.jit(lambda k: jax.lax.map(one, k))(keys))
    return Evidence(
        "random singular F of rank 2 at n = 3, σ, τ, α_p, η: the field at τUΛ(Λ′)⁻¹Uᵀ, the singular values of the "
        "affine map W_p ↦ Ẇ_p, and flows to t = 400 from random W_p and F with η = 0.05",
        (
            clause(
                "η > 0: W_p = τUΛ(Λ′)⁻¹Uᵀ, which is symmetric, is the only one",
                limit("largest field there (relative)", worst([at]), below=1e-12),
                limit("smallest singular value of the map (relative)", unique.min(), above=1e-6),
            ),
            clause(
                "η = 0: there are infinitely many, and most are not symmetric",
                limit("dimensions of the set", sorted(set(nullity.tolist())), equals=[n]),
                limit("largest field at another (relative)", worst([many]), below=1e-12),
                limit("its smallest antisymmetric part", uneven.min(), above=1e-3),
            ),
            clause(
                "along the flow the antisymmetric part vanishes",
                limit("largest left at t = 400, of its start", worst([left]), below=1e-3),
            ),
        ),
        (shown("draws", draws),),
    )


@claim(
    "T-74",
    source="T eqs 11-12, 70-74",
    statement="When W_p and F share their eigenvectors these do not move, and the system falls apart into modes.",
)
def decoupled(fast: bool) -> Evidence:
    draws, n = (30 if fast else 300), 4

    def one(key: Any) -> tuple[Any, Any, Any]:
        u = jax.random.uniform(key, (4 + 2 * n,), jnp.float64)
        frame = jnp.linalg.qr(normal(key, (n, n))[0])[0]
        data, p, s = ModeData.isotropic(u[0]), u[4 : 4 + n] - 0.2, u[4 + n :] ** 2
        s = s.at[1].set(s[0])  # a double eigenvalue of F, whose modes differ in W_p
        decay, ratio, tau = 0.1 * u[1], 0.3 + 2 * u[2], 0.3 + 0.7 * u[3]
        system = SymmetricEigenspace(decay, ratio, teacher_ratio=tau)
        start = EigenspaceState((frame * p) @ frame.T, (frame * s) @ frame.T)
        end = flow(system, start, data, t1=8.0, rtol=1e-10, atol=1e-12).final
        modes = Modes(decay, ratio, teacher_ratio=tau)
        alone = jax.vmap(lambda a, b: flow(modes, ModeState(a, b), data, t1=8.0, rtol=1e-10, atol=1e-12).final)(p, s)
        seen = [frame.T @ part @ frame for part in (end.predictor, end.correlation)]
        off = jnp.stack([jnp.abs(part - jnp.diag(jnp.diag(part))).max() for part in seen]).max()
        gap = jnp.stack([jnp.abs(jnp.diag(seen[0]) - alone.predictor), jnp.abs(jnp.diag(seen[1]) - alone.correlation)])
        return off, gap.max(), jnp.abs(alone.predictor - p).max()

    with jax.enable_x64(True):
        off, gap, moved = map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(74), draws)))
    return Evidence(
        "symmetrised flows to t = 8 from a random common eigenbasis (n = 4, a double eigenvalue among those of F), "
        "random σ, η, α_p, τ, in that basis, against four flows of one mode",
        (
            clause("the eigenvectors do not move", limit("largest entry off the diagonal", worst([off]), below=1e-10)),
            clause(
                "each mode obeys eqs 11-12 by itself",
                limit("largest difference from one mode's flow", worst([gap]), below=1e-7),
                limit("smallest movement of the fastest mode (control)", moved.min(), above=1e-3),
            ),
        ),
        (shown("draws", draws),),
    )


@claim(
    "T-40",
    source="T eqs 39-40",
    statement="The two-sided loss moves W_p by −½W_p(F₁ + F₂) + ½(F₂ₐ,₁ + F₁ₐ,₂), which is the one-sided rule for "
    "exchangeable views.",
)
def two_sided(fast: bool) -> Evidence:
    draws, samples, n, m = (20 if fast else 200), 60, 3, 4
    system = MovingAverage(0.0, ema_rate=0.1)  # its field is the one-sided rule

    def one(key: Any) -> tuple[Any, Any, Any]:
        x1, x2, w, w_p, w_a = normal(key, (samples, m), (samples, m), (n, m), (n, n), (n, m))
        x2 = x2 * jnp.linspace(0.5, 2.0, m) + 0.5 * x1[:, ::-1]  # of another law than x1

        def rules(first: Any, second: Any) -> tuple[Any, Any, Any]:
            f1, f2, a1, a2 = first @ w.T, second @ w.T, first @ w_a.T, second @ w_a.T
            half = lambda p, f, a: jnp.sum((f @ p.T - a) ** 2, 1).mean()  # noqa: E731
            loss = lambda p: (half(p, f1, a2) + half(p, f2, a1)) / 4  # noqa: E731
            count = first.shape[0]
            f = (f1.T @ f1 + f2.T @ f2) / count
            cross = (a2.T @ f1 + a1.T @ f2) / count
            data = Moments(first.T @ first / count, second.T @ first / count)
            alone = system.field(0.0, system.state(encoder=w, predictor=w_p, teacher=w_a), data).predictor
            return -jax.grad(loss)(w_p), (-w_p @ f + cross) / 2, alone

        relative = lambda a, b: jnp.linalg.norm(a - b) / jnp.linalg.norm(b)  # noqa: E731
        gradient, stated, alone = rules(x1, x2)
        _, swapped, same = rules(jnp.concatenate([x1, x2]), jnp.concatenate([x2, x1]))
        return relative(gradient, stated), relative(swapped, same), relative(stated, alone)

    with jax.enable_x64(True):
        rule, same, other = map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(40), draws)))
    return Evidence(
        "the gradient of the empirical loss (60 random pairs, views of different laws) by automatic differentiation; "
        "the one-sided rule on pairs taken both ways, and on pairs as they are",
        (
            clause("the rule is the gradient", limit("largest relative error", worst([rule]), below=1e-12)),
            clause("it is the one-sided rule for exchangeable views", limit("largest relative error", worst([same]),
                                                                            below=1e-12)),
            clause("for others it is not (control)", limit("smallest relative difference", other.min(), above=1e-3)),
        ),
        (shown("draws", draws),),
    )  # fmt: skip


@claim(
    "T-101",
    source="T App. D.4, eq 101, Figure 10",
    statement="With w_a held and α_p = 1, w and w_p descend E = ½λ_s(w_aλ_d/λ_s − w_p w)², whose origin is a saddle; "
    "with a slow teacher they hug the moving hyperbola w_p w = w_aλ_d/λ_s; w = w_p is invariant, its nonzero "
    "fixed point stable; the larger λ_d/λ_s, the larger the final weights tend to be.",
)
def hyperbola(fast: bool) -> Evidence:
    draws = 50 if fast else 500
    ratios, betas = (0.3, 0.5, 0.7, 0.9), (0.1, 0.01, 0.001)

    def one(key: Any) -> tuple[Any, ...]:
        u = jax.random.uniform(key, (6,), jnp.float64)
        data, start = ModeData(1.0 + u[0], 0.2 + u[1]), ScalarState(0.1 + u[2], 0.1 + u[3], 0.2 + u[4])
        held = ScalarNetwork(0.0, 1.0, ema_rate=0.0)

        def energy(w_p: Any, w: Any):
            return data.total / 2 * (start.teacher * data.shared / data.total - w_p * w) ** 2

        rate = held.field(0.0, start, data)
        down = jax.grad(energy, (0, 1))(start.predictor, start.encoder)
        descent = jnp.maximum(jnp.abs(rate.predictor + down[0]), jnp.abs(rate.encoder + down[1]))
        at_zero = jacobian(held, ScalarState(jnp.zeros(()), jnp.zeros(()), start.teacher), data)[:2, :2]
        # The two eigenvalues of a symmetric matrix with zero diagonal are ± its other entry.
        saddle = jnp.stack([jnp.abs(jnp.diag(at_zero)).max(), at_zero[0, 1]])
        taught, level = ScalarNetwork(0.0, 1.0, ema_rate=0.5), data.shared / data.total
        tied = taught.field(0.0, ScalarState(start.encoder, start.encoder, start.teacher), data)
        rest = jacobian(taught, ScalarState(level, level, level), data)
        growth = jnp.linalg.eigvals(_on_tied(rest)).real.max()
        return descent, saddle[0], saddle[1], jnp.abs(tied.predictor - tied.encoder), growth

    def hugging(key: Any, beta: Any):
        u = jax.random.uniform(key, (6,), jnp.float64)
        data, start = ModeData(1.0 + u[0], 0.2 + u[1]), ScalarState(0.5 + u[2], 0.5 + u[3], 0.5 + u[4])
        path = flow(ScalarNetwork(0.0, 1.0, ema_rate=beta), start, data, t1=60.0, ts=jnp.linspace(40.0, 60.0, 21),
                    rtol=1e-9, atol=1e-11).states  # fmt: skip
        return jnp.abs(path.predictor * path.encoder - path.teacher * data.shared / data.total).max()

    def ends(key: Any, ratio: Any):
        u = jax.random.uniform(key, (6,), jnp.float64)
        data, start = ModeData(1.0 + u[0], ratio * (1.0 + u[0])), ScalarState(0.1 + u[2], 0.1 + u[3], 0.2 + u[4])
        final = flow(ScalarNetwork(0.0, 1.0, ema_rate=0.1), start, data, t1=400.0).final
        return final.predictor, final.encoder

    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(101), draws)
        over = lambda f, values: np.asarray(jax.jit(jax.vmap(jax.vmap(f, (None, 0)), (0, None)))(  # noqa: E731
            keys, np.array(values)))  # fmt: skip
        descent, diagonal, coupling, tied, growth = map(np.asarray, jax.jit(lambda k: jax.lax.map(one, k))(keys))
        gaps = over(hugging, betas)
        predictors, encoders = (over(lambda key, ratio, i=i: ends(key, ratio)[i], ratios) for i in (0, 1))
    grow = (np.diff(encoders, axis=1) > 0).all(1) & (np.diff(predictors, axis=1) > 0).all(1)
    larger = share("starts whose w and w_p grow with every step of it", grow)
    assert larger.interval is not None
    return Evidence(
        "random λ_s, λ_d and starts: the field against the energy's gradient; Jacobians at the origin and at the tied "
        "fixed point; flows with β = 0.1, 0.01, 0.001 between t = 40 and 60; ends of flows from the same starts "
        "at four ratios λ_d/λ_s",
        (
            clause("w and w_p descend E", limit("largest difference from −∇E", worst([descent]), below=1e-12)),
            clause("its origin is a saddle", limit("largest diagonal of the Jacobian", worst([diagonal]), below=1e-12),
                   limit("smallest coupling, ± which are the eigenvalues", coupling.min(), above=1e-3)),
            clause("with a slow teacher they hug the hyperbola",
                   *(limit("median distance, over β", np.median(gaps[:, i]) / beta, below=1.0, at={"β": beta})
                     for i, beta in enumerate(betas))),
            clause("w = w_p is invariant", limit("largest difference of the rates", worst([tied]), below=1e-12)),
            clause("its nonzero fixed point is stable", limit("largest growth rate on w = w_p", growth.max(), below=0)),
            clause("the larger λ_d/λ_s, the larger the final weights",
                   larger, limit("at least, % (more often than not)", larger.interval[0], above=50)),
        ),
        (shown("draws", draws),),
    )  # fmt: skip


def _on_tied(jac: Any) -> Any:
    """The Jacobian in (w_p, w, w_a) on the plane w_p = w, in the coordinates (w, w_a)."""
    return jnp.array([[jac[1, 0] + jac[1, 1], jac[1, 2]], [jac[2, 0] + jac[2, 1], jac[2, 2]]])


@claim(
    "T-Fig7",
    source="T Assumption 1, Figure 7",
    statement="The assumption W_a = τW is largely correct: from W_a(0) = 0 the normalised correlation of W_a and W "
    "stays high, about 0.9 even for γ_a close to 1 and large η.",
)
def proportional_teacher(fast: bool) -> Evidence:
    starts, n, m, lr = (20 if fast else 200), 4, 4, 0.1
    times = np.concatenate([[0.0], np.geomspace(0.5, 100.0, 60)])

    def one(key: Any, beta: Any, eta: Any) -> Any:
        w, w_p = normal(key, (n, m), (n, n))
        moments = Moments.isotropic(m, 0.03**2)
        system = MovingAverage(eta, ema_rate=beta)
        state = system.state(encoder=0.3 * w, predictor=0.3 * w_p, teacher=jnp.zeros((n, m)))
        path = flow(system, state, moments, t1=100.0, ts=times, rtol=1e-8, atol=1e-12).states
        inner = jnp.sum(path.teacher * path.encoder, (1, 2))[1:]
        sizes = jnp.linalg.norm(path.teacher, axis=(1, 2)) * jnp.linalg.norm(path.encoder, axis=(1, 2))
        return (inner / sizes[1:]).min()

    rows: list[Row] = []
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(7), starts)
        run = jax.jit(jax.vmap(one, (0, None, None)))
        for decay in (0.9, 0.99, 0.996):
            for eta in (0.0, 0.01, 0.1):
                lowest = np.asarray(run(keys, (1 - decay) / lr, eta))
                at = {"γ_a": decay, "η": eta}
                rows.append(limit("median over starts of the lowest correlation", np.median(lowest), above=0.85, at=at))
                rows.append(share("starts whose lowest is below 0.8", lowest < 0.8, γ_a=decay, η=eta))
    return Evidence(
        "EMA flows to t = 100 on isotropic data (σ = 0.03, n = m = 4) from random W, W_p and W_a(0) = 0; "
        "β = (1 − γ_a)/0.1; the lowest of 60 times. What is said to be about 0.9 is asked to be above 0.85",
        (clause("the normalised correlation of W_a and W stays high", *rows),),
        (shown("starts", starts),),
    )
