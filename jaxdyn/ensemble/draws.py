"""Drawing trials: trial i of an experiment is a function of (seed, i) alone.

Keys come from `fold_in`, numbers are drawn in float64 whatever the computation's precision, and
arrays are drawn in blocks of one fixed size, so that a trial's bits do not depend on its batch.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .protocol import Protocol

BLOCK = 1024
_MAX_REDRAWS = 10_000


class Draw(NamedTuple):
    """What one trial draws: ρ, τ, λ, μ, and the entries of A(0) [n, 1] and B(0) [n, n]."""

    rho: Float[Array, "*trials"]
    tau: Float[Array, "*trials"]
    weight_decay: Float[Array, "*trials"]
    lr: Float[Array, "*trials"]
    encoder: Float[Array, "*trials n 1"]
    predictor: Float[Array, "*trials n n"]


def draw_trials(protocol: Protocol, seed: int, indices: np.ndarray) -> Draw:
    """Draw the trials with these indices, as float64 arrays on the host.

    Raises:
        ValueError: if the laws give no parameters with Δ >= 0 where the protocol asks for them.
    """
    laws = [protocol.law(name) for name in ("rho", "tau", "weight_decay", "lr", "encoder", "predictor")]
    draw = _draw_for(tuple(law.kind for law in laws), protocol.n, protocol.discriminant, protocol.lr_cap is not None)
    # The generator is part of what (seed, i) means: neither its kind nor its layout is left to global settings.
    with jax.enable_x64(True), jax.threefry_partitionable(True):
        parameters = [jnp.asarray(law.parameters, jnp.float64) for law in laws]
        cap = jnp.asarray(0.0 if protocol.lr_cap is None else protocol.lr_cap, jnp.float64)
        key = jax.random.key(seed, impl="threefry2x32")
        drawn, accepted = blockwise(lambda i: draw(key, i, parameters, cap), np.asarray(indices, np.uint32))
    if not accepted.all():
        raise ValueError(
            f"discriminant: no draw with τ² − 4ρλ >= 0 in {_MAX_REDRAWS:,} tries for some trials; "
            'change the laws of rho, tau and weight_decay, or use discriminant = "any"'
        )
    return drawn


def blockwise(function: Callable[..., Any], *arrays: Any, size: int = BLOCK) -> Any:
    """Apply a function of whole blocks over a leading trial axis, in padded blocks of one fixed size.

    The shapes that `function` sees never depend on the number of trials, so neither do its bits.
    """
    total = jax.tree.leaves(arrays)[0].shape[0]
    parts = []
    for start in range(0, total, size):
        index = np.minimum(np.arange(start, start + size), total - 1)
        out = function(*jax.tree.map(lambda leaf: leaf[index], arrays))  # noqa: B023
        parts.append(jax.tree.map(lambda leaf: np.asarray(leaf)[: total - start], out))  # noqa: B023
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


@functools.lru_cache(maxsize=64)
def _draw_for(kinds: tuple[str, ...], n: int, discriminant: str, capped: bool) -> Any:
    """The compiled draw of a block for these kinds of laws; their numbers are arguments."""

    def one(key: PRNGKeyArray, index, parameters, cap):
        key_data, key_lr, key_encoder, key_predictor = jax.random.split(jax.random.fold_in(key, index), 4)

        def candidate(attempt):
            keys = jax.random.split(jax.random.fold_in(key_data, attempt), 3)
            rho, tau, weight_decay = (
                sample(kind, k, p, ()) for kind, k, p in zip(kinds, keys, parameters[:3], strict=False)
            )
            fine = rho > 0
            if discriminant == "nonnegative":
                fine &= tau**2 - 4 * rho * weight_decay >= 0
            return rho, tau, weight_decay, fine

        def retry(carry):
            attempt, _ = carry
            return attempt + 1, candidate(attempt + 1)

        _, (rho, tau, weight_decay, fine) = jax.lax.while_loop(
            lambda carry: ~carry[1][3] & (carry[0] < _MAX_REDRAWS), retry, (jnp.uint32(0), candidate(0))
        )
        lr = sample(kinds[3], key_lr, parameters[3], ())
        if capped:
            lr = jnp.minimum(lr, cap * rho / tau**2)
        encoder = sample(kinds[4], key_encoder, parameters[4], (n, 1))
        predictor = sample(kinds[5], key_predictor, parameters[5], (n, n))
        return Draw(rho, tau, weight_decay, lr, encoder, predictor), fine

    return jax.jit(jax.vmap(one, in_axes=(None, 0, None, None)))


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
