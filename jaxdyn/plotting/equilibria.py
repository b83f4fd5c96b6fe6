"""Equilibria: branches over a parameter, Jacobians' spectra, and the cone of S for m = 2."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from .style import BLACK, BLUE, GREY, ORANGE, PURPLE, RED, SKY

# Colours go with the number of unstable directions; markers repeat it for readers without colour.
_WIDTHS = (1.6, 1.1, 0.9, 0.7, 0.5)  # by unstable directions, as colours and markers are
_UNSTABLE = ((BLUE, "o"), (ORANGE, "s"), (RED, "^"), (PURPLE, "D"), (GREY, "v"))


def _look(unstable: float) -> tuple[str, str]:
    return _UNSTABLE[min(int(unstable), len(_UNSTABLE) - 1)]


def _name(unstable: int) -> str:
    return (
        "stable" if unstable == 0 else f"{unstable} unstable" + (" or more" if unstable >= len(_UNSTABLE) - 1 else "")
    )


def branch_panel(ax: Axes, branches: xr.Dataset, label: str) -> None:
    """‖A‖ = √tr S over the parameter; colours, widths, markers by unstable directions; full lines: full rank."""
    seen = {0}
    m = branches.sizes.get("row", 1)
    for index in range(branches.sizes["branch"]):
        branch = branches.isel(branch=index)
        p = branch["parameter"].values
        size = np.sqrt(np.einsum("pii->p", branch["gram"].values))
        unstable, rank = branch["n_unstable"].values, branch["rank"].values
        ends = np.flatnonzero(np.diff(np.nan_to_num(unstable, nan=-1))) + 1
        for part in np.split(np.arange(p.size), ends):
            if np.isnan(p[part[0]]):
                continue
            wide = np.append(part, part[-1] + 1)[: p.size - part[0]]  # reach the next piece: no gap
            colour, marker = _look(float(unstable[part[0]]))
            kind = int(min(unstable[part[0]], len(_UNSTABLE) - 1))
            ax.plot(p[wide], size[wide], color=colour, linestyle="-" if rank[part[0]] == m else (0, (4, 1.5)),
                    linewidth=_WIDTHS[kind])  # fmt: skip
            if kind and part.size > 8:
                middle = part[part.size // 2]
                ax.plot(p[middle], size[middle], marker, color=colour, markersize=3)
            seen.add(kind)
        folds = branch["fold"].values == 1
        ax.plot(p[folds], size[folds], "o", markerfacecolor="white", markeredgecolor=BLACK, markersize=4, zorder=6)
    ax.axhline(0, color=_look(0)[0], linewidth=1.6)
    ax.set(xlabel=label, ylabel="‖A‖ at the equilibrium", ylim=(-0.02 * ax.get_ylim()[1], None))
    entries = [ax.plot([], [], color=_look(kind)[0], linewidth=_WIDTHS[kind], marker=_look(kind)[1] if kind else "",
                       markersize=3)[0] for kind in sorted(seen)]  # fmt: skip
    labels = [_name(kind) for kind in sorted(seen)]
    if m > 1:
        entries.append(ax.plot([], [], color=GREY, linestyle=(0, (4, 1.5)))[0])
        labels.append("rank < m")
    ax.legend(entries, labels)


def trial_ends(ax: Axes, parameter: np.ndarray, size: np.ndarray) -> None:
    """Ends of random trials over the branches."""
    ax.plot(parameter, size, "o", color=BLACK, markersize=3.5, alpha=0.2, markeredgewidth=0, zorder=5)


def eigenvalue_panel(ax: Axes, found: xr.Dataset) -> None:
    """Eigenvalues of the flow's Jacobian in the complex plane, equilibria coloured by unstable directions.

    Where all of them are real, each equilibrium gets a row of its own instead.
    """
    ax.axvspan(0, 1e9, color=GREY, alpha=0.12, linewidth=0)
    ax.axvline(0, color=GREY, linewidth=0.6)
    real, imaginary = found["eigenvalue_real"].values, found["eigenvalue_imag"].values
    flat = np.abs(imaginary).max() < 1e-6 * np.abs(real).max()
    order = np.argsort(-found["n_unstable"].values, kind="stable")
    for row, index in enumerate(order):
        item = found.isel(equilibrium=int(index))
        # The orbit's zeros decide nothing: leave out the smallest.
        kept = np.argsort(np.hypot(real[index], imaginary[index]))[int(item["orbit_dim"]) :]
        colour, marker = _look(float(item["n_unstable"]))
        height = np.full(kept.size, row) if flat else imaginary[index][kept]
        ax.plot(real[index][kept], height, marker, color=colour, markersize=3.5, alpha=0.8, markeredgewidth=0)
    largest = np.abs(real).max() or 1.0
    ax.set_xscale("symlog", linthresh=0.02 * largest, linscale=1.5)
    ax.set(xlabel="Re, 1/time (logarithmic away from zero)",
           xlim=(-1.5 * largest, max(1.5 * real.max(), 0.01 * largest)))  # fmt: skip
    ticks = [-largest, -0.1 * largest, -0.01 * largest, 0.0]
    if real.max() > 0.002 * largest:  # the fastest growth has a tick of its own
        ticks.append(float(real.max()))
    ax.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
    ax.minorticks_off()
    if flat:
        names = [f"{index}: rank {int(found['rank'][int(index)])}" for index in order]
        ax.set_yticks(range(len(order)), names)
        ax.set(ylim=(-0.7, len(order) - 0.3), ylabel="equilibrium (all eigenvalues are real)")
    else:
        ax.set(ylabel="Im", ylim=(-1.15 * np.abs(imaginary).max(), 1.15 * np.abs(imaginary).max()))
    _legend(ax, found)


def _legend(ax: Axes, found: xr.Dataset) -> None:
    kinds = sorted({int(min(value, len(_UNSTABLE) - 1)) for value in found["n_unstable"].values})
    entries = [ax.plot([], [], _look(kind)[1], color=_look(kind)[0], markersize=3.5)[0] for kind in kinds]
    ax.legend(entries, [_name(kind) for kind in kinds])


def cone_panels(axes: list[Axes], data: xr.Dataset) -> None:
    """m = 2: the cone S ⪰ 0 seen from two sides, its equilibria, and flow lines."""
    sides = (("S₁₁ − S₂₂", lambda s: s[..., 0, 0] - s[..., 1, 1]), ("2 S₁₂", lambda s: 2 * s[..., 0, 1]))
    lines, grams = data["flow"].values, data["gram"].values
    top = 1.15 * max(np.trace(grams, axis1=-2, axis2=-1).max(), 1e-9)
    for ax, (name, coordinate) in zip(axes, sides, strict=True):
        height = np.trace(lines, axis1=-2, axis2=-1)
        for index in range(lines.shape[0]):
            ax.plot(coordinate(lines[index]), height[index], color=SKY, linewidth=0.5, alpha=0.7, zorder=1)
        ax.fill_between([-top, 0, top], [top, 0, top], [0, 0, 0], color=GREY, alpha=0.25, linewidth=0, zorder=0)
        order = np.argsort(-data["n_unstable"].values, kind="stable")  # the stable ones on top
        for gram, unstable in zip(grams[order], data["n_unstable"].values[order], strict=True):
            colour, marker = _look(float(unstable))
            ax.plot(coordinate(gram), np.trace(gram), marker, color=colour, markersize=4 + unstable,
                    markeredgecolor=BLACK, markeredgewidth=0.4, zorder=3, clip_on=False)  # fmt: skip
        ax.set(xlabel=name, ylabel="tr S", xlim=(-top, top), ylim=(0, top))
        ax.text(0.97 * top, 0.05 * top, "outside the cone", color=BLACK, ha="right", fontsize=6)
    _legend(axes[0], data)
