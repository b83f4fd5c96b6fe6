"""The compiler's own mathematical functions, against NumPy's extended precision and the C library's ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxdyn.engines.fused.engine import run
from jaxdyn.engines.fused.mathematics import FUNCTIONS, SINGLE

RNG = np.random.default_rng(0)
ANY = np.concatenate([RNG.normal(size=20_000), RNG.normal(size=20_000) * 10.0 ** RNG.uniform(-12, 3, 20_000)])
TINY, LARGEST = 5e-324, np.finfo(float).max
# By name: JAX's function, NumPy's, and where it is measured.
ONE = {
    "exp": (jnp.exp, np.exp, np.clip(ANY, -708, 709)),
    "exp2": (jnp.exp2, np.exp2, np.clip(ANY, -1021, 1023)),
    "expm1": (jnp.expm1, np.expm1, np.clip(ANY, -700, 709)),
    "log": (jnp.log, np.log, np.abs(ANY)),
    "log1p": (jnp.log1p, np.log1p, np.where(ANY < 0, np.expm1(-np.minimum(np.abs(ANY), 35)), ANY)),
    "sinh": (jnp.sinh, np.sinh, np.clip(ANY, -709, 709)),
    "cosh": (jnp.cosh, np.cosh, np.clip(ANY, -709, 709)),
    "tanh": (jnp.tanh, np.tanh, ANY),
    "asinh": (jnp.arcsinh, np.arcsinh, ANY),
    "acosh": (jnp.arccosh, np.arccosh, 1 + np.abs(ANY)),
    "atanh": (jnp.arctanh, np.arctanh, ANY / (1 + np.abs(ANY))),
    "sin": (jnp.sin, np.sin, np.concatenate([ANY, np.arange(-4000, 4000) * np.pi / 4, ANY * 1e8])),
    "cos": (jnp.cos, np.cos, np.concatenate([ANY, np.arange(-4000, 4000) * np.pi / 4, ANY * 1e8])),
    "tan": (jnp.tan, np.tan, np.concatenate([ANY, np.arange(-4000, 4000) * np.pi / 4, ANY * 1e8])),
    "asin": (jnp.arcsin, np.arcsin, np.clip(ANY, -1, 1)),
    "acos": (jnp.arccos, np.arccos, np.clip(ANY, -1, 1)),
    "atan": (jnp.arctan, np.arctan, ANY),
    "cbrt": (jnp.cbrt, np.cbrt, ANY),
}
SPECIAL = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 7.25, 40.0, 709.5, 711.0, 750.0, 1e5, 2.0**39, 2.0**60, 1e22, 1e300, LARGEST]
SPECIAL = np.array([*SPECIAL, np.inf, np.nan, TINY, 1e-310, 2.0**-1022, 1e-8])
SPECIAL = np.concatenate([SPECIAL, -SPECIAL])


def computed(function, *x):
    """The function's bits, as numbers: a state that is not finite would end its trial."""
    whole = f"int{8 * x[0].dtype.itemsize}"
    step = lambda _, x: jax.lax.bitcast_convert_type(function(*x), whole)  # noqa: E731
    return run(step, None, np.zeros(x[0].shape, whole), x, 1).states.view(x[0].dtype)


def units(have, want):
    """How far apart, in units of the last place."""
    return np.abs(have - want) / np.spacing(np.abs(want.astype(have.dtype)))


def test_every_function_is_measured():
    assert set(ONE) | {"pow", "atan2", "erf", "erfc", "lgamma"} == FUNCTIONS


@pytest.mark.parametrize("name", ONE)
def test_errors_are_below_one_unit_in_the_last_place(name):
    ours, numpys, x = ONE[name]
    assert np.max(units(computed(ours, x), numpys(x.astype(np.longdouble)))) < 1.0
    with np.errstate(all="ignore"):
        single = x.astype(np.float32)
        there = numpys(single.astype(float))
    normal = (np.abs(there) > 1e-37) & (np.abs(there) < 1e38)
    most = 0.51 if name not in SINGLE else {"tanh": 1.5, "exp": 1.1}.get(name, 1.0)
    assert np.max(units(computed(ours, single[normal]), there[normal])) < most


def _single(values):
    with np.errstate(all="ignore"):
        return np.asarray(values).astype(np.float32)


@pytest.mark.parametrize("name", SINGLE)
def test_single_precision_over_its_whole_range(name):
    """A prime step through all four thousand million numbers, with denormals, infinite ones and none."""
    ours, numpys, _ = ONE.get(name) or (jax.scipy.special.erf, scipy.special.erf, None)
    x = np.arange(0, 2**32, 9973, dtype=np.int64).astype(np.uint32).view(np.float32)
    x = np.concatenate([x, _single(SPECIAL), _single(1 + np.arange(-50, 50) * 2.0**-23)])
    with np.errstate(all="ignore"):
        want = numpys(x.astype(float))
        odd = ~np.isfinite(want.astype(np.float32)) | (want.astype(np.float32) == 0)
        have = computed(ours, x)
        np.testing.assert_array_equal(have[odd], want[odd].astype(np.float32))
        signed = odd & ~np.isnan(want)
        np.testing.assert_array_equal(np.signbit(have[signed]), np.signbit(want[signed]))
    off = np.abs(have[~odd].astype(float) - want[~odd]) / np.spacing(np.abs(want[~odd].astype(np.float32)))
    assert np.max(off) < ({"tanh": 1.5, "exp": 1.1}.get(name, 1.0))


def test_functions_of_two_numbers():
    x, y = ANY, RNG.permutation(ANY)
    assert np.max(units(computed(jnp.arctan2, x, y), np.arctan2(x.astype(np.longdouble), y))) < 1.0
    base, exponent = np.abs(x) + 1e-3, np.clip(y, -40, 40)
    want = base.astype(np.longdouble) ** exponent
    normal = (want > 1e-300) & (want < 1e308)
    want = np.where(normal, want, 1)
    assert np.max(units(computed(jnp.power, base, exponent), want)[normal]) < 1.0
    near = 1 + ANY[:2000] * 1e-5  # where a logarithm of plain precision would lose all
    exponent = 600 / np.log(near)
    want = near.astype(np.longdouble) ** exponent
    assert np.max(units(computed(jnp.power, near, exponent), want)) < 1.0
    for whole in (-3.0, 5.0, 2.0**53 + 2, -1e308):
        both = np.array([-2.0, -0.5, -1.0, 3.0]), np.full(4, whole)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(computed(jnp.power, *both), both[0] ** both[1])


def test_error_functions():
    for function, theirs in ((jax.scipy.special.erf, scipy.special.erf), (jax.scipy.special.erfc, scipy.special.erfc)):
        x = np.clip(ANY, -5, 5)
        np.testing.assert_allclose(computed(function, x), theirs(x), rtol=1e-14)  # SciPy's own is off by as much
    x = 0.1 + np.abs(ANY[:5000])
    np.testing.assert_allclose(computed(jax.lax.lgamma, x), scipy.special.gammaln(x), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", [*ONE, "erf"])
def test_ends_are_the_c_librarys(name):
    """Zeros with their signs, infinite numbers, none, the smallest and largest ones."""
    ours, numpys, _ = ONE.get(name) or (jax.scipy.special.erf, scipy.special.erf, None)
    with np.errstate(all="ignore"):
        want = numpys(SPECIAL)
    have = computed(ours, SPECIAL)
    odd = ~np.isfinite(want) | (want == 0)
    np.testing.assert_array_equal(have[odd], want[odd])
    np.testing.assert_array_equal(np.signbit(have[odd & ~np.isnan(want)]), np.signbit(want[odd & ~np.isnan(want)]))
    np.testing.assert_allclose(have[~odd], want[~odd], rtol=5e-16, atol=1e-323)


@pytest.mark.parametrize("function", [np.power, np.arctan2])
def test_ends_of_functions_of_two_are_the_c_librarys(function):
    x, y = (array.ravel() for array in np.meshgrid(SPECIAL, SPECIAL))
    with np.errstate(all="ignore"):
        want = function(x, y)
    have = computed(getattr(jax.lax, {"power": "pow", "arctan2": "atan2"}[function.__name__]), x, y)
    odd = ~np.isfinite(want) | (want == 0)
    np.testing.assert_array_equal(have[odd], want[odd])
    signed = odd & ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(have[signed]), np.signbit(want[signed]))
    np.testing.assert_allclose(have[~odd], want[~odd], rtol=5e-16, atol=1e-323)


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_far_out_the_librarys_are_taken_for_those_lanes_alone(name):
    ours, numpys, _ = ONE[name]
    x = np.where(np.arange(400) % 7 == 0, RNG.uniform(-1, 1, 400) * 1e18, RNG.normal(size=400))
    have = computed(ours, x)
    np.testing.assert_allclose(have, numpys(x), rtol=1e-15)
    near = np.abs(x) < 1e6
    np.testing.assert_array_equal(have[near], computed(ours, x[near]))


def test_bits_do_not_depend_on_the_lanes():
    f = lambda x: sum(ONE[name][0](0.1 + 0.2 * jnp.abs(jnp.sin(x))) for name in ONE if name != "acosh")  # noqa: E731
    x = ANY[:100]
    step = lambda state, _: (state[0], f(state[0]))  # noqa: E731
    ends = [run(step, None, (x, np.zeros(100)), np.zeros(100), 1, lanes=lanes).states[1] for lanes in (1, 2, 8, 16)]
    for end in ends[1:]:
        np.testing.assert_array_equal(end, ends[0])


def test_what_is_used_often_is_not_written_out_each_time():
    """300 sines would be 20,000 instructions, and seconds of compiling."""
    from jaxdyn.engines.fused.mathematics import definitions, symbol

    call = f"@{symbol('sin', 'float64', 8)}(<8 x double> %x)"
    few, many = (definitions([("sin", "float64")], 8, call * count)[0].splitlines()[0] for count in (3, 300))
    assert few.endswith("#0 {")
    assert many.endswith("#1 {")
