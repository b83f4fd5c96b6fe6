"""Claims of Tian, Chen & Ganguli 2021 about the decoupled modes: integral, parabola, thresholds, stable alignment."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...analysis.linearise import jacobian
from ...solve.flow import flow
from ...systems.eigenspace import SymmetricEigenspace, alignment_matrix
from ...systems.modes import ModeData, Modes, ModeState, Parabola, ParabolaState, mode_integral, parabola_points
from ...systems.reductions import from_modes
from .base import Evidence, claim, clause, limit, share, shown, worst
from .settling import settled


@claim(
    "T-14",
    source="T eq 14 and the text below it",
    statement="The modes have the exact integral s = p²/α_p + c e^(−2ηt), with c = p(0)²/α_p − s(0) as printed.",
)
def exact_integral(fast: bool) -> Evidence:
    draws = 100 if fast else 1000

    def one(key: Any):
        u = jax.random.uniform(key, (7,), jnp.float64)
        system, data = Modes(0.3 * u[0], 0.3 + 3 * u[1], ema_rate=0.1 + u[2]), ModeData.isotropic(u[3])
        start = ModeState(u[4], 0.05 + u[5], u[6])
        c, rate = jax.jvp(lambda s: mode_integral(system, s), (start,), (system.field(0.0, start, data),))
        end = flow(system, start, data, t1=5.0).final
        decay = jnp.exp(-2 * system.weight_decay.encoder * 5.0)
        tie = end.predictor**2 / system.predictor_lr_ratio
        pointwise = jnp.abs(rate + 2 * system.weight_decay.encoder * c)
        return pointwise, jnp.abs(end.correlation - tie - decay * c), jnp.abs(end.correlation - tie + decay * c)

    with jax.enable_x64(True):
        pointwise, holds, printed = map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), draws)))
    label = "largest error at t = 5"
    return Evidence(
        "the integral by differentiation along the field and along flows to t = 5 from random starts, with c of either "
        "sign",
        (
            clause("s − p²/α_p shrinks as e^(−2ηt)", limit("largest |ċ + 2ηc|", pointwise.max(), below=1e-12)),
            clause(
                "its constant is c = p(0)²/α_p − s(0)",
                limit(label, printed.max(), below=1e-6),
                instead=clause("its constant is c = s(0) − p(0)²/α_p", limit(label, holds.max(), below=1e-6)),
            ),
        ),
        (shown("draws", draws), shown("c as printed: median error at t = 5", float(np.median(printed)))),
    )


@claim(
    "T-15",
    source="T eqs 15, 91",
    statement="On the parabola from τ(0) = 0: τ(t) = β e^(−βt) ∫₀ᵗ p(t′) e^(βt′) dt′ / p(t).",
)
def teacher_ratio(fast: bool) -> Evidence:
    draws, t1 = (20 if fast else 200), 8.0
    nodes, weights = np.polynomial.legendre.leggauss(48)
    times = np.concatenate([(nodes + 1) * t1 / 2, [t1]])

    def one(key: Any):
        u = jax.random.uniform(key, (4,), jnp.float64)
        beta, data = 0.05 + u[0], ModeData.isotropic(u[1])
        system, start = Parabola(0.05 * u[2], ema_rate=beta), ParabolaState(0.3 + u[3], jnp.zeros(()))
        path = flow(system, start, data, t1=t1, ts=times, rtol=1e-11, atol=1e-13).states
        integral = t1 / 2 * jnp.sum(weights * path.predictor[:-1] * jnp.exp(beta * times[:-1]))
        want = beta * jnp.exp(-beta * t1) * integral / path.predictor[-1]
        return jnp.abs(path.teacher_ratio[-1] - want), path.teacher_ratio[-1]

    with jax.enable_x64(True):
        error, tau = map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), draws)))
    return Evidence(
        "τ from its differential equation against Gauss-Legendre quadrature (48 nodes) of the formula at t = 8, random "
        "β, σ, η, p(0)",
        (clause("τ(t) is the stated integral", limit("largest error", error.max(), below=1e-8)),),
        (shown("draws", draws), shown("τ(8), smallest and largest", [float(tau.min()), float(tau.max())])),
    )


@claim(
    "T-16",
    source="T eq 16 and below",
    statement="On the parabola at fixed τ and 0 < η <= τ²/4(1+σ²): 0 and p*₊ are stable, p*₋ is unstable and bounds "
    "their basins; above that η only 0 is left.",
)
def parabola(fast: bool) -> Evidence:
    draws = 500 if fast else 5000
    with jax.enable_x64(True):
        u = np.asarray(jax.random.uniform(jax.random.key(2), (4, draws), jnp.float64))
        data = ModeData(1 + u[0] ** 2, np.ones(draws))
        tau = 0.3 + 0.7 * u[1]
        threshold = tau**2 / (4 * data.total)
        eta = (0.05 + 0.9 * u[2]) * threshold
        lower, upper = map(np.asarray, parabola_points(eta, tau, data))

        def slope(p: Any, decay: Any, ratio: Any, total: Any):
            system = Parabola(decay, teacher_ratio=ratio)
            rate = system.field(0.0, ParabolaState(p), ModeData(total))
            return jacobian(system, ParabolaState(p), ModeData(total))[0, 0], jnp.abs(rate.predictor)

        slopes = {name: jax.jit(jax.vmap(slope))(p, eta, tau, data.total) for name, p in
                  (("zero", np.zeros(draws)), ("lower", lower), ("upper", upper))}  # fmt: skip
        signs = {name: np.asarray(pair[0]) for name, pair in slopes.items()}
        residual = worst(pair[1] for pair in slopes.values())
        # The basin's edge by integration: a thousandth below and above p*₋, and anywhere else.
        starts = np.concatenate([0.999 * lower, 1.001 * lower, 1.5 * u[3]])
        three = lambda values: np.tile(values, 3)  # noqa: E731
        systems = jax.vmap(lambda e, r: Parabola(e, teacher_ratio=r))(three(eta), three(tau))
        finished = settled(
            ParabolaState(jnp.asarray(starts)), systems, ModeData(three(data.total), np.ones(3 * draws)), tolerance=1e-9
        )
        end = finished.final.predictor
        high = np.abs(end - three(upper)) < 1e-4
        low = np.abs(end) < 1e-4
        above_system = jax.vmap(lambda e, r: Parabola(e, teacher_ratio=r))(1.02 * threshold, tau)
        high_starts = ParabolaState(jnp.asarray(1.5 * u[3] + 0.5))
        both = ModeData(data.total, np.ones(draws))
        above = settled(high_starts, above_system, both, tolerance=1e-9, steps=2_000_000)
    right = np.where(starts > three(lower), high, low)
    wrong = int((~right).sum())
    collapsed = int((np.abs(above.final.predictor) < 1e-4).sum())
    slope_at = lambda name, **bound: limit("largest" if "below" in bound else "smallest", getattr(  # noqa: E731
        signs[name], "max" if "below" in bound else "min")(), at={"derivative at": name}, **bound)  # fmt: skip
    return Evidence(
        "random σ, τ, η: the field and exact derivative at the three equilibria, where starts just below, just above "
        "and away from p*₋ end, and where starts end for η 2 % above the threshold",
        (
            clause("0, p*₋ and p*₊ are equilibria", limit("largest field there", residual, below=1e-14)),
            clause("0 and p*₊ are stable", slope_at("zero", below=0.0), slope_at("upper", below=0.0)),
            clause("p*₋ is unstable", slope_at("lower", above=0.0)),
            clause("p*₋ bounds their basins", limit("starts that ended on its wrong side", wrong, equals=0,
                                                    at={"starts": int(starts.size)})),
            clause("above η = τ²/4(1+σ²) only 0 is left", limit("starts that collapsed", collapsed, equals=draws)),
        ),
        (shown("draws", draws),),
    )  # fmt: skip


@claim(
    "T-17",
    source="T eq 17",
    statement="On aligned modes K(t) is positive definite exactly where Δ_j = p(τ − (1+σ²)p) − η < ½[α_p(1+σ²)s + η].",
)
def stable_alignment(fast: bool) -> Evidence:
    draws, n = (500 if fast else 5000), 3

    def one(key: Any) -> tuple[Any, Any]:
        keys = jax.random.split(key, 2)
        u = jax.random.uniform(keys[0], (4 + 2 * n,), jnp.float64)
        data = ModeData.isotropic(u[0])
        system = SymmetricEigenspace(0.1 * u[1], 0.2 + 2 * u[2], teacher_ratio=u[3])
        p, s = 1.5 * u[4 : 4 + n] - 0.3, 0.3 * u[4 + n :] ** 2
        basis = jnp.linalg.qr(jax.random.normal(keys[1], (n, n), jnp.float64))[0]
        k = alignment_matrix(system, from_modes(ModeState(p, s), basis), data)
        eta = system.weight_decay.encoder
        delta = p * (system.teacher_ratio - data.total * p) - eta
        margin = (system.predictor_lr_ratio * data.total * s + eta) / 2 - delta
        return jnp.linalg.eigvalsh(k), jnp.sort(margin)

    with jax.enable_x64(True):
        eigenvalues, margin = map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(3), draws)))
    error = float(np.abs(eigenvalues - margin).max())
    agree = int(((eigenvalues > 0).all(1) == (margin > 0).all(1)).sum())
    positive = share("draws with K > 0", (eigenvalues > 0).all(1))
    return Evidence(
        "eigenvalues of K in a random common eigenbasis against the margin of the inequality, random modes and "
        "parameters; both signs must occur",
        (
            clause(
                "K > 0 exactly where the inequality holds",
                limit("largest difference of K's eigenvalues from the inequality's margins", error, below=1e-12),
                limit("draws on which they differ in sign", draws - agree, equals=0),
                limit("draws with K > 0, % (both signs must occur)", positive.value, above=2, below=98),
            ),
        ),
        (shown("draws", draws), positive),
    )
