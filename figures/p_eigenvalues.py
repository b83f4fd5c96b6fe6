"""P-eigenvalues: spectra of the Jacobian at every equilibrium of SG and EMA.

python figures/p_eigenvalues.py [--out DIR] [--fast] [--set NAME=VALUE] [--set NAME=VALUE]
"""

from common import main

PARAMETERS = {
    "weight_decay": 0.01,
    "ema_rate": 0.05,
}

main("P-eigenvalues", __doc__, PARAMETERS)
