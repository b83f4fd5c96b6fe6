"""All equilibria of SG and EMA: equations, path tracking, generic solutions, census, certificates."""

from .census import Equilibria, Equilibrium, census, equilibria
from .equations import decay_bound

__all__ = ["Equilibria", "Equilibrium", "census", "decay_bound", "equilibria"]
