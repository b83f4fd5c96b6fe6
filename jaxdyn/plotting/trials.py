"""Pictures of the m = 1 trials: datasets in, artists out."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ..ensemble.table import PUBLISHED
from ..ensemble.trials import ALGORITHMS, Outcome
from .style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY

# Colour and marker both tell the outcomes apart, so that grey print loses nothing.
OUTCOME_STYLE = {
    Outcome.OUTER: (BLUE, "o", 3),
    Outcome.ORIGIN: (ORANGE, "v", 6),
    Outcome.INNER: (BLACK, "*", 30),
    Outcome.UNDECIDED: (PURPLE, "s", 16),
    Outcome.OUT_OF_STEPS: (GREEN, "D", 14),
    Outcome.DIVERGED: (RED, "x", 16),
}


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
    handles, labels = axes[0].get_legend_handles_labels()
    from matplotlib.lines import Line2D

    handles += [
        Line2D([], [], color=GREY, marker="o", mfc="white", ls="", ms=3),
        Line2D([], [], color=BLUE, marker="o", ms=3.2),
        Line2D([], [], color=ORANGE, marker="o", ms=3.2, ls=(0, (4, 1))),
    ]
    labels += ["start", "to the outer circle", "to the origin (collapse)"]
    axes[0].figure.legend(handles, labels, loc="outside lower center", ncols=5)


def outcome_map(ax: Axes, dataset: xr.Dataset, algorithm: str) -> None:
    """Every trial at (ε, start radius), marked by its outcome."""
    outcomes = dataset["outcome"].values
    for outcome, (colour, marker, size) in OUTCOME_STYLE.items():
        chosen = outcomes == outcome
        label = f"{outcome.name.lower().replace('_', ' ')} ({int(chosen.sum()):,})"
        ax.scatter(
            dataset["epsilon"].values[chosen],
            dataset["start_radius"].values[chosen],
            s=size,
            c=colour,
            marker=marker,
            linewidths=0 if marker in "ovsD" else 0.9,
            alpha=0.35 if outcome is Outcome.OUTER else 0.8,
            label=label,
            rasterized=True,
        )
    positive = dataset["epsilon"].values[dataset["epsilon"].values > 0]
    ax.set_xscale("log")
    ax.set_xlim(max(positive.min(), 1e-6) / 1.3, max(0.25, min(positive.max(), 1e3)) * 1.3)
    ax.axvline(0.25, color=GREY, lw=0.8, ls=":")
    ax.set(
        title=ALGORITHMS[algorithm], xlabel="$\\varepsilon=\\lambda\\rho/\\tau^2$", ylabel="start radius $\\|a(0)\\|$"
    )
    legend = ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, handletextpad=0.2, columnspacing=1.0)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)


def sensitivity_panels(axes: Sequence[Axes], dataset: xr.Dataset) -> None:
    """Outer-sphere percentage over the initial law and n (SG), and ema_decay (EMA); then pair against pair."""
    cells = dataset[["algorithm", "law", "n", "ema_decay", "outer", "outer_low", "outer_high"]].to_dataframe()
    laws = list(dict.fromkeys(cells["law"]))
    at = {law: position for position, law in enumerate(laws)}
    marks = ["o", "s", "^", "D", "v", "P"]
    colours = [BLUE, ORANGE, GREEN, RED, PURPLE, SKY]
    sg, ema = (cells.loc[cells["algorithm"] == name] for name in ("sg", "ema"))
    for ax, table, key, text, name in (
        (axes[0], sg, "n", "n = {}", "sg"),
        (axes[1], ema, "ema_decay", "α = {}", "ema"),
    ):
        for (value, group), colour, mark in zip(table.groupby(key), colours, marks, strict=False):
            error = np.abs(group[["outer_low", "outer_high"]].to_numpy().T - group["outer"].to_numpy())
            ax.errorbar(
                [at[law] for law in group["law"]], group["outer"], error,
                fmt=mark, ms=3.2, color=colour, lw=0.8, label=text.format(value),
            )  # fmt: skip
        ax.axhline(PUBLISHED[name][Outcome.OUTER], color=BLACK, lw=0.8, ls="--", label="published")
        ax.set_xticks(range(len(laws)), [_short(law) for law in laws], rotation=60, ha="right", rotation_mode="anchor")
        ax.set(title=f"{ALGORITHMS[name]}", ylabel="outer sphere, % of resolved")
        ax.legend(loc="lower right", ncols=2, columnspacing=0.8, handletextpad=0.2)
    _pairs(axes[2], sg, ema, laws, int(ema["n"].iloc[0]))


def _pairs(ax: Axes, sg, ema, laws: list[str], n: int) -> None:
    """(SG, EMA) percentages of each law, a line through its decays; the published pair as a star."""
    sg = sg.loc[sg["n"] == n].set_index("law")["outer"]
    for (decay, group), colour, mark in zip(
        ema.groupby("ema_decay"), [BLUE, ORANGE, GREEN, RED, PURPLE, SKY], ["o", "s", "^", "D", "v", "P"], strict=False
    ):
        ax.plot(sg[group["law"]], group["outer"], mark, ms=3.2, color=colour, label=f"α = {decay}")
    for law in laws:
        group = ema.loc[ema["law"] == law]
        ax.plot([sg[law]] * len(group), group["outer"], color=GREY, lw=0.4, zorder=0)
    near = [law for law in laws if abs(sg[law] - PUBLISHED["sg"][Outcome.OUTER]) < 8]
    shown = ema.loc[ema["law"].isin(near), "outer"]
    ax.set_xlim(min(sg[law] for law in near) - 0.7, max(sg[law] for law in near) + 0.7)
    ax.set_ylim(shown.min() - 0.4 * (shown.max() - shown.min()), shown.max() + 1)
    if far := [_short(law) for law in laws if law not in near]:
        ax.annotate(f"not shown: {', '.join(far)}", (0.02, 0.98), xycoords="axes fraction", va="top", fontsize=6.5)
    point = PUBLISHED["sg"][Outcome.OUTER], PUBLISHED["ema"][Outcome.OUTER]
    ax.plot(*point, "*", ms=10, mfc="none", mec=BLACK, label="published")
    ax.set(title=f"both, n = {n} (a line: one law)", xlabel="stop gradient, %", ylabel="moving average, %")
    ax.legend(loc="lower center", ncols=2, columnspacing=0.8, handletextpad=0.2)


def _short(law: str) -> str:
    kind, _, rest = law.partition("(")
    second = rest.rstrip(")").split(",")[-1].strip()
    return f"U(±{second})" if kind == "uniform" else f"N(0, {second}²)"
