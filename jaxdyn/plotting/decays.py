"""Shares of random starts that stay alive and aligned, over decays of encoder and predictor and over other settings."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from .style import BLACK, BLUE, GREY, ORANGE

_SHARES = LinearSegmentedColormap.from_list("alive", ["#f6f6f6", BLUE])
_LOOKS = (("none", GREY, "o"), ("both", ORANGE, "s"), ("predictor only", BLUE, "^"))


def decay_panels(axes: Sequence[Axes], data: xr.Dataset) -> None:
    """One panel a system: the plane (η_s, η_p) in the colour of the share alive and aligned, K > 0 as numbers."""
    eta_s, eta_p = data["encoder_decay"].values, data["predictor_decay"].values
    half = np.diff(eta_s).mean() / 2
    edges = (eta_p[0] - half, eta_p[-1] + half, eta_s[0] - half, eta_s[-1] + half)
    for ax, name in zip(axes, data["system"].values, strict=True):
        positive, alive = (data["plane"].sel(system=name).isel(measure=i).values for i in (0, 1))
        ax.imshow(alive, origin="lower", extent=edges, cmap=_SHARES, vmin=0, vmax=1, aspect="auto")
        for row, s in enumerate(eta_s):
            for column, p in enumerate(eta_p):
                ink = "white" if alive[row, column] > 0.6 else BLACK
                ax.text(p, s, f"{100 * positive[row, column]:.0f}", ha="center", va="center", fontsize=6, color=ink)
        ax.plot([0, eta_p[-1]], [0, eta_s[-1]], color=BLACK, lw=0.7, ls=":")
        ax.set(title=str(name), xlabel="η_p")
    axes[0].set_ylabel("η_s")
    bar = axes[0].figure.colorbar(axes[0].images[0], ax=list(axes), shrink=0.9, pad=0.01)
    bar.set_label("alive and aligned")


def decay_lines(ax: Axes, data: xr.Dataset) -> None:
    """Alive and aligned (full) and K > 0 throughout (hollow) over each other setting, for three pairs of decays."""
    ticks, labels, at = [], [], 0.0
    for setting in data["setting"].values:
        levels = data["value"].sel(setting=setting).values
        x = at + np.arange(levels.size)
        for decay, colour, marker in _LOOKS:
            positive, alive = data["line"].sel(setting=setting, decay=decay).values.T
            ax.plot(x, alive, marker=marker, color=colour, ms=3, lw=0.9, label=decay if at == 0 else None)
            ax.plot(x, positive, marker=marker, color=colour, mfc="white", ms=3, lw=0.7, ls=":")
        ticks += x.tolist()
        labels += [f"{level:g}" for level in levels]
        ax.text(x.mean(), 1.04, str(setting), ha="center", fontsize=7)
        at = x[-1] + 2
    ax.set_xticks(ticks, labels, fontsize=6, rotation=90)
    ax.set(ylim=(0, 1.12), yticks=[0, 0.5, 1])
