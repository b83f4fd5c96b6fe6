"""Outcome counts of trials as a table, beside the published percentages."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from .intervals import Interval, wilson
from .trials import Outcome

# P §5 (m = 1, 10,000 trials): per cent of trials; every trial converged. Other outcomes: none reported.
PUBLISHED = {
    "sg": {Outcome.OUTER: 82.0, Outcome.ORIGIN: 18.0, Outcome.INNER: 0.0},
    "ema": {Outcome.OUTER: 92.8, Outcome.ORIGIN: 7.2, Outcome.INNER: 0.0},
}
RESOLVED = (Outcome.OUTER, Outcome.ORIGIN, Outcome.INNER)


@dataclass(frozen=True)
class Share:
    """How many of `total` trials had an outcome; 95 % Wilson interval of the fraction."""

    outcome: Outcome
    count: int
    total: int

    @property
    def fraction(self) -> float:
        return self.count / self.total

    @property
    def interval(self) -> Interval:
        return wilson(self.count, self.total)


def outcome_shares(dataset: xr.Dataset, *, resolved: bool = False) -> dict[Outcome, Share]:
    """The share of every outcome, among all trials or among those that ended at an equilibrium.

    Every class is present, also the empty ones, so counts over all trials add up to their number.
    If no trial is resolved, the shares among the resolved are an empty dictionary.
    """
    counts = np.bincount(dataset["outcome"].values, minlength=len(Outcome))
    classes = RESOLVED if resolved else tuple(Outcome)
    total = int(sum(counts[outcome] for outcome in classes))
    return {outcome: Share(outcome, int(counts[outcome]), total) for outcome in classes} if total else {}


def format_table(datasets: dict[str, xr.Dataset]) -> str:
    """Every class of every algorithm, in 75 columns: measured with its interval, and published."""
    lines = [f"{'':11}{'outcome':14}{'trials':>9}{'measured':>11}{'95 % interval':>18}{'published':>12}", "-" * 75]
    for algorithm, dataset in datasets.items():
        published = PUBLISHED.get(algorithm, {})
        for row, share in enumerate(outcome_shares(dataset).values()):
            label = algorithm.upper() if row == 0 else ""
            name = share.outcome.name.lower().replace("_", " ")
            known = f"{published[share.outcome]:.1f} %" if share.outcome in published else "–"
            lines.append(f"{label:11}{name:14}{share.count:>9,}{_percent(share)}{known:>12}")
        for share in outcome_shares(dataset, resolved=True).values():
            if share.outcome is Outcome.OUTER:
                known = f"{published[share.outcome]:.1f} %" if published else "–"
                lines.append(f"{'':11}{'outer/resolved':14}{share.total:>9,}{_percent(share)}{known:>12}")
        lines.append("-" * 75)
    return "\n".join(lines)


def _percent(share: Share) -> str:
    low, high = share.interval
    return f"{100 * share.fraction:>9.2f} %{f'{100 * low:.2f} – {100 * high:.2f} %':>18}"
