"""Collapse thresholds: the largest weight decay at which a stable equilibrium of a given rank exists.

A batched census on a grid of weight decays below the bound ¼‖YX^{−½}‖² finds, for each rank, the largest one
with a stable equilibrium; Newton's method follows it upwards in steps that are halved where it is lost. Where
the branch ends in a fold, the fold's own equations are solved, which gives full precision and, by implicit
differentiation, the threshold's derivative with respect to the moments.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..analysis.linearise import Verdict
from ..arrays import in_float64, refuse_traced
from ..checks import checked_arguments, expected, whole_number
from ..moments import Moments
from ..systems.siamese import MovingAverage, Objective, Siamese, StopGradient
from .census import census, stabilities
from .equations import Chart, chart_at, chart_equations, decay_bound, lift, reduce
from .strata import newton

_FOLLOWED = 200  # rounds at most
_SHORTEST = 1e-11  # of the weight decay: where it ends to rounding
_SECTIONS = 16  # weight decays tried at once, between the last that is stable and the first that is not
_REFINED = 3  # times four steps: near a fold Newton's method is slow
_GRID_LOW = 1e-3  # of the bound: below it thresholds are not looked for


class Threshold(NamedTuple):
    """The largest weight decay λ (of encoder and predictor) with a stable equilibrium of this rank.

    `kind` how it ends there: "fold" (meets a saddle), "hopf" (a pair of eigenvalues crosses), "exchange"
    (a direction of another rank begins to grow), "lost" (it could not be followed to its end, which is further up:
    then `complete` is False). `gram` the last stable S. `gradient` dλ/d(X, Y) [m, m]
    each, for a fold (X as symmetric: the derivative along a symmetric change D is Σ gradient·D); NaN
    otherwise. `complete` whether every census on the grid was.
    """

    rank: int
    weight_decay: float
    kind: str
    gram: np.ndarray
    gradient: tuple[np.ndarray, np.ndarray]
    complete: bool


class _Bracket(NamedTuple):
    """A stable equilibrium at `low` of problem `owner`, which is not there any more at `high`."""

    owner: int
    rank: int
    low: float
    high: float
    gram: np.ndarray
    complete: bool


@checked_arguments
@overload
def collapse_threshold(
    system: Siamese, moments: Moments, *, n: int | None = None, points: int = 24
) -> list[Threshold]: ...


@overload
def collapse_threshold(
    system: Siamese, moments: Sequence[Moments], *, n: int | None = None, points: int = 24
) -> list[list[Threshold]]: ...


@in_float64
def collapse_threshold(
    system: Siamese,
    moments: Moments | Sequence[Moments],
    *,
    n: int | None = None,
    points: int = 24,
) -> list[Threshold] | list[list[Threshold]]:
    """Thresholds of every rank that is ever stable, for one or many moments, largest weight decay first.

    Above the first one's `weight_decay` no equilibrium but the origin is stable, as far as the grid sees: a stable
    stretch that lies wholly between two grid points is missed. After a fold training collapses; after a Hopf point a
    cycle may be left.

    Args:
        system: `StopGradient` or `MovingAverage`; its weight decays are replaced by λ.
        moments: one, or a sequence, which is done in one batch.
        n: embedding dimension, default m + 1.
        points: grid points between a thousandth of the bound and the bound, at least 4.

    Returns:
        A list of `Threshold`, or a list of such lists for a sequence of moments.

    Raises:
        ValueError: for the objective, which collapses at every weight decay, a frozen teacher (β = 0), and what
            `equilibria` refuses.

    Example:
        >>> with jax.enable_x64(True):
        ...     (found,) = collapse_threshold(StopGradient(0.0), Moments.scalar(1.0, 0.8))
        >>> found.rank, round(found.weight_decay, 6), found.kind
        (1, 0.16, 'fold')

    Source: m = 1: λ* = τ²/(4ρ) (P Prop 4.11); m > 1 is ours.
    """
    refuse_traced("moments", system, moments)
    if not isinstance(system, StopGradient | MovingAverage):
        why = "; the objective collapses at every weight decay (P Lemma 4.3)" if isinstance(system, Objective) else ""
        raise ValueError(f"system: expected StopGradient or MovingAverage, got {type(system).__name__}{why}")
    if isinstance(system, MovingAverage) and float(system.ema_rate) == 0:
        raise ValueError("ema_rate: expected a number > 0: with a frozen teacher no verdict is determined")
    points = whole_number("points", points, low=4, high=10_000)
    many = list(moments) if isinstance(moments, list | tuple) else [moments]
    batch = [expected("moments", each, Moments) for each in many]
    if not batch:
        raise ValueError("moments: expected at least one, got none")
    brackets = _brackets(system, batch, n, points)
    dimension = (batch[0].m + 1) if n is None else n
    results: list[list[Threshold]] = [[] for _ in batch]
    for rank in sorted({bracket.rank for bracket in brackets}):
        group = [bracket for bracket in brackets if bracket.rank == rank]
        data = [batch[bracket.owner] for bracket in group]
        for bracket, end in zip(group, _refine(system, data, group, rank, dimension), strict=True):
            results[bracket.owner].append(end)
    results = [_last_of_each_rank(result) for result in results]
    return results[0] if isinstance(moments, Moments) else results


def _brackets(system: Siamese, batch: list[Moments], n: int | None, points: int) -> list[_Bracket]:
    """The last grid point with a stable equilibrium of each rank, for each moments."""
    shares = np.concatenate([np.geomspace(_GRID_LOW, 0.1, points // 4, endpoint=False),
                             np.linspace(0.1, 0.995, points - points // 4)])  # fmt: skip
    bounds = [float(decay_bound(each)) for each in batch]
    grid = [(i, share * bound) for i, bound in enumerate(bounds) if bound > 0 for share in shares]
    if not grid:
        return []
    found = census([with_decay(system, decay) for _, decay in grid], [batch[i] for i, _ in grid], n=n)
    brackets = []
    for i, bound in enumerate(bounds):
        mine = [(decay, answer) for (owner, decay), answer in zip(grid, found, strict=True) if owner == i]
        complete = all(answer.complete for _, answer in mine)
        for rank in sorted({item.rank for _, answer in mine for item in answer.stable if item.rank}):
            where = [j for j, (_, answer) in enumerate(mine) if any(item.rank == rank for item in answer.stable)]
            decay, answer = mine[where[-1]]
            upper = mine[where[-1] + 1][0] if where[-1] + 1 < len(mine) else bound * (1 + 1e-6)
            brackets += [_Bracket(i, rank, decay, upper, item.gram, complete) for item in answer.stable
                         if item.rank == rank]  # fmt: skip
    return brackets


def _last_of_each_rank(ends: list[Threshold]) -> list[Threshold]:
    """Of several stable equilibria of one rank the one that lasts longest; largest weight decay first."""
    ordered = sorted(ends, key=lambda each: -each.weight_decay)
    return [each for k, each in enumerate(ordered) if each.rank not in {earlier.rank for earlier in ordered[:k]}]


def with_decay(system: Any, decay: Any) -> Any:
    """The system with this weight decay for encoder and predictor."""
    return dataclasses.replace(system, weight_decay=decay)


def _refine(system: Any, data: list[Moments], brackets: list[_Bracket], rank: int, n: int) -> list[Threshold]:
    """Each bracket's equilibrium, followed upwards to where it ends."""
    data = [jax.tree.map(np.asarray, Moments(each.xx, each.yx)) for each in data]
    low, high = (np.array([getattr(bracket, name) for bracket in brackets]) for name in ("low", "high"))
    grams = np.stack([bracket.gram for bracket in brackets])
    length = high - low
    for _ in range(_FOLLOWED):
        going = np.flatnonzero(length >= _SHORTEST * low)
        if not going.size:
            break
        each = np.repeat(going, _SECTIONS)
        share = np.tile(np.arange(1, _SECTIONS + 1), going.size) / _SECTIONS
        ahead = np.minimum(low[each] + length[each] * share, high[each])
        ok, new = _still_stable(system, grams[each], ahead, [data[owner] for owner in each], rank, n)
        # As far as it was seen at every point on the way; Newton's method may have failed there by chance.
        reached = np.logical_and.accumulate(ok.reshape(-1, _SECTIONS), 1).sum(1)
        moved = reached > 0
        last = (np.arange(going.size) * _SECTIONS + reached - 1)[moved]
        low[going[moved]], grams[going[moved]] = ahead[last], new[last]
        factor = np.where(reached == _SECTIONS, _SECTIONS / 2, 1 / _SECTIONS)
        length[going] = np.minimum(length[going] * factor, (high - low)[going])
    settled = length < _SHORTEST * low
    ends = []
    for index, bracket in enumerate(brackets):
        each, decay = data[index], float(low[index])
        nowhere = np.full_like(grams[index], np.nan)
        if not settled[index]:
            ends.append(Threshold(rank, decay, "lost", grams[index], (nowhere, nowhere), False))
            continue
        fold = _fold(system, each, grams[index], rank, decay)
        if fold is None:
            kind = _crossing(with_decay(system, decay), each, grams[index], rank, n)
            end = Threshold(rank, decay, kind, grams[index], (nowhere, nowhere), bracket.complete)
        else:
            end = Threshold(rank, fold.weight_decay, "fold", grams[index], fold.gradient, bracket.complete)
        ends.append(end)
    return ends


def _still_stable(
    system: Any, grams: np.ndarray, decays: np.ndarray, data: list[Moments], rank: int, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Whether there is a stable equilibrium at each decay, near the given S (which scales like the reduced one)."""
    here = [with_decay(system, decay) for decay in decays]
    reduced = [reduce(*each) for each in zip(here, data, strict=True)]
    unit = np.array([each.unit for each in reduced])[:, None, None]
    xx, yx = (np.stack([getattr(each, name) for each in reduced]) for name in ("xx", "yx"))
    start = grams / unit
    refined, _, residual, smallest = newton(start, xx, yx, rank)
    for _ in range(_REFINED - 1):
        refined, _, residual, smallest = newton(refined, xx, yx, rank)
    moved = np.linalg.norm(refined - start, axis=(1, 2)) / np.linalg.norm(start, axis=(1, 2))
    found = (residual < 1e-11) & (smallest > 0) & (moved < 0.2)
    refined = np.where(found[:, None, None], refined, start) * unit
    states = [lift(gram, rank, n, own, each) for gram, own, each in zip(refined, here, data, strict=True)]
    together = jax.tree.map(lambda *leaves: np.stack(leaves), *zip(here, states, data, strict=True))
    return found & (np.asarray(stabilities(*together).verdict) == Verdict.STABLE), refined


def _crossing(system: Any, moments: Moments, gram: np.ndarray, rank: int, n: int) -> str:
    """Whether a complex pair or a real eigenvalue is about to cross the imaginary axis."""
    one = (system, lift(gram, rank, n, system, moments), moments)
    result = stabilities(*jax.tree.map(lambda leaf: np.asarray(leaf)[None], one))
    values = np.asarray(result.eigenvalues)[0]
    values = values[np.argsort(np.abs(values))][int(np.asarray(result.orbit_dim)[0]) :]
    critical = values[np.argmax(np.real(values))]
    return "hopf" if abs(critical.imag) > 10 * abs(critical.real) else "exchange"


class _Fold(NamedTuple):
    weight_decay: float
    gradient: tuple[np.ndarray, np.ndarray]


def _fold(system: Any, moments: Moments, gram: np.ndarray, rank: int, decay: float) -> _Fold | None:
    """The fold near this equilibrium: λ and dλ/d(X, Y), or None if there is none."""
    unit = float(reduce(with_decay(system, decay), moments).unit)
    chart, u = chart_at(gram / unit, rank)
    y, off, gradient = _solved_fold(
        system, moments, Chart(*map(jnp.asarray, chart)), jnp.asarray(u), jnp.asarray(decay)
    )
    refined, size = float(jnp.exp(y[-1])), float(np.linalg.norm(u))
    moved = float(jnp.linalg.norm(y[: u.size] - u)) / size
    if not (abs(refined / decay - 1) < 1e-7 and moved < 1e-2 and float(off) < 1e-8 * (1 + size)):
        return None
    by_xx, by_yx = map(np.asarray, gradient)
    return _Fold(refined, ((by_xx + by_xx.T) / 2, by_yx))


@eqx.filter_jit
def _solved_fold(system: Any, moments: Moments, chart: Chart, u: Array, decay: Array) -> tuple[Array, Array, Any]:
    """F = 0, (∂F/∂u) v = 0, |v| = 1 solved from nearby: (u, v, ln λ), what is left over, and λ's derivatives."""
    size = u.size

    def equations(u: Array, log_decay: Array, xx: Array, yx: Array) -> Array:
        reduced = reduce(with_decay(system, jnp.exp(log_decay)), Moments(xx, yx))
        return chart_equations(u, chart, reduced.xx, reduced.yx)

    def extended(y: Array) -> Array:
        u, v, log_decay = y[:size], y[size : 2 * size], y[-1]
        value, change = jax.jvp(lambda w: equations(w, log_decay, moments.xx, moments.yx), (u,), (v,))
        return jnp.concatenate([value, change, (jnp.vdot(v, v) - 1)[None]])

    start = jax.jacfwd(lambda w: equations(w, jnp.log(decay), moments.xx, moments.yx))(u)
    y = jnp.concatenate([u, jnp.linalg.svd(start)[2][-1], jnp.log(decay)[None]])
    newton = lambda _, y: y - jnp.linalg.lstsq(jax.jacfwd(extended)(y), extended(y))[0]  # noqa: E731
    y = jax.lax.fori_loop(0, 12, newton, y)
    # At a fold wᵀ ∂F/∂u = 0: the change of λ that keeps F = 0 solvable is −wᵀF_θ/(wᵀF_λ).
    by_u, by_decay, by_xx, by_yx = jax.jacfwd(equations, argnums=(0, 1, 2, 3))(y[:size], y[-1], moments.xx, moments.yx)
    w = jnp.linalg.svd(by_u)[0][:, -1]
    factor = -jnp.exp(y[-1]) / jnp.vdot(w, by_decay)
    gradient = tuple(factor * jnp.tensordot(w, part, 1) for part in (by_xx, by_yx))
    return y, jnp.abs(extended(y)).max(), gradient
