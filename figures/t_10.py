"""T Figure 10: the scalar network.

python figures/t_10.py [--out DIR] [--fast]
"""

from common import main

main("T-10", __doc__)
