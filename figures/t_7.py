"""T Figure 7: is the teacher proportional to the encoder?.

python figures/t_7.py [--out DIR] [--fast] [--set NAME=VALUE] [--set NAME=VALUE]
"""

from common import main

PARAMETERS = {
    "eta": (0.0, 0.01, 0.1),
    "ema_decay": (0.9, 0.99, 0.996, 0.999),
    "sigma": 0.03,
    "lr": 0.01,
    "n": 8,
    "runs": 10,
    "scale": 0.3,
    "steps": 10000,
}

main("T-7", __doc__, PARAMETERS)
