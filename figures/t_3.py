"""T Figure 3: the modes in the (p, s) plane.

python figures/t_3.py [--out DIR] [--fast] [--set NAME=VALUE] [--set NAME=VALUE]
"""

from common import main

PARAMETERS = {
    "eta": (0.0, 0.01, 1.0),
    "sigma": 0.5,
    "alpha_p": 1.0,
    "tau": 1.0,
    "grid": 61,
}

main("T-3", __doc__, PARAMETERS)
