"""Claims about all equilibria for m >= 1: P Props 3.2, 4.5-4.7, 4.10, and what follows from the census."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ...analysis import integrability
from ...analysis.linearise import Verdict as Linear
from ...analysis.linearise import linearise
from ...analysis.symmetry import rotate
from ...equilibria.census import census, equilibria
from ...equilibria.equations import decay_bound
from ...moments import Moments
from ...systems.siamese import (
    MovingAverage,
    Objective,
    Siamese,
    StopGradient,
    StudentState,
    rotation_directions,
)
from ...trials.problems import Given
from ...trials.run import run_trials
from ...trials.shares import outcome_shares
from ...trials.starts import Starts
from .base import Evidence, Judgement, claim, verdict_if, worst
from .cycles import stable_cycle

_SHARE = 0.1  # of the bound ¼‖YX^{−½}‖²: the weight decay of draws, unless they scan it


def _draws(m: int, count: int, seed: int = 0) -> list[Moments]:
    """Generic realisable moments, half of them with symmetric Y."""
    keys = jax.random.split(jax.random.key(seed), count)
    return [Moments.random(key, m, symmetric=bool(index % 2)) for index, key in enumerate(keys)]


def _decays(moments: Sequence[Moments], share: float = _SHARE) -> list[float]:
    return [share * float(decay_bound(each)) for each in moments]


def _sizes(fast: bool) -> dict[int, int]:
    """Draws for each m."""
    return {1: 20, 2: 24, 3: 4} if fast else {1: 200, 2: 200, 3: 200}


@claim(
    "P-3.2",
    source="P Prop 3.2",
    statement="The fields of SG and EMA are not gradients of any smooth function, generically; the objective's is.",
)
def not_gradients(fast: bool) -> Evidence:
    numbers: dict[str, Any] = {}
    draws = 20 if fast else 200
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(32), draws)

        def at(system: Siamese, key: Any, probes: int | None = None) -> Any:
            data, a, b, probe = jax.random.split(key, 4)
            state = system.state(encoder=jax.random.normal(a, (3, 2)), predictor=jax.random.normal(b, (3, 3)))
            moments, drawn = Moments.random(data, 2), None if probes is None else probe
            return integrability.gradient_defect(system, state, moments, probes=probes, key=drawn)

        systems = {"SG": StopGradient(0.05), "EMA": MovingAverage(0.05, ema_rate=0.1), "objective": Objective(0.05)}
        defects = {name: np.asarray(jax.jit(jax.vmap(lambda key, s=system: at(s, key).value))(keys))
                   for name, system in systems.items()}  # fmt: skip
        for name, values in defects.items():
            numbers[f"{name}: smallest and largest ‖J − Jᵀ‖/‖J‖"] = [float(values.min()), float(values.max())]
        estimate = jax.jit(jax.vmap(lambda key: at(systems["SG"], key, 1000)))(keys)
        deviations = np.abs(np.asarray(estimate.value) - defects["SG"]) / np.asarray(estimate.standard_error)
    numbers["SG: probes against the exact value, largest in standard errors"] = float(deviations.max())
    holds = min(defects["SG"].min(), defects["EMA"].min()) > 1e-3 and defects["objective"].max() < 1e-12
    return Evidence(
        verdict_if(bool(holds and deviations.max() < 6)),
        f"exact Jacobians at {draws} random states and moments, n = 3, m = 2; the estimate by random probes beside it",
        numbers,
    )


@claim(
    "P-4.5",
    source="P Prop 4.5",
    statement="Full-rank equilibria are the S ≻ 0 with (XS + λ)(SX + λ) = Yᵀ S Y, m(m+1)/2 quadrics with at most "
    "2^(m(m+1)/2) solutions.",
)
def solution_counts(fast: bool) -> Evidence:
    numbers: dict[str, Any] = {}
    holds = True
    with jax.enable_x64(True):
        for m, count in _sizes(fast).items():
            moments = _draws(m, count, seed=45)
            answers = census([StopGradient(decay) for decay in _decays(moments)], moments)
            paths = [answer.paths[m] for answer in answers if m in answer.paths]
            full = [[item for item in answer if item.rank == m] for answer in answers]
            residuals = [_equation_residual(item.gram, answer) for answer, items in zip(answers, full, strict=True)
                         for item in items]  # fmt: skip
            fields = [item.residual for items in full for item in items]
            bound = 2 ** (m * (m + 1) // 2)
            complete = sum(answer.complete for answer in answers)
            numbers[f"m = {m}: draws, and with a complete answer"] = [count, complete]
            numbers[f"m = {m}: bound, and complex solutions"] = [bound, sorted({path.finite for path in paths})]
            numbers[f"m = {m}: draws by number of S ≻ 0"] = _table(len(items) for items in full)
            numbers[f"m = {m}: largest residual of the equation, of the field"] = [worst(residuals), worst(fields)]
            holds &= max(path.finite for path in paths) <= bound and complete >= 0.97 * count
            holds &= max(worst(residuals), worst(fields)) < 1e-8 and len(residuals) > 0
    return Evidence(
        verdict_if(holds),
        f"all complex solutions by homotopy for random moments at λ = {_SHARE:g} of the bound ¼‖YX^(−½)‖²; the real "
        "S ≻ 0 among them lifted to (A, B), and the field there. The bound is not attained for m > 1: 2, 6 and 24 "
        "solutions are finite for generic complex X, Y, the other paths go to infinity",
        numbers,
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
    numbers: dict[str, Any] = {}
    holds, rates, dimensions, unmatched = True, [], 0, 0
    rng = np.random.default_rng(46)
    with jax.enable_x64(True):
        for m, count in _sizes(fast).items():
            moments = _draws(m, count // 2, seed=46)
            answers = census([StopGradient(decay) for decay in _decays(moments)], moments)
            for answer in answers:
                for item in answer:
                    if item.rank < m:
                        continue
                    u, _ = np.linalg.qr(rng.normal(size=(m + 1, m + 1)))
                    turned = rotate(jnp.asarray(u), item.state)
                    field = answer.system.field(0.0, turned, answer.moments)
                    rates.append(max(float(jnp.abs(part).max()) for part in field))
                    dimensions += int(item.orbit_dim == m * (m + 1) // 2 == item.nullity)
        numbers["full-rank equilibria turned by a random U: how many, largest field there"] = [len(rates), worst(rates)]
        numbers["… whose Jacobian's kernel has exactly the orbit's dimension"] = dimensions
        example = _draws(2, 2, seed=3)[1]
        system = StopGradient(_decays([example])[0])
        shares = outcome_shares(run_trials(Given(system, example), 200 if fast else 2000, seed=46)).values()
        unmatched = sum(share.count for share in shares if share.name == "undecided")
        ended = sum(share.count for share in shares if share.is_settled)
        numbers["random trials that ended on one of the orbits, at rest off all of them"] = [ended, unmatched]
    holds = bool(rates) and worst(rates) < 1e-9 and dimensions == len(rates) and not unmatched and ended > 0
    return Evidence(
        verdict_if(holds),
        "random rotations of every full-rank equilibrium of random draws, m = 1, 2, 3, n = m + 1; and the ends of "
        "random trials, matched modulo O(n) to a census",
        numbers,
    )


@claim(
    "P-4.10",
    source="P Prop 4.10, as the notes state it",
    statement="Equilibria of SG and EMA are generically asymptotically stable, also for α = 1; saddles do not occur "
    "for m > 1.",
)
def stability_census(fast: bool) -> Evidence:
    numbers: dict[str, Any] = {}
    saddles = stable = 0
    with jax.enable_x64(True):
        for m, count in _sizes(fast).items():
            moments = _draws(m, count, seed=410)
            decays = _decays(moments)
            students = census([StopGradient(decay) for decay in decays], moments, lr=0.05)
            teachers = census([MovingAverage(decay, ema_rate=0.1) for decay in decays], moments, lr=0.05)
            counted = [[_frozen(item, answer) for item in answer if item.rank == m] for answer in students]
            patterns = {
                "flow of SG": _patterns(students, m, lambda item: item.flow),
                "procedure of SG, μ = 0.05": _patterns(students, m, lambda item: item.procedure),
                "flow of EMA, β = 0.1": _patterns(teachers, m, lambda item: item.flow),
                "procedure of EMA, μ = 0.05": _patterns(teachers, m, lambda item: item.procedure),
                "α = 1, teacher frozen at the equilibrium": _table(tuple(sorted(each)) for each in counted),
            }
            for name, pattern in patterns.items():
                numbers[f"m = {m}, {name}: unstable directions of the full-rank equilibria, draws"] = pattern
            full = [item for answer in students for item in answer if item.rank == m]
            frozen = Counter(count for each in counted for count in each)
            numbers[f"m = {m}, α = 1: full-rank equilibria, and stable ones"] = [len(full), frozen[0]]
            counts = Counter(item.verdict.name.lower() for item in full)
            numbers[f"m = {m}: full-rank equilibria of SG by verdict"] = dict(counts)
            if m > 1:
                saddles += counts["saddle"]
                stable += counts["stable"]
    verdict = Judgement.CONTRADICTED if saddles else verdict_if(stable > 0)
    return Evidence(
        verdict,
        f"every full-rank equilibrium of random moments at λ = {_SHARE:g} of the bound, n = m + 1, linearised "
        "transversally to its orbit. What is stable is an orbit, and only some of them: where full-rank equilibria "
        "exist for m > 1, saddles with 1, 2 or 3 unstable directions stand beside the stable one. With a frozen "
        "teacher (α = 1) A and B follow a gradient flow, whose stability is another question",
        numbers,
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
    numbers: dict[str, Any] = {}
    found = 0
    with jax.enable_x64(True):
        for m, count in _sizes(fast).items():
            if m == 1:
                continue
            moments = _draws(m, count, seed=11)
            answers = census([StopGradient(decay) for decay in _decays(moments)], moments)
            ranks = [tuple(sorted({item.rank for item in answer.stable if item.rank})) for answer in answers]
            numbers[f"m = {m}: ranks of stable nonzero equilibria, draws"] = _table(ranks)
            partial = sum(any(rank < m for rank in each) for each in ranks)
            numbers[f"m = {m}: share of draws with a stable one of rank 0 < k < m"] = round(partial / count, 3)
            found += partial
        example = Moments([[1.0, 0.1], [0.1, 1.5]], [[0.8, 0.05], [-0.02, 0.9]])
        for name, system in (("SG", StopGradient(0.05)), ("EMA, β = 0.05", MovingAverage(0.05, ema_rate=0.05))):
            problem = Given(system, example, census=equilibria(system, example, n=3, lr=0.05))
            trials = run_trials(problem, 200 if fast else 2000, starts=Starts(n=3), seed=12)
            found_at = problem.equilibria(3)
            reached = {0: 0, 1: 0, 2: 0}
            for index, share in outcome_shares(trials).items():
                if share.is_settled:
                    reached[found_at[index].rank] += share.count
            total = trials.sizes["trial"]
            numbers[f"{name}: % of trials that end with rank 0, 1, 2 (m = 2, λ = 0.05)"] = [
                round(100 * reached[rank] / total, 2) for rank in reached
            ]
            found = found if reached[1] else 0
    return Evidence(
        verdict_if(found > 0),
        "the census of random moments, and random trials of the procedure (entries of A, B U[−1.5, 1.5], μ = 0.05) on "
        "X = [[1, 0.1], [0.1, 1.5]], Y = [[0.8, 0.05], [−0.02, 0.9]]",
        numbers,
    )


@claim(
    "P-oscillation",
    source="ours; beside P Prop 4.10",
    statement="Training need not come to rest: with Y far from symmetric complex pairs of eigenvalues cross the "
    "imaginary axis, and EMA has stable limit cycles.",
)
def oscillation(fast: bool) -> Evidence:
    numbers: dict[str, Any] = {}
    count = 40 if fast else 400
    with jax.enable_x64(True):
        moments = _turning_draws(count)
        growing: Counter[str] = Counter()
        for share in (0.02, 0.1, 0.3):
            decays = _decays(moments, share)
            for beta in (None, 0.3, 0.03, 0.003):
                systems: list[Siamese] = [
                    StopGradient(decay) if beta is None else MovingAverage(decay, ema_rate=beta) for decay in decays
                ]
                name = "SG" if beta is None else f"EMA β = {beta:g}"
                for item in (item for answer in census(systems, moments, n=2) for item in answer if item.rank):
                    growing[name] += _has_growing_pair(item)
        numbers[f"equilibria with a growing complex pair ({count} draws, three weight decays)"] = dict(growing)
        cycles, moving, trials = [], 0, 0
        looked_at = range(2, 3) if fast else range(30)
        for index in looked_at:
            system = MovingAverage(_decays([moments[index]], 0.02)[0], ema_rate=0.03)
            ends = run_trials(Given(system, moments[index]), 40 if fast else 100, starts=Starts(n=2), seed=index)
            still = np.flatnonzero(ends["outcome"].values == _still_moving(ends))
            trials, moving = trials + ends.sizes["trial"], moving + still.size
            if still.size:
                parts = {name: ends[name].values[still[0]] for name in ("encoder", "predictor", "teacher")}
                cycle = stable_cycle(system, system.state(**parts), moments[index])
                if cycle is not None:
                    cycles.append(cycle)
        numbers["EMA trials (β = 0.03, λ = 0.02 of the bound), and still moving after 400,000 steps"] = [trials, moving]
        numbers["draws looked at, and with a stable limit cycle of S"] = [len(looked_at), len(cycles)]
        if cycles:
            numbers["first cycle: period, swing of tr S (largest/smallest)"] = [round(x, 3) for x in cycles[0][:2]]
            numbers["… gap after one turn, and of a nudged start after 20 turns (relative)"] = list(cycles[0][2:])
    return Evidence(
        verdict_if(bool(cycles) and sum(growing.values()) > 0),
        "the census of random moments with Y = 0.7 R X/‖R‖, R Gaussian, m = n = 2; random trials of EMA; one trial of "
        "those still moving followed by the flow: S must return to itself after one turn, and from a nudged state, too",
        numbers,
    )


def _still_moving(trials: xr.Dataset) -> int:
    return trials["outcome"].attrs["flag_meanings"].split().index("out_of_steps")


def _turning_draws(count: int) -> list[Moments]:
    rng = np.random.default_rng(7)
    moments = []
    for _ in range(count):
        g, r = rng.normal(size=(2, 4)), rng.normal(size=(2, 2))
        xx = g @ g.T / 4
        moments.append(Moments(xx, 0.7 * r @ xx / np.linalg.norm(r, 2)))
    return moments


def _has_growing_pair(item: Any) -> bool:
    values = item.flow.eigenvalues
    return bool(((values.real > 1e-9) & (np.abs(values.imag) > 1e-6)).any())
