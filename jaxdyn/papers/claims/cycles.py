"""Limit cycles of S = AᵀA (beside P Prop 4.10): eigenvalues that cross, and flows that return to themselves."""

from collections import Counter
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from ...analysis.cycles import limit_cycle
from ...equilibria.branches import branches
from ...equilibria.census import census
from ...moments import Moments
from ...solve.flow import flow
from ...systems.siamese import MovingAverage, Siamese, StopGradient
from ...trials.problems import Given
from ...trials.run import run_trials
from ...trials.starts import Starts
from .base import Clause, Evidence, Row, claim, clause, limit, shown, untested, worst
from .cycle_ends import begins, passes
from .equilibria import decays_of

_FOLLOWED = 2  # the draw whose cycle is followed to where it begins


class Turn(NamedTuple):
    """What a long flow shows of a cycle of S: a state on it, its period, tr S largest over smallest, and how far it is
    off after one turn, and a nudged start after twenty (relative)."""

    state: Any
    period: float
    swing: float
    gap: float
    nudged_gap: float


def stable_cycle(system: MovingAverage, state: Any, moments: Moments) -> Turn | None:
    """A cycle of S that a flow from a state settles on, or None."""
    settled = flow(system, state, moments, t1=10_000.0).final
    span = 4_000.0
    times = np.linspace(0.0, span, 8001)
    grams = _grams(flow(system, settled, moments, t1=span, ts=times).states)
    turns = passes(times, grams)
    if len(turns) < 3:
        return None
    period = turns[2][0] - turns[1][0]
    gap = float(np.linalg.norm(turns[2][1] - turns[1][1]) / np.linalg.norm(turns[1][1]))
    nudged = jax.tree.map(lambda part: 1.02 * part, settled)
    later = flow(system, nudged, moments, t1=20 * period).final
    again = passes(times, _grams(flow(system, later, moments, t1=span, ts=times).states))
    nudged_gap = float(np.linalg.norm(again[0][1] - turns[1][1]) / np.linalg.norm(turns[1][1])) if again else np.inf
    sizes = np.trace(grams, axis1=1, axis2=2)
    moves = np.linalg.norm(grams - grams[0], axis=(1, 2)).max() / np.linalg.norm(grams[0])
    if not (gap < 1e-3 and nudged_gap < 1e-2 and moves > 0.1):
        return None
    return Turn(settled, float(period), float(sizes.max() / sizes.min()), gap, nudged_gap)


def closed(turn: Turn, system: MovingAverage, moments: Moments) -> list[Row]:
    """The cycle by Newton's method on the return map, with two integrators and three tolerances."""
    found = [limit_cycle(system, turn.state, moments, period=turn.period, solver=solver, rtol=rtol)
             for solver, rtol in (("dopri8", 1e-10), ("dopri8", 1e-12), ("tsit5", 1e-11))]  # fmt: skip
    first = found[0]
    apart = max(abs(each.period / first.period - 1) for each in found)
    largest = np.array([np.abs(each.multipliers).max() for each in found])
    return [
        limit("how far a turn is from closing, relative", worst(each.residual for each in found), below=1e-9),
        limit("largest Floquet multiplier, transversal to the cycle and its rotations", largest.max(), below=1,
              at={"period": first.period}),
        limit("largest difference of the periods between integrators and tolerances, relative", apart, below=1e-8),
        limit("… of the largest multiplier", float(np.ptp(largest)), below=1e-6),
    ]  # fmt: skip


def _grams(states: Any) -> np.ndarray:
    encoder = np.asarray(states.encoder)
    return np.swapaxes(encoder, 1, 2) @ encoder


@claim(
    "P-oscillation",
    source="ours; beside P Prop 4.10",
    statement="Training need not come to rest: with Y far from symmetric complex pairs of eigenvalues cross the "
    "imaginary axis, and EMA has stable limit cycles.",
)
def oscillation(fast: bool) -> Evidence:
    count = 40 if fast else 400
    with jax.enable_x64(True):
        moments = _turning_draws(count)
        growing: Counter[str] = Counter()
        for share in (0.02, 0.1, 0.3):
            decays = decays_of(moments, share)
            for beta in (None, 0.3, 0.03, 0.003):
                systems: list[Siamese] = [
                    StopGradient(decay) if beta is None else MovingAverage(decay, ema_rate=beta) for decay in decays
                ]
                name = "SG" if beta is None else f"EMA β = {beta:g}"
                for item in (item for answer in census(systems, moments, n=2) for item in answer if item.rank):
                    growing[name] += _has_growing_pair(item)
        crossings = [_crossings(each) for each in moments[: 6 if fast else 60]]
        cycles, moving, trials = [], 0, 0
        proofs: list[Row] = []
        followed: tuple[Clause, list[Row]] | None = None
        looked_at = range(2, 3) if fast else range(30)
        for index in looked_at:
            system = MovingAverage(decays_of([moments[index]], 0.02)[0], ema_rate=0.03)
            ends = run_trials(Given(system, moments[index]), 40 if fast else 100, starts=Starts(n=2), seed=index)
            still = np.flatnonzero(ends["outcome"].values == _still_moving(ends))
            trials, moving = trials + ends.sizes["trial"], moving + still.size
            if still.size:
                parts = {name: ends[name].values[still[0]] for name in ("encoder", "predictor", "teacher")}
                cycle = stable_cycle(system, system.state(**parts), moments[index])
                if cycle is not None:
                    cycles.append(cycle)
                    proofs = proofs or closed(cycle, system, moments[index])
                    if index == _FOLLOWED:
                        followed = begins(system, moments[index], cycle.state, fast)
    beside = [shown("equilibria with a growing complex pair", number, system=name, draws=3 * count)
              for name, number in growing.items()]  # fmt: skip
    beside.append(shown("EMA trials (β = 0.03, λ = 0.02 of the bound), still moving after 400,000 steps",
                        [trials, moving]))  # fmt: skip
    if cycles:
        names = ("period", "swing of tr S", "gap after one turn", "gap of a nudged start after 20 turns")
        beside += [shown(f"first cycle: {name}", each) for name, each in zip(names, cycles[0][1:], strict=True)]
    beside += followed[1] if followed else []
    closes = "the first of them is a stable fixed point of the return map"
    return Evidence(
        "the census of random moments with Y = 0.7 R X/‖R‖, R Gaussian, m = n = 2; random trials of EMA; one trial of "
        "those still moving followed by the flow: S must return to itself after one turn, also from a nudged state. "
        "Branches of EMA's equilibria are followed as Y goes from its symmetric part to itself",
        (
            clause(
                "with Y far from symmetric, complex pairs of eigenvalues grow",
                limit("equilibria with one", sum(growing.values()), above=0),
            ),
            clause(
                "they cross the imaginary axis on the way from symmetric Y",
                limit("draws with a Hopf point on a branch", sum(each > 0 for each in crossings), above=0,
                      at={"draws": len(crossings)}),
            ),
            clause(
                "EMA has stable limit cycles: flows settle on them",
                limit("draws with a stable limit cycle of S", len(cycles), above=0, at={"draws": len(looked_at)}),
            ),
            clause(closes, *proofs) if proofs else untested(closes, "there is none"),
            followed[0] if followed else untested("where it begins", "there is none"),
        ),
        tuple(beside),
    )  # fmt: skip


def _crossings(moments: Moments) -> int:
    """Hopf points on the branches of EMA's equilibria from Y's symmetric part (0) to Y (1)."""
    decay, even = decays_of([moments], 0.02)[0], (moments.yx + moments.yx.T) / 2
    turned = lambda p: Moments(moments.xx, even + p * (moments.yx - even))  # noqa: E731
    found = branches(lambda p: (MovingAverage(decay, ema_rate=0.03), turned(p)), 0.0, 1.0, start=1.0, n=2, steps=200)
    return int(np.nansum(found["hopf"].values)) if found.sizes["branch"] else 0


def _still_moving(trials: xr.Dataset) -> int:
    return trials["outcome"].attrs["flag_meanings"].split().index("out_of_steps")


def _turning_draws(count: int) -> list[Moments]:
    rng = np.random.default_rng(7)
    moments = []
    for _ in range(count):
        g, r = rng.normal(size=(2, 4)), rng.normal(size=(2, 2))
        xx = g @ g.T / 4
        moments.append(Moments(xx, 0.7 * r @ xx / np.linalg.norm(r, 2)))
    return moments


def _has_growing_pair(item: Any) -> bool:
    values = item.flow.eigenvalues
    return bool(((values.real > 1e-9) & (np.abs(values.imag) > 1e-6)).any())
