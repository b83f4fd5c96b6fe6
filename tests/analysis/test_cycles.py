"""Limit cycles: against SciPy, against closed forms, up to a symmetry; what is none is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jaxdyn.analysis.cycles import limit_cycle
from jaxdyn.systems.siamese import StopGradient

START = np.array([2.0, 0.0])


def van_der_pol(t, y, mu):
    return jnp.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])


def scipys(mu):
    """Period and multiplier e^{∫ div f} of van der Pol's cycle, from crossings of y = 0 and a quadrature."""
    field = lambda t, y: [y[1], mu * (1 - y[0] ** 2) * y[1] - y[0], mu * (1 - y[0] ** 2)]  # noqa: E731

    def crossing(t, y):
        return y[1]

    path = solve_ivp(field, (0, 60), [2.0, 0.0, 0.0], events=crossing, rtol=1e-12, atol=1e-13, method="DOP853")
    times, states = path.t_events[0], path.y_events[0]
    return times[-1] - times[-3], np.exp(states[-1, 2] - states[-3, 2])  # every other crossing is upwards


@pytest.mark.slow  # integrators of the variational equations are compiled for each field, here and below
@pytest.mark.parametrize(("mu", "solver"), [(1.0, "tsit5"), (0.3, "dopri8")])
def test_period_and_multiplier_are_scipys(mu, solver):
    found = limit_cycle(van_der_pol, START, mu, period=6.5, solver=solver)
    period, multiplier = scipys(mu)
    assert found.period == pytest.approx(period, rel=1e-9)
    assert found.multipliers == pytest.approx([multiplier], rel=1e-6)
    assert found.is_stable
    assert found.n_unstable == 0
    assert found.residual < 1e-8
    assert "stable, largest multiplier" in repr(found)


def test_a_state_in_single_precision_is_taken_as_it_is():
    found = limit_cycle(van_der_pol, START.astype(np.float32), 1.0, period=6.5)
    assert found.period == pytest.approx(scipys(1.0)[0], rel=1e-9)


def test_a_cycle_that_repels():
    back = lambda t, y, mu: -van_der_pol(t, y, mu)  # noqa: E731
    start = np.array([2.0086, 0.0])  # near enough: what is off grows a thousandfold in one turn
    found = limit_cycle(back, start, 1.0, period=6.66)
    assert found.multipliers == pytest.approx([1 / scipys(1.0)[1]], rel=1e-5)
    assert found.n_unstable == 1
    assert not found.is_stable
    assert "1 of 1 directions grow" in repr(found)


def test_a_centre_is_neither():
    turn = lambda t, y, w: w * jnp.stack([-y[1], y[0]])  # noqa: E731
    found = limit_cycle(turn, START, 2.0, period=3.0)
    assert found.period == pytest.approx(np.pi, rel=1e-9)
    assert found.multipliers == pytest.approx([1.0], rel=1e-8)
    assert found.n_unstable == 0
    assert not found.is_stable


def test_a_cycle_that_closes_after_a_turn():
    """Van der Pol drives the angle of a third and fourth number, whose rotations are a symmetry."""

    def field(t, state, mu):
        x, w = state
        return van_der_pol(t, x, mu), 0.2 * x[0] ** 2 * jnp.stack([-w[1], w[0]]) + (1 - w @ w) * w

    turned = lambda state: (jnp.zeros((1, 2)), jnp.stack([-state[1][1], state[1][0]])[None])  # noqa: E731
    found = limit_cycle(field, (START, np.array([0.6, 0.8])), 1.0, period=6.5, directions=turned)
    period, multiplier = scipys(1.0)
    path = solve_ivp(
        lambda t, y: [*np.asarray(van_der_pol(t, y, 1.0)), 0.2 * y[0] ** 2], (0, period), [*found.state[0], 0.0],
        rtol=1e-11, atol=1e-12,
    )  # fmt: skip
    assert found.period == pytest.approx(period, rel=1e-8)
    # Whole turns more or less are the same.
    left = (found.drift[0] * period - path.y[2, -1]) / (2 * np.pi)
    assert left == pytest.approx(round(left), abs=1e-6)
    # ẇ = (1 − ‖w‖²)w shrinks nudges of the radius as e^{−2t}.
    assert np.sort(np.abs(found.multipliers)) == pytest.approx(np.sort([multiplier, np.exp(-2 * period)]), rel=1e-3)
    # Without the symmetry it does not close.
    with pytest.raises(ValueError, match="no cycle was found"):
        limit_cycle(field, (START, np.array([0.6, 0.8])), 1.0, period=6.5, iterations=12)


def test_what_is_no_cycle_is_refused():
    with pytest.raises(ValueError, match="system: the field changes with time"):
        limit_cycle(lambda t, y, _: jnp.cos(t) * y, START, None, period=1.0)
    spiral = lambda t, y, _: jnp.stack([-0.1 * y[0] - y[1], y[0] - 0.1 * y[1]])  # noqa: E731
    with pytest.raises(ValueError, match=r"no cycle was found|at rest there"):
        limit_cycle(spiral, START, None, period=6.0)
    with pytest.raises(ValueError, match="a turn from there ended diverged"):
        limit_cycle(lambda t, y, _: y**2, START, None, period=5.0)
    for state, mu in ((np.array([np.nan, 0.0]), 1.0), (START, np.nan)):
        with pytest.raises(ValueError, match="state, data: the field is not finite there"):
            limit_cycle(van_der_pol, state, mu, period=6.5)
    with pytest.raises(ValueError, match="state: it is at rest there"):
        limit_cycle(van_der_pol, np.zeros(2), 1.0, period=6.5)
    # What is no symmetry would divide out the only direction that decides.
    turned = lambda y: jnp.stack([-y[1], y[0]])[None]  # noqa: E731
    with pytest.raises(ValueError, match="directions: they are no symmetry of the system"):
        limit_cycle(van_der_pol, START, 1.0, period=6.5, directions=turned)
    with pytest.raises(ValueError, match="period: expected"):
        limit_cycle(van_der_pol, START, 1.0, period=-1.0)
    with pytest.raises(ValueError, match="solver: expected"):
        limit_cycle(van_der_pol, START, 1.0, period=6.0, solver="rk4")


def test_an_equilibrium_up_to_a_turn_is_no_cycle():
    """Z' = (1 − |z|² + i)z goes around, but only along its symmetry."""
    field = lambda t, z, _: (1 - z @ z) * z + jnp.stack([-z[1], z[0]])  # noqa: E731
    found = limit_cycle(field, np.array([1.0, 0.1]), None, period=6.0)
    assert found.period == pytest.approx(2 * np.pi, rel=1e-8)
    assert found.multipliers == pytest.approx([np.exp(-4 * np.pi)], rel=1e-3)
    turned = lambda z: jnp.stack([-z[1], z[0]])[None]  # noqa: E731
    with pytest.raises(ValueError, match="at rest there, up to the symmetry"):
        limit_cycle(field, np.array([1.0, 0.1]), None, period=6.0, directions=turned)


def test_a_system_that_comes_to_rest_has_none(monkeypatch):
    from jaxdyn.moments import Moments

    system, moments = StopGradient(0.05), Moments.scalar(1.0, 0.9)
    state = system.state(encoder=jnp.ones((2, 1)), predictor=jnp.eye(2))
    with pytest.raises(ValueError, match=r"no cycle was found|at rest there"):
        limit_cycle(system, state, moments, period=5.0)
    jax.clear_caches()
