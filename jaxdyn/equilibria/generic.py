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

How many there are for 1 < k <= m <= 4 was counted by other means, too: `COUNTED`. What was found is kept in
`generic.npz` (its residuals are checked when it is read), so that nobody waits for it;
`python -m jaxdyn.equilibria.generic` computes it anew, and the tests do so in part.
"""

import functools
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .equations import pack, symmetric
from .homotopies import Diagonal, Parameters, TotalDegree
from .paths import End, Tracked, track
from .result import Completeness, Paths

# The dimension of the quotient by a Gröbner basis over the field of 32003 elements, for random X and Y in it; Singular
# took 0.1 s for m = 3 and 58, 91 and 1 s for m = 4 (tests/equilibria/counting.py does it again). Rank one: 2m.
COUNTED = {(2, 2): 6, (3, 2): 30, (3, 3): 24, (4, 2): 84, (4, 3): 288, (4, 4): 124}
_SEED = 20_210_610
_SAME = 1e-7  # relative distance below which two solutions are one
_CLOSED = 8  # loops in a row that must bring nothing new
_MAX_LOOPS = 60
_PATIENCE = 1000  # steps of a path around a loop


class Generic(NamedTuple):
    """Generic moments, X = diag(exp(logs)) [m] and Y [m, m], and all isolated solutions, packed [solutions, …]."""

    moments: Diagonal
    solutions: np.ndarray
    paths: Paths


@functools.lru_cache(maxsize=32)
def generic_solutions(m: int, rank: int) -> Generic:
    """All complex solutions of this rank, 1 <= rank <= m, for generic X and Y; from the file if it has them."""
    kept = _read(m, rank)
    return compute_generic(m, rank) if kept is None else kept


def compute_generic(m: int, rank: int) -> Generic:
    """`generic_solutions`, found anew."""
    moments = _random_moments(np.random.default_rng([_SEED, m]), m)
    return _by_total_degree(moments) if rank == m else _by_monodromy(moments, rank)


def residuals(generic: Generic, rank: int) -> np.ndarray:
    """‖S M(S)‖ of every solution against the size of its terms, and its distance from this rank."""
    xx, yx = np.diag(np.exp(generic.moments.logs)), generic.moments.yx
    m = xx.shape[0]
    s = symmetric(generic.solutions, m)
    lower = s @ xx + np.eye(m)
    first = s @ np.swapaxes(lower, -1, -2) @ lower
    second = s @ yx.T @ s @ yx
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
        moments, solutions = Diagonal(kept[f"m{m}_logs"], kept[f"m{m}_yx"]), kept[name]
        told = json.loads(str(kept[f"{name}_paths"]))
    # How sure the file was of itself; the independent count decides anew.
    found = Completeness.PROVED if rank == m else Completeness.MONODROMY
    plain = told["check"].split("; a Gröbner basis")[0]
    check, starts = _told(m, rank, solutions, plain, found, told["starts"] <= Completeness.MONODROMY)
    paths = Paths(**told | {"check": check, "starts": starts})
    generic = Generic(moments, solutions, paths)
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
            logs, yx = generic.moments
            kept |= {f"m{m}_logs": logs, f"m{m}_yx": yx, f"m{m}_rank{rank}": generic.solutions}
            kept[f"m{m}_rank{rank}_paths"] = json.dumps(generic.paths._asdict())
    np.savez_compressed(file, **kept)


def _by_total_degree(moments: Diagonal) -> Generic:
    m = moments.logs.size
    first = _total_degree_run(moments, np.random.default_rng([_SEED, m, 1]))
    again = _total_degree_run(moments, np.random.default_rng([_SEED, m, 2]))
    solutions = regular(first)
    agreed = same_set(solutions, regular(again))
    agreed &= not np.isin(first.ends, [End.SINGULAR, End.FAILED]).any()
    ends = np.bincount(first.ends, minlength=4).tolist()
    check, starts = _told(m, m, solutions, "a second γ finds the same solutions", Completeness.PROVED, bool(agreed))
    return Generic(moments, solutions, Paths(first.ends.size, *ends, check=check, starts=starts))


def _told(
    m: int, rank: int, solutions: np.ndarray, check: str, found: Completeness, agreed: bool
) -> tuple[str, Completeness]:
    """What confirms these solutions, and how sure they are: an independent count decides, where there is one."""
    count = COUNTED.get((m, rank))
    if count is None:
        return check, found if agreed else Completeness.MISSED
    if count == solutions.shape[0]:
        return f"{check}; a Gröbner basis counts as many", Completeness.PROVED
    return f"{check}; a Gröbner basis counts {count}", Completeness.MISSED


def _total_degree_run(moments: Diagonal, rng: np.random.Generator) -> Tracked:
    unknowns = pack(moments.yx).size
    constants = np.exp(2j * np.pi * rng.uniform(size=unknowns))
    signs = np.stack(np.meshgrid(*[[1, -1]] * unknowns, indexing="ij"), -1).reshape(-1, unknowns)
    starts = np.concatenate([np.ones((signs.shape[0], 1)), signs * np.sqrt(constants)], 1)
    homotopy = TotalDegree(np.exp(moments.logs), moments.yx, constants, np.exp(2j * np.pi * rng.uniform()))
    tracked = track(homotopy, starts)
    lost = np.flatnonzero(tracked.ends == End.FAILED)
    if lost.size:  # paths to infinity whose exponent was not yet steady: smaller steps, nearer to t = 0
        again = track(homotopy, starts[lost], tolerance=1e-7, t_infinity=1e-7)
        for whole, part in zip(tracked, again, strict=True):
            whole[lost] = part
    return tracked


def _by_monodromy(moments: Diagonal, rank: int) -> Generic:
    m = moments.logs.size
    rng = np.random.default_rng([_SEED, m, rank, 3])
    seed, there = _seed_solution(rng, m, rank)
    found = regular(parameter_track(seed[None], there, moments, rank))
    closed, loops = 0, 0
    while closed < _CLOSED and loops < _MAX_LOOPS:
        turns = 2j * np.pi * rng.integers(-1, 2, m)  # X comes back by another way around zero
        home = Diagonal(moments.logs + turns, moments.yx)
        corners = [moments, _random_moments(rng, m), _random_moments(rng, m), home]
        moved = found
        for begin, end in itertools.pairwise(corners):
            if moved.size:  # a path that is lost or long is left out: others will find what it would have found
                moved = regular(parameter_track(moved, begin, end, rank, max_steps=_PATIENCE))
        together = distinct(np.concatenate([found, moved]))
        grew = together.shape[0] > found.shape[0]
        closed = 0 if grew else closed + (moved.shape[0] >= 0.9 * found.shape[0])
        loops, found = loops + 1, together
    check = f"closed under {closed} monodromy loops after {loops - closed}"
    count = found.shape[0]
    check, starts = _told(m, rank, found, check, Completeness.MONODROMY, closed >= _CLOSED)
    return Generic(moments, found, Paths(count, count, 0, 0, 0, check=check, starts=starts))


def parameter_track(points: np.ndarray, start: Diagonal, end: Diagonal, rank: int, **options: Any) -> Tracked:
    """Follow packed solutions [paths, …] from moments, the same for all or one for each, to others."""
    count, m = points.shape[0], start.yx.shape[-1]
    full = symmetric(points.astype(complex), m)
    eye = np.broadcast_to(np.eye(m, dtype=complex), full.shape)
    frames = np.linalg.svd(full)[0] if rank < m else eye
    p = frames[..., :rank]
    hat = pack(np.conj(np.swapaxes(p, -1, -2)) @ full @ np.conj(p))
    starts = np.concatenate([np.ones((count, 1)), hat, np.zeros((count, (m - rank) * rank))], 1)

    def of_all(side: Diagonal) -> Diagonal:
        logs, yx = (part.astype(complex) for part in side)
        return Diagonal(np.broadcast_to(logs, (count, m)), np.broadcast_to(yx, full.shape))

    return track(Parameters(rank, of_all(start), of_all(end), frames), starts, **options)


def regular(tracked: Tracked) -> np.ndarray:
    """The distinct regular solutions, packed."""
    return distinct(tracked.solutions[tracked.ends == End.FINITE])


def _seed_solution(rng: np.random.Generator, m: int, rank: int) -> tuple[np.ndarray, Diagonal]:
    """A random packed S of this rank, and moments that it solves.

    Pᵀ M(S) = 0 reads Uᵀ Ŝ (Pᵀ Y) = D with U = Pᵀ Y P and D = Pᵀ(XS + I)(SX + I): first U from
    Uᵀ Ŝ U = D P by square roots of symmetric matrices, then Pᵀ Y; the rest of Y is free.
    """
    import scipy.linalg  # slow to import, and needed here alone

    p, hat, logs = _complex(rng, m, rank), _symmetric(rng, rank), _random_moments(rng, m).logs
    s, eye, xx = p @ hat @ p.T, np.eye(m), np.diag(np.exp(logs))
    d = p.T @ (xx @ s + eye) @ (s @ xx + eye)
    u = np.linalg.solve(scipy.linalg.sqrtm(hat), scipy.linalg.sqrtm(d @ p))
    part = np.linalg.solve(u.T @ hat, d)
    onto = p @ np.linalg.inv(p.T @ p)
    yx = onto @ part + (eye - onto @ p.T) @ _complex(rng, m, m)
    return pack(s), Diagonal(logs, yx)


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


def _random_moments(rng: np.random.Generator, m: int) -> Diagonal:
    """Generic complex moments, with X not far from positive ones, where all paths go."""
    return Diagonal(0.5 * rng.normal(size=m) + 1j * rng.uniform(-1, 1, m), 2 * _complex(rng, m, m))


def _complex(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)


def _symmetric(rng: np.random.Generator, m: int) -> np.ndarray:
    g = _complex(rng, m, m)
    return (g + g.T) / 2


if __name__ == "__main__":
    write(range(2, 5))
