"""One step beside the usual: systems of other kinds, times far from zero, rules that cannot be met."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from registry import EXAMPLES, moments

import jaxdyn as jd

ENGINES = ("fused", "xla")


class Decay(NamedTuple):
    """A user's own system without equinox: ẏ = −rate·y, a pytree."""

    rate: Any

    def field(self, t, state, data):
        return -self.rate * state

    def step(self, state, data, lr):
        return state - lr * self.rate * state


def test_any_pytree_system_may_differ_from_trial_to_trial():
    rates = jnp.array([0.5, 1.0, 2.0])
    many = jd.flow_ensemble(Decay(rates), np.ones(3), None, t1=1.0, in_axes=(0, 0, None))
    np.testing.assert_allclose(many.final, np.exp(-rates), rtol=1e-6)
    steps = jd.descend_ensemble(Decay(rates), np.ones(3), None, lr=0.1, steps=3, in_axes=(0, 0, None))
    np.testing.assert_allclose(steps.final, (1 - 0.1 * rates) ** 3, rtol=1e-14)
    for rate in (0.5, 2.0):  # its numbers are none of the program's: the second one is not the first one's answer
        one = jd.flow_ensemble(Decay(rate), np.ones(1), None, t1=1.0)
        np.testing.assert_allclose(one.final, np.exp(-rate), rtol=1e-6)
    with pytest.raises(ValueError, match="it has no arrays"):
        jd.flow_ensemble(lambda t, y, p: -y, np.ones(3), None, t1=1.0, in_axes=(0, 0, None))


def test_a_fast_start_before_a_long_end_is_resolved():
    """ẏ = −10⁴(y − ½) in float32, to t = 10⁴: the first steps are far below 8 roundings of the end."""
    fast = lambda t, y, p: -1e4 * (y - 0.5)  # noqa: E731
    path = jd.flow(fast, jnp.ones(1, jnp.float32), None, t1=1e4, ts=[1e-4, 1e4], solver="kvaerno5")
    assert int(path.status) == jd.Status.COMPLETED
    np.testing.assert_allclose(path.states[:, 0], [0.5 + 0.5 * np.exp(-1), 0.5], rtol=2e-4)


def test_ensembles_far_from_time_zero_gain_the_time_they_say():
    """At t = 10¹⁰ a time resolves 2·10⁻⁶, which is counted from t0."""
    t0 = 1e10
    many = jd.flow_ensemble(lambda t, y, p: -p * y, np.ones(2), np.array([1.0, 1e2]), t0=t0, t1=t0 + 1,
                            in_axes=(None, 0, 0))  # fmt: skip
    assert (many.status == jd.Status.COMPLETED).all()
    np.testing.assert_allclose(many.final, np.exp([-1.0, -1e2]), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("t0", [1e6, 1e8, -1e10])
@pytest.mark.parametrize("engine", ["fused", "xla"])
@pytest.mark.parametrize("options", [{}, {"solver": "rodas5p"}, {"solver": "rk4", "dt": 0.01}, {"dt": 0.01}])
def test_float32_far_from_time_zero_is_float32_at_zero(t0, engine, options):
    """A clock that resolves 0.06 (at 10⁶) to 1,000 (at 10¹⁰) has no part in a run of two units: the same bits."""
    fall = lambda t, y, p: -p * y  # noqa: E731
    starts, rates, share = np.ones(2, np.float32), np.array([1.0, 3.0], np.float32), (None, 0, 0)
    at = lambda t0: jd.flow_ensemble(  # noqa: E731
        fall, starts, rates, t0=t0, t1=t0 + np.array([2.0, 1.0]), ts=[t0, t0 + 0.5, t0 + 1.0], in_axes=share,
        engine=engine, **options,
    )  # fmt: skip
    have, want = at(t0), at(0.0)
    assert have.status.tolist() == [jd.Status.COMPLETED] * 2
    np.testing.assert_array_equal(have.states, want.states)
    np.testing.assert_array_equal(have.final, want.final)
    np.testing.assert_allclose(have.final, np.exp([-2.0, -3.0]), rtol=1e-4)
    np.testing.assert_array_equal(have.stopped_at, np.float32(t0 + np.array([2.0, 1.0])))


@pytest.mark.parametrize("solver", ["tsit5", "dopri8", "kvaerno5"])
def test_one_trial_in_float32_far_from_time_zero(solver):
    at = lambda t0: jd.flow(  # noqa: E731
        lambda t, y, p: -y, jnp.ones(1, jnp.float32), None, t0=t0, t1=t0 + 2, ts=[t0, t0 + 0.5], solver=solver
    )
    have, want = at(1e8), at(0.0)
    assert int(have.status) == jd.Status.COMPLETED
    np.testing.assert_array_equal(have.final, want.final)
    np.testing.assert_array_equal(have.states, want.states)
    assert float(have.stopped_at) == np.float32(1e8 + 2)


def test_clocks_of_users_functions_are_the_users_own():
    """Fields, schedules, rules and what is saved are told t, not the time since t0."""
    wave = lambda t, y, p: jnp.cos(t) + 0 * y  # noqa: E731
    late = lambda t, y, p: t > 11.5  # noqa: E731
    clock = lambda t, y, p: t  # noqa: E731
    one = jd.flow(wave, jnp.zeros(1), None, t0=10.0, t1=13.0, ts=[10.5, 11.0], until=late, save=clock)
    many = jd.flow_ensemble(wave, np.zeros((2, 1)), None, t0=10.0, t1=13.0, ts=[10.5, 11.0], until=late, save=clock)
    steps = jd.flow_ensemble(wave, np.zeros((2, 1)), None, t0=10.0, t1=13.0, ts=[10.5, 11.0], save=clock, dt=0.1)
    for ended in (one, jax.tree.map(lambda leaf: leaf[0], many._replace(times=many.times[None]))):
        assert int(ended.status) == jd.Status.CONVERGED
        assert 11.5 < float(ended.stopped_at) <= 13
        np.testing.assert_allclose(ended.states, [10.5, 11.0], rtol=1e-14)
        np.testing.assert_allclose(ended.final, np.sin(float(ended.stopped_at)) - np.sin(10), atol=1e-7)
    np.testing.assert_allclose(steps.states, [[10.5, 11.0]] * 2, rtol=1e-14)
    np.testing.assert_allclose(steps.final, np.sin(13) - np.sin(10), atol=1e-7)


@pytest.mark.parametrize("engine", ["fused", "xla"])
@pytest.mark.parametrize("options", [{}, {"solver": "rk4", "dt": 0.1}])
def test_the_end_is_told_to_the_last_bit(engine, options):
    """t0 + (t1 − t0) is not t1 here; rules and what is saved may ask whether the end is there."""
    for t0, t1 in ((-5.0, -1.7), (-3.6, -0.7)):
        assert t0 + (t1 - t0) != t1
        told = lambda t, y, p, t1=t1: (t, t >= t1)  # noqa: E731
        many = jd.flow_ensemble(
            lambda t, y, p: -y, np.ones(2), None, t0=t0, t1=t1, ts=[t1], save=told, engine=engine, **options
        )
        assert many.states[0].tolist() == [[t1]] * 2
        assert many.states[1].all()
        one = jd.flow(lambda t, y, p: -y, jnp.ones(1), None, t0=t0, t1=t1, ts=[t1], save=told)
        assert (float(one.states[0][0]), bool(one.states[1][0])) == (t1, True)


def test_nan_times_are_no_success():
    end = jax.jit(lambda t1: jd.flow(Decay(1.0), jnp.ones(1), None, t1=t1).status)
    assert (int(end(1.0)), int(end(float("nan")))) == (jd.Status.COMPLETED, jd.Status.DIVERGED)


def test_what_is_saved_is_saved_where_the_run_ended():
    """A run that ends at t ≈ 0.69 holds its last state; what is computed of state and time is computed there."""
    ended = lambda t, y, p: y[0] < 0.5  # noqa: E731
    path = jd.flow(Decay(1.0), jnp.ones(1), None, t1=3.0, ts=[0.0, 1.0, 3.0], until=ended, save=lambda t, y, p: t)
    assert int(path.status) == jd.Status.CONVERGED
    np.testing.assert_allclose(path.states, [0.0, path.stopped_at, path.stopped_at])
    taken = jd.descend(
        Decay(1.0), jnp.ones(1), None, lr=0.5, steps=9, save_every=3, until=ended, save=lambda t, y, p: t
    )
    np.testing.assert_array_equal(taken.states, [0, 2, 2, 2])


def test_ensembles_say_at_which_times_their_last_states_are():
    same = jd.flow_ensemble(Decay(1.0), np.ones((2, 1)), None, t1=2.0)
    np.testing.assert_array_equal(same.times, [2.0])
    several = jd.flow_ensemble(Decay(1.0), np.ones((2, 1)), None, t1=np.array([1.0, 2.0]))
    np.testing.assert_array_equal(several.times, [[1.0], [2.0]])


def test_rest_below_rounding_and_rules_of_other_kinds_are_refused():
    system, start, data = jd.StopGradient(0.05), EXAMPLES["sg"].state(2, 1), moments(1)
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), start)
    for run in (
        lambda **o: jd.flow(system, single, data, t1=1.0, **o),
        lambda **o: jd.descend(system, single, data, lr=0.1, steps=5, **o),
    ):
        with pytest.raises(ValueError, match="float32 cannot resolve rest to 1e-10"):
            run(until=jd.Rest(1e-10))
    with pytest.raises(ValueError, match="below float64's rounding"):
        jd.descend(system, start, data, lr=1e-6, steps=5, until=jd.Rest(1e-12))
    with pytest.raises(ValueError, match="until: expected"):
        jd.flow(system, start, data, t1=1.0, until=jd.Rest)  # type: ignore[arg-type]  # the class, no rule of it
    with pytest.raises(ValueError, match="no error to control"):
        jd.flow(system, start, data, t1=1.0, dt=0.1, rtol=1e-3)


def test_steps_return_a_state_like_their_own():
    wrong = [lambda y, p, lr: y[:1], lambda y, p, lr: (y, y), lambda y, p, lr: y > 0]
    for step in wrong:
        with pytest.raises(ValueError, match="step: expected a state like its argument's"):
            jd.descend(step, jnp.ones(2), None, lr=0.1, steps=2)
        with pytest.raises(ValueError, match="step: expected a state like its argument's"):
            jd.descend_ensemble(step, np.ones((3, 2)), None, lr=0.1, steps=2)


def test_teacher_rates_are_checked_along_schedules():
    """β·lr <= 1 at step 0, and beyond 1 at the end."""
    system = jd.MovingAverage(0.1, ema_rate=5.0)
    start, data = system.random_state(jax.random.key(0), n=2, m=1), moments(1)
    with pytest.raises(ValueError, match="ema_rate"):
        jd.descend(system, start, data, lr=lambda step: 0.1 + 0.01 * step, steps=50)
    late = jd.StopGradient(lambda t: jnp.where(t < 1, jnp.nan, 0.1))  # not looked at before the run begins
    ended = jd.flow(late, EXAMPLES["sg"].state(2, 1), data, t0=2.0, t1=3.0)
    assert int(ended.status) == jd.Status.COMPLETED


def test_kinks_and_warm_ups_at_an_equilibrium():
    kink = lambda t, y, p: -jnp.where(y > 0, y, -2 * y)  # noqa: E731
    bent = lambda t, y, sign: -y + 2 * jax.nn.relu(sign * y)  # noqa: E731  (grows on one side of zero)
    for field, sign in ((kink, None), (bent, 1.0), (bent, -1.0)):
        for size in (1, 2, 3):
            found = jd.linearise(field, jnp.zeros(size), sign)
            assert (int(found.verdict), int(found.doubt)) == (jd.Verdict.UNDETERMINED, jd.Doubt.NOT_SMOOTH)
    # A warm-up of the optimizer's own: after many steps the same map, and the same verdict.
    warmed = lambda lr: optax.chain(optax.trace(0.9), optax.scale_by_schedule(optax.linear_schedule(-lr / 9, -lr, 99)))  # noqa: E731
    settled = lambda lr: optax.chain(optax.trace(0.9), optax.scale(-lr))  # noqa: E731
    system, data = jd.StopGradient(0.05), jd.Moments.scalar(1.0, 0.9)
    state = jd.equilibria(system, data).stable[-1].state
    largest = [jd.largest_lr(system, state, data, optimizer=optimizer) for optimizer in (warmed, settled)]
    assert largest[0] == pytest.approx(largest[1], rel=1e-9)
    with pytest.raises(ValueError, match="a schedule has no equilibrium"):
        jd.largest_lr(jd.StopGradient(lambda t: 0.05), state, data)


@pytest.mark.parametrize(
    ("t0", "t1", "ts", "status"),
    [
        (0.0, 1.0, [0.5, 1.0], jd.Status.COMPLETED),
        (1.0, 0.0, [0.5, 1.0], jd.Status.DIVERGED),
        (1.0, 1.0, [1.0, 1.0], jd.Status.DIVERGED),
        (0.0, 1.0, [1.0, 0.5], jd.Status.DIVERGED),
        (0.0, 1.0, [0.5, jnp.nan], jd.Status.DIVERGED),
    ],
)
def test_traced_times_that_make_no_sense_are_no_result(t0, t1, ts, status):
    decay = lambda t, y, p: -y  # noqa: E731
    ended = jax.jit(lambda t0, t1, ts: jd.flow(decay, jnp.ones(()), None, t0=t0, t1=t1, ts=ts))(t0, t1, jnp.array(ts))
    assert int(ended.status) == status


def test_a_schedule_of_many_trials_is_looked_at_along_its_way():
    """One trial's learning rate is negative in between, at neither end."""
    rates = lambda step, dip: 0.1 - dip * jnp.sin(jnp.pi * step / 100)  # noqa: E731
    halve = lambda state, data, lr: state * (1 - lr)  # noqa: E731
    dips = jd.Schedule(rates, np.array([0.0, 0.15]))
    with pytest.raises(ValueError, match=r"lr: expected a schedule of numbers >= 0, got -0\.006\d* at 25"):
        jd.descend_ensemble(halve, np.ones(2), None, lr=dips, steps=100)
    falls = jd.Schedule(lambda step, fall: 0.1 - fall * step, np.array([0.0, 0.002]))
    with pytest.raises(ValueError, match=r"lr: expected a schedule of numbers >= 0, got -0\.0\d* at 56\.25"):
        jd.descend_ensemble(halve, np.ones(2), None, lr=falls, steps=100)


class Mutable:
    """A plain object whose rate may be changed."""

    def __init__(self, rate):
        self.rate = rate

    def field(self, t, state, data):
        return -self.rate * state

    def step(self, state, data, lr):
        return state * (1 - lr * self.rate)


def test_what_a_function_refers_to_may_change():
    """Objects, globals, closures, rules and schedules: results are of what they are now."""
    system, table, kept = Mutable(1.0), {"rate": 1.0}, np.array([1.0])
    one, many = jnp.ones(1), np.ones((3, 1))

    def flows(field):
        single = jd.flow(field, one, None, t1=1.0).final[0]
        both = [jd.flow_ensemble(field, many, None, t1=1.0, engine=name).final[1, 0] for name in ENGINES]
        return [round(float(value), 6) for value in (single, *both)]

    def descents(step, lr: Any = 0.1):
        single = jd.descend(step, one, None, steps=2, lr=lr).final[0]
        both = [jd.descend_ensemble(step, many, None, steps=2, lr=lr, engine=name).final[1, 0] for name in ENGINES]
        return [round(float(value), 6) for value in (single, *both)]

    fields = [system, lambda t, y, p: -table["rate"] * y, lambda t, y, p: -jnp.asarray(kept) * y, system.field]
    steps = [system, lambda y, p, lr: y * (1 - lr * table["rate"]), system.step]
    falling = lambda step: 0.1 * table["rate"] + 0 * step  # noqa: E731
    plain = lambda y, p, lr: y * (1 - lr)  # noqa: E731
    for rate in (1.0, 2.0, 1.0):
        system.rate = table["rate"] = kept[0] = rate
        for field in fields:
            assert flows(field) == [round(float(np.exp(-rate)), 6)] * 3
        for step in steps:
            assert descents(step) == [round((1 - 0.1 * rate) ** 2, 6)] * 3
        assert descents(plain, lr=falling) == [round((1 - 0.1 * rate) ** 2, 6)] * 3
    stops = lambda t, y, p: y[0] < table["rate"]  # noqa: E731
    for level in (0.5, 0.8, 0.5):
        table["rate"] = level
        ended = jd.descend(plain, one, None, lr=0.1, steps=100, until=stops)
        several = jd.descend_ensemble(plain, many, None, lr=0.1, steps=100, until=stops)
        want = int(np.ceil(np.log(level) / np.log(0.9)))
        assert (int(ended.n_steps), several.n_steps.tolist()) == (want, [want] * 3)


def test_what_is_hidden_inside_a_function_may_change():
    """Arrays inside a nested jit, and a derivative's own rule, are not in a jaxpr's text."""
    matrix = [jnp.eye(2)]
    nested = lambda t, y, data: jax.jit(lambda y: matrix[0] @ y)(y)  # noqa: E731
    step = lambda y, data, lr: y + lr * jax.jit(lambda y: matrix[0] @ y)(y)  # noqa: E731
    for rate in (-1.0, -2.0, 3.0):
        matrix[0] = rate * jnp.eye(2)
        np.testing.assert_allclose(jd.linearise(nested, jnp.zeros(2), None).eigenvalues, rate, rtol=1e-12)
        np.testing.assert_allclose(jd.flow(nested, jnp.ones(2), None, t1=1.0).final, np.exp(rate), rtol=1e-6)
        ends = jd.flow_ensemble(nested, np.ones((2, 2)), None, t1=1.0).final
        np.testing.assert_allclose(ends, np.exp(rate), rtol=1e-6)
        final = jd.descend(step, jnp.ones(2), None, lr=0.1, steps=10).final
        np.testing.assert_allclose(final, (1 + 0.1 * rate) ** 10, rtol=1e-12)

    def made(slope):
        @jax.custom_jvp
        def rule(y):
            return -y

        rule.defjvp(lambda primals, tangents: (rule(primals[0]), slope * tangents[0]))
        return rule

    box = [made(-1.0)]
    ruled = lambda t, y, data: box[0](y)  # noqa: E731
    for slope in (-1.0, -2.0, 3.0):
        box[0] = made(slope)
        margin = jd.linearise(ruled, jnp.zeros(2), None).margin
        assert float(margin) == pytest.approx(-slope)


def test_how_an_optimizer_begins_may_change():
    class Bowl:
        def step(self, state, data, lr):
            return state - lr * data * state

        def gradient(self, state, data):
            return data * state

        def learns(self, state):
            return state

        def advance(self, state, update, lr):
            return state + update

    system, begin = Bowl(), [0.1]
    optimizer = lambda lr: optax.adagrad(lr, initial_accumulator_value=begin[0])  # noqa: E731
    found = []
    for begin[0] in (0.1, 1.0, 4.0):
        eigenvalues = jd.linearise(system, jnp.zeros(2), 1.0, lr=0.5, optimizer=optimizer).eigenvalues
        found.append(float(np.min(np.real(eigenvalues))))
    np.testing.assert_allclose(found, [1 - 0.5 / np.sqrt(0.1), 0.5, 0.75], rtol=1e-5)
