"""The registry, filled: importing this package registers every claim."""

from . import (
    equilibria,
    existence,
    landscape,
    linear,
    open_sets,
    random_trials,
    tian_modes,
    tian_observations,
    tian_theorems,
    trained,
)
from .base import CLAIMS, Claim, Evidence, Judgement

__all__ = [
    "CLAIMS",
    "Claim",
    "Evidence",
    "Judgement",
    "equilibria",
    "existence",
    "landscape",
    "linear",
    "open_sets",
    "random_trials",
    "tian_modes",
    "tian_observations",
    "tian_theorems",
    "trained",
]
