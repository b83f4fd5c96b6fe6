"""T Table 4 as small multiples: each observation's ensembles, with their intervals."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from ...plotting.style import BLUE
from ..claims import CLAIMS
from .base import Picture

NUMBERS = range(1, 11)
TITLES = {
    1: "#1 fast predictor: less collapse",
    2: "#2 … but the encoder stops growing",
    3: "#3 weight decay ties s to p",
    4: "#4 weight decay widens the basin of collapse",
    5: "#5 collapse is forced above the threshold",
    6: "#6 fast predictor keeps K > 0",
    7: "#7 weight decay keeps K > 0",
    8: "#8 EMA keeps K > 0",
    9: "#9 slow EMA is slow",
    10: "#10 small τ, slow EMA: more collapse",
}


def compute(*, few: bool = False) -> xr.Dataset:
    """The rows of the claims' evidence that vary a parameter: value, and its interval where it has one."""
    rows = []
    for number in NUMBERS:
        for row in CLAIMS[f"T-Obs{number}"].compute(few).all_rows():
            if row.at and (row.interval is not None or row.label.startswith(("median", "spread"))):
                where = ", ".join(f"{name} = {value}" for name, value in row.at.items())
                rows.append((number, where, row.label, row.value, *(row.interval or (row.value, row.value))))
    names = ("observation", "setting", "quantity", "value", "low", "high")
    columns = {name: ("row", np.array(column)) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    return xr.Dataset(columns, attrs={"title": "T Table 4: the ten observations"})


def draw(axes: list[Axes], data: xr.Dataset) -> None:
    for ax, number in zip(axes, NUMBERS, strict=True):
        here = data.isel(row=np.flatnonzero(data["observation"].values == number))
        at = np.arange(here.sizes["row"])[::-1]
        value = here["value"].values
        error = np.abs(np.stack([here["low"], here["high"]]) - value)
        ax.errorbar(value, at, xerr=error, fmt="o", ms=3, lw=0.9, color=BLUE)
        ax.set_yticks(at, [str(s).replace("α_p", r"$\alpha_p$") for s in here["setting"].values], fontsize=6)
        what = str(here["quantity"].values[0])
        if what.startswith(("median", "spread")):
            ax.set_xscale("log")
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.set_xlabel(what.replace("median time to rest of surviving modes", "median time to rest"), fontsize=7)
        else:
            ax.set_xlim(-4, 104)
            ax.set_xlabel(f"{what}, %", fontsize=7)
        ax.set_ylim(-0.6, at.max() + 0.6)
        ax.set_title(TITLES[number], fontsize=8)
        ax.tick_params(axis="x", labelsize=7)


PICTURES = (
    Picture("T-Table4", "The ten observations of T Table 4 as ensembles of random modes, with 95 % intervals; settings "
            "in `jaxdyn claims --only T-Obs1` … `T-Obs10`, all ours.", compute, draw, 5, 2, 9.0, {"few": True}),
)  # fmt: skip
