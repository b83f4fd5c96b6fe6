"""Steinebach's Rosenbrock pair Rodas5P of order 5(4), L-stable, with the exact Jacobian: for stiff flows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ...linear import solve_linear
from .adaptive import Adaptive
from .base import Carried, Held, total

# Steinebach (2023), in the form that needs no products with the Jacobian: the last stage is the error.
GAMMA = 0.21193756319429014
C = (0.0, 0.6358126895828704, 0.4095798393397535, 0.9769306725060716, 0.4288403609558664, 1.0, 1.0, 1.0)
D = (0.21193756319429014, -0.42387512638858027, -0.3384627126235924, 1.8046452872882734, 2.325825639765069,
             0.0, 0.0, 0.0)  # fmt: skip
_LAST = (-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946)
A = (
    (),
    (3.0,),
    (2.849394379747939, 0.45842242204463923),
    (-6.954028509809101, 2.489845061869568, -10.358996098473584),
    (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
    _LAST,
    (*_LAST, 1.0),
    (*_LAST, 1.0, 1.0),
)
COUPLING = (
    (),
    (-14.155112264123755,),
    (-17.97296035885952, -2.859693295451294),
    (147.12150275711716, -1.41221402718213, 71.68940251302358),
    (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
    (24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125, -0.6610691825249471),
    (30.91273214028599, -3.1208243349937974, 77.79954646070892, 34.28646028294783, -19.097331116725623,
     -28.087943162872662),
    (37.80277123390563, -3.2571969029072276, 112.26918849496327, 66.9347231244047, -40.06618937091002,
     -54.66780262877968, -9.48861652309627),
)  # fmt: skip
DENSE = (
    (25.948786856663858, -2.5579724845846235, 10.433815404888879, -2.3679251022685204, 0.524948541321073,
     1.1241088310450404, 0.4272876194431874, -0.17202221070155493),
    (-9.91568850695171, -0.9689944594115154, 3.0438037242978453, -24.495224566215796, 20.176138334709044,
     15.98066361424651, -6.789040303419874, -6.710236069923372),
    (11.419903575922262, 2.8879645146136994, 72.92137995996029, 80.12511834622643, -52.072871366152654,
     -59.78993625266729, -0.15582684282751913, 4.883087185713722),
)  # fmt: skip


class Rodas5P(Adaptive):
    """Adaptive steps; eight stages that share one Jacobian and one elimination."""

    def attempt(self, carried: Carried, held: Held, h: Any) -> tuple[Any, Any, Any]:
        stages, flat, back = self._stages(carried, held, h)
        return back(total([flat, *_products(A[-1], stages[:-1]), stages[-1]])), back(stages[-1]), ()

    def between(self, previous: Carried, carried: Carried, held: Held) -> Callable[[Any], Any]:
        stages, flat, back = self._stages(previous, held, carried.t - previous.t)
        k1, k2, k3 = (total(_products(row, stages)) for row in DENSE)
        end, _ = ravel_pytree(carried.state)
        return lambda x: back((1 - x) * flat + x * (end + (1 - x) * (k1 + x * (k2 + x * k3))))

    def _stages(self, carried: Carried, held: Held, h: Any) -> tuple[list[Any], Any, Any]:
        """The eight stages U_i of (I/(γh) − J) U_i = f(t + c_i h, y + Σ a U) + Σ C U / h + h d_i ∂f/∂t."""
        flat, back = ravel_pytree(carried.state)
        rate = lambda t, y: ravel_pytree(self.rate(t, back(y), held))[0]  # noqa: E731
        jacobian = jax.jacfwd(rate, argnums=1)(carried.t, flat)
        _, drift = jax.jvp(lambda t: rate(t, flat), (carried.t,), (jnp.ones_like(carried.t),))
        eye = jnp.eye(flat.size, dtype=flat.dtype)
        inverse = solve_linear(eye / (GAMMA * h) - jacobian, eye)
        stages: list[Any] = []
        for node, a, coupling, d in zip(C, A, COUPLING, D, strict=True):
            y = total([flat, *_products(a, stages)])
            right = rate(carried.t + node * h, y)
            if stages:
                right = right + total(_products(coupling, stages)) / h
            right = right + (h * d) * drift
            stages.append(inverse @ right)
        return stages, flat, back


def _products(factors: Any, vectors: Any) -> list[Any]:
    return [factor * u for factor, u in zip(factors, vectors, strict=True) if factor != 0]
