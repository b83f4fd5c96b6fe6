"""The registry, filled: importing this package registers every claim."""

from . import equilibria, linear, random_trials, tian_modes, tian_observations, tian_theorems, trained
from .base import CLAIMS, Claim, Evidence, Judgement

__all__ = [
    "CLAIMS",
    "Claim",
    "Evidence",
    "Judgement",
    "equilibria",
    "linear",
    "random_trials",
    "tian_modes",
    "tian_observations",
    "tian_theorems",
    "trained",
]
