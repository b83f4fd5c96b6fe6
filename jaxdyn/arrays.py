"""Array arguments as they arrive: lists, NumPy and JAX arrays, traced values; checked where they can be."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from . import checks

ScalarLike: TypeAlias = float | int | np.floating | np.integer | np.ndarray | jax.Array
ArrayLike: TypeAlias = np.ndarray | jax.Array | Sequence[Any]


def is_traced(*values: Any) -> bool:
    """Whether any value is abstract, so that its numbers cannot be looked at."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(values))


def float_dtype(value: Any) -> np.dtype:
    """The value's own floating dtype, or JAX's default one for integers and Python numbers."""
    if hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating):
        return jax.dtypes.canonicalize_dtype(value.dtype)
    return jnp.zeros(()).dtype


def rounding_slack(dtype: Any) -> float:
    """Relative slack for exact properties of computed matrices: a thousand roundings of the dtype."""
    return 1e3 * float(jnp.finfo(dtype).eps)


def matrix(name: str, value: Any, *, square: bool = False) -> jax.Array:
    """`value` as a finite floating matrix [rows, columns]; entries of traced ones are not looked at."""
    if not is_traced(value):
        try:
            value = value if isinstance(value, jax.Array) else np.asarray(value)
        except (ValueError, TypeError):
            raise ValueError(f"{name}: expected a rectangular array of real numbers") from None
        if not (jnp.issubdtype(value.dtype, jnp.floating) or value.dtype.kind in "iub"):
            raise ValueError(f"{name}: expected an array of real numbers, got dtype {value.dtype}")
    array = jnp.asarray(value, float_dtype(value))
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name}: expected a matrix with at least one row and column, got shape {array.shape}")
    if square and array.shape[0] != array.shape[1]:
        raise ValueError(f"{name}: expected a square matrix, got shape {array.shape}")
    if not is_traced(array) and not np.isfinite(np.asarray(array, np.float64)).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    return array


def scalar(name: str, value: Any, *, low: float = -math.inf, high: float = math.inf, above: float | None = None) -> Any:
    """A real number, possibly an array of them or traced, each in [low, high] and > `above`.

    Python and NumPy numbers come back as `float`, so that no digit is lost before the dtype of a
    computation is known; arrays and traced values come back as they are.
    """
    if is_traced(value):
        return value
    if isinstance(value, np.ndarray | jax.Array):
        for extreme in (np.min(value), np.max(value)):
            checks.number(name, float(extreme), low=low, high=high, above=above)
        return value
    return checks.number(name, value, low=low, high=high, above=above)
