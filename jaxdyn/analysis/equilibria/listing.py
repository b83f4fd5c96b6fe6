"""Every equilibrium of a Siamese system on given moments, with its stability and how complete the list is."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...arrays import in_float64, is_traced
from ...checks import whole_number
from ...ensemble.draws import blockwise
from ...moments import Moments
from ...systems.siamese import MovingAverage, Objective, Siamese, StopGradient, StudentState, TeacherState
from ..stability import Verdict, stability
from .equations import Reduced, reduce_arrays
from .generic import Paths
from .heuristic import search
from .solve import COMPLETE_UP_TO, Stratum, solve_rank


@dataclass(frozen=True)
class Linearisation:
    """What the linearisation at an equilibrium says, transversally to its orbit, of the flow or of the procedure.

    `n_unstable` directions that grow; `nullity` eigenvalues that decide nothing, the orbit's included;
    `margin` how far the nearest deciding eigenvalue is from growth: −max Re (flow), 1 − max modulus
    (procedure), negative if one grows. `eigenvalues` of the flow (1/time) or of the step.
    """

    verdict: Verdict
    n_unstable: int
    nullity: int
    margin: float
    eigenvalues: np.ndarray


@dataclass(frozen=True)
class Equilibrium:
    """One O(n)-orbit of equilibria.

    `gram` S = AᵀA [m, m] of this `rank`, the same all over the orbit; `state` one point of it;
    `residual` the largest component of the field there, relative to 1 + the state's largest;
    `orbit_dim` the orbit's dimension; `flow` and, if a learning rate was given, `procedure` the
    linearisations. `certificate` is filled by `certify`.
    """

    rank: int
    gram: np.ndarray
    state: Any
    residual: float
    orbit_dim: int
    flow: Linearisation
    procedure: Linearisation | None = None
    certificate: Any = None

    @property
    def verdict(self) -> Verdict:
        """Of the flow: stable orbit, saddle, repeller or undetermined."""
        return self.flow.verdict

    @property
    def n_unstable(self) -> int:
        """Unstable directions of the flow."""
        return self.flow.n_unstable

    @property
    def nullity(self) -> int:
        """Zero eigenvalues of the flow's Jacobian; more than `orbit_dim` leave the verdict undetermined."""
        return self.flow.nullity

    @property
    def margin(self) -> float:
        """−max Re of the flow's transversal eigenvalues."""
        return self.flow.margin


@dataclass(frozen=True)
class Equilibria(Sequence[Equilibrium]):
    """All equilibria that were found, the origin first, then by rank and size; and how complete they are.

    `complete` promises that none is missing: every path of every rank was followed to its end, and an
    independent check confirmed the starts. Otherwise `notes` say why not. `paths` is the evidence for
    each rank.
    """

    items: tuple[Equilibrium, ...]
    complete: bool
    paths: dict[int, Paths]
    notes: tuple[str, ...]
    system: Siamese
    moments: Moments
    n: int
    lr: float | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __iter__(self) -> Iterator[Equilibrium]:
        return iter(self.items)

    @property
    def stable(self) -> tuple[Equilibrium, ...]:
        """Those that are stable orbits of the flow."""
        return tuple(item for item in self.items if item.verdict == Verdict.STABLE)

    def __str__(self) -> str:
        from .report import table

        return table(self)

    def to_dataset(self) -> Any:
        """As an `xarray.Dataset` along `equilibrium`."""
        from .report import dataset

        return dataset(self)


@in_float64
def equilibria(
    system: Siamese, moments: Moments, n: int | None = None, *, lr: float | None = None, certify: bool = False
) -> Equilibria:
    """Every equilibrium of SG or EMA on these moments, up to O(n), with its stability.

    Complete for m <= 4 unless the answer says otherwise; for larger m the origin and rank one are complete and
    the rest is a search, labelled as such. Computed in float64 on the CPU's side of JAX; EMA has the equilibria
    of SG (C = A), with its own stability. The plain objective has the origin alone (P Lemma 4.3).

    Args:
        system: `StopGradient`, `MovingAverage` or `Objective`, with positive weight decays.
        moments: second moments in float64.
        n: embedding dimension, default m + 1; only ranks up to n exist.
        lr: also linearise the procedure with this learning rate, per step.
        certify: also prove existence, uniqueness and unstable count of each in ball arithmetic
            (needs python-flint: `pip install 'jaxdyn[certify]'`).

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
    (answer,) = census([system], [moments], n, lr=lr)
    if certify:
        from .certificates import certify as prove

        return dataclasses.replace(
            answer,
            items=tuple(dataclasses.replace(item, certificate=prove(item, system, moments)) for item in answer),
        )
    return answer


@in_float64
def census(
    systems: Siamese | Sequence[Siamese],
    moments: Moments | Sequence[Moments],
    n: int | None = None,
    *,
    lr: float | None = None,
    stability_too: bool = True,
) -> list[Equilibria]:
    """`equilibria` for many systems and moments at once (one of either is used for all), in one batch of paths.

    All moments must have the same m. Without `stability_too` the verdicts are left undetermined.
    """
    many = [systems] if isinstance(systems, Siamese) else list(systems)
    data = [moments] if isinstance(moments, Moments) else list(moments)
    count = max(len(many), len(data))
    many, data = many * count if len(many) == 1 else many, data * count if len(data) == 1 else data
    if not count or len(many) != len(data):
        raise ValueError(f"moments: expected as many as systems, {len(many)}, or one, got {len(data)}")
    if len({each.m for each in data}) > 1:
        raise ValueError("moments: expected one input dimension m for all")
    m = data[0].m
    n = m + 1 if n is None else whole_number("n", n)
    problems = [Problem.pose(system, each) for system, each in zip(many, data, strict=True)]
    strata: list[dict[int, Stratum]] = [{} for _ in problems]
    for size in sorted({problem.size for problem in problems}):
        for rank in range(1, min(n, size) + 1):
            chosen = [i for i, p in enumerate(problems) if p.size == size and p.largest_rank >= rank]
            if not chosen:
                continue
            xx, yx = (np.stack([getattr(problems[i].reduced, name) for i in chosen]) for name in ("xx", "yx"))
            solver = solve_rank if rank == 1 or size <= COMPLETE_UP_TO else search
            for i, stratum in zip(chosen, solver(xx, yx, rank), strict=True):
                strata[i][rank] = stratum
    answers = [problem.answer(part, n, lr) for problem, part in zip(problems, strata, strict=True)]
    return _linearise(answers, n, lr) if stability_too else answers


@dataclass(frozen=True)
class Problem:
    """One reduced problem, on the directions in which X does not vanish."""

    system: Siamese
    moments: Moments
    reduced: Reduced
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
        reduced = reduce_arrays(inner, outer, decays[0], decays[1] / ratio) if largest else Reduced(inner, outer, 1.0)
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
                    f"rank {rank}: {paths.infinite} of {paths.started} solutions seem infinite: X is nearly singular "
                    "or λ tiny, and large equilibria may be missing"
                )
            if not paths.confirmed and rank:
                notes.append(f"rank {rank}: {paths.check}")
        complete = all(stratum.complete for stratum in strata.values())
        evidence = {rank: stratum.paths for rank, stratum in strata.items()}
        return Equilibria(tuple(items), complete, evidence, tuple(notes), self.system, self.moments, n, lr)

    def _lift(self, gram: np.ndarray, rank: int, n: int) -> Equilibrium:
        m = self.moments.m
        s = self.basis @ gram @ self.basis.T * float(self.reduced.unit)
        a, b = np.zeros((n, m)), np.zeros((n, n))
        if rank:
            values, vectors = np.linalg.eigh(s)
            thin = np.sqrt(np.maximum(values[::-1][:rank], 0))[:, None] * vectors[:, ::-1][:, :rank].T
            level = float(self.system.weight_decay.predictor) / float(self.system.predictor_lr_ratio)
            w = thin @ np.asarray(self.moments.xx) @ thin.T + level * np.eye(rank)
            a[:rank] = thin
            b[:rank, :rank] = np.linalg.solve(w, thin @ np.asarray(self.moments.yx).T @ thin.T).T
        encoder, predictor = jnp.asarray(a), jnp.asarray(b)
        state = StudentState(encoder, predictor)
        if isinstance(self.system, MovingAverage):
            state = TeacherState(encoder, predictor, encoder)
        unknown = Linearisation(Verdict.UNDETERMINED, 0, 0, np.nan, np.zeros(0))
        return Equilibrium(rank, s, state, np.nan, 0, unknown)


def _linearise(answers: list[Equilibria], n: int, lr: float | None) -> list[Equilibria]:
    """Fill in stability, for all equilibria of all answers of one kind of system in one batch."""
    filled = list(answers)
    kinds = {type(answer.system) for answer in answers}
    for kind in kinds:
        members = [i for i, answer in enumerate(answers) if type(answer.system) is kind]
        owners = [(i, item) for i in members for item in answers[i]]
        stack = lambda trees: jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *trees)  # noqa: E731
        which = np.repeat(np.arange(len(members)), [len(answers[i]) for i in members])
        states = stack([item.state for _, item in owners])
        systems, data = (
            jax.tree.map(lambda leaf: leaf[which], stack(trees))  # noqa: B023
            for trees in ([answers[i].system for i in members], [_with_target(answers[i].moments) for i in members])
        )
        flows = blockwise(_linearise_flow, systems, states, data, size=_BLOCK)
        steps = None
        if lr is not None:
            steps = blockwise(functools.partial(_linearise_step, lr=lr), systems, states, data, size=_BLOCK)
        grouped: dict[int, list[Equilibrium]] = {}
        for index, (i, item) in enumerate(owners):
            scale = 1 + max(float(np.abs(np.asarray(part)).max()) for part in item.state)
            grouped.setdefault(i, []).append(
                dataclasses.replace(
                    item,
                    residual=float(flows.residual[index]) / scale,
                    orbit_dim=int(flows.orbit_dim[index]),
                    flow=_summary(flows, index),
                    procedure=None if steps is None else _summary(steps, index),
                )
            )
        for i, items in grouped.items():
            filled[i] = dataclasses.replace(answers[i], items=tuple(items))
    return filled


def _with_target(moments: Moments) -> Moments:
    """The same, with some Z: SG and EMA do not see it, and all moments of a batch must have one structure."""
    return moments if moments.yy is not None else Moments(moments.xx, moments.yx, moments.xx)


_BLOCK = 64


@jax.jit
def _linearise_flow(systems: Any, states: Any, data: Any) -> Any:
    return jax.vmap(stability)(systems, states, data)


@jax.jit
def _linearise_step(systems: Any, states: Any, data: Any, lr: Any) -> Any:
    return jax.vmap(lambda system, state, moments: stability(system, state, moments, lr=lr))(systems, states, data)


def _summary(results: Any, index: int) -> Linearisation:
    return Linearisation(
        Verdict(int(results.verdict[index])),
        int(results.n_unstable[index]),
        int(results.nullity[index]),
        float(results.margin[index]),
        results.eigenvalues[index],
    )
