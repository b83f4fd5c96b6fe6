"""P-separatrix: n = m = 1, the curve between starts that collapse and starts that do not.

python figures/p_separatrix.py [--out DIR] [--fast] [--set NAME=VALUE] [--set NAME=VALUE]
"""

from common import main

PARAMETERS = {
    "share": (0.2, 0.6, 0.9),
    "starts": 400,
    "predictor_lr_ratio": 1.0,
    "seed": 3,
}

main("P-separatrix", __doc__, PARAMETERS)
