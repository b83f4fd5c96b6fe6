"""Array arguments as they arrive: lists, NumPy and JAX arrays, traced values; checked where they can be."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from . import checks

ScalarLike: TypeAlias = float | int | np.floating | np.integer | np.ndarray | jax.Array
ArrayLike: TypeAlias = np.ndarray | jax.Array | Sequence[Any]


Function = TypeVar("Function", bound=Callable[..., Any])


def in_float64(function: Function) -> Function:
    """The function, run under `jax.enable_x64`: its results are in float64 whatever the caller's setting."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any):
        with jax.enable_x64(True):
            return function(*arguments, **options)

    return wrapped  # type: ignore[return-value]


def in_float64_unless_traced(function: Function) -> Function:
    """The same where no argument is traced: numbers given as float64 or Python's keep all their digits."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any):
        if is_traced(arguments, options):
            return function(*arguments, **options)
        with jax.enable_x64(True):
            return function(*arguments, **options)

    return wrapped  # type: ignore[return-value]


def is_traced(*values: Any) -> bool:
    """Whether any value is abstract, so that its numbers cannot be looked at."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(values))


def refuse_traced(name: str, *values: Any) -> None:
    """ValueError for what is computed on the host and was called inside jit, vmap or grad."""
    if is_traced(*values):
        raise ValueError(f"{name}: this cannot be traced by jit, vmap or grad; pass numbers")


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
    """One real number in [low, high] and > `above`; a traced one is taken as it is.

    Python and NumPy numbers come back as `float`, so that no digit is lost before the dtype of a
    computation is known; JAX arrays and traced values come back as they are. Batches of numbers are
    made by `jax.vmap`, outside.
    """
    if isinstance(value, Tracer):
        return value
    if isinstance(value, np.ndarray | jax.Array):
        if value.ndim or not (jnp.issubdtype(value.dtype, jnp.floating) or value.dtype.kind in "iu"):
            raise ValueError(f"{name}: expected one real number, got an array {value.dtype}{list(value.shape)}")
        number = checks.number(name, float(value), low=low, high=high, above=above)
        return value if isinstance(value, jax.Array) else number
    return checks.number(name, value, low=low, high=high, above=above)


def floating_state(state: Any) -> tuple[Any, np.dtype]:
    """The state with array leaves of one floating dtype, and that dtype; ValueError otherwise."""
    try:
        arrays = [jnp.asarray(leaf) for leaf in jax.tree.leaves(state)]
    except (TypeError, ValueError):
        raise ValueError(f"state: expected a pytree of floating arrays, got {type(state).__name__}") from None
    if not arrays or not sum(leaf.size for leaf in arrays):
        raise ValueError("state: expected a pytree with at least one number")
    dtype = jnp.result_type(*arrays)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"state: expected floating arrays, got {dtype}")
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), state), dtype


def real_numbers(name: str, value: Any) -> np.ndarray:
    """A number or an array of real numbers, in float64."""
    try:
        found = np.asarray(value)
        if found.dtype.kind in "fiu" or jnp.issubdtype(found.dtype, jnp.floating):
            return found.astype(np.float64)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{name}: expected real numbers, got {checks.told(value)}")


def floating_dtype(name: str, dtype: Any) -> np.dtype:
    """float32 or float64."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"{name}: expected float32 or float64, got {dtype!r}")
    return found


def random_key(name: str, key: Any) -> Any:
    """A key of JAX's random numbers."""
    is_new = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and not key.ndim
    is_old = isinstance(key, np.ndarray | jax.Array) and key.dtype == np.uint32 and key.shape == (2,)
    if not (is_traced(key) or is_new or is_old):
        raise ValueError(f"{name}: expected a key such as jax.random.key(0), got {checks.told(key)}")
    return key


def traceable(tree: Any, dtype: Any, library: Any = jnp) -> Any:
    """The tree with its Python and array floats in the given dtype, so that no number is compiled in; NumPy's, if that
    is the library, for what stays on the host."""

    def convert(leaf: Any):
        floating = isinstance(leaf, float) or (hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating))
        return library.asarray(leaf, dtype) if floating else leaf

    return jax.tree.map(convert, tree)
