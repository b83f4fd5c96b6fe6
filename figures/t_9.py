"""T Figure 9: alignment of F and W_p.

python figures/t_9.py [--out DIR] [--fast] [--set NAME=VALUE] [--set NAME=VALUE]
"""

from common import main

PARAMETERS = {
    "eta": (0.0, 0.01, 0.05, 0.2),
    "tau": (0.2, 0.4, 0.6, 0.8, 1.0),
    "sigma": 0.1,
    "n": 6,
    "t1": 30.0,
}

main("T-9", __doc__, PARAMETERS)
