"""How far a vector field is from a gradient: it is one iff its Jacobian is symmetric everywhere (P Prop 3.2)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from ..arrays import random_key
from ..checks import checked_arguments, whole_number
from ..systems.base import ContinuousSystem, Field, field_of


class GradientDefect(NamedTuple):
    """`value` ‖J − Jᵀ‖/‖J‖ (Frobenius; 0 for a gradient field, √2 for a random J, 2 for a skew one), its
    `standard_error` (0 if it is exact), and `norm` ‖J‖."""

    value: Float[Array, ""]
    standard_error: Float[Array, ""]
    norm: Float[Array, ""]


@checked_arguments
def gradient_defect(
    system: ContinuousSystem | Field,
    point: Any,
    data: Any = None,
    *,
    probes: int | None = None,
    key: PRNGKeyArray | None = None,
    rescaled: bool = False,
) -> GradientDefect:
    """‖J − Jᵀ‖/‖J‖ of a vector field at a point.

    A field may be a gradient in other units of its parts: with another learning rate for the predictor gradient
    descent still descends. `rescaled` gives the infimum over all rescalings of the point's leaves, 0 iff J is
    symmetric in some metric that is constant on each leaf.

    Args:
        system: a system, or a field (t, point, data) -> rates; for a network its update direction.
        point: pytree of floating arrays, such as a state or a network's parameters.
        data: what the field takes.
        probes: None forms J. Otherwise an estimate from this many random pairs (u, w), for points too
            large for that: E(uᵀJw − wᵀJu)² = ‖J − Jᵀ‖² and E(uᵀJw)² = ‖J‖² for standard normal u, w; two
            Jacobian-vector products a pair.
        key: of the probes.
        rescaled: in the units of the leaves that make it smallest; needs the whole J.

    Example:
        >>> rotate = lambda t, y, data: jnp.array([-y[1], y[0]])
        >>> float(gradient_defect(rotate, jnp.array([1.0, 0.0])).value)
        2.0

    Source: P Prop 3.2 (Schwarz); the Hutchinson-style estimate and the rescaling are ours.
    """
    flat, unravel = ravel_pytree(point)
    field = field_of(system)
    rate = lambda y: ravel_pytree(field(0.0, unravel(y), data))[0]  # noqa: E731
    zero = jnp.zeros((), flat.dtype)
    if probes is None and key is not None:
        raise ValueError("key: it belongs to probes, of which none are asked for")
    if rescaled and probes is not None:
        raise ValueError("rescaled: it needs the whole Jacobian; leave out probes")
    if probes is None:
        j = jax.jacfwd(rate)(flat)
        if rescaled:
            value, norm = _balanced(j, [leaf.size for leaf in jax.tree.leaves(point)])
            return GradientDefect(value, zero, norm)
        norm = jnp.linalg.norm(j)
        return GradientDefect(jnp.linalg.norm(j - j.T) / norm, zero, norm)
    whole_number("probes", probes, low=2)
    if key is None:
        raise ValueError("key: random probes need a key")
    random_key("key", key)

    def pair(k: Any):
        u, w = jax.random.normal(k, (2, flat.size), flat.dtype)
        forward = jnp.vdot(u, jax.jvp(rate, (flat,), (w,))[1])
        return forward, jnp.vdot(w, jax.jvp(rate, (flat,), (u,))[1])

    forward, back = jax.lax.map(pair, jax.random.split(key, probes))
    skew, whole = (forward - back) ** 2, (forward**2 + back**2) / 2
    ratio = jnp.mean(skew) / jnp.mean(whole)
    # Delta method for a ratio of means, then for its square root.
    deviation = jnp.std(skew - ratio * whole) / jnp.sqrt(probes) / jnp.mean(whole)
    value = jnp.sqrt(ratio)
    return GradientDefect(
        value, deviation / (2 * jnp.maximum(value, jnp.finfo(flat.dtype).tiny)), jnp.sqrt(jnp.mean(whole))
    )


_SWEEPS = 200


def _balanced(j: Float[Array, "N N"], sizes: list[int]) -> tuple[Array, Array]:
    """The infimum of ‖J̃ − J̃ᵀ‖/‖J̃‖ over J̃ = D J D⁻¹, D constant on each block, and ‖J̃‖ there.

    ‖J̃ − J̃ᵀ‖² = 2‖J̃‖² − 2 tr J², and the trace does not change: where it is positive the smallest ‖J̃‖ is sought, which
    is Osborne's balancing of blocks, a convex problem in log D. Otherwise D to infinity brings the ratio down to √2,
    which no D does.
    """
    which = jnp.repeat(jnp.arange(len(sizes)), jnp.array(sizes), total_repeat_length=sum(sizes))
    squares = jnp.zeros((len(sizes), len(sizes)), j.dtype).at[which[:, None], which].add(j**2)
    outside = squares * (1 - jnp.eye(len(sizes), dtype=j.dtype))
    trace, tiny = jnp.sum(j * j.T), jnp.finfo(j.dtype).tiny

    def sweep(_, logs: Array) -> Array:
        def one(block: Any, logs: Array) -> Array:
            scaled = outside * jnp.exp(2 * (logs[:, None] - logs))
            row, column = scaled[block].sum(), scaled[:, block].sum()
            # A block that only drives, or is only driven, is scaled away: as far as numbers go.
            step = jnp.clip((jnp.log(column + tiny) - jnp.log(row + tiny)) / 4, -5, 5)
            return logs.at[block].set(jnp.clip(logs[block] + jnp.where(row + column > 0, step, 0), -30, 30))

        return jax.lax.fori_loop(0, len(sizes), one, logs)

    logs = jax.lax.fori_loop(0, _SWEEPS, sweep, jnp.zeros(len(sizes), j.dtype))
    scales = jnp.exp(logs)[which]
    scaled = scales[:, None] * j / scales
    norm = jnp.linalg.norm(scaled)
    # From the difference itself: 2‖J̃‖² − 2 tr J² cancels where J̃ is symmetric.
    value = jnp.linalg.norm(scaled - scaled.T) / norm
    # Of no Jacobian, or one that is not finite, there is nothing to say.
    far = jnp.where(jnp.isfinite(trace) & (norm > 0), jnp.sqrt(jnp.asarray(2, j.dtype)), jnp.nan)
    return jnp.where(trace > 0, value, far), norm
