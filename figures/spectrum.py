"""The spectrum of S = Aᵀ A learned on augmented digits: SG and EMA keep it, the objective loses it.

    python figures/spectrum.py [--out DIR] [--fast]

Settings are ours: m = 6 principal components, n = 8, λ = 0.001, β = 0.05.
"""

import jax
import numpy as np
import xarray as xr
from common import options, save

from jaxdyn.experiments.spectrum import spectrum
from jaxdyn.moments import Moments
from jaxdyn.plotting.flow import spectra
from jaxdyn.plotting.style import figure
from jaxdyn.systems.siamese import MovingAverage, Objective, StopGradient
from jaxdyn.views import digits_views

settings = options(__doc__)
systems = {
    "stop gradient": StopGradient(0.001),
    "moving average": MovingAverage(0.001, ema_rate=0.05),
    "objective": Objective(0.001),
}
with jax.enable_x64(True):
    moments = Moments.from_views(*digits_views(jax.random.key(0), 6))
    flows = [
        spectrum(system, moments, n=8, t1=500.0 if settings.fast else 5000.0, scale=0.7) for system in systems.values()
    ]
dataset = xr.concat(flows, xr.Variable("system", np.array(list(systems))), combine_attrs="drop_conflicts")
with figure(1, 3, height=2.5) as (fig, axes):
    spectra(axes, dataset)
    save("spectrum", dataset, fig, settings.out)
