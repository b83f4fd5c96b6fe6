"""T Table 4: the ten observations.

python figures/t_table4.py [--out DIR] [--fast] [--set NAME=VALUE] [--set NAME=VALUE]
"""

from common import main

PARAMETERS = {
    "few": False,
}

main("T-Table4", __doc__, PARAMETERS)
