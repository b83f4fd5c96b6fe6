"""m = 1 trajectories over the circles of equilibria (P Prop 4.11).

python figures/p_trajectories.py [--out DIR] [--fast]
"""

from common import main

main("P-trajectories", __doc__)
