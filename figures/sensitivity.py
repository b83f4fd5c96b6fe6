"""Outcome percentages over what the published m = 1 experiment leaves open: initial law, n, ema_decay (P §5).

    python figures/sensitivity.py [--out DIR] [--fast]

Other settings are the default protocol's. About a minute on two cores.
"""

from common import options, save

from jaxdyn.ensemble.protocol import Protocol
from jaxdyn.experiments.sensitivity import sensitivity
from jaxdyn.plotting.style import figure
from jaxdyn.plotting.trials import sensitivity_panels

settings = options(__doc__)
dataset = sensitivity(Protocol(max_steps=5000), 10) if settings.fast else sensitivity(Protocol(), 2000)
with figure(2, 2, height=6.0) as (fig, axes):
    sensitivity_panels(axes, dataset)
    save("sensitivity", dataset, fig, settings.out)
