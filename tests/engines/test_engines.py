"""The engine contract, over every registered engine."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdyn as jd
from jaxdyn import names
from jaxdyn.engines import ENGINES
from jaxdyn.solve.flow import SOLVERS

every_engine = pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))


def countdown(state, params):
    return {"left": state["left"] - 1, "sum": state["sum"] + params}


def at_zero(previous, state, params):
    return state["left"] <= 0


@every_engine
def test_each_trial_stops_by_itself(engine):
    rng = np.random.default_rng(0)
    # Lengths through every stage of a trial's life, most of them short.
    length = np.concatenate([rng.integers(1, 3000, 1500), rng.integers(1, 40_000, 40), [140_000, 1]])
    weight = rng.normal(size=length.size)
    start = {"left": length.astype(np.int32), "sum": np.zeros(length.size)}
    seen = []
    end, steps, status, *_ = engine(countdown, at_zero, start, weight, 200_000, progress=seen.append)
    np.testing.assert_array_equal(steps, length)
    assert (status == jd.Status.CONVERGED).all()
    np.testing.assert_array_equal(end["left"], 0)
    np.testing.assert_allclose(end["sum"], length * weight, rtol=1e-9)
    assert sum(seen) == length.size
    np.testing.assert_array_equal(start["left"], length)  # the caller's arrays are not written to


@every_engine
@pytest.mark.parametrize("max_steps", [1, 777, 20_000])
def test_step_limits_are_exact(engine, max_steps):
    length = np.array([1, max_steps, max_steps + 1, 10 * max_steps], np.int32)
    end, steps, status, *_ = engine(countdown, at_zero, {"left": length, "sum": np.zeros(4)}, np.ones(4), max_steps)
    np.testing.assert_array_equal(steps, np.minimum(length, max_steps))
    want = [jd.Status.CONVERGED, jd.Status.CONVERGED, jd.Status.OUT_OF_STEPS, jd.Status.OUT_OF_STEPS]
    np.testing.assert_array_equal(status, want)
    np.testing.assert_array_equal(end["left"], length - steps)


@every_engine
def test_a_diverging_trial_keeps_its_last_finite_state_and_harms_no_other(engine):
    square = lambda x, _: x**2  # noqa: E731
    settled = lambda old, new, _: jnp.abs(new - old) < 1e-12  # noqa: E731
    end, steps, status, *_ = engine(square, settled, np.array([10.0, 0.5, np.nan]), np.zeros(3), 10_000)
    np.testing.assert_array_equal(status, [jd.Status.DIVERGED, jd.Status.CONVERGED, jd.Status.DIVERGED])
    assert end[0] == pytest.approx(1e256)
    assert steps[0] == 8
    assert end[1] < 1e-12


@every_engine
def test_bits_do_not_depend_on_the_company(engine):
    def step(x, p):
        a, b = x
        return jnp.tanh(p @ a) + 0.1 * jnp.sin(b), b * jnp.exp(-0.01 * jnp.sum(a**2))

    def settled(old, new, p):
        return jnp.sqrt(jnp.sum((new[0] - old[0]) ** 2)) < 1e-9

    rng = np.random.default_rng(1)
    n = 1300
    start = (rng.normal(size=(n, 3)), rng.normal(size=n))
    params = rng.normal(size=(n, 3, 3))
    whole = engine(step, settled, start, params, 30_000)
    order = rng.permutation(n)
    for devices in (None, jax.devices(), jax.devices()[2:3]):
        take = lambda tree: jax.tree.map(lambda leaf: leaf[order], tree)  # noqa: E731
        again = engine(step, settled, take(start), take(params), 30_000, devices=devices)
        for have, want in zip(jax.tree.leaves(again), jax.tree.leaves(whole), strict=True):
            np.testing.assert_array_equal(have, want[order])
    few = engine(step, settled, jax.tree.map(lambda leaf: leaf[:5], start), params[:5], 30_000)
    np.testing.assert_array_equal(few.states[0], whole.states[0][:5])


@every_engine
def test_precision_follows_the_caller(engine):
    settled = lambda old, new, p: new > 2  # noqa: E731
    with jax.enable_x64(False):
        end = engine(lambda x, p: x + p, settled, np.zeros(3), np.ones(3), 10).states
    assert end.dtype == np.float32
    assert engine(lambda x, p: x + p, settled, np.zeros(3), np.ones(3), 10).states.dtype == np.float64


@every_engine
def test_settings_of_jax_are_the_callers(engine):
    """In the engine's threads as well, and whatever was compiled for the same step before."""
    step = lambda x, p: x + jax.random.uniform(jax.random.key(3), (5,)).sum()  # noqa: E731
    ends = []
    for on in (True, False):
        with jax.threefry_partitionable(on):
            ends.append(engine(step, None, np.zeros(3), np.zeros(3), 1).states)
            np.testing.assert_allclose(ends[-1], float(step(0.0, None)), rtol=1e-15)
    assert (ends[0] != ends[1]).all()


@every_engine
def test_bad_arguments_are_named(engine):
    with pytest.raises(ValueError, match="states, params: expected one leading axis"):
        engine(countdown, at_zero, {"left": np.ones(3), "sum": np.ones(2)}, np.ones(3), 10)
    with pytest.raises(ValueError, match="states, params"):
        engine(countdown, at_zero, {"left": np.ones(3), "sum": np.ones(3)}, 1.0, 10)
    for option in ({"max_steps": 0}, {"max_steps": 2**40}):
        with pytest.raises(ValueError, match="expected a whole number"):
            engine(countdown, at_zero, {"left": np.ones(3, int), "sum": np.ones(3)}, np.ones(3), **option)


@every_engine
def test_an_error_in_a_step_reaches_the_caller(engine):
    def broken(x, p):
        raise RuntimeError("no such step")

    with pytest.raises(RuntimeError, match="no such step"):
        engine(broken, lambda old, new, p: True, np.ones(3), np.ones(3), 10)


@every_engine
def test_unhashable_steps_run_too(engine):
    class Adder(eqx.Module):
        amount: jax.Array

        def step(self, x, p):
            return x + self.amount

    finished = engine(Adder(jnp.ones(())).step, lambda old, new, p: new > 2.5, np.zeros(3), np.ones(3), 10)
    np.testing.assert_array_equal(finished.states, 3.0)


def test_names_agree_with_registries():
    assert {"auto", *ENGINES} == set(names.ENGINES)
    assert tuple(SOLVERS) == names.SOLVERS


def test_steps_with_linear_algebra_calls_finish():
    """LAPACK calls of two engine threads wait for each other in XLA's thread pool: such steps get one thread."""
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=(1500, 7, 7)) + 1j * rng.normal(size=(1500, 7, 7)) + 20 * np.eye(7)

    def step(x, matrix):
        return jnp.linalg.solve(matrix, x) + 1

    still = lambda old, new, matrix: jnp.abs(new - old).max() < 1e-12  # noqa: E731
    finished = ENGINES["xla"](step, still, np.zeros((1500, 7), complex), matrices, 500)
    assert (finished.status == jd.Status.CONVERGED).all()
    want = np.linalg.solve(np.eye(7) - np.linalg.inv(matrices), np.ones((1500, 7, 1)))[..., 0]
    np.testing.assert_allclose(finished.states, want, rtol=1e-9)
