"""Instruments and probes against NumPy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from jaxdyn.networks.instruments import alignment, spectrum
from jaxdyn.networks.probes import attentive_accuracy, few_labels, frozen_accuracy, logistic

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


def test_the_spectrum_of_embeddings():
    f = RNG.normal(size=(200, 5)) @ np.diag([3, 2, 1, 0.5, 0.1]) + 0.3
    found = spectrum(jnp.asarray(f))
    values = np.linalg.eigvalsh(np.cov(f.T, bias=True))[::-1]
    np.testing.assert_allclose(found.eigenvalue, values, rtol=1e-9)
    np.testing.assert_allclose(found.participation, values.sum() ** 2 / (values**2).sum(), rtol=1e-9)
    share = np.linalg.svd(f, compute_uv=False)
    share = share / share.sum() + 1e-7
    np.testing.assert_allclose(found.rank, np.exp(-np.sum(share * np.log(share))), rtol=1e-7)
    unit = f / np.linalg.norm(f, axis=1, keepdims=True)
    np.testing.assert_allclose(found.unit_std, np.sqrt(5) * unit.std(0).mean(), rtol=1e-6)
    np.testing.assert_allclose(found.spread, unit.var(0).sum(), rtol=1e-6)
    assert found.collapsed == 0


@pytest.mark.parametrize("f", [np.zeros((20, 4)), np.ones((20, 4)) + 1e-3 * RNG.normal(size=(20, 4)),
                               np.full((20, 4), np.nan)], ids=["zero", "constant", "nan"])  # fmt: skip
def test_collapse_is_flagged(f):
    assert spectrum(jnp.asarray(f)).collapsed == 1


def test_alignment_of_a_predictor():
    f = RNG.normal(size=(300, 4)) @ np.diag([2, 1, 0.5, 0.2])
    second = f.T @ f / 300
    values, vectors = np.linalg.eigh(second)
    aligned = vectors @ np.diag([0.1, -0.5, 1.0, 2.0]) @ vectors.T
    found = alignment(jnp.asarray(f), jnp.asarray(aligned), None, 1.0)
    np.testing.assert_allclose(found.f_eigenvalue, values[::-1], rtol=1e-9)
    np.testing.assert_allclose(found.p_eigenvalue, [2, 1, 0.1, -0.5], atol=1e-10)
    np.testing.assert_allclose([found.cosine, found.cosine_weighted], 1, rtol=1e-9)
    np.testing.assert_allclose(found.asymmetry, 0, atol=1e-10)
    np.testing.assert_allclose(found.negative, 0.25 / (0.01 + 0.25 + 1 + 4), rtol=1e-9)
    w, top = RNG.normal(size=(4, 4)), RNG.normal(size=(4, 7))
    found = alignment(jnp.asarray(f), jnp.asarray(w), jnp.asarray(top), 2.0)
    cosines = [abs(u @ w @ u) / np.linalg.norm(w @ u) for u in vectors.T]
    np.testing.assert_allclose(found.cosine, np.mean(cosines), rtol=1e-9)
    np.testing.assert_allclose(found.asymmetry, np.linalg.norm(w - w.T) / np.linalg.norm(w), rtol=1e-9)
    outer, inner = top @ top.T, w.T @ w / 2
    balance = np.linalg.norm(outer - inner) / (np.linalg.norm(outer) + np.linalg.norm(inner))
    np.testing.assert_allclose(found.balance, balance, rtol=1e-9)
    assert np.isnan(alignment(jnp.asarray(f), None, None, 1.0).cosine)


def _clusters(count, classes=4, d=6, seed=1):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.random.default_rng(9).normal(size=(classes, d))
    return centres[labels] + 0.9 * rng.normal(size=(count, d)), labels


def test_logistic_regression_is_scikit_learns():
    x, labels = _clusters(200)
    weights, bias = logistic(jnp.asarray(x), jnp.asarray(labels), 4, iterations=3000)
    # scikit-learn minimises C·Σ loss + ½‖W‖².
    other = LogisticRegression(C=1 / (0.01 * 200), tol=1e-10, max_iter=5000).fit(x, labels)
    np.testing.assert_allclose(weights, other.coef_.T, atol=2e-4)
    np.testing.assert_allclose(bias - bias.mean(), other.intercept_ - other.intercept_.mean(), atol=2e-4)


def test_frozen_accuracy_is_scikit_learns():
    (x, labels), (test, wanted) = _clusters(300), _clusters(200, seed=2)
    few = few_labels(labels, 5, 3)
    assert few.shape == (3, 20)
    assert all(np.bincount(labels[rows]).tolist() == [5] * 4 for rows in few)
    found = frozen_accuracy(
        jnp.asarray(x), jnp.asarray(labels), jnp.asarray(test), jnp.asarray(wanted), 4, jnp.asarray(few)
    )
    mean, scale = x.mean(0), x.std(0)
    x, test = (x - mean) / scale, (test - mean) / scale

    def by_sklearn(rows):
        model = LogisticRegression(C=1 / (0.01 * len(rows)), tol=1e-8, max_iter=5000).fit(x[rows], labels[rows])
        return model.score(test, wanted)

    # A sample at the border may fall either way: one in 200.
    assert abs(found.linear - by_sklearn(np.arange(300))) <= 0.005 + 1e-9
    assert abs(found.few - np.mean([by_sklearn(rows) for rows in few])) <= 0.005 + 1e-9
    normal = lambda v: v / np.linalg.norm(v, axis=1, keepdims=True)  # noqa: E731
    neighbours = KNeighborsClassifier(10).fit(normal(x), labels).score(normal(test), wanted)
    assert abs(found.neighbours - neighbours) <= 0.01 + 1e-9


def test_constant_features_are_worth_a_guess():
    _, labels = _clusters(200)
    flat = jnp.full((200, 3), 0.7)
    found = frozen_accuracy(
        flat, jnp.asarray(labels), flat, jnp.asarray(labels), 4, jnp.asarray(few_labels(labels, 2, 2))
    )
    assert found.linear <= 0.3
    with pytest.raises(ValueError, match="shots: expected at most 50"):
        few_labels(labels, 51, 1)


def test_the_attentive_probe_finds_the_one_telling_token():
    rng = np.random.default_rng(3)
    labels = np.arange(240) % 3
    tokens = rng.normal(size=(240, 6, 5))
    where = rng.integers(0, 6, 240)
    # One token says which class, and is marked; the mean over tokens hardly shows it.
    tokens[np.arange(240), where] = 0.0
    tokens[np.arange(240), where, labels] = 3.0
    tokens[np.arange(240), where, 4] = 8.0
    split = slice(0, 160), slice(160, 240)
    parts = [(jnp.asarray(tokens[s]), jnp.asarray(labels[s])) for s in split]
    assert attentive_accuracy(*parts[0], *parts[1], 3) > 0.95
