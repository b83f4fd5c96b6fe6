"""Pictures of a flow on given moments: datasets in, artists out."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from .style import BLACK, BLUE, ORANGE


def spectrum_panels(axes: Sequence[Axes], dataset: xr.Dataset) -> None:
    """Three panels over time: eigenvalues of S, the balance and its residual, the energies E and F."""
    later = dataset.isel(time=slice(1, None))  # time 0 has no place on a logarithmic axis
    time = later["time"].values
    _eigenvalues(axes[0], later)
    axes[0].set(title="spectrum of $S=A^\\top A$", ylabel="eigenvalue")
    axes[1].semilogy(time, later["balance"], color=BLUE, label="$\\|K(t)\\|$")
    residual = np.maximum(later["balance_residual"], 1e-17)
    axes[1].semilogy(time, residual, color=ORANGE, ls="--", label="$\\|K(t)-e^{-2\\lambda t}K(0)\\|$")
    axes[1].set(title="balance $K=AA^\\top-B^\\top B/\\alpha_p$", ylabel="Frobenius norm")
    axes[2].plot(time, later["objective"], color=BLACK, label="E")
    axes[2].plot(time, later["surrogate"], color=ORANGE, ls="--", label="F")
    axes[2].set(title="energies", ylabel="E, F")
    for ax in axes:
        _over_time(ax, time)


def spectra(axes: Sequence[Axes], dataset: xr.Dataset) -> None:
    """Eigenvalues of S over time, one panel a system, on common axes."""
    later = dataset.isel(time=slice(1, None))
    for ax, name in zip(axes, later["system"].values, strict=True):
        _eigenvalues(ax, later.sel(system=name))
        ax.set(title=str(name))
        top = float(later["eigenvalue"].max())
        ax.set_ylim(1e-8 * top, 3 * top)
        _over_time(ax, later["time"].values)
    axes[0].set_ylabel("eigenvalues of $S=A^\\top A$")


def _eigenvalues(ax: Axes, dataset: xr.Dataset) -> None:
    values = np.maximum(dataset["eigenvalue"].transpose("time", "mode").values, 1e-300)
    modes = values.shape[1]
    for mode, colour in enumerate(matplotlib.colormaps["viridis"](np.linspace(0, 0.85, modes))):
        label = {0: "largest", modes - 1: "smallest"}.get(mode)
        ax.semilogy(dataset["time"], values[:, mode], color=colour, label=label)
    top = float(values.max())
    ax.set_ylim(max(float(values.min()), 1e-12 * top) / 2, 3 * top)


def _over_time(ax: Axes, time: np.ndarray) -> None:
    ax.set_xscale("log")
    ax.set_xlim(time[0], time[-1])
    ax.set_xlabel("time (flow units)")
    ax.legend()
