"""T Figure 3: the modes in the (p, s) plane.

python figures/t_3.py [--out DIR] [--fast]
"""

from common import main

main("T-3", __doc__)
