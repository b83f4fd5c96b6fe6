"""Outcomes of trials as shares with intervals, and as a table."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..checks import checked_arguments
from ..intervals import Interval, proportion
from .base import UNSETTLED


@dataclass(frozen=True)
class Share:
    """How many of `total` trials ended in the class `name`; 95 % Wilson interval of the fraction."""

    name: str
    count: int
    total: int

    @property
    def fraction(self) -> float:
        return self.count / self.total

    @property
    def interval(self) -> Interval:
        return proportion(self.count, self.total)

    @property
    def is_settled(self) -> bool:
        """Whether the class is an equilibrium."""
        return self.name not in UNSETTLED


@checked_arguments
def outcome_shares(trials: xr.Dataset, *, resolved: bool = False) -> dict[int, Share]:
    """The share of every outcome, among all trials or among those that ended at an equilibrium.

    Every class is present, also the empty ones, so counts over all trials add up to their number.
    If no trial is resolved, the shares among the resolved are an empty dictionary.
    """
    names = trials["outcome"].attrs["flag_meanings"].split()
    counts = np.bincount(trials["outcome"].values, minlength=len(names))
    classes = [index for index, name in enumerate(names) if not (resolved and name in UNSETTLED)]
    total = int(sum(counts[index] for index in classes))
    return {index: Share(names[index], int(counts[index]), total) for index in classes} if total else {}


@checked_arguments
def table(trials: xr.Dataset | dict[str, xr.Dataset], *, published: dict[str, dict[str, float]] | None = None) -> str:
    """Every class of trials with its share and 95 % interval, in 75 columns (or as many as names of classes need).

    Args:
        trials: of `run_trials`, or several under a label each.
        published: percentages to stand beside, by label and class; then the outer sphere's share of the resolved trials
            is added.
    """
    several = {str(trials.attrs["system"]): trials} if isinstance(trials, xr.Dataset) else trials
    labels = {label: [share.name for share in outcome_shares(each).values()] for label, each in several.items()}
    wide = max(14, *(len(name) + 2 for names in labels.values() for name in names))
    first = max(11, *(len(label) + 2 for label in several))
    head = f"{'':{first}}{'outcome':{wide}}{'trials':>9}{'measured':>11}{'95 % interval':>18}"
    rule = "-" * (len(head) + (12 if published is not None else 0))
    lines = [head + (f"{'published':>12}" if published is not None else ""), rule]
    for label, each in several.items():
        stated = (published or {}).get(label, {})
        known = lambda name: f"{stated[name]:.1f} %" if name in stated else "–"  # noqa: B023, E731
        for row, share in enumerate(outcome_shares(each).values()):
            line = f"{label.upper() if label.islower() and row == 0 else label if row == 0 else '':{first}}"
            line += f"{share.name.replace('_', ' '):{wide}}{share.count:>9,}{_percent(share)}"
            lines.append(line + (f"{known(share.name):>12}" if published is not None else ""))
        if published is not None:
            for share in outcome_shares(each, resolved=True).values():
                if share.name == "outer":
                    line = f"{'':{first}}{'outer/resolved':{wide}}{share.total:>9,}{_percent(share)}"
                    lines.append(f"{line}{known('outer'):>12}")
        lines.append(rule)
    return "\n".join(lines)


def _percent(share: Share) -> str:
    low, high = share.interval
    return f"{100 * share.fraction:>9.2f} %{f'{100 * low:.2f} – {100 * high:.2f} %':>18}"
