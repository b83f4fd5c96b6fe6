"""Predictors g_ψ on embeddings, and the rules that set a linear one without gradients.

A predictor maps one embedding [n] (tokens [K, n] and their mask for the ViT) and hands the batch statistics on.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..checks import one_of
from .layers import Block, Transformer

PREDICTORS = ("none", "linear", "linear_bias", "mlp", "mlp_bias", "vit")
RULES = ("gradient", "directpred", "directpred_released", "directcopy", "least_squares")


class NoPredictor(eqx.Module):
    """g(f) = f."""

    def __call__(self, f: Array, state: eqx.nn.State, visible: Any = None) -> tuple[Array, eqx.nn.State]:
        return f, state

    def symmetrised(self) -> "NoPredictor":
        """Itself."""
        return self


class LinearPredictor(eqx.Module):
    """g(f) = W_p f (+ b)."""

    weight: Float[Array, "n n"]
    bias: Float[Array, " n"] | None

    def __init__(self, n: int, bias: bool, key: PRNGKeyArray):
        bound = 1 / jnp.sqrt(n)
        self.weight = jax.random.uniform(key, (n, n), minval=-bound, maxval=bound)
        self.bias = jnp.zeros(n) if bias else None

    def __call__(self, f: Array, state: eqx.nn.State, visible: Any = None) -> tuple[Array, eqx.nn.State]:
        predicted = f @ self.weight.T
        return (predicted if self.bias is None else predicted + self.bias), state

    def symmetrised(self) -> "LinearPredictor":
        """With W_p ← ½(W_p + W_pᵀ) (T §3, Table 3)."""
        return eqx.tree_at(lambda p: p.weight, self, (self.weight + self.weight.T) / 2)


class PartitionedPredictor(eqx.Module):
    """g(f) = mean over planes i of W_i,h f, h the side of plane i that f is on: linear within each cell.

    normals [n, partitions]: unit vectors, drawn once; thresholds and weights are set by a rule
    (T §4, "Feature-dependent W_p").
    """

    normals: Float[Array, "n partitions"]
    thresholds: Float[Array, " partitions"]
    weights: Float[Array, "partitions 2 n n"]

    @classmethod
    def random(cls, n: int, partitions: int, key: PRNGKeyArray) -> "PartitionedPredictor":
        """Random planes through the origin; every matrix is the identity."""
        normals = jax.random.normal(key, (n, partitions))
        normals = normals / jnp.linalg.norm(normals, axis=0)
        return cls(normals, jnp.zeros(partitions), jnp.broadcast_to(jnp.eye(n), (partitions, 2, n, n)))

    def __call__(self, f: Array, state: eqx.nn.State, visible: Any = None) -> tuple[Array, eqx.nn.State]:
        below, beyond = jnp.moveaxis(self.weights @ f, 1, 0)
        return jnp.where((f @ self.normals >= self.thresholds)[:, None], beyond, below).mean(0), state

    def symmetrised(self) -> "PartitionedPredictor":
        """With each matrix W ← ½(W + Wᵀ)."""
        return eqx.tree_at(lambda p: p.weights, self, (self.weights + jnp.swapaxes(self.weights, -1, -2)) / 2)


class MLPPredictor(eqx.Module):
    """g(f) = W₂ relu(norm(W₁ f)) (+ b): two layers with batch normalisation, n units inside."""

    hidden: Block
    last: eqx.nn.Linear

    def __init__(self, n: int, bias: bool, key: PRNGKeyArray):
        keys = jax.random.split(key)
        self.hidden = Block(n, n, True, keys[0])
        self.last = eqx.nn.Linear(n, n, use_bias=bias, key=keys[1])

    def __call__(self, f: Array, state: eqx.nn.State, visible: Any = None) -> tuple[Array, eqx.nn.State]:
        f, state = self.hidden(f, state)
        return self.last(f), state

    def symmetrised(self) -> "MLPPredictor":
        """With W₂ ← ½(W₂ + W₁ᵀ) and W₁ ← W₂ᵀ: what "symmetric" means for two layers in T Table 3 is not said."""
        shared = (self.last.weight + self.hidden.linear.weight.T) / 2
        return eqx.tree_at(lambda p: (p.last.weight, p.hidden.linear.weight), self, (shared, shared.T))


class ViTPredictor(eqx.Module):
    """A narrow transformer that fills in hidden tokens: their inputs are one learnt token at learnt positions."""

    enter: eqx.nn.Linear
    leave: eqx.nn.Linear
    mask: Float[Array, " width"]
    positions: Float[Array, "K width"]
    transformer: Transformer

    def __init__(self, n: int, tokens: int, width: int, depth: int, heads: int, key: PRNGKeyArray):
        keys = jax.random.split(key, 5)
        self.enter = eqx.nn.Linear(n, width, key=keys[0])
        self.leave = eqx.nn.Linear(width, n, key=keys[1])
        self.mask = 0.1 * jax.random.normal(keys[2], (width,))
        self.positions = 0.1 * jax.random.normal(keys[3], (tokens, width))
        self.transformer = Transformer(width, depth, heads, keys[4])

    def __call__(
        self, f: Float[Array, "K n"], state: eqx.nn.State, visible: Bool[Array, " K"]
    ) -> tuple[Float[Array, "K n"], eqx.nn.State]:
        tokens = jnp.where(visible[:, None], jax.vmap(self.enter)(f), self.mask) + self.positions
        return jax.vmap(self.leave)(self.transformer(tokens, None)), state

    def symmetrised(self) -> "ViTPredictor":
        """ValueError: it has no square matrix."""
        raise ValueError("symmetrise: only linear and mlp predictors have a symmetric form")


Predictor = NoPredictor | LinearPredictor | PartitionedPredictor | MLPPredictor | ViTPredictor


def build_predictor(
    kind: str, n: int, *, tokens: int = 1, heads: int = 4, partitions: int = 0, key: PRNGKeyArray
) -> Predictor:
    """A predictor on embeddings of n numbers, "none", "linear", "linear_bias", "mlp", "mlp_bias" or "vit".

    partitions: planes of a partitioned one, which is linear.
    """
    one_of("predictor", kind, PREDICTORS)
    if partitions:
        return PartitionedPredictor.random(n, partitions, key)
    if kind == "none":
        return NoPredictor()
    if kind == "vit":
        return ViTPredictor(n, tokens, max(heads, n // 2), 1, heads, key)
    return (LinearPredictor if kind.startswith("linear") else MLPPredictor)(n, kind.endswith("_bias"), key)
