"""T Figure 10: the scalar network.

python figures/t_10.py [--out DIR] [--fast] [--set NAME=VALUE] [--set NAME=VALUE]
"""

from common import main

PARAMETERS = {
    "total": 1.0,
    "shared": 0.5,
    "beta": 1.0,
    "grid": 49,
}

main("T-10", __doc__, PARAMETERS)
