import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdyn as jd
from jaxdyn.moments import Moments


@pytest.mark.parametrize(
    ("xx", "yx", "yy", "message"),
    [
        ([[1.0, 2.0], [0.0, 1.0]], np.eye(2), None, "xx: expected a symmetric"),
        ([[1.0, 0.0], [0.0, -1.0]], np.eye(2), None, "xx: expected a positive semidefinite"),
        ([[np.nan]], [[1.0]], None, "xx: expected finite"),
        ([[1.0]], [[np.inf]], None, "yx: expected finite"),
        (np.eye(2), np.eye(3), None, "yx: expected shape"),
        (np.ones((2, 3)), np.eye(2), None, "xx: expected a square"),
        (np.eye(2), np.eye(2), -np.eye(2), "yy: expected a positive semidefinite"),
        ([[1.0, 2.0], [3.0]], np.eye(2), None, "xx: expected a rectangular"),
        ([[1 + 1j]], [[1.0]], None, "xx: expected an array of real numbers"),
        (np.zeros((0, 0)), np.zeros((0, 0)), None, "xx: expected a matrix"),
        (["a"], ["b"], None, "xx: expected an array of real numbers"),
    ],
)
def test_bad_moments_are_named(xx, yx, yy, message):
    with pytest.raises(ValueError, match=message):
        Moments(xx, yx, yy)


def test_any_cross_moment_is_accepted_and_realisability_is_told():
    assert Moments([[1.0]], [[0.9]], [[1.0]]).is_realisable
    with pytest.warns(UserWarning, match="no views have these moments"):
        assert not Moments([[1.0]], [[1.1]], [[1.0]]).is_realisable
    with pytest.warns(UserWarning, match="no views"):
        Moments(np.eye(3), 5 * np.eye(3), np.eye(3))
    with pytest.raises(ValueError, match="yy: is_realisable needs"):
        _ = Moments([[1.0]], [[0.9]]).is_realisable


def test_dtype_is_the_arguments():
    assert Moments(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)).xx.dtype == np.float32
    assert Moments(np.eye(2), np.eye(2)).xx.dtype == np.float64


def test_scalar_moments_are_realisable():
    for rho, tau in ((1.0, 0.3), (0.01, 0.9), (2.0, -0.7), (0.0, 0.0)):
        moments = Moments.scalar(rho, tau)
        assert moments.is_realisable
        assert float(moments.required_yy("the test")[0, 0]) == pytest.approx(max(rho, tau**2 / rho if rho else 0.0))


@settings(deadline=None, max_examples=25)
@given(m=st.integers(1, 5), seed=st.integers(0, 1000), symmetric=st.booleans(), correlation=st.floats(0, 1))
def test_random_moments_are_realisable(m, seed, symmetric, correlation):
    with jax.enable_x64(True):
        moments = Moments.random(jax.random.key(seed), m, symmetric=symmetric, correlation=correlation)
        assert moments.is_realisable
        if symmetric:
            np.testing.assert_allclose(moments.yx, moments.yx.T, atol=1e-12)


def _sampled(x, y):
    """Sample moments and their standard errors, entry by entry."""
    for left, right in ((x, x), (y, x), (y, y)):
        products = left[:, :, None] * right[:, None, :]
        yield products.mean(0), products.std(0) / np.sqrt(len(products))


def _assert_moments(moments, x, y):
    for have, (mean, error) in zip((moments.xx, moments.yx, moments.yy), _sampled(x, y), strict=True):
        # 4.5 standard errors: about 1e-5 chance of failure for each entry, seeds fixed.
        assert (np.abs(np.asarray(have) - mean) <= 4.5 * error + 1e-12).all()


def test_data_models_match_samples():
    rng = np.random.default_rng(0)
    samples, m, k = 200_000, 4, 2
    root = rng.normal(size=(m, m))
    sigma = root @ root.T
    u = rng.normal(size=(samples, m)) @ root.T

    # isotropic
    clean = rng.normal(size=(samples, m))
    noise = rng.normal(size=(2, samples, m))
    _assert_moments(Moments.isotropic(m, 0.7), clean + 0.7 * noise[0], clean + 0.7 * noise[1])

    # additive scrambling, anisotropic noise
    mix = rng.normal(size=(m, m)) / 2
    _assert_moments(Moments.additive_scrambling(sigma, mix @ mix.T), u + noise[0] @ mix.T, u + noise[1] @ mix.T)

    # multiplicative scrambling, straight from its definition (P + U G Uᵀ) u
    basis = np.linalg.qr(rng.normal(size=(m, k)))[0]
    project = np.eye(m) - basis @ basis.T
    g = rng.normal(size=(2, samples, k, k))
    views = [u @ project + np.einsum("ik,skl,jl,sj->si", basis, g_, basis, u, optimize=True) for g_ in g]
    moments = Moments.multiplicative_scrambling(sigma, basis)
    _assert_moments(moments, *views)
    # The paper prints Σˢ = Σˣ: not what its definition gives.
    assert np.abs(np.asarray(moments.xx) - sigma).max() > 0.5


def test_scrambling_arguments_are_checked():
    with pytest.raises(ValueError, match="subspace: expected orthonormal"):
        Moments.multiplicative_scrambling(np.eye(3), np.ones((3, 1)))
    with pytest.raises(ValueError, match="subspace: expected shape"):
        Moments.multiplicative_scrambling(np.eye(3), np.ones((2, 1)))
    with pytest.raises(ValueError, match="noise: expected shape"):
        Moments.additive_scrambling(np.eye(3), np.eye(2))
    with pytest.raises(ValueError, match="noise: expected a positive semidefinite"):
        Moments.additive_scrambling(np.eye(2), -np.eye(2))
    with pytest.raises(ValueError, match="data: expected a rectangular"):
        Moments.multiplicative_scrambling([[1.0, 2.0], [3.0]], np.eye(2))
    with pytest.raises(ValueError, match="rho: expected one real number"):
        Moments.scalar(np.array([1.0, 2.0]), 0.5)
    with pytest.raises(ValueError, match="sigma"):
        Moments.isotropic(2, -1.0)
    with pytest.raises(ValueError, match="m: expected a whole number"):
        Moments.isotropic(0, 1.0)
    with pytest.raises(ValueError, match="correlation"):
        Moments.random(jax.random.key(0), 2, correlation=2.0)


def test_from_views_is_the_sample_mean_of_products():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 50, 3))
    moments = Moments.from_views(x, y)
    np.testing.assert_allclose(moments.yx, np.mean([np.outer(b, a) for a, b in zip(x, y, strict=True)], 0), atol=1e-13)
    np.testing.assert_allclose(moments.xx, np.mean([np.outer(a, a) for a in x], 0), atol=1e-13)
    assert moments.is_realisable


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((4, 2)), np.eye(4)[:, :2], "x: the view is constant"),
        (np.eye(4), np.eye(3), "y: expected as many samples as x, 4, got 3"),
        (np.eye(4), np.eye(4)[:, :2], "y: expected 4 columns"),
        (np.full((4, 2), np.nan), np.eye(4)[:, :2], "x: expected finite"),
        (np.ones(3), np.ones(3), "x: expected shape"),
        (np.array([["a"], ["b"]]), np.eye(2), "x: expected a numeric array"),
    ],
)
def test_bad_views_are_named(x, y, message):
    with pytest.raises(ValueError, match=message):
        Moments.from_views(x, y)


def test_moments_batch_under_vmap():
    rho, tau = jnp.array([1.0, 2.0]), jnp.array([0.5, -0.5])
    batch = jax.vmap(jd.Moments.scalar)(rho, tau)
    assert batch.xx.shape == (2, 1, 1)
    np.testing.assert_allclose(batch.yx[:, 0, 0], tau)


def test_fields_called_by_hand_work_in_either_precision():
    """Moments are kept in float64; a field called where JAX computes in float32 takes them, with no warning."""
    data = jd.Moments([[1.0]], [[0.8]], [[1.0]])
    with jax.enable_x64(False):
        for system in (jd.StopGradient(0.05), jd.Objective(0.05), jd.MovingAverage(0.05, ema_rate=0.1)):
            state = system.random_state(jax.random.key(0), n=2, m=1)
            rate, energy = system.field(0.0, state, data), system.surrogate(state, data)
            assert rate.encoder.dtype == energy.dtype == jnp.float32
            double = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state)
            with jax.enable_x64(True):
                want = system.field(0.0, jax.tree.map(jnp.asarray, double), data)
            np.testing.assert_allclose(rate.encoder, want.encoder, rtol=1e-5, atol=1e-6)
