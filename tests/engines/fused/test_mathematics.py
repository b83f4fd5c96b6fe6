"""exp and log in vectors, against NumPy's extended precision."""

import numpy as np
import pytest

from jaxdyn.engines.fused.engine import run
from jaxdyn.engines.fused.mathematics import LIBRARY


def computed(function, x):
    return run(lambda state, _: (state[0], function(state[0])), None, (x, np.zeros_like(x)), x, 1).states[1]


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("exp", np.concatenate([np.linspace(-745, 709.7, 200_001), np.random.default_rng(0).normal(size=100_000)])),
        ("log", np.exp(np.random.default_rng(1).uniform(-740, 709, 200_000))),
        ("log", np.random.default_rng(2).uniform(0.5, 2, 100_000)),
    ],
)
def test_errors_are_below_one_unit_in_the_last_place(name, points):
    import jax.numpy as jnp

    have = computed(getattr(jnp, name), points)
    want = getattr(np, name)(points.astype(np.longdouble))
    units = np.spacing(np.abs(want.astype(float)))
    assert np.max(np.abs(have - want) / units) < 1.0


def test_ends_of_the_range():
    import jax.numpy as jnp

    points = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1000.0, -1000.0, 5e-324, 1.0])
    # A state that is not finite ends a trial before it is stored: look at the bits through a comparison.
    with np.errstate(all="ignore"):
        for name in ("exp", "log"):
            want = getattr(np, name)(points)
            function = getattr(jnp, name)
            classes = lambda x, f=function: (  # noqa: E731
                4.0 * (f(x) == jnp.inf) + 2.0 * (f(x) == -jnp.inf) + 1.0 * (f(x) != f(x)) + 8.0 * (f(x) == 0)
            )
            state = (np.zeros(points.size), np.zeros(points.size))
            have = run(lambda s, p, c=classes: (s[0], c(p)), None, state, points, 1).states[1]
            np.testing.assert_array_equal(
                have, 4.0 * (want == np.inf) + 2.0 * (want == -np.inf) + 1.0 * np.isnan(want) + 8.0 * (want == 0)
            )


@pytest.mark.parametrize("name", sorted(set(LIBRARY) - {"pow", "atan2", "lgamma", "erf", "erfc"}))
def test_the_librarys_functions(name: str):
    import jax.numpy as jnp

    inverse = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh",
               "atanh": "arctanh"}  # fmt: skip
    numpy_name = inverse.get(name) or name
    points = np.linspace(1.1, 3, 50) if name == "acosh" else np.linspace(-0.9, 0.9, 51)
    have = computed(getattr(jnp, numpy_name), points)
    np.testing.assert_allclose(have, getattr(np, numpy_name)(points), rtol=1e-15, atol=1e-16)
