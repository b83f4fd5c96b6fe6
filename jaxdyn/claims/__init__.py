"""The registry, filled: importing this package registers every claim."""

from . import linear, random_trials
from .base import CLAIMS, Claim, Evidence, Verdict

__all__ = ["CLAIMS", "Claim", "Evidence", "Verdict", "linear", "random_trials"]
