import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import jaxdyn as jd
from jaxdyn.systems.direct import DirectCopy, DirectPred, DirectTraining, LeastSquares, Samples

NONE = jnp.zeros((4, 4))


def correlation(seed=0, n=4):
    g = np.random.default_rng(seed).normal(size=(n, n))
    return jnp.asarray(g @ g.T)


def function_of(matrix, function):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * function(values)) @ vectors.T


def test_rules_are_the_stated_functions_of_the_spectrum():
    f = correlation()
    top = np.linalg.eigvalsh(f)[-1]
    for rule, function in [
        (DirectPred(), np.sqrt),
        (DirectPred(0.1), lambda s: np.sqrt(s) + 0.1 * top),
        (DirectPred(0.1, released=True), lambda s: np.sqrt(s) + 0.1 * np.sqrt(top)),
        (DirectPred(offset=0.5), lambda s: np.sqrt(np.maximum(s - 0.5, 0))),
        (DirectPred(offset=-0.5), lambda s: np.sqrt(s + 0.5)),
        (DirectCopy(0.2), lambda s: s + 0.2 * top),
    ]:
        np.testing.assert_allclose(rule(f, NONE), function_of(f, function), atol=1e-10)
    assert not np.allclose(DirectPred(0.1)(f, NONE), DirectPred(0.1, released=True)(f, NONE))


def test_least_squares_solves_its_normal_equations():
    rng = np.random.default_rng(1)
    f, g = rng.normal(size=(2, 500, 4))
    # With a symmetric cross-correlation this is the least-squares predictor of g from f.
    cross = g.T @ f / 500
    predictor = LeastSquares(0.0)(jnp.asarray(f.T @ f / 500), jnp.asarray(cross))
    np.testing.assert_allclose(predictor @ (f.T @ f / 500), (cross + cross.T) / 2, atol=1e-10)


def test_minibatches_have_the_moments():
    moments = jd.Moments.random(jax.random.key(0), 2)
    x, y = Samples.gaussian(jax.random.key(1), moments).draw(jnp.array(0), 100_000)
    for have, left, right in ((moments.xx, x, x), (moments.yx, y, x), (moments.required_yy("test"), y, y)):
        products = left[:, :, None] * right[:, None, :]
        assert (np.abs(have - products.mean(0)) < 4.5 * products.std(0) / np.sqrt(100_000)).all()
    other = Samples.gaussian(jax.random.key(1), moments).draw(jnp.array(1), 10)[0]
    assert not np.array_equal(other, x[:10])
    with pytest.warns(UserWarning, match="no views"):
        unreal = jd.Moments([[1.0]], [[2.0]], [[1.0]])
    with pytest.raises(ValueError, match="moments: expected moments"):
        Samples.gaussian(jax.random.key(0), unreal)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", ["sg", "ema"])
def test_training_matches_numpy_step_by_step(name, mixed, every):
    n, m, lr, rho, batch = 3, 2, 0.05, 0.4, 16
    system = {"sg": jd.StopGradient(0.02, 1.5), "ema": jd.MovingAverage(0.02, 1.5, ema_rate=0.8)}[name]
    training = DirectTraining(system, DirectPred(0.1), rho, every, mixed, batch)
    data = Samples.gaussian(jax.random.key(3), jd.Moments.random(jax.random.key(2), m))
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(n, m)), rng.normal(size=(n, n))
    path = jd.descend(training, training.state(encoder=a, predictor=b), data, lr=lr, steps=7)
    c, f_hat = a.copy(), np.zeros((n, n))
    for k in range(7):
        x, y = (np.asarray(part) for part in data.draw(jnp.array(k, jnp.uint32), batch))
        teacher = c if name == "ema" else a
        f = x @ a.T
        f_hat = rho * f_hat + (1 - rho) * f.T @ f / batch
        if k % every == 0:
            b = function_of(f_hat, lambda s: np.sqrt(np.maximum(s, 0)) + 0.1 * s.max())
        state = (a, b, teacher) if name == "ema" else (a, b)
        rates = oracles.rates(name, state, x.T @ x / batch, y.T @ x / batch, None, 0.02, 0.02, 1.5)
        a = a + lr * rates[0]
        if mixed and k % every:
            b = b + lr * rates[1]
        c = c + 0.8 * lr * (a - c) if name == "ema" else a
    np.testing.assert_allclose(path.final.encoder, a, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(path.final.predictor, b, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(path.final.teacher, c, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(path.final.correlation, f_hat, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DirectPred(-1.0), "epsilon"),
        (lambda: DirectPred(offset=float("nan")), "offset"),
        (lambda: LeastSquares(-1.0), "ridge"),
        (lambda: DirectTraining(jd.StopGradient(0.1), DirectPred(), 1.5), "momentum"),
        (lambda: DirectTraining(jd.StopGradient(0.1), DirectPred(), every=0), "every"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
