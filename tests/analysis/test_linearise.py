import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from registry import EXAMPLES, SHAPES

import jaxdyn as jd
from jaxdyn.analysis.linearise import Verdict, jacobian, linearise
from jaxdyn.analysis.symmetry import rotate
from jaxdyn.systems.siamese import rotation_directions


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=list(EXAMPLES))
@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_rotation_directions_are_derivatives_of_rotations(example, n, m):
    state = example.state(n, m)
    directions = rotation_directions(state)
    assert directions.encoder.shape == (n * (n - 1) // 2, n, m)
    rows, columns = np.triu_indices(n, 1)
    h = 1e-6
    for k, (i, j) in enumerate(zip(rows, columns, strict=True)):
        turn = np.eye(n)
        turn[[i, i, j, j], [i, j, i, j]] = np.cos(h), np.sin(h), -np.sin(h), np.cos(h)
        forward, back = rotate(jnp.asarray(turn), state), rotate(jnp.asarray(turn.T), state)
        for plus, minus, have in zip(forward, back, directions, strict=True):
            np.testing.assert_allclose(have[k], (plus - minus) / (2 * h), atol=1e-8)


def diagonal_equilibrium(choice, n, decay):
    """An equilibrium for X = diag(1, 1.5), Y = diag(0.8, 0.9): modes decouple into copies of m = 1."""
    x, y = np.array([1.0, 1.5]), np.array([0.8, 0.9])
    root = np.sqrt(y**2 - 4 * x * decay)
    radius = np.select(
        [np.array(choice) == 2, np.array(choice) == 1], [(y + root) / (2 * x), (y - root) / (2 * x)], 0.0
    )
    a, b = np.zeros((n, 2)), np.zeros((n, n))
    a[[0, 1], [0, 1]], b[[0, 1], [0, 1]] = radius, radius
    return a, b, jd.Moments(np.diag(x), np.diag(y), np.diag(x))


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("choice", [(2, 2), (2, 1), (1, 2), (1, 1), (2, 0), (0, 2), (1, 0), (0, 0)])
def test_orbits_of_decoupled_modes(n, choice):
    decay = 0.05
    a, b, moments = diagonal_equilibrium(choice, n, decay)
    system = jd.StopGradient(decay)
    result = linearise(system, system.state(encoder=a, predictor=b), moments)
    assert float(result.residual) < 1e-14
    rank = sum(part > 0 for part in choice)
    assert int(result.orbit_dim) == n * (n - 1) // 2 - (n - rank) * (n - rank - 1) // 2
    assert int(result.nullity) == int(result.orbit_dim)
    # Each inner mode brings at least its own unstable direction; without one, none is there on the diagonal.
    inner = sum(part == 1 for part in choice)
    assert (int(result.n_unstable) >= inner) if inner else (int(result.verdict) in (Verdict.STABLE, Verdict.SADDLE))
    # The count of unstable directions is that of the full Jacobian, whose orbit directions are null.
    j = np.asarray(jacobian(system, system.state(encoder=a, predictor=b), moments))
    assert int((np.linalg.eigvals(j).real > 1e-7).sum()) == int(result.n_unstable)


@pytest.mark.parametrize("choice", [(2, 2), (2, 1)])
def test_verdicts_agree_with_perturbed_flows(choice):
    decay, n = 0.05, 3
    a, b, moments = diagonal_equilibrium(choice, n, decay)
    system = jd.StopGradient(decay)
    state = system.state(encoder=a, predictor=b)
    stable = int(linearise(system, state, moments).verdict) == Verdict.STABLE
    gram = a.T @ a

    def end(key):
        flat, unravel = ravel_pytree(state)
        nudged = unravel(flat + 1e-4 * jax.random.normal(key, flat.shape))
        final = jd.flow(system, nudged, moments, t1=400.0).final.encoder
        return jnp.linalg.norm(final.T @ final - gram)

    distance = np.asarray(jax.vmap(end)(jax.random.split(jax.random.key(0), 20)))
    assert (distance < 1e-6).all() if stable else (distance > 1e-3).all()


def test_a_repeller_is_named():
    grow = lambda t, s, d: jax.tree.map(lambda leaf: leaf, s)  # noqa: E731
    system = jd.StopGradient(0.0)
    zero = system.state(encoder=np.zeros((2, 1)), predictor=np.zeros((2, 2)))
    assert int(linearise(grow, zero, jd.Moments.scalar(1.0, 1.0)).verdict) == Verdict.REPELLER


def test_a_users_system_means_what_it_means_now():
    """The same object and the same function with changed numbers inside; a symmetry that is declared later."""

    class Spring:
        rate = -1.0

        def field(self, t, state, data):
            return self.rate * state

    spring, state = Spring(), jnp.zeros(2)
    assert int(jd.linearise(spring, state, None).verdict) == jd.Verdict.STABLE
    spring.rate = 2.0
    assert int(jd.linearise(spring, state, None).verdict) == jd.Verdict.REPELLER
    spring.rate = 0.0
    assert int(jd.linearise(spring, state, None).verdict) == jd.Verdict.UNDETERMINED

    @dataclasses.dataclass
    class Unhashable:
        rate: float

        def field(self, t, state, data):
            return self.rate * state

    for rate, verdict in ((-1.0, jd.Verdict.STABLE), (1.0, jd.Verdict.REPELLER)):
        assert int(jd.linearise(Unhashable(rate), state, None).verdict) == verdict
    factor = [-1.0]
    grow = lambda state, data, lr: state * (1 + lr * factor[0])  # noqa: E731
    assert int(jd.linearise(grow, state, None, lr=0.1).verdict) == jd.Verdict.STABLE
    factor[0] = 1.0
    assert int(jd.linearise(grow, state, None, lr=0.1).verdict) == jd.Verdict.REPELLER
