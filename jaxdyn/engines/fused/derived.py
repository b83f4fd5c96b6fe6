"""Primitives that are JAX functions of simpler ones: random numbers, special functions; see `factorisations`.

`DERIVED[name](**params)` is a function of the primitive's arguments; the compiler traces it in the primitive's place.
What stands here must be right for any numbers that the primitive takes, or be `Unsupported` by name.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex
from jax.extend import random as generators

from ..base import tracing
from .expressions import Unsupported
from .factorisations import FACTORISATIONS

DERIVED: dict[str, Callable[..., Callable[..., Any]]] = dict(FACTORISATIONS)


def derived(make: Callable[..., Callable[..., Any]]) -> Callable[..., Callable[..., Any]]:
    DERIVED[make.__name__.strip("_")] = make
    return make


def derived_jaxpr(equation: Any) -> Any:
    """The jaxpr that stands for an equation, or None."""
    make = DERIVED.get(equation.primitive.name)
    if make is None:
        return None
    inputs = tuple(jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype) for atom in equation.invars)
    kinds = tuple(out.aval.dtype for out in equation.outvars)
    try:
        hash(key := tuple(sorted(equation.params.items(), key=lambda each: each[0])))
    except TypeError:
        raise Unsupported(f"the primitive {equation.primitive.name} with these options") from None
    return _traced(equation.primitive.name, key, inputs, kinds, tracing())


@functools.lru_cache(maxsize=256)
def _traced(name: str, params: Any, inputs: Any, kinds: Any, settings: Any) -> jex.ClosedJaxpr:
    try:
        function = DERIVED[name](**dict(params))
    except TypeError:  # options that another version of JAX has
        raise Unsupported(f"the primitive {name} with these options") from None

    def typed(*arguments: Any) -> list[Any]:
        out = function(*arguments)
        return [each if each.dtype == kind else each.astype(kind)
                for each, kind in zip(out if isinstance(out, tuple) else (out,), kinds, strict=True)]  # fmt: skip

    return jax.make_jaxpr(typed)(*inputs)


# Random numbers: JAX's own, whose bits are those of the generator everywhere.


def _of_keys(function: Callable[..., Any], keys: Any) -> Any:
    """function(key data [2]) for an array of keys of any shape."""
    data = jax.random.key_data(keys)
    for _ in range(keys.ndim):
        function = jax.vmap(function)
    return function(data)


@derived
def random_bits(*, bit_width: int, shape: tuple[int, ...]) -> Callable[..., Any]:
    return lambda keys: _of_keys(lambda key: generators.threefry_prng_impl.random_bits(key, bit_width, shape), keys)


@derived
def random_split(*, shape: tuple[int, ...]) -> Callable[..., Any]:
    split = lambda key: generators.threefry_prng_impl.split(key, shape)  # noqa: E731
    return lambda keys: jax.random.wrap_key_data(_of_keys(split, keys), impl="threefry2x32")


@derived
def random_fold_in() -> Callable[..., Any]:
    fold = jnp.vectorize(generators.threefry_prng_impl.fold_in, signature="(k),()->(k)")
    return lambda keys, data: jax.random.wrap_key_data(fold(jax.random.key_data(keys), data), impl="threefry2x32")


@derived
def random_seed(*, impl: Any) -> Callable[..., Any]:
    if str(impl) != "fry":
        raise Unsupported(f"random keys of the kind {impl}")
    seed = jnp.vectorize(generators.threefry_prng_impl.seed, signature="()->(k)")
    return lambda seeds: jax.random.wrap_key_data(seed(seeds), impl="threefry2x32")


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


@derived
def threefry2x32():
    """Twenty rounds (Salmon et al. 2011)."""

    def cipher(first: Any, second: Any, x: Any, y: Any) -> tuple[Any, Any]:
        keys = (first, second, first ^ second ^ np.uint32(0x1BD11BDA))
        x, y = x + first, y + second
        for block in range(5):
            for by in _ROTATIONS[block % 2]:
                x = x + y
                y = (y << np.uint32(by)) | (y >> np.uint32(32 - by))
                y = x ^ y
            x = x + keys[(block + 1) % 3]
            y = y + keys[(block + 2) % 3] + np.uint32(block + 1)
        return x, y

    return cipher


# Special functions and bits.


@derived
def top_k(*, k: int, axis: int):
    """The first in descending total order; of equal ones those with the lower index."""

    def one(x: Any) -> Any:
        x = jnp.moveaxis(x, axis, -1)
        counts = jax.lax.broadcasted_iota(np.int32, x.shape, x.ndim - 1)
        _, values, places = jax.lax.sort((~_in_order(x), x, counts), num_keys=1)
        return tuple(jnp.moveaxis(each[..., :k], -1, axis) for each in (values, places))

    return one


@derived
def erf_inv(**_: Any):
    """Giles' polynomial (2010) for single precision; in double precision two steps of Halley's method go on from it."""

    def one(x: Any) -> Any:
        kind = x.dtype
        w = -jnp.log1p(-x * x) if kind != np.float64 else -jnp.log((1 - x) * (1 + x))
        small = _horner(w - 2.5, _CENTRE, kind)
        large = _horner(jnp.sqrt(jnp.maximum(w, 5)) - 3, _TAIL, kind)
        y = jnp.where(w < 5, small, large) * x
        y = jnp.where(jnp.abs(x) == 1, x * jnp.inf, y)
        if kind != np.float64:
            return y
        size, at = jnp.abs(x), jnp.abs(y)
        # Far out the polynomial has two digits: erfc(y) √π y = exp(−y²) (1 − 1/2y²) is good to four there.
        far = jnp.where(w > 15, at, 4)
        fixed = jnp.sqrt(-jnp.log(jnp.where(w > 15, 1 - size, 1e-9) * _ROOT_PI * far / (1 - 0.5 / (far * far))))
        at = jnp.where(w > 15, fixed, at)
        for _ in range(2):
            wrong = jnp.where(size < 0.5, jax.lax.erf(at) - size, (1 - size) - jax.lax.erfc(at))
            slope = wrong * (_ROOT_PI / 2) * jnp.exp(at * at)
            at = at - slope / (1 + at * slope)
        inside = jnp.isfinite(y) & (size > 0)
        return jnp.where(inside, jnp.copysign(at, x), y)

    return one


_ROOT_PI = float(np.sqrt(np.pi))
_CENTRE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip


def _horner(x: Any, coefficients: Any, kind: Any) -> Any:
    total = jnp.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + np.asarray(coefficient, kind)
    return total


@derived
def clz():
    """How many leading bits are zero: of those that stand, all below are set, and counted."""

    def one(x: Any) -> Any:
        bits, unsigned = 8 * x.dtype.itemsize, np.dtype(f"uint{8 * x.dtype.itemsize}")
        whole = jax.lax.convert_element_type(x, unsigned)
        by = 1
        while by < bits:
            whole = whole | (whole >> np.asarray(by, unsigned))
            by *= 2
        return jax.lax.population_count(~whole)

    return one


@derived
def nextafter():
    def one(x: Any, y: Any) -> Any:
        whole = np.dtype(f"int{8 * x.dtype.itemsize}")
        one = np.asarray(1, whole)
        bits = jax.lax.bitcast_convert_type(x, whole)
        least = jnp.copysign(jax.lax.bitcast_convert_type(jnp.full_like(bits, 1), x.dtype), y)
        moved = bits + jnp.where((y > x) == (x > 0), one, -one)
        new = jnp.where(x == 0, least, jax.lax.bitcast_convert_type(moved, x.dtype))
        new = jnp.where(x == y, y, new)
        return jnp.where(jnp.isnan(x) | jnp.isnan(y), x + y, new)

    return one


def _in_order(x: Any) -> Any:
    """Whole numbers in the total order −NaN < −∞ < … < −0 < 0 < … < ∞ < NaN: the bits, mirrored below zero."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    whole = np.dtype(f"int{8 * x.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(x, whole)
    return jnp.where(bits < 0, np.asarray(np.iinfo(whole).max, whole) ^ bits, bits)


def _comparison(name: str) -> Callable[..., Callable[..., Any]]:
    return lambda: lambda x, y: getattr(jax.lax, name)(_in_order(x), _in_order(y))


DERIVED.update({f"{name}_to": _comparison(name) for name in ("lt", "le", "eq")})
