"""P-eigenvalues: spectra of the Jacobian at every equilibrium of SG and EMA.

python figures/p_eigenvalues.py [--out DIR] [--fast]
"""

from common import main

main("P-eigenvalues", __doc__)
