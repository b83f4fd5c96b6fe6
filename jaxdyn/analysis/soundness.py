"""What a linearisation rests on, checked: that the map is smooth and does not change in time, and that rounding cannot
turn the verdict. All traceable; each answers True where the verdict may stand.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

Move = Callable[[Any], Any]
_NUDGE, _SMOOTH = 1e-6, 1e-2  # size of a nudge, and how well its image must agree with the derivative
_TIMES = (0.7, 12.3)
_ROUNDING = 1e-13  # relative size of what rounding may do to a Jacobian and its eigenvalues
_NEAREST = 4  # eigenvalues looked at


def nearby(flat: Float[Array, " size"], share: float) -> Float[Array, " size"]:
    """A point near this one, off it in every component by up to `share` of its size, or of one."""
    return flat + share * (1 + jnp.abs(flat)) * jnp.cos(jnp.arange(flat.size) + 0.5)


def is_smooth(move: Move, flat: Float[Array, " size"], growth: Float[Array, "size size"]) -> Bool[Array, ""]:
    """Whether small nudges, to both sides, move each component as its derivative says.

    What is left over of a smooth map shrinks as the nudge's square, at a kink only as the nudge.
    """
    moved, scale = move(flat), jnp.linalg.norm(growth)
    direction = jnp.cos(jnp.arange(flat.size) + 0.5)
    rounding = 1e3 * jnp.finfo(flat.dtype).eps * (jnp.abs(moved) + scale * (1 + jnp.linalg.norm(flat)))

    def left_over(size: Any) -> Array:
        return jnp.abs(move(flat + size * direction) - moved - growth @ (size * direction))

    sizes = _NUDGE * jnp.array([1.0, 0.25, -1.0, -0.25], flat.dtype)
    here, closer, there, closer_there = jax.vmap(left_over)(sizes)
    allowed = _SMOOTH * _NUDGE * (jnp.linalg.norm(growth, axis=1) + _SMOOTH) * jnp.linalg.norm(direction) + rounding
    smooth = lambda far, near: (far <= allowed) | (near <= far / 8)  # noqa: E731
    return jnp.all(smooth(here, closer) & smooth(there, closer_there))


def is_autonomous(field: Callable[[Any, Any], Any], flat: Float[Array, " size"]) -> Bool[Array, ""]:
    """Whether a field of (time, flattened state) is the same at other times, near the state."""
    near = nearby(flat, 1e-3)
    first = field(jnp.zeros((), flat.dtype), near)
    later = jax.vmap(lambda t: field(t, near))(jnp.array(_TIMES, flat.dtype))
    same = jnp.abs(later - first) <= 1e-9 * jnp.linalg.norm(first)
    return jnp.all(same | ~jnp.isfinite(first))  # what is not finite is another doubt


def outlasts_rounding(
    matrix: Float[Array, "size size"],
    eigenvalues: Complex[Array, " size"],
    rate: Float[Array, " size"],
    orbit_dim: Any,
    is_map: bool,
) -> Bool[Array, ""]:
    """Whether no rounding error of the matrix could bring an eigenvalue across the border of stability.

    The least error that puts an eigenvalue at z is the least singular value of (matrix − z); it is taken at the places
    of the border nearest to the eigenvalues that are nearest to it, without the orbit's, which are the smallest.
    `matrix` has its orbit's eigenvalues moved to the stable side; a map's is that of the step less the identity.
    """
    by_size = jnp.argsort(jnp.argsort(jnp.abs(eigenvalues)))
    counted = (by_size >= orbit_dim) & (eigenvalues.imag >= 0)
    nearest = jnp.argsort(jnp.where(counted, jnp.abs(rate), jnp.inf))[:_NEAREST]
    chosen = eigenvalues[nearest]
    border = 1j * chosen.imag
    if is_map:
        modulus = jnp.abs(1 + chosen)
        border = jnp.where(modulus > 0, (1 + chosen) / jnp.where(modulus > 0, modulus, 1), 1) - 1
    size = matrix.shape[0]
    least = jax.vmap(lambda z: jnp.linalg.svd(matrix - z * jnp.eye(size), compute_uv=False)[-1])(border)
    return jnp.all((least > _ROUNDING * jnp.linalg.norm(matrix)) | ~counted[nearest])
