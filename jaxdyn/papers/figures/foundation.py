"""Pictures of the m = 1 experiment and of flows on real moments."""

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ...data.loading import load_moments
from ...plotting.flow import spectra
from ...plotting.trials import sensitivity_panels, trajectory_panels
from ...systems.siamese import MovingAverage, Objective, StopGradient
from ...trials.scalar_laws import ScalarLaws
from ...trials.starts import Stopping
from ..published import PUBLISHED
from .base import Picture
from .portrait import portrait
from .sensitivity import sensitivity
from .spectrum import spectrum


def compute_trajectories(
    *, rho: float = 1.0, tau: float = 1.0, weight_decay: float = 0.15, ema_rate: float = 0.3, t1: float = 100.0,
    lr: float = 0.02, starts: int = 16, seed: int = 0,
) -> xr.Dataset:  # fmt: skip
    """Paths of the three systems from starts on two circles."""
    return portrait(
        rho=rho, tau=tau, weight_decay=weight_decay, ema_rate=ema_rate, t1=t1, lr=lr, starts=starts, seed=seed
    )


def compute_sensitivity(
    *, n_trials: int = 1000, lr: float = 0.05, max_steps: int = 400_000, seed: int = 0
) -> xr.Dataset:
    """Outcome percentages over what the published experiment leaves open."""
    return sensitivity(ScalarLaws(lr=lr), n_trials, stopping=Stopping(max_steps=max_steps), seed=seed)


def compute_spectra(
    *, data: str = "digits", m: int = 6, n: int = 8, weight_decay: float = 0.001, ema_rate: float = 0.05,
    t1: float = 5000.0, scale: float = 0.7, seed: int = 0,
) -> xr.Dataset:  # fmt: skip
    """Eigenvalues of S along the three flows on real views."""
    systems = {
        "stop gradient": StopGradient(weight_decay),
        "moving average": MovingAverage(weight_decay, ema_rate=ema_rate),
        "objective": Objective(weight_decay),
    }
    with jax.enable_x64(True):
        moments = load_moments(data, m, seed=seed)
        flows = [spectrum(system, moments, n=n, t1=t1, scale=scale) for system in systems.values()]
    joined = xr.concat(flows, xr.Variable("system", np.array(list(systems))), combine_attrs="drop_conflicts")
    return joined.assign_attrs(title=f"spectra of S on {data}")


def draw_sensitivity(axes: list[Axes], data: xr.Dataset) -> None:
    sensitivity_panels(axes, data, {name: numbers["outer"] for name, numbers in PUBLISHED.items()})


PICTURES = (
    Picture("P-trajectories", "m = 1, n = 2: paths of SG, EMA and the objective over the circles of equilibria (P Prop "
            "4.11). Ours: ρ = τ = 1, λ = 0.15, β = 0.3, starts on two circles.",
            compute_trajectories, trajectory_panels, 1, 3, 2.7, {"starts": 4}),
    Picture("P-sensitivity", "Outcome percentages over what P §5 leaves open: initial law, n, ema_decay; the published "
            "values drawn in. Other settings are the default settings'; 95 % intervals.",
            compute_sensitivity, draw_sensitivity, 2, 2, 6.0, {"n_trials": 10, "max_steps": 5000}),
    Picture("P-spectrum", "Eigenvalues of S = AᵀA on augmented digits: SG and EMA keep them, the objective loses them. "
            "Ours: m = 6, n = 8, λ = 0.001, β = 0.05.", compute_spectra, spectra, 1, 3, 2.5, {"t1": 500.0}),
)  # fmt: skip
