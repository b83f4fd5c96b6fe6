"""All real equilibria of reduced problems (X, Y), rank by rank, for many problems in one batch.

Each rank's generic solutions are led to every problem by a parameter homotopy; what ends real and positive
semidefinite is refined by Newton's method on (A, B). A problem with a failed path, one to infinity, two equal
ends or an odd number of real ones is done again along other lines, whose solutions fill the gaps, and what is missing
in the end is counted.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..analysis.linearise import jacobian
from ..engines.blocks import blockwise
from ..engines.kept import Kept
from ..moments import Moments
from ..progress import Progress
from ..systems.siamese import StopGradient, StudentState
from .equations import pack, rank_one, symmetric, thin_student
from .generic import Generic, generic_solutions, parameter_track
from .homotopies import Diagonal
from .paths import End
from .result import Completeness, Paths

COMPLETE_UP_TO = 4  # m; beyond it only the origin and rank one are complete
_TOLERANCES = (1e-2, 1e-2, 1e-3, 1e-4, 1e-6, 1e-6)  # of the attempts
_PATIENCE = (400, 400, 1000, 3000, 3000, 3000)  # their steps
_REAL = 1e-6


class Stratum(NamedTuple):
    """Equilibria of one rank of one problem: S [count, m, m], how many real S of any sign, the paths."""

    rank: int
    grams: np.ndarray
    real: int
    paths: Paths


def paths_of(m: int, rank: int) -> int:
    """How many paths one problem has; rank one needs none."""
    return 0 if rank == 1 else generic_solutions(m, rank).solutions.shape[0]


def solve_rank(xx: np.ndarray, yx: np.ndarray, rank: int, progress: Progress | None = None) -> list[Stratum]:
    """All equilibria of this rank for each problem xx, yx [problems, m, m]; `progress` is told of finished paths."""
    if rank == 1:
        return _solve_rank_one(xx, yx)
    generic = generic_solutions(xx.shape[-1], rank)
    todo = np.arange(xx.shape[0])
    strata: dict[int, Stratum] = {}
    found: dict[int, _Ends] = {}
    for attempt in range(len(_TOLERANCES)):
        # Paths that are followed again are no new ones.
        lines = _follow(generic, xx[todo], yx[todo], rank, attempt, progress if attempt == 0 else None)
        for index, ends in zip(todo.tolist(), lines, strict=True):
            # Where all paths arrived but something else is wrong, the new line is a second opinion, not a supplement.
            has_gaps = index in found and (found[index].ends != End.FINITE).any()
            found[index] = _united(found[index], ends) if has_gaps else _without_repetitions(ends)
        together = _Ends(*(np.stack(part) for part in zip(*(found[i] for i in todo), strict=True)))
        answers = _gather(generic.paths.check, generic.paths.starts, xx[todo], yx[todo], rank, *together)
        strata |= dict(zip(todo.tolist(), answers, strict=True))
        todo = np.array([i for i in todo if strata[i].paths.failed or strata[i].paths.infinite], int)
        if not todo.size:
            break
    return [strata[index] for index in range(xx.shape[0])]


class _Ends(NamedTuple):
    """Ends of one problem's paths: solutions [paths, …], `End` and condition [paths]."""

    solutions: np.ndarray
    ends: np.ndarray
    condition: np.ndarray


def _follow(
    generic: Generic, xx: np.ndarray, yx: np.ndarray, rank: int, attempt: int, progress: Progress | None
) -> list[_Ends]:
    """The generic solutions led to each problem, along a line of the attempt's own: other paths are lost on each.

    Lines differ in what the equations do not see: (X, Y, S) → (cX, √c Y, S/c), the order of the axes and their signs.
    """
    problems, m = xx.shape[0], xx.shape[-1]
    per_problem = generic.solutions.shape[0]
    rng = np.random.default_rng(attempt)
    order, signs, turn = np.argsort(np.real(generic.moments.logs)), np.ones(m), 0j
    if attempt:
        order, signs, turn = rng.permutation(m), rng.choice([-1.0, 1.0], m), 1j * np.pi * rng.uniform(-1, 1)
    logs, twisted = generic.moments.logs[order] + turn, signs[:, None] * signs * np.exp(turn / 2)
    start = Diagonal(logs, generic.moments.yx[np.ix_(order, order)] * twisted)
    points = symmetric(generic.solutions, m)[:, order][:, :, order] * signs[:, None] * signs * np.exp(-turn)
    values, axes = np.linalg.eigh(xx)
    wide = lambda leaf: np.repeat(leaf, per_problem, axis=0)  # noqa: E731
    end = Diagonal(wide(np.log(values)), wide(np.swapaxes(axes, 1, 2) @ yx @ axes))
    tracked = parameter_track(
        np.tile(pack(points), (problems, 1)), start, end, rank, tolerance=_TOLERANCES[attempt], t_infinity=1e-8,
        max_steps=_PATIENCE[attempt], progress=progress,
    )  # fmt: skip
    back = wide(axes)
    solutions = pack(back @ symmetric(tracked.solutions, m) @ np.swapaxes(back, 1, 2))
    split = lambda part: part.reshape(problems, per_problem, *part.shape[1:])  # noqa: E731
    return [_Ends(*each) for each in zip(split(solutions), split(tracked.ends), split(tracked.condition), strict=True)]


def _without_repetitions(ends: _Ends) -> _Ends:
    """Regular solutions that equal an earlier one, as far as their conditioning lets one tell, are failed paths."""
    nothing = np.full(ends.ends.shape, End.FAILED)
    return _united(_Ends(ends.solutions, nothing, ends.condition), ends)


def _united(known: _Ends, more: _Ends) -> _Ends:
    """Regular solutions of another line in the places of paths that were lost.

    The number of solutions is known, and each regular one is a true one, whichever line has led to it.
    """
    solutions, ends, condition = (part.copy() for part in known)
    regular = ends == End.FINITE
    for solution, end, quality in zip(*more, strict=True):
        places = np.flatnonzero(~regular)
        if end != End.FINITE or not places.size:
            continue
        distance = np.linalg.norm(solutions[regular] - solution, axis=1)
        noise = np.clip(1e-14 * np.maximum(condition[regular], quality), 1e-10, 1e-6)
        if (distance < noise * np.linalg.norm(solution)).any():
            continue
        at = places[0]
        solutions[at], ends[at], condition[at], regular[at] = solution, end, quality, True
    # What is still missing is as the new line says: singular, infinite or lost.
    places, rest = np.flatnonzero(~regular), np.flatnonzero(more.ends != End.FINITE)
    rank = {End.SINGULAR: 0, End.INFINITE: 1, End.FAILED: 2}  # a lost path may be to one that is known
    rest = np.array(sorted(rest, key=lambda path: rank[more.ends[path]]), int)[: places.size]
    ends[places] = End.FAILED
    for part, new in zip((solutions, ends, condition), more, strict=True):
        part[places[: rest.size]] = new[rest]
    return _Ends(solutions, ends, condition)


def _gather(
    check: str,
    starts: Completeness,
    xx: np.ndarray,
    yx: np.ndarray,
    rank: int,
    solutions: np.ndarray,
    ends: np.ndarray,
    condition: np.ndarray,
) -> list[Stratum]:
    """Real ends, refined together, and each problem's paths; whatever cannot be decided counts as failed.

    Every real end must be an equilibrium: real solutions are positive semidefinite (see `equations`).
    """
    problems, m = xx.shape[0], xx.shape[-1]
    finite = ends == End.FINITE
    with np.errstate(invalid="ignore"):
        size = np.linalg.norm(solutions, axis=-1)
        skew = np.linalg.norm(np.imag(solutions), axis=-1) / size
        noise = 1e-14 * condition
    real = (finite | (ends == End.SINGULAR)) & (skew < _REAL)
    doubtful = finite & ~real & (skew < noise)
    where, which = np.nonzero(real)
    grams, trusted = refine(symmetric(np.real(solutions[where, which]), m), rank, xx[where], yx[where])
    strata = []
    for index in range(problems):
        mine, there = where == index, finite[index]
        found = unequal(grams[mine & trusted])
        merged = int((mine & trusted & there[which]).sum()) - len(found) if there.all() else 0
        lost = int((mine & ~trusted & there[which]).sum()) + int(doubtful[index].sum())
        jumped = max(_repeated(solutions[index][there], noise[index][there]), merged)
        counts = np.bincount(ends[index], minlength=4).tolist()
        # Complex solutions of a real problem come in pairs: one real solution too few or too many shows.
        odd = int(counts[End.FINITE] == ends.shape[1] and (len(found) - ends.shape[1]) % 2)
        bad = min(max(jumped + lost, odd), counts[End.FINITE])
        paths = Paths(
            ends.shape[1], counts[End.FINITE] - bad, counts[End.INFINITE], counts[End.SINGULAR],
            counts[End.FAILED] + bad, check, starts,
        )  # fmt: skip
        strata.append(Stratum(rank, found, int(real[index].sum()), paths))
    return strata


def unequal(grams: np.ndarray) -> np.ndarray:
    """Refined S without repetitions; entries are compared on the scale of their own diagonal ones."""
    kept: list[np.ndarray] = []
    for gram in grams:
        scale = np.sqrt(np.diag(gram).clip(0))
        scale = np.outer(scale, scale) + 1e-13 * np.trace(gram)
        if not any((np.abs(gram - other) < 1e-6 * scale).all() for other in kept):
            kept.append(gram)
    return np.array(kept).reshape(-1, *grams.shape[1:])


def _repeated(solutions: np.ndarray, noise: np.ndarray) -> int:
    """How many regular solutions equal an earlier one as far as their conditioning lets one tell: jumped paths."""
    size = np.linalg.norm(solutions, axis=1)
    distance = np.linalg.norm(solutions[:, None] - solutions[None], axis=2)
    close = distance < (np.clip(noise, 1e-10, 1e-6) * size)[:, None]
    return int(np.triu(close, 1).any(0).sum())


def _solve_rank_one(xx: np.ndarray, yx: np.ndarray) -> list[Stratum]:
    """Rank one from the 2m eigenpairs of `equations.rank_one`: S = p pᵀ/κ²."""
    kappa, p = rank_one(xx, yx)
    size = np.abs(kappa)
    largest = size.max(-1, keepdims=True)
    gaps = np.abs(kappa[:, :, None] - kappa[:, None]) + np.eye(kappa.shape[1]) * largest[:, :, None]
    # Close eigenvalues are a double solution or a continuum: neither their number nor place can be trusted.
    ends = np.where(gaps.min(-1) < 1e-6 * size, End.SINGULAR, End.FINITE)
    ends = np.where(size < 1e-12 * largest, End.INFINITE, ends)
    turned = p / _phase(p)
    with np.errstate(divide="ignore", invalid="ignore"):
        grams = turned[..., :, None] * turned[..., None, :] / kappa[..., None, None] ** 2
        grams = np.where(
            np.abs(np.imag(kappa))[..., None, None] < 1e-8 * size[..., None, None], grams, grams + 1j * grams
        )
    condition = np.ones(ends.shape)  # eigenvalues are told apart by their gaps, above
    return _gather("2m eigenpairs of a quadratic pencil", Completeness.PROVED, xx, yx, 1, pack(grams), ends, condition)


def _phase(vectors: np.ndarray) -> np.ndarray:
    """The unit complex number that each (nearly real up to a phase) vector carries."""
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(-1)[..., None], -1)
    return largest / np.abs(largest)


def refine(grams: np.ndarray, rank: int, xx: np.ndarray, yx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method on (A, B) with n = rank, from S [count, m, m]; returns S and whether it is an equilibrium there.

    The field's Jacobian has the orbit as its kernel: the shortest Newton step leaves it out.
    """
    if not grams.shape[0]:
        return grams, np.zeros(0, bool)
    refined, moved, residual, smallest = newton(grams, xx, yx, rank)
    trusted = (moved < 1e-3) & (residual < 1e-11) & (smallest > 0)
    return np.where(trusted[:, None, None], refined, grams), trusted


def newton(
    grams: np.ndarray, xx: np.ndarray, yx: np.ndarray, rank: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Four of Newton's steps from each S [count, m, m] of this rank, see `refine_one`."""
    return blockwise(_refine(rank), grams, xx, yx, size=64)


@functools.lru_cache(maxsize=16)
def _refine(rank: int) -> Any:
    return Kept(jax.vmap(lambda s, xx, yx: refine_one(s, xx, yx, rank)))


def refine_one(s: Array, xx: Array, yx: Array, rank: int, steps: int = 4) -> tuple[Array, Array, Array, Array]:
    """Newton steps from S: the new S, how far it moved, the field's residual, its rank's smallest eigenvalue."""
    moments, system, m = Moments(xx, yx), StopGradient(1.0), xx.shape[0]
    start = thin_student(s, rank, xx, yx)
    y = jnp.concatenate([start.encoder.ravel(), start.predictor.ravel()])

    def state_of(y: Any):
        return StudentState(y[: rank * m].reshape(rank, m), y[rank * m :].reshape(rank, rank))

    def newton(_, y: Any):
        field = system.field(0.0, state_of(y), moments)
        right = jnp.concatenate([field.encoder.ravel(), field.predictor.ravel()])
        step = jnp.linalg.lstsq(jacobian(system, state_of(y), moments), -right, rcond=1e-13)[0]
        return y + step

    end = jax.lax.fori_loop(0, steps, newton, y)
    state, norm = state_of(end), jnp.linalg.norm(end)
    gram = state.encoder.T @ state.encoder
    field = system.field(0.0, state, moments)
    # Against the field's terms: where these are large and cancel, rounding leaves more than of the state itself.
    sizes = [jnp.linalg.norm(part) for part in (*state, xx, yx)]
    terms = norm + (sizes[0] + sizes[1]) * (sizes[0] * sizes[1] * sizes[2] + sizes[0] * sizes[3])
    residual = jnp.maximum(jnp.abs(field.encoder).max(), jnp.abs(field.predictor).max()) / terms
    moved = jnp.linalg.norm(gram - s) / jnp.linalg.norm(s)
    return gram, moved, residual, jnp.linalg.eigvalsh(gram)[m - rank] / jnp.linalg.norm(gram) - 1e-14
