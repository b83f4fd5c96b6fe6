"""The classical Runge-Kutta method of order 4, in fixed steps."""

from collections.abc import Callable
from typing import Any

import jax

from .base import Carried, Fixed, Held, plus


class RK4(Fixed):
    """Order 4, four evaluations a step; between steps the cubic through both ends and their rates."""

    def advance(self, carried: Carried, held: Held) -> Any:
        t, y, h = carried.t, carried.state, held.dt
        k1 = self.rate(t, y, held)
        k2 = self.rate(t + h / 2, plus(y, (h / 2, k1)), held)
        k3 = self.rate(t + h / 2, plus(y, (h / 2, k2)), held)
        k4 = self.rate(t + h, plus(y, (h, k3)), held)
        return jax.tree.map(lambda y, a, b, c, d: y + h / 6 * (a + 2 * b + 2 * c + d), y, k1, k2, k3, k4)

    def between(self, previous: Carried, carried: Carried, held: Held) -> Callable[[Any], Any]:
        h = carried.t - previous.t
        first, last = (self.rate(each.t, each.state, held) for each in (previous, carried))

        def cubic(x: Any, y: Any, z: Any, dy: Any, dz: Any):
            return (1 - x) * y + x * z + x * (x - 1) * ((1 - 2 * x) * (z - y) + (x - 1) * h * dy + x * h * dz)

        return lambda x: jax.tree.map(lambda *parts: cubic(x, *parts), previous.state, carried.state, first, last)
