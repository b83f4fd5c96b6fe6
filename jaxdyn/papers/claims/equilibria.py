"""Claims about all equilibria for m >= 1: P Props 3.2, 4.5-4.7, 4.10, and what follows from the census."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...analysis.linearise import Verdict as Linear
from ...analysis.linearise import linearise
from ...analysis.symmetry import rotate
from ...equilibria.census import census, equilibria
from ...equilibria.equations import decay_bound
from ...moments import Moments
from ...systems.siamese import (
    MovingAverage,
    StopGradient,
    StudentState,
    rotation_directions,
)
from ...trials.problems import Given
from ...trials.run import run_trials
from ...trials.shares import outcome_shares
from ...trials.starts import Starts
from .base import Evidence, Row, claim, clause, limit, share, shown, worst

_SHARE = 0.1  # of the bound ¼‖YX^{−½}‖²: the weight decay of draws, unless they scan it


def draws_of(m: int, count: int, seed: int = 0) -> list[Moments]:
    """Generic realisable moments, half of them with symmetric Y."""
    keys = jax.random.split(jax.random.key(seed), count)
    return [Moments.random(key, m, symmetric=bool(index % 2)) for index, key in enumerate(keys)]


def decays_of(moments: Sequence[Moments], share: float = _SHARE) -> list[float]:
    return [share * float(decay_bound(each)) for each in moments]


def _sizes(fast: bool) -> dict[int, int]:
    """Draws for each m."""
    return {1: 20, 2: 24, 3: 4} if fast else {1: 200, 2: 200, 3: 200}


@claim(
    "P-4.5",
    source="P Prop 4.5",
    statement="Full-rank equilibria are the S ≻ 0 with (XS + λ)(SX + λ) = Yᵀ S Y, m(m+1)/2 quadrics with at most "
    "2^(m(m+1)/2) solutions.",
)
def solution_counts(fast: bool) -> Evidence:
    equations: list[Row] = []
    counts: list[Row] = []
    beside: list[Row] = []
    with jax.enable_x64(True):
        for m, count in _sizes(fast).items():
            moments = draws_of(m, count, seed=45)
            answers = census([StopGradient(decay) for decay in decays_of(moments)], moments)
            paths = [answer.paths[m] for answer in answers if m in answer.paths]
            full = [[item for item in answer if item.rank == m] for answer in answers]
            residuals = [_equation_residual(item.gram, answer) for answer, items in zip(answers, full, strict=True)
                         for item in items]  # fmt: skip
            fields = [item.residual for items in full for item in items]
            bound = 2 ** (m * (m + 1) // 2)
            complete, at = sum(answer.complete for answer in answers), {"m": m, "draws": count}
            equations += [
                limit("full-rank equilibria", len(residuals), above=0, at=at),
                limit("largest residual of the equation", worst(residuals), below=1e-8, at=at),
                limit("largest field at its lift to (A, B)", worst(fields), below=1e-8, at=at),
            ]
            counts += [
                limit("draws with a complete answer", complete, above=0.97 * count - 1e-9, at=at),
                limit("most complex solutions", max(path.finite for path in paths), below=bound + 1, at=at),
            ]
            beside += [
                Row("complex solutions", sorted({path.finite for path in paths}), at=at),
                Row("draws by number of S ≻ 0", _table(len(items) for items in full), at=at),
            ]
    return Evidence(
        f"all complex solutions by homotopy for random moments at λ = {_SHARE:g} of the bound ¼‖YX^(−½)‖²; the real "
        "S ≻ 0 among them lifted to (A, B), and the field there. The bound is not attained for m > 1: 2, 6 and 24 "
        "solutions are finite for generic complex X, Y, the other paths go to infinity",
        (
            clause("full-rank equilibria are the S ≻ 0 with (XS + λ)(SX + λ) = YᵀSY", *equations),
            clause("there are at most 2^(m(m+1)/2) solutions", *counts),
        ),
        tuple(beside),
    )


def _equation_residual(s: np.ndarray, answer: Any) -> float:
    """Of the printed equation, relative to its terms, in NumPy."""
    x, y = np.asarray(answer.moments.xx), np.asarray(answer.moments.yx)
    decay = float(answer.system.weight_decay.encoder) * np.eye(len(x))
    left, right = (x @ s + decay) @ (s @ x + decay), y.T @ s @ y
    return float(np.linalg.norm(left - right) / np.linalg.norm(left))


def _table(values: Any) -> dict[str, int]:
    return {str(key): count for key, count in sorted(Counter(values).items())}


@claim(
    "P-4.6",
    source="P Cor 4.6",
    statement="The full-rank equilibria fall into the sets {U√S_k}, one O(n)-orbit for each solution S_k.",
)
def orbits(fast: bool) -> Evidence:
    rates, dimensions = [], 0
    rng = np.random.default_rng(46)
    with jax.enable_x64(True):
        for m, count in _sizes(fast).items():
            moments = draws_of(m, count // 2, seed=46)
            answers = census([StopGradient(decay) for decay in decays_of(moments)], moments)
            for answer in answers:
                for item in answer:
                    if item.rank < m:
                        continue
                    u, _ = np.linalg.qr(rng.normal(size=(m + 1, m + 1)))
                    turned = rotate(jnp.asarray(u), item.state)
                    field = answer.system.field(0.0, turned, answer.moments)
                    rates.append(max(float(jnp.abs(part).max()) for part in field))
                    dimensions += int(item.orbit_dim == m * (m + 1) // 2 == item.nullity)
        example = draws_of(2, 2, seed=3)[1]
        system = StopGradient(decays_of([example])[0])
        shares = outcome_shares(run_trials(Given(system, example), 200 if fast else 2000, seed=46)).values()
        unmatched = sum(share.count for share in shares if share.name == "undecided")
        ended = sum(share.count for share in shares if share.is_settled)
    return Evidence(
        "random rotations of every full-rank equilibrium of random draws, m = 1, 2, 3, n = m + 1; and the ends of "
        "random trials, matched modulo O(n) to a census",
        (
            clause(
                "all of U√S are equilibria",
                limit("full-rank equilibria turned by a random U", len(rates), above=0),
                limit("largest field there", worst(rates), below=1e-9),
            ),
            clause(
                "each solution is one orbit",
                limit("equilibria whose Jacobian's kernel has the orbit's dimension", dimensions, equals=len(rates)),
            ),
            clause(
                "there are no others",
                limit("random trials that ended on one of the orbits", ended, above=0),
                limit("… at rest off all of them", unmatched, equals=0),
            ),
        ),
    )


@claim(
    "P-4.10",
    source="P Prop 4.10, as the notes state it",
    statement="Equilibria of SG and EMA are generically asymptotically stable, also for α = 1; saddles do not occur "
    "for m > 1.",
)
def stability_census(fast: bool) -> Evidence:
    beside: list[Row] = []
    found: list[Row] = []
    alone: list[Row] = []
    frozen_rows: list[Row] = []
    saddles = 0
    with jax.enable_x64(True):
        for m, count in _sizes(fast).items():
            moments = draws_of(m, count, seed=410)
            decays = decays_of(moments)
            students = census([StopGradient(decay) for decay in decays], moments, lr=0.05)
            teachers = census([MovingAverage(decay, ema_rate=0.1) for decay in decays], moments, lr=0.05)
            ways = {
                "flow of SG": (students, lambda item: item.flow),
                "procedure of SG, μ = 0.05": (students, lambda item: item.procedure),
                "flow of EMA, β = 0.1": (teachers, lambda item: item.flow),
                "procedure of EMA, μ = 0.05": (teachers, lambda item: item.procedure),
            }
            for name, (answers, of) in ways.items():
                at: dict[str, Any] = {"m": m, "of": name}
                patterns = _patterns(answers, m, of)
                beside.append(Row("unstable directions of the full-rank equilibria, draws", patterns, at=at))
                verdicts = [[int(of(item).verdict) for item in answer if item.rank == m] for answer in answers]
                counted = Counter(each for several in verdicts for each in several)
                grows, open_ = counted[Linear.SADDLE] + counted[Linear.REPELLER], counted[Linear.UNDETERMINED]
                saddles += grows if m > 1 else 0
                at |= {"equilibria": counted.total(), "undetermined": open_}
                if m > 1 and counted.total():
                    found.append(limit("full-rank equilibria that are saddles", grows, equals=0, at=at))
                    # One that is undetermined is none that is stable, but may be: such a draw decides nothing.
                    none = sum(1 for several in verdicts if several and not {Linear.STABLE, Linear.UNDETERMINED}
                               & set(several))  # fmt: skip
                    alone.append(limit("draws with full-rank equilibria, none of them stable", none, equals=0, at=at))
            frozen = [_frozen(item, answer) for answer in students for item in answer if item.rank == m]
            if frozen:
                at = {"m": m, "equilibria": len(frozen)}
                frozen_rows += [
                    limit("unstable with the teacher frozen", sum(each > 0 for each in frozen), equals=0, at=at),
                    limit("undetermined", sum(each < 0 for each in frozen), below=1 + len(frozen) // 100, at=at),
                ]
    return Evidence(
        f"every full-rank equilibrium of random moments at λ = {_SHARE:g} of the bound, n = m + 1, linearised "
        "transversally to its orbit. With a frozen teacher (α = 1) A and B follow a gradient flow, whose stability is "
        "another question",
        (
            clause(
                "equilibria of SG and EMA are generically asymptotically stable: no saddles for m > 1",
                *found,
                instead=clause(
                    "what is stable is an orbit, and only some of them: beside saddles, each draw with full-rank "
                    "equilibria has a stable one",
                    limit("saddles found", saddles, above=0),
                    *alone,
                ),
            ),
            clause("with a frozen teacher, α = 1, they are stable", *frozen_rows),
        ),
        tuple(beside),
    )


def _patterns(answers: Sequence[Any], m: int, of: Any) -> dict[str, int]:
    return _table(
        tuple(sorted(int(of(item).n_unstable) for item in answer if item.rank == m)) for answer in answers
    )  # fmt: skip


class _FrozenTeacher(eqx.Module):
    """(A, B) of EMA with the teacher held in place (α = 1). F(·, ·, C) is the same at (QA, BQᵀ)."""

    ema: MovingAverage
    held: Any

    def field(self, t: Any, state: StudentState, moments: Moments) -> StudentState:
        whole = self.ema.state(encoder=state.encoder, predictor=state.predictor, teacher=self.held)
        rates = self.ema.field(t, whole, moments)
        return StudentState(rates.encoder, rates.predictor)

    def directions(self, state: StudentState) -> StudentState:
        turning = rotation_directions(StudentState(state.encoder, jnp.zeros_like(state.predictor)))
        n = state.predictor.shape[0]
        skew = rotation_directions(StudentState(jnp.eye(n), jnp.zeros((n, n)))).encoder
        return StudentState(turning.encoder, -state.predictor @ skew)


def _frozen(item: Any, answer: Any) -> int:
    """Unstable directions of (A, B) with the teacher held at the equilibrium's encoder; −1 if undetermined."""
    system = _FrozenTeacher(MovingAverage(answer.system.weight_decay, ema_rate=0.0), item.state.encoder)
    result = linearise(system, item.state, answer.moments)
    return -1 if int(result.verdict) == Linear.UNDETERMINED else int(result.n_unstable)


@claim(
    "P-partial",
    source="ours; beside P Prop 4.10",
    statement="Partial (dimensional) collapse can be stable: for m > 1 there are stable equilibria of rank 0 < k < m, "
    "and random trials reach them.",
)
def partial_collapse(fast: bool) -> Evidence:
    exists: list[Row] = []
    reached_rows: list[Row] = []
    beside: list[Row] = []
    with jax.enable_x64(True):
        for m, count in _sizes(fast).items():
            if m == 1:
                continue
            moments = draws_of(m, count, seed=11)
            answers = census([StopGradient(decay) for decay in decays_of(moments)], moments)
            ranks = [tuple(sorted({item.rank for item in answer.stable if item.rank})) for answer in answers]
            beside.append(shown("ranks of stable nonzero equilibria, draws", _table(ranks), m=m))
            partial = [any(rank < m for rank in each) for each in ranks]
            beside.append(share("draws with a stable equilibrium of rank 0 < k < m", partial, m=m))
            exists.append(limit("such draws", sum(partial), above=0, at={"m": m}))
        example = Moments([[1.0, 0.1], [0.1, 1.5]], [[0.8, 0.05], [-0.02, 0.9]])
        for name, system in (("SG", StopGradient(0.05)), ("EMA, β = 0.05", MovingAverage(0.05, ema_rate=0.05))):
            problem = Given(system, example, census=equilibria(system, example, n=3, lr=0.05))
            trials = run_trials(problem, 200 if fast else 2000, starts=Starts(n=3), seed=12)
            found_at = problem.equilibria(3)
            reached = {0: 0, 1: 0, 2: 0}
            for index, each in outcome_shares(trials).items():
                if each.is_settled:
                    reached[found_at[index].rank] += each.count
            total = trials.sizes["trial"]
            reached_rows.append(limit("trials that end with rank 1", reached[1], above=0, at={"system": name}))
            for rank, hits in reached.items():
                beside.append(share("trials that end with this rank (m = 2, λ = 0.05)", np.arange(total) < hits,
                                    system=name, rank=rank))  # fmt: skip
    return Evidence(
        "the census of random moments, and random trials of the procedure (entries of A, B U[−1.5, 1.5], μ = 0.05) on "
        "X = [[1, 0.1], [0.1, 1.5]], Y = [[0.8, 0.05], [−0.02, 0.9]]",
        (
            clause("for m > 1 there are stable equilibria of rank 0 < k < m", *exists),
            clause("random trials reach them", *reached_rows),
        ),
        tuple(beside),
    )
