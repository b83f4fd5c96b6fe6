"""Outcome percentages over the settings P §5 leaves open.

python figures/p_sensitivity.py [--out DIR] [--fast] [--set NAME=VALUE] [--set NAME=VALUE]
"""

from common import main

PARAMETERS = {
    "n_trials": 1000,
    "lr": 0.05,
    "max_steps": 400000,
    "seed": 0,
}

main("P-sensitivity", __doc__, PARAMETERS)
