"""Ensembles of maps and flows: integrators against diffrax, SciPy, closed forms; what every trial reports."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import jaxdyn as jd
from jaxdyn.solve.ensemble import descend_ensemble, flow_ensemble
from jaxdyn.solve.methods import rodas5p, tsit5
from jaxdyn.solve.methods.base import Carried, Held, Skeleton

EACH = (None, 0, 0)  # in_axes: starts and data differ from trial to trial

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
    have = flow_ensemble(lorenz, starts(23), rho, in_axes=EACH, t1=1.0, rtol=1e-6, atol=1e-6, engine=engine)
    program = tsit5.Tsit5(Skeleton.of(lorenz)[0])

    def reference(start, rho):
        held = Held(None, rho, jnp.ones(()), (), 1e-6, 1e-6, jnp.zeros(()))
        first = program.init(start, held).dt
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lorenz), diffrax.Tsit5(), 0.0, 1.0, first, start, rho,
            stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6), saveat=diffrax.SaveAt(t1=True),
        )  # fmt: skip

    want = jax.jit(jax.vmap(reference))(starts(23), rho)
    assert (have.status == jd.Status.COMPLETED).all()
    np.testing.assert_array_equal(have.n_steps, want.stats["num_steps"])
    for a, b in zip(have.final, want.ys, strict=True):
        np.testing.assert_allclose(a, b[:, 0], rtol=1e-10, atol=1e-12)


@every_engine
@pytest.mark.parametrize(("solver", "options"), [("tsit5", {}), ("rodas5p", {}), ("rk4", {"dt": 2e-3})])
def test_ends_and_saved_states_match_the_closed_form(engine, solver, options):
    p = np.array([0.3, 1.0, -1.3])
    ts = np.array([0.0, 0.01, 0.5, 0.7, 2.99, 3.0])
    ends = flow_ensemble(
        swing, np.zeros(3), p, in_axes=EACH, solver=solver, t1=3.0, ts=ts, engine=engine,
        save=lambda t, y, p: (t, y), **options,
    )  # fmt: skip
    np.testing.assert_allclose(ends.final, exact_swing(3.0, p), rtol=1e-7)
    np.testing.assert_allclose(ends.stopped_at, 3.0)
    np.testing.assert_array_equal(ends.times, ts)
    times, states = ends.states
    np.testing.assert_array_equal(times, np.tile(ts, (3, 1)))
    # Between steps the interpolants are of order 4.
    np.testing.assert_allclose(states, exact_swing(ts, p[:, None]), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize(("solver", "order"), [("rk4", 4), ("tsit5", 5)])
def test_fixed_steps_converge_at_their_order(solver, order):
    sizes = np.array([0.1, 0.05, 0.025])
    errors = [
        abs(flow_ensemble(swing, np.zeros(1), 1.0, solver=solver, t1=2.0, dt=dt).final[0] - exact_swing(2.0, 1.0))
        for dt in sizes
    ]
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert order - 0.3 < slope < order + 1


def test_rodas5p_converges_at_order_five_also_where_the_field_depends_on_time():
    program, errors, sizes = rodas5p.Rodas5P(Skeleton.of(swing)[0]), [], np.array([0.2, 0.1, 0.05])
    for h in sizes:
        path = Carried(jnp.zeros(()), jnp.zeros(()))
        held = Held(None, jnp.ones(()), 2.0, t0=0.0, t1=2.0)
        for _ in range(round(2 / h)):
            path = Carried(path.t + h, program.attempt(path, held, h)[0])
        errors.append(abs(float(path.state) - exact_swing(2.0, 1.0)))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert 4.7 < slope < 6


@pytest.mark.parametrize("kind", [tsit5.Tsit5, rodas5p.Rodas5P])
def test_interpolants_converge_at_order_four(kind):
    program, sizes, errors = kind(Skeleton.of(swing)[0]), np.array([0.2, 0.1, 0.05]), []
    for h in sizes:
        rate = swing(0.4, exact_swing(0.4, 1.0), 1.0)
        before = Carried(jnp.array(0.4), jnp.asarray(exact_swing(0.4, 1.0)), (), rate)
        held = Held(None, jnp.ones(()), 2.0, t0=0.0, t1=2.0)
        after = Carried(before.t + h, program.attempt(before, held, h)[0])
        x = np.array([0.2, 0.5, 0.9])
        values = np.array([program.between(before, after, held)(each) for each in x])
        errors.append(np.max(np.abs(values - exact_swing(0.4 + x * h, 1.0))))
    assert np.polyfit(np.log(sizes), np.log(errors), 1)[0] > 4.6  # of one step: order four and one more


def test_tableaux_satisfy_their_order_conditions():
    """The conditions on the quadrature, and that rows sum to their nodes (Hairer, Nørsett & Wanner II.1)."""
    a, c = tsit5.A, tsit5.C
    np.testing.assert_allclose([sum(row) for row in a], c, atol=1e-14)
    weights, nodes = np.array(a[-1]), np.array((0.0, *c[:5]))
    np.testing.assert_allclose([weights @ nodes**k for k in range(5)], 1 / np.arange(1, 6), atol=1e-14)
    embedded = np.append(weights, 0) - np.array(tsit5.ERROR)
    np.testing.assert_allclose([embedded @ np.append(nodes, 1) ** k for k in range(4)], 1 / np.arange(1, 5), atol=1e-14)
    np.testing.assert_allclose(np.array(tsit5.tsit5_weights(1.0))[:6], weights, atol=1e-12)


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
    ends = flow_ensemble(
        reaction, start, rates, in_axes=EACH, solver="rodas5p", t1=100.0, rtol=1e-8, atol=1e-12, engine=engine
    )
    assert (ends.status == jd.Status.COMPLETED).all()
    assert ends.n_steps.max() < 300
    for k, end in zip(rates, ends.final, strict=True):
        plain = lambda t, y, k=k: np.asarray(reaction(t, y, k))  # noqa: E731
        want = solve_ivp(plain, (0, 100.0), start[0], method="Radau", rtol=1e-10, atol=1e-14).y[:, -1]
        np.testing.assert_allclose(end, want, rtol=1e-6, atol=1e-12)
    stuck = flow_ensemble(
        reaction, start, rates, in_axes=EACH, t1=100.0, rtol=1e-8, atol=1e-12, max_steps=3000, engine=engine
    )
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
        flow_ensemble(system, states, data, in_axes=EACH, solver=solver, t1=20.0, rtol=1e-9, atol=1e-11, engine=engine)
        for solver in ("tsit5", "rodas5p")
    )
    for a, b in zip(plain.final, stiff.final, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)
    state, moments = jax.tree.map(lambda leaf: leaf[2], (states, data))
    want = jd.flow(system, state, moments, t1=20.0)
    np.testing.assert_allclose(plain.final.encoder[2], want.final.encoder, rtol=1e-6)


@every_engine
def test_every_trial_says_how_it_ended(engine):
    def field(t, y, p):
        return p * y**2

    p = np.array([-1.0, 1.0, 0.1])  # decays; blows up at t = 1; is stopped at y = 1.5
    ends = flow_ensemble(
        field, np.ones(3), p, in_axes=EACH, t1=np.array([2.0, 2.0, 9.0]), until=lambda t, y, p: (y > 1.5) & (p < 0.5),
        engine=engine, ts=[0.5, 1.5, 9.0], max_steps=5000,
    )  # fmt: skip
    np.testing.assert_array_equal(ends.status, [jd.Status.COMPLETED, jd.Status.DIVERGED, jd.Status.CONVERGED])
    np.testing.assert_allclose(ends.final[0], 1 / 3, rtol=1e-7)
    assert 0.99 < ends.stopped_at[1] < 1.001
    # After its end a trial's last state is repeated, as in `flow`.
    np.testing.assert_allclose(ends.states[0], [2 / 3, 0.4, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(ends.states[1], [2.0, ends.final[1], ends.final[1]], rtol=1e-6)
    np.testing.assert_allclose(ends.states[2, 2], ends.final[2], rtol=1e-12)
    stop = lambda t, y, p: (y > 1.5) & (p < 0.5)  # noqa: E731
    one = jd.flow(field, jnp.ones(()), 0.1, t1=9.0, ts=[0.5, 1.5, 9.0], until=stop)
    assert int(one.status) == jd.Status.CONVERGED
    np.testing.assert_allclose(one.states[:2], ends.states[2, :2], rtol=1e-6)


@every_engine
def test_procedures_run_their_steps_or_until(engine):
    halve = lambda y, p, lr: {"x": y["x"] * p, "n": y["n"] + 1}  # noqa: E731
    start = {"x": np.array([1.0, 2.0, 4.0]), "n": np.zeros(3)}
    fixed = descend_ensemble(halve, start, 0.5, lr=1.0, steps=10, save_every=3, engine=engine)
    np.testing.assert_array_equal(fixed.times, [0, 3, 6, 9, 10])
    np.testing.assert_array_equal(fixed.final["x"], start["x"] / 1024)
    np.testing.assert_array_equal(fixed.states["x"], start["x"][:, None] * 0.5 ** np.array([0, 3, 6, 9, 10]))
    np.testing.assert_array_equal(fixed.states["n"], [[0, 3, 6, 9, 10]] * 3)
    assert (fixed.status == jd.Status.COMPLETED).all()
    small = lambda step, y, p: y["x"] < 0.1  # noqa: E731
    ended = descend_ensemble(halve, start, 0.5, lr=1.0, until=small, steps=5, save_every=5, engine=engine)
    np.testing.assert_array_equal(ended.n_steps, [4, 5, 5])
    want = [jd.Status.CONVERGED, jd.Status.COMPLETED, jd.Status.COMPLETED]  # the second's rule holds at its very end
    np.testing.assert_array_equal(ended.status, want)
    one = jax.vmap(lambda x, n: jd.descend(halve, {"x": x, "n": n}, 0.5, lr=1.0, until=small, steps=5, save_every=5))
    single = one(jnp.asarray(start["x"]), jnp.asarray(start["n"]))
    for have, wanted in zip(jax.tree.leaves(ended)[1:], jax.tree.leaves(single)[1:], strict=True):
        np.testing.assert_array_equal(have, wanted)


def test_fixed_steps_end_where_they_should_whatever_the_trials_ends():
    decay = lambda t, y, p: -y  # noqa: E731
    for dt in (0.1, np.array([0.1, 0.07, 0.3])):
        ends = flow_ensemble(decay, np.ones(3), None, t1=np.array([1.0, 2.0, 0.95]), dt=dt, solver="rk4")
        np.testing.assert_allclose(ends.stopped_at, [1.0, 2.0, 0.95], rtol=1e-15)
        np.testing.assert_allclose(ends.final, np.exp(-ends.stopped_at), rtol=1e-4)
        np.testing.assert_array_equal(ends.n_steps, np.ceil(np.array([1.0, 2.0, 0.95]) / dt - 1e-9))


@every_engine
def test_steps_near_the_end_may_be_rejected(engine):
    """Where 100 roundings of t1 are longer than a step, the last step must still be allowed to shrink."""
    turn = lambda t, y, p: p * jnp.stack([y[1], -y[0]])  # noqa: E731
    start = np.array([[1.0, 0.0]])
    ends = flow_ensemble(turn, start, 1e4, t0=1e9, t1=1e9 + 0.01, max_steps=20_000, engine=engine)
    assert ends.status[0] == jd.Status.COMPLETED
    with jax.enable_x64(False):
        single = np.float32(start)
        ends = flow_ensemble(turn, single, np.float32(20.0), t0=990.0, t1=1000.0, max_steps=20_000, engine=engine)
        assert ends.status[0] == jd.Status.COMPLETED
        assert ends.final.dtype == np.float32


@every_engine
def test_a_rejected_step_is_not_rest(engine):
    stiff = lambda t, y, p: jnp.stack([y[1], p * (1 - y[0] ** 2) * y[1] - y[0]])  # noqa: E731
    at_rest = jd.Rest(1e-12)
    ends = flow_ensemble(stiff, np.array([[2.0, 0.0]]), 50.0, t1=10.0, until=at_rest, engine=engine)
    assert ends.status[0] == jd.Status.COMPLETED


def test_fixed_steps_do_not_drift_nor_depend_on_the_others():
    swing = lambda t, y, p: jnp.stack([y[1], -y[0]])  # noqa: E731
    with jax.enable_x64(False):
        start = np.array([[1.0, 0.0]], np.float32)
        alone = flow_ensemble(swing, start, None, t1=np.array([100.0]), dt=1e-3, solver="rk4", ts=[99.0, 100.0])
        pair = np.repeat(start, 2, 0)
        other = flow_ensemble(swing, pair, None, t1=np.array([100.0, 50.0]), dt=1e-3, solver="rk4")
    np.testing.assert_array_equal(alone.n_steps, 100_000)
    np.testing.assert_array_equal(other.n_steps, [100_000, 50_000])
    np.testing.assert_array_equal(alone.final[0], other.final[0])
    np.testing.assert_allclose(alone.states[0, :, 0], np.cos(np.array([99.0, 100.0])), atol=2e-3)
    np.testing.assert_array_equal(other.stopped_at, np.array([100.0, 50.0], np.float32))


def test_times_may_be_negative_and_end_where_the_run_ends():
    decay = lambda t, y, p: -y  # noqa: E731
    ends = flow_ensemble(decay, np.ones(2), None, t0=-10.0, t1=-9.0, ts=[-10.0, -9.5, -9.0])
    np.testing.assert_allclose(ends.states, np.exp(np.array([[0.0, -0.5, -1.0]] * 2)), rtol=1e-6)
    ends = flow_ensemble(decay, np.ones(1), None, t1=0.3, ts=[0.1, 0.1 * 3])  # 0.30000000000000004
    np.testing.assert_allclose(ends.states, np.exp(np.array([[-0.1, -0.3]])), rtol=1e-6)
    lost = flow_ensemble(decay, np.array([np.nan, 1.0]), None, t0=5.0, t1=6.0)
    np.testing.assert_array_equal(lost.stopped_at, [5.0, 6.0])
    np.testing.assert_array_equal(lost.status, [jd.Status.DIVERGED, jd.Status.COMPLETED])


def test_modules_with_other_numbers_are_other_functions():
    class Scaled(eqx.Module):
        factor: object

        def step(self, x, p, lr):
            return x * (3.0 if isinstance(self.factor, int) else 2.0)

    for factor, want in ((1, 3.0), (1.0, 2.0), (True, 3.0)):
        ends = descend_ensemble(Scaled(factor), np.ones(1), None, lr=1.0, steps=1)
        assert ends.final[0] == want


def test_bits_do_not_depend_on_the_company_or_the_order():
    rho = np.linspace(0, 21, 50)
    want = flow_ensemble(lorenz, starts(50), rho, in_axes=EACH, t1=1.0, ts=[0.5])
    few = flow_ensemble(lorenz, starts(7), rho[20:27], in_axes=EACH, t1=1.0, ts=[0.5])
    np.testing.assert_array_equal(few.final[0], want.final[0][20:27])
    longest = flow_ensemble(lorenz, starts(50), rho, in_axes=EACH, t1=1.0, ts=[0.5], longest_first=rho)
    np.testing.assert_array_equal(longest.states[2], want.states[2])


def test_large_states_are_integrated_by_loops():
    """A network of 5 × 6 coupled numbers: too long to be written out with seven stages."""
    rng = np.random.default_rng(4)
    weights = rng.normal(size=(6, 5, 5)) / 3
    start = rng.normal(size=(6, 5, 6))
    field = lambda t, y, w: jnp.tanh(w @ y @ y.T @ y) - y  # noqa: E731
    fused, xla = (
        flow_ensemble(field, start, weights, in_axes=EACH, t1=1.0, rtol=1e-7, engine=engine)
        for engine in ("fused", "xla")
    )
    np.testing.assert_array_equal(fused.n_steps, xla.n_steps)
    np.testing.assert_allclose(fused.final, xla.final, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t1": -1.0}, "t1: expected finite numbers above 0"),
        ({"t1": [1.0, 2.0]}, "t1: expected one number or one for each of 3 trials"),
        ({"t1": 1.0, "t0": float("nan")}, "t0: expected a finite number"),
        ({"t1": 1.0, "solver": "euler"}, "solver: expected one of"),
        ({"t1": 1.0, "solver": "rk4"}, "dt: expected the step size"),
        ({"t1": 1.0, "solver": "rodas5p", "dt": 0.1}, "chooses its own steps"),
        ({"t1": 1.0, "dt": 0.1, "rtol": 1e-3}, "rtol, atol: steps of a fixed size dt have no error"),
        ({"t1": 1.0, "dt": 1e-9}, "max_steps: .* steps of dt are needed"),
        ({"t1": 1.0, "rtol": 0.0}, "rtol: expected finite numbers above 0"),
        ({"t1": 1.0, "ts": [0.5, 0.1]}, "ts: expected increasing times"),
        ({"t1": 1.0, "ts": [2.0]}, "ts: expected increasing times"),
        ({"t1": 1.0, "longest_first": [1]}, "longest_first: expected one finite number for each of 3 trials"),
        ({"t1": 1.0, "engine": "warp"}, "engine: expected one of auto, fused, xla"),
        ({"t1": 1.0, "until": lambda t, y, p: jnp.stack([y, y]) > 0}, "until: expected one truth value"),
        ({"t1": 1.0, "until": lambda t, y, p: 1.0}, "until: expected one truth value"),
        ({"t1": 1.0, "in_axes": (None, 0)}, "in_axes: expected three entries"),
        ({"t1": 1.0, "in_axes": (None, 1, None)}, "in_axes: expected 0 or None for states"),
        ({"t1": 1.0, "in_axes": (None, None, None)}, "in_axes: expected a leading axis of trials"),
        ({"t1": 1.0, "in_axes": (None, 0, 0)}, "data: in_axes says that it has a leading axis"),
        ({"t1": 1.0, "in_axes": (None, (0, 0), None)}, "in_axes: .* is not a prefix of states"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        flow_ensemble(lambda t, y, p: -y, np.ones(3), 1.0, **options)


def test_what_is_shared_is_said_not_guessed():
    """Two trials and a shared 2 × 2 matrix: the shapes alone could be taken for a number of trials."""
    matrix = np.array([[0.0, 1.0], [-1.0, 0.0]])
    field = lambda t, y, w: w @ y  # noqa: E731
    start = np.array([[1.0, 0.0], [0.0, 2.0]])
    ends = flow_ensemble(field, start, matrix, t1=1.0)
    c, s = np.cos(1.0), np.sin(1.0)
    np.testing.assert_allclose(ends.final, [[c, -s], [2 * s, 2 * c]], rtol=1e-7)
    each = flow_ensemble(lambda t, y, w: w * y, start, matrix, t1=1.0, in_axes=(None, 0, 0))
    np.testing.assert_allclose(each.final, start * np.exp(matrix), rtol=1e-7)
    pair = {"shared": np.array([1.0, 2.0]), "own": np.array([0.5, 1.0])}
    mixed = flow_ensemble(lambda t, y, p: -p["own"] * p["shared"] * y, start, pair, t1=1.0,
                          in_axes=(None, 0, {"shared": None, "own": 0}))  # fmt: skip
    np.testing.assert_allclose(mixed.final, start * np.exp(-np.outer([0.5, 1.0], [1.0, 2.0])), rtol=1e-7)
    with pytest.raises(ValueError, match="one number of trials on the axes that in_axes names, got 2 in states, 3"):
        flow_ensemble(field, start, np.ones((3, 2, 2)), t1=1.0, in_axes=(None, 0, 0))


@every_engine
def test_systems_differ_from_trial_to_trial_or_not(engine):
    rng = np.random.default_rng(0)
    decays = np.array([0.02, 0.05, 0.1])
    systems = jax.vmap(lambda decay: jd.MovingAverage(decay, ema_rate=0.3))(decays)
    states = jax.vmap(lambda a, b: jd.MovingAverage(0.0, ema_rate=0.3).state(encoder=a, predictor=b))(
        rng.normal(size=(3, 2, 2)), rng.normal(size=(3, 2, 2))
    )
    moments = jd.Moments.random(jax.random.key(0), 2)
    flows = flow_ensemble(systems, states, moments, t1=3.0, in_axes=(0, 0, None), engine=engine)
    runs = descend_ensemble(
        systems, states, moments, lr=[0.1, 0.05, 0.02], steps=50, in_axes=(0, 0, None), engine=engine
    )
    for i, (decay, lr) in enumerate(zip(decays, (0.1, 0.05, 0.02), strict=True)):
        system, state = jd.MovingAverage(float(decay), ema_rate=0.3), jax.tree.map(lambda leaf: leaf[i], states)  # noqa: B023
        want = jd.flow(system, state, moments, t1=3.0).final
        also = jd.descend(system, state, moments, lr=lr, steps=50).final
        for part in range(3):
            np.testing.assert_allclose(flows.final[part][i], want[part], rtol=1e-6, atol=1e-8)
            np.testing.assert_allclose(runs.final[part][i], also[part], rtol=1e-11)
    with pytest.raises(ValueError, match="encoder: expected shape"):
        flow_ensemble(systems, states, jd.Moments.scalar(1.0, 0.5), t1=1.0, in_axes=(0, 0, None))
    with pytest.raises(ValueError, match="ema_rate: expected ema_rate"):
        descend_ensemble(jd.MovingAverage(0.1, ema_rate=30.0), states, moments, lr=0.1, steps=5)
