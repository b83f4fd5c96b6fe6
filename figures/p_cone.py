"""P-cone: m = 2, the cone of S with its equilibria and flow lines.

python figures/p_cone.py [--out DIR] [--fast]
"""

from common import main

main("P-cone", __doc__)
