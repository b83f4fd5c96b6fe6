"""T Table 4: the ten observations.

python figures/t_table4.py [--out DIR] [--fast]
"""

from common import main

main("T-Table4", __doc__)
