"""Where random trials end, matched to a census; and how far fields are from gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registry import EXAMPLES

import jaxdyn as jd
from jaxdyn.analysis.symmetry import rotate
from jaxdyn.trials.match import orbit_distance
from jaxdyn.trials.problems import draw_given, draw_moments

with jax.enable_x64(True):
    MOMENTS = jd.Moments([[1.0, 0.1], [0.1, 1.5]], [[0.8, 0.05], [-0.02, 0.9]])


def test_shares_add_up_and_match_numpy_runs():
    starts = jd.Starts(n=3, encoder="uniform(-1, 1)", predictor="uniform(-1, 1)")
    problem = jd.Given(jd.StopGradient(0.05), MOMENTS)
    trials = jd.run_trials(problem, 60, starts=starts, seed=3)
    shares = jd.outcome_shares(trials).values()
    assert sum(share.count for share in shares) == 60
    assert all(share.interval.low <= share.fraction <= share.interval.high for share in shares)
    drawn = draw_given(problem, starts, 3, np.arange(60), np.dtype("float64"))
    a, b = np.asarray(drawn.states.encoder), np.asarray(drawn.states.predictor)
    x, y = np.asarray(MOMENTS.xx), np.asarray(MOMENTS.yx)
    for _ in range(20_000):
        a, b, *_ = oracles.procedure("sg", (a, b), x, y, None, 0.05, 0.05, 0.05)
    grams = np.swapaxes(a, 1, 2) @ a
    distances = np.stack([np.linalg.norm(grams - item.gram, axis=(1, 2)) for item in problem.equilibria(3)])
    np.testing.assert_array_equal(distances.argmin(0), trials["outcome"].values)
    assert len(set(trials["outcome"].values)) > 1


def test_saddles_are_never_reached_and_trials_do_not_depend_on_their_number():
    problem = jd.Given(jd.MovingAverage(0.05, ema_rate=0.1), MOMENTS)
    few, many = jd.run_trials(problem, 10), jd.run_trials(problem, 40)
    np.testing.assert_array_equal(few["size"].values, many["size"].values[:10])
    found = problem.equilibria(3)
    for index, share in jd.outcome_shares(many).items():
        if share.is_settled and found[index].n_unstable:
            assert share.count == 0
    assert all(f"{item.rank}, {item.verdict.name.lower()}" in jd.table(many) for item in found)


def counts(problem, n_trials, **options):
    trials = jd.run_trials(problem, n_trials, **options)
    return {share.name: share.count for share in jd.outcome_shares(trials).values()}


def test_what_matches_nothing_is_said_so():
    """Against a census that lacks the equilibrium they reach, trials are undecided, not given to the next one."""
    system = jd.StopGradient(0.05)
    census = jd.equilibria(system, MOMENTS)
    crippled = dataclasses.replace(census, items=census.items[:2])
    assert counts(jd.Given(system, MOMENTS, census=crippled), 30)["undecided"] >= 28
    assert counts(jd.Given(system, MOMENTS), 10, stopping=jd.Stopping(max_steps=50))["out_of_steps"] == 10
    assert counts(jd.Given(system, MOMENTS, lr=20.0), 10)["diverged"] > 0


def test_a_census_of_something_else_is_refused():
    system = jd.StopGradient(0.05)
    census = jd.equilibria(system, MOMENTS)
    with pytest.raises(ValueError, match="n = 4"):
        jd.run_trials(jd.Given(system, MOMENTS, census=census), 5, starts=jd.Starts(n=4))
    with pytest.raises(ValueError, match="census: expected one of these StopGradient numbers"):
        jd.Given(jd.StopGradient(0.06), MOMENTS, census=census)
    with pytest.raises(ValueError, match="census: expected one of MovingAverage"):
        jd.Given(jd.MovingAverage(0.05, ema_rate=0.1), MOMENTS, census=census)
    with pytest.raises(ValueError, match="census: expected one of these Moments"):
        jd.Given(system, jd.Moments.random(jax.random.key(0), 2), census=census)
    with pytest.raises(ValueError, match="lr: expected a number > 0"):
        jd.Given(system, MOMENTS, lr=float("nan"))
    with pytest.raises(ValueError, match="ema_rate"):
        jd.Given(jd.MovingAverage(0.05, ema_rate=100.0), MOMENTS)


@pytest.mark.parametrize("system", ["sg", "ema"])
def test_random_moments_end_where_their_own_census_says(system):
    laws = jd.RandomMoments(system, m=2)
    trials = jd.run_trials(laws, 40, seed=5)
    shares = jd.outcome_shares(trials)
    assert sum(share.count for share in shares.values()) == 40
    ended = trials["outcome"].values <= 2
    assert ended.mean() > 0.9
    assert (trials["n_unstable"].values[ended] == 0).all()
    assert {0, 1, 2} >= set(trials["outcome"].values[ended])
    drawn = draw_moments(laws, jd.Starts(n=3), 5, np.arange(40), np.dtype("float64"))
    xx, yx = np.asarray(drawn.moments.xx), np.asarray(drawn.moments.yx)
    bound = np.array([np.linalg.norm(y @ np.linalg.inv(np.linalg.cholesky(x)).T, 2) ** 2 / 4
                      for x, y in zip(xx, yx, strict=True)])  # fmt: skip
    np.testing.assert_allclose(trials["weight_decay"], 0.1 * bound, rtol=1e-10)
    np.testing.assert_array_equal(jd.run_trials(laws, 10, seed=5)["outcome"], trials["outcome"][:10])


@given(seed=st.integers(0, 2**31), kind=st.sampled_from(["sg", "ema"]))
@settings(deadline=None, max_examples=20)
def test_orbit_distance_is_zero_on_the_orbit_alone(seed, kind):
    rng = np.random.default_rng(seed)
    example = EXAMPLES[kind]
    state = jax.tree.map(jnp.asarray, example.state(3, 3, seed))
    u, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    assert float(orbit_distance(rotate(jnp.asarray(u), state), state)) < 1e-12
    moved = state._replace(predictor=state.predictor + 0.1)
    assert float(orbit_distance(moved, state)) > 1e-3


@pytest.mark.parametrize("name", ["sg", "ema", "objective"])
def test_gradient_defect_matches_finite_differences(name):
    example = EXAMPLES[name]
    system = example.system if name != "objective" else jd.Objective(0.1)
    state = example.state(3, 2)
    moments = jd.Moments.random(jax.random.key(0), 2)
    flat = np.concatenate([np.ravel(part) for part in state])
    shapes = [np.shape(part) for part in state]
    splits = np.cumsum([np.prod(shape) for shape in shapes])[:-1]

    def field(y):
        parts = tuple(part.reshape(shape) for part, shape in zip(np.split(y, splits), shapes, strict=True))
        x, z, w = (np.asarray(part) for part in (moments.xx, moments.yx, moments.yy))
        extra = example.oracle if name != "objective" else {"decay_a": 0.1, "decay_b": 0.1}
        return np.concatenate([np.ravel(rate) for rate in oracles.rates(name, parts, x, z, w, **extra)])

    j = np.stack([(field(flat + 1e-6 * e) - field(flat - 1e-6 * e)) / 2e-6 for e in np.eye(flat.size)], 1)
    want = np.linalg.norm(j - j.T) / np.linalg.norm(j)
    exact = jd.gradient_defect(system, state, moments)
    assert float(exact.value) == pytest.approx(want, abs=1e-8)
    assert (float(exact.value) < 1e-12) == (name == "objective")
    if name != "objective":
        estimate = jd.gradient_defect(system, state, moments, probes=4000, key=jax.random.key(1))
        assert abs(float(estimate.value) - want) < 4 * float(estimate.standard_error)
        assert float(estimate.standard_error) < 0.1 * want


def test_gradient_defect_of_any_pytree():
    rotation = lambda t, y, data: {"a": -data * y["b"], "b": data * y["a"]}  # noqa: E731
    point = {"a": jnp.ones(2), "b": jnp.ones(2)}
    assert float(jd.gradient_defect(rotation, point, 3.0).value) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="key"):
        jd.gradient_defect(rotation, point, 3.0, probes=10)


def test_a_users_own_symmetry_is_divided_out():
    """A limit circle in the plane with SO(2): the radial direction decides, the angular one is the orbit's."""
    ring = lambda t, y, data: y * (data - jnp.sum(y**2))  # noqa: E731
    turn = lambda y: jnp.array([[-y[1], y[0]]])  # noqa: E731
    at = jnp.array([1.0, 0.0])
    assert int(jd.linearise(ring, at, 1.0).verdict) == jd.Verdict.UNDETERMINED
    found = jd.linearise(ring, at, 1.0, directions=turn)
    assert int(found.verdict) == jd.Verdict.STABLE
    assert float(found.margin) == pytest.approx(2.0)
    step = lambda y, data, lr: y + lr * ring(0.0, y, data)  # noqa: E731
    assert int(jd.linearise(step, at, 1.0, lr=0.9, directions=turn).verdict) == jd.Verdict.STABLE
    assert int(jd.linearise(step, at, 1.0, lr=1.1, directions=turn).verdict) == jd.Verdict.REPELLER


def test_a_census_of_other_numbers_is_refused():
    data = jd.Moments.scalar(1.0, 0.9)
    census = jd.equilibria(jd.StopGradient(0.05), data)
    for other in (jd.Given(jd.StopGradient(0.05), data), jd.Given(jd.StopGradient(0.05), data, census=census)):
        assert other.moments is data
    with pytest.raises(ValueError, match="census: expected one of these StopGradient numbers"):
        jd.Given(jd.StopGradient(0.06), data, census=census)
    # Where numbers change, the census says which equilibria are meant.
    jd.Given(jd.StopGradient(lambda step: 0.05 + 0.01 / (1 + step)), data, census=census)


def test_decays_that_leave_the_unit_interval_are_refused():
    with pytest.raises(ValueError, match="ema_decay"):
        jd.run_trials(jd.ScalarLaws("ema", ema_decay=lambda step: 0.9 + step), 4)
