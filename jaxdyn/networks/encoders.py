"""Encoders f_θ: a trunk whose features the probes read, and a projector to the embedding that the loss compares.

An encoder maps one sample to (features, embedding) and hands the batch statistics on. For tokens
(the small ViT on clips) both are [K, width], one row a token; otherwise [width] and [n].
"""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..checks import one_of, whole_number
from .layers import Block, Convolution, Transformer

ENCODERS = ("linear", "mlp", "conv", "vit")


class Linear(eqx.Module):
    """features = x, flattened: the whole encoder is the projector's matrix A (P §4)."""

    def __call__(self, x: Array, state: eqx.nn.State, visible: Any = None) -> tuple[Array, eqx.nn.State]:
        return x.ravel(), state


class MLP(eqx.Module):
    """`depth` blocks of linear, batch normalisation, ReLU on the flattened sample."""

    blocks: list[Block]

    def __init__(self, inputs: int, width: int, depth: int, key: PRNGKeyArray):
        sizes = [inputs] + [width] * depth
        keys = jax.random.split(key, depth)
        self.blocks = [Block(a, b, True, k) for a, b, k in zip(sizes[:-1], sizes[1:], keys, strict=True)]

    def __call__(self, x: Array, state: eqx.nn.State, visible: Any = None) -> tuple[Array, eqx.nn.State]:
        x = x.ravel()
        for block in self.blocks:
            x, state = block(x, state)
        return x, state


class ConvNet(eqx.Module):
    """`depth` convolutions, each halving the image, then the features of all that is left; frames are channels."""

    layers: list[Convolution]

    def __init__(self, shape: tuple[int, ...], width: int, depth: int, key: PRNGKeyArray):
        channels = shape[-1] * (shape[0] if len(shape) == 4 else 1)
        sizes = [channels] + [width * 2**i for i in range(depth)]
        keys = jax.random.split(key, depth)
        self.layers = [Convolution(a, b, k) for a, b, k in zip(sizes[:-1], sizes[1:], keys, strict=True)]

    def __call__(self, x: Array, state: eqx.nn.State, visible: Any = None) -> tuple[Array, eqx.nn.State]:
        if x.ndim == 4:
            x = jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:3], -1)
        for layer in self.layers:
            x, state = layer(x, state)
        return x.ravel(), state


class ViT(eqx.Module):
    """Patches (tubelets of clips) as tokens with learnt positions, then a small transformer: tokens [K, width]."""

    patch: tuple[int, ...] = eqx.field(static=True)
    embed: eqx.nn.Linear
    positions: Float[Array, "K width"]
    transformer: Transformer

    def __init__(
        self, shape: tuple[int, ...], patch: tuple[int, ...], width: int, depth: int, heads: int, key: PRNGKeyArray
    ):
        keys = jax.random.split(key, 3)
        self.patch = patch
        count, inputs = 1, shape[-1]
        for length, side in zip(shape[:-1], patch, strict=True):
            count, inputs = count * (length // side), inputs * side
        self.embed = eqx.nn.Linear(inputs, width, key=keys[0])
        self.positions = 0.1 * jax.random.normal(keys[1], (count, width))
        self.transformer = Transformer(width, depth, heads, keys[2])

    def __call__(
        self, x: Array, state: eqx.nn.State, visible: Bool[Array, " K"] | None = None
    ) -> tuple[Float[Array, "K width"], eqx.nn.State]:
        tokens = jax.vmap(self.embed)(tokens_of(x, self.patch)) + self.positions
        return self.transformer(tokens, visible), state


def tokens_of(x: Array, patch: tuple[int, ...]) -> Float[Array, "K inputs"]:
    """A sample [.., channels] cut into patches of these sides, each flattened; in row-major order of the patches."""
    sides = [part for length, side in zip(x.shape[:-1], patch, strict=True) for part in (length // side, side)]
    axes = range(len(patch))
    grid = x.reshape(*sides, x.shape[-1])
    grid = grid.transpose(*(2 * i for i in axes), *(2 * i + 1 for i in axes), 2 * len(patch))
    return grid.reshape(-1, grid[(0,) * len(patch)].size)


class Encoder(eqx.Module):
    """A trunk and a projector: None (the features are the embedding), one linear map, or a block and a linear map.

    `pooled`: the embedding of tokens is that of their mean, as pairs of views need it; not for masked prediction.
    """

    trunk: Callable[..., Any]
    hidden: Block | None
    last: eqx.nn.Linear | None
    pooled: bool = eqx.field(static=True)

    def __call__(self, x: Array, state: eqx.nn.State, visible: Any = None) -> tuple[Array, Array, eqx.nn.State]:
        features, state = self.trunk(x, state, visible)
        embedding = features.mean(0) if self.pooled and features.ndim == 2 else features
        if self.hidden is not None:
            embedding, state = self.hidden(embedding, state)
        if self.last is not None:
            embedding = self.last(embedding)
        return features, embedding, state

    @property
    def top(self) -> Array | None:
        """The matrix of the last linear map [n, width], which the predictor's balance refers to; or None."""
        return None if self.last is None else self.last.weight


def build_encoder(
    kind: Literal["linear", "mlp", "conv", "vit"],
    shape: tuple[int, ...],
    embedding: int,
    *,
    width: int,
    depth: int,
    heads: int = 4,
    patch: int = 4,
    projector: Literal["none", "linear", "mlp"] = "mlp",
    hidden: int = 64,
    pooled: bool = True,
    key: PRNGKeyArray,
) -> Encoder:
    """An encoder for samples of this shape.

    Args:
        kind: of trunk: "linear" (with projector "linear" it is the papers' A), "mlp", "conv" or "vit".
        embedding: n; for "vit" without projector it must be `width`.
        width: of the hidden layers; of a convolutional network, channels of the first layer, doubling at each next.
        hidden: units inside an "mlp" projector.
        pooled: see `Encoder`.
        heads, patch: of the ViT; the patches' side, two frames deep in clips.

    Raises:
        ValueError: where sizes do not fit together.
    """
    one_of("encoder", kind, ENCODERS)
    one_of("projector", projector, ("none", "linear", "mlp"))
    whole_number("embedding", embedding)
    keys = jax.random.split(key, 3)
    inputs = 1
    for length in shape:
        inputs *= length
    if kind == "linear":
        trunk, size = Linear(), inputs
    elif kind == "mlp":
        trunk, size = MLP(inputs, whole_number("width", width), whole_number("depth", depth), keys[0]), width
    elif kind == "conv":
        if len(shape) not in (3, 4) or min(shape[-3:-1]) >> depth < 1:
            raise ValueError(f"encoder: conv with {depth} layers needs images of side {2**depth} at least, got {shape}")
        trunk = ConvNet(shape, width, depth, keys[0])
        size = width * 2 ** (depth - 1) * (shape[-3] >> depth) * (shape[-2] >> depth)
    else:
        trunk, size = ViT(shape, vit_patch(shape, patch), width, depth, heads, keys[0]), width
    inner = Block(size, hidden, True, keys[1]) if projector == "mlp" else None
    last = None
    if projector != "none":
        last = eqx.nn.Linear(hidden if inner is not None else size, embedding, use_bias=False, key=keys[2])
    elif size != embedding:
        raise ValueError(f"embedding: without a projector it is the trunk's {size}, got {embedding}")
    return Encoder(trunk, inner, last, pooled)


def vit_patch(shape: tuple[int, ...], side: int) -> tuple[int, ...]:
    """Sides of a ViT's patches in samples of this shape; ValueError if they do not fit."""
    if len(shape) not in (3, 4):
        raise ValueError(f"encoder: vit needs images or clips, got samples of shape {shape}")
    patch = (side, side) if len(shape) == 3 else (min(2, shape[0]), side, side)
    if any(length % part for length, part in zip(shape[:-1], patch, strict=True)):
        raise ValueError(f"patch: {'×'.join(map(str, patch))} does not divide samples of shape {shape[:-1]}")
    return patch
