import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from registry import EXAMPLES, moments
from scipy.integrate import solve_ivp

import jaxdyn as jd
from jaxdyn.solve.flow import SOLVERS

every_system = pytest.mark.parametrize("example", EXAMPLES.values(), ids=list(EXAMPLES))


def decay(t, y, rate):
    """ẏ = −rate·y"""
    return jax.tree.map(lambda leaf: -rate * leaf, y)


@every_system
@pytest.mark.parametrize("solver", ["tsit5", "kvaerno5"])
def test_flow_matches_scipy(example, solver):
    data, state = moments(2), example.state(3, 2)
    times = np.array([0.0, 0.7, 2.0, 6.0])
    flat, unravel = ravel_pytree(state)

    def rate(_, y):
        return np.concatenate([part.ravel() for part in example.rates(unravel(jnp.asarray(y)), data)])

    want = solve_ivp(rate, (0, 6.0), np.asarray(flat), method="DOP853", t_eval=times, rtol=1e-11, atol=1e-12)
    path = jd.flow(example.system, state, data, t1=6.0, ts=times, solver=solver)
    have = jax.vmap(lambda s: ravel_pytree(s)[0])(path.states)
    # The flow's own tolerance is 1e-8 per step; errors add up over some hundred steps.
    np.testing.assert_allclose(have, want.y.T, atol=2e-6)
    assert int(path.status) == jd.Status.COMPLETED
    np.testing.assert_array_equal(path.final.encoder, path.states.encoder[-1])


@pytest.mark.parametrize(("solver", "order"), [("tsit5", 5), ("dopri8", 8), ("kvaerno5", 5)])
def test_fixed_steps_converge_with_the_solvers_order(solver, order):
    example = EXAMPLES["ema"]
    data, state = moments(2), jax.tree.map(lambda leaf: 0.4 * leaf, example.state(3, 2))
    exact = jd.flow(example.system, state, data, t1=2.0, solver="dopri8", rtol=1e-13, atol=1e-14).final
    # Steps long enough that the error stays above rounding for the high order.
    steps = np.array([0.5, 0.4, 0.25, 0.2]) if order == 8 else np.array([0.2, 0.1, 0.05, 0.025])
    errors = []
    for dt in steps:
        final = jd.flow(example.system, state, data, t1=2.0, solver=solver, dt=float(dt)).final
        errors.append(max(float(jnp.abs(h - w).max()) for h, w in zip(final, exact, strict=True)))
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope > order - 0.5, (slope, errors)


def test_flow_of_a_bare_field_and_any_pytree():
    start = {"a": jnp.ones(3), "b": (jnp.full((2, 2), 2.0),)}
    path = jd.flow(decay, start, 0.5, t1=2.0, ts=[1.0, 2.0])
    np.testing.assert_allclose(path.states["a"], np.exp([[-0.5], [-1.0]]) * np.ones(3), rtol=1e-7)
    np.testing.assert_allclose(path.final["b"][0], 2 * np.exp(-1.0) * np.ones((2, 2)), rtol=1e-7)


def test_steady_state_stop_holds_the_state():
    system, data = jd.StopGradient(0.05), jd.Moments.scalar(1.0, 0.9)
    start = system.state(encoder=[[0.9], [0.1]], predictor=[[0.8, 0.0], [0.0, 0.3]])
    path = jd.flow(system, start, data, t1=1e5, ts=[10.0, 1e4, 1e5], until=jd.Rest(1e-8), solver="kvaerno5")
    assert int(path.status) == jd.Status.CONVERGED
    assert 10 < float(path.stopped_at) < 1e4
    np.testing.assert_array_equal(path.states.encoder[1], path.states.encoder[2])
    radius = (0.9 + np.sqrt(0.81 - 0.2)) / 2
    np.testing.assert_allclose(np.linalg.norm(path.final.encoder), radius, rtol=1e-6)


def test_failures_are_statuses_not_exceptions():
    path = jd.flow(decay, jnp.ones(2), 1.0, t1=10.0, max_steps=3)
    assert int(path.status) == jd.Status.OUT_OF_STEPS
    assert float(path.stopped_at) < 10
    assert np.isfinite(path.final).all()


@pytest.mark.parametrize("dt", [None, 0.01])
def test_blow_up_keeps_the_last_good_states(dt):
    path = jd.flow(lambda t, y, _: y**2, jnp.ones(1), None, t1=5.0, ts=[0.0, 0.5, 3.0, 5.0], dt=dt)
    assert int(path.status) == jd.Status.DIVERGED
    assert float(path.stopped_at) < 1.1  # the solution 1/(1 − t) ends at 1
    np.testing.assert_allclose(path.states[:2, 0], [1.0, 2.0], rtol=1e-6)
    assert np.isfinite(path.states).all()
    beyond = jd.flow(lambda t, y, _: jnp.where(t > 1, jnp.nan, -y), jnp.ones(1), None, t1=5.0, ts=[0.0, 5.0], dt=dt)
    assert int(beyond.status) == jd.Status.DIVERGED
    assert np.isfinite(beyond.states).all()


def test_huge_starts_are_integrated():
    system = jd.StopGradient(0.05)
    start = system.state(encoder=[[100.0], [50.0]], predictor=100 * np.eye(2))
    path = jd.flow(system, start, jd.Moments.scalar(1.0, 0.9), t1=10.0, ts=[0.0, 10.0], solver="kvaerno5")
    assert int(path.status) == jd.Status.COMPLETED
    np.testing.assert_array_equal(path.states.encoder[0], start.encoder)
    assert np.isfinite(path.final.encoder).all()


def test_numbers_are_not_compiled_in(monkeypatch):
    traces = []

    class Counted(jd.StopGradient):
        def gradient(self, state, moments):
            traces.append(1)
            return super().gradient(state, moments)

    data, start = moments(1), EXAMPLES["sg"].state(2, 1)
    jd.flow(Counted(0.05), start, data, t1=1.0)
    jd.descend(Counted(0.05), start, data, lr=0.1, steps=5)
    first = len(traces)
    for decay, t1, lr in ((0.06, 2.0, 0.2), (0.07, 3.0, 0.3)):
        jd.flow(Counted(decay, 1.0 + decay), start, data, t1=t1, rtol=1e-6 * t1)
        jd.descend(Counted(decay), start, data, lr=lr, steps=5)
    # The first step's size is found outside the solver's loop, but inside the compiled function.
    # Each call traces a class of the user's once, to see whether it still means the same: nothing is compiled anew.
    assert len(traces) == first + 4


def test_array_arguments_and_mixed_precision():
    example, data = EXAMPLES["ema"], moments(2)
    want = jd.flow(example.system, example.state(3, 2), data, t1=1.0).final.encoder
    have = jd.flow(
        example.system, example.state(3, 2), data, t1=jnp.asarray(1.0), ts=jnp.array([0.5, 1.0])
    ).final.encoder
    np.testing.assert_allclose(have, want, rtol=1e-6)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), example.state(3, 2))
    for path in (
        jd.flow(example.system, single, data, t1=1.0),
        jd.descend(example.system, single, data, lr=1e-2, steps=100),
    ):
        assert path.final.encoder.dtype == jnp.float32
        np.testing.assert_allclose(path.final.encoder, want, atol=0.1)
    rates = jax.vmap(lambda lr: jd.descend(example.system, example.state(3, 2), data, lr=lr, steps=10).final.encoder)(
        jnp.array([0.01, 0.02])
    )
    np.testing.assert_allclose(
        rates[1], jd.descend(example.system, example.state(3, 2), data, lr=0.02, steps=10).final.encoder, rtol=1e-12
    )
    ends = jax.jit(lambda t1: jd.flow(example.system, example.state(3, 2), data, t1=t1).final.encoder)(1.0)
    np.testing.assert_allclose(ends, want, rtol=1e-6)


def test_stiff_flow_takes_few_implicit_steps():
    rho, tau, lam = 1e-3, 0.9, 0.05
    system, data = jd.StopGradient(lam), jd.Moments.scalar(rho, tau)
    start = system.state(encoder=[[1.0], [0.5]], predictor=[[1.0, 0.0], [0.0, 0.5]])
    explicit = jd.flow(system, start, data, t1=200.0)
    implicit = jd.flow(system, start, data, t1=200.0, solver="kvaerno5")
    np.testing.assert_allclose(implicit.final.encoder, explicit.final.encoder, rtol=1e-4)
    assert int(implicit.n_steps) * 20 < int(explicit.n_steps)


def test_flow_computes_in_the_states_dtype():
    path = jd.flow(decay, jnp.ones(2, jnp.float32), np.float32(1.0), t1=1.0)
    assert path.final.dtype == jnp.float32
    np.testing.assert_allclose(path.final, np.exp(-1.0), rtol=1e-4)


def test_flow_under_vmap_and_grad():
    rates = jnp.array([0.5, 1.0, 2.0])
    finals = jax.vmap(lambda rate: jd.flow(decay, jnp.ones(1), rate, t1=1.0).final)(rates)
    np.testing.assert_allclose(finals[:, 0], np.exp(-rates), rtol=1e-7)
    slope = jax.grad(lambda rate: jd.flow(decay, jnp.ones(1), rate, t1=1.0).final[0])(0.5)
    np.testing.assert_allclose(slope, -np.exp(-0.5), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t1": 0.0}, "t1"),
        ({"t1": 1.0, "ts": [0.5, 0.2]}, "ts: expected increasing"),
        ({"t1": 1.0, "ts": [0.5, 2.0]}, "ts: expected finite times in"),
        ({"t1": 1.0, "ts": []}, "ts: expected a non-empty"),
        ({"t1": 1.0, "solver": "euler"}, "solver: expected one of tsit5"),
        ({"t1": 1.0, "rtol": -1.0}, "rtol"),
        ({"t1": 1.0, "dt": 0.0}, "dt"),
        ({"t1": 1.0, "max_steps": 0}, "max_steps"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        jd.flow(decay, jnp.ones(1), 1.0, **arguments)


def test_mismatched_moments_and_systems_are_named():
    sg, ema = EXAMPLES["sg"], EXAMPLES["ema"]
    for run in (lambda s, y, d: jd.flow(s, y, d, t1=1.0), lambda s, y, d: jd.descend(s, y, d, lr=0.1, steps=3)):
        with pytest.raises(ValueError, match="encoder: expected shape"):
            run(sg.system, sg.state(2, 1), moments(3))
        with pytest.raises(ValueError, match="state: expected a TeacherState"):
            run(ema.system, sg.state(2, 1), moments(1))
        with pytest.raises(ValueError, match="state: expected a StudentState"):
            run(sg.system, ema.state(2, 1), moments(1))
        with pytest.raises(ValueError, match="predictor: expected shape"):
            run(sg.system, sg.state(2, 1)._replace(predictor=jnp.eye(3)), moments(1))
        with pytest.raises(ValueError, match="data: expected Moments"):
            run(sg.system, sg.state(2, 1), None)
    with pytest.raises(ValueError, match="state: expected floating"):
        jd.flow(decay, jnp.ones(1, int), 1.0, t1=1.0)
    assert set(SOLVERS) == {"tsit5", "dopri8", "kvaerno5"}
