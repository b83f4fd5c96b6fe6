"""T Figures 7, 8 and 9: the matrix systems over random starts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ...moments import Moments
from ...plotting.style import BLUE, GREEN, ORANGE, PURPLE, RED
from ...solve.descent import descend
from ...solve.flow import flow
from ...systems.eigenspace import AsymmetricEigenspace, SymmetricEigenspace, commutator
from ...systems.modes import ModeData
from ...systems.siamese import MovingAverage
from .base import Picture

COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE)
STYLES = ("-", "--", "-.", ":", (0, (4, 1, 1, 1, 1, 1)))


def compute_7(
    *,
    eta: tuple[float, ...] = (0.0, 0.01, 0.1),
    ema_decay: tuple[float, ...] = (0.9, 0.99, 0.996, 0.999),
    sigma: float = 0.03,
    lr: float = 0.01,
    n: int = 8,
    runs: int = 10,
    scale: float = 0.3,
    steps: int = 10_000,
) -> xr.Dataset:
    """Correlation of teacher and encoder over the steps, weights N(0, scale²)."""
    etas, decays, every = eta, ema_decay, max(1, steps // 100)
    moments_of = ModeData.isotropic(sigma)
    with jax.enable_x64(True):
        moments = Moments(moments_of.total * np.eye(n), np.eye(n))

        def one(key: Any, eta: Any, rate: Any) -> jax.Array:
            a, b = scale * jax.random.normal(key, (2, n, n), jnp.float64)
            system = MovingAverage(eta, ema_rate=rate)
            start = system.state(encoder=a, predictor=b, teacher=jnp.zeros((n, n)))
            path = descend(system, start, moments, lr=lr, steps=steps, save_every=every).states

            def correlation(w: Any, w_a: Any) -> jax.Array:
                return jnp.sum(w * w_a) / (jnp.linalg.norm(w) * jnp.linalg.norm(w_a))

            return jax.vmap(correlation)(path.encoder[1:], path.teacher[1:])

        keys = jax.random.split(jax.random.key(0), runs)
        over_runs = jax.vmap(one, in_axes=(0, None, None))
        rates = [(1 - decay) / lr for decay in decays]
        values = np.stack([np.stack([over_runs(keys, eta, rate) for rate in rates]) for eta in etas])
    return xr.Dataset(
        {"correlation": (("eta", "ema_decay", "run", "step"), values)},
        coords={"eta": list(etas), "ema_decay": list(decays), "step": every * np.arange(1, values.shape[-1] + 1)},
        attrs={"title": "T Figure 7: is the teacher proportional to the encoder?", "sigma": sigma, "lr": lr, "n": n},
    )


def draw_7(axes: list[Axes], data: xr.Dataset) -> None:
    for ax, eta in zip(axes, data["eta"].values, strict=True):
        for decay, colour, style in zip(data["ema_decay"].values, COLOURS, STYLES, strict=False):
            runs = data["correlation"].sel(eta=eta, ema_decay=decay)
            mean, spread = runs.mean("run"), runs.std("run")
            ax.plot(data["step"], mean, color=colour, ls=style, label=f"$\\gamma_a$ = {decay}")
            ax.fill_between(data["step"], mean - spread, mean + spread, color=colour, alpha=0.2, lw=0)
        ax.set(title=f"η = {eta:g}", xlabel="steps", ylim=(float(data["correlation"].min()) - 0.01, 1.005))
    axes[0].set_ylabel("correlation of $W_a$ and $W$")
    axes[-1].legend()


TAUS = (0.2, 0.4, 0.6, 0.8, 1.0)


def _norms(system_of: Any, start_of: Any, measure: Any, etas: Any, taus: Any, sigma: float, t1: float) -> np.ndarray:
    times = np.linspace(0, t1, 151)
    data = ModeData.isotropic(sigma)

    def one(eta: Any, tau: Any):
        system = system_of(eta, tau)
        return jax.vmap(measure)(flow(system, start_of(system), data, t1=t1, ts=times).states)

    over = jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))
    return np.asarray(over(jnp.asarray(etas), jnp.asarray(taus)))


def compute_8(
    *,
    eta: tuple[float, ...] = (0.001, 0.01, 0.05),
    tau: tuple[float, ...] = TAUS,
    sigma: float = 0.1,
    n: int = 10,
    t1: float = 60.0,
) -> xr.Dataset:
    """Norms of the symmetric and the skew part of W_p over time."""
    etas, taus = eta, tau
    start = 0.4 * np.random.default_rng(0).normal(size=(n, n)) / np.sqrt(n) + 0.4 * np.eye(n)

    def measure(state: Any):
        w = state.predictor
        return jnp.stack([jnp.linalg.norm(w + w.T) / 2, jnp.linalg.norm(w - w.T) / 2])

    with jax.enable_x64(True):
        values = _norms(
            lambda eta, tau: AsymmetricEigenspace(eta, teacher_ratio=tau),
            lambda system: system.state(predictor=start), measure, etas, taus, sigma, t1,
        )  # fmt: skip
    return xr.Dataset(
        {"norm": (("eta", "tau", "time", "part"), values)},
        coords={"eta": list(etas), "tau": list(taus), "time": np.linspace(0, t1, 151), "part": ["symmetric", "skew"]},
        attrs={"title": "T Figure 8: the predictor becomes symmetric", "sigma": sigma, "n": n},
    )


def draw_8(axes: list[Axes], data: xr.Dataset) -> None:
    for row, part in enumerate(data["part"].values):
        for column, eta in enumerate(data["eta"].values):
            ax = axes[row * data.sizes["eta"] + column]
            for tau, colour, style in zip(data["tau"].values, COLOURS, STYLES, strict=True):
                ax.plot(data["time"], data["norm"].sel(eta=eta, tau=tau, part=part), color=colour, ls=style,
                        label=f"τ = {tau:g}")  # fmt: skip
            ax.set_ylim(0, 1.08 * float(data["norm"].sel(part=part).max()))
            if row == 0:
                ax.set_title(f"η = {eta:g}")
            else:
                ax.set_xlabel("time (flow units)")
            if column == 0:
                ax.set_ylabel(f"norm, {part} part")
    axes[-1].legend(loc="upper right")


def compute_9(
    *,
    eta: tuple[float, ...] = (0.0, 0.01, 0.05, 0.2),
    tau: tuple[float, ...] = TAUS,
    sigma: float = 0.1,
    n: int = 6,
    t1: float = 30.0,
) -> xr.Dataset:
    """Norm of the commutator of F and W_p over time."""
    etas, taus = eta, tau
    rng = np.random.default_rng(1)
    root, g = rng.normal(size=(2, n, n)) / np.sqrt(n)
    predictor, correlation = 0.4 * root @ root.T, 0.02 * g @ g.T

    def measure(state: Any) -> jax.Array:
        return jnp.linalg.norm(commutator(state.correlation, state.predictor))

    with jax.enable_x64(True):
        values = _norms(
            lambda eta, tau: SymmetricEigenspace(eta, teacher_ratio=tau),
            lambda system: system.state(predictor=predictor, correlation=correlation), measure, etas, taus, sigma, t1,
        )  # fmt: skip
    return xr.Dataset(
        {"norm": (("eta", "tau", "time"), values)},
        coords={"eta": list(etas), "tau": list(taus), "time": np.linspace(0, t1, 151)},
        attrs={"title": "T Figure 9: alignment of F and W_p", "sigma": sigma, "n": n},
    )


def draw_9(axes: list[Axes], data: xr.Dataset) -> None:
    for ax, eta in zip(axes, data["eta"].values, strict=True):
        for tau, colour, style in zip(data["tau"].values, COLOURS, STYLES, strict=True):
            line = np.maximum(data["norm"].sel(eta=eta, tau=tau), 1e-12)
            ax.semilogy(data["time"], line, color=colour, ls=style, label=f"τ = {tau:g}")
        ax.set(title=f"η = {eta:g}", xlabel="time (flow units)")
        ax.set_ylim(1e-6, 3 * float(data["norm"].max()))
    axes[0].set_ylabel("$\\|[F, W_p]\\|$")
    axes[-1].legend()


PICTURES = (
    Picture("T-7", "Normalised correlation of W_a and W over training (T eqs 2-4, Σᵈ = I). Stated: σ = 0.03, "
            "η = 0, 0.01, 0.1, 10 runs (mean ± std), W_a(0) = 0. Ours: α = 0.01, n = 8, weights N(0, 0.3²), the γ_a.",
            compute_7, draw_7, 1, "eta", 2.6, {"steps": 1000}),
    Picture("T-8", "Symmetric and skew part of W_p under T eq 55 with F = W_pᵀW_p. Stated: fixed τ's, η = 0.001, 0.01, "
            "0.05. Ours: σ = 0.1, n = 10, one random start, the τ's.", compute_8, draw_8, 2, "eta", 4.2, {"n": 4}),
    Picture("T-9", "Norm of the commutator under T eq 60: it shoots up where K is indefinite (small η, large τ). "
            "Stated: fixed τ's, η swept. Ours: σ = 0.1, n = 6, one random start with F small, the values.",
            compute_9, draw_9, 1, "eta", 2.4, {"n": 3}),
)  # fmt: skip
