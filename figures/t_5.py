"""T Figure 5: weight decay and EMA on one mode.

python figures/t_5.py [--out DIR] [--fast] [--set NAME=VALUE] [--set NAME=VALUE]
"""

from common import main

PARAMETERS = {
    "eta": (0.0, 0.01, 0.04, 0.1, 0.2),
    "beta": (0.02, 0.1, 0.4, 2.0),
    "fixed_eta": 0.04,
    "fixed_beta": 0.4,
    "sigma": 0.1,
    "p0": 0.5,
    "s0": 0.05,
    "tau0": 0.0,
    "lr": 0.01,
    "steps": 10000,
}

main("T-5", __doc__, PARAMETERS)
