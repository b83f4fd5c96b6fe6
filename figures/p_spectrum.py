"""Spectra of S on digits for SG, EMA and the objective.

python figures/p_spectrum.py [--out DIR] [--fast]
"""

from common import main

main("P-spectrum", __doc__)
