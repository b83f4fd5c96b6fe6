"""How the outcome percentages depend on what the published experiment does not state."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr

from ...engines.base import Progress
from ...provenance import provenance
from ...trials.run import run_problems
from ...trials.scalar import Outcome
from ...trials.scalar_laws import ScalarLaws
from ...trials.shares import outcome_shares
from ...trials.starts import Starts, Stopping, plain_settings

LAWS = (
    *(f"uniform(-{half:g}, {half:g})" for half in (0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3)),
    *(f"normal(0, {std:g})" for std in (0.5, 1)),
)
SIZES = (2, 3, 4)
DECAYS = (0.99, 0.996, 0.9975, 0.999)


class Variation(NamedTuple):
    """One varied setting: a problem and its starts."""

    problem: ScalarLaws
    starts: Starts


def cells_of(laws: ScalarLaws, starts: Starts) -> dict[str, list[Variation]]:
    """The settings that are varied: all laws × sizes, and for EMA all laws × decays at the given n."""
    n = starts.n or 2

    def by_law(problem: ScalarLaws, size: int) -> list[Variation]:
        return [Variation(problem, Starts(size, law, law)) for law in LAWS]

    sizes = sorted({*SIZES, n})
    ema = dataclasses.replace(laws, system="ema")
    sg = dataclasses.replace(laws, system="sg", ema_decay=ScalarLaws.ema_decay)
    decays = [cell for decay in sorted({*DECAYS, laws.ema_decay})
              for cell in by_law(dataclasses.replace(ema, ema_decay=decay), n)]  # fmt: skip
    others = [cell for size in sizes if size != n for cell in by_law(ema, size)]
    return {"sg": [cell for size in sizes for cell in by_law(sg, size)], "ema": decays + others}


def sensitivity(
    laws: ScalarLaws | None = None,
    n_trials: int = 2000,
    *,
    starts: Starts | None = None,
    stopping: Stopping | None = None,
    seed: int = 0,
    engine: str = "auto",
    dtype: str = "float64",
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Outcome percentages over the initial law and its scale, n, and the teacher's decay.

    Returns along `cell`: the varied settings (`system`, `law`, `n`, `ema_decay`), the `count` of
    every `outcome`, and the percentage of resolved trials on the outer sphere with its 95 % interval
    (`outer`, `outer_low`, `outer_high`). Other settings are those given.
    """
    laws, starts = laws or ScalarLaws(), starts or Starts()
    rows, counts = [], []
    for system, cells in cells_of(laws, starts).items():
        for n in sorted({cell.starts.n or 2 for cell in cells}):
            group = [cell for cell in cells if cell.starts.n == n]
            runs = run_problems(
                [cell.problem for cell in group], n_trials, starts=[cell.starts for cell in group], stopping=stopping,
                seed=seed, engine=engine, dtype=dtype, batch_size=batch_size, progress=progress,
            )  # fmt: skip
            for cell, dataset in zip(group, runs, strict=True):
                share = outcome_shares(dataset, resolved=True).get(Outcome.OUTER)
                fractions = (np.nan,) * 3 if share is None else (share.fraction, *share.interval)
                decay = cell.problem.ema_decay
                rows.append((system, str(cell.starts.encoder), n, decay, *(100 * part for part in fractions)))
                counts.append([s.count for s in outcome_shares(dataset).values()])
    columns = {
        name: ("cell", np.array(column), attributes)
        for (name, attributes), column in zip(_COLUMNS.items(), zip(*rows, strict=True), strict=True)
    }
    columns["ema_decay"][1][columns["system"][1] == "sg"] = np.nan
    settings = {"n_trials": n_trials, "seed": seed} | plain_settings(laws, ScalarLaws)
    settings |= plain_settings(stopping or Stopping(), Stopping)
    return xr.Dataset(
        columns | {"count": (("cell", "outcome"), np.array(counts, np.int32), {"units": "trials"})},
        coords={"outcome": [outcome.name.lower() for outcome in Outcome]},
        attrs={"title": "sensitivity of the m = 1 outcome percentages"}
        | provenance(settings=settings, precision=dtype, devices=jax.local_devices()[:1]),
    )


_COLUMNS = {
    "system": {"long_name": "system"},
    "law": {"long_name": "law of the entries of A(0) and B(0)"},
    "n": {"long_name": "embedding dimension"},
    "ema_decay": {"symbol": "α", "long_name": "decay of the teacher; NaN for sg"},
    "outer": {"units": "%", "long_name": "resolved trials on the outer sphere"},
    "outer_low": {"units": "%", "long_name": "lower end of the 95 % Wilson interval"},
    "outer_high": {"units": "%", "long_name": "upper end of the 95 % Wilson interval"},
}


def n_sensitivity_trials(laws: ScalarLaws, starts: Starts, n_trials: int) -> int:
    """How many trials `sensitivity` runs in all."""
    return n_trials * sum(map(len, cells_of(laws, starts).values()))
