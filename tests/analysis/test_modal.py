"""JointModes of given moments against closed forms, SciPy and the census."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import ortho_group

from jaxdyn.analysis.modal import mode_fates, modes_of, settled_spectrum
from jaxdyn.equilibria.census import equilibria
from jaxdyn.moments import Moments
from jaxdyn.systems.siamese import StopGradient


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("m", [1, 2, 5])
def test_commuting_moments_are_diagonalised(m):
    rng = np.random.default_rng(m)
    axes = np.atleast_2d(ortho_group.rvs(m, random_state=m)) if m > 1 else np.ones((1, 1))
    rho, tau = rng.uniform(0.5, 2, m), rng.uniform(-1, 1, m)
    if m == 5:
        rho[1] = rho[0]  # a repeated eigenvalue of X
    modes = modes_of(Moments(axes @ np.diag(rho) @ axes.T, axes @ np.diag(tau) @ axes.T))
    order = np.argsort(-(tau**2) / rho)
    np.testing.assert_allclose(modes.rho, rho[order], atol=1e-10)
    np.testing.assert_allclose(modes.tau, tau[order], atol=1e-10)
    assert modes.coupling < 1e-20
    assert modes.skew < 1e-12


def test_no_turn_of_the_axes_lessens_the_coupling():
    moments = Moments.random(jax.random.key(0), 4)
    modes = modes_of(moments)
    x, y = np.asarray(moments.xx), np.asarray(moments.yx)
    pair = [m / np.linalg.norm(m) for m in (x, (y + y.T) / 2)]

    def off(axes):
        turned = [axes.T @ m @ axes for m in pair]
        return sum(np.sum(m**2) - np.sum(np.diag(m) ** 2) for m in turned)

    axes, rng = np.asarray(modes.axes), np.random.default_rng(1)
    np.testing.assert_allclose(axes.T @ axes, np.eye(4), atol=1e-12)
    for _ in range(200):
        skew = rng.normal(size=(4, 4)) * 10 ** rng.uniform(-4, 0)
        turn, _ = np.linalg.qr(np.eye(4) + skew - skew.T)
        assert off(axes @ turn) >= off(axes) - 1e-12


@settings(deadline=None, max_examples=30)
@given(st.floats(0.1, 3), st.floats(-1, 1), st.floats(0.001, 0.1), st.floats(0.2, 5))
def test_fates_are_the_roots_of_the_mode_equations(rho, tau, decay, ratio):
    fate = mode_fates(jnp.array([rho]), jnp.array([tau]), decay, ratio)
    size = abs(tau)
    assert float(fate.threshold[0]) == pytest.approx(tau**2 / (4 * rho))
    if abs(decay - tau**2 / (4 * rho)) < 1e-6:
        return
    if decay > tau**2 / (4 * rho):
        assert fate.eigenvalue[0] == 0
        return
    # ṗ = α_p s(τ − ρp) − λp and ṡ = 2ps(τ − ρp) − 2λs vanish (T 11-12).
    growth = lambda p: p * (size - rho * p) - decay  # noqa: E731
    peak = size / (2 * rho)
    outer, inner = (float(brentq(growth, *ends)) for ends in ((peak, size / rho), (0, peak)))  # type: ignore[arg-type]
    assert float(fate.eigenvalue[0]) == pytest.approx(outer**2 / ratio, rel=1e-6)
    assert float(fate.inner[0]) == pytest.approx(inner**2 / ratio, rel=1e-5, abs=1e-9)
    h = 1e-6 * outer
    slope = ((outer + h) * growth(outer + h) - (outer - h) * growth(outer - h)) / (2 * h)
    assert float(fate.rate[0]) == pytest.approx(-slope, rel=1e-4, abs=1e-7)


def test_the_settled_spectrum_is_a_stable_equilibrium_of_the_census():
    moments = Moments([[1.0, 0.1], [0.1, 1.5]], [[0.8, 0.05], [-0.02, 0.9]])
    modes = modes_of(moments)
    for ratio in (1.0, 2.0):
        system = StopGradient(0.05, ratio)
        fates = mode_fates(modes.rho, modes.tau, 0.05, ratio)
        values, _ = settled_spectrum(system, moments, fates, modes.axes, n=3, t1=1000.0)
        stable = [each for each in equilibria(system, moments) if each.verdict == 0 and each.rank == 2]
        np.testing.assert_allclose(values, np.linalg.eigvalsh(stable[0].gram)[::-1], rtol=1e-6)
