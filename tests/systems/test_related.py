"""Neighbouring systems: each against the gradient dynamics it is the reduction of, or its conserved quantity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdyn as jd
from jaxdyn.systems.modes import ModeData
from jaxdyn.systems.related import DeepLinear, DeepLinearData, EigenvalueFlow, SelfPredictive

SIGMA = 0.5
DATA = ModeData.isotropic(SIGMA)


def power(matrix, a):
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * values**a) @ vectors.T


@pytest.mark.parametrize("a", [0.5, 1.0])
@pytest.mark.parametrize("variant", ["stop_gradient", "no_predictor", "no_stop_gradient"])
def test_eigenvalue_flows_are_the_gradient_flows_of_a_linear_network(variant, a):
    """ẇ from autodiff of E‖P W x₁ − W x₂‖²/2 with P = (W Wᵀ)^a held fixed; d(W Wᵀ)/dt has the stated spectrum."""
    rng = np.random.default_rng(0)
    w = jnp.asarray(rng.normal(size=(3, 3)))
    predictor = power(w @ w.T, a) if variant != "no_predictor" else jnp.eye(3)

    def loss(online, target):
        # E over x₁ = u + σn₁, x₂ = u + σn₂ with u, n standard
        shared = predictor @ online - target
        noise = jnp.sum((predictor @ online) ** 2) + jnp.sum(target**2)
        return (jnp.sum(shared**2) + SIGMA**2 * noise) / 2

    values, vectors = np.linalg.eigh(w @ w.T)
    have = EigenvalueFlow(a, variant).field(0.0, jnp.asarray(values), DATA)
    # Without a predictor the stop gradient stays.
    through = variant == "no_stop_gradient"
    rate = -(jax.grad(lambda v: loss(v, v))(w) if through else jax.grad(loss)(w, w))
    change = rate @ w.T + w @ rate.T
    np.testing.assert_allclose(np.diag(vectors.T @ change @ vectors), have, rtol=1e-8)


def test_iso_loss_moves_all_modes_at_one_rate():
    field = EigenvalueFlow(1.0, "iso_loss").field(0.0, jnp.array([1e-6, 1e-3]), DATA)
    np.testing.assert_allclose(field / jnp.array([1e-6, 1e-3]), 2.0, rtol=2e-3)
    end = jd.flow(EigenvalueFlow(0.5, "iso_loss"), jnp.array([1e-4, 0.3, 2.0]), DATA, t1=60.0).final
    np.testing.assert_allclose(end, (1 + SIGMA**2) ** -2.0, rtol=1e-5)  # λ^a (1 + σ²) = 1


@pytest.mark.parametrize("loss", ["jepa", "mae"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_deep_linear_limits(loss, depth):
    system, data = DeepLinear(depth, loss), DeepLinearData(jnp.array([1.0, 0.5]), jnp.array([0.8, 0.4]))
    np.testing.assert_allclose(system.field(0.0, system.limit(data), data), 0, atol=1e-14)
    end = jd.flow(system, jnp.array([0.3, 0.3]), data, t1=4000.0).final
    want = data.regression ** (depth if loss == "jepa" else depth / (depth + 1))
    np.testing.assert_allclose(end, want, rtol=1e-4)


def test_self_predictive_features_keep_their_gram_matrix():
    rng = np.random.default_rng(1)
    chain = rng.uniform(size=(6, 6))
    chain = jnp.asarray(chain / chain.sum(1, keepdims=True))
    features = jnp.asarray(rng.normal(size=(6, 2)))
    system = SelfPredictive()
    # P* by least squares, from NumPy
    want = np.linalg.lstsq(np.asarray(features), np.asarray(chain @ features), rcond=None)[0]
    np.testing.assert_allclose(system.predictor(features, chain), want, atol=1e-10)
    rate = system.field(0.0, features, chain)
    projector = features @ np.linalg.pinv(features)
    np.testing.assert_allclose(rate, (np.eye(6) - projector) @ chain @ features @ want.T, atol=1e-10)
    end = jd.flow(system, features, chain, t1=20.0).final
    np.testing.assert_allclose(end.T @ end, features.T @ features, atol=1e-6)
    assert np.abs(end - features).max() > 0.1


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="variant: expected one of"):
        EigenvalueFlow(1.0, "none")
    with pytest.raises(ValueError, match="loss: expected one of"):
        DeepLinear(2, "vae")
