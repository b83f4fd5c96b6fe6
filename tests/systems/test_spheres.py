import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdyn as jd
from jaxdyn.analysis.linearise import Verdict, linearise
from jaxdyn.systems.spheres import ScalarData, discriminant, distance_to_sphere, radii, sphere_state

draws = {
    "rho": st.floats(0.01, 3),
    "tau": st.floats(0.05, 1).flatmap(lambda t: st.sampled_from([t, -t])),
    "share": st.floats(0.02, 0.95),  # λ as a share of the largest one with Δ >= 0
    "ratio": st.floats(0.3, 3),
    "n": st.integers(1, 4),
    "seed": st.integers(0, 100),
}


@settings(deadline=None, max_examples=30)
@given(**draws)
def test_spheres_are_the_roots_and_equilibria(rho, tau, share, ratio, n, seed):
    with jax.enable_x64(True):
        decay = share * tau**2 / (4 * rho)
        data = ScalarData(rho, tau, decay, ratio)
        roots = np.sort(np.roots([rho, -abs(tau), decay]).real)  # of ρr² − |τ|r + λ
        np.testing.assert_allclose(np.array(radii(data)) * np.sqrt(ratio), roots, rtol=1e-8)
        direction = jnp.asarray(np.random.default_rng(seed).normal(size=n))
        moments = jd.Moments.scalar(rho, tau)
        for radius in radii(data):
            point = sphere_state(direction, radius, data)
            assert float(distance_to_sphere(point, radius, data)) < 1e-9 * (1 + radius)
            ema = jd.MovingAverage(decay, ratio, ema_rate=0.3).field(0.0, point, moments)
            sg = jd.StopGradient(decay, ratio)
            student = sg.state(encoder=point.encoder, predictor=point.predictor)
            for part in (*ema, *sg.field(0.0, student, moments)):
                assert np.abs(part).max() < 1e-9 * (1 + float(radius))


@settings(deadline=None, max_examples=30)
@given(**draws)
def test_jacobian_verdicts_agree_with_the_closed_form(rho, tau, share, ratio, n, seed):
    with jax.enable_x64(True):
        decay = share * tau**2 / (4 * rho)
        data, moments = ScalarData(rho, tau, decay, ratio), jd.Moments.scalar(rho, tau)
        direction = jnp.asarray(np.random.default_rng(seed).normal(size=n))
        system = jd.MovingAverage(decay, ratio, ema_rate=0.3)
        inner, outer = (linearise(system, sphere_state(direction, r, data), moments) for r in radii(data))
        assert int(outer.verdict) == Verdict.STABLE
        assert int(inner.verdict) == Verdict.SADDLE
        assert int(inner.n_unstable) == 1
        assert int(inner.orbit_dim) == int(outer.orbit_dim) == int(outer.nullity) == n - 1
        origin = linearise(system, jax.tree.map(jnp.zeros_like, sphere_state(direction, inner.residual, data)), moments)
        assert int(origin.verdict) == Verdict.STABLE


def test_the_fold_is_undetermined_not_stable():
    data = ScalarData(1.0, 1.0, 0.25)
    assert float(discriminant(data)) == 0
    point = sphere_state(jnp.array([1.0, 2.0]), radii(data).outer, data)
    assert int(linearise(jd.MovingAverage(0.25, ema_rate=0.1), point, jd.Moments.scalar(1.0, 1.0)).verdict) == 3


def test_a_point_without_weight_decay_is_undetermined():
    system = jd.StopGradient(0.0)
    zero = system.state(encoder=np.zeros((2, 1)), predictor=np.zeros((2, 2)))
    assert int(linearise(system, zero, jd.Moments.scalar(1.0, 1.0)).verdict) == Verdict.UNDETERMINED


def test_below_the_threshold_there_is_no_sphere():
    assert np.isnan(radii(ScalarData(1.0, 1.0, 0.26))).all()


def test_distance_is_a_distance():
    data = ScalarData(1.0, 0.9, 0.05)
    outer = radii(data).outer
    point = sphere_state(jnp.array([0.6, 0.8]), outer, data)
    moved = point._replace(predictor=point.predictor + jnp.array([[0.0, 3e-3], [0.0, 4e-3]]))
    assert float(distance_to_sphere(moved, outer, data)) == pytest.approx(5e-3)
    zero = jax.tree.map(jnp.zeros_like, point)
    assert float(distance_to_sphere(zero, outer, data)) == pytest.approx(float(np.sqrt(3) * outer), rel=1e-6)


def test_stability_asks_for_float64():
    system = jd.StopGradient(0.1)
    state = system.state(encoder=np.zeros((2, 1), np.float32), predictor=np.zeros((2, 2), np.float32))
    verdict = lambda state: linearise(system, state, jd.Moments.scalar(1.0, 1.0)).verdict  # noqa: E731
    assert int(verdict(state)) == Verdict.STABLE
    with pytest.raises(ValueError, match="float64"):
        jax.jit(verdict)(state)
