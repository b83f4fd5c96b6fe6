"""All equilibria of SG and EMA: equations, path tracking, generic solutions, census, certificates."""

from .equations import decay_bound
from .listing import Equilibria, Equilibrium, census, equilibria

__all__ = ["Equilibria", "Equilibrium", "census", "decay_bound", "equilibria"]
