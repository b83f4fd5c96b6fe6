"""T Figure 5: weight decay and EMA on one mode.

python figures/t_5.py [--out DIR] [--fast]
"""

from common import main

main("T-5", __doc__)
