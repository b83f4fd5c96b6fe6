"""T Figure 4: the cubic of the invariant parabola.

python figures/t_4.py [--out DIR] [--fast] [--set NAME=VALUE] [--set NAME=VALUE]
"""

from common import main

PARAMETERS = {
    "share": (0.0, 0.5, 1.5),
    "sigma": 0.5,
    "tau": 1.0,
}

main("T-4", __doc__, PARAMETERS)
