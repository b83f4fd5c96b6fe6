"""Drawing: a trial's numbers are a function of (seed, i) alone.

Keys come from `fold_in`, numbers are drawn in float64 whatever the computation's precision, and arrays are drawn in
blocks of one fixed size, so that a trial's bits do not depend on its batch.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..engines.blocks import blockwise
from ..engines.kept import Kept
from .laws import Law

_GENERATOR = "threefry2x32"


def draw_blocks(one: Callable[..., Any], laws: list[Law], seed: int, indices: np.ndarray, *numbers: Any) -> Any:
    """one(key, parameters of the laws, *numbers) for the trials with these indices, on the host.

    `one` is a module's function or a `functools.partial` of one, so that its compilation is kept.
    """
    # The generator is part of what (seed, i) means: neither its kind nor its layout is left to global settings.
    with jax.enable_x64(True), jax.threefry_partitionable(True):
        parameters = [np.asarray(law.parameters, np.float64) for law in laws]
        key = np.array([seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32)  # of `jax.random.key(seed)`
        draw = _compiled(one)
        return blockwise(lambda index: draw(key, index, parameters, *numbers), np.asarray(indices, np.uint32))


class _Same:
    """A partial function as a key: equal for the same function and arguments."""

    def __init__(self, one: Any):
        self.one = one
        is_partial = isinstance(one, functools.partial)
        self.key = (one.func, one.args, tuple(sorted(one.keywords.items()))) if is_partial else one

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.key == other.key


def _compiled(one: Callable[..., Any]) -> Any:
    return _kept(_Same(one))


@functools.lru_cache(maxsize=64)
def _kept(same: _Same) -> Any:
    def of_block(key_data: Any, indices: Any, parameters: Any, *numbers: Any):
        key = jax.random.wrap_key_data(key_data, impl=_GENERATOR)
        return jax.vmap(lambda index: same.one(jax.random.fold_in(key, index), parameters, *numbers))(indices)

    return Kept(of_block)


def sample(kind: str, key: PRNGKeyArray, parameters: Float[Array, " k"], shape: tuple[int, ...]) -> Array:
    """Float64 numbers of one kind of law, whose parameters may be traced."""
    if kind == "constant":
        return jnp.full(shape, parameters[0])
    if kind == "normal":
        return parameters[0] + parameters[1] * jax.random.normal(key, shape, jnp.float64)
    low, high = parameters[0], parameters[1]
    if kind == "loguniform":
        return jnp.exp(jax.random.uniform(key, shape, jnp.float64, jnp.log(low), jnp.log(high)))
    return jax.random.uniform(key, shape, jnp.float64, low, high)
