"""P-branches: all equilibria of SG over the weight decay, with the ends of random trials.

python figures/p_branches.py [--out DIR] [--fast] [--set NAME=VALUE] [--set NAME=VALUE]
"""

from common import main

PARAMETERS = {
    "low": 0.004,
    "high": 0.165,
    "start": 0.05,
    "points": 9,
    "n_trials": 60,
}

main("P-branches", __doc__, PARAMETERS)
