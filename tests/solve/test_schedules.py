"""Settings that change during training: against loops and quadrature in NumPy, single and in ensembles."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from registry import EXAMPLES, moments
from scipy.integrate import solve_ivp

import jaxdyn as jd

every_engine = pytest.mark.parametrize("engine", ["fused", "xla"])


def numpy_run(state, data, steps, lr_at, decay_at, ratio_at, alpha_at, name="ema"):
    """The procedure with settings that are functions of the steps taken."""
    x, y, z = (np.asarray(part) for part in (data.xx, data.yx, data.yy))
    want = tuple(np.asarray(part) for part in state)
    for k in range(steps):
        decay = decay_at(k)
        want = oracles.procedure(name, want, x, y, z, decay, decay, lr_at(k), ratio_at(k), alpha_at(k))
    return want


def test_every_setting_of_a_procedure_may_change_with_the_step():
    data, state = moments(2), EXAMPLES["ema"].state(3, 2)
    lr_at = lambda k: 0.05 * (1 + np.cos(np.pi * min(k / 80, 1))) / 2 + 0.01  # noqa: E731
    system = jd.MovingAverage.from_decay(
        optax.linear_schedule(0.2, 0.01, 60),
        lambda step: 1 + step / 50,
        ema_decay=jd.byol_decay(0.9, 100),
        lr=lambda step: optax.cosine_decay_schedule(0.05, 80)(step) + 0.01,
    )
    path = jd.descend(
        system, state, data, lr=lambda step: optax.cosine_decay_schedule(0.05, 80)(step) + 0.01, steps=120
    )
    want = numpy_run(
        state, data, 120, lr_at, lambda k: 0.2 - 0.19 * min(k / 60, 1), lambda k: 1 + k / 50,
        lambda k: 1 - 0.1 * (1 + np.cos(np.pi * min(k / 100, 1))) / 2,
    )  # fmt: skip
    for have, right in zip(path.final, want, strict=True):
        np.testing.assert_allclose(have, right, rtol=1e-10)


def test_an_optimizers_schedule_and_the_teachers_are_one():
    """`optax.sgd` is given the learning rate of each step, by which the teacher moves, too."""
    data, state, system = moments(2), EXAMPLES["ema"].state(3, 2), EXAMPLES["ema"].system
    falling = optax.exponential_decay(0.05, 20, 0.5)
    plain = jd.descend(system, state, data, lr=falling, steps=60)
    sgd = jd.descend(system, state, data, lr=falling, steps=60, optimizer=optax.sgd)
    own = jd.descend(system, state, data, lr=falling, steps=60, optimizer=optax.sgd(falling))
    for have, also, want in zip(sgd.final, own.final, plain.final, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-12)
        np.testing.assert_allclose(also, want, rtol=1e-6)  # its own schedule is in single precision


def test_settings_of_a_flow_are_functions_of_time():
    data, state = moments(2), EXAMPLES["ema"].state(3, 2)
    system = jd.MovingAverage(lambda t: 0.1 * jnp.exp(-t), 1.3, ema_rate=lambda t: 0.2 + 0.1 * jnp.sin(t))
    x, y, z = (np.asarray(part) for part in (data.xx, data.yx, data.yy))
    shapes, sizes = [np.shape(part) for part in state], np.cumsum([np.size(part) for part in state])[:-1]

    def rate(t, flat):
        parts = tuple(part.reshape(shape) for part, shape in zip(np.split(flat, sizes), shapes, strict=True))
        decay = 0.1 * np.exp(-t)
        rates = oracles.rates("ema", parts, x, y, z, decay, decay, 1.3, 0.2 + 0.1 * np.sin(t))
        return np.concatenate([np.ravel(part) for part in rates])

    start = np.concatenate([np.ravel(part) for part in state])
    want = solve_ivp(rate, (1.0, 4.0), start, method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
    have = jd.flow(system, state, data, t0=1.0, t1=4.0).final
    np.testing.assert_allclose(np.concatenate([np.ravel(part) for part in have]), want, atol=1e-6)
    batch = jax.tree.map(lambda leaf: leaf[None], state)
    many = jd.flow_ensemble(system, batch, data, t0=1.0, t1=4.0).final
    np.testing.assert_allclose(np.concatenate([np.ravel(part) for part in many]), want, atol=1e-6)


@every_engine
@pytest.mark.parametrize("momentum", [None, 0.8])
def test_ensembles_do_what_single_runs_do(engine, momentum):
    data = moments(2)
    states = jax.vmap(lambda k: jd.MovingAverage(0.1, ema_rate=0.1).random_state(k, n=3, m=2))(
        jax.random.split(jax.random.key(0), 3)
    )
    tops = np.array([0.02, 0.05, 0.08])
    falling = lambda step, top: top / (1 + step / 10)  # noqa: E731
    system = jd.MovingAverage(lambda step: 0.1 / (1 + step / 20), ema_rate=0.5)
    optimizer = None if momentum is None else lambda lr: optax.sgd(lr, momentum=momentum)
    many = jd.descend_ensemble(
        system, states, data, lr=jd.Schedule(falling, tops), steps=40, save_every=15, optimizer=optimizer, engine=engine
    )
    for i, top in enumerate(tops):
        one = jd.descend(
            system, jax.tree.map(lambda leaf: leaf[i], states), data, lr=jd.Schedule(falling, float(top)), steps=40,  # noqa: B023
            save_every=15, optimizer=optimizer,
        )  # fmt: skip
        for have, want in zip(jax.tree.leaves(many.states), jax.tree.leaves(one.states), strict=True):
            np.testing.assert_allclose(have[i], want, rtol=1e-11)
        np.testing.assert_array_equal(many.times, one.times)


def test_trials_with_a_rising_decay_match_numpy():
    laws = jd.ScalarLaws("ema", ema_decay=jd.byol_decay(0.9, 2000), rho="uniform(0.5, 2)")
    trials = jd.run_trials(laws, 12, stopping=jd.Stopping(tolerance=1e-12, max_steps=1500), seed=2)
    constant = jd.run_trials(jd.ScalarLaws("ema", ema_decay=0.9, rho="uniform(0.5, 2)"), 12, seed=2)
    np.testing.assert_array_equal(trials["rho"], constant["rho"])
    from jaxdyn.trials.scalar import draw_scalars

    drawn = draw_scalars(laws, jd.Starts(n=2), 2, np.arange(12))
    for i in range(12):
        a, b = drawn.encoder[i], drawn.predictor[i]
        data = jd.Moments.scalar(float(drawn.rho[i]), float(drawn.tau[i]))
        decay, lr = float(drawn.weight_decay[i]), float(drawn.lr[i])
        steps = int(trials["steps"][i])
        end = numpy_run(
            (a, b, a), data, steps, lambda k, lr=lr: lr, lambda k, decay=decay: decay, lambda k: 1.0,
            lambda k: 1 - 0.1 * (1 + np.cos(np.pi * k / 2000)) / 2,
        )  # fmt: skip
        np.testing.assert_allclose(trials["final_radius"][i], np.linalg.norm(end[0]), rtol=1e-8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jd.StopGradient(lambda t: 0.1 - t), "system: expected a schedule of numbers >= 0, got"),
        (lambda: jd.StopGradient(lambda t: jnp.nan), "system: expected a schedule of numbers >= 0, got nan"),
        (lambda: jd.StopGradient(lambda t: jnp.ones(2)), "schedule: expected one number"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(make, message):
    state, data = EXAMPLES["sg"].state(2, 1), moments(1)
    for run in (
        lambda: jd.descend(make(), state, data, lr=0.1, steps=10),
        lambda: jd.flow(make(), state, data, t1=1.0),
        lambda: jd.flow_ensemble(make(), jax.tree.map(lambda leaf: leaf[None], state), data, t1=1.0),
    ):
        with pytest.raises(ValueError, match=message):
            run()
    with pytest.raises(ValueError, match="lr: expected a schedule"):
        jd.descend(jd.StopGradient(0.1), state, data, lr=lambda step: -0.1, steps=3)
    with pytest.raises(ValueError, match="schedule has no equilibrium"):
        jd.equilibria(jd.StopGradient(lambda t: 0.1), data)
    with pytest.raises(ValueError, match="ema_decay"):
        jd.byol_decay(1.5, 10)
