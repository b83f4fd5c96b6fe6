"""Training steps against the papers' procedures and formulas written out in NumPy."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import LINEAR, PLAIN, B, matrices, one_run, paper_gradients

from jaxdyn.data import Augmentation, from_images, from_views
from jaxdyn.data.base import to_device
from jaxdyn.networks.field import network_defect, update_field
from jaxdyn.networks.instruments import measure
from jaxdyn.networks.recipe import Knobs, Recipe, optimizers, stacked, teacher_decay
from jaxdyn.networks.training import (
    Batch,
    Network,
    advance,
    build,
    draw,
    embed,
    initial,
    loss,
    predict,
    program_of,
    start,
    step,
)


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("method", ["sg", "ema", "objective"])
def test_a_step_is_the_papers_procedure(method):
    program, state, batch = one_run(LINEAR.with_(system=method), PLAIN)
    state = state._replace(teacher=jax.tree.map(lambda leaf: 0.5 * leaf, state.teacher)) if method == "ema" else state
    for _ in range(3):
        a, b, c = matrices(state)
        da, db = paper_gradients(a, b, a if method == "sg" else c, np.asarray(batch.x), np.asarray(batch.y), method)
        state, moved = step(program, state, PLAIN, batch)
        new_a, new_b, new_c = matrices(state)
        want_a = a - PLAIN.lr * (da + PLAIN.weight_decay * a)
        np.testing.assert_allclose(new_a, want_a, atol=1e-12)
        np.testing.assert_allclose(new_b, b - PLAIN.lr * (2.5 * db + 0.07 * b), atol=1e-12)
        want_c = {"sg": want_a, "ema": 0.8 * c + 0.2 * want_a, "objective": c}[method]
        np.testing.assert_allclose(new_c, want_c, atol=1e-12)
        np.testing.assert_allclose(moved.encoder, np.linalg.norm(new_a - a), rtol=1e-10)
        np.testing.assert_allclose(moved.predictor, np.linalg.norm(new_b - b), rtol=1e-10)


def test_mixed_descends_the_weighted_sum():
    knobs = PLAIN.with_(objective_share=0.3)
    program, state, batch = one_run(LINEAR.with_(system="mixed"), knobs)
    state = state._replace(teacher=jax.tree.map(lambda leaf: 0.5 * leaf, state.teacher))
    a, b, c = matrices(state)
    gradient = jax.grad(lambda s: loss(program, s, state, knobs, batch)[0])(state.student)
    parts = [paper_gradients(a, b, c, np.asarray(batch.x), np.asarray(batch.y), m) for m in ("ema", "objective")]
    np.testing.assert_allclose(gradient.encoder.last.weight, 0.7 * parts[0][0] + 0.3 * parts[1][0], atol=1e-12)
    np.testing.assert_allclose(gradient.predictor.weight, 0.7 * parts[0][1] + 0.3 * parts[1][1], atol=1e-12)


def test_both_sides_and_unit_vectors():
    recipe = LINEAR.with_(both_sides=True, loss="normalised", system="sg")
    program, state, batch = one_run(recipe, PLAIN)
    a, b, _ = matrices(state)
    value, _ = loss(program, state.student, state, PLAIN, batch)
    unit = lambda v: v / np.linalg.norm(v, axis=1, keepdims=True)  # noqa: E731
    x, y = np.asarray(batch.x), np.asarray(batch.y)
    cosines = [np.sum(unit(p @ (b @ a).T) * unit(t @ a.T), 1).mean() for p, t in ((x, y), (y, x))]
    np.testing.assert_allclose(value, 1 - np.mean(cosines), atol=1e-10)


def test_sgd_decays_before_the_momentum():
    knobs = PLAIN.with_(predictor_lr_ratio=2.0)
    first, second = optimizers(LINEAR.with_(momentum=0.9), knobs)
    for optimizer, lr, decay in ((first, 0.05, 0.03), (second, 0.1, 0.035)):
        weight = want = jnp.array([1.0, -2.0])
        memory, buffer = optimizer.init(weight), jnp.zeros(2)
        for at in range(3):
            gradient = jnp.array([0.3, 0.1]) * (at + 1)
            update, memory = optimizer.update(gradient, memory, weight)
            weight = weight + jnp.asarray(update)
            buffer = 0.9 * buffer + gradient + decay * want
            want = want - lr * buffer
            np.testing.assert_allclose(weight, want, atol=1e-14)


def test_adamw_decays_outside():
    first, _ = optimizers(LINEAR.with_(optimizer="adamw"), PLAIN)
    weight = want = np.array([1.0, -2.0])
    memory, mean, square = first.init(jnp.asarray(weight)), np.zeros(2), np.zeros(2)
    for at in range(1, 4):
        gradient = np.array([0.3, -0.1]) * at
        update, memory = first.update(jnp.asarray(gradient), memory, jnp.asarray(weight))
        weight = weight + np.asarray(update)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        direction = mean / (1 - 0.9**at) / (np.sqrt(square / (1 - 0.999**at)) + 1e-8)
        want = want - 0.05 * (direction + 0.03 * want)
        np.testing.assert_allclose(weight, want, atol=1e-9)


def test_schedules_of_learning_rate_and_teacher():
    recipe = LINEAR.with_(steps=100, schedule="cosine", warmup=0.1, ema_schedule="cosine", system="ema")
    first, _ = optimizers(recipe, PLAIN.with_(weight_decay=0.0))
    memory, sizes = first.init(jnp.zeros(1)), []
    for _ in range(100):
        update, memory = first.update(jnp.ones(1), memory, jnp.zeros(1))
        sizes.append(-float(jnp.asarray(update)[0]) / 0.05)
    np.testing.assert_allclose(sizes[:11], np.arange(11) / 10, atol=1e-6)
    np.testing.assert_allclose(sizes[55], 0.5, atol=1e-6)
    decays = [float(teacher_decay(recipe, PLAIN, jnp.asarray(t))) for t in (0, 50, 100)]
    np.testing.assert_allclose(decays, [0.8, 0.9, 1.0], atol=1e-12)


@pytest.mark.parametrize(("method", "both"), [("ema", True), ("sg", False), ("objective", True)])
def test_e_and_f_are_measured_as_written(method, both):
    program, state, pairs = one_run(LINEAR.with_(system=method, both_sides=both), PLAIN)
    state = state._replace(teacher=jax.tree.map(lambda leaf: 0.5 * leaf, state.teacher))
    found = measure(program, state, PLAIN, pairs, None)
    a, b, c = matrices(state)
    x, y = np.asarray(pairs.x), np.asarray(pairs.y)
    sides = [(x, y), (y, x)][: 2 if both else 1]

    def energy(target):
        return np.mean([0.5 * np.sum((p @ (b @ a).T - t @ target.T) ** 2, 1).mean() for p, t in sides])

    np.testing.assert_allclose(found.energy, energy(a), rtol=1e-10)
    np.testing.assert_allclose(found.surrogate, energy(a if method == "objective" else c), rtol=1e-10)
    np.testing.assert_allclose(found.sizes, [np.linalg.norm(w) for w in (a, b, c)], rtol=1e-10)
    np.testing.assert_allclose(found.alignment.f_eigenvalue[0], np.linalg.norm(x @ a.T, 2) ** 2 / B, rtol=1e-10)


def test_batch_statistics_are_the_batchs_in_training_and_running_ones_later():
    recipe = LINEAR.with_(encoder="mlp", width=6, depth=1, system="ema")
    program, state, batch = one_run(recipe, PLAIN)
    new, _ = step(program, state, PLAIN, batch)
    network = program.network(state.student)
    x = np.asarray(batch.x)
    trunk: Any = network.encoder.trunk
    hidden = x @ np.asarray(trunk.blocks[0].linear.weight).T
    want = np.maximum((hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5), 0)
    features, _, stats = embed(network.encoder, state.student_stats, batch.x)
    np.testing.assert_allclose(features, want, atol=1e-10)
    still = eqx.nn.inference_mode(network.encoder)
    features, _, _ = embed(still, stats, batch.x[:3])
    np.testing.assert_allclose(features, want[:3], atol=1e-10)  # one batch has been seen: its own statistics
    student, teacher = jax.tree.leaves(new.student_stats), jax.tree.leaves(new.teacher_stats)
    # The student saw x, the teacher y.
    assert any(
        a.shape == b.shape and a.size == 6 and np.abs(a - b).max() > 1e-3 for a, b in zip(student, teacher, strict=True)
    )


def test_runs_of_a_seed_share_start_and_batches_and_are_as_if_alone():
    images = np.random.default_rng(0).random((40, 6, 6, 1))
    data = to_device(from_images(images).train)
    recipe = Recipe(encoder="conv", width=4, depth=1, hidden=8, embedding=4, batch=8, steps=4, predictor="mlp_bias",
                    augmentation=Augmentation(shift=1, noise=0.1))  # fmt: skip
    program = program_of(recipe, (6, 6, 1))
    settings = [Knobs(lr=0.1), Knobs(lr=0.1, ema_decay=0.0), Knobs(lr=0.02)]
    keys = jax.vmap(jax.random.key)(jnp.arange(2))

    def run(chosen, keys):
        knobs = stacked([each.checked(recipe) for each in chosen])
        return advance(program, start(program, knobs, keys, data), knobs, keys, data, 4)

    together, moved = run(settings, keys)
    for place, setting in enumerate(settings):
        alone, _ = run([setting], keys[1:])
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[1, place], b[0, 0], atol=1e-5)
    starts = start(program, stacked([each.checked(recipe) for each in settings]), keys, data)
    for leaf in jax.tree.leaves(starts.student):
        np.testing.assert_array_equal(leaf[:, 0], leaf[:, 1])
    assert moved.loss.shape == (2, 3)
    assert np.isfinite(moved.loss).all()


def test_given_pairs_stay_pairs():
    x = np.arange(120.0).reshape(40, 3)
    data = to_device(from_views(x, -x).train)
    batch = draw(program_of(LINEAR, (3,)), data, jax.random.key(0), 16)
    np.testing.assert_array_equal(batch.x, -batch.y)


MASKED = Recipe(encoder="vit", width=8, depth=1, heads=2, patch=2, projector="none", embedding=8, predictor="vit",
                masked=True, loss="euclidean", system="ema", batch=4, steps=4, augmentation=Augmentation())  # fmt: skip


def test_hidden_patches_are_hidden():
    program = program_of(MASKED, (2, 8, 8, 1))
    state = initial(program, PLAIN, jax.random.key(0))
    network = program.network(state.student)
    image = jax.random.normal(jax.random.key(1), (4, 2, 8, 8, 1))
    data = to_device(from_images(np.random.default_rng(0).random((20, 2, 8, 8, 1))).train)
    visible = draw(program, data, jax.random.key(2), 4).visible
    assert visible is not None
    assert visible.shape == (4, 16)
    assert ((~visible).sum(1) >= 4).all()
    assert ((~visible).sum(1) <= 9).all()
    # Pixels of hidden patches: rows and columns of the plane, two by two, in every frame.
    mask = np.repeat(np.repeat(np.asarray(~visible).reshape(4, 4, 4), 2, 1), 2, 2)[:, None, :, :, None]
    changed = jnp.where(mask, image + 1.0, image)

    def predictions(views):
        _, f, stats = embed(network.encoder, state.student_stats, views, visible)
        return predict(network.predictor, stats, f, visible)[0]

    np.testing.assert_allclose(predictions(image), predictions(changed), atol=1e-12)
    values = [loss(program, state.student, state, PLAIN, Batch(v, v, visible))[0] for v in (image, changed)]
    assert abs(values[0] - values[1]) > 1e-4  # the teacher sees them
    # The loss is over hidden tokens alone.
    u = predictions(image)
    v = embed(network.encoder, state.teacher_stats, image)[1]
    hidden = np.asarray(~visible)
    np.testing.assert_allclose(values[0], 0.5 * np.sum((np.asarray(u - v)[hidden]) ** 2, -1).mean(), rtol=1e-10)


def test_the_update_field_is_a_gradient_for_the_objective_alone():
    for method in ("sg", "ema", "objective"):
        program, state, batch = one_run(LINEAR.with_(system=method), PLAIN)
        defect = network_defect(program, state, PLAIN, batch, probes=32, key=jax.random.key(3))
        if method == "objective":
            # α_p ≠ 1 rescales the predictor: no gradient, so take it away.
            plain = PLAIN.with_(predictor_lr_ratio=1.0)
            assert network_defect(program, state, plain, batch, probes=32, key=jax.random.key(3)).value < 1e-10
        assert defect.value > 0.05
    program, state, batch = one_run(LINEAR.with_(system="sg"), PLAIN)
    field, point = update_field(program, state, PLAIN, batch)
    a, b, _ = matrices(state)

    def by_hand(a, b):
        da, db = paper_gradients(a, b, a, np.asarray(batch.x), np.asarray(batch.y), "sg")
        return -da, -2.5 * db

    direction = np.random.default_rng(0).normal(size=a.shape)
    tangent = jax.tree.map(jnp.zeros_like, point)
    tangent = eqx.tree_at(lambda p: p.encoder.last.weight, tangent, jnp.asarray(direction))
    _, rate = jax.jvp(lambda p: field(0.0, p, None), (point,), (tangent,))
    h = 1e-5
    want = [
        (u - d) / (2 * h) for u, d in zip(by_hand(a + h * direction, b), by_hand(a - h * direction, b), strict=True)
    ]
    np.testing.assert_allclose(rate.encoder.last.weight, want[0], atol=1e-8)  # the teacher moves with the encoder
    np.testing.assert_allclose(rate.predictor.weight, want[1], atol=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "directpred", "predictor": "mlp"}, "rule: directpred sets a linear predictor"),
        ({"masked": True}, "masked prediction needs encoder vit"),
        ({"encoder": "vit", "projector": "none", "width": 8}, "embedding: without a projector"),
        ({"batch": 1}, "batch"),
        ({"encoder": "vit", "width": 10, "heads": 4}, "heads: expected a divisor of width"),
        ({"momentum": 1.5}, "momentum"),
    ],
)
def test_impossible_recipes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LINEAR.with_(**change)


@pytest.mark.parametrize(
    ("recipe", "shape", "message"),
    [
        (LINEAR.with_(encoder="conv", depth=4), (8, 8, 1), "images of side 16"),
        (LINEAR.with_(encoder="conv"), (12,), "encoder: conv"),
        (MASKED, (2, 9, 8, 1), "does not divide samples of shape"),
        (LINEAR.with_(projector="none"), (7,), "embedding: without a projector it is the trunk's 7"),
        (LINEAR.with_(augmentation=Augmentation(shift=1)), (7,), "need images"),
    ],
)
def test_recipes_that_do_not_fit_the_samples(recipe, shape, message):
    with pytest.raises(ValueError, match=message):
        program_of(recipe, shape)


@pytest.mark.parametrize("change", [{"lr": 0.0}, {"ema_decay": 1.1}, {"weight_decay": -1.0}, {"every": 0}])
def test_knobs_are_checked(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Knobs(**change).checked(LINEAR.with_(rule="directpred"))


@pytest.mark.parametrize(
    ("knobs", "recipe"),
    [
        (Knobs(symmetrise=1), Recipe(predictor="none")),
        (Knobs(objective_share=0.5), Recipe(system="ema")),
        (Knobs(epsilon=0.1), Recipe()),
        (Knobs(epsilon=0.1), Recipe(rule="least_squares")),
        (Knobs(offset=0.1), Recipe(rule="directcopy")),
        (Knobs(every=2), Recipe()),
        (Knobs(memory=0.5), Recipe()),
        (Knobs(memory=0.5), Recipe(rule="directpred", average="simple")),
        (Knobs(every=2), Recipe(rule="directpred", partitions=2)),
    ],
)
def test_knobs_without_a_part_are_refused(knobs, recipe):
    with pytest.raises(ValueError, match="it belongs to"):
        knobs.checked(recipe)


def test_networks_of_every_kind_take_their_samples():
    for recipe, shape in ((Recipe(encoder="vit", width=8, depth=1, heads=2, projector="linear"), (8, 8, 1)),
                          (Recipe(encoder="conv", width=4, depth=2), (3, 9, 8, 1)),
                          (Recipe(encoder="mlp", width=8, projector="none", embedding=8), (3, 3))):  # fmt: skip
        network, stats = build(recipe.with_(augmentation=Augmentation()), shape, jax.random.key(0))
        assert isinstance(network, Network)
        _, f, stats = embed(
            network.encoder, stats, jnp.ones((4, *shape)) + jnp.arange(4.0).reshape(4, *[1] * len(shape))
        )
        u, _ = predict(network.predictor, stats, f)
        assert u.shape == f.shape
        assert np.isfinite(u).all()
