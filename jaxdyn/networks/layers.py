"""Layers that the networks share, for one sample at a time; statistics of batches travel in an `eqx.nn.State`."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

BATCH, PIXEL = "batch", "pixel"  # the axes over which batch normalisation averages


def batch_norm(size: int, axes: tuple[str, ...] = (BATCH,)) -> eqx.nn.BatchNorm:
    """Batch normalisation over these axes: statistics of the batch in training, running ones in inference mode."""
    norm = eqx.nn.BatchNorm(size, axis_name=axes, mode="batch", momentum=0.9, channelwise_affine=True)
    # equinox starts the running variance at one but divides by 1 − momentum^count as if at zero, which makes it too
    # large by momentum^count/(1 − momentum^count); from zero the quotient is the weighted mean it should be.
    start = eqx.nn.StateIndex((jnp.zeros(size), jnp.zeros(size)))
    return eqx.tree_at(lambda each: each.batch_state_index, norm, start)


class Block(eqx.Module):
    """Linear, batch normalisation (if asked for), ReLU."""

    linear: eqx.nn.Linear
    norm: eqx.nn.BatchNorm | None

    def __init__(self, inputs: int, outputs: int, normalise: bool, key: PRNGKeyArray):
        self.linear = eqx.nn.Linear(inputs, outputs, use_bias=not normalise, key=key)
        self.norm = batch_norm(outputs) if normalise else None

    def __call__(self, x: Float[Array, " inputs"], state: eqx.nn.State) -> tuple[Array, eqx.nn.State]:
        x = self.linear(x)
        if self.norm is not None:
            x, state = self.norm(x, state)
        return jax.nn.relu(x), state


class Convolution(eqx.Module):
    """3×3 convolution, batch normalisation, ReLU, then the mean over 2×2 pixels; images are [h, w, channels].

    The convolution is a product with the pixels' neighbourhoods: under `vmap` over networks it stays a matrix
    product, where a library convolution becomes a grouped one, nine times slower on a CPU.
    """

    weight: Float[Array, "inputs outputs"]
    norm: eqx.nn.BatchNorm

    def __init__(self, channels: int, outputs: int, key: PRNGKeyArray):
        self.weight = jax.random.normal(key, (9 * channels, outputs)) * jnp.sqrt(2 / (9 * channels))
        self.norm = batch_norm(outputs, (BATCH, PIXEL))

    def __call__(self, x: Float[Array, "h w channels"], state: eqx.nn.State) -> tuple[Array, eqx.nn.State]:
        h, w, _ = x.shape
        padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
        near = jnp.concatenate([padded[i : i + h, j : j + w] for i in range(3) for j in range(3)], -1)
        # Averaging over pixels as over samples spares the norm's channels-first layout, which costs two transposes.
        normalise = jax.vmap(lambda pixel: self.norm(pixel, state), out_axes=(0, None), axis_name=PIXEL)
        y, state = normalise((near @ self.weight).reshape(h * w, -1))
        y = jax.nn.relu(y).reshape(h, w, -1)[: 2 * (h // 2), : 2 * (w // 2)]
        return y.reshape(h // 2, 2, w // 2, 2, -1).mean((1, 3)), state


class Transformer(eqx.Module):
    """Pre-norm transformer blocks over tokens [K, width]; tokens that are not `visible` are seen by none."""

    attention: list[eqx.nn.MultiheadAttention]
    hidden: list[eqx.nn.MLP]
    norms: list[tuple[eqx.nn.LayerNorm, eqx.nn.LayerNorm]]
    last: eqx.nn.LayerNorm

    def __init__(self, width: int, depth: int, heads: int, key: PRNGKeyArray):
        keys = jax.random.split(key, (depth, 2))
        self.attention = [eqx.nn.MultiheadAttention(heads, width, key=k) for k, _ in keys]
        self.hidden = [eqx.nn.MLP(width, width, 2 * width, 1, jax.nn.gelu, key=k) for _, k in keys]
        self.norms = [(eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)) for _ in keys]
        self.last = eqx.nn.LayerNorm(width)

    def __call__(self, tokens: Float[Array, "K width"], visible: Bool[Array, " K"] | None) -> Float[Array, "K width"]:
        mask = None if visible is None else jnp.broadcast_to(visible, (tokens.shape[0],) * 2)
        for attention, hidden, (first, second) in zip(self.attention, self.hidden, self.norms, strict=True):
            x = jax.vmap(first)(tokens)
            tokens = tokens + attention(x, x, x, mask=mask)
            tokens = tokens + jax.vmap(hidden)(jax.vmap(second)(tokens))
        return jax.vmap(self.last)(tokens)
