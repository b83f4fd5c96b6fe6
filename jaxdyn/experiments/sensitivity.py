"""How the outcome percentages depend on what the published experiment does not state."""

import jax
import numpy as np
import xarray as xr

from ..ensemble.engines.base import Progress
from ..ensemble.protocol import Protocol
from ..ensemble.table import outcome_shares
from ..ensemble.trials import Outcome, run_protocols
from ..provenance import provenance

LAWS = (
    *(f"uniform(-{half:g}, {half:g})" for half in (0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3)),
    *(f"normal(0, {std:g})" for std in (0.5, 1)),
)
SIZES = (2, 3, 4)
DECAYS = (0.99, 0.996, 0.9975, 0.999)


def settings_of(protocol: Protocol) -> dict[str, list[Protocol]]:
    """The protocols that are varied: all laws × sizes, and for EMA all laws × decays at the protocol's n."""
    by_law = [protocol.replace(encoder=law, predictor=law) for law in LAWS]
    sizes = [p.replace(n=n) for n in sorted({*SIZES, protocol.n}) for p in by_law]
    others = [p for p in sizes if p.n != protocol.n]
    decays = [p.replace(ema_decay=decay) for decay in sorted({*DECAYS, protocol.ema_decay}) for p in by_law]
    return {"sg": sizes, "ema": decays + others}


def sensitivity(
    protocol: Protocol,
    n_trials: int = 2000,
    seed: int = 0,
    *,
    engine: str = "auto",
    dtype: str = "float64",
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Outcome percentages over the initial law and its scale, n, and the teacher's decay.

    Returns along `cell`: the varied settings (`algorithm`, `law`, `n`, `ema_decay`), the `count` of
    every `outcome`, and the percentage of resolved trials on the outer sphere with its 95 % interval
    (`outer`, `outer_low`, `outer_high`). Other settings are the protocol's.
    """
    rows, counts = [], []
    for algorithm, protocols in settings_of(protocol).items():
        for n in sorted({p.n for p in protocols}):
            group = [p for p in protocols if p.n == n]
            runs = run_protocols(
                algorithm, group, n_trials, seed, engine=engine, dtype=dtype, batch_size=batch_size, progress=progress
            )
            for p, dataset in zip(group, runs, strict=True):
                share = outcome_shares(dataset, resolved=True).get(Outcome.OUTER)
                fractions = (np.nan,) * 3 if share is None else (share.fraction, *share.interval)
                rows.append((algorithm, str(p.encoder), n, p.ema_decay, *(100 * part for part in fractions)))
                counts.append([s.count for s in outcome_shares(dataset).values()])
    columns = {
        name: ("cell", np.array(column), attributes)
        for (name, attributes), column in zip(_COLUMNS.items(), zip(*rows, strict=True), strict=True)
    }
    columns["ema_decay"][1][columns["algorithm"][1] == "sg"] = np.nan
    settings = {"n_trials": n_trials, "seed": seed} | protocol.settings()
    return xr.Dataset(
        columns | {"count": (("cell", "outcome"), np.array(counts, np.int32), {"units": "trials"})},
        coords={"outcome": [outcome.name.lower() for outcome in Outcome]},
        attrs={"title": "sensitivity of the m = 1 outcome percentages"}
        | provenance(settings=settings, precision=dtype, devices=jax.local_devices()[:1]),
    )


_COLUMNS = {
    "algorithm": {"long_name": "procedure"},
    "law": {"long_name": "law of the entries of A(0) and B(0)"},
    "n": {"long_name": "embedding dimension"},
    "ema_decay": {"symbol": "α", "long_name": "decay of the teacher; NaN for sg"},
    "outer": {"units": "%", "long_name": "resolved trials on the outer sphere"},
    "outer_low": {"units": "%", "long_name": "lower end of the 95 % Wilson interval"},
    "outer_high": {"units": "%", "long_name": "upper end of the 95 % Wilson interval"},
}


def n_sensitivity_trials(protocol: Protocol, n_trials: int) -> int:
    """How many trials `sensitivity` runs in all."""
    return n_trials * sum(len(protocols) for protocols in settings_of(protocol).values())
