"""Pictures of the m = 1 trials: datasets in, artists out."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from ..names import SYSTEMS
from ..trials.scalar import Outcome
from .style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY

# Colour and marker both tell the outcomes apart, so that grey print loses nothing. Squares of the first two are bins.
OUTCOME_STYLE = {
    Outcome.OUTER: (BLUE, "s", 20),
    Outcome.ORIGIN: (ORANGE, "s", 20),
    Outcome.INNER: (BLACK, "*", 30),
    Outcome.UNDECIDED: (PURPLE, "s", 16),
    Outcome.OUT_OF_STEPS: (GREEN, "D", 14),
    Outcome.DIVERGED: (RED, "x", 16),
}


_SHARES = LinearSegmentedColormap.from_list("shares", [ORANGE, "#e8e8e8", BLUE])
_SOLID = 8  # trials of a bin that is drawn in full colour

_FIXED = {"rho": "ρ", "tau": "τ", "weight_decay": "λ", "ema_rate": "β"}


def trajectory_panels(axes: Sequence[Axes], dataset: xr.Dataset) -> None:
    """One panel a system: the encoder's path in the plane over the circles S₁ and S₂."""
    limit = 1.1 * max(float(np.abs(dataset["encoder"]).max()), dataset.attrs["outer_radius"])
    angle = np.linspace(0, 2 * np.pi, 361)
    for ax, name in zip(axes, dataset["system"].values, strict=True):
        paths = dataset["encoder"].sel(system=name).values
        for style, radius in (("-", dataset.attrs["outer_radius"]), ("--", dataset.attrs["inner_radius"])):
            label = "$S_2$ (stable)" if style == "-" else "$S_1$ (saddle)"
            ax.plot(radius * np.cos(angle), radius * np.sin(angle), style, color=BLACK, lw=0.8, label=label, zorder=1)
        collapsed = np.linalg.norm(paths[:, -1], axis=-1) < dataset.attrs["inner_radius"]
        for path, to_origin in zip(paths, collapsed, strict=True):
            colour = ORANGE if to_origin else BLUE
            ax.plot(*path.T, color=colour, lw=1.0, ls=(0, (4, 1)) if to_origin else "-", zorder=2)
            ax.plot(*path[0], "o", ms=2.8, mfc="white", mec=GREY, mew=0.8, zorder=3)
            ax.plot(*path[-1], "o", ms=3.2, color=colour, zorder=4)
        ax.set(title=str(name), xlabel="$a_1$", xlim=(-limit, limit), ylim=(-limit, limit))
        ax.set_aspect("equal")
    axes[0].set_ylabel("$a_2$")
    fixed = json.loads(dataset.attrs["settings"])
    numbers = ", ".join(f"{sign} = {fixed[name]:.3g}" for name, sign in _FIXED.items())
    axes[0].figure.suptitle(f"one problem, {numbers}")
    handles, labels = axes[0].get_legend_handles_labels()
    from matplotlib.lines import Line2D

    handles += [
        Line2D([], [], color=GREY, marker="o", mfc="white", ls="", ms=3),
        Line2D([], [], color=BLUE, marker="o", ms=3.2),
        Line2D([], [], color=ORANGE, marker="o", ms=3.2, ls=(0, (4, 1))),
    ]
    labels += ["start", "to the outer circle", "to the origin (collapse)"]
    axes[0].figure.legend(handles, labels, loc="outside lower center", ncols=5)


def outcome_map(ax: Axes, dataset: xr.Dataset, system: str) -> None:
    """Where trials end over (ε, start radius): the outer sphere's share of the resolved ones in bins, others marked.

    Bins of few trials are pale. Trials without ε > 0 have no place, and their number is said.
    """
    epsilon, radius = dataset["epsilon"].values, dataset["start_radius"].values
    outcomes = dataset["outcome"].values
    shown = np.isfinite(epsilon) & (epsilon > 0) & np.isfinite(radius)
    if shown.any():
        left = min(max(epsilon[shown].min(), 1e-6) / 1.3, 0.2)
        right = max(0.25, min(epsilon[shown].max(), 1e3)) * 1.3
        ax.set_xscale("log")
        ax.set_xlim(left, right)
        below = np.geomspace(left, 0.25, 40)  # Δ = 0 is a border of bins
        bins = np.concatenate([below, np.geomspace(0.25, right, 5)[1:]])
        edges = [bins, np.linspace(0, max(radius[shown].max(), 1e-9) * 1.05, 25)]
        place = lambda outcome: np.histogram2d(  # noqa: E731
            np.clip(epsilon, left, right)[shown & (outcomes == outcome)],
            radius[shown & (outcomes == outcome)],
            bins=edges,
        )[0]
        outer, origin = place(Outcome.OUTER), place(Outcome.ORIGIN)
        total = outer + origin
        share = np.ma.masked_array(outer / np.maximum(total, 1), total == 0)
        strength: Any = np.clip(total.T / _SOLID, 0.25, 1)
        mesh = ax.pcolormesh(*edges, share.T, cmap=_SHARES, vmin=0, vmax=1, alpha=strength, rasterized=True)
        bar = ax.figure.colorbar(mesh, ax=ax, pad=0.02, aspect=30)
        bar.set_label("outer, share of resolved")
    for outcome, (colour, marker, size) in OUTCOME_STYLE.items():
        chosen = outcomes == outcome
        label = f"{outcome.name.lower().replace('_', ' ')} ({int(chosen.sum()):,})"
        marked = chosen & shown if marker != "s" or outcome is Outcome.UNDECIDED else np.zeros_like(shown)
        lines = 0 if marker in "sD" else 0.9
        ax.scatter(epsilon[marked], radius[marked], s=size, c=colour, marker=marker, linewidths=lines, label=label)
    if missing := int((~shown).sum()):
        told = f"{missing:,} trials with ε = 0 or τ = 0 are not shown"
        ax.annotate(told, (0.02, 0.98), xycoords="axes fraction", va="top", fontsize=6.5)
    ax.axvline(0.25, color=GREY, lw=0.8, ls=":")
    ax.annotate("Δ = 0", (0.25, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=6.5)
    ax.set(title=SYSTEMS[system], xlabel=r"$\varepsilon=\lambda\rho/\tau^2$", ylabel=r"start radius $\|a(0)\|$")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, handletextpad=0.2, columnspacing=1.0)


def parted_panel(ax: Axes, data: xr.Dataset) -> None:
    """The plane of encoder and predictor: a separatrix, starts by where they end, the saddle and the outer sphere."""
    a, b = data["start"].values.T
    lives = data["lives"].values == 1
    for mask, colour, marker, label in ((~lives, ORANGE, "s", "collapse"), (lives, BLUE, "o", "outer sphere")):
        ax.plot(a[mask], b[mask], marker, color=colour, ms=2.2, alpha=0.7, mew=0, label=label)
    ax.plot(*data["curve"].values.T, color=BLACK, lw=1.1, label="separatrix")
    inner, outer = data["sphere"].values
    ax.plot(*inner, "o", mfc="white", mec=BLACK, ms=5)
    ax.plot(*outer, "o", color=BLACK, ms=5)
    ax.set(xlim=(0, 1.5), ylim=(-1, 1), xlabel="encoder a", title=f"λ = {float(data['share']):g}·τ²/4ρ")


def sensitivity_panels(axes: Sequence[Axes], dataset: xr.Dataset, published: dict[str, float]) -> None:
    """Outer-sphere percentage over the initial law: SG by n, EMA by n and by ema_decay; then pair against pair.

    `published`: percentages by system, drawn in.
    """
    cells = dataset[["system", "law", "n", "ema_decay", "outer", "outer_low", "outer_high"]].to_dataframe()
    sg, ema = (cells.loc[cells["system"] == name] for name in ("sg", "ema"))
    n, decay = int(ema["n"].mode()[0]), float(ema.loc[ema["n"] != ema["n"].mode()[0], "ema_decay"].iloc[0])
    _by_law(axes[0], sg, "n", "n = {}", published["sg"], SYSTEMS["sg"])
    _by_law(
        axes[1], ema.loc[ema["ema_decay"] == decay], "n", "n = {}", published["ema"], f"{SYSTEMS['ema']}, α = {decay}"
    )
    _by_law(axes[2], ema.loc[ema["n"] == n], "ema_decay", "α = {}", published["ema"], f"{SYSTEMS['ema']}, n = {n}")
    _pairs(axes[3], sg.loc[sg["n"] == n], ema.loc[ema["n"] == n], n, published)


_MARKS = tuple(zip((BLUE, ORANGE, GREEN, RED, PURPLE, SKY), "os^DvP", strict=True))


def _by_law(ax: Axes, table: Any, key: str, text: str, published: float, title: str) -> None:
    laws = list(dict.fromkeys(table["law"]))
    several = table[key].nunique()
    for place, ((value, group), (colour, mark)) in enumerate(zip(table.groupby(key), _MARKS, strict=False)):
        aside = 0.16 * (place - (several - 1) / 2)  # side by side, so that none hides another
        error = np.abs(group[["outer_low", "outer_high"]].to_numpy().T - group["outer"].to_numpy())
        at = [laws.index(law) + aside for law in group["law"]]
        ax.errorbar(at, group["outer"], error, fmt=mark, ms=3.2, color=colour, lw=0.8, label=text.format(value))
    if missing := int(table["outer"].isna().sum()):
        told = f"{'all' if missing == len(table) else missing} settings: no trial came to rest"
        ax.annotate(told, (0.02, 0.98), xycoords="axes fraction", va="top", fontsize=6.5)
    ax.axhline(published, color=BLACK, lw=0.8, ls="--", label="published")
    ax.set_xticks(range(len(laws)), [_short(law) for law in laws], rotation=45, ha="right", rotation_mode="anchor")
    ax.set(title=title, ylabel="outer sphere, % of resolved")
    ax.legend(loc="lower right", ncols=2, columnspacing=0.8, handletextpad=0.2)


def _pairs(ax: Axes, sg: Any, ema: Any, n: int, published: dict[str, float]) -> None:
    """(SG, EMA) percentages of each law, a line through its decays; the published pair as a star."""
    share = sg.set_index("law")["outer"]
    point = published["sg"], published["ema"]
    near = [law for law in share.index if abs(share[law] - point[0]) < 8]
    shown = ema.loc[ema["law"].isin(near)]
    for (decay, group), (colour, mark) in zip(shown.groupby("ema_decay"), _MARKS, strict=False):
        ax.plot(share[group["law"]], group["outer"], mark, ms=3.2, color=colour, label=f"α = {decay}")
    for law in near:
        group = shown.loc[shown["law"] == law]
        ax.plot([share[law]] * len(group), group["outer"], color=GREY, lw=0.4, zorder=0)
        if len(group):
            place = (share[law], group["outer"].min())
            ax.annotate(_short(law), place, (0, -4), textcoords="offset points", rotation=90, va="top", ha="center",
                        fontsize=5)  # fmt: skip
    if far := [_short(law) for law in share.index if law not in near]:
        told = ", ".join(far) if len(far) < 4 else f"{len(far)} of {share.size} laws"
        ax.annotate(f"not shown: {told}", (0.02, 0.98), xycoords="axes fraction", va="top", fontsize=6.5)
    ax.plot(*point, "*", ms=10, mfc="none", mec=BLACK, label="published")
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.6 * (high - low), high + 0.1 * (high - low))
    ax.set(title=f"both, n = {n} (a line: one law)", xlabel="stop gradient, %", ylabel="moving average, %")
    ax.legend(loc="lower center", ncols=3, columnspacing=0.8, handletextpad=0.2)


def _short(law: str) -> str:
    kind, _, rest = law.partition("(")
    second = rest.rstrip(")").split(",")[-1].strip()
    return f"U(±{second})" if kind == "uniform" else f"N(0, {second}²)"
