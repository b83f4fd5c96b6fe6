"""Following solution paths of polynomial homotopies from t = 1 to t = 0: many at once, each with its own step.

Paths are followed in projective coordinates, so that those to infinity stay bounded (they end with z₀ = 0). A step
predicts by the polynomial through the last three points and their tangents, and corrects by two Newton steps; it is
taken if the first was short and the second much shorter (if not, the prediction may be near another path), and how
short they were sets the next step's length.
"""

import enum
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from ..progress import Progress
from .homotopies import Homotopy

TOLERANCE = 1e-4  # relative size of the first Newton step after a prediction
_CONTRACTION = 0.2  # of the second Newton step against the first
_ROUNDING = 10.0  # times rounding's part in a second Newton step, which then need not be shorter than the first
_LONGEST = 0.1  # step in t: a longer one may land on another path, as on one at infinity
_SMALLEST = 1e-10  # t at which a path is given up
_POINTS = 3  # that a prediction goes through
_NEWTON = 8  # Newton steps at the end
_BLOCK = 4096  # paths at once


class End(enum.IntEnum):
    """How a path ended: at a regular solution, at infinity, at a singular solution, or not at all."""

    FINITE = 0
    INFINITE = 1
    SINGULAR = 2
    FAILED = 3


class Tracked(NamedTuple):
    """Ends of paths: the homotopy's solutions, `End`, steps and condition numbers, each [paths, …]."""

    solutions: np.ndarray
    ends: np.ndarray
    steps: np.ndarray
    condition: np.ndarray


@dataclass
class _Lanes:
    """Paths under way: the last points and their tangents [paths, 3, K + 1], newest first, and where each path is."""

    index: np.ndarray
    points: np.ndarray
    rates: np.ndarray
    times: np.ndarray
    known: np.ndarray
    dt: np.ndarray
    steps: np.ndarray
    mark: np.ndarray
    log_mark: np.ndarray
    slope: np.ndarray
    steady: np.ndarray

    @classmethod
    def begin(cls, starts: np.ndarray, rates: np.ndarray) -> "_Lanes":
        count = starts.shape[0]
        history = lambda part: np.repeat(part[:, None], _POINTS, 1)  # noqa: E731
        ones, whole = np.ones(count), np.zeros(count, int)
        return cls(
            np.arange(count), history(starts), history(rates), history(ones), whole + 1, 0.01 * ones, whole,
            0.1 * ones, np.log(np.abs(starts[:, 0]) + 1e-300), 0 * ones, whole.copy(),
        )  # fmt: skip

    def take(self, index: np.ndarray) -> "_Lanes":
        return _Lanes(*(getattr(self, each.name)[index] for each in fields(self)))

    @property
    def point(self) -> np.ndarray:
        return self.points[:, 0]

    @property
    def t(self) -> np.ndarray:
        return self.times[:, 0]


def track(
    homotopy: Homotopy,
    starts: np.ndarray,
    *,
    tolerance: float = TOLERANCE,
    t_infinity: float = 1e-3,
    max_steps: int = 5000,
    progress: Progress | None = None,
) -> Tracked:
    """Follow the paths from t = 1 to t = 0.

    Args:
        homotopy: the equations of all paths.
        starts: [paths, K + 1], solutions at t = 1.
        tolerance: of the prediction, relative; smaller is safer and slower.
        t_infinity: a path may be told to be at infinity once t is below this. Where large finite
            solutions are expected it must be small.
        max_steps: a path that needs more has failed.
        progress: told of finished paths.
    """
    count = starts.shape[0]
    if not count:
        nothing = np.zeros(0)
        return Tracked(homotopy.solutions(starts.astype(complex)), nothing.astype(int), nothing.astype(int), nothing)
    blocks = np.array_split(np.arange(count), -(-count // _BLOCK))
    parts = [_follow(homotopy.take(b), starts[b], tolerance, t_infinity, max_steps, progress) for b in blocks]
    return Tracked(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _follow(
    homotopy: Homotopy,
    starts: np.ndarray,
    tolerance: float,
    t_infinity: float,
    max_steps: int,
    progress: Progress | None,
) -> Tracked:
    with np.errstate(all="ignore"):
        begin = _newton(homotopy, starts.astype(complex), np.ones(starts.shape[0]))
        lanes = _Lanes.begin(begin.point, begin.rate)
        done: list[tuple[np.ndarray, ...]] = []
        while lanes.index.size:
            ended = _ended(lanes, t_infinity, max_steps)
            # Finished paths are set aside a quarter of all at a time; until then they stand still.
            if 4 * ended.sum() >= ended.size:
                finished = np.flatnonzero(ended)
                done.append(_finish(homotopy.take(finished), lanes.take(finished)))
                if progress is not None:
                    progress(finished.size)
                going = np.flatnonzero(~ended)
                homotopy, lanes = homotopy.take(going), lanes.take(going)
                continue
            homotopy = _step(homotopy, lanes, ~ended, tolerance)
    index, *parts = (np.concatenate(part) for part in zip(*done, strict=True))
    order = np.argsort(index)
    return Tracked(*(part[order] for part in parts))


def _step(homotopy: Homotopy, lanes: _Lanes, running: np.ndarray, tolerance: float) -> Homotopy:
    """One step of every path, taken or refused; changes the lanes."""
    new_t = lanes.t - np.minimum(lanes.dt, lanes.t)
    predicted = _predicted(lanes, new_t)
    first = _newton(homotopy, predicted, new_t)
    second = _newton(homotopy, first.point, new_t)
    point, rate = second.point, second.rate
    size = np.linalg.norm(point, axis=1)
    error = first.length / size
    contraction = np.where(second.length > _ROUNDING * second.noise, second.length / first.length, 0)
    accepted = (error < tolerance) & (contraction < _CONTRACTION) & np.isfinite(point).all(1) & running
    wanted = np.minimum(tolerance / np.maximum(error, 1e-300), 0.5 * _CONTRACTION / np.maximum(contraction, 1e-300))
    growth = np.clip(0.8 * wanted ** (0.5 / lanes.known), 0.25, 3.0)
    growth = np.where(accepted, growth, np.minimum(np.where(np.isfinite(growth), growth, 0.25), 0.5))
    lanes.dt = np.where(running, np.minimum(lanes.dt * growth, _LONGEST), lanes.dt)
    lanes.steps = lanes.steps + running

    def push(new: np.ndarray, old: np.ndarray) -> np.ndarray:
        moved = np.concatenate([new[:, None], old[:, :-1]], 1)
        return np.where(accepted.reshape(-1, *[1] * (old.ndim - 1)), moved, old)

    lanes.times, lanes.known = push(new_t, lanes.times), np.minimum(lanes.known + accepted, _POINTS)
    points, rates = push(point, lanes.points), push(rate, lanes.rates)
    homotopy, points, rates = homotopy.recentre(points, rates)
    lanes.points, lanes.rates = _normalised(points, rates, homotopy.homogeneous)
    _watch_infinity(lanes)
    return homotopy


def _predicted(lanes: _Lanes, t: np.ndarray) -> np.ndarray:
    """The polynomial through the known points and tangents (Hermite's), at t."""
    there = np.arange(_POINTS) < lanes.known[:, None]
    others = there[:, None] & there[:, :, None] & ~np.eye(_POINTS, dtype=bool)
    gaps = np.where(others, lanes.times[:, :, None] - lanes.times[:, None], 1)
    away = t[:, None] - lanes.times
    basis = np.where(others, away[:, None] / gaps, 1).prod(2) ** 2 * there
    of_points = basis * (1 - 2 * away * np.where(others, 1 / gaps, 0).sum(2))
    of_rates = basis * away
    return (of_points[..., None] * lanes.points + of_rates[..., None] * lanes.rates).sum(1)


class _Newton(NamedTuple):
    """A Newton step: the point after it, the path's tangent before it, the step's length, and rounding's part in it."""

    point: np.ndarray
    rate: np.ndarray
    length: np.ndarray
    noise: np.ndarray


def _newton(homotopy: Homotopy, z: np.ndarray, t: np.ndarray) -> _Newton:
    linear = homotopy.linear(z, t)
    # What rounding does to the equations, of a size as their terms, here with alternating signs.
    terms = np.abs(linear.jacobian).sum(2) * np.where(np.arange(linear.value.shape[1]) % 2, 1e-16, -1e-16)
    right = np.stack([linear.value, linear.rate, terms], 2)
    right = np.concatenate([right, np.zeros_like(right[:, :1])], 1)
    change, rate, noise = np.moveaxis(_solve(_bordered(linear.jacobian, z, homotopy.homogeneous), -right), 2, 0)
    return _Newton(z + change, rate, np.linalg.norm(change, axis=1), np.linalg.norm(noise, axis=1))


def _bordered(jacobian: np.ndarray, z: np.ndarray, homogeneous: int) -> np.ndarray:
    """∂H/∂z with a row below it: nothing is sought along the homogeneous coordinates' own multiples."""
    row = np.conj(z)
    row[:, homogeneous:] = 0
    return np.concatenate([jacobian, row[:, None]], 1)


def _solve(matrices: np.ndarray, right: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.solve(matrices, right)
    except np.linalg.LinAlgError:  # one is singular to the last bit: its path stops
        singular = ~(np.abs(np.linalg.det(matrices)) > 0)
        matrices = np.where(singular[:, None, None], np.eye(matrices.shape[1]), matrices)
        return np.where(singular[:, None, None], np.nan, np.linalg.solve(matrices, right))


def _normalised(points: np.ndarray, rates: np.ndarray, homogeneous: int) -> tuple[np.ndarray, np.ndarray]:
    """The same points, and their tangents, on the plane v·z = 1 that touches the unit sphere in the newest one."""
    newest = points[:, 0, :homogeneous]
    across = np.conj(newest) / np.linalg.norm(newest, axis=1, keepdims=True)
    along = lambda part: (across[:, None] * part[..., :homogeneous]).sum(2, keepdims=True)  # noqa: E731
    scale, speed = along(points), along(rates)
    points, rates = points.copy(), rates.copy()
    part, slope = points[..., :homogeneous] / scale, rates[..., :homogeneous] / scale
    points[..., :homogeneous], rates[..., :homogeneous] = part, slope - part * speed / scale
    return points, rates


def _watch_infinity(lanes: _Lanes) -> None:
    """Each time t has fallen by four: the exponent of |z₀| ~ t^slope; a steady one is a path to infinity."""
    passed = lanes.t < lanes.mark / 4
    log_size = np.log(np.abs(lanes.point[:, 0]) + 1e-300)
    slope = (log_size - lanes.log_mark) / (np.log(np.maximum(lanes.t, 1e-300)) - np.log(lanes.mark))
    same = (np.abs(slope - lanes.slope) < 0.1 * np.abs(slope)) & (slope > 0.05)
    lanes.steady = np.where(passed, np.where(same, lanes.steady + 1, 0), lanes.steady)
    lanes.mark, lanes.log_mark = np.where(passed, lanes.t, lanes.mark), np.where(passed, log_size, lanes.log_mark)
    lanes.slope = np.where(passed, slope, lanes.slope)


def _ended(lanes: _Lanes, t_infinity: float, max_steps: int) -> np.ndarray:
    at_infinity = (lanes.steady >= 3) & (np.exp(lanes.log_mark) < 1e-2) & (lanes.t < t_infinity)
    stuck = (lanes.t < _SMALLEST) | (lanes.dt < 1e-15) | (lanes.steps >= max_steps)
    return stuck | at_infinity


def _finish(homotopy: Homotopy, lanes: _Lanes) -> tuple[np.ndarray, ...]:
    """Index, solutions, `End`, steps and condition after more Newton steps."""
    z, steps = lanes.point, []
    for _ in range(_NEWTON):
        steps.append(_newton(homotopy, z, lanes.t))
        z = np.where(np.isfinite(steps[-1].point), steps[-1].point, z)
        z = _normalised(z[:, None], z[:, None], homotopy.homogeneous)[0][:, 0]
    lengths = np.array([step.length for step in steps[-4:]])
    ratios = lengths[1:] / lengths[:-1]
    # Steps that only halve, and are no rounding: a double solution.
    doubled = ((ratios > 0.35) & (ratios < 0.65)).all(0) & (lengths[-1] > _ROUNDING * steps[-1].noise)
    # Row scaling does not change the solution: judge the scaled matrix.
    matrices = _bordered(homotopy.linear(z, lanes.t).jacobian, z, homotopy.homogeneous)
    matrices = matrices / np.linalg.norm(matrices, axis=-1, keepdims=True).clip(1e-300)
    fine = np.isfinite(matrices).all((1, 2))
    condition = np.full(lanes.index.size, np.inf)
    condition[fine] = np.linalg.cond(matrices[fine])
    arrived = lanes.t <= 0
    ends = _classify(lanes, np.where(arrived, np.abs(z[:, 0]), np.abs(lanes.point[:, 0])), condition, doubled)
    return lanes.index, homotopy.solutions(np.where(arrived[:, None], z, lanes.point)), ends, lanes.steps, condition


def _classify(lanes: _Lanes, height: np.ndarray, condition: np.ndarray, doubled: np.ndarray) -> np.ndarray:
    arrived = lanes.t <= 0
    near_infinity = height < np.where(arrived, 1e-11, 1e-2)
    at_infinity = np.where(arrived, near_infinity, (lanes.steady >= 3) & near_infinity)
    # So far out that the steps have become too short for rounding, and still falling.
    at_infinity |= ~arrived & (lanes.t < 1e-4) & (height < 1e-9) & (lanes.slope > 0.3)
    regular = arrived & ~at_infinity & (condition < 1e11) & ~doubled
    # A path to a double or non-isolated solution slows down near t = 0 at a finite place.
    singular = ~regular & ~at_infinity & (arrived | (lanes.t < 1e-5)) & (height > 1e-9)
    return np.select([at_infinity, regular, singular], [End.INFINITE, End.FINITE, End.SINGULAR], End.FAILED)
