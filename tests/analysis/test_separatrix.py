"""Separatrices against closed forms, and against where flows from either side end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import jaxdyn as jd
from jaxdyn.analysis.separatrix import separatrix
from jaxdyn.systems.spheres import ScalarData, radii, sphere_state


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


def test_the_duffing_oscillators_stable_manifold_is_scipys():
    field = lambda t, y, data: jnp.stack([y[1], y[0] - y[0] ** 3 - 0.2 * y[1]])  # noqa: E731
    curve = separatrix(field, jnp.zeros(2), reach=6.0, points=50)
    # The same backward in time, by another program, with its length as the clock.
    slope = np.linalg.eig(np.array([[0.0, 1.0], [1.0, -0.2]]))
    along = slope[1][:, slope[0].argmin()]
    for way, branch in ((1, curve[:50][::-1]), (-1, curve[51:])):

        def back(t, y):
            v = np.array([y[1], y[0] - y[0] ** 3 - 0.2 * y[1]])
            return -v / np.linalg.norm(v)

        want = solve_ivp(back, (0, 6), way * 6e-9 * along, rtol=1e-11, atol=1e-14, t_eval=np.linspace(0, 6, 51)[1:])
        np.testing.assert_allclose(np.abs(branch), np.abs(want.y.T), atol=1e-7)
    np.testing.assert_array_equal(curve[50], 0)


@pytest.mark.parametrize("ratio", [1.0, 3.0])
def test_starts_of_the_scalar_system_end_on_their_side(ratio):
    data = ScalarData(1.0, 1.0, 0.12, ratio)
    system, moments = jd.StopGradient(0.12, ratio), jd.Moments.scalar(1.0, 1.0)
    inner = sphere_state(jnp.ones(1), radii(data).inner, data)
    curve = separatrix(system, system.state(encoder=inner.encoder, predictor=inner.predictor), moments, reach=4.0)
    assert (np.diff(curve[:, 1]) < 0).all() or (np.diff(curve[:, 1]) > 0).all()  # a graph over the predictor
    order = np.argsort(curve[:, 1])
    rng = np.random.default_rng(0)
    for predictor in rng.uniform(-1.5, 1.5, 6):
        edge = np.interp(predictor, *curve[order].T[::-1])
        for factor, is_alive in ((0.99, False), (1.01, True)):
            start = system.state(encoder=[[factor * edge]], predictor=[[predictor]])
            end = jd.flow(system, start, moments, t1=400.0).final
            assert (float(end.encoder[0, 0]) > 0.5 * float(radii(data).outer)) == is_alive


def test_what_parts_no_plane_is_refused():
    spiral = lambda t, y, data: jnp.stack([y[1], -y[0] - 0.1 * y[1]])  # noqa: E731
    for field, state, message in (
        (spiral, jnp.zeros(2), "saddle: expected one eigenvalue above"),
        (lambda t, y, data: -y, jnp.zeros(2), "saddle: expected one eigenvalue above"),
        (lambda t, y, data: jnp.stack([y[0], -y[1]]), jnp.ones(2), "saddle: it is not at rest"),
        (lambda t, y, data: jnp.stack([jnp.nan * y[0], -y[1]]), jnp.zeros(2), "saddle: "),
        (lambda t, y, data: jnp.stack([y[0], -y[1], y[2]]), jnp.zeros(3), "saddle: expected a state of two numbers"),
        (lambda t, y, data: jnp.stack([y[0] * (1 + t), -y[1]]), jnp.zeros(2), "system: the field changes with time"),
    ):
        with pytest.raises(ValueError, match=message):
            separatrix(field, state, reach=1.0)
    with pytest.raises(ValueError, match="reach: expected"):
        separatrix(spiral, jnp.zeros(2), reach=-1.0)


def test_a_branch_that_comes_from_a_source_ends_there():
    # Saddles at (±1, 0), a source at 0: x' = x − x³, y' = −y + …; backward the saddle's branch stays on x = ±1.
    field = lambda t, y, data: jnp.stack([-(y[0] - y[0] ** 3), y[1] - y[1] ** 3])  # noqa: E731
    curve = separatrix(field, jnp.array([0.0, 0.0]), reach=5.0, points=100)
    np.testing.assert_allclose(curve[:, 1], 0, atol=1e-9)
    np.testing.assert_allclose(np.sort(curve[[0, -1], 0]), [-1, 1], atol=1e-5)
