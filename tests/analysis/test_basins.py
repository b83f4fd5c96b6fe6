"""Where random trials end, matched to a census; and how far fields are from gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registry import EXAMPLES

import jaxdyn as jd
from jaxdyn.analysis.basins import orbit_distance
from jaxdyn.analysis.equilibria import equilibria
from jaxdyn.analysis.symmetry import rotate

with jax.enable_x64(True):
    MOMENTS = jd.Moments([[1.0, 0.1], [0.1, 1.5]], [[0.8, 0.05], [-0.02, 0.9]])


def test_shares_add_up_and_match_numpy_runs():
    protocol = jd.Protocol(n=3, encoder="uniform(-1, 1)", predictor="uniform(-1, 1)")
    system = jd.StopGradient(0.05)
    result = jd.basin_fractions(system, MOMENTS, protocol, 60, seed=3)
    assert sum(share.trials for share in result.shares) == 60
    assert sum(share.fraction for share in result.shares) == pytest.approx(1)
    assert all(share.interval.low <= share.fraction <= share.interval.high for share in result.shares)
    from jaxdyn.analysis.basins import _starts

    a, b = _starts(protocol, 2, 3, 60)
    a, b = np.asarray(a), np.asarray(b)
    x, y = np.asarray(MOMENTS.xx), np.asarray(MOMENTS.yx)
    for _ in range(20_000):
        a, b, *_ = oracles.procedure("sg", (a, b), x, y, None, 0.05, 0.05, 0.05)
    grams = np.swapaxes(a, 1, 2) @ a
    distances = np.stack([np.linalg.norm(grams - item.gram, axis=(1, 2)) for item in result.census])
    np.testing.assert_array_equal(distances.argmin(0), result.trials["match"].values)
    assert len(set(result.trials["match"].values)) > 1


def test_saddles_are_never_reached_and_trials_do_not_depend_on_their_number():
    few = jd.basin_fractions(jd.MovingAverage(0.05, ema_rate=0.1), MOMENTS, n_trials=10)
    many = jd.basin_fractions(jd.MovingAverage(0.05, ema_rate=0.1), MOMENTS, n_trials=40)
    np.testing.assert_array_equal(few.trials["size"].values, many.trials["size"].values[:10])
    for share in many.shares:
        if share.equilibrium is not None and many.census[share.equilibrium].n_unstable:
            assert share.trials == 0
    assert str(many).count("\n") == 1 + len(many.shares)


def test_what_matches_nothing_is_said_so():
    """Against a census that lacks the equilibrium they reach, trials are unmatched, not given to the next one."""
    census = equilibria(jd.StopGradient(0.05), MOMENTS)
    import dataclasses

    crippled = dataclasses.replace(census, items=census.items[:2])
    shares = {share.reason: share.trials for share in
              jd.basin_fractions(jd.StopGradient(0.05), MOMENTS, n_trials=30, census=crippled).shares}  # fmt: skip
    assert shares["unmatched"] >= 28
    hurried = jd.basin_fractions(jd.StopGradient(0.05), MOMENTS, jd.Protocol(n=3, max_steps=50), 10)
    assert {share.reason: share.trials for share in hurried.shares}["out of steps"] == 10
    wild = jd.basin_fractions(jd.StopGradient(0.05), MOMENTS, jd.Protocol(n=3, lr=20.0), 10)
    assert {share.reason: share.trials for share in wild.shares}["diverged"] > 0


def test_settings_that_do_not_belong_here_are_refused():
    with pytest.raises(ValueError, match="tau is not drawn here"):
        jd.basin_fractions(jd.StopGradient(0.05), MOMENTS, jd.Protocol(n=3, tau="uniform(0, 1)"), 5)
    with pytest.raises(ValueError, match="constant lr"):
        jd.basin_fractions(jd.StopGradient(0.05), MOMENTS, jd.Protocol(n=3, lr="uniform(0.01, 0.1)"), 5)
    census = equilibria(jd.StopGradient(0.05), MOMENTS)
    with pytest.raises(ValueError, match="n = 4"):
        jd.basin_fractions(jd.StopGradient(0.05), MOMENTS, jd.Protocol(n=4), 5, census=census)


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
    assert int(jd.stability(ring, at, 1.0).verdict) == jd.Verdict.UNDETERMINED
    found = jd.stability(ring, at, 1.0, directions=turn)
    assert int(found.verdict) == jd.Verdict.STABLE
    assert float(found.margin) == pytest.approx(2.0)
    step = lambda y, data, lr: y + lr * ring(0.0, y, data)  # noqa: E731
    assert int(jd.stability(step, at, 1.0, lr=0.9, directions=turn).verdict) == jd.Verdict.STABLE
    assert int(jd.stability(step, at, 1.0, lr=1.1, directions=turn).verdict) == jd.Verdict.REPELLER
