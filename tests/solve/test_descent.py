import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from registry import EXAMPLES, moments

import jaxdyn as jd

every_system = pytest.mark.parametrize("example", EXAMPLES.values(), ids=list(EXAMPLES))
LR = 0.03


@every_system
def test_descent_matches_numpy(example):
    data, state = moments(2), example.state(3, 2)
    x, y, z = (np.asarray(part) for part in (data.xx, data.yx, data.yy))
    hyper = {key: value for key, value in example.oracle.items() if key != "beta"}
    alpha = 1 - example.oracle.get("beta", 0.0) * LR
    want, path = (
        tuple(np.asarray(part) for part in state),
        jd.descend(example.system, state, data, lr=LR, steps=203, save_every=50),
    )
    assert path.times.tolist() == [0, 50, 100, 150, 200, 203]
    saved = 0
    for step in range(204):
        if step in path.times.tolist():
            for have, right in zip(path.states, want, strict=True):
                np.testing.assert_allclose(have[saved], right, rtol=1e-9, atol=1e-9)
            saved += 1
        want = oracles.procedure(example.name, want, x, y, z, lr=LR, alpha=alpha, **hyper)
    np.testing.assert_array_equal(
        jd.descend(example.system, state, data, lr=LR, steps=203).final.encoder, path.final.encoder
    )


@every_system
def test_small_steps_follow_the_flow(example):
    data, state = moments(2), example.state(3, 2)
    exact = jd.flow(example.system, state, data, t1=1.0).final.encoder
    errors = [
        float(jnp.abs(jd.descend(example.system, state, data, lr=lr, steps=round(1 / lr)).final.encoder - exact).max())
        for lr in (2e-3, 1e-3)
    ]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)  # Euler: first order


@every_system
def test_plain_sgd_of_optax_is_the_procedure(example):
    data, state = moments(2), example.state(3, 2)
    plain = jd.descend(example.system, state, data, lr=LR, steps=100, save_every=20)
    sgd = jd.descend(example.system, state, data, lr=LR, steps=100, optimizer=optax.sgd(LR), save_every=20)
    for have, want in zip(sgd.states, plain.states, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-12, atol=1e-13)


def test_momentum_matches_numpy():
    example, momentum = EXAMPLES["ema"], 0.8
    data, state = moments(2), example.state(3, 2)
    path = jd.descend(example.system, state, data, lr=LR, steps=40, optimizer=optax.sgd(LR, momentum=momentum))
    want = [np.asarray(part) for part in state]
    x, y, z = (np.asarray(part) for part in (data.xx, data.yx, data.yy))
    velocity = [0.0, 0.0]
    for _ in range(40):
        rates = oracles.rates("ema", tuple(want), x, y, z, **example.oracle)
        velocity = [momentum * v - rate for v, rate in zip(velocity, rates[:2], strict=True)]
        want[:2] = [part - LR * v for part, v in zip(want[:2], velocity, strict=True)]
        want[2] = want[2] + example.oracle["beta"] * LR * (want[0] - want[2])
    for have, right in zip(path.final, want, strict=True):
        np.testing.assert_allclose(have, right, rtol=1e-10)


def test_blow_up_is_a_status():
    path = jd.descend(EXAMPLES["sg"].system, EXAMPLES["sg"].state(3, 2), moments(2), lr=100.0, steps=50)
    assert int(path.status) == jd.Status.DIVERGED


@pytest.mark.parametrize(
    ("change", "message"),
    [({"lr": 0.0}, "lr"), ({"lr": -1.0}, "lr"), ({"steps": 0}, "steps"), ({"save_every": 0}, "save_every"),
     ({"lr": 4.0}, "ema_rate: expected ema_rate")],
)  # fmt: skip
def test_bad_arguments_are_named(change, message):
    arguments = {"lr": 0.1, "steps": 3} | change
    with pytest.raises(ValueError, match=message):
        jd.descend(EXAMPLES["ema"].system, EXAMPLES["ema"].state(2, 1), moments(1), **arguments)


def test_an_optimizer_needs_a_gradient():
    with pytest.raises(ValueError, match="optimizer: expected a system"):
        jd.descend(lambda s, d, lr: s, jnp.ones(1), None, lr=0.1, steps=3, optimizer=optax.sgd(0.1))
    with pytest.raises(ValueError, match="steps"):
        jd.descend(EXAMPLES["sg"].system, EXAMPLES["sg"].state(2, 1), moments(1), lr=0.1, steps=2**40)
