"""Spectra of S on digits for SG, EMA and the objective.

python figures/p_spectrum.py [--out DIR] [--fast] [--set NAME=VALUE] [--set NAME=VALUE]
"""

from common import main

PARAMETERS = {
    "data": "digits",
    "m": 6,
    "n": 8,
    "weight_decay": 0.001,
    "ema_rate": 0.05,
    "t1": 5000.0,
    "scale": 0.7,
    "seed": 0,
}

main("P-spectrum", __doc__, PARAMETERS)
