"""T Figure 8: the predictor becomes symmetric.

python figures/t_8.py [--out DIR] [--fast]
"""

from common import main

main("T-8", __doc__)
