"""Whether SG and EMA avoid collapse: how often random trials end collapsed, wholly or in part, over the settings."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ...analysis.linearise import Verdict, linearise
from ...equilibria.equations import decay_bound
from ...moments import Moments
from ...systems.siamese import MovingAverage, StopGradient
from ...trials.problems import RandomMoments
from ...trials.run import run_trials
from ...trials.starts import Starts
from ..figures.parted import compute_parted, on_the_wrong_side
from .base import Clause, Evidence, Row, claim, clause, limit, share, shown, trend
from .made_up import trends

_BASE: dict[str, Any] = {"m": 2, "decay_share": 0.1, "scale": 1.5, "predictor_lr_ratio": 1.0}
_LEVELS: dict[str, tuple[Any, ...]] = {
    "scale": (0.01, 0.1, 1.5), "decay_share": (0.03, 0.1, 0.3, 0.6), "predictor_lr_ratio": (0.3, 1.0, 3.0),
    "m": (1, 2, 3), "n": (2, 3, 6), "ema_rate": (0.02, 0.05, 0.5),
}  # fmt: skip
_NAMES = {"scale": "start scale", "decay_share": "λ as a share of its bound", "predictor_lr_ratio": "α_p", "m": "m",
          "n": "n", "ema_rate": "β"}  # fmt: skip


class _Shares(NamedTuple):
    """How many trials ended at rank zero, at a lower one than could be, at full rank, and at none."""

    collapsed: int
    partly: int
    full: int
    elsewhere: int

    @property
    def total(self) -> int:
        return sum(self)

    def row(self, label: str, count: int, **at: Any) -> Row:
        return share(label, np.arange(self.total) < count, **at)


def _shares(count: int, system: str, **changes: Any) -> _Shares:
    settings = _BASE | changes
    scale, n = settings.pop("scale"), settings.pop("n", None)
    law = f"uniform({-scale:g}, {scale:g})"
    problem = RandomMoments(system, **settings)  # pyright: ignore[reportArgumentType]
    found = run_trials(problem, count, starts=Starts(n, law, law), seed=17)
    return _counted(found, settings["m"] if n is None else min(n, settings["m"]))


def _counted(found: xr.Dataset, highest: int) -> _Shares:
    names = found["outcome"].attrs["flag_meanings"].split()
    of = dict(zip(names, np.bincount(found["outcome"].values, minlength=len(names)).tolist(), strict=True))
    partly = sum(of[f"rank_{rank}"] for rank in range(1, highest))
    return _Shares(of["rank_0"], partly, of[f"rank_{highest}"], found.sizes["trial"] - of["rank_0"] - partly
                   - of[f"rank_{highest}"])  # fmt: skip


@claim(
    "P-avoid",
    source="P abstract; beside P Prop 4.10",
    statement="SG and EMA avoid collapse, although they minimise no objective.",
    null=trends((3, -1), (4, 1), (3, -1), (4, 1), size=1000),
)
def avoid_collapse(fast: bool) -> Evidence:
    count = 60 if fast else 1000
    # A quick look takes what the clauses rest on.
    levels = {name: _LEVELS[name] for name in ("scale", "decay_share")} if fast else _LEVELS
    beside: list[Row] = []
    collapsed: dict[tuple[str, str], list[Row]] = {}
    base: dict[str, _Shares] = {}
    for system in ("sg", "ema"):
        for name, values in levels.items():
            if name == "ema_rate" and system == "sg":
                continue
            for value in values:
                found = _shares(count // 4 if value == 3 and name == "m" else count, system, **{name: value})
                at: dict[str, Any] = {"system": system.upper(), _NAMES[name]: value}
                row = found.row("trials that collapse", found.collapsed, **at)
                collapsed.setdefault((system, name), []).append(row)
                beside += [row, found.row("… in part", found.partly, **at), found.row("… not at all", found.full, **at),
                           shown("… unsettled, trials", found.elsewhere, None, "", **at)]  # fmt: skip
                if name == "scale" and value == _BASE["scale"]:
                    base[system] = found
    return Evidence(
        f"{count} random trials a setting, each on moments of its own (m = 2, n = 3, entries of the start U[−1.5, "
        "1.5], λ = 0.1 of the bound, α_p = 1, β = 0.05, lr = 0.05 unless stated), matched against the census of its "
        "own problem; and the stable manifold of the saddle at n = m = 1, where it parts the plane",
        (_avoided(base, collapsed), _not_always(base), _attracts(fast), _parted(fast)),
        tuple(beside),
    )


def _avoided(base: dict[str, _Shares], collapsed: dict[tuple[str, str], list[Row]]) -> Clause:
    none = [limit("trials that collapse, wholly or in part", found.collapsed + found.partly, equals=0,
                  at={"system": system.upper(), "trials": found.total}) for system, found in base.items()]  # fmt: skip
    moved = [trend(f"{system.upper()}: trials that collapse, over the {_NAMES[name]}", collapsed[system, name], sign)
             for system in base for name, sign in (("scale", -1), ("decay_share", 1))]  # fmt: skip
    return clause(
        "SG and EMA avoid collapse: no random trial ends collapsed",
        *none,
        instead=clause("how often they collapse falls with the size of the start and rises with λ", *moved),
    )


def _not_always(base: dict[str, _Shares]) -> Clause:
    return clause(
        "collapse is not certain, as it is without stop gradient (P-4.3): trials end at full rank",
        *(limit("trials that end at full rank", found.full, above=0, at={"system": system.upper()})
          for system, found in base.items()),
    )  # fmt: skip


def _attracts(fast: bool) -> Clause:
    """The origin's Jacobian is −λ and −β: an attractor whatever the data."""
    count = 20 if fast else 200

    def verdict(key: Any) -> tuple[Any, Any]:
        moments = Moments.random(key, 2)
        decay = 0.1 * decay_bound(moments)
        found = []
        for system in (StopGradient(decay), MovingAverage(decay, ema_rate=0.05)):
            zero = system.state(encoder=jnp.zeros((3, 2)), predictor=jnp.zeros((3, 3)))
            found.append(linearise(system, zero, moments).verdict)
        return tuple(found)

    with jax.enable_x64(True):
        verdicts = jax.jit(jax.vmap(verdict))(jax.random.split(jax.random.key(5), count))
    return clause(
        "the collapsed equilibrium is an attractor itself, for every λ > 0",
        *(limit("draws at which the origin is stable", int((np.asarray(each) == Verdict.STABLE).sum()), equals=count,
                at={"system": name}) for name, each in zip(("SG", "EMA"), verdicts, strict=True)),
    )  # fmt: skip


def _parted(fast: bool) -> Clause:
    """n = m = 1: the side of the saddle's stable manifold tells where a start ends."""
    data = compute_parted(starts=200 if fast else 2000)
    rows = []
    for part, wrong, lives in zip(data["share"].values, on_the_wrong_side(data), data["lives"].values, strict=True):
        at = {"λ as a share of its bound": part, "starts": wrong.size, "that collapse": int((lives == 0).sum())}
        rows.append(limit("starts that end on another side than the curve says", int(wrong.sum()), equals=0, at=at))
    return clause("n = m = 1: starts collapse on one side of the saddle's stable manifold, on the other none", *rows)
