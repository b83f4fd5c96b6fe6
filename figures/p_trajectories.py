"""m = 1 trajectories over the circles of equilibria (P Prop 4.11).

python figures/p_trajectories.py [--out DIR] [--fast] [--set NAME=VALUE] [--set NAME=VALUE]
"""

from common import main

PARAMETERS = {
    "rho": 1.0,
    "tau": 1.0,
    "weight_decay": 0.15,
    "ema_rate": 0.3,
    "t1": 100.0,
    "lr": 0.02,
    "starts": 16,
    "seed": 0,
}

main("P-trajectories", __doc__, PARAMETERS)
