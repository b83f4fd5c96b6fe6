"""Tsitouras' Runge-Kutta pair of order 5(4), explicit: for flows that are not stiff."""

from collections.abc import Callable
from typing import Any

import jax

from .adaptive import Adaptive
from .base import Carried, Fixed, Flow, Held, combination, plus

# Tsitouras (2011), table 1: nodes, stages, weights of the error (order 5 minus order 4).
C = (0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0)
A = (
    (0.161,),
    (-0.008480655492356989, 0.335480655492357),
    (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
    (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
    (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
    (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
)
ERROR = (
    0.0017800110522257773, 0.0008164344596567463, -0.007880878010261994, 0.1447110071732629, -0.5823571654525552,
    0.45808210592918686, -0.015151515151515152,
)  # fmt: skip
# The free interpolant of order 4 as b_i(θ) = factor · θ² (θ − p)(θ − q) for i > 3; the others are written out below.


def tsit5_weights(x: Any):
    """The interpolant's weights b_1 … b_7 at x = (t − t₀) / h in [0, 1] (Tsitouras 2011, eq 12 ff.)."""
    square = x * x
    return (
        -1.0530884977290216 * x * (x - 1.3299890189751412) * (square - 1.4364028541716351 * x + 0.7139816917074209),
        0.1017 * square * (square - 2.1966568338249754 * x + 1.2949852507374631),
        2.490627285651252793 * square * (square - 2.38535645472061657 * x + 1.57803468208092486),
        -16.54810288924490272 * square * (x - 1.21712927295533244) * (x - 0.61620406037800089),
        47.37952196281928122 * square * (x - 1.203071208372362603) * (x - 0.658047292653547382),
        -34.87065786149660974 * square * (x - 1.2) * (x - 0.666666666666666667),
        2.5 * square * (x - 1.0) * (x - 0.6),
    )


def _stages(program: Flow, t: Any, y: Any, h: Any, held: Held, first: Any) -> tuple[Any, list[Any]]:
    """The new state and the rates of all seven stages, the last of them the new state's."""
    rates, new = [first], y
    for node, row in zip(C, A, strict=True):
        slope = combination(row, rates)
        new = plus(y, (h, slope))
        rates.append(program.rate(t + node * h, new, held))
    return new, rates


def _interpolant(program: Flow, previous: Carried, h: Any, held: Held, first: Any) -> Callable[[Any], Any]:
    _, rates = _stages(program, previous.t, previous.state, h, held, first)
    return lambda x: plus(previous.state, (h, combination(tsit5_weights(x), rates)))


class Tsit5(Adaptive):
    """Adaptive steps; six evaluations each, the last serving the next step."""

    keeps_rate = True

    def attempt(self, carried: Carried, held: Held, h: Any) -> tuple[Any, Any, Any]:
        new, rates = _stages(self, carried.t, carried.state, h, held, carried.rate)
        error = jax.tree.map(lambda slope: h * slope, combination(ERROR, rates))
        return new, error, rates[-1]

    def between(self, previous: Carried, carried: Carried, held: Held) -> Callable[[Any], Any]:
        return _interpolant(self, previous, carried.t - previous.t, held, previous.rate)


class FixedTsit5(Fixed):
    """The same method in steps of a fixed size."""

    def advance(self, carried: Carried, held: Held) -> Any:
        t, y = carried.t, carried.state
        return _stages(self, t, y, held.dt, held, self.rate(t, y, held))[0]

    def between(self, previous: Carried, carried: Carried, held: Held) -> Callable[[Any], Any]:
        first = self.rate(previous.t, previous.state, held)
        return _interpolant(self, previous, carried.t - previous.t, held, first)
