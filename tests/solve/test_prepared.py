"""Prepared ensembles: what they return is what the ensemble returns, to the bit."""

import signal
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd
from jaxdyn.engines.fused import engine as fused
from jaxdyn.solve.prepared import Prepared
from jaxdyn.systems.siamese import StudentState

RNG = np.random.default_rng(0)
PARTS: Any = RNG.normal(size=(10, 3, 2)) * 0.3, RNG.normal(size=(10, 3, 3)) * 0.3
START = StudentState(*PARTS)
MOMENTS = jd.Moments(np.eye(2) * 1.3, np.eye(2) * 0.9)
decay = lambda t, y, rate: -rate * y  # noqa: E731


def assert_same(have, want):
    assert jax.tree.structure(have) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.asarray(a).dtype == np.asarray(b).dtype


def half(leaf):
    return leaf[:5] * 0.7


CASES = {
    "flow": (jd.flow_ensemble, jd.StopGradient(0.1), {"t1": 3.0}),
    "flow at times": (jd.flow_ensemble, jd.StopGradient(0.1), {"t1": 3.0, "ts": [0.0, 1.0, 2.5]}),
    "stiff flow": (jd.flow_ensemble, jd.StopGradient(0.1), {"t1": 3.0, "solver": "rodas5p", "until": jd.Rest(1e-3)}),
    "fixed flow": (jd.flow_ensemble, jd.StopGradient(0.1), {"t1": 3.0, "solver": "rk4", "dt": 0.1}),
    "under xla": (jd.flow_ensemble, jd.StopGradient(0.1), {"t1": 3.0, "engine": "xla"}),
    "descent": (jd.descend_ensemble, jd.StopGradient(0.1), {"lr": 0.05, "steps": 30}),
    "descent at times": (jd.descend_ensemble, jd.StopGradient(0.1), {"lr": 0.05, "steps": 30, "save_every": 7}),
    "with an optimizer": (jd.descend_ensemble, jd.StopGradient(0.1), {"lr": 0.05, "steps": 9, "optimizer": optax.adam}),
    "with a schedule": (
        jd.descend_ensemble,
        jd.StopGradient(0.1),
        {"lr": jd.Schedule(lambda k, a: a / (1 + k), 0.1), "steps": 30},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_calls_are_the_ensembles(name):
    ensemble, system, options = CASES[name]
    prepared = jd.prepare(ensemble, system, START, MOMENTS, **options)
    assert_same(prepared(), ensemble(system, START, MOMENTS, **options))
    fewer = jax.tree.map(half, START)
    other = jd.Moments(np.eye(2) * 1.1, np.eye(2) * 0.5)
    assert_same(prepared(fewer), ensemble(system, fewer, MOMENTS, **options))
    assert_same(prepared(fewer, other), ensemble(system, fewer, other, **options))
    assert_same(prepared(data=other), ensemble(system, START, other, **options))
    assert_same(prepared(), ensemble(system, START, MOMENTS, **options))


def test_many_trials_and_long_ones():
    """Beyond what is run in the caller's thread."""
    starts, rates = RNG.normal(size=(5000, 2)), RNG.uniform(0.1, 50, 5000)
    options = {"t1": 40.0, "in_axes": (None, 0, 0)}
    prepared = jd.prepare(jd.flow_ensemble, decay, starts[:3], rates[:3], **options)
    assert_same(prepared(starts, rates), jd.flow_ensemble(decay, starts, rates, **options))


def test_steps_that_are_tried_here_do_not_count_twice(monkeypatch):
    starts = RNG.normal(size=(3, 2))
    want = jd.flow_ensemble(decay, starts, 1.0, t1=40.0)
    for lines in (1_000_000, 10**12):
        monkeypatch.setattr(fused, "_HERE", lines)
        assert_same(jd.flow_ensemble(decay, starts, 1.0, t1=40.0), want)
    assert want.n_steps.min() > fused._TRIED


def test_precision_is_the_states():
    single = np.ones(3, np.float32)
    prepared = jd.prepare(jd.flow_ensemble, decay, single, 1.0, t1=1.0)
    assert prepared(np.ones(4)).final.dtype == np.float32
    assert jd.prepare(jd.flow_ensemble, decay, np.ones(3), 1.0, t1=1.0)(single).final.dtype == np.float64


def test_starts_given_are_not_changed():
    start = np.ones(3)
    prepared = jd.prepare(jd.flow_ensemble, decay, start, 1.0, t1=1.0)
    ends = prepared(start).final
    assert start.tolist() == [1.0] * 3
    assert ends.tolist() != start.tolist()
    prepared(np.zeros(3))
    assert ends[0] == pytest.approx(np.exp(-1))


BAD = {
    "shape": ((np.ones((3, 3)),), "states: expected float64\\[2\\] of each trial as prepared, got float64\\[3, 3\\]"),
    "structure": (((np.ones((3, 2)),),), "states: expected what was prepared"),
    "text": ((np.array([["a", "b"]]),), "states: expected float64"),
    "none": ((np.ones((0, 2)),), "states: expected at least one trial"),
    "one trial": ((np.ones(2),), "states: expected float64"),
    "data": ((np.ones((3, 2)), np.ones(4)), "data: expected float64\\[\\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_as_prepared_is_refused(name):
    arguments, told = BAD[name]
    prepared = jd.prepare(jd.flow_ensemble, decay, np.ones((3, 2)), 1.0, t1=1.0)
    with pytest.raises(ValueError, match=told):
        prepared(*arguments)


def test_what_is_each_trials_own_must_be_for_as_many():
    prepared = jd.prepare(
        jd.flow_ensemble, decay, np.ones(3), np.ones(3), t1=np.array([1.0, 2.0, 3.0]), in_axes=(None, 0, 0)
    )
    with pytest.raises(ValueError, match=r"expected one number of trials .* 2 in states, 3 in data"):
        prepared(np.ones(2))
    with pytest.raises(ValueError, match="t1: prepared with a number for each of 3 trials, got 2 trials"):
        prepared(np.ones(2), np.ones(2))
    ordered = jd.prepare(jd.flow_ensemble, decay, np.ones(3), 1.0, t1=1.0, longest_first=np.arange(3))
    with pytest.raises(ValueError, match="longest_first: there is one for each of 3 trials, got 2"):
        ordered(np.ones(2))


OWN = {
    "t1": (jd.flow_ensemble, {"t1": [1.0]}),
    "dt": (jd.flow_ensemble, {"t1": 1.0, "dt": np.array([0.1])}),
    "lr": (jd.descend_ensemble, {"steps": 3, "lr": np.array([0.1])}),
    "lr of a schedule": (jd.descend_ensemble, {"steps": 3, "lr": jd.Schedule(lambda k, a: a / (1 + k), np.ones(1))}),
}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("equal", [False, True])
def test_what_one_trial_has_of_its_own_is_not_other_trials(name, equal):
    """Prepared with one trial, or with several that are alike, it looks as if all shared it."""
    ensemble, options = OWN[name]
    if equal:
        options = jax.tree.map(lambda leaf: np.repeat(leaf, 2) if np.ndim(leaf) else leaf, options | {"t1": np.ones(1)}
                               if name == "t1" else options)  # fmt: skip
    step = (lambda s, d, lr: s - lr * s) if ensemble is jd.descend_ensemble else decay
    prepared = jd.prepare(ensemble, step, np.ones(2 if equal else 1), 1.0, **options)
    prepared(np.zeros(2 if equal else 1))
    with pytest.raises(ValueError, match=f"{name.split()[0]}: prepared with a number for each of [12] trials, got 3"):
        prepared(np.ones(3))


@pytest.mark.parametrize("n", [1, 2])
def test_data_of_each_trial_is_not_other_trials(n):
    prepared = jd.prepare(jd.flow_ensemble, decay, np.ones(n), np.ones(n), t1=1.0, in_axes=(None, 0, 0))
    with pytest.raises(ValueError, match=f"expected one number of trials .* 3 in states, {n} in data"):
        prepared(np.ones(3))
    with pytest.raises(ValueError, match=f"expected one number of trials .* {n} in states, 3 in data"):
        prepared(data=np.ones(3))
    own = jax.tree.map(lambda leaf: np.full(n, leaf), jd.StopGradient(0.1))
    prepared = jd.prepare(jd.flow_ensemble, own, jax.tree.map(lambda leaf: leaf[:n], START), MOMENTS,
                          t1=1.0, in_axes=(0, 0, None))  # fmt: skip
    with pytest.raises(ValueError, match=f"expected one number of trials .* {n} in system, 10 in states"):
        prepared(START)


def test_a_start_that_all_share_is_given_as_one():
    rates = np.array([0.5, 1.0, 2.0])
    options = {"t1": 1.0, "in_axes": (None, None, 0)}
    prepared = jd.prepare(jd.flow_ensemble, decay, 2.0, rates, **options)
    assert_same(prepared(3.0, rates[:2]), jd.flow_ensemble(decay, 3.0, rates[:2], **options))
    assert_same(prepared(data=rates[1:]), jd.flow_ensemble(decay, 2.0, rates[1:], **options))
    with pytest.raises(ValueError, match=r"states: expected float64\[\] of all trials as prepared"):
        prepared(np.ones(3))


def test_nothing_is_solved_before_it_is_asked_for(monkeypatch):
    """Preparing compiles, and takes one step."""
    limits, ended = [], Prepared._ended
    monkeypatch.setattr(Prepared, "_ended", lambda self, run, limit: limits.append(limit) or ended(self, run, limit))
    prepared = jd.prepare(jd.descend_ensemble, lambda s, d, lr: s + lr, np.ones(3), None, lr=1.0, steps=2_000_000)
    assert limits == [1]
    assert prepared().final.tolist() == [2_000_001.0] * 3


@pytest.mark.parametrize("engine", ["xla", "fused"])
def test_settings_of_jax_are_those_of_the_preparation(engine):
    step = lambda s, d, lr: s + jax.random.uniform(jax.random.key(3), (5,)).sum()  # noqa: E731
    arguments = (jd.descend_ensemble, step, np.zeros(3), None)
    with jax.threefry_partitionable(False):
        prepared = jd.prepare(*arguments, lr=1.0, steps=1, engine=engine)
        before = prepared()
    with jax.threefry_partitionable(True):
        assert_same(prepared(), before)
        assert (jd.descend_ensemble(*arguments[1:], lr=1.0, steps=1, engine=engine).final != before.final).all()


def test_options_that_do_not_apply_are_refused():
    with pytest.raises(ValueError, match="ensemble: expected flow_ensemble or descend_ensemble"):
        jd.prepare(jd.flow, decay, np.ones(3), 1.0, t1=1.0)
    for name, value in (("progress", True), ("save", lambda t, y, d: y)):
        with pytest.raises(ValueError, match=f"{name}: not for a prepared ensemble"):
            jd.prepare(jd.flow_ensemble, decay, np.ones(3), 1.0, t1=1.0, **{name: value})
    with pytest.raises(ValueError, match="solver: expected one of"):
        jd.prepare(jd.flow_ensemble, decay, np.ones(3), 1.0, t1=1.0, solver="euler")


def test_several_threads_share_one():
    prepared = jd.prepare(jd.flow_ensemble, decay, np.ones(300), 1.0, t1=3.0)
    want, seen_by = prepared().final, []
    call = lambda: seen_by.extend((prepared().final == want).all() for _ in range(20))  # noqa: E731
    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen_by == [True] * 80


@pytest.mark.parametrize("form", ["while", "long"])
def test_a_step_that_never_ends_can_be_stopped(form):
    """A loop inside a step looks at the stop; a run of many steps is not in the caller's thread."""
    if form == "while":
        on = lambda c: (c[1] != 2.0) & (c[0] < 2**31 - 9)  # noqa: E731  # a minute, should nothing stop it
        move = lambda c: (c[0] + 1, jnp.sin(c[1]))  # noqa: E731
        step = lambda s, d, lr: jax.lax.while_loop(on, move, (0 * s.astype(np.int32), s))[1]  # noqa: E731
        start, options = 2.0, {"steps": 3}
    else:
        step, start = (lambda s, d, lr: jnp.sin(s)), 0.0
        options = {"steps": 2**31 - 2**21, "until": lambda taken, state, data: state == 0}
    prepared = jd.prepare(jd.descend_ensemble, step, np.full(1, start), None, lr=1.0, **options)
    begin = time.perf_counter()
    caller, handler = threading.get_ident(), signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(1.0, lambda: signal.pthread_kill(caller, signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            prepared(np.full(1, 0.5))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert time.perf_counter() - begin < 30


def test_what_was_given_may_change_later():
    start, rates = np.array([1.0, 2.0, 3.0]), np.array([0.5, 1.0, 2.0])
    prepared = jd.prepare(jd.flow_ensemble, decay, start, rates, t1=1.0, in_axes=(None, 0, 0))
    before = prepared()
    start[:], rates[:] = 5, 7
    assert_same(prepared(), before)
    with pytest.raises(ValueError, match=r"states: expected float64\[\] of each trial"):
        prepared(np.float64(1.0))
