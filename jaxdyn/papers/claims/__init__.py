"""The registry, filled: importing this package registers every claim."""

from . import (
    cycles,
    equilibria,
    existence,
    fields,
    landscape,
    linear,
    open_sets,
    random_trials,
    tian_appendix,
    tian_decays,
    tian_modes,
    tian_observations,
    tian_theorems,
    trained,
)
from .base import CLAIMS, Claim, Clause, Evidence, Judgement, Result, Row

__all__ = [
    "CLAIMS",
    "Claim",
    "Clause",
    "Evidence",
    "Judgement",
    "Result",
    "Row",
    "cycles",
    "equilibria",
    "existence",
    "fields",
    "landscape",
    "linear",
    "open_sets",
    "random_trials",
    "tian_appendix",
    "tian_decays",
    "tian_modes",
    "tian_observations",
    "tian_theorems",
    "trained",
]
