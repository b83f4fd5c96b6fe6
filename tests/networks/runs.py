"""Small linear runs that the tests of networks share, and the papers' gradients written out in NumPy."""

import jax
import numpy as np

from jaxdyn.data import Augmentation
from jaxdyn.networks.recipe import Knobs, Recipe
from jaxdyn.networks.training import Batch, initial, program_of

M, N, B = 5, 4, 16
LINEAR = Recipe(
    encoder="linear", projector="linear", embedding=N, predictor="linear", loss="euclidean", both_sides=False,
    momentum=0.0, batch=B, steps=10, augmentation=Augmentation(),
)  # fmt: skip
PLAIN = Knobs(lr=0.05, weight_decay=0.03, predictor_weight_decay=0.07, predictor_lr_ratio=2.5, ema_decay=0.8).checked(
    LINEAR
)


def one_run(recipe, knobs, shape=(M,), seed=0):
    program = program_of(recipe, shape)
    state = initial(program, knobs, jax.random.key(seed))
    x, y = jax.random.normal(jax.random.key(seed + 1), (2, B, *shape))
    return program, state, Batch(x, y, None)


def matrices(state):
    return (np.asarray(state.student.encoder.last.weight), np.asarray(state.student.predictor.weight),
            np.asarray(state.teacher.last.weight))  # fmt: skip


def paper_gradients(a, b, c, x, y, method):
    """∇_A and ∇_B of the mean of ½‖BAx − Cy‖² (C = A and part of the gradient for the objective)."""
    error = x @ (b @ a).T - y @ (a if method == "objective" else c).T
    da = b.T @ error.T @ x / len(x)
    if method == "objective":
        da = da - error.T @ y / len(x)
    return da, error.T @ (x @ a.T) / len(x)
