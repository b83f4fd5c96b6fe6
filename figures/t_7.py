"""T Figure 7: is the teacher proportional to the encoder?.

python figures/t_7.py [--out DIR] [--fast]
"""

from common import main

main("T-7", __doc__)
