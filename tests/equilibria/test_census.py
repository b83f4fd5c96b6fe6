"""The census against closed forms, multi-start Newton in NumPy, flows, and on degenerate input."""

import itertools

import jax
import numpy as np
import oracles
import pytest

import jaxdyn as jd
from jaxdyn.analysis.linearise import Verdict
from jaxdyn.equilibria import strata
from jaxdyn.equilibria.census import census, equilibria
from jaxdyn.equilibria.equations import decay_bound, equation_matrix, rank_one, reduce
from jaxdyn.equilibria.paths import End
from jaxdyn.equilibria.strata import solve_rank


def closed_form_radii(rho, tau, decay):
    """(inner, outer) of P Prop 4.11."""
    root = np.sqrt(tau**2 - 4 * rho * decay)
    return (abs(tau) - root) / (2 * rho), (abs(tau) + root) / (2 * rho)


def test_scalar_problems_match_the_closed_form():
    rng = np.random.default_rng(0)
    draws = 10_000
    rho, tau, decay = rng.uniform(0, 3, draws), rng.uniform(-1, 1, draws), rng.uniform(0.01, 0.1, draws)
    xs = [jd.Moments(np.array([[r]]), np.array([[t]])) for r, t in zip(rho, tau, strict=True)]
    answers = census([jd.StopGradient(value) for value in decay], xs, n=2)
    for answer, r, t, value in zip(answers, rho, tau, decay, strict=True):
        want = [0.0] if t**2 < 4 * r * value else [0.0, *(x**2 for x in closed_form_radii(r, t, value))]
        # Near Δ = 0 the roots are ill-conditioned: their error is that of √Δ.
        slack = 1e-13 / max(abs(t**2 - 4 * r * value), 1e-12)
        np.testing.assert_allclose([item.gram[0, 0] for item in answer], want, rtol=1e-9 + slack)
        assert [item.verdict for item in answer] == [Verdict.STABLE, Verdict.SADDLE, Verdict.STABLE][: len(want)]
        assert answer.complete


@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("kind", ["sg", "ema"])
def test_decoupled_modes_have_all_their_orbits(m, kind):
    x, y, decay = np.array([1.0, 1.5, 0.7, 1.2])[:m], np.array([0.8, -0.9, 0.6, 0.7])[:m], 0.05
    system = jd.StopGradient(decay) if kind == "sg" else jd.MovingAverage(decay, ema_rate=0.2)
    found = equilibria(system, jd.Moments(np.diag(x), np.diag(y)))
    choices = [(0.0, *(r**2 for r in closed_form_radii(*mode, decay))) for mode in zip(x, y, strict=True)]
    want = sorted(itertools.product(*choices))
    assert len(found) == 3**m
    assert found.complete
    have = sorted((np.diag(item.gram) for item in found), key=lambda values: tuple(values.round(6)))
    np.testing.assert_allclose(have, want, atol=1e-9)
    assert all(np.abs(item.gram - np.diag(np.diag(item.gram))).max() < 1e-9 for item in found)


def multi_start_newton(x, y, decay, n, starts, seed):
    """S of every equilibrium that damped Newton finds in NumPy from random (A, B); field from the oracles."""
    m, rng = len(x), np.random.default_rng(seed)
    size = n * m + n * n

    def field(flat):
        a, b = flat[:, : n * m].reshape(-1, n, m), flat[:, n * m :].reshape(-1, n, n)
        rates = oracles.rates("sg", (a, b), x, y, None, decay, decay)
        return np.concatenate([rate.reshape(len(flat), -1) for rate in rates], 1)

    points = rng.normal(size=(starts, size)) * np.exp(rng.uniform(np.log(0.05), np.log(2), (starts, 1)))
    damping = np.full(starts, 1e-2)
    for _ in range(80):
        value, h = field(points), 1e-6
        columns = [(field(points + h * e) - field(points - h * e)) / (2 * h) for e in np.eye(size)]
        j = np.stack(columns, -1)
        normal = np.swapaxes(j, 1, 2) @ j
        shift = damping * np.trace(normal, axis1=1, axis2=2) / size
        step = np.linalg.solve(normal + shift[:, None, None] * np.eye(size), (np.swapaxes(j, 1, 2) @ value[..., None]))
        trial = points - step[..., 0]
        better = (field(trial) ** 2).sum(1) < (value**2).sum(1)
        points = np.where(better[:, None], trial, points)
        damping = np.clip(np.where(better, damping / 5, damping * 4), 1e-14, 1e3)
    still = np.abs(field(points)).max(1) < 1e-12
    a = points[still, : n * m].reshape(-1, n, m)
    return np.swapaxes(a, 1, 2) @ a


def test_four_dimensions_are_complete():
    """Random moments, each of which lost paths when all went along one straight line of (X, Y)."""
    moments = [jd.Moments.random(jax.random.key(seed), 4) for seed in range(5)]
    answers = census(jd.StopGradient(0.05), moments, stability_too=False)
    assert [len(answer) for answer in answers] == [3, 1, 1, 9, 1]
    assert all(answer.complete for answer in answers), [answer.notes for answer in answers]


def test_lost_paths_are_found_on_other_lines(monkeypatch):
    """With too few steps on the first lines most solutions are lost there; together they are all found."""
    moments = jd.Moments.random(jax.random.key(7), 3)
    want = equilibria(jd.StopGradient(0.02), moments)
    assert want.complete
    monkeypatch.setattr(strata, "_PATIENCE", (16, 18, 20, 22, 24, 3000))
    followed = []
    follow = strata._follow
    monkeypatch.setattr(strata, "_follow", lambda *inputs: followed.append(lines := follow(*inputs)) or lines)
    have = equilibria(jd.StopGradient(0.02), moments)
    first, *others = [(line.ends == End.FINITE).mean() for lines in followed for line in lines]
    assert first < 0.7
    assert len(others) >= 2
    assert have.complete
    np.testing.assert_allclose([item.gram for item in have], [item.gram for item in want], rtol=1e-9, atol=1e-12)
    monkeypatch.setattr(strata, "_PATIENCE", (12,) * 6)
    assert not equilibria(jd.StopGradient(0.02), moments).complete


def test_a_second_line_is_asked_where_all_paths_arrived_but_something_is_wrong(monkeypatch):
    """And replaces the first one: what arrived at a wrong place stands in no true solution's way."""
    moments = jd.Moments.random(jax.random.key(2), 2)
    want = equilibria(jd.StopGradient(0.02), moments)
    follow, attempts = strata._follow, []

    def astray(generic, xx, yx, rank, attempt, progress):
        attempts.append(attempt)
        (line,) = follow(generic, xx, yx, rank, attempt, progress)
        is_real = np.abs(np.imag(line.solutions)).max(1) < 1e-9
        assert is_real.sum() == 4
        assert (line.ends == End.FINITE).all()
        return [line._replace(solutions=np.where(is_real[:, None] & (attempt == 0), 30, 1) * line.solutions)]

    monkeypatch.setattr(strata, "_follow", astray)
    have = equilibria(jd.StopGradient(0.02), moments)
    assert attempts == [0, 1]
    assert have.complete
    assert len(have) == len(want)


def test_solutions_of_two_lines_are_united():
    kind = [End.FINITE, End.FAILED, End.FINITE, End.SINGULAR]
    values = np.array([[1.0], [0.0], [2.0], [3.0]])
    one = strata._Ends(values, np.array(kind), np.ones(4))
    other = strata._Ends(
        values[[0, 0, 2, 3]] + [[1e-12], [5.0], [0.0], [0.5]], np.array(kind)[[0, 0, 1, 3]], np.ones(4)
    )
    together = strata._united(one, other)
    assert together.ends.tolist().count(End.FINITE) == 3
    assert sorted(together.solutions[together.ends == End.FINITE, 0].round(6)) == [1.0, 2.0, 6.0]
    assert together.ends.tolist().count(End.SINGULAR) == 1
    assert together.solutions[together.ends == End.SINGULAR, 0] == 3.5
    lost = np.array([End.FAILED, End.FINITE, End.FINITE])
    together = strata._united(
        strata._Ends(values[[0, 1, 2]], lost[::-1], np.ones(3)), strata._Ends(values[[1, 3, 0]], lost, np.ones(3))
    )
    assert sorted(together.solutions[together.ends == End.FINITE, 0]) == [0.0, 1.0, 3.0]
    twice = strata._without_repetitions(strata._Ends(values[[0, 0, 2, 2]], np.full(4, End.FINITE), np.ones(4)))
    assert sorted(twice.ends.tolist()) == [End.FINITE, End.FINITE, End.FAILED, End.FAILED]


@pytest.mark.parametrize(("m", "draws"), [(2, 6), (3, 3)])
def test_nothing_that_newton_finds_is_missing(m, draws):
    for seed in range(draws):
        moments = jd.Moments.random(jax.random.key(100 + seed), m, symmetric=bool(seed % 2))
        decay = (0.05, 0.15, 0.3)[seed % 3] * float(decay_bound(moments))
        found = equilibria(jd.StopGradient(decay), moments)
        assert found.complete
        assert all(item.residual < 1e-12 for item in found)
        grams = multi_start_newton(np.asarray(moments.xx), np.asarray(moments.yx), decay, m, 200, seed)
        assert len(grams) > 50
        reached = set()
        for gram in grams:
            # A double root of the distance: Newton's residual 1e-12 leaves √ of it in S near a degenerate place.
            off = [np.linalg.norm(gram - item.gram) for item in found]
            assert min(off) < 1e-6, (seed, np.linalg.eigvalsh(gram))
            reached.add(int(np.argmin(off)))
        assert len(reached) > 1 or len(found) == 1


def test_equilibria_solve_the_printed_equations():
    moments = jd.Moments.random(jax.random.key(1), 3)
    decay = 0.05 * float(decay_bound(moments))
    found = equilibria(jd.StopGradient((decay, 2 * decay), 1.7), moments, n=5)
    x, y = np.asarray(moments.xx), np.asarray(moments.yx)
    assert max(item.rank for item in found) >= 2
    for item in found:
        a, b = (np.asarray(part) for part in item.state)
        rates = oracles.rates("sg", (a, b), x, y, None, decay, 2 * decay, ratio=1.7)
        assert max(np.abs(rate).max() for rate in rates) < 1e-12
        np.testing.assert_allclose(a.T @ a, item.gram, atol=1e-13)
        assert np.linalg.matrix_rank(item.gram, tol=1e-12) == item.rank
        # The general balance law, BᵀB = (α_p λ_A/λ_B) AAᵀ.
        np.testing.assert_allclose(b.T @ b, 1.7 / 2 * a @ a.T, atol=1e-12)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_every_real_solution_is_positive(m):
    """(XS + I)(SX + I) is a square L Lᵀ ⪰ 0, so Yᵀ S Y ⪰ 0 and S ⪰ 0 for invertible Y: none may be left out."""
    problems = [reduce(jd.StopGradient(0.1 * float(decay_bound(each))), each)
                for each in (jd.Moments.random(jax.random.key(seed), m) for seed in range(12))]  # fmt: skip
    xx, yx = (np.stack([np.asarray(getattr(each, name)) for each in problems]) for name in ("xx", "yx"))
    strata = [stratum for rank in range(1, m + 1) for stratum in solve_rank(xx, yx, rank)]
    assert sum(stratum.real for stratum in strata) > 10
    assert all(stratum.real == len(stratum.grams) for stratum in strata)


def test_rates_only_scale_the_equilibria():
    moments = jd.Moments.random(jax.random.key(4), 2)
    decay = 0.1 * float(decay_bound(moments))
    plain = equilibria(jd.StopGradient(decay), moments)
    fast = equilibria(jd.StopGradient((decay, 3 * decay), 2.0), moments)
    assert len(plain) == len(fast) > 1
    for one, other in zip(plain, fast, strict=True):
        np.testing.assert_allclose(other.gram, 1.5 * one.gram, rtol=1e-9, atol=1e-15)


def test_rank_one_pencil_and_the_equation_agree():
    moments = jd.Moments.random(jax.random.key(5), 3)
    reduced = reduce(jd.StopGradient(0.02), moments)
    kappa, p = rank_one(np.asarray(reduced.xx), np.asarray(reduced.yx))
    assert kappa.shape == (6,)
    for k, vector in zip(kappa, p, strict=True):
        # S = ppᵀ/κ² with pᵀp = 1 in the bilinear sense solves pᵀM(S) = 0 only for real p; the pencil holds for all.
        pencil = reduced.xx - k * reduced.yx.T + k**2 * np.eye(3)
        assert np.abs(pencil @ vector).max() < 1e-10
        if abs(k.imag) < 1e-12 * abs(k):
            v = (vector / vector[np.abs(vector).argmax()]).real
            v /= np.linalg.norm(v)
            s = np.outer(v, v) / k.real**2
            assert np.abs(v @ np.asarray(equation_matrix(s, reduced.xx, reduced.yx))).max() < 1e-8 * np.linalg.norm(s)


@pytest.mark.parametrize("system", [jd.StopGradient(0.05), jd.MovingAverage(0.05, ema_rate=0.1)], ids=["sg", "ema"])
def test_verdicts_agree_with_perturbed_flows(system):
    moments = jd.Moments([[1.0, 0.1], [0.1, 1.5]], [[0.8, 0.05], [-0.02, 0.9]])
    found = equilibria(system, moments)
    assert {item.verdict for item in found} == {Verdict.STABLE, Verdict.SADDLE}
    flat = np.stack([np.concatenate([np.ravel(part) for part in item.state]) for item in found])
    nudges = 1e-4 * np.random.default_rng(0).normal(size=(len(found), 10, flat.shape[1]))
    shapes = [part.shape for part in found[0].state]
    splits = np.cumsum([np.prod(shape) for shape in shapes])[:-1]

    def end(y):
        parts = [part.reshape(shape) for part, shape in zip(jax.numpy.split(y, splits), shapes, strict=True)]
        final = jd.flow(system, type(found[0].state)(*parts), moments, t1=1000.0).final.encoder
        return final.T @ final

    grams = np.asarray(jax.vmap(end)((flat[:, None] + nudges).reshape(-1, flat.shape[1])))
    grams = grams.reshape(len(found), 10, 2, 2)
    for item, ends in zip(found, grams, strict=True):
        distance = np.linalg.norm(ends - item.gram, axis=(1, 2))
        assert (distance < 1e-6).all() if item.verdict == Verdict.STABLE else (distance > 1e-3).all()


def test_the_procedure_has_its_own_verdict():
    moments = jd.Moments.scalar(0.02, 1.0)
    outer = equilibria(jd.StopGradient(0.1), moments, lr=0.05)[-1]
    assert outer.verdict == Verdict.STABLE
    # μτ²/ρ = 2.5 > 2: the step is too long for the flow's fastest rate there.
    assert outer.procedure.verdict == Verdict.SADDLE
    short = equilibria(jd.StopGradient(0.1), moments, lr=0.001)[-1]
    assert short.procedure.verdict == Verdict.STABLE
    np.testing.assert_allclose(short.procedure.margin, 0.001 * short.margin, rtol=1e-6)


def test_a_frozen_teacher_is_undetermined():
    found = equilibria(jd.MovingAverage(0.1, ema_rate=0.0), jd.Moments.scalar(1.0, 0.8))
    assert all(item.verdict == Verdict.UNDETERMINED for item in found if item.rank)


def test_degenerate_moments_are_answered_in_words():
    eye = np.eye(2)
    with pytest.raises(ValueError, match="weight_decay: expected positive"):
        equilibria(jd.StopGradient(0.0), jd.Moments(eye, 0.8 * eye))
    with pytest.raises(ValueError, match="no views have such moments"):
        equilibria(jd.StopGradient(0.1), jd.Moments(np.diag([1.0, 0.0]), 0.8 * eye))
    nothing = equilibria(jd.StopGradient(0.1), jd.Moments(eye, 0 * eye))
    assert [item.rank for item in nothing] == [0]
    assert nothing.complete
    above = equilibria(jd.StopGradient(0.5), jd.Moments(eye, np.diag([0.8, 0.3])))
    assert [item.rank for item in above] == [0]
    assert "exceeds" in above.notes[0]
    singular = equilibria(jd.StopGradient(0.1), jd.Moments(np.diag([1.0, 0.0]), np.diag([0.8, 0.0])))
    assert singular.complete
    np.testing.assert_allclose([item.gram[0, 0] for item in singular], [0, *np.square(closed_form_radii(1, 0.8, 0.1))])
    thin = equilibria(jd.StopGradient(0.05), jd.Moments(eye, np.diag([0.8, 0.0])))
    assert max(item.rank for item in thin) == 1
    assert "Y has rank 1" in thin.notes[0]


def test_what_is_not_isolated_is_never_called_complete():
    repeated = equilibria(jd.StopGradient(0.05), jd.Moments(np.eye(2), 0.8 * np.eye(2)))
    assert not repeated.complete
    assert any("double or not isolated" in note for note in repeated.notes)
    double = equilibria(jd.StopGradient(0.16), jd.Moments.scalar(1.0, 0.8))
    assert not double.complete or len(double) == 1
    assert all(item.verdict != Verdict.STABLE for item in double if item.rank)


def test_few_embedding_dimensions_bound_the_rank():
    moments = jd.Moments(np.diag([1.0, 1.5]), np.diag([0.8, 0.9]))
    found = equilibria(jd.StopGradient(0.05), moments, n=1)
    assert {item.rank for item in found} == {0, 1}
    assert found.complete
    assert found[0].state.encoder.shape == (1, 2)


def test_the_objective_has_the_origin_alone():
    moments = jd.Moments.random(jax.random.key(0), 2)
    found = equilibria(jd.Objective(0.1), moments)
    assert len(found) == 1
    assert found.complete
    assert found[0].verdict == Verdict.STABLE
    with pytest.raises(ValueError, match="yy"):
        equilibria(jd.Objective(0.1), jd.Moments(moments.xx, moments.yx))


def test_wrong_arguments():
    moments = jd.Moments.scalar(1.0, 0.8)
    single = jd.Moments(np.ones((1, 1), np.float32), np.full((1, 1), 0.8, np.float32))
    with pytest.raises(ValueError, match="float64"):
        equilibria(jd.StopGradient(0.1), single)
    with pytest.raises(ValueError, match="n: expected"):
        equilibria(jd.StopGradient(0.1), moments, n=0)
    with pytest.raises(ValueError, match="as many"):
        census([jd.StopGradient(0.1)] * 2, [moments] * 3)
    with pytest.raises(ValueError, match="one input dimension"):
        census(jd.StopGradient(0.1), [moments, jd.Moments(np.eye(2), np.eye(2))])


def test_many_problems_at_once_are_the_same_as_one_by_one():
    moments = [jd.Moments.random(jax.random.key(seed), 2) for seed in range(4)]
    systems = [jd.StopGradient(0.1 * float(decay_bound(each))) for each in moments]
    for together, system, each in zip(census(systems, moments), systems, moments, strict=True):
        alone = equilibria(system, each)
        assert len(alone) == len(together)
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_allclose(one.gram, other.gram, rtol=1e-9, atol=1e-14)


def test_table_and_dataset_say_the_same():
    found = equilibria(jd.StopGradient(0.1), jd.Moments.scalar(1.0, 0.8), lr=0.05)
    data = found.to_dataset()
    assert data["rank"].values.tolist() == [0, 1, 1]
    assert data["n_unstable"].values.tolist() == [0, 1, 0]
    assert data.attrs["complete"] == 1
    lines = str(found).splitlines()
    assert len(lines) == 3 + len(found) + 3
    assert lines[3].split()[-2:] == ["saddle", "saddle"]
    assert max(map(len, lines)) <= 100


def test_large_inputs_are_searched_and_say_so():
    x, y = np.diag([1.0, 1.1, 1.2, 1.3, 1.4]), np.diag([0.8, 0.85, 0.9, 0.7, 0.75])
    found = equilibria(jd.StopGradient(0.12), jd.Moments(x, y), n=2)
    assert not found.complete
    assert any("a search" in note for note in found.notes)
    ones = [item for item in found if item.rank == 1]
    assert len(ones) == 2 * int((np.diag(y) ** 2 >= 4 * np.diag(x) * 0.12).sum())


@pytest.mark.parametrize(
    ("x2", "y1", "decay"), [(2.34e-8, 0.753, 0.03), (2.5e-9, 0.874, 0.03), (1.2e-9, 0.773, 0.03), (1.0, 0.8, 1e-8)]
)
def test_extreme_scales_are_solved_or_owned_up_to(x2, y1, decay):
    """Decoupled modes whose sizes differ by many orders: 9 orbits, or an answer that does not claim to be complete."""
    y2 = 0.7 * np.sqrt(x2)
    found = equilibria(jd.StopGradient(decay), jd.Moments(np.diag([1.0, x2]), np.diag([y1, y2])))
    assert len(found) == 9 or not found.complete
    assert found.complete or found.notes


@pytest.mark.parametrize("decay", [1e-12, 1e-13, 1e-14])
def test_tiny_weight_decays_at_m_1(decay):
    found = equilibria(jd.StopGradient(decay), jd.Moments.scalar(1.0, 0.8))
    assert len(found) == 3 or not found.complete


@pytest.mark.parametrize("decay", [1e-5, 1e-7, 2.5e-9, 1e-9])
def test_small_weight_decays_lose_nothing(decay):
    """Where terms of the field are 10⁹ times the state, rounding leaves more of it than of the state itself."""
    found = equilibria(jd.StopGradient(decay), jd.Moments.scalar(1.0, 1.0), n=3)
    assert found.complete
    inner, outer = (radius**2 for radius in closed_form_radii(1.0, 1.0, decay))
    np.testing.assert_allclose([item.gram[0, 0] for item in found], [0, inner, outer], rtol=1e-6)
    random = [jd.Moments.random(jax.random.key(seed), 2) for seed in range(5)]
    assert all(answer.complete for answer in census(jd.StopGradient(decay), random, n=1, stability_too=False))


def test_diagonal_moments_can_have_equilibria_that_are_not_diagonal():
    """Beside the 3² combinations of decoupled modes, two mirror images with s₁₂ ≠ 0, proved in ball arithmetic."""
    x, y = np.diag([1.0, 0.011674193588234575]), np.diag([0.804686945478984, 0.048023495557021095])
    found = equilibria(jd.StopGradient(0.03), jd.Moments(x, y), certify=True)
    assert found.complete
    mixed = [item for item in found if abs(item.gram[0, 1]) > 1e-3]
    assert len(found) == 11
    assert len(mixed) == 2
    np.testing.assert_allclose(mixed[0].gram[0, 1], -mixed[1].gram[0, 1], rtol=1e-9)
    for item in mixed:
        assert item.certificate is not None
        assert item.certificate.proved
        rates = oracles.rates("sg", tuple(np.asarray(part) for part in item.state), x, y, None, 0.03, 0.03)
        assert max(np.abs(rate).max() for rate in rates) < 1e-14
