"""What must hold of every registered system, whatever it computes."""

from typing import Any

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from registry import EXAMPLES, moments, reduced
from scipy.integrate import solve_ivp

import jaxdyn as jd
from jaxdyn.analysis.linearise import jacobian


def systems() -> dict[str, Any]:
    with jax.enable_x64(True):
        return {name: (e.system, e.state(3, 2), moments(2)) for name, e in EXAMPLES.items()} | reduced()


NAMES = list(systems())


@pytest.mark.parametrize("name", NAMES)
def test_jacobians_match_finite_differences(name):
    system, state, data = systems()[name]
    flat, unravel = ravel_pytree(state)
    field = jax.jit(lambda y: ravel_pytree(system.field(0.0, unravel(y), data))[0])
    h = 1e-5
    columns = [(field(flat.at[i].add(h)) - field(flat.at[i].add(-h))) / (2 * h) for i in range(flat.size)]
    # Central differences: error h² times a third derivative of order ten, and rounding over h.
    np.testing.assert_allclose(jacobian(system, state, data), np.stack(columns, 1), atol=1e-7)


FLOWS = [
    "AsymmetricEigenspace-EMA", "SymmetricEigenspace-tied", "Modes-EMA", "Parabola-EMA", "ScalarNetwork",
    "EigenvalueFlow-stop_gradient", "SelfPredictive",
]  # fmt: skip


@pytest.mark.parametrize("name", FLOWS)  # one of each kind: every one is compiled
def test_flows_match_scipys_integrator(name):
    """The field is the library's, the integrator is not; the fields have oracles of their own."""
    system, state, data = systems()[name]
    flat, unravel = ravel_pytree(state)
    field = jax.jit(lambda y: ravel_pytree(system.field(0.0, unravel(y), data))[0])
    want = solve_ivp(lambda t, y: np.asarray(field(y)), (0, 3.0), np.asarray(flat), rtol=1e-10, atol=1e-12)
    have = jd.flow(system, state, data, t1=3.0)
    assert int(have.status) == jd.Status.COMPLETED
    np.testing.assert_allclose(ravel_pytree(have.final)[0], want.y[:, -1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_systems_batch_under_vmap(name):
    system, state, data = systems()[name]
    stack = lambda leaf: np.stack([leaf, 0.9 * leaf])  # noqa: E731
    batch = jax.vmap(lambda s: system.field(0.0, s, data))(jax.tree.map(stack, state))
    for part, one in zip(jax.tree.leaves(batch), jax.tree.leaves(system.field(0.0, state, data)), strict=True):
        np.testing.assert_allclose(part[0], one, rtol=1e-9, atol=1e-12)
