"""Events: zeros of a function along a flow, against closed forms and SciPy's, on every engine and by every method."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import jaxdyn as jd
from jaxdyn.solve.methods.events import zero_between
from jaxdyn.status import Status

METHODS = {
    "tsit5": {}, "rodas5p": {"solver": "rodas5p"}, "rk4": {"solver": "rk4", "dt": 0.01}, "fixed": {"dt": 0.01},
}  # fmt: skip
METHOD = pytest.mark.parametrize("method", METHODS)
ENGINE = pytest.mark.parametrize("engine", ["fused", "xla"])
STARTS, RATES = np.array([[1.0, 0.0], [0.5, 0.2], [0.0, 1.0]]), np.array([1.0, 2.0, 3.0])
PLACE, SPEED = jd.Event(lambda t, y, w: y[0]), jd.Event(lambda t, y, w: y[1], -1)
swing = lambda t, y, w: jnp.stack([y[1], -w * w * y[0]])  # noqa: E731
decay = lambda t, y, rate: -rate * y  # noqa: E731


def swings(**options: Any):
    return jd.flow_ensemble(swing, STARTS, RATES, **{"t1": 10.0, "in_axes": (None, 0, 0), **options})


def passages(k, quarter, every):
    """Times in (0, 10] when A cos(wt + φ) has turned by a quarter, again every so many half turns."""
    w, (x, v) = RATES[k], STARTS[k]
    times = ((quarter + every * np.arange(-9, 30)) * np.pi - np.arctan2(-v / w, x)) / w
    return times[(times > 1e-9) & (times <= 10)]


@METHOD
@ENGINE
def test_every_zero_is_listed_once_in_order(engine, method):
    ends = swings(events=[PLACE, SPEED], engine=engine, **METHODS[method])
    assert ends.status.tolist() == [Status.COMPLETED] * 3
    for k in range(3):
        zeros, falls = passages(k, 0.5, 1), passages(k, 0.0, 2)  # the speed falls through zero where x is largest
        want = sorted([(t, 0) for t in zeros] + [(t, 1) for t in falls])
        count = ends.events.count[k]
        assert count == len(want)
        np.testing.assert_allclose(ends.events.times[k, :count], [t for t, _ in want], atol=2e-7)
        assert ends.events.which[k, :count].tolist() == [which for _, which in want]
        there = ends.events.states[k, np.arange(count), ends.events.which[k, :count]]
        np.testing.assert_allclose(there, 0, atol=1e-14)
        assert np.isnan(ends.events.times[k, count:]).all()
        assert np.isnan(ends.events.states[k, count:]).all()
        assert (ends.events.which[k, count:] == -1).all()
    assert ends.events.times.shape == (3, ends.events.count.max())


@METHOD
@ENGINE
def test_a_trial_ends_at_its_event(engine, method):
    ends = swings(until=PLACE, engine=engine, **METHODS[method])
    assert ends.status.tolist() == [Status.CONVERGED] * 3
    np.testing.assert_allclose(ends.stopped_at, [passages(k, 0.5, 1)[0] for k in range(3)], atol=2e-8)
    np.testing.assert_allclose(ends.final[:, 0], 0, atol=1e-15)
    speed = np.sqrt(STARTS[:, 1] ** 2 + (RATES * STARTS[:, 0]) ** 2)  # by the energy
    np.testing.assert_allclose(abs(ends.final[:, 1]), speed, rtol=1e-7)


@pytest.mark.parametrize("solver", ["tsit5", "dopri8", "kvaerno5"])
@pytest.mark.parametrize("direction", [-1, 0, 1])
def test_single_flows_end_where_those_of_ensembles_do(solver, direction):
    event = jd.Event(PLACE.value, direction)
    many = swings(until=event)
    for k in range(3):
        one = jd.flow(swing, STARTS[k], RATES[k], t1=10.0, until=event, solver=solver, ts=[0.0, 0.3, 9.9])
        assert one.status == many.status[k] == Status.CONVERGED
        np.testing.assert_allclose(one.stopped_at, many.stopped_at[k], atol=2e-7)
        np.testing.assert_allclose(one.final, many.final[k], atol=2e-6)
        np.testing.assert_array_equal(one.states[2], one.final)
    batch = jax.vmap(lambda y, w: jd.flow(swing, y, w, t1=10.0, until=event))(jnp.asarray(STARTS), jnp.asarray(RATES))
    np.testing.assert_allclose(batch.stopped_at, many.stopped_at, atol=2e-7)


@pytest.mark.parametrize("solver", ["tsit5", "rodas5p"])
def test_random_flows_have_scipys_events(solver):
    """A driven pendulum and a van der Pol oscillator: their zeros and turning points, at tight tolerances of both."""
    rng = np.random.default_rng(0)
    starts, force = rng.normal(size=(12, 4)), rng.uniform(0.5, 2, 12)

    def field(t, y, f, xp=jnp):
        return xp.stack([y[1], -xp.sin(y[0]) + f * xp.cos(t), y[3], (1 - y[2] ** 2) * y[3] - y[2]])

    values = [lambda t, y, f: y[0] - 0.1 * t, lambda t, y, f: y[3], lambda t, y, f: y[0] * y[2] - 0.05]
    events = [jd.Event(value, direction) for value, direction in zip(values, (0, 1, -1), strict=True)]
    have = jd.flow_ensemble(field, starts, force, t1=12.0, in_axes=(None, 0, 0), events=events, solver=solver,
                            rtol=1e-11, atol=1e-12)  # fmt: skip
    for k in range(12):
        theirs = []
        for value, direction in zip(values, (0, 1, -1), strict=True):
            of = lambda t, y, value=value, k=k: value(t, y, force[k])  # noqa: E731
            of.direction = direction  # type: ignore[attr-defined]
            theirs.append(of)
        want = scipy.integrate.solve_ivp(lambda t, y, k=k: field(t, y, force[k], np), (0, 12), starts[k],
                                         method="DOP853", rtol=1e-12, atol=1e-13, max_step=0.02,
                                         events=theirs)  # fmt: skip
        for which in range(3):
            times = have.events.times[k][have.events.which[k] == which]
            assert times.size == want.t_events[which].size
            np.testing.assert_allclose(times, want.t_events[which], atol=1e-7)


@ENGINE
def test_zeros_at_the_ends_of_steps_count_once(engine):
    """Steps of 1/4: zeros of t − 1 and of t at the start, of (t − 1)(t − 1.5), and −|t − 1|, which touches zero."""
    grow = lambda t, y, d: jnp.ones_like(y)  # noqa: E731
    values = [
        lambda t, y, d: t - 1, lambda t, y, d: t, lambda t, y, d: (t - 1) * (t - 1.5), lambda t, y, d: -abs(t - 1),
    ]  # fmt: skip
    options = {"t1": 2.0, "solver": "rk4", "dt": 0.25, "engine": engine}
    ends = jd.flow_ensemble(grow, np.zeros(2), None, events=[jd.Event(value) for value in values], **options)
    assert ends.events.count.tolist() == [4, 4]
    np.testing.assert_array_equal(ends.events.times, [[1.0, 1.0, 1.0, 1.5]] * 2)
    assert ends.events.which[0].tolist() == [0, 2, 3, 2]
    assert jd.flow_ensemble(grow, np.zeros(1), None, t1=2.0, until=jd.Event(values[1])).status[0] == Status.COMPLETED
    one = jd.flow(grow, np.zeros(()), None, t1=2.0, until=jd.Event(lambda t, y, d: y * (y - 0.7)))
    np.testing.assert_allclose(one.stopped_at, 0.7, rtol=1e-14)


def test_several_of_one_step_are_in_order():
    grow = lambda t, y, d: jnp.ones_like(y)  # noqa: E731
    events = [jd.Event(lambda t, y, d, at=at: y - at) for at in (0.9, 0.2, 0.5)]
    ends = jd.flow_ensemble(grow, np.array([0.0, 0.3]), None, t1=1.0, dt=1.0, events=events)
    assert ends.n_steps.tolist() == [1, 1]
    np.testing.assert_allclose(ends.events.times, [[0.2, 0.5, 0.9], [0.2, 0.6, np.nan]], rtol=1e-14)
    assert ends.events.which.tolist() == [[1, 2, 0], [2, 0, -1]]


def test_what_is_beyond_the_most_is_counted():
    ends = swings(events=PLACE, max_events=5)
    assert ends.events.count.tolist() == [len(passages(k, 0.5, 1)) for k in range(3)]
    assert ends.events.times.shape == (3, 5)
    np.testing.assert_array_equal(ends.events.times[2], swings(events=PLACE).events.times[2, :5])
    assert "events: 18 in all, 3 … 9 of a trial" in repr(ends)


def test_the_last_event_is_where_the_trial_ends():
    ends = swings(until=PLACE, events=[SPEED, PLACE])
    assert ends.events.count.tolist() == [1, 2, 2]
    last = ends.events.count - 1
    np.testing.assert_array_equal(ends.events.times[np.arange(3), last], ends.stopped_at)
    np.testing.assert_array_equal(ends.events.which[np.arange(3), last], 1)


def test_times_are_saved_beside_events():
    ts = np.linspace(0, 10, 21)
    both, saved, listed = swings(events=PLACE, ts=ts), swings(ts=ts), swings(events=PLACE)
    for have, want in ((both.states, saved.states), (both.final, saved.final), (both.events, listed.events)):
        for a, b in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
            np.testing.assert_array_equal(a, b)
    assert saved.events is None


def test_times_are_the_users():
    """From t0 on, of each trial's own end; a function is told the user's time."""
    ends = swings(t0=5.0, t1=np.array([7.0, 8.0, 9.0]), events=jd.Event(lambda t, y, w: t - 6.25), until=None)
    np.testing.assert_allclose(ends.events.times, 6.25, rtol=1e-15)
    early = jd.flow(swing, STARTS[0], 1.0, t0=5.0, t1=9.0, until=jd.Event(lambda t, y, w: t - 6.25))
    np.testing.assert_allclose(early.stopped_at, 6.25, rtol=1e-15)


def test_single_precision():
    ends = jd.flow_ensemble(decay, np.ones(4, np.float32), np.array([0.5, 1, 2, 4], np.float32), t1=9.0, t0=3.0,
                            in_axes=(None, 0, 0), events=jd.Event(lambda t, y, r: y - 0.5))  # fmt: skip
    assert ends.events.times.dtype == ends.events.states.dtype == np.float32
    np.testing.assert_allclose(ends.events.times[:, 0], 3 + np.log(2) / np.array([0.5, 1, 2, 4]), rtol=2e-5)


def test_a_value_that_is_no_number_is_no_event():
    ends = swings(until=jd.Event(lambda t, y, w: y[0] + jnp.nan), events=jd.Event(lambda t, y, w: jnp.log(y[0] - 9)))
    assert ends.status.tolist() == [Status.COMPLETED] * 3
    assert ends.events.count.tolist() == [0, 0, 0]
    assert ends.events.times.shape == (3, 0)


def test_a_trial_that_diverges_keeps_the_events_before():
    ends = jd.flow_ensemble(lambda t, y, d: y * y, np.array([1.0, 0.1]), None, t1=2.0,
                            events=jd.Event(lambda t, y, d: y - 1.5))  # fmt: skip
    assert ends.status.tolist() == [Status.DIVERGED, Status.COMPLETED]
    assert ends.events.count.tolist() == [1, 0]
    np.testing.assert_allclose(ends.events.times[0], 1 / 3, rtol=1e-7)


def test_functions_mean_what_they_mean_now():
    held = {"at": 0.5}
    event = jd.Event(lambda t, y, rate: y - held["at"])
    call = lambda **options: jd.flow_ensemble(decay, np.ones(2), 1.0, t1=9.0, **options)  # noqa: E731
    for at in (0.5, 0.25):
        held["at"] = at
        np.testing.assert_allclose(call(until=event).stopped_at, -np.log(at), rtol=1e-7)
        np.testing.assert_allclose(call(events=event).events.times[:, 0], -np.log(at), rtol=1e-7)
        one = jd.flow(decay, np.ones(()), 1.0, t1=9.0, until=event)
        np.testing.assert_allclose(one.stopped_at, -np.log(at), rtol=1e-7)


def test_prepared_ones():
    options = {"t1": 10.0, "in_axes": (None, 0, 0), "events": [PLACE, SPEED], "ts": [0.0, 4.0]}
    prepared = jd.prepare(jd.flow_ensemble, swing, STARTS[:2], RATES[:2], **options)
    want = jd.flow_ensemble(swing, STARTS, RATES, **options)
    for a, b in zip(jax.tree.leaves(prepared(STARTS, RATES)), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)


def test_watching_changes_no_bits():
    plain, watched = (swings(t1=0.1, **options) for options in ({}, {"until": PLACE, "events": SPEED}))
    np.testing.assert_array_equal(plain.n_steps, watched.n_steps)
    np.testing.assert_array_equal(plain.final, watched.final)


def of_rest(t, y, d):
    """From rest, the first is t²/2."""
    return jnp.stack([y[1], jnp.ones_like(y[1])])


SPECIAL = {  # value, direction, where a trial ends (None: nowhere)
    "no number": (lambda t, y, d: y[0] + jnp.nan, 0, None),
    "no number at first": (lambda t, y, d: jnp.sqrt(t - 1) + 9, 0, None),
    "no number later": (lambda t, y, d: jnp.sqrt(0.5 - t) - 3, 0, None),
    "zero at rest": (lambda t, y, d: y[0], 0, None), "zero at rest, rising": (lambda t, y, d: y[1] ** 3, 1, None),
    "zero at rest, and later": (lambda t, y, d: y[0] * (y[0] - 1), 0, np.sqrt(2)),
    "at a step's end": (lambda t, y, d: t - 1, 1, 1.0), "touched": (lambda t, y, d: -abs(t - 1), 1, 1.0),
    "reached and kept": (lambda t, y, d: jnp.minimum(t - 1, 0.0), 0, 1.0), "falling": (lambda t, y, d: 1 - t, -1, 1.0),
    "the wrong way": (lambda t, y, d: 1 - t, 1, None), "at the end": (lambda t, y, d: t - 2, 0, None),
    "another precision": (lambda t, y, d: jnp.asarray(t, jnp.float32) - np.float32(0.5), 0, 0.5),
    "a constant": (lambda t, y, d: -1.0, 0, None),
}  # fmt: skip


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("options", [{}, {"dt": 0.25}])
def test_single_flows_and_ensembles_agree_on_what_an_event_is(name, options):
    value, direction, want = SPECIAL[name]
    event = jd.Event(value, direction)
    want = None if name == "touched" and not options else want  # not at a step's end
    one = jd.flow(of_rest, np.zeros(2), None, t1=2.0, until=event, **options)
    many = jd.flow_ensemble(of_rest, np.zeros((1, 2)), None, t1=2.0, until=event, **options)
    for end in (one, jax.tree.map(lambda leaf: leaf[0], many._replace(times=None))):
        assert end.status == (Status.COMPLETED if want is None else Status.CONVERGED)
        np.testing.assert_allclose(end.stopped_at, 2 if want is None else want, rtol=1e-7)


@ENGINE
def test_what_is_zero_where_a_trial_ends_is_listed(engine):
    """Another function, or another direction, with the zero at which the trial ends: by rounding it would be or not."""
    n, rng = 100, np.random.default_rng(0)
    starts, rates = np.stack([np.ones(n), rng.normal(size=n)], 1), rng.uniform(0.5, 3, n)
    events = [jd.Event(PLACE.value, -1), jd.Event(lambda t, y, w: 2 * y[0]), jd.Event(PLACE.value, 1)]
    options = {"t1": 10.0, "in_axes": (None, 0, 0), "until": PLACE, "events": events, "engine": engine}
    ends = jd.flow_ensemble(swing, starts, rates, **options)
    assert ends.events.count.tolist() == [2] * n
    np.testing.assert_array_equal(ends.events.times, np.repeat(ends.stopped_at[:, None], 2, 1))
    assert ends.events.which.tolist() == [[0, 1]] * n


BAD = {
    "nothing": ({"until": jd.Event(lambda t, y, w: None)}, "one real number, got NoneType"),
    "words": ({"events": jd.Event(lambda t, y, w: "zero")}, "one real number, got str"),
    "a tuple": ({"events": jd.Event(lambda t, y, w: (y[0],))}, r"one real number, got float64\[1\]"),
    "complex": ({"events": jd.Event(lambda t, y, w: 1j * y[0])}, "one real number, got complex128"),
    "truth": ({"until": jd.Event(lambda t, y, w: y[0] > 0)}, "one real number, got bool"),
    "array": ({"events": jd.Event(lambda t, y, w: y)}, r"one real number, got float64\[2\]"),
    "whole": ({"events": jd.Event(lambda t, y, w: jnp.int32(1))}, "one real number, got int32"),
    "function": ({"events": lambda t, y, w: y[0]}, "events: expected Event"),
    "functions": ({"events": [lambda t, y, w: y[0]]}, "events: expected an Event"),
    "most of none": ({"max_events": 5, "until": PLACE}, "max_events: there are no events to be listed"),
    "most": ({"events": PLACE, "max_events": 0}, "max_events: expected a whole number"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_events_are_refused(name):
    options, told = BAD[name]
    with pytest.raises(ValueError, match=told):
        swings(**options)


def test_bad_definitions_are_refused():
    with pytest.raises(ValueError, match="value: expected a function"):
        jd.Event(1.0)
    for direction in (2, True, "up"):
        with pytest.raises(ValueError, match="direction: expected -1, 0 or 1"):
            jd.Event(PLACE.value, direction)
    with pytest.raises(ValueError, match="until: expected Rest or a function or None, got Event"):
        jd.descend_ensemble(lambda s, d, lr: s, np.ones(2), None, lr=0.1, steps=2, until=PLACE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one real number, got bool"):
        jd.flow(decay, np.ones(()), 1.0, t1=1.0, until=jd.Event(lambda t, y, w: y > 0))


ROOTS = {
    "line": (lambda x: x - 0.3, 0.3), "cube": (lambda x: (x - 0.7) ** 3, 0.7),
    "steep": (lambda x: jnp.tanh(1e6 * (x - 0.123)), 0.123),
    "flat": (lambda x: (x - 0.5) ** 9 + 1e-30 * (x - 0.5), 0.5),
    "jump": (lambda x: jnp.where(x < 0.6180339887, -1.0, 2.0), 0.6180339887),
    "close": (lambda x: x**2 - 1e-20, 1e-10), "falls": (lambda x: jnp.cos(2 * x), np.pi / 4),
    "infinite": (lambda x: 1 / (0.4 - x), 0.4),
}  # fmt: skip


@pytest.mark.parametrize("name", ROOTS)
def test_zeros_are_found_to_rounding(name):
    value, want = ROOTS[name]
    start, end = (value(jnp.float64(x)) for x in (0.0, 1.0))
    found = zero_between(value, start, end)
    assert abs(found - want) <= {"cube": 1e-5, "flat": 1e-3}.get(name, 2e-15)


def test_zeros_are_found_in_few_looks():
    """Inverse quadratic steps: smooth functions take a dozen looks, not fifty."""
    looks = []

    def value(x):
        jax.debug.callback(lambda _: looks.append(1), x)
        return jnp.exp(3 * x) - 5

    start, end = jnp.exp(0.0) - 5, jnp.exp(3.0) - 5
    np.testing.assert_allclose(zero_between(value, start, end), np.log(5) / 3, rtol=1e-15)
    jax.effects_barrier()
    assert len(looks) <= 14
