"""What frozen features are worth: logistic regression, nearest neighbours, and an attentive probe for tokens."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

PENALTY = 0.01


def few_labels(labels: np.ndarray, shots: int, draws: int, seed: int = 0) -> np.ndarray:
    """Indices [draws, shots·classes] of `shots` random samples of each class, the same for whatever is probed."""
    rng = np.random.default_rng(seed)
    places = [np.flatnonzero(labels == kind) for kind in np.unique(labels)]
    if min(map(len, places)) < shots:
        raise ValueError(f"shots: expected at most {min(map(len, places))}, the smallest class, got {shots}")
    return np.stack([np.concatenate([rng.choice(p, shots, replace=False) for p in places]) for _ in range(draws)])


def logistic(
    features: Float[Array, "N d"], labels: Int[Array, " N"], n_classes: int, *, penalty: float = PENALTY,
    iterations: int = 300,
) -> tuple[Float[Array, "d c"], Float[Array, " c"]]:  # fmt: skip
    """Multinomial logistic regression: mean cross-entropy + ½·penalty‖W‖² minimised by accelerated gradients.

    The problem is strongly convex; after `iterations` steps the error has shrunk by
    exp(−iterations·√(penalty/L)), L = ½λ_max of the features' second moment.
    """
    extended = jnp.concatenate([features, jnp.ones((features.shape[0], 1), features.dtype)], 1)
    wanted = jax.nn.one_hot(labels, n_classes, dtype=features.dtype)
    # λ_max by power iteration; a little above it, so that no step is too long.
    v = jnp.ones(extended.shape[1], features.dtype)
    v = jax.lax.fori_loop(0, 20, lambda _, v: _normal(extended.T @ (extended @ v)), v)
    curvature = 0.55 * jnp.linalg.norm(extended.T @ (extended @ v)) / features.shape[0] + penalty
    momentum = (1 - jnp.sqrt(penalty / curvature)) / (1 + jnp.sqrt(penalty / curvature))
    shrink = jnp.ones((extended.shape[1], 1), features.dtype).at[-1].set(0.0) * penalty

    def one(_, pair: Any) -> tuple[Any, Any]:
        old, at = pair
        residual = jax.nn.softmax(extended @ at) - wanted
        new = at - (extended.T @ residual / features.shape[0] + shrink * at) / curvature
        return new, new + momentum * (new - old)

    zero = jnp.zeros((extended.shape[1], n_classes), features.dtype)
    weights, _ = jax.lax.fori_loop(0, iterations, one, (zero, zero))
    return weights[:-1], weights[-1]


def _normal(v: Array) -> Array:
    return v / jnp.maximum(jnp.linalg.norm(v), jnp.finfo(v.dtype).tiny)


class Accuracy(NamedTuple):
    """Held-out accuracy of a logistic regression with all labels, the mean over draws with few, and of neighbours."""

    linear: Array
    few: Array
    neighbours: Array


def frozen_accuracy(
    train: Float[Array, "N d"], labels: Int[Array, " N"], test: Float[Array, "M d"], test_labels: Int[Array, " M"],
    n_classes: int, few: Int[Array, "draws shots"],
) -> Accuracy:  # fmt: skip
    """Accuracies of the probes on features, which are standardised by the training features' moments."""
    train, test = _standardised(train, test)
    linear = _held_out_accuracy(train, labels, test, test_labels, n_classes)
    mean = _few_accuracy(train, labels, test, test_labels, n_classes, few)
    return Accuracy(linear, mean, _neighbours(train, labels, test, test_labels, n_classes))


def few_accuracy(
    train: Any, labels: Any, test: Any, test_labels: Any, n_classes: int, few: Int[Array, "draws shots"]
) -> Float[Array, ""]:
    """The few-label part of `frozen_accuracy` alone."""
    train, test = _standardised(train, test)
    return _few_accuracy(train, labels, test, test_labels, n_classes, few)


def _standardised(train: Any, test: Any):
    mean, scale = train.mean(0), train.std(0)
    # A feature that is constant but for rounding stays as small as it is.
    scale = jnp.where(scale > 1e-6 * (1 + jnp.abs(mean)), scale, 1.0)
    return (train - mean) / scale, (test - mean) / scale


def _held_out_accuracy(features: Any, targets: Any, test: Any, test_labels: Any, n_classes: int):
    weights, bias = logistic(features, targets, n_classes)
    return jnp.mean(jnp.argmax(test @ weights + bias, -1) == test_labels)


def _few_accuracy(train: Any, labels: Any, test: Any, test_labels: Any, n_classes: int, few: Any) -> Array:
    one = lambda rows: _held_out_accuracy(train[rows], labels[rows], test, test_labels, n_classes)  # noqa: E731
    return jax.lax.map(one, few).mean()


def _neighbours(train: Any, labels: Any, test: Any, test_labels: Any, n_classes: int, k: int = 10):
    """The class with most of the k nearest by cosine; ties go to the smaller label."""
    scaled = lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-9)  # noqa: E731
    _, nearest = jax.lax.top_k(scaled(test) @ scaled(train).T, min(k, train.shape[0]))
    votes = jax.nn.one_hot(labels[nearest], n_classes).sum(1)
    return jnp.mean(jnp.argmax(votes, -1) == test_labels)


def attentive_accuracy(
    train: Float[Array, "N K d"], labels: Int[Array, " N"], test: Float[Array, "M K d"], test_labels: Int[Array, " M"],
    n_classes: int, *, steps: int = 200,
) -> Float[Array, ""]:  # fmt: skip
    """Held-out accuracy of one learnt query that attends to the tokens, and a linear map; trained with Adam.

    Source: the attentive probe of V-JEPA (P §5), with one head and no hidden layer.
    """
    mean, scale = train.mean((0, 1)), train.std((0, 1))
    scale = jnp.where(scale > 1e-6, scale, 1.0)
    train, test = (train - mean) / scale, (test - mean) / scale
    d = train.shape[-1]
    # A query of zero starts at the mean of the tokens.
    start = (jnp.zeros(d), jnp.zeros((d, n_classes)), jnp.zeros(n_classes))

    def scores(parameters: Any, tokens: Any):
        query, weights, bias = parameters
        attention = jax.nn.softmax(tokens @ query / jnp.sqrt(d), -1)
        return jnp.einsum("nk,nkd->nd", attention, tokens) @ weights + bias

    def cost(parameters: Any):
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(scores(parameters, train), labels).mean()
        return cross_entropy + 0.5 * PENALTY * jnp.sum(parameters[1] ** 2)

    optimizer = optax.adam(0.03)

    def one(_, carry: Any):
        parameters, memory = carry
        update, memory = optimizer.update(jax.grad(cost)(parameters), memory)
        return optax.apply_updates(parameters, update), memory

    parameters, _ = jax.lax.fori_loop(0, steps, one, (start, optimizer.init(start)))
    return jnp.mean(jnp.argmax(scores(parameters, test), -1) == test_labels)
