"""Predictors that are set, cut, averaged, moved more often or kept symmetric, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import LINEAR, PLAIN, B, M, N, matrices, one_run, paper_gradients

from jaxdyn.networks.recipe import optimizers
from jaxdyn.networks.training import Batch, loss, step


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("rule", ["directpred", "directpred_released", "directcopy", "least_squares"])
def test_rules_set_the_predictor_from_moving_correlations(rule):
    knobs = PLAIN.with_(epsilon=0.1, offset=0.02 if rule == "directpred" else 0.0, memory=0.4, every=2)
    program, state, batch = one_run(LINEAR.with_(system="ema", rule=rule), knobs)
    correlation, cross = np.zeros((N, N)), np.zeros((N, N))
    for taken in range(4):
        a, b, c = matrices(state)
        f, v = np.asarray(batch.x) @ a.T, np.asarray(batch.y) @ c.T
        correlation = 0.4 * correlation + 0.6 * f.T @ f / B
        cross = 0.4 * cross + 0.6 * v.T @ f / B
        s, u = np.linalg.eigh(correlation)
        want = {
            "directpred": lambda s=s, u=u: u @ np.diag(np.sqrt(np.maximum(s - 0.02, 0)) + 0.1 * s.max()) @ u.T,
            "directpred_released": lambda s=s, u=u: u @ np.diag(np.sqrt(np.maximum(s, 0)) + 0.1 * s.max() ** 0.5) @ u.T,
            "directcopy": lambda s=s, k=correlation: k + 0.1 * s.max() * np.eye(N),
            "least_squares": lambda k=correlation, g=cross: (g + g.T) / 2 @ np.linalg.inv(k + 1e-3 * np.eye(N)),
        }[rule]()
        state, _ = step(program, state, knobs, batch)
        if taken % 2 == 0:
            np.testing.assert_allclose(matrices(state)[1], want, atol=1e-9)
            used = want
        else:
            used = b
            assert np.abs(matrices(state)[1] - b).max() > 1e-6  # gradient steps in between
        da, _ = paper_gradients(a, used, c, np.asarray(batch.x), np.asarray(batch.y), "ema")
        np.testing.assert_allclose(matrices(state)[0], a - 0.05 * (da + 0.03 * a), atol=1e-9)


def test_simple_averages_are_over_all_batches_so_far():
    knobs = PLAIN.with_(epsilon=0.1)
    program, state, _ = one_run(LINEAR.with_(system="ema", rule="directpred", average="simple"), knobs)
    seen = []
    for taken in range(4):
        x, y = jax.random.normal(jax.random.key(100 + taken), (2, B, M))
        f = np.asarray(x) @ matrices(state)[0].T
        seen.append(f.T @ f / B)
        state, _ = step(program, state, knobs, Batch(x, y, None))
        s, u = np.linalg.eigh(np.mean(seen, 0))
        want = u @ np.diag(np.sqrt(np.maximum(s, 0)) + 0.1 * s.max()) @ u.T
        np.testing.assert_allclose(matrices(state)[1], want, atol=1e-9)


def test_each_half_of_a_partition_has_its_own_matrix():
    knobs, planes = PLAIN.with_(epsilon=0.1, memory=0.4), 3
    recipe = LINEAR.with_(system="ema", rule="directcopy", partitions=planes, both_sides=True)
    program, state, _ = one_run(recipe, knobs)
    normals = np.asarray(state.student.predictor.normals)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=0), 1)
    remembered = np.zeros((planes, 2, N, N))
    for taken in range(3):
        x, y = np.asarray(jax.random.normal(jax.random.key(200 + taken), (2, B, M)))
        a, c = np.asarray(state.student.encoder.last.weight), np.asarray(state.teacher.last.weight)
        f = np.concatenate([x, y]) @ a.T
        thresholds = (f @ normals).mean(0)
        weights = np.zeros_like(remembered)
        for i in range(planes):
            for side in (0, 1):
                rows = f[(f @ normals[:, i] >= thresholds[i]) == bool(side)]
                batch = sum(np.outer(row, row) for row in rows) / len(rows)
                remembered[i, side] = 0.4 * remembered[i, side] + 0.6 * batch
                top = np.linalg.eigvalsh(remembered[i, side])[-1]
                weights[i, side] = remembered[i, side] + 0.1 * top * np.eye(N)
        value, _ = loss(program, state.student, state, knobs, Batch(jnp.asarray(x), jnp.asarray(y), None))
        sides = (f @ normals >= thresholds).astype(int)
        halves = [[weights[i, side[i]] @ row for i in range(planes)] for row, side in zip(f, sides, strict=True)]
        predicted = np.mean(halves, 1)
        goals = np.concatenate([y, x]) @ c.T
        np.testing.assert_allclose(value, 0.5 * np.sum((predicted - goals) ** 2, 1).mean(), rtol=1e-10)
        state, _ = step(program, state, knobs, Batch(jnp.asarray(x), jnp.asarray(y), None))
        np.testing.assert_allclose(state.student.predictor.weights, weights, atol=1e-10)
        np.testing.assert_allclose(state.student.predictor.thresholds, thresholds, atol=1e-12)
        np.testing.assert_array_equal(state.student.predictor.normals, normals)


@pytest.mark.parametrize("method", ["sg", "ema", "objective"])
def test_the_predictor_may_take_more_steps_than_the_encoder(method):
    knobs = PLAIN
    program, state, batch = one_run(LINEAR.with_(system=method, predictor_steps=3, momentum=0.9), knobs)
    x, y = np.asarray(batch.x), np.asarray(batch.y)
    speed_a, speed_b = np.zeros((N, M)), np.zeros((N, N))
    a, b, c = matrices(state)
    for _ in range(2):
        for part in range(3):
            da, db = paper_gradients(a, b, c if method == "ema" else a, x, y, method)
            speed_b = 0.9 * speed_b + db + 0.07 / 2.5 * b
            if part == 2:
                speed_a = 0.9 * speed_a + da + 0.03 * a
                a = a - 0.05 * speed_a
            b = b - 0.05 * 2.5 * speed_b
        c = 0.8 * c + 0.2 * a
        before = matrices(state)[1]
        state, moved = step(program, state, knobs, batch)
        np.testing.assert_allclose(matrices(state)[0], a, atol=1e-10)
        np.testing.assert_allclose(matrices(state)[1], b, atol=1e-10)
        np.testing.assert_allclose(moved.predictor, np.linalg.norm(matrices(state)[1] - before), rtol=1e-10)


def test_more_steps_of_the_predictor_keep_the_schedule_and_the_symmetry():
    recipe = LINEAR.with_(system="sg", predictor_steps=4, schedule="cosine", steps=10)
    _, second = optimizers(recipe, PLAIN)
    _, alone = optimizers(recipe.with_(predictor_steps=1), PLAIN)
    weight = jnp.array([1.0, -2.0])
    fast, slow = second.init(weight), alone.init(weight)
    for _ in range(5):
        want, slow = alone.update(weight, slow, weight)
        for _ in range(4):
            got, fast = second.update(weight, fast, weight)
            np.testing.assert_array_equal(got, want)
    for predictor in ("mlp_bias", "linear_bias"):
        knobs = PLAIN.with_(symmetrise=1)
        program, state, batch = one_run(recipe.with_(predictor=predictor, schedule="constant"), knobs)
        state, moved = step(program, state, knobs, batch)
        assert np.isfinite(moved.loss)
        if predictor == "linear_bias":
            np.testing.assert_array_equal(state.student.predictor.weight, state.student.predictor.weight.T)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"average": "simple"}, "average"),
        ({"partitions": 3}, "partitions"),
        ({"rule": "least_squares", "partitions": 3}, "partitions"),
        ({"rule": "directpred", "predictor": "linear_bias", "partitions": 3}, "partitions"),
        ({"rule": "directpred", "predictor_steps": 2}, "predictor_steps"),
        ({"predictor": "none", "predictor_steps": 2}, "predictor_steps"),
        ({"predictor_steps": 0}, "predictor_steps"),
        ({"partitions": -1}, "partitions"),
    ],
)
def test_predictors_settings_that_do_not_apply_are_refused(changes, named):
    with pytest.raises(ValueError, match=f"^{named}: "):
        LINEAR.with_(**changes)


def test_symmetrised_predictors_are_symmetric():
    knobs = PLAIN.with_(symmetrise=1)
    program, state, batch = one_run(LINEAR.with_(system="sg"), knobs)
    state, _ = step(program, state, knobs, batch)
    b = matrices(state)[1]
    np.testing.assert_array_equal(b, b.T)
    program, state, batch = one_run(LINEAR.with_(system="sg", predictor="mlp_bias"), knobs)
    state, _ = step(program, state, knobs, batch)
    predictor = state.student.predictor
    np.testing.assert_array_equal(predictor.last.weight, predictor.hidden.linear.weight.T)
