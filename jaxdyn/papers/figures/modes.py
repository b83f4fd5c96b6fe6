"""T Figures 3, 4, 5 and 10: the decoupled modes and the scalar network."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.flatten_util import ravel_pytree
from matplotlib.axes import Axes

from ...analysis.linearise import jacobian
from ...plotting.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from ...solve.flow import flow
from ...systems.modes import (
    ModeData,
    Modes,
    ModeState,
    PairState,
    Parabola,
    ParabolaState,
    PredictorFreeScalar,
    ScalarNetwork,
    ScalarState,
    TiedScalar,
    alignment_margin,
    parabola_points,
)
from .base import Picture

COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
STYLES = ("-", "--", "-.", ":", (0, (4, 1, 1, 1, 1, 1)))
# Filled circle, open circle, half-filled square: told apart without colour.
POINTS: dict[str, dict[str, Any]] = {
    "stable": {"marker": "o", "color": RED},
    "unstable": {"marker": "o", "color": GREEN, "mfc": "white"},
    "saddle": {"marker": "s", "color": BLACK, "mfc": "white"},
}


def _kind(system: Any, state: Any, data: Any) -> str:
    """Stability of an equilibrium by its exact Jacobian; directions with a zero eigenvalue are left out."""
    real = np.linalg.eigvals(np.asarray(jacobian(system, state, data))).real
    moving = real[np.abs(real) > 1e-9]
    if (moving < 0).all():
        return "stable"
    return "unstable" if (moving > 0).all() else "saddle"


def _kind_by_flow(system: Any, state: Any, data: Any) -> str:
    """Stability of an isolated equilibrium that its Jacobian leaves open: which of 16 small nudges come back."""
    flat, unravel = ravel_pytree(state)
    angles = 2 * np.pi * (np.arange(16) + 0.5) / 16
    nudges = 0.02 * np.stack([np.cos(angles), np.sin(angles)], 1)

    def left(nudge: Any) -> jax.Array:
        end = flow(system, unravel(flat + nudge), data, t1=2000.0).final
        return jnp.linalg.norm(ravel_pytree(end)[0] - flat)

    back = np.asarray(jax.vmap(left)(jnp.asarray(nudges))) < 0.01
    return "stable" if back.all() else "saddle" if back.any() else "unstable"


def _mark(ax: Axes, x: float, y: float, kind: str) -> None:
    ax.plot([x], [y], ls="", ms=5, zorder=5, clip_on=False, **POINTS[kind])


def _rates(system: Any, make: Any, data: Any, x: Any, y: Any):
    """Field components over a grid, for streamlines."""
    grid_x, grid_y = np.meshgrid(x, y)
    rate = jax.vmap(lambda a, b: ravel_pytree(system.field(0.0, make(a, b), data))[0])
    values = np.asarray(rate(jnp.asarray(grid_x.ravel()), jnp.asarray(grid_y.ravel())))
    return values[:, 0].reshape(grid_x.shape), values[:, 1].reshape(grid_x.shape)


def compute_3(
    *,
    eta: tuple[float, ...] = (0.0, 0.01, 1.0),
    sigma: float = 0.5,
    alpha_p: float = 1.0,
    tau: float = 1.0,
    grid: int = 61,
) -> xr.Dataset:
    """Flow lines of the modes over (p, s), for each weight decay η."""
    etas, data = eta, ModeData.isotropic(sigma)
    p, s = np.linspace(-1, 1.5, grid), np.linspace(0, 1.5, round(grid * 46 / 61))
    fields, points = [], []
    with jax.enable_x64(True):
        for index, decay in enumerate(etas):
            system = Modes(decay, alpha_p, teacher_ratio=tau)
            fields.append(_rates(system, ModeState, data, p, s))
            if decay == 0:
                places = [(q, 0.0) for q in np.linspace(-0.95, 1.45, 25)]
                places += [(tau / data.total, r) for r in np.linspace(0.05, 1.45, 15)]
            else:
                ends = [float(q) for q in parabola_points(decay, tau, data) if np.isfinite(q)]
                places = [(0.0, 0.0)] + [(q, q**2 / alpha_p) for q in ends]
            for q, r in places:
                kind = _kind(system, ModeState(jnp.asarray(q), jnp.asarray(r)), data)
                points.append((index, q, r, kind))
    index, q, r, kind = zip(*points, strict=True)
    return xr.Dataset(
        {
            "p_rate": (("eta", "s", "p"), np.stack([f[0] for f in fields])),
            "s_rate": (("eta", "s", "p"), np.stack([f[1] for f in fields])),
            "point_eta": ("point", np.array(etas)[list(index)]),
            "point_p": ("point", np.array(q)),
            "point_s": ("point", np.array(r)),
            "point_kind": ("point", np.array(kind)),
        },
        coords={"eta": list(etas), "p": p, "s": s},
        attrs={"title": "T Figure 3: modes in the (p, s) plane", "sigma": sigma, "alpha_p": alpha_p},
    )


def draw_3(axes: list[Axes], data: xr.Dataset) -> None:
    parabola = np.linspace(-1, 1.5, 200)
    for ax, eta in zip(axes, data["eta"].values, strict=True):
        plane = data.sel(eta=eta)
        speed = np.hypot(plane["p_rate"].values, plane["s_rate"].values)
        u, v = plane["p_rate"].values, plane["s_rate"].values
        ax.streamplot(data["p"].values, data["s"].values, np.where(speed > 1e-9, u, np.nan), v, color=BLUE,
                      linewidth=0.5, arrowsize=0.6, density=0.9)  # fmt: skip
        ax.plot(parabola, parabola**2 / data.attrs["alpha_p"], "--", color=BLACK, lw=0.9)
        here = data.where(data["point_eta"] == eta, drop=True)
        for q, r, kind in zip(*(here[f"point_{name}"].values for name in ("p", "s", "kind")), strict=True):
            _mark(ax, q, r, str(kind))
        ax.set(title=f"η = {eta:g}", xlabel="$p$", xlim=(-1, 1.5), ylim=(0, 1.5))
    axes[0].set_ylabel("$s$")
    _point_legend(axes[0], [({"color": BLACK, "ls": "--"}, "$s=p^2/\\alpha_p$")])


def _point_legend(ax: Axes, more: Any = ()) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], ls="", ms=5, **style) for style in POINTS.values()]
    labels = list(POINTS)
    for style, label in more:
        handles.append(Line2D([], [], **style))
        labels.append(label)
    ax.figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def compute_4(*, share: tuple[float, ...] = (0.0, 0.5, 1.5), sigma: float = 0.5, tau: float = 1.0) -> xr.Dataset:
    """The cubic ṗ(p), at weight decays that are these shares of the threshold."""
    data = ModeData.isotropic(sigma)
    threshold = tau**2 / (4 * data.total)
    etas = tuple(each * threshold for each in share)
    p = np.linspace(-0.2, 1.0, 241)
    with jax.enable_x64(True):
        rates, points = [], []
        for eta in etas:
            system = Parabola(eta, teacher_ratio=tau)
            rates.append(np.asarray(system.field(0.0, ParabolaState(jnp.asarray(p)), data).predictor))
            ends = [0.0, *(float(q) for q in parabola_points(eta, tau, data) if np.isfinite(q) and q > 0)]
            for q in ends:
                around = np.sign([float(system.field(0.0, ParabolaState(jnp.asarray(q + h)), data).predictor)
                                  for h in (-1e-6, 1e-6)])  # fmt: skip
                kind = "stable" if around[0] > 0 > around[1] else "unstable" if around[0] < 0 < around[1] else "saddle"
                points.append((eta, q, kind))
    eta, q, kind = zip(*points, strict=True)
    return xr.Dataset(
        {
            "rate": (("eta", "p"), np.stack(rates)),
            "point_eta": ("point", np.array(eta)),
            "point_p": ("point", np.array(q)),
            "point_kind": ("point", np.array(kind)),
        },
        coords={"eta": list(etas), "p": p},
        attrs={
            "title": "T Figure 4: the cubic of the invariant parabola",
            "sigma": sigma,
            "threshold": float(threshold),
            "tau": tau,
        },
    )


def draw_4(axes: list[Axes], data: xr.Dataset) -> None:
    for ax, eta in zip(axes, data["eta"].values, strict=True):
        above = eta > data.attrs["threshold"]
        name = "η = 0" if eta == 0 else "η > τ²/4(1+σ²)" if above else "0 < η < τ²/4(1+σ²)"
        rate = data["rate"].sel(eta=eta)
        ax.plot(data["p"], rate, color=BLUE)
        ax.axhline(0, color=GREY, lw=0.6)
        here = data.where(data["point_eta"] == eta, drop=True)
        for q, kind in zip(here["point_p"].values, here["point_kind"].values, strict=True):
            _mark(ax, q, 0.0, str(kind))
        for q in np.arange(-0.14, 1.0, 0.12):
            push = float(rate.interp(p=q))
            if np.abs(here["point_p"].values - q).min() > 0.03:
                ax.annotate("", (q + np.sign(push) * 0.05, 0), (q, 0), arrowprops={"arrowstyle": "->", "color": BLACK})
        ax.set(title=f"{name}  ({eta:.3g})", xlabel="$p$", ylim=(-0.16, 0.1))
    axes[0].set_ylabel("$\\dot p$")
    _point_legend(axes[0])


def compute_5(
    *,
    eta: tuple[float, ...] = (0.0, 0.01, 0.04, 0.1, 0.2),
    beta: tuple[float, ...] = (0.02, 0.1, 0.4, 2.0),
    fixed_eta: float = 0.04,
    fixed_beta: float = 0.4,
    sigma: float = 0.1,
    p0: float = 0.5,
    s0: float = 0.05,
    tau0: float = 0.0,
    lr: float = 0.01,
    steps: int = 10_000,
) -> xr.Dataset:
    """One mode with EMA, over η at a fixed β and over β at a fixed η."""
    data = ModeData.isotropic(sigma)
    times = np.linspace(0, lr * steps, 201)
    rows = [("η", eta, lambda v: Modes(v, ema_rate=fixed_beta)), ("β", beta, lambda v: Modes(fixed_eta, ema_rate=v))]
    curves, labels = [], []
    with jax.enable_x64(True):
        start = ModeState(jnp.asarray(p0), jnp.asarray(s0), jnp.asarray(tau0))
        for name, values, make in rows:
            for value in values:
                system = make(value)
                path = flow(system, start, data, t1=times[-1], ts=times).states
                margin = jax.vmap(lambda s, system=system: alignment_margin(system, s, data))(path)
                curves.append(np.stack([margin, path.predictor, path.correlation]))
                labels.append((name, value))
    return xr.Dataset(
        {"value": (("curve", "quantity", "step"), np.stack(curves))},
        coords={
            "step": times / lr, "quantity": ["K", "p", "s"],
            "varied": ("curve", [name for name, _ in labels]), "at": ("curve", [value for _, value in labels]),
        },
        attrs={"title": "T Figure 5: weight decay and EMA", "sigma": sigma, "fixed_eta": fixed_eta,
               "fixed_beta": fixed_beta, "lr": lr},
    )  # fmt: skip


def draw_5(axes: list[Axes], data: xr.Dataset) -> None:
    titles = {"K": "eigenvalue of $K(t)$", "p": "$p$", "s": "$s$"}
    for row, name in enumerate(("η", "β")):
        group = data.isel(curve=np.flatnonzero(data["varied"].values == name))
        for column, quantity in enumerate(titles):
            ax = axes[3 * row + column]
            for colour, style, curve in zip(COLOURS, STYLES, range(group.sizes["curve"]), strict=False):
                line = group["value"].sel(quantity=quantity).isel(curve=curve)
                ax.plot(data["step"], line, color=colour, ls=style, label=f"{name} = {float(group['at'][curve]):g}")
                ax.plot(float(data["step"][-1]), float(line[-1]), "o", ms=3, color=colour, clip_on=False)
            ax.axhline(0, color=GREY, lw=0.5)
            ax.set(title=titles[quantity], xlabel=f"steps of α = {data.attrs['lr']:g}")
        axes[3 * row].set_ylabel(
            f"β = {data.attrs['fixed_beta']:g}, η varied"
            if name == "η"
            else f"η = {data.attrs['fixed_eta']:g}, β varied"
        )
        axes[3 * row + 2].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))


def compute_10(*, total: float = 1.0, shared: float = 0.5, beta: float = 1.0, grid: int = 49) -> xr.Dataset:
    """The scalar network in three planes; λ_s = `total`, λ_d = `shared`."""
    data, line, tied = ModeData(total, shared), np.linspace(-1.2, 1.2, grid), shared / total
    held = ScalarNetwork(ema_rate=0.0)
    panels = {
        "teacher held at 1": (held, lambda w, w_p: ScalarState(w_p, w, jnp.ones_like(w))),
        "tied, w = w_p": (TiedScalar(ema_rate=beta), PairState),
        "no predictor": (PredictorFreeScalar(ema_rate=beta), PairState),
    }
    fields, points = [], []
    with jax.enable_x64(True):
        for name, (system, make) in panels.items():
            first, second = _rates(system, make, data, line, line)
            # The held network's state is (w_p, w, w_a): its second component moves w, the horizontal axis.
            fields.append((second, first) if system is held else (first, second))
            if system is held:
                w = np.concatenate([-np.geomspace(0.45, 1.15, 8), np.geomspace(0.45, 1.15, 8)])
                places = [(a, tied / a) for a in w] + [(0.0, 0.0)]
            else:
                places = [(0.0, 0.0), (tied, tied)] if name.startswith("tied") else [(0.0, 0.0)]
            for a, b in places:
                state = make(jnp.asarray(a), jnp.asarray(b))
                judge = _kind if system is held else _kind_by_flow
                points.append((name, a, b, judge(system, state, data)))
    name, a, b, kind = zip(*points, strict=True)
    return xr.Dataset(
        {
            "x_rate": (("panel", "y", "x"), np.stack([f[0] for f in fields])),
            "y_rate": (("panel", "y", "x"), np.stack([f[1] for f in fields])),
            "point_panel": ("point", np.array(name)), "point_x": ("point", np.array(a)),
            "point_y": ("point", np.array(b)), "point_kind": ("point", np.array(kind)),
        },
        coords={"panel": list(panels), "x": line, "y": line},
        attrs={"title": "T Figure 10: the scalar network", "lambda_s": total, "lambda_d": shared},
    )  # fmt: skip


def draw_10(axes: list[Axes], data: xr.Dataset) -> None:
    line, ratio = np.linspace(-1.2, 1.2, 200), data.attrs["lambda_d"] / data.attrs["lambda_s"]
    for ax, panel in zip(axes, data["panel"].values, strict=True):
        plane = data.sel(panel=panel)
        u, v = plane["x_rate"].values, plane["y_rate"].values
        ax.streamplot(data["x"].values, data["y"].values, u, v, color=GREY, linewidth=0.5, arrowsize=0.6, density=0.8)
        if panel.startswith("teacher"):
            for half in (line[line < -0.3], line[line > 0.3]):
                ax.plot(half, ratio / half, color=BLUE, lw=1.2)
            ax.set_ylabel("$w_p$")
        else:
            ax.plot(line, line, color=GREEN, lw=1.2)
            w_a = line ** (2 if panel.startswith("tied") else 1) / ratio
            ax.plot(line, w_a, "--", color=BLUE, lw=1.2)
            ax.set_ylabel("$w_a$")
        here = data.where(data["point_panel"] == panel, drop=True)
        for a, b, kind in zip(*(here[f"point_{name}"].values for name in ("x", "y", "kind")), strict=True):
            _mark(ax, a, b, str(kind))
        ax.set(
            title=str(panel).replace("w_p", "$w_p$").replace("w =", "$w$ ="),
            xlabel="$w$",
            xlim=(-1.2, 1.2),
            ylim=(-1.2, 1.2),
        )
        ax.set_aspect("equal")
    _point_legend(axes[0], [({"color": GREEN}, "$\\dot w_a=0$"), ({"color": BLUE, "ls": "--"}, "$\\dot w=0$")])


PICTURES = (
    Picture("T-3", "Flow lines of the modes (T eqs 11-12) in (p, s). Stated: τ = 1, α_p = 1, η = 0, 0.01, 1. Ours: σ = "
            "0.5. Equilibria by the exact Jacobian; those on lines of equilibria by its nonzero eigenvalues.",
            compute_3, draw_3, 1, "eta", 2.8, {"grid": 26}),
    Picture("T-4", "The cubic ṗ(p) on the invariant parabola (T eq 16) below, between and above its thresholds. Ours: "
            "τ = 1, σ = 0.5, η = 0, ½ and 1½ of the threshold. Equilibria by the signs on either side.",
            compute_4, draw_4, 1, "eta", 2.5),
    Picture("T-5", "Weight decay and EMA on one mode (T eqs 11-13). Stated: α = 0.01; top β = 0.4, bottom η = 0.04. "
            "Ours: σ = 0.1, p(0) = 0.5, s(0) = 0.05, τ(0) = 0, the swept values. Dots: final values.",
            compute_5, draw_5, 2, 3, 4.4, {"steps": 2000}),
    Picture("T-10", "The scalar network (T eqs 98-100). Stated: λ_s = 1, λ_d = ½, α_p = β = 1; w_a = 1, tied w = w_p, "
            "no predictor. On the hyperbola by the nonzero eigenvalue; elsewhere by where 16 small nudges go: the tied "
            "origin, which the paper calls unstable, attracts from one side (saddle).",
            compute_10, draw_10, 1, 3, 2.9, {"grid": 25}),
)  # fmt: skip
