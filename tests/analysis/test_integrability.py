"""How far a field is from a gradient, in given units and in the best ones, against SciPy's minimum and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import jaxdyn as jd
from jaxdyn.analysis.integrability import gradient_defect


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


def linear(matrix, sizes):
    """A linear field on a list of vectors, and a point of it."""
    cuts = np.cumsum(sizes)[:-1]

    def field(t, y, data):
        return jnp.split(matrix @ jnp.concatenate(y), cuts)

    return field, [jnp.ones(size) for size in sizes]


def by_search(matrix, sizes):
    """The smallest ‖J̃ − J̃ᵀ‖/‖J̃‖ by Nelder and Mead's method over the blocks' scales."""
    which = np.repeat(np.arange(len(sizes)), sizes)

    def ratio(logs):
        scales = np.exp(np.append(logs, 0.0))[which]
        scaled = scales[:, None] * matrix / scales
        return np.linalg.norm(scaled - scaled.T) / np.linalg.norm(scaled)

    starts = np.random.default_rng(0).normal(size=(6, len(sizes) - 1))
    options = {"xatol": 1e-10, "fatol": 1e-14, "maxiter": 4000}
    return min(minimize(ratio, start, method="Nelder-Mead", options=options).fun for start in starts)


@pytest.mark.parametrize("sizes", [(2, 3), (1, 2, 2), (3, 1, 2, 2)])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_units_are_found(sizes, seed):
    rng = np.random.default_rng(seed)
    total = sum(sizes)
    matrix = rng.normal(size=(total, total))
    matrix = matrix + matrix.T + 0.7 * rng.normal(size=(total, total))
    scales = np.repeat(np.exp(rng.normal(size=len(sizes))), sizes)
    field, point = linear(jnp.asarray(scales[:, None] * matrix / scales), sizes)
    found = gradient_defect(field, point, rescaled=True)
    np.testing.assert_allclose(found.value, by_search(matrix, sizes), atol=1e-6)
    assert found.value <= gradient_defect(field, point).value + 1e-12


def test_gradients_in_other_units_have_no_defect():
    rng = np.random.default_rng(1)
    even = rng.normal(size=(6, 6))
    even = even + even.T
    scales = np.repeat([1.0, 30.0, 0.02], 2)
    field, point = linear(jnp.asarray(scales[:, None] * even), (2, 2, 2))
    assert gradient_defect(field, point).value > 0.1
    assert gradient_defect(field, point, rescaled=True).value < 1e-10
    # One block drives another and is not driven: no units help, the infimum is that of the blocks alone.
    driven = np.zeros((4, 4))
    driven[:2, :2], driven[2:, 2:], driven[2:, :2] = [[2.0, 1.0], [1.0, 3.0]], np.eye(2), rng.normal(size=(2, 2))
    field, point = linear(jnp.asarray(driven), (2, 2))
    assert gradient_defect(field, point, rescaled=True).value < 1e-6
    # A rotation is none in any units.
    field, point = linear(jnp.array([[0.0, -1.0], [3.0, 0.0]]), (1, 1))
    np.testing.assert_allclose(gradient_defect(field, point, rescaled=True).value, np.sqrt(2))


@pytest.mark.parametrize("ratio", [0.3, 1.0, 4.0])
def test_the_objective_is_a_gradient_in_the_units_of_its_learning_rates(ratio):
    moments = jd.Moments.random(jax.random.key(0), 2)
    system = jd.Objective(0.05, ratio)
    rng = np.random.default_rng(3)
    state = system.state(encoder=rng.normal(size=(3, 2)), predictor=rng.normal(size=(3, 3)))
    assert gradient_defect(system, state, moments, rescaled=True).value < 1e-12
    assert (gradient_defect(system, state, moments).value > 0.05) == (ratio != 1.0)
    other = jd.StopGradient(0.05, ratio)
    assert gradient_defect(other, state, moments, rescaled=True).value > 0.01


def test_probes_cannot_be_rescaled():
    field, point = linear(jnp.eye(2), (1, 1))
    with pytest.raises(ValueError, match="rescaled: it needs the whole Jacobian"):
        gradient_defect(field, point, probes=4, key=jax.random.key(0), rescaled=True)


@pytest.mark.parametrize("entry", [np.nan, np.inf, 0.0])
def test_of_no_jacobian_nothing_is_said(entry):
    field, point = linear(jnp.full((4, 4), entry), (2, 2))
    assert np.isnan(gradient_defect(field, point, rescaled=True).value)
