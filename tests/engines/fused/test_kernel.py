"""The loop around a step: lanes, threads, order, records, limits, and the cache on disk."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdyn as jd
from jaxdyn.engines import ENGINES
from jaxdyn.engines.fused import engine, kernel, native
from jaxdyn.engines.fused.engine import run


def step(x, p):
    a, b = x
    return jnp.tanh(p @ a) + 0.1 * jnp.sin(b), b * jnp.exp(-0.01 * jnp.sum(a**2))


def settled(old, new, p):
    return jnp.sqrt(jnp.sum((new[0] - old[0]) ** 2)) < 1e-9


def batch(n=400):
    rng = np.random.default_rng(1)
    return (rng.normal(size=(n, 3)), rng.normal(size=n)), rng.normal(size=(n, 3, 3))


def assert_equal(have, want):
    for a, b in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("done", [settled, None], ids=["until done", "fixed length"])
def test_bits_do_not_depend_on_lanes_threads_or_order(done):
    start, params = batch()
    want = run(step, done, start, params, 2003, threads=1, lanes=8)
    assert len(set(want.steps)) == (1 if done is None else len(set(want.steps)))
    order = np.random.default_rng(2).permutation(400)
    assert_equal(run(step, done, start, params, 2003, order=order), want)
    for lanes, threads in ((1, 1), (4, 2), (32, 1), (16, 3)):
        assert_equal(run(step, done, start, params, 2003, lanes=lanes, threads=threads), want)


def test_long_steps_take_one_register_a_value():
    """Several hide the latency of short steps; of long ones they only make LLVM take four times as long."""
    own, lanes = native.features(), []
    for times in (1, 300):
        many = lambda x, p, times=times: jax.lax.fori_loop(0, times, lambda i, z: jnp.sin(z) + p, x)  # noqa: E731
        program = engine._traced(many, None, None, np.ones(3, np.float32), np.ones(3, np.float32))
        lanes.append(kernel.build(program, None, own).lanes)
    assert lanes == [8 * own.width, 2 * own.width]
    # Nor do the bits depend on it.
    start = np.linspace(-2, 2, 12, dtype=np.float32).reshape(4, 3)
    chosen, wide = (run(many, None, start, np.ones_like(start), 5, lanes=each) for each in (None, 4 * own.width))
    assert_equal(chosen.states, wide.states)


def test_loops_and_straight_code_agree(monkeypatch):
    start, params = batch(50)
    product = lambda x, p: (jnp.tanh(p @ x[0]), 0.5 * x[1] + (x[0] @ p) @ x[0])  # noqa: E731
    want = run(product, None, start, params, 100)
    monkeypatch.setattr(kernel, "_STRAIGHT", 0)
    monkeypatch.setattr(kernel, "_STRAIGHT_IF_SMALL", 0)
    loops = lambda x, p: product(x, p)  # noqa: E731  (another function: not the cached program)
    np.testing.assert_allclose(run(loops, None, start, params, 100).states[1], want.states[1], rtol=1e-13)


@pytest.mark.parametrize("limit", [1, 15, 16, 17, 33, 4096, 4100])
def test_fixed_lengths_are_exact_and_divergence_is_found_within_them(limit):
    grow = lambda x, p: x * p  # noqa: E731
    factor = np.array([1.0, 1.5, 1e10, 1e200, -1.0])
    finished = run(grow, None, np.ones(5), factor, limit)
    with np.errstate(over="ignore"):
        powers = [np.concatenate([[1.0], np.cumprod(np.full(limit, f))]) for f in factor]
    last = [np.flatnonzero(np.isfinite(row)).max() for row in powers]
    np.testing.assert_array_equal(finished.steps, last)
    np.testing.assert_array_equal(finished.status == jd.Status.DIVERGED, np.array(last) < limit)
    np.testing.assert_allclose(finished.states, [row[k] for row, k in zip(powers, last, strict=True)], rtol=1e-12)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
@pytest.mark.parametrize("loops", [False, True])
def test_records_are_taken_when_they_are_due(engine, loops, monkeypatch):
    if loops:
        monkeypatch.setattr(kernel, "_STRAIGHT", 0)
        monkeypatch.setattr(kernel, "_STRAIGHT_IF_SMALL", 0)

    def advance(state, speed):
        return state + speed

    def record(previous, state, speed, when):
        return when <= state, {"at": when, "between": (previous, state), "speed": speed > 1}

    speed = np.array([0.5, 1.0, 3.0, 7.0])
    times = np.array([0.25, 1.0, 2.0, 2.5, 9.0])
    stop = lambda old, new, p: new >= 8  # noqa: E731
    finished = engine(advance, stop, np.zeros(4), speed, 1000, record=record, times=times)
    np.testing.assert_array_equal(finished.n_saved, [4, 4, 5, 5])
    np.testing.assert_array_equal(finished.saved["at"][2], times)
    for trial, count in enumerate(finished.n_saved):
        before, after = (values[trial, :count] for values in finished.saved["between"])
        assert (before < times[:count]).all()
        assert (after >= times[:count]).all()
        np.testing.assert_array_equal(after - before, speed[trial])
        assert (finished.saved["speed"][trial, :count] == (speed[trial] > 1)).all()
        np.testing.assert_array_equal(finished.saved["at"][trial, count:], 0)


def test_the_program_on_arrays_ends_every_trial_as_the_kernel_does():
    start, params = batch(70)
    start[0][3] = np.nan
    want, have = (run(step, settled, start, params, 500, backend=name) for name in ("native", "xla"))
    np.testing.assert_array_equal(have.status, want.status)
    assert set(want.status) == {jd.Status.CONVERGED, jd.Status.OUT_OF_STEPS, jd.Status.DIVERGED}
    same = want.status != jd.Status.OUT_OF_STEPS  # those wander
    assert np.abs(have.steps - want.steps)[same].max() <= 1  # rounding at the threshold
    np.testing.assert_allclose(have.states[0][same], want.states[0][same], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
def test_a_record_that_is_always_due_ends_with_the_times(engine):
    always = lambda old, new, p, when: (True, new)  # noqa: E731
    finished = engine(lambda x, p: x + 1, None, np.zeros(3), np.zeros(3), 5, record=always, times=np.array([1.0, 2.0]))
    np.testing.assert_array_equal(finished.saved, np.ones((3, 2)))
    np.testing.assert_array_equal(finished.n_saved, 2)


@pytest.mark.parametrize("loops", [False, True])
def test_empty_arrays_and_single_numbers_may_be_in_a_state(loops, monkeypatch):
    if loops:
        monkeypatch.setattr(kernel, "_STRAIGHT", 0)
        monkeypatch.setattr(kernel, "_STRAIGHT_IF_SMALL", 0)
    start = {"none": np.zeros((3, 0)), "one": np.ones(3), "flag": np.array([True, False, True]), "k": np.arange(3)}
    move = lambda s, p: {"none": s["none"], "one": s["one"] * p, "flag": ~s["flag"], "k": s["k"] + 1}  # noqa: E731
    end = run(move, None, start, np.array([1.0, 2.0, 3.0]), 3).states
    assert end["none"].shape == (3, 0)
    np.testing.assert_array_equal(end["one"], [1.0, 8.0, 27.0])
    np.testing.assert_array_equal(end["flag"], [False, True, False])
    np.testing.assert_array_equal(end["k"], [3, 4, 5])


def test_orders_must_be_permutations():
    with pytest.raises(ValueError, match="order: expected a permutation of 3 trials"):
        run(lambda x, p: x, None, np.ones(3), np.ones(3), 1, order=np.array([0, 0, 1]))
    with pytest.raises(ValueError, match="backend: expected one of native, xla"):
        run(lambda x, p: x, None, np.ones(3), np.ones(3), 1, backend="cuda")
    with pytest.raises(ValueError, match="lanes: expected a power of two"):
        run(lambda x, p: x, None, np.ones(3), np.ones(3), 1, lanes=3)


def test_parameters_may_be_shared_views():
    """A number for all trials need not be copied for each; a transposed array is read right."""
    matrix = np.arange(12.0).reshape(3, 4)
    shared = np.broadcast_to(2.0, (4,))
    end = run(lambda x, p: x + p[0] @ jnp.ones(3) + p[1], None, np.zeros(4), (matrix.T, shared), 1).states
    np.testing.assert_allclose(end, matrix.sum(0) + 2)
    for array in (matrix[::-1], np.asfortranarray(matrix), matrix.astype(">f8")):
        end = run(lambda x, p: x + p @ jnp.arange(4.0), None, np.zeros(3), array, 1).states
        np.testing.assert_allclose(end, np.asarray(array, float) @ np.arange(4.0))


def test_a_progress_function_that_fails_stops_the_run():
    def fail(count):
        raise RuntimeError("enough")

    slow = lambda old, new, p: new > p  # noqa: E731
    began = time.perf_counter()
    with pytest.raises(RuntimeError, match="enough"):
        run(lambda x, p: x + 1, slow, np.zeros(64), np.array([1.0] + [2e9] * 63), 2_000_000_000, progress=fail)
    assert time.perf_counter() - began < 20  # not the minutes that the trials would take
    np.testing.assert_array_equal(
        run(lambda x, p: x + 1, None, np.zeros(3), np.zeros(3), 4).states, 4
    )  # threads are free


def test_machine_code_is_kept_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDYN_CACHE_DIR", str(tmp_path / "new"))
    end = run(lambda x, p: x * 1.25 + p, None, np.ones(3), np.ones(3), 3).states
    (stored,) = (tmp_path / "new" / "kernels").iterdir()
    code = stored.read_bytes()
    compiled = []
    monkeypatch.setattr(native, "_optimise", lambda *_: compiled.append(1))
    from jaxdyn.engines.fused import engine

    for damage in (code, b"not machine code"):
        stored.write_bytes(damage)
        engine._KERNELS.clear()
        again = run(lambda x, p: x * 1.25 + p, None, np.ones(3), np.ones(3), 3).states
        np.testing.assert_array_equal(again, end)
    assert len(compiled) == 1  # the damaged file was not believed
    engine._KERNELS.clear()
    for folder in ("", "/proc/nowhere"):  # no cache; one that cannot be written
        monkeypatch.setenv("JAXDYN_CACHE_DIR", folder)
        engine._KERNELS.clear()
        np.testing.assert_array_equal(run(lambda x, p: x * 1.25 + p, None, np.ones(3), np.ones(3), 3).states, end)
