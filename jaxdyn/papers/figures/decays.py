"""What carries T Table 5: where K stays positive, and where every mode lives and aligns, over decays and settings."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ...arrays import traceable
from ...moments import Moments
from ...plotting.decays import decay_lines, decay_panels
from ...solve.ensemble import flow_ensemble
from ...status import Status
from ...systems.eigenspace import EigenspaceState, SymmetricEigenspace, alignment_matrix, commutator
from ...systems.modes import ModeData, Modes, ModeState, alignment_margin
from ...systems.siamese import MovingAverage, StopGradient
from .base import Picture

COLLAPSED = 1e-4  # eigenvalues of F below this at the end
ALIGNED = 1e-3  # ‖[F, W_p]‖/(‖F‖‖W_p‖) below this
_N, _KEPT = 3, 400

DECAYS = {"none": (0.0, 0.0), "both": (0.04, 0.04), "predictor only": (0.0, 0.04)}
SYSTEMS = ("modes", "(F, W_p)", "networks")
LEVELS: dict[str, tuple[float, ...]] = {
    "α_p": (0.3, 1.0, 3.0, 10.0), "σ": (0.0, 0.3, 0.6, 1.0), "start scale": (0.1, 0.3, 1.0, 2.0),
    "β": (0.05, 0.2, 1.0, 5.0),
}  # fmt: skip


class Setting(NamedTuple):
    """η_s, η_p, α_p, σ, the size of the start relative to the claim's, and β of the teacher, or None: τ ≡ 1."""

    encoder_decay: float = 0.0
    predictor_decay: float = 0.0
    ratio: float = 1.0
    sigma: float = 0.3
    scale: float = 1.0
    ema_rate: float | None = None


class Ends(NamedTuple):
    """Of each start: the least λ_min(K) along the way, at the end, the least eigenvalue of F, and how far they are
    from commuting."""

    lowest: np.ndarray
    last: np.ndarray
    smallest: np.ndarray
    apart: np.ndarray

    @property
    def positive(self) -> np.ndarray:
        """K > 0 throughout."""
        return self.lowest > 0

    @property
    def alive(self) -> np.ndarray:
        """Every mode lives, and F and W_p align."""
        return (self.smallest > COLLAPSED) & (self.apart < ALIGNED)


def starts_of(count: int, scale: float = 1.0, seed: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """Random small symmetric W_p and square W [count, n, n]; F = W Wᵀ."""
    rng = np.random.default_rng(seed)
    w = 0.3 * rng.normal(size=(count, _N, _N))
    g = 0.4 * rng.normal(size=(count, _N, _N))
    return scale * (w @ w.transpose(0, 2, 1) + (w + w.transpose(0, 2, 1)) / 4), scale**0.5 * g


def ends_of(system: str, setting: Setting, count: int, t1: float) -> Ends:
    """Flows of one of `SYSTEMS` from random starts; ArithmeticError if one fails."""
    decay = (setting.encoder_decay, setting.predictor_decay)
    options: dict[str, Any] = {} if setting.ema_rate is None else {"ema_rate": setting.ema_rate}
    with jax.enable_x64(True):
        predictor, encoder = map(jnp.asarray, starts_of(count, setting.scale))
        if system == "networks":
            return _networks(setting, decay, predictor, encoder, t1)
        reduced = (Modes if system == "modes" else SymmetricEigenspace)(decay, setting.ratio, **options)
        tau = None if setting.ema_rate is None else jnp.ones(count if system != "modes" else (count, _N))
        data = ModeData.isotropic(setting.sigma)
        correlation = encoder @ encoder.transpose(0, 2, 1)
        if system == "modes":
            p, s = jnp.linalg.eigvalsh(predictor), jnp.linalg.eigvalsh(correlation)
            states: Any = ModeState(p, s, tau)
            watch = lambda t, state, pair: alignment_margin(*_both(pair, state)).min()  # noqa: E731
        else:
            states = EigenspaceState(predictor, correlation, tau)
            watch = lambda t, state, pair: jnp.linalg.eigvalsh(alignment_matrix(*_both(pair, state)))[0]  # noqa: E731
        field = lambda t, state, pair: pair[0].field(t, state, pair[1])  # noqa: E731
        final, watched = _run(field, states, (traceable(reduced, float), data), watch, t1)
        if system == "modes":
            return Ends(watched.min(1), watched[:, -1], np.asarray(final.correlation).min(-1), np.zeros(count))
        return Ends(watched.min(1), watched[:, -1], *_looked_at(final.correlation, final.predictor))


def _both(pair: Any, state: Any) -> tuple[Any, Any, Any]:
    return pair[0], state, pair[1]


def _networks(setting: Setting, decay: tuple[float, float], predictor: Any, encoder: Any, t1: float) -> Ends:
    """Linear networks W, W_p (and a teacher that starts as W), the predictor kept symmetric."""
    rate = setting.ema_rate
    system = StopGradient(decay, setting.ratio) if rate is None else MovingAverage(decay, setting.ratio, ema_rate=rate)
    parts = {} if rate is None else {"teacher": encoder}
    states = jax.vmap(lambda a, b, c: system.state(encoder=a, predictor=b, **c))(encoder, predictor, parts)
    moments = Moments((1 + setting.sigma**2) * jnp.eye(_N), jnp.eye(_N))

    def field(t: Any, state: Any, pair: Any) -> Any:
        rates = pair[0].field(t, state, pair[1])
        return rates._replace(predictor=(rates.predictor + rates.predictor.T) / 2)

    def watch(t: Any, state: Any, pair: Any) -> Any:
        a, b = state.encoder, state.predictor
        # τ as the projection of the teacher on the encoder (T Assumption 1).
        tau = 1.0 if rate is None else jnp.sum(state.teacher * a) / jnp.sum(a * a)
        k = (1 + setting.sigma**2) * (pair[0].predictor_lr_ratio / 2 * a @ a.T + b @ b) - tau * b
        return jnp.linalg.eigvalsh(k)[0] + decay[0] + decay[1] / 2

    final, watched = _run(field, states, (traceable(system, float), moments), watch, t1)
    correlation = final.encoder @ jnp.swapaxes(final.encoder, -1, -2)
    return Ends(watched.min(1), watched[:, -1], *_looked_at(correlation, final.predictor))


def _run(field: Any, states: Any, pair: Any, watch: Any, t1: float) -> tuple[Any, np.ndarray]:
    times = np.concatenate([np.linspace(0, t1 / 5, _KEPT), np.linspace(t1 / 5, t1, _KEPT // 4)[1:]])
    found = flow_ensemble(field, jax.tree.map(jnp.asarray, states), pair, t1=t1, ts=times, save=watch)
    lost = np.asarray(found.status) != Status.COMPLETED
    if lost.any() and getattr(states, "teacher_ratio", None) is None:
        raise ArithmeticError(f"{int(lost.sum())} of {lost.size} flows failed")
    # τ = w_a/w ends where the encoder changes sign: such starts have left the reduction, and count as neither.
    blank = lambda leaf: np.where(lost.reshape(-1, *[1] * (leaf.ndim - 1)), np.nan, leaf)  # noqa: E731
    final = jax.tree.map(lambda leaf: np.nan_to_num(blank(np.asarray(leaf)), nan=0.0), found.final)
    return final, np.where(np.isnan(blank(np.asarray(found.states))), -np.inf, found.states)


def _looked_at(correlation: Any, predictor: Any) -> tuple[np.ndarray, np.ndarray]:
    bracket = np.asarray(jax.vmap(commutator)(correlation, predictor))
    size = lambda part: np.linalg.norm(np.asarray(part), axis=(1, 2))  # noqa: E731
    with np.errstate(invalid="ignore"):
        return np.linalg.eigvalsh(correlation)[:, 0], size(bracket) / (size(correlation) * size(predictor))


def compute_decays(*, starts: int = 200, t1: float = 100.0, decays: int = 7, largest: float = 0.18) -> xr.Dataset:
    """Shares with K > 0 throughout, and alive and aligned, over (η_s, η_p) by system, and over the other settings."""
    grid = np.linspace(0, largest, decays)
    measures = ("K > 0 throughout", "alive and aligned")
    of = lambda system, setting: _shares(ends_of(system, setting, starts, t1))  # noqa: E731
    planes = [[[of(system, Setting(s, p)) for p in grid] for s in grid] for system in SYSTEMS]
    lines = [[[[of(system, _changed(name, value, decay)) for value in values] for name, values in LEVELS.items()]
              for decay in DECAYS.values()] for system in SYSTEMS]  # fmt: skip
    return xr.Dataset(
        {
            "plane": (("system", "encoder_decay", "predictor_decay", "measure"), np.array(planes), {"units": "1"}),
            "line": (("system", "decay", "setting", "level", "measure"), np.array(lines), {"units": "1"}),
            "value": (("setting", "level"), np.array(list(LEVELS.values()))),
        },
        {"system": list(SYSTEMS), "decay": list(DECAYS), "setting": list(LEVELS), "measure": list(measures),
         "encoder_decay": ("encoder_decay", grid, {"symbol": "η_s"}),
         "predictor_decay": ("predictor_decay", grid, {"symbol": "η_p"})},
        {"title": "what carries T Table 5", "starts": starts},
    )  # fmt: skip


def _changed(name: str, value: float, decay: tuple[float, float]) -> Setting:
    field = {"α_p": "ratio", "σ": "sigma", "start scale": "scale", "β": "ema_rate"}[name]
    return Setting(*decay)._replace(**{field: value})


def _shares(ends: Ends) -> tuple[float, float]:
    return float(ends.positive.mean()), float(ends.alive.mean())


def draw_planes(axes: list[Axes], data: xr.Dataset) -> None:
    decay_panels(axes[:3], data)
    for ax, system in zip(axes[3:], data["system"].values, strict=True):
        decay_lines(ax, data.sel(system=system))
    axes[3].set_ylabel("share of starts")
    axes[0].figure.legend(*axes[3].get_legend_handles_labels(), loc="outside lower center", ncols=3, title="decay of")


PICTURES = (
    Picture("T-decays", "Above: share of random starts whose modes all live and align (colour) and with K > 0 "
            "throughout (numbers, %) over the decays of encoder and predictor; no EMA, dotted: equal decays. Below: "
            "alive and aligned (full) and K > 0 (hollow, dotted lines) over one other setting at a time. Starts that "
            "leave the reduction (the encoder changes sign under EMA) count as neither. Ours: n = 3, t = 100.",
            compute_decays, draw_planes, 2, 3, 5.6, {"starts": 30, "decays": 3}),
)  # fmt: skip
