"""T Figure 8: the predictor becomes symmetric.

python figures/t_8.py [--out DIR] [--fast] [--set NAME=VALUE] [--set NAME=VALUE]
"""

from common import main

PARAMETERS = {
    "eta": (0.001, 0.01, 0.05),
    "tau": (0.2, 0.4, 0.6, 0.8, 1.0),
    "sigma": 0.1,
    "n": 10,
    "t1": 60.0,
}

main("T-8", __doc__, PARAMETERS)
