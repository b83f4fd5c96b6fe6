"""Ensembles of maps and flows: integrators against diffrax, SciPy, closed forms; what every trial reports."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import jaxdyn as jd
from jaxdyn.ensemble import programs, tableaux
from jaxdyn.ensemble.solve import run_ensemble

every_engine = pytest.mark.parametrize("engine", ["fused", "xla"])


def lorenz(t, state, rho):
    a, b, c = state
    return 10.0 * (b - a), rho * a - b - a * c, a * b - 8 / 3 * c


def swing(t, y, p):
    """Not autonomous, not linear, with a closed form: y = tan(p sin t)."""
    return p * jnp.cos(t) * (1 + y**2)


def exact_swing(t, p):
    return np.tan(p * np.sin(t))


def starts(n):
    return tuple(np.full(n, value) for value in (1.0, 0.0, 0.0))


@every_engine
def test_tsit5_takes_diffraxs_steps(engine):
    """The same tolerances, norm and controller: the same steps in every trial, from the same first one."""
    rho = np.linspace(0, 21, 23)
    have = run_ensemble(lorenz, starts(23), rho, t1=1.0, rtol=1e-6, atol=1e-6, engine=engine)
    program = programs.Tsit5(lorenz)

    def reference(start, rho):
        trial = programs.Trial(rho, jnp.ones(()), (), 1e-6, 1e-6)
        first = program.start(start, trial, jnp.zeros(())).dt
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lorenz), diffrax.Tsit5(), 0.0, 1.0, first, start, rho,
            stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6), saveat=diffrax.SaveAt(t1=True),
        )  # fmt: skip

    want = jax.jit(jax.vmap(reference))(starts(23), rho)
    assert (have.status == jd.Status.COMPLETED).all()
    np.testing.assert_array_equal(have.n_steps, want.stats["num_steps"])
    for a, b in zip(have.states, want.ys, strict=True):
        np.testing.assert_allclose(a, b[:, 0], rtol=1e-10, atol=1e-12)


@every_engine
@pytest.mark.parametrize(("method", "options"), [("tsit5", {}), ("rodas5p", {}), ("rk4", {"dt": 2e-3})])
def test_ends_and_saved_states_match_the_closed_form(engine, method, options):
    p = np.array([0.3, 1.0, -1.3])
    ts = np.array([0.0, 0.01, 0.5, 0.7, 2.99, 3.0])
    ends = run_ensemble(
        swing, np.zeros(3), p, method=method, t1=3.0, ts=ts, engine=engine, save=lambda t, y, p: (t, y), **options
    )
    np.testing.assert_allclose(ends.states, exact_swing(3.0, p), rtol=1e-7)
    np.testing.assert_allclose(ends.times, 3.0)
    times, states = ends.saved
    np.testing.assert_array_equal(times, np.tile(ts, (3, 1)))
    # Between steps the interpolants are of order 4.
    np.testing.assert_allclose(states, exact_swing(ts, p[:, None]), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize(("method", "order"), [("rk4", 4), ("tsit5", 5)])
def test_fixed_steps_converge_at_their_order(method, order):
    sizes = np.array([0.1, 0.05, 0.025])
    errors = [
        abs(
            run_ensemble(swing, np.zeros(1), np.ones(1), method=method, t1=2.0, dt=dt).states[0] - exact_swing(2.0, 1.0)
        )
        for dt in sizes
    ]
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert order - 0.3 < slope < order + 1


def test_rodas5p_converges_at_order_five_also_where_the_field_depends_on_time():
    program, errors, sizes = programs.Rodas5P(swing), [], np.array([0.2, 0.1, 0.05])
    for h in sizes:
        path = programs.Path(jnp.zeros(()), jnp.zeros(()))
        trial = programs.Trial(jnp.ones(()), 2.0)
        for _ in range(round(2 / h)):
            path = programs.Path(path.t + h, program.attempt(path, trial, h)[0])
        errors.append(abs(float(path.state) - exact_swing(2.0, 1.0)))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert 4.7 < slope < 6


@pytest.mark.parametrize("method", ["Tsit5", "Rodas5P"])
def test_interpolants_converge_at_order_four(method):
    program, sizes, errors = getattr(programs, method)(swing), np.array([0.2, 0.1, 0.05]), []
    for h in sizes:
        rate = swing(0.4, exact_swing(0.4, 1.0), 1.0)
        before = programs.Path(jnp.array(0.4), jnp.asarray(exact_swing(0.4, 1.0)), (), rate)
        trial = programs.Trial(jnp.ones(()), 2.0)
        after = programs.Path(before.t + h, program.attempt(before, trial, h)[0])
        x = np.array([0.2, 0.5, 0.9])
        values = np.array([program.between(before, after, trial, each) for each in x])
        errors.append(np.max(np.abs(values - exact_swing(0.4 + x * h, 1.0))))
    assert np.polyfit(np.log(sizes), np.log(errors), 1)[0] > 4.6  # of one step: order four and one more


def test_tableaux_satisfy_their_order_conditions():
    """The conditions on the quadrature, and that rows sum to their nodes (Hairer, Nørsett & Wanner II.1)."""
    a, c = tableaux.TSIT5_A, tableaux.TSIT5_C
    np.testing.assert_allclose([sum(row) for row in a], c, atol=1e-14)
    weights, nodes = np.array(a[-1]), np.array((0.0, *c[:5]))
    np.testing.assert_allclose([weights @ nodes**k for k in range(5)], 1 / np.arange(1, 6), atol=1e-14)
    embedded = np.append(weights, 0) - np.array(tableaux.TSIT5_ERROR)
    np.testing.assert_allclose([embedded @ np.append(nodes, 1) ** k for k in range(4)], 1 / np.arange(1, 5), atol=1e-14)
    np.testing.assert_allclose(np.array(tableaux.tsit5_weights(1.0))[:6], weights, atol=1e-12)


@every_engine
def test_stiff_trials_are_solved_by_the_rosenbrock_method(engine):
    """Robertson's reaction with rates over three decades, against SciPy's Radau."""

    def reaction(t, y, k):
        a, b, c = y
        slow, fast = 0.04 * a, 3e7 * b**2
        back = k * b * c
        return jnp.stack([back - slow, slow - back - fast, fast])

    rates = np.array([1e3, 1e4, 1e5])
    start = np.tile([1.0, 0.0, 0.0], (3, 1))
    ends = run_ensemble(reaction, start, rates, method="rodas5p", t1=100.0, rtol=1e-8, atol=1e-12, engine=engine)
    assert (ends.status == jd.Status.COMPLETED).all()
    assert ends.n_steps.max() < 300
    for k, end in zip(rates, ends.states, strict=True):
        plain = lambda t, y, k=k: np.asarray(reaction(t, y, k))  # noqa: E731
        want = solve_ivp(plain, (0, 100.0), start[0], method="Radau", rtol=1e-10, atol=1e-14).y[:, -1]
        np.testing.assert_allclose(end, want, rtol=1e-6, atol=1e-12)
    stuck = run_ensemble(reaction, start, rates, t1=100.0, rtol=1e-8, atol=1e-12, max_steps=3000, engine=engine)
    assert (stuck.status == jd.Status.OUT_OF_STEPS).all()
    assert (stuck.n_steps == 3000).all()


@every_engine
def test_stiff_and_plain_flows_of_stop_gradient_agree(engine):
    system = jd.StopGradient(0.05)
    rng = np.random.default_rng(0)
    states = system.state(encoder=np.zeros((2, 1)), predictor=np.eye(2))._replace(
        encoder=rng.normal(size=(4, 2, 1)), predictor=rng.normal(size=(4, 2, 2))
    )
    data = jax.vmap(jd.Moments.scalar)(np.array([1.0, 0.5, 2.0, 0.1]), np.array([0.9, 0.4, 1.0, 0.2]))
    plain, stiff = (
        run_ensemble(system.field, states, data, method=method, t1=20.0, rtol=1e-9, atol=1e-11, engine=engine)
        for method in ("tsit5", "rodas5p")
    )
    for a, b in zip(plain.states, stiff.states, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)
    state, moments = jax.tree.map(lambda leaf: leaf[2], (states, data))
    want = jd.flow(system, state, moments, 20.0)
    np.testing.assert_allclose(plain.states.encoder[2], want.final.encoder, rtol=1e-6)


@every_engine
def test_every_trial_says_how_it_ended(engine):
    def field(t, y, p):
        return p * y**2

    p = np.array([-1.0, 1.0, 0.1])  # decays; blows up at t = 1; is stopped at y = 1.5
    ends = run_ensemble(
        field, np.ones(3), p, t1=np.array([2.0, 2.0, 9.0]), until=lambda old, y, p: (y > 1.5) & (p < 0.5),
        engine=engine, ts=[0.5, 1.5], max_steps=5000,
    )  # fmt: skip
    np.testing.assert_array_equal(ends.status, [jd.Status.COMPLETED, jd.Status.DIVERGED, jd.Status.CONVERGED])
    np.testing.assert_allclose(ends.states[0], 1 / 3, rtol=1e-7)
    assert 0.99 < ends.times[1] < 1.001
    np.testing.assert_allclose(ends.saved[:2], [[2 / 3, 0.4], [2.0, np.nan]], rtol=1e-6)


@every_engine
def test_maps_run_their_steps_or_until(engine):
    halve = lambda y, p: {"x": y["x"] * p, "n": y["n"] + 1}  # noqa: E731
    start = {"x": np.array([1.0, 2.0, 4.0]), "n": np.zeros(3, int)}
    fixed = run_ensemble(halve, start, 0.5, method="map", steps=10, ts=[0, 3, 10], engine=engine)
    np.testing.assert_array_equal(fixed.states["x"], start["x"] / 1024)
    np.testing.assert_array_equal(fixed.saved["x"], start["x"][:, None] * [1, 1 / 8, 1 / 1024])
    np.testing.assert_array_equal(fixed.saved["n"], [[0, 3, 10]] * 3)
    assert (fixed.status == jd.Status.COMPLETED).all()
    small = lambda old, new, p: new["x"] < 0.1  # noqa: E731
    ended = run_ensemble(halve, start, 0.5, method="map", until=small, max_steps=5, engine=engine)
    np.testing.assert_array_equal(ended.n_steps, [4, 5, 5])
    want = [jd.Status.CONVERGED, jd.Status.CONVERGED, jd.Status.OUT_OF_STEPS]
    np.testing.assert_array_equal(ended.status, want)


def test_fixed_steps_end_where_they_should_whatever_the_trials_ends():
    decay = lambda t, y, p: -y  # noqa: E731
    for dt in (0.1, np.array([0.1, 0.07, 0.3])):
        ends = run_ensemble(decay, np.ones(3), t1=np.array([1.0, 2.0, 0.95]), dt=dt, method="rk4")
        np.testing.assert_allclose(ends.times, [1.0, 2.0, 0.95], rtol=1e-15)
        np.testing.assert_allclose(ends.states, np.exp(-ends.times), rtol=1e-4)
        np.testing.assert_array_equal(ends.n_steps, np.ceil(np.array([1.0, 2.0, 0.95]) / dt - 1e-9))


@every_engine
def test_steps_near_the_end_may_be_rejected(engine):
    """Where 100 roundings of t1 are longer than a step, the last step must still be allowed to shrink."""
    turn = lambda t, y, p: p * jnp.stack([y[1], -y[0]])  # noqa: E731
    start = np.array([[1.0, 0.0]])
    ends = run_ensemble(turn, start, np.array([1e4]), t0=1e9, t1=1e9 + 0.01, max_steps=20_000, engine=engine)
    assert ends.status[0] == jd.Status.COMPLETED
    with jax.enable_x64(False):
        single = np.float32(start)
        ends = run_ensemble(
            turn, single, np.array([20.0], np.float32), t0=990.0, t1=1000.0, max_steps=20_000, engine=engine
        )
        assert ends.status[0] == jd.Status.COMPLETED
        assert ends.states.dtype == np.float32


@every_engine
def test_a_rejected_step_is_not_rest(engine):
    stiff = lambda t, y, p: jnp.stack([y[1], p * (1 - y[0] ** 2) * y[1] - y[0]])  # noqa: E731
    still = lambda old, new, p: jnp.max(jnp.abs(old - new)) < 1e-12  # noqa: E731
    ends = run_ensemble(stiff, np.array([[2.0, 0.0]]), np.array([50.0]), t1=10.0, until=still, engine=engine)
    assert ends.status[0] == jd.Status.COMPLETED


def test_fixed_steps_do_not_drift_nor_depend_on_the_others():
    swing = lambda t, y, p: jnp.stack([y[1], -y[0]])  # noqa: E731
    with jax.enable_x64(False):
        start = np.array([[1.0, 0.0]], np.float32)
        alone = run_ensemble(swing, start, t1=np.array([100.0]), dt=1e-3, method="rk4", ts=[99.0, 100.0])
        other = run_ensemble(swing, np.repeat(start, 2, 0), t1=np.array([100.0, 50.0]), dt=1e-3, method="rk4")
    np.testing.assert_array_equal(alone.n_steps, 100_000)
    np.testing.assert_array_equal(other.n_steps, [100_000, 50_000])
    np.testing.assert_array_equal(alone.states[0], other.states[0])
    np.testing.assert_allclose(alone.saved[0, :, 0], np.cos(np.array([99.0, 100.0])), atol=2e-3)
    np.testing.assert_array_equal(other.times, np.array([100.0, 50.0], np.float32))


def test_times_may_be_negative_and_end_where_the_run_ends():
    decay = lambda t, y, p: -y  # noqa: E731
    ends = run_ensemble(decay, np.ones(2), t0=-10.0, t1=-9.0, ts=[-10.0, -9.5, -9.0])
    np.testing.assert_allclose(ends.saved, np.exp(np.array([[0.0, -0.5, -1.0]] * 2)), rtol=1e-6)
    ends = run_ensemble(decay, np.ones(1), t1=0.3, ts=[0.1, 0.1 * 3])  # 0.30000000000000004
    np.testing.assert_allclose(ends.saved, np.exp(np.array([[-0.1, -0.3]])), rtol=1e-6)
    lost = run_ensemble(decay, np.array([np.nan, 1.0]), t0=5.0, t1=6.0)
    np.testing.assert_array_equal(lost.times, [5.0, 6.0])
    np.testing.assert_array_equal(lost.status, [jd.Status.DIVERGED, jd.Status.COMPLETED])


def test_modules_with_other_numbers_are_other_functions():
    class Scaled(eqx.Module):
        factor: object

        def __call__(self, x, p):
            return x * (2.0 if isinstance(self.factor, float) else 3.0)

    for factor, want in ((1, 3.0), (1.0, 2.0)):
        ends = run_ensemble(Scaled(factor), np.ones(1), method="map", steps=1)
        assert ends.states[0] == want


def test_bits_do_not_depend_on_the_company_or_the_order():
    rho = np.linspace(0, 21, 50)
    want = run_ensemble(lorenz, starts(50), rho, t1=1.0, ts=[0.5])
    few = run_ensemble(lorenz, starts(7), rho[20:27], t1=1.0, ts=[0.5])
    np.testing.assert_array_equal(few.states[0], want.states[0][20:27])
    longest = run_ensemble(lorenz, starts(50), rho, t1=1.0, ts=[0.5], longest_first=rho)
    np.testing.assert_array_equal(longest.saved[2], want.saved[2])


def test_large_states_are_integrated_by_loops():
    """A network of 5 × 6 coupled numbers: too long to be written out with seven stages."""
    rng = np.random.default_rng(4)
    weights = rng.normal(size=(6, 5, 5)) / 3
    start = rng.normal(size=(6, 5, 6))
    field = lambda t, y, w: jnp.tanh(w @ y @ y.T @ y) - y  # noqa: E731
    fused, xla = (run_ensemble(field, start, weights, t1=1.0, rtol=1e-7, engine=engine) for engine in ("fused", "xla"))
    np.testing.assert_array_equal(fused.n_steps, xla.n_steps)
    np.testing.assert_allclose(fused.states, xla.states, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "t1: expected the end of time"),
        ({"t1": -1.0}, "t1: expected finite numbers above 0"),
        ({"t1": [1.0, 2.0]}, "t1: expected one number or one for each of 3 trials"),
        ({"t1": 1.0, "method": "euler"}, "method: expected one of"),
        ({"t1": 1.0, "method": "rk4"}, "dt: expected the step size"),
        ({"t1": 1.0, "method": "rodas5p", "dt": 0.1}, "chooses its own steps"),
        ({"t1": 1.0, "dt": 1e-9}, "max_steps: .* steps of dt are needed"),
        ({"t1": 1.0, "rtol": 0.0}, "rtol: expected finite numbers above 0"),
        ({"t1": 1.0, "ts": [0.5, 0.1]}, "ts: expected increasing times"),
        ({"t1": 1.0, "ts": [2.0]}, "ts: expected increasing times"),
        ({"method": "map"}, "steps: expected the number of steps"),
        ({"t1": 1.0, "longest_first": [1]}, "longest_first: expected one number for each of 3 trials"),
        ({"t1": 1.0, "engine": "warp"}, "engine: expected one of auto, fused, xla"),
        ({"t1": 1.0, "params": np.ones(2)}, "states, params: expected one leading axis"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        run_ensemble(lambda t, y, p: -y, np.ones(3), **options)
