"""All complex solutions of the equilibrium equations for one generic complex (X, Y), rank by rank.

Found once for each m and rank, they are where the parameter homotopies to actual moments start: a generic
problem has the most isolated solutions, and a path of parameters leads each actual solution back to one.

- Full rank: a total-degree homotopy from zᵢ² = cᵢ, all 2^{m(m+1)/2} paths; most go to infinity. A second
  one with other random numbers must find the same set.
- Rank 1 < k < m: the equations of rank k have no start system of small degree. Monodromy instead: pairs of a
  solution S of rank k and moments (X, Y) that it solves form one irreducible variety, so random loops of (X, Y)
  carry one solution to every other. They are collected until the set is closed under many further loops: a loop
  that permutes n solutions at random maps n − 1 of them onto themselves with probability 1/n only.
- Rank one needs no paths: its 2m solutions are the eigenpairs of `equations.rank_one`.

What was found up to m = 4 is kept in `generic.npz` (its residuals are checked when it is read), so that nobody
waits for it; `python -m jaxdyn.equilibria.generic` computes it anew, and the tests do so in part.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from .equations import Chart, chart_equations, full_rank, pack, product, symmetric, unpack
from .paths import End, Tracked, track
from .result import Paths

_SEED = 20_210_610
_SAME = 1e-7  # relative distance below which two solutions are one
_CLOSED = 8  # loops in a row that must bring nothing new
_MAX_LOOPS = 60


class Generic(NamedTuple):
    """Generic parameters X, Y [m, m] and all isolated solutions there, packed [solutions, m(m+1)/2]."""

    xx: np.ndarray
    yx: np.ndarray
    solutions: np.ndarray
    paths: Paths


@dataclass(frozen=True)
class TotalDegree:
    """γ t (zᵢ² − cᵢ z₀²) + (1 − t) M(S, z₀) with z = (z₀, S); params (X, Y, c, γ)."""

    def __call__(self, z: Any, t: Any, params: Any, frame: Any) -> Any:
        xx, yx, constants, gamma = params
        h, s = z[0], z[1:]
        return gamma * t * (s**2 - constants * h**2) + (1 - t) * full_rank(s, xx, yx, h)

    def recentre(self, z: Any, frame: Any) -> tuple[Any, Any]:
        return z, frame


@dataclass(frozen=True)
class Parameters:
    """From moments (X, Y) at t = 1 to others at t = 0, solutions S/z₀ of one rank.

    z = (z₀, Ŝ, Z) with S = P Ŝ Pᵀ, P = range + complement·Z, where the frame [range, complement] is
    unitary and moves along with the point, so that Z = 0 at the start of every step.
    """

    rank: int

    def __call__(self, z: Any, t: Any, params: Any, frame: Any) -> Any:
        xx, yx = between(t, *params)
        if self.rank == xx.shape[0]:
            return full_rank(z[1:], xx, yx, z[0])
        return chart_equations(z[1:], Chart(frame[:, : self.rank], frame[:, self.rank :]), xx, yx, z[0])

    def recentre(self, z: Any, frame: Any) -> tuple[Any, Any]:
        m, k = frame.shape[0], self.rank
        if k == m:
            return z, frame
        packed = k * (k + 1) // 2
        before, after = frame[:, :k], frame[:, k:]
        tilt = z[1 + packed :].reshape(m - k, k)
        first, triangle = _orthonormal(before + product(after, tilt))
        second, _ = _orthonormal(after - product(before, jnp.conj(tilt).T))
        turned = product(product(triangle, unpack(z[1 : 1 + packed], k)), triangle.T)
        return jnp.concatenate([z[:1], pack(turned), jnp.zeros_like(z[1 + packed :])]), jnp.concatenate(
            [first, second], 1
        )


def _orthonormal(columns: Any) -> tuple[Any, Any]:
    """Gram-Schmidt Q R of a few complex columns, in plain operations."""
    width = columns.shape[1]
    basis, triangle = [], jnp.zeros((width, width), columns.dtype)
    for j in range(width):
        column = columns[:, j]
        for i, earlier in enumerate(basis):
            part = jnp.sum(jnp.conj(earlier) * column)
            triangle, column = triangle.at[i, j].set(part), column - part * earlier
        size = jnp.linalg.norm(column)
        triangle = triangle.at[j, j].set(size)
        basis.append(column / size)
    return jnp.stack(basis, 1), triangle


def local(points: np.ndarray, m: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Packed symmetric matrices of this rank as (starts, frames) of `Parameters`."""
    full = symmetric(points.astype(complex), m)
    frames, *_ = np.linalg.svd(full) if rank < m else (np.broadcast_to(np.eye(m, dtype=complex), full.shape),)
    p = frames[..., :rank]
    hat = pack(np.conj(np.swapaxes(p, -1, -2)) @ full @ np.conj(p))
    zeros = np.zeros((points.shape[0], (m - rank) * rank))
    return np.concatenate([np.ones((points.shape[0], 1)), hat, zeros], 1), frames


def packed_solutions(tracked: Tracked, m: int, rank: int) -> np.ndarray:
    """S = P Ŝ Pᵀ/z₀ packed, for every path (meaningless for those at infinity)."""
    hat = np.asarray(jax.vmap(lambda u: unpack(u, rank))(tracked.points[:, 1 : 1 + rank * (rank + 1) // 2]))
    p = tracked.frames[..., :rank]
    with np.errstate(all="ignore"):
        return pack(p @ hat @ np.swapaxes(p, -1, -2)) / tracked.points[:, :1]


def between(t: Any, start: Any, end: Any) -> list[Any]:
    """The straight line from `end` (t = 0) to `start` (t = 1), leaf by leaf."""
    return [t * a + (1 - t) * b for a, b in zip(start, end, strict=True)]


def spread(count: int, *leaves: Any) -> tuple[np.ndarray, ...]:
    """Each array once for every path."""
    return tuple(np.broadcast_to(np.asarray(leaf, complex), (count, *np.shape(leaf))) for leaf in leaves)


@functools.lru_cache(maxsize=32)
def generic_solutions(m: int, rank: int) -> Generic:
    """All complex solutions of this rank, 1 <= rank <= m, for generic X and Y; from the file if it has them."""
    kept = _read(m, rank)
    return compute_generic(m, rank) if kept is None else kept


def compute_generic(m: int, rank: int) -> Generic:
    """`generic_solutions`, found anew."""
    rng = np.random.default_rng([_SEED, m])
    xx, yx = _symmetric(rng, m), 2 * _complex(rng, m, m)
    return _by_total_degree(xx, yx) if rank == m else _by_monodromy(xx, yx, rank)


def residuals(generic: Generic, rank: int) -> np.ndarray:
    """‖S M(S)‖ of every solution against the size of its terms, and its distance from this rank."""
    m = generic.xx.shape[0]
    s = symmetric(generic.solutions, m)
    lower = s @ generic.xx + np.eye(m)
    first = s @ np.swapaxes(lower, -1, -2) @ lower
    second = s @ generic.yx.T @ s @ generic.yx
    sizes = np.linalg.svd(s, compute_uv=False)
    beyond = sizes[:, rank] / sizes[:, 0] if rank < m else 0.0
    norm = lambda part: np.linalg.norm(part, axis=(1, 2))  # noqa: E731
    return np.maximum(norm(first - second) / (norm(first) + norm(second)), beyond)


_FILE = Path(__file__).with_name("generic.npz")


def _read(m: int, rank: int) -> Generic | None:
    name = f"m{m}_rank{rank}"
    with np.load(_FILE, allow_pickle=False) as kept:
        if name not in kept:
            return None
        xx, yx, solutions = kept[f"m{m}_xx"], kept[f"m{m}_yx"], kept[name]
        paths = Paths(**json.loads(str(kept[f"{name}_paths"])))
    generic = Generic(xx, yx, solutions, paths)
    if residuals(generic, rank).max() > 1e-9:
        raise RuntimeError(f"{_FILE}: its solutions do not solve their equations; write it anew")
    return generic


def write(sizes: Sequence[int], file: Path = _FILE) -> None:
    """Compute and keep the generic solutions for these m."""
    kept: dict[str, Any] = {}
    for m in sizes:
        for rank in range(2, m + 1):
            generic = compute_generic(m, rank)
            print(f"m = {m}, rank {rank}: {generic.paths}", flush=True)
            kept |= {f"m{m}_xx": generic.xx, f"m{m}_yx": generic.yx, f"m{m}_rank{rank}": generic.solutions}
            kept[f"m{m}_rank{rank}_paths"] = json.dumps(generic.paths._asdict())
    np.savez_compressed(file, **kept)


def _by_total_degree(xx: np.ndarray, yx: np.ndarray) -> Generic:
    m = xx.shape[0]
    first = _total_degree_run(xx, yx, np.random.default_rng([_SEED, m, 1]))
    again = _total_degree_run(xx, yx, np.random.default_rng([_SEED, m, 2]))
    solutions = regular(first, m, m)
    agreed = same_set(solutions, regular(again, m, m))
    agreed &= not np.isin(first.ends, [End.SINGULAR, End.FAILED]).any()
    ends = np.bincount(first.ends, minlength=4).tolist()
    paths = Paths(first.ends.size, *ends, check="a second γ finds the same solutions", confirmed=bool(agreed))
    return Generic(xx, yx, solutions, paths)


def _total_degree_run(xx: np.ndarray, yx: np.ndarray, rng: np.random.Generator) -> Tracked:
    unknowns = pack(xx).size
    constants = np.exp(2j * np.pi * rng.uniform(size=unknowns))
    signs = np.stack(np.meshgrid(*[[1, -1]] * unknowns, indexing="ij"), -1).reshape(-1, unknowns)
    starts = np.concatenate([np.ones((signs.shape[0], 1)), signs * np.sqrt(constants)], 1)
    gamma = np.exp(2j * np.pi * rng.uniform())
    frames = np.broadcast_to(np.eye(xx.shape[0]), (starts.shape[0], *xx.shape))
    params = spread(starts.shape[0], xx, yx, constants, gamma)
    tracked = track(TotalDegree(), starts, frames, params)
    lost = np.flatnonzero(tracked.ends == End.FAILED)
    if lost.size:  # paths to infinity whose exponent was not yet steady: smaller steps, nearer to t = 0
        again = track(
            TotalDegree(), starts[lost], frames[lost], tuple(leaf[lost] for leaf in params),
            tolerance=1e-7, t_infinity=1e-7,
        )  # fmt: skip
        for whole, part in zip(tracked, again, strict=True):
            whole[lost] = part
    return tracked


def _by_monodromy(xx: np.ndarray, yx: np.ndarray, rank: int) -> Generic:
    m = xx.shape[0]
    rng = np.random.default_rng([_SEED, m, rank, 3])
    seed, start = _seed_solution(rng, m, rank)
    base = (xx, yx)
    found = regular(parameter_track(seed[None], start, base, rank), m, rank)
    closed, loops = 0, 0
    while closed < _CLOSED and loops < _MAX_LOOPS:
        corners = [(_symmetric(rng, m), 2 * _complex(rng, m, m)) for _ in range(2)]
        moved = found
        for begin, end in zip([base, *corners], [*corners, base], strict=True):
            if moved.size:  # a path that is lost or long is left out: others will find what it would have found
                moved = regular(parameter_track(moved, begin, end, rank, max_steps=1000), m, rank)
        together = distinct(np.concatenate([found, moved]))
        grew = together.shape[0] > found.shape[0]
        closed = 0 if grew else closed + (moved.shape[0] >= 0.9 * found.shape[0])
        loops, found = loops + 1, together
    check = f"closed under {closed} monodromy loops after {loops - closed}"
    count = found.shape[0]
    paths = Paths(count, count, 0, 0, 0, check=check, confirmed=bool(closed >= _CLOSED))
    return Generic(xx, yx, found, paths)


def parameter_track(points: np.ndarray, start: Any, end: Any, rank: int, **options: Any) -> Tracked:
    """Follow packed solutions from one (X, Y) to another, all along one line."""
    count = points.shape[0]
    params = (spread(count, *start), spread(count, *end))
    return track(Parameters(rank), *local(points, start[0].shape[0], rank), params, **options)


def regular(tracked: Tracked, m: int, rank: int) -> np.ndarray:
    """The distinct regular solutions, packed."""
    return distinct(packed_solutions(tracked, m, rank)[tracked.ends == End.FINITE])


def _seed_solution(rng: np.random.Generator, m: int, rank: int) -> tuple[np.ndarray, Any]:
    """A random packed S of this rank, and (X, Y) that it solves.

    Pᵀ M(S) = 0 reads Uᵀ Ŝ (Pᵀ Y) = D with U = Pᵀ Y P and D = Pᵀ(XS + I)(SX + I): first U from
    Uᵀ Ŝ U = D P by square roots of symmetric matrices, then Pᵀ Y; the rest of Y is free.
    """
    p, hat, xx = _complex(rng, m, rank), _symmetric(rng, rank), _symmetric(rng, m)
    s, eye = p @ hat @ p.T, np.eye(m)
    d = p.T @ (xx @ s + eye) @ (s @ xx + eye)
    u = np.linalg.solve(scipy.linalg.sqrtm(hat), scipy.linalg.sqrtm(d @ p))
    part = np.linalg.solve(u.T @ hat, d)
    onto = p @ np.linalg.inv(p.T @ p)
    yx = onto @ part + (eye - onto @ p.T) @ _complex(rng, m, m)
    return pack(s), (xx, yx)


def distinct(points: np.ndarray) -> np.ndarray:
    """The points without those that repeat an earlier one."""
    kept: list[np.ndarray] = []
    for point in points:
        if not any(np.linalg.norm(point - other) < _SAME * (1 + np.linalg.norm(point)) for other in kept):
            kept.append(point)
    return np.array(kept).reshape(-1, points.shape[1])


def same_set(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two lists of distinct points are equal as sets."""
    return first.shape == second.shape and distinct(np.concatenate([first, second])).shape == first.shape


def _complex(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)


def _symmetric(rng: np.random.Generator, m: int) -> np.ndarray:
    g = _complex(rng, m, m)
    return (g + g.T) / 2


if __name__ == "__main__":
    with jax.enable_x64(True):
        write(range(2, 5))
