"""The registry, filled: importing this package registers every claim."""

from . import equilibria, linear, random_trials, tian_modes, tian_observations, tian_theorems, trained
from .base import CLAIMS, Claim, Evidence, Verdict

__all__ = [
    "CLAIMS",
    "Claim",
    "Evidence",
    "Verdict",
    "equilibria",
    "linear",
    "random_trials",
    "tian_modes",
    "tian_observations",
    "tian_theorems",
    "trained",
]
