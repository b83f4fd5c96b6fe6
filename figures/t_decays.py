"""T-decays: what carries T Table 5, over the decays of encoder and predictor and over other settings.

python figures/t_decays.py [--out DIR] [--fast] [--set NAME=VALUE] [--set NAME=VALUE]
"""

from common import main

PARAMETERS = {
    "starts": 200,
    "t1": 100.0,
    "decays": 7,
    "largest": 0.18,
}

main("T-decays", __doc__, PARAMETERS)
