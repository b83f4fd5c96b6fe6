"""Outcome percentages over the settings P §5 leaves open.

python figures/p_sensitivity.py [--out DIR] [--fast]
"""

from common import main

main("P-sensitivity", __doc__)
