"""Pictures of the m = 1 experiment and of flows on real moments."""

import jax
import numpy as np
import xarray as xr

from ..ensemble.protocol import Protocol
from ..experiments.portrait import portrait
from ..experiments.sensitivity import sensitivity
from ..experiments.spectrum import spectrum
from ..moments import Moments
from ..plotting.flow import spectra
from ..plotting.trials import sensitivity_panels, trajectory_panels
from ..systems.siamese import MovingAverage, Objective, StopGradient
from ..views import digits_views
from .base import Picture


def compute_spectra(fast: bool) -> xr.Dataset:
    systems = {
        "stop gradient": StopGradient(0.001),
        "moving average": MovingAverage(0.001, ema_rate=0.05),
        "objective": Objective(0.001),
    }
    with jax.enable_x64(True):
        moments = Moments.from_views(*digits_views(jax.random.key(0), 6))
        t1 = 500.0 if fast else 5000.0
        flows = [spectrum(system, moments, n=8, t1=t1, scale=0.7) for system in systems.values()]
    joined = xr.concat(flows, xr.Variable("system", np.array(list(systems))), combine_attrs="drop_conflicts")
    return joined.assign_attrs(title="spectra of S on digits")


PICTURES = (
    Picture("P-trajectories", "m = 1, n = 2: paths of SG, EMA and the objective over the circles of equilibria (P Prop "
            "4.11). Ours: ρ = τ = 1, λ = 0.15, β = 0.3, starts on two circles.",
            lambda fast: portrait(n_starts=4 if fast else 16), trajectory_panels, 1, 3, 2.7),
    Picture("P-sensitivity", "Outcome percentages over what P §5 leaves open: initial law, n, ema_decay; the published "
            "values drawn in. Other settings are the default protocol's; 95 % intervals.",
            lambda fast: sensitivity(Protocol(max_steps=5000), 10) if fast else sensitivity(Protocol(), 1000),
            sensitivity_panels, 2, 2, 6.0),
    Picture("P-spectrum", "Eigenvalues of S = AᵀA on augmented digits: SG and EMA keep them, the objective loses them. "
            "Ours: m = 6, n = 8, λ = 0.001, β = 0.05.", compute_spectra, spectra, 1, 3, 2.5),
)  # fmt: skip
