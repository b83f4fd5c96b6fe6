"""Following solution paths of polynomial homotopies: many paths, each with its own step, through the trial engine.

A homotopy H(z, t, params, frame) is homogeneous in z ∈ C^{K+1} with K equations; a path z(t) is followed
from t = 1 to t = 0 on the unit sphere (projective coordinates, so that paths to infinity stay bounded: they
end with z₀ = 0). Coordinates may be local: `recentre(z, frame)` moves them along after each step. A step
predicts by the classical Runge-Kutta method and corrects by two Newton steps, the first of which measures
the prediction's error and sets the next step's length.
"""

import enum
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..engines.xla import Stage, run
from ..linear import solve_linear
from ..progress import Progress


@runtime_checkable
class Homotopy(Protocol):
    """A hashable family of equations, holomorphic in z; plain JAX operations only."""

    def __call__(self, z: Any, t: Any, params: Any, frame: Any) -> Any: ...

    def recentre(self, z: Any, frame: Any) -> tuple[Any, Any]:
        """The same point in coordinates of a frame at that point."""
        ...


TOLERANCE = 1e-4  # relative size of the first Newton step after a prediction
_CORRECTED = 1e-5  # relative size of the second
_LONGEST = 0.1  # step in t: a longer one may land on another path, as on one at infinity
_SMALLEST = 1e-10  # t at which a path is given up


class End(enum.IntEnum):
    """How a path ended: at a regular solution, at infinity, at a singular solution, or not at all."""

    FINITE = 0
    INFINITE = 1
    SINGULAR = 2
    FAILED = 3


class Tracked(NamedTuple):
    """Ends of paths: points [paths, K + 1] and their frames, `End` [paths], steps [paths], condition [paths]."""

    points: np.ndarray
    frames: np.ndarray
    ends: np.ndarray
    steps: np.ndarray
    condition: np.ndarray


class _Path(NamedTuple):
    point: Any
    frame: Any
    t: Any
    dt: Any
    t_mark: Any
    log_mark: Any
    slope: Any
    steady: Any


class _Lane(NamedTuple):
    params: Any
    tolerance: Any
    t_infinity: Any


def track(
    homotopy: Homotopy,
    starts: np.ndarray,
    frames: np.ndarray,
    params: Any,
    *,
    tolerance: float = TOLERANCE,
    t_infinity: float = 1e-3,
    max_steps: int = 5000,
    progress: Progress | None = None,
) -> Tracked:
    """Follow the paths from t = 1 to t = 0.

    Args:
        homotopy: the equations of one path.
        starts: [paths, K + 1], solutions at t = 1.
        frames: [paths, …], the local coordinates they are in.
        params: pytree with a leading axis of paths.
        tolerance: of the predictor, relative; smaller is safer and slower.
        t_infinity: a path may be told to be at infinity once t is below this. Where large finite
            solutions are expected it must be small.
        max_steps: a path that needs more has failed.
        progress: told of finished paths.
    """
    starts = starts / np.linalg.norm(starts, axis=1, keepdims=True)
    count = starts.shape[0]
    ones = np.ones(count)
    path = _Path(
        point=starts.astype(complex),
        frame=frames.astype(complex),
        t=ones,
        dt=0.02 * ones,
        t_mark=0.1 * ones,
        log_mark=np.log(np.abs(starts[:, 0]) + 1e-300),
        slope=0 * ones,
        steady=np.zeros(count, np.int32),
    )
    lane = _Lane(params, tolerance * ones, t_infinity * ones)
    # Most paths take some sixty steps, a few a thousand: those go on in narrow arrays. Two widths, as each is compiled.
    stages = (Stage(128, 256, 32),) if count > 128 else ()
    stages += (Stage(2**62, 16, 64),)
    step = _Step(homotopy)
    finished = run(step, _ended, path, lane, max_steps, stages=stages, progress=progress)
    end = finished.states
    ends = [_finish(homotopy, end, params, part) for part in _parts(count)]
    points, doubled, condition = (np.concatenate(part) for part in zip(*ends, strict=True))
    points = np.where((end.t <= 0)[:, None], points, end.point)
    return Tracked(points, end.frame, _classify(end, condition, doubled), finished.steps, condition)


def _parts(count: int) -> list[np.ndarray]:
    return [np.minimum(np.arange(i, i + 1024), count - 1)[: count - i] for i in range(0, count, 1024)]


def _finish(homotopy: Homotopy, end: _Path, params: Any, index: np.ndarray) -> tuple[np.ndarray, ...]:
    """Points after more Newton steps, whether these only halve (a double solution), and condition numbers."""
    width = 2 ** int(np.ceil(np.log2(index.size)))  # few shapes, few compilations
    padded = np.concatenate([index, np.repeat(index[:1], width - index.size)])
    arguments = jax.tree.map(lambda leaf: leaf[padded], (end.point, end.t, params, end.frame))
    points, sizes, matrices = (np.asarray(part)[: index.size] for part in _finisher(homotopy)(*arguments))
    with np.errstate(all="ignore"):
        ratios = sizes[:, -3:] / sizes[:, -4:-1]
    doubled = ((ratios > 0.35) & (ratios < 0.65)).all(1) & (sizes[:, -1] > 1e-13)
    # Row scaling does not change the solution: judge the scaled matrix.
    matrices = matrices / np.linalg.norm(matrices, axis=-1, keepdims=True).clip(1e-300)
    fine = np.isfinite(matrices).all((1, 2))
    condition = np.full(index.size, np.inf)
    condition[fine] = np.linalg.cond(matrices[fine])
    return np.where(np.isfinite(points), points, end.point[index]), doubled, condition


@functools.lru_cache(maxsize=64)
def _finisher(homotopy: Homotopy) -> Any:
    def one(z: Any, t: Any, params: Any, frame: Any) -> tuple[Any, Any, Any]:
        def newton(w: Any, _) -> tuple[Any, Any]:
            right = jnp.append(-homotopy(w, t, params, frame), 0)
            change = solve_linear(_bordered_jacobian(homotopy, w, t, params, frame), right)
            return w + change, jnp.linalg.norm(change)

        point, sizes = jax.lax.scan(newton, z, None, length=8)
        return point, sizes, _bordered_jacobian(homotopy, point, t, params, frame)

    return jax.jit(jax.vmap(one))


def _classify(end: _Path, condition: np.ndarray, doubled: np.ndarray) -> np.ndarray:
    arrived = end.t <= 0
    near_infinity = np.abs(end.point[:, 0]) < np.where(arrived, 1e-11, 1e-2)
    at_infinity = np.where(arrived, near_infinity, (end.steady >= 3) & near_infinity)
    # So far out that the steps have become too short for rounding, and still falling.
    at_infinity |= ~arrived & (end.t < 1e-4) & (np.abs(end.point[:, 0]) < 1e-9) & (end.slope > 0.3)
    regular = arrived & ~at_infinity & (condition < 1e11) & ~doubled
    # A path to a double or non-isolated solution slows down near t = 0 at a finite place.
    singular = ~regular & ~at_infinity & (arrived | (end.t < 1e-5)) & (np.abs(end.point[:, 0]) > 1e-9)
    return np.select([at_infinity, regular, singular], [End.INFINITE, End.FINITE, End.SINGULAR], End.FAILED)


def _bordered_jacobian(homotopy: Homotopy, z: Array, t: Array, params: Any, frame: Any) -> Array:
    """∂H/∂z with the row z̄ below it: the tangent is sought orthogonally to the point's own multiples."""
    j = jax.jacfwd(lambda w: homotopy(w, t, params, frame), holomorphic=True)(z)
    return jnp.concatenate([j, jnp.conj(z)[None]], 0)


def _ended(previous: _Path, path: _Path, lane: _Lane) -> Array:
    small = jnp.exp(path.log_mark) < 1e-2
    at_infinity = (path.steady >= 3) & small & (path.t < lane.t_infinity)
    return (path.t <= 0) | (path.t < _SMALLEST) | (path.dt < 1e-15) | at_infinity


@dataclass(frozen=True)
class _Step:
    """One predictor-corrector step of one path, taken or refused."""

    homotopy: Homotopy

    def __call__(self, path: _Path, lane: _Lane) -> _Path:
        equations = lambda z, t: self.homotopy(z, t, lane.params, path.frame)  # noqa: E731

        def solve(z: Any, t: Any, right: Any):
            return solve_linear(_bordered_jacobian(self.homotopy, z, t, lane.params, path.frame), jnp.append(right, 0))

        def backward(z: Any, t: Any):
            """−dz/dt along the path."""
            rate = jax.jvp(lambda s: equations(z, s), (t,), (jnp.ones_like(t),))[1]
            return solve(z, t, rate)

        z, t = path.point, path.t
        dt = jnp.minimum(path.dt, t)
        new_t = t - dt
        k1 = backward(z, t)
        k2 = backward(z + dt / 2 * k1, t - dt / 2)
        k3 = backward(z + dt / 2 * k2, t - dt / 2)
        k4 = backward(z + dt * k3, new_t)
        w = z + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        first = solve(w, new_t, -equations(w, new_t))
        w = w + first
        second = solve(w, new_t, -equations(w, new_t))
        w = w + second
        norm = jnp.linalg.norm(w)
        error, left = jnp.linalg.norm(first) / norm, jnp.linalg.norm(second) / norm
        accepted = (error < lane.tolerance) & (left < _CORRECTED)
        accepted &= jnp.isfinite(error) & jnp.isfinite(left)
        growth = jnp.clip(0.8 * (lane.tolerance / jnp.maximum(error, 1e-300)) ** 0.2, 0.25, 3.0)
        growth = jnp.where(accepted, growth, jnp.minimum(growth, 0.5))
        growth = jnp.where(jnp.isfinite(growth), growth, 0.25)
        point, frame = self.homotopy.recentre(w, path.frame)
        point = point / jnp.linalg.norm(point)
        keep = lambda new, old: jnp.where(accepted, new, old)  # noqa: E731
        path = path._replace(frame=keep(frame, path.frame))
        return _watch_infinity(path, keep(point, z), keep(new_t, t), jnp.minimum(dt * growth, _LONGEST))


def _watch_infinity(path: _Path, point: Array, t: Array, dt: Array) -> _Path:
    """Each time t has fallen by four: the exponent of |z₀| ~ t^slope; a steady one is a path to infinity."""
    log_size = jnp.log(jnp.abs(point[0]) + 1e-300)
    passed = t < path.t_mark / 4
    slope = (log_size - path.log_mark) / (jnp.log(jnp.maximum(t, 1e-300)) - jnp.log(path.t_mark))
    same = (jnp.abs(slope - path.slope) < 0.1 * jnp.abs(slope)) & (slope > 0.05)
    steady = jnp.where(same, path.steady + 1, 0).astype(path.steady.dtype)
    keep = lambda new, old: jnp.where(passed, new, old)  # noqa: E731
    return _Path(
        point, path.frame, t, dt, keep(t, path.t_mark), keep(log_size, path.log_mark), keep(slope, path.slope),
        keep(steady, path.steady),
    )  # fmt: skip
