"""Mathematical functions inside a step: the engine's own against XLA's, each applied again and again."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from measuring import Case

from jaxdyn.engines import run

TRIALS, STEPS = 50_000, 300
# Each maps [0, 1] into where it is of interest.
FUNCTIONS = {
    "exp": lambda y: jnp.exp(-y), "log": lambda y: jnp.log(1.5 + y), "sin": lambda y: jnp.sin(y + 1), "cos": jnp.cos,
    "tan": lambda y: 0.3 * jnp.tan(0.5 * y + 0.5), "tanh": lambda y: jnp.tanh(y + 0.4),
    "atan2": lambda y: jnp.arctan2(y, 1 + y * y), "pow": lambda y: 0.5 * (1 + y * y) ** 0.3,
    "log1p": lambda y: jnp.log1p(y + 0.5), "expm1": lambda y: -jnp.expm1(-y),
    "erf": lambda y: jax.scipy.special.erf(y + 0.3), "sinh": lambda y: 0.6 * jnp.sinh(0.5 * y + 0.3),
    "cosh": lambda y: 0.6 * jnp.cosh(0.3 * y), "asin": lambda y: jnp.arcsin(0.5 * y + 0.3),
    "acos": lambda y: 0.4 * jnp.arccos(0.3 * y), "atan": lambda y: jnp.arctan(y + 0.5),
    "cbrt": lambda y: jnp.cbrt(y + 0.3), "exp2": lambda y: jnp.exp2(-y),
}  # fmt: skip


def cases(quick: bool) -> list[Case]:
    kinds = [np.float64] if quick else [np.float64, np.float32]
    return [case(name, kind) for kind in kinds for name in FUNCTIONS]


def case(name: str, kind: type) -> Case:
    function, dtype = FUNCTIONS[name], np.dtype(kind)
    methods = {"jaxdyn fused": partial(ours, function, dtype), "XLA, vmap(fori_loop)": partial(plain, function, dtype)}
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    return Case(f"{name}, {dtype}", methods, TRIALS * STEPS, "values", 1, None, tolerance, f"functions, {dtype}")


def ours(function, dtype):
    start, nothing = np.linspace(0, 1, TRIALS, dtype=dtype), np.zeros(TRIALS, dtype)
    step = lambda y, _: function(y)  # noqa: E731

    def work():
        with jax.enable_x64(True):
            return run("fused", step, None, start, nothing, STEPS).states[::97]

    return work


def plain(function, dtype):
    start = np.linspace(0, 1, TRIALS, dtype=dtype)
    again = jax.jit(lambda y: jax.lax.fori_loop(0, STEPS, lambda _, y: jax.vmap(function)(y), y))

    def work():
        with jax.enable_x64(True):
            return np.asarray(again(start))[::97]

    return work
