"""Branches of equilibria over a parameter, by pseudo-arclength in S, with folds and Hopf points.

Any parameter p that a pure function `settings(p) -> (system, moments)` depends on: the weight decay, α_p, β,
the strength of the augmentation. A step predicts (S, p) along the tangent, takes a chart of S's rank there,
and corrects orthogonally to the tangent, so that folds are passed like any other point.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from ..analysis.linearise import Linearisation, Verdict
from ..arrays import in_float64
from ..checks import checked_arguments, number, whole_number
from ..engines.blocks import blockwise
from .census import census, stabilities
from .equations import Chart, chart_at, chart_equations, chart_gram, lift, reduce

Settings = Callable[[Any], tuple[Any, Any]]
_NEWTON = 6
_BLOCK = 64  # points whose settings are made at once


class _Point(NamedTuple):
    """A point of a branch in reduced units: S, the scaled parameter, the unit tangent, the step's length."""

    gram: Any
    p: Any
    tangent: Any
    length: Any
    alive: Any


@dataclass(frozen=True)
class _Branch:
    """The equations along a branch of one rank; p runs over [0, 1] from `low` to `high`."""

    settings: Settings
    rank: int
    low: float
    high: float

    def problem(self, p: Any) -> Any:
        return reduce(*self.settings(self.low + (self.high - self.low) * p))

    def equations(self, y: Array, chart: Chart, scale: Array) -> Array:
        reduced = self.problem(y[-1])
        return chart_equations(y[:-1] * scale, chart, reduced.xx, reduced.yx)

    def scales(self, gram: Array) -> Array:
        """Units of the coordinates, in which a step's length is measured: ‖S‖ for Ŝ, one for the tilt."""
        m, k = gram.shape[0], self.rank
        packed = k * (k + 1) // 2
        return jnp.concatenate([jnp.full(packed, jnp.linalg.norm(gram)), jnp.ones((m - k) * k)])

    def tangent(self, gram: Array, p: Array, like: Array) -> Array:
        """The unit tangent in chart coordinates, on the side of `like` (a matrix ΔS/‖S‖ and Δp)."""
        chart, u = chart_at(gram, self.rank)
        scale = self.scales(gram)
        y = jnp.append(u / scale, p)
        j = jax.jacfwd(lambda y: self.equations(y, chart, scale))(y)
        null = jnp.linalg.svd(j)[2][-1]
        ahead = self._matrix_step(null, chart, u, scale, gram)
        return null * jnp.where(jnp.vdot(ahead, like) < 0, -1.0, 1.0)

    def _matrix_step(self, tangent: Array, chart: Chart, u: Array, scale: Array, gram: Array) -> Array:
        """The tangent as (ΔS/‖S‖, Δp), which does not depend on the chart's basis."""
        change = jax.jvp(lambda v: chart_gram(v, chart)[0], (u,), (tangent[:-1] * scale,))[1]
        return jnp.append(change.ravel() / jnp.linalg.norm(gram), tangent[-1])

    def step(self, point: _Point) -> tuple[_Point, tuple[Array, Array, Array, Array]]:
        chart, u = chart_at(point.gram, self.rank)
        scale = self.scales(point.gram)
        tangent = self.tangent(point.gram, point.p, point.tangent)
        ahead = self._matrix_step(tangent, chart, u, scale, point.gram)
        base = jnp.append(u / scale, point.p)

        def residual(y: Any):
            return jnp.append(self.equations(y, chart, scale), jnp.vdot(tangent, y - base) - point.length)

        def newton(_, carry: Any) -> tuple[Any, Any]:
            y, _ = carry
            change = jnp.linalg.solve(jax.jacfwd(residual)(y), -residual(y))
            return y + change, jnp.linalg.norm(change)

        y, change = jax.lax.fori_loop(0, _NEWTON, newton, (base + point.length * tangent, jnp.asarray(jnp.inf)))
        gram, _ = chart_gram(y[:-1] * scale, chart)
        smallest = jnp.linalg.eigvalsh(gram)[gram.shape[0] - self.rank]
        moved = jnp.linalg.norm(y - base)
        fine = (change < 1e-9) & (moved < 2 * point.length) & jnp.isfinite(change)
        inside = (y[-1] >= 0) & (y[-1] <= 1) & (smallest > 1e-10 * jnp.linalg.norm(gram))
        taken = point.alive & fine & inside
        # A step out of the range is shortened towards the edge; one that stays too short ends the branch.
        length = jnp.where(fine & inside, jnp.minimum(point.length * 1.2, 0.03), point.length / 2)
        alive = point.alive & (length > 1e-7)
        keep = lambda new, old: jnp.where(taken, new, old)  # noqa: E731
        new = _Point(keep(gram, point.gram), keep(y[-1], point.p), keep(ahead, point.tangent), length, alive)
        return new, (new.gram, new.p, new.alive, taken)


@functools.lru_cache(maxsize=16)
def _tracer(branch: _Branch, steps: int) -> Any:
    def one(gram: Any, p: Any, sign: Any):
        direction = jnp.append(jnp.zeros(gram.size), sign)
        start = _Point(gram, p, direction, jnp.asarray(1e-3), jnp.asarray(True))
        return jax.lax.scan(lambda point, _: branch.step(point), start, None, length=steps)[1]

    return jax.jit(jax.vmap(one))


@checked_arguments
@in_float64
def branches(
    settings: Settings,
    low: float,
    high: float,
    *,
    start: float | None = None,
    n: int | None = None,
    steps: int = 400,
) -> xr.Dataset:
    """All branches of nonzero equilibria through a census at one parameter value, followed both ways.

    Args:
        settings: a pure function from the parameter to (system, moments), such as
            `lambda decay: (StopGradient(decay), moments)`.
        low, high: the range of the parameter.
        start: where the census is taken, default the middle. A branch that does not exist there is not found.
        n: embedding dimension, default m + 1.
        steps: at most so many points each way.

    Returns:
        A dataset along (`branch`, `point`), ordered along each branch, NaN after its end: `parameter`, `gram`
        (S), `n_unstable`, `verdict`, `rank`, `fold` (where dp changes sign), `hopf` (a complex pair crossed
        the imaginary axis since the point before), `cut_short` (steps ran out before the branch ended).
        Attribute `complete`: whether the census was.
    """
    low, high = number("low", low), number("high", high)
    if high <= low:
        raise ValueError(f"high: expected more than low = {low:g}, got {high:g}")
    at = (low + high) / 2 if start is None else number("start", start, low=low, high=high)
    steps = whole_number("steps", steps)
    made = settings(at)
    if not isinstance(made, tuple) or len(made) != 2:
        raise ValueError(f"settings: expected a function that returns (system, moments), got {type(made).__name__}")
    system, moments = made
    (found,) = census([system], [moments], n=n)
    basis_size = int(np.linalg.matrix_rank(np.asarray(moments.xx)))
    if basis_size < moments.m:
        raise ValueError("moments: continuation needs a nonsingular xx")
    unit = float(reduce(system, moments).unit)
    paths: list[dict[str, np.ndarray]] = []
    for rank in sorted({item.rank for item in found if item.rank}):
        grams = np.stack([item.gram / unit for item in found if item.rank == rank])
        paths += _trace(_Branch(settings, rank, low, high), grams, (at - low) / (high - low), steps)
    return _collect(_with_stabilities(settings, paths, found.n), found, (low, high))


def _trace(branch: _Branch, grams: np.ndarray, p: float, steps: int) -> list[dict[str, np.ndarray]]:
    """Both ways from each start; a start that lies on an earlier branch is left out."""
    tracer = _tracer(branch, steps)
    ways = [jax.tree.map(np.asarray, tracer(grams, np.full(len(grams), p), np.full(len(grams), sign)))
            for sign in (-1.0, 1.0)]  # fmt: skip
    traced: list[dict[str, np.ndarray]] = []
    for index, gram in enumerate(grams):
        if any(_passes(path, gram, p) for path in traced):
            continue
        (back, p_back, on_back, ok_back), (ahead, p_ahead, on_ahead, ok_ahead) = (
            [part[index] for part in way] for way in ways
        )
        back, p_back = (part[ok_back][::-1] for part in (back, p_back))
        ahead, p_ahead = (part[ok_ahead] for part in (ahead, p_ahead))
        values = np.concatenate([p_back, [p], p_ahead])
        path = {
            "gram": np.concatenate([back, gram[None], ahead]),
            "scaled": values,
            "rank": np.full(values.size, branch.rank),
            "cut_short": np.full(values.size, on_back[-1] or on_ahead[-1]),
        }
        turns = np.sign(np.diff(values))
        fold = np.zeros(values.size, bool)
        fold[1:-1] = (turns[1:] * turns[:-1] < 0) if values.size > 2 else False
        traced.append(path | {"fold": fold, "parameter": branch.low + (branch.high - branch.low) * values})
    return traced


def _passes(path: dict[str, np.ndarray], gram: np.ndarray, p: float) -> bool:
    values, grams = path["scaled"], path["gram"]
    for i in np.flatnonzero((values[:-1] - p) * (values[1:] - p) <= 0):
        share = (p - values[i]) / (values[i + 1] - values[i]) if values[i + 1] != values[i] else 0.0
        between = grams[i] + share * (grams[i + 1] - grams[i])
        if np.linalg.norm(between - gram) < 0.02 * np.linalg.norm(gram):
            return True
    return False


def _with_stabilities(settings: Settings, paths: list[dict[str, np.ndarray]], n: int) -> list[dict[str, np.ndarray]]:
    """The paths with S in the moments' own units and what the linearisation says, of all points in one batch."""
    if not paths:
        return []
    parameters = np.concatenate([path["parameter"] for path in paths])
    problems = blockwise(jax.jit(jax.vmap(settings)), parameters, size=_BLOCK)
    reduced = np.concatenate([path["gram"] for path in paths])
    ranks = np.concatenate([path["rank"] for path in paths])
    grams, states = np.empty_like(reduced), []
    for i, rank in enumerate(ranks):
        system, moments = jax.tree.map(lambda leaf: leaf[i], problems)  # noqa: B023
        grams[i] = reduced[i] * reduce(system, moments).unit
        states.append(lift(grams[i], int(rank), n, system, moments))
    system, moments = problems
    found = stabilities(system, jax.tree.map(lambda *leaves: np.stack(leaves), *states), moments)
    ends = np.cumsum([path["rank"].size for path in paths])[:-1]
    parts = zip(*(np.split(np.asarray(array), ends) for array in (grams, *found)), strict=True)
    return [path | _along(path, gram, Linearisation(*each)) for path, (gram, *each) in zip(paths, parts, strict=True)]


def _along(path: dict[str, np.ndarray], grams: np.ndarray, found: Linearisation) -> dict[str, np.ndarray]:
    unstable, values = np.asarray(found.n_unstable), np.asarray(found.eigenvalues, complex)
    # A complex pair crosses where the growing eigenvalues change in number, and only the complex ones among them.
    largest = np.abs(values).max(1, keepdims=True)
    growing_pairs = ((np.real(values) > 1e-9 * largest) & (np.abs(np.imag(values)) > 1e-6 * largest)).sum(1)
    change = np.diff(unstable)
    hopf = np.zeros(unstable.size, bool)
    hopf[1:] = (change != 0) & (np.diff(growing_pairs) == change) & ~path["fold"][1:] & ~path["fold"][:-1]
    verdict, margin = np.asarray(found.verdict), np.asarray(found.margin)
    return {"n_unstable": unstable, "verdict": verdict, "hopf": hopf, "margin": margin, "gram": grams}


def _collect(paths: list[dict[str, np.ndarray]], found: Any, span: tuple[float, float]) -> xr.Dataset:
    longest = max((path["parameter"].size for path in paths), default=0)
    texts = {
        "parameter": "the parameter", "gram": "S = AᵀA", "rank": "rank of S", "fold": "a fold",
        "n_unstable": "unstable directions", "verdict": " ".join(verdict.name.lower() for verdict in Verdict),
        "hopf": "a Hopf point just before", "cut_short": "the branch goes on: more steps are needed",
        "margin": "−max Re of the transversal eigenvalues",
    }  # fmt: skip
    variables = {}
    for name, text in texts.items():
        values = [np.asarray(path[name], float) for path in paths]
        shape = values[0].shape[1:] if values else ()
        table = np.full((len(paths), longest, *shape), np.nan)
        for index, value in enumerate(values):
            table[index, : value.shape[0]] = value
        variables[name] = (("branch", "point", "row", "column")[: table.ndim], table, {"long_name": text})
    return xr.Dataset(
        variables, attrs={"title": "branches of equilibria", "complete": int(found.complete), "low": span[0],
                          "high": span[1], "n": found.n},
    )  # fmt: skip
