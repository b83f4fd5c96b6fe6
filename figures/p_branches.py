"""P-branches: all equilibria of SG over the weight decay, with the ends of random trials.

python figures/p_branches.py [--out DIR] [--fast]
"""

from common import main

main("P-branches", __doc__)
