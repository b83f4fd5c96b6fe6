"""m = 1 trajectories of SG, EMA and the objective over the circles of equilibria (P Prop 4.11).

    python figures/trajectories.py [--out DIR] [--fast]

Settings are ours: ρ = τ = 1, λ = 0.15 (Δ = 0.4), β = 0.3, starts on two circles.
"""

from common import options, save

from jaxdyn.experiments.portrait import portrait
from jaxdyn.plotting.style import figure
from jaxdyn.plotting.trials import trajectory_panels

settings = options(__doc__)
dataset = portrait(n_starts=4 if settings.fast else 16)
with figure(1, 3, height=2.7) as (fig, axes):
    trajectory_panels(axes, dataset)
    save("trajectories", dataset, fig, settings.out)
