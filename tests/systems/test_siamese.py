import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from registry import EXAMPLES, SHAPES, moments

import jaxdyn as jd
from jaxdyn.analysis.invariants import balance, encoder_decay_rate
from jaxdyn.analysis.linearise import jacobian
from jaxdyn.analysis.symmetry import rotate

every_system = pytest.mark.parametrize("example", EXAMPLES.values(), ids=list(EXAMPLES))
every_shape = pytest.mark.parametrize(("n", "m"), SHAPES)


@every_system
@every_shape
def test_field_and_step_match_numpy(example, n, m):
    data, state = moments(m), example.state(n, m)
    for have, want in zip(example.system.field(0.0, state, data), example.rates(state, data), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-12, atol=1e-12)
    x, y, z = (np.asarray(part) for part in (data.xx, data.yx, data.yy))
    settings_ = {key: value for key, value in example.oracle.items() if key != "beta"}
    lr = 0.05
    alpha = 1 - example.oracle.get("beta", 0.0) * lr
    want = oracles.procedure(example.name, tuple(map(np.asarray, state)), x, y, z, lr=lr, alpha=alpha, **settings_)
    for have, right in zip(example.system.step(state, data, lr), want, strict=True):
        np.testing.assert_allclose(have, right, rtol=1e-12, atol=1e-12)


@every_system
@every_shape
def test_energies_match_numpy_and_samples(example, n, m):
    data, state = moments(m), example.state(n, m)
    a, b = np.asarray(state.encoder), np.asarray(state.predictor)
    c = np.asarray(state.teacher) if example.name == "ema" else a
    x, y, z = (np.asarray(part) for part in (data.xx, data.yx, data.yy))
    decays = example.oracle["decay_a"], example.oracle["decay_b"]
    np.testing.assert_allclose(example.system.surrogate(state, data), oracles.energy(a, b, c, x, y, z, *decays))
    np.testing.assert_allclose(example.system.objective(state, data), oracles.energy(a, b, a, x, y, z, *decays))
    # Straight from the definition, over a finite sample that has these moments exactly.
    joint = np.block([[x, y.T], [y, z]])
    values, vectors = np.linalg.eigh(joint)
    sample = (vectors * np.sqrt(np.maximum(values, 0))).T * np.sqrt(2 * m)
    gap = sample[:, :m] @ (b @ a).T - sample[:, m:] @ c.T
    want = (gap**2).sum(1).mean() / 2 + decays[0] * (a**2).sum() / 2 + decays[1] * (b**2).sum() / 2
    np.testing.assert_allclose(example.system.surrogate(state, data), want, rtol=1e-9)


@every_shape
def test_fields_are_the_autodiff_gradients_they_claim_to_be(n, m):
    data = moments(m, 3)
    sg, ema, plain = jd.StopGradient(0.1), jd.MovingAverage(0.1, ema_rate=0.2), jd.Objective(0.1)
    state = EXAMPLES["ema"].state(n, m, 5)
    student = sg.state(encoder=state.encoder, predictor=state.predictor)
    # The objective's field is minus the gradient of E.
    gradient = jax.grad(plain.objective)(student, data)
    for have, want in zip(plain.field(0.0, student, data), gradient, strict=True):
        np.testing.assert_allclose(have, -want, atol=1e-11)
    # SG and EMA: minus the gradient of F with the teacher held fixed.
    gradient = jax.grad(ema.surrogate)(state, data)
    field = ema.field(0.0, state, data)
    np.testing.assert_allclose(field.encoder, -gradient.encoder, atol=1e-11)
    np.testing.assert_allclose(field.predictor, -gradient.predictor, atol=1e-11)
    held = ema.state(encoder=state.encoder, predictor=state.predictor)
    gradient = jax.grad(ema.surrogate)(held, data)
    field = sg.field(0.0, student, data)
    np.testing.assert_allclose(field.encoder, -gradient.encoder, atol=1e-11)
    np.testing.assert_allclose(field.predictor, -gradient.predictor, atol=1e-11)


@every_system
def test_jacobian_matches_finite_differences(example):
    data, state = moments(2), example.state(3, 2)
    flat, unravel = ravel_pytree(state)
    field = lambda y: ravel_pytree(example.system.field(0.0, unravel(y), data))[0]  # noqa: E731
    h = 1e-5
    columns = [(field(flat.at[i].add(h)) - field(flat.at[i].add(-h))) / (2 * h) for i in range(flat.size)]
    # Central differences of a cubic field: error h²·third derivative, about 1e-9 here.
    np.testing.assert_allclose(jacobian(example.system, state, data), np.stack(columns, 1), atol=1e-7)


@settings(deadline=None, max_examples=20)
@given(name=st.sampled_from(list(EXAMPLES)), shape=st.sampled_from(SHAPES), seed=st.integers(0, 10_000))
def test_orthogonal_symmetry(name, shape, seed):
    with jax.enable_x64(True):
        example, (n, m) = EXAMPLES[name], shape
        data, state = moments(m, seed), example.state(n, m, seed)
        u = jnp.asarray(np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0])
        system = example.system
        for act in (lambda s: system.field(0.0, s, data), lambda s: system.step(s, data, 0.1)):
            for have, want in zip(act(rotate(u, state)), rotate(u, act(state)), strict=True):
                np.testing.assert_allclose(have, want, atol=1e-9 * (1 + np.abs(want).max()))
        for energy in (system.objective, system.surrogate):
            np.testing.assert_allclose(energy(rotate(u, state), data), energy(state, data), rtol=1e-9)


@settings(deadline=None, max_examples=20)
@given(name=st.sampled_from(["sg", "ema"]), shape=st.sampled_from(SHAPES), seed=st.integers(0, 10_000))
def test_balance_decays_exactly(name, shape, seed):
    with jax.enable_x64(True):
        n, m = shape
        rng = np.random.default_rng(seed)
        decay, ratio = rng.uniform(0, 1), rng.uniform(0.2, 5)
        extra = {"ema_rate": 0.4} if name == "ema" else {}
        system = {"sg": jd.StopGradient, "ema": jd.MovingAverage}[name](decay, ratio, **extra)
        state = EXAMPLES[name].state(n, m, seed)
        k, rate = jax.jvp(lambda s: balance(system, s), (state,), (system.field(0.0, state, moments(m, seed)),))
        np.testing.assert_allclose(rate, -2 * decay * k, atol=1e-9 * (1 + np.abs(rate).max()))


@every_shape
def test_objective_shrinks_the_encoder_at_the_stated_rate(n, m):
    system, data = jd.Objective(0.2), moments(m, 1)
    state = EXAMPLES["objective"].state(n, m, 2)
    rate = jnp.sum(state.encoder * system.field(0.0, state, data).encoder)
    np.testing.assert_allclose(encoder_decay_rate(system, state, data), rate, rtol=1e-10)
    assert rate < 0


def test_ema_decay_and_rate_agree():
    system = jd.MovingAverage.from_decay(0.1, ema_decay=0.99, lr=0.05)
    assert system.ema_rate == pytest.approx(0.2)
    state = EXAMPLES["ema"].state(2, 1)
    new = system.step(state, moments(1), 0.05)
    np.testing.assert_allclose(new.teacher, 0.99 * state.teacher + 0.01 * new.encoder, rtol=1e-12)


def test_teacher_defaults_to_the_encoder():
    state = jd.MovingAverage(0.1, ema_rate=1.0).state(encoder=[[1.0], [2.0]], predictor=np.eye(2))
    np.testing.assert_array_equal(state.teacher, state.encoder)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jd.StopGradient(-0.1), "weight_decay"),
        (lambda: jd.StopGradient((0.1, -0.1)), "weight_decay"),
        (lambda: jd.StopGradient((0.1, 0.1, 0.1)), "weight_decay: expected one number or a pair"),
        (lambda: jd.StopGradient(float("nan")), "weight_decay"),
        (lambda: jd.StopGradient(0.1, -1.0), "predictor_lr_ratio"),
        (lambda: jd.MovingAverage(0.1, ema_rate=-1.0), "ema_rate"),
        (lambda: jd.MovingAverage.from_decay(0.1, ema_decay=1.5, lr=0.1), "ema_decay"),
        (lambda: jd.MovingAverage.from_decay(0.1, ema_decay=0.5, lr=0.0), "lr"),
        (lambda: jd.StopGradient(0.1).state(encoder=np.ones((2, 1)), predictor=np.eye(3)), "predictor: expected shape"),
        (lambda: jd.StopGradient(0.1).state(encoder=np.ones((2, 1)), predictor=np.ones((2, 3))), "predictor"),
        (lambda: jd.StopGradient(0.1).state(encoder=np.ones(2), predictor=np.eye(2)), "encoder: expected a matrix"),
        (lambda: jd.StopGradient(0.1).state(encoder=[[np.nan]], predictor=[[1.0]]), "encoder: expected finite"),
        (
            lambda: jd.MovingAverage(0.1, ema_rate=0.1).state(
                encoder=np.ones((2, 1)), predictor=np.eye(2), teacher=np.ones((1, 2))
            ),
            "teacher: expected shape",
        ),
        (lambda: jd.Objective(0.1).field(0.0, EXAMPLES["objective"].state(2, 1), jd.Moments([[1.0]], [[0.5]])), "yy"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_weight_decay_pairs_of_any_kind():
    for pair in ((0.1, 0.3), [0.1, 0.3], np.array([0.1, 0.3]), jnp.array([0.1, 0.3])):
        decay = jd.StopGradient(pair).weight_decay
        assert float(decay.encoder) == pytest.approx(0.1)
        assert float(decay.predictor) == pytest.approx(0.3)
    for bad in (np.ones(3), np.ones((2, 2)), np.array([]), np.array(["a"]), np.array(1j)):
        with pytest.raises(ValueError, match="weight_decay"):
            jd.StopGradient(bad)


def test_one_compilation_serves_all_hyperparameters():
    count = 0

    @jax.jit
    def rate(system, state, data):
        nonlocal count
        count += 1
        return system.field(0.0, state, data)

    for decay in (0.1, 0.2, 0.3):
        rate(jd.StopGradient(decay), EXAMPLES["sg"].state(2, 1), moments(1))
    assert count == 1
