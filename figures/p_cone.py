"""P-cone: m = 2, the cone of S with its equilibria and flow lines.

python figures/p_cone.py [--out DIR] [--fast] [--set NAME=VALUE] [--set NAME=VALUE]
"""

from common import main

PARAMETERS = {
    "weight_decay": 0.05,
    "flows": 60,
    "t1": 400.0,
}

main("P-cone", __doc__, PARAMETERS)
