"""T Figure 9: alignment of F and W_p.

python figures/t_9.py [--out DIR] [--fast]
"""

from common import main

main("T-9", __doc__)
