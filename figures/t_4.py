"""T Figure 4: the cubic of the invariant parabola.

python figures/t_4.py [--out DIR] [--fast]
"""

from common import main

main("T-4", __doc__)
