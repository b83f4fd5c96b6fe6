"""Every equilibrium of a Siamese system on given moments, with its stability and how complete the list is."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..analysis.linearise import Doubt, Linearisation, Verdict, linearise
from ..arrays import in_float64, is_traced
from ..checks import checked_arguments, expected, number, whole_number
from ..engines.blocks import blockwise
from ..engines.kept import Kept
from ..linear import one_thread_at_a_time
from ..moments import Moments
from ..progress import Progress, shown
from ..schedules import is_scheduled
from ..solve.methods.procedure import Optimizer
from ..systems.siamese import MovingAverage, Objective, Siamese, StopGradient
from . import certificates
from .equations import ReducedProblem, lift, reduce_arrays
from .result import Equilibria, Equilibrium
from .search import STARTS, search
from .strata import COMPLETE_UP_TO, Stratum, paths_of, solve_rank


@checked_arguments
@in_float64
def equilibria(
    system: Siamese,
    moments: Moments,
    *,
    n: int | None = None,
    lr: float | None = None,
    optimizer: Optimizer | None = None,
    certify: bool = False,
    progress: Progress | bool | None = None,
) -> Equilibria:
    """Every equilibrium of SG or EMA on these moments, up to O(n), with its stability.

    Complete for m <= 4 unless the answer says otherwise (see `Completeness` for how sure that is); for larger m
    the origin and rank one are complete and the rest is a search, labelled as such. Computed in float64 on the
    CPU's side of JAX; EMA has the equilibria of SG (C = A), with its own stability. The plain objective has the
    origin alone (P Lemma 4.3).

    Args:
        system: `StopGradient`, `MovingAverage` or `Objective`, with positive weight decays.
        moments: second moments in float64.
        n: embedding dimension, default m + 1; only ranks up to n exist.
        lr: also linearise the procedure with this learning rate, per step.
        optimizer: of that procedure, see `descend`; default: the procedure as written.
        certify: also prove existence, uniqueness and unstable count of each in ball arithmetic
            (needs python-flint: `pip install 'jaxdyn[certify]'`).
        progress: True for a bar, or a function that is called with the number of paths (for m > 4, starts of the
            search) newly finished, from any thread. m <= 4 takes seconds.

    Returns:
        `Equilibria`, the origin first, then by rank and size.

    Raises:
        ValueError: for moments in float32, weight decay 0 (the equilibria are not isolated then), or
            moments that no views have.

    Example:
        >>> with jax.enable_x64(True):
        ...     found = equilibria(StopGradient(0.1), Moments.scalar(1.0, 0.8))
        >>> [(item.rank, item.verdict.name) for item in found], found.complete
        ([(0, 'STABLE'), (1, 'SADDLE'), (1, 'STABLE')], True)

    Source: P Props 4.5-4.11; the method is described in `generic` and `solve`.
    """
    (answer,) = census([system], [moments], n=n, lr=lr, optimizer=optimizer, progress=progress)
    if not certify:
        return answer
    proofs = [certificates.certify(item.gram, item.rank, answer.n, system, moments) for item in answer]
    items = [dataclasses.replace(item, certificate=proof) for item, proof in zip(answer, proofs, strict=True)]
    return dataclasses.replace(answer, items=tuple(items))


@checked_arguments
@in_float64
@one_thread_at_a_time
def census(
    systems: Siamese | Sequence[Siamese],
    moments: Moments | Sequence[Moments],
    *,
    n: int | None = None,
    lr: float | None = None,
    optimizer: Optimizer | None = None,
    stability_too: bool = True,
    progress: Progress | bool | None = None,
) -> list[Equilibria]:
    """`equilibria` for many systems and moments at once, in one batch of paths.

    Args:
        systems, moments: equally many, or one of either for all; all moments with the same m.
        n, lr, optimizer, progress: see `equilibria`; the same for all.
        stability_too: without it the verdicts are left undetermined.

    Returns:
        A list of `Equilibria`, one for each.

    Raises:
        ValueError: as `equilibria`.

    Source: P Props 4.5-4.11.
    """
    many = [systems] if isinstance(systems, Siamese) else list(systems)
    data = [moments] if isinstance(moments, Moments) else list(moments)
    for each in data:
        expected("moments", each, Moments)
    count = max(len(many), len(data))
    many, data = many * count if len(many) == 1 else many, data * count if len(data) == 1 else data
    if not count or len(many) != len(data):
        raise ValueError(f"moments: expected as many as systems, {len(many)}, or one, got {len(data)}")
    if len({each.m for each in data}) > 1:
        raise ValueError("moments: expected one input dimension m for all")
    m = data[0].m
    n = m + 1 if n is None else whole_number("n", n)
    if optimizer is not None and lr is None:
        raise ValueError("lr: an optimizer trains in steps; expected a learning rate")
    if lr is not None:
        lr = number("lr", lr, above=0)
        for system in many:
            system.check_lr(lr)
    problems = [Problem.pose(system, each) for system, each in zip(many, data, strict=True)]
    strata: list[dict[int, Stratum]] = [{} for _ in problems]
    work: list[tuple[int, list[int]]] = []
    for size in sorted({problem.size for problem in problems}):
        for rank in range(1, min(n, size) + 1):
            chosen = [i for i, p in enumerate(problems) if p.size == size and p.largest_rank >= rank]
            work += [(rank, chosen)] if chosen else []
    total = sum(len(chosen) * _effort(problems[chosen[0]].size, rank) for rank, chosen in work)
    with shown(progress, total, "paths") as report:
        for rank, chosen in work:
            xx, yx = (np.stack([getattr(problems[i].reduced, name) for i in chosen]) for name in ("xx", "yx"))
            solver = solve_rank if rank == 1 or problems[chosen[0]].size <= COMPLETE_UP_TO else search
            for i, stratum in zip(chosen, solver(xx, yx, rank, report), strict=True):
                strata[i][rank] = stratum
    answers = [problem.answer(part, n, lr) for problem, part in zip(problems, strata, strict=True)]
    return _linearised(answers, lr, optimizer) if stability_too else answers


def _effort(m: int, rank: int) -> int:
    """Paths of one problem, or starts of its search."""
    return paths_of(m, rank) if rank == 1 or m <= COMPLETE_UP_TO else STARTS


@dataclass(frozen=True)
class Problem:
    """One reduced problem, on the directions in which X does not vanish."""

    system: Siamese
    moments: Moments
    reduced: ReducedProblem
    basis: np.ndarray
    largest_rank: int
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        return self.basis.shape[1]

    @classmethod
    def pose(cls, system: Siamese, moments: Moments) -> "Problem":
        """Check that the question has an answer, and reduce it."""
        if not isinstance(system, StopGradient | MovingAverage | Objective):
            raise ValueError(f"system: equilibria are found for SG, EMA and the objective, got {type(system).__name__}")
        if is_scheduled(system):
            raise ValueError("system: a schedule has no equilibrium; take its numbers at one step, jd.at(system, step)")
        if is_traced(system, moments):
            raise ValueError("system, moments: equilibria cannot be traced; pass numbers (census takes many at once)")
        if moments.xx.dtype != jnp.float64:
            raise ValueError(
                f"moments: equilibria need float64, got {moments.xx.dtype}; make them under jax.enable_x64(True)"
            )
        decays = [float(part) for part in system.weight_decay]
        if min(decays) <= 0:
            raise ValueError(
                "weight_decay: expected positive decays of encoder and predictor: with a zero one the equilibria are "
                f"not isolated (T eq 97), got {decays[0]:g} and {decays[1]:g}"
            )
        xx, yx = np.asarray(moments.xx), np.asarray(moments.yx)
        values, vectors = np.linalg.eigh(xx)
        basis = vectors[:, values > 1e-12 * max(values[-1], 0)] if values[-1] > 0 else np.zeros((moments.m, 0))
        if basis.shape[1] < moments.m:
            hidden = np.eye(moments.m) - basis @ basis.T
            if np.linalg.norm(yx @ hidden) > 1e-9 * (np.linalg.norm(yx) + 1e-300):
                raise ValueError(
                    "moments: xx is singular to working precision, but yx does not vanish on its kernel: no views "
                    "have such moments, or they are too ill-conditioned to be solved"
                )
        else:
            basis = np.eye(moments.m)
        notes = []
        if basis.shape[1] < moments.m:
            notes.append(f"X is singular: the {moments.m - basis.shape[1]} dimensions without data carry no encoder")
        inner, outer = basis.T @ xx @ basis, basis.T @ yx @ basis
        largest = int(np.linalg.matrix_rank(outer, tol=1e-12 * max(np.linalg.norm(yx), 1e-300))) if basis.size else 0
        if largest < basis.shape[1]:
            notes.append(f"Y has rank {largest}: no equilibrium has a larger one")
        if isinstance(system, Objective):
            moments.required_yy("the objective")
            if not moments.is_realisable:
                raise ValueError("moments: no views have these moments, and only for views is the origin all there is")
            largest, notes = 0, ["the objective's flow has no equilibrium but the origin (P Lemma 4.3)"]
        elif float(system.predictor_lr_ratio) == 0:
            largest, notes = 0, ["α_p = 0: the predictor decays to zero, and the encoder with it"]
        elif largest:
            kept = values[-basis.shape[1] :]
            whitened = yx @ vectors[:, -basis.shape[1] :] / np.sqrt(kept)
            bound = np.linalg.norm(whitened, 2) ** 2 / 4  # `decay_bound`
            if decays[0] > bound:
                largest = 0
                notes.append(f"λ_A exceeds ¼‖YX^(−½)‖² = {bound:.6g}: only the origin is left")
        if isinstance(system, MovingAverage) and float(system.ema_rate) == 0:
            notes.append(
                "β = 0: the teacher never moves, so its directions decide nothing and verdicts stay undetermined"
            )
        ratio = float(system.predictor_lr_ratio)
        reduced = (
            reduce_arrays(inner, outer, decays[0], decays[1] / ratio) if largest else ReducedProblem(inner, outer, 1.0)
        )
        return cls(system, moments, reduced, basis, largest, tuple(notes))

    def answer(self, strata: dict[int, Stratum], n: int, lr: float | None) -> Equilibria:
        """The equilibria of all ranks, lifted to (A, B[, C]), not linearised yet."""
        items = [self._lift(np.zeros((self.size, self.size)), 0, n)]
        notes = list(self.notes)
        for rank, stratum in strata.items():
            grams = sorted(stratum.grams, key=np.trace)
            items += [self._lift(gram, rank, n) for gram in grams]
            paths = stratum.paths
            if paths.singular:
                notes.append(f"rank {rank}: {paths.singular} of {paths.started} solutions are double or not isolated")
            if paths.failed:
                notes.append(
                    f"rank {rank}: {paths.failed} of {paths.started} solutions were lost or could not be decided"
                )
            if paths.infinite:
                notes.append(
                    f"rank {rank}: {paths.infinite} of {paths.started} solutions seem infinite (X is nearly "
                    "singular or a multiple of I, or λ tiny): large equilibria may be missing"
                )
            if paths.starts and rank:
                notes.append(f"rank {rank}: {paths.check}")
        evidence = {rank: stratum.paths for rank, stratum in strata.items()}
        return Equilibria(tuple(items), evidence, tuple(notes), self.system, self.moments, n, lr)

    def _lift(self, gram: np.ndarray, rank: int, n: int) -> Equilibrium:
        s = self.basis @ gram @ self.basis.T * float(self.reduced.unit)
        state = jax.tree.map(jnp.asarray, lift(s, rank, n, self.system, self.moments))
        nothing = np.zeros(0, complex)
        unknown = Linearisation(nothing, 0, 0, 0, Verdict.UNDETERMINED, Doubt.NONE, np.nan, np.nan)
        s.setflags(write=False)  # a result, which other functions are given
        return Equilibrium(rank, s, state, np.nan, 0, unknown)


def _linearised(answers: list[Equilibria], lr: float | None, optimizer: Any) -> list[Equilibria]:
    """Fill in stability, for all equilibria of all answers of one kind of system in one batch."""
    filled = list(answers)
    for kind in {type(answer.system) for answer in answers}:
        members = [i for i, answer in enumerate(answers) if type(answer.system) is kind]
        which = np.repeat(np.arange(len(members)), [len(answers[i]) for i in members])
        states = _stacked([item.state for i in members for item in answers[i]])
        systems = _taken(_stacked([answers[i].system for i in members]), which)
        data = _taken(_stacked([_with_target(answers[i].moments) for i in members]), which)
        flows = stabilities(systems, states, data)
        steps = None
        if lr is not None:
            of_steps = functools.partial(_of_steps, lr=jnp.asarray(lr), optimizer=optimizer)
            steps = blockwise(of_steps, systems, states, data, size=_BLOCK)
        index = itertools.count()
        for i in members:
            mine = tuple(_filled(item, flows, steps, next(index)) for item in answers[i])
            filled[i] = dataclasses.replace(answers[i], items=mine)
    return filled


def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *trees)


def _taken(tree: Any, which: np.ndarray) -> Any:
    return jax.tree.map(lambda leaf: leaf[which], tree)


def _filled(item: Equilibrium, flows: Linearisation, steps: Linearisation | None, index: int) -> Equilibrium:
    scale = 1 + max(float(np.abs(np.asarray(part)).max()) for part in item.state)
    return dataclasses.replace(
        item,
        residual=float(_one(flows, index).residual) / scale,
        orbit_dim=int(_one(flows, index).orbit_dim),
        flow=_one(flows, index),
        procedure=None if steps is None else _one(steps, index),
    )


def _with_target(moments: Moments) -> Moments:
    """The same, with X for Z: SG and EMA do not see it, and all moments of a batch must have one structure."""
    return eqx.tree_at(lambda each: each.yy, moments, moments.xx, is_leaf=lambda leaf: leaf is None)


_BLOCK = 64


def stabilities(systems: Any, states: Any, data: Moments) -> Linearisation:
    """The flows linearised at many states: a leading axis on every leaf of the arguments and of the result.

    One compiled program for each kind of system and size of state, whoever asks.
    """
    return blockwise(_of_flows, systems, states, _with_target(data), size=_BLOCK)


@Kept
def _of_flows(systems: Any, states: Any, data: Any) -> Linearisation:
    return jax.vmap(linearise)(systems, states, data)


@eqx.filter_jit
def _of_steps(systems: Any, states: Any, data: Any, lr: Any, optimizer: Any) -> Linearisation:
    return jax.vmap(functools.partial(linearise, lr=lr, optimizer=optimizer))(systems, states, data)


def _one(results: Linearisation, index: int) -> Linearisation:
    return Linearisation(*(np.asarray(leaf)[index] for leaf in results))
