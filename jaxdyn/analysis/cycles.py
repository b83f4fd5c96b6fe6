"""Limit cycles: Newton's method on the return map, and Floquet multipliers, modulo a symmetry.

A cycle need close only up to the symmetry: after one turn the state may be a rotated copy of itself. It is sought in a
frame that turns at a constant rate c along the symmetry's directions v, in which ẏ = f(y) − c·v(y) closes exactly;
period, rate and a point are found together by Newton's method. Steps of least norm leave alone what moves along the
cycle and the symmetry. The derivative of the return map comes from the variational equations; what is left of it
transversally to the cycle and to its copies are the Floquet multipliers, which decide stability.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ..arrays import ScalarLike, floating_state, in_float64, refuse_traced
from ..checks import checked_arguments, number, one_of, whole_number
from ..solve.flow import SOLVERS, flow
from ..status import Status
from ..systems.base import System, check_with, directions_of, field_of
from .linearise import Directions
from .soundness import is_autonomous
from .symmetry import commutes, tangents_of

_SPANS = 1e-8  # relative size of a tangent below which it is none
_CLOSED = 1e-6  # of the state: a turn that ends nearer to its start is a cycle
_NEUTRAL = 1e-6  # how far from one a multiplier must be to decide anything


class LimitCycle(NamedTuple):
    """A cycle: a point of it, its period, and how nudges grow in one turn.

    `state`: a point; `period` in flow units; `drift`: rates c along the symmetry's directions; `multipliers`: Floquet
    multipliers transversal to the cycle and its copies, the largest first; `residual`: ‖end − start‖ of a turn,
    relative to the guess, at the tolerance it was found with.
    """

    state: Any
    period: float
    drift: np.ndarray
    multipliers: np.ndarray
    residual: float

    @property
    def n_unstable(self) -> int:
        """How many directions grow."""
        return int((np.abs(self.multipliers) > 1 + _NEUTRAL).sum())

    @property
    def is_stable(self) -> bool:
        """Whether every nudge dies out; False, too, where a multiplier is too close to one to tell."""
        return bool((np.abs(self.multipliers) < 1 - _NEUTRAL).all())

    def __repr__(self) -> str:
        largest = f"{np.abs(self.multipliers).max():.4g}" if self.multipliers.size else "none"
        kind = "stable" if self.is_stable else f"{self.n_unstable} of {self.multipliers.size} directions grow"
        numbers = f"largest multiplier {largest}, residual {self.residual:.2g}"
        return f"LimitCycle(period {self.period:.6g}, {kind}, {numbers})"


@checked_arguments
@in_float64
def limit_cycle(
    system: System,
    state: Any,
    data: Any,
    *,
    period: ScalarLike,
    directions: Directions | None = None,
    rtol: ScalarLike = 1e-10,
    solver: str = "tsit5",
    iterations: int = 30,
) -> LimitCycle:
    """The limit cycle of a flow next to a state, with its Floquet multipliers.

    Args:
        system: a system, or a field (t, state, data) that does not depend on t.
        state: a guess of a point of the cycle, such as where a long flow ended.
        data: what the field takes.
        period: a guess of the period; the cycle that is found may be another if it is far off.
        directions: tangents of a continuous symmetry, states with a leading axis; default: the system's own.
        rtol: of the integration, relative to the state (absolute: a hundredth of it).
        solver: see `flow`.
        iterations: of Newton's method, at most.

    Returns:
        The cycle.

    Raises:
        ValueError: where Newton's method finds no cycle, or one that is an equilibrium (up to the symmetry); for
            directions that are no symmetry of the system.

    Example:
        >>> import jax.numpy as jnp
        >>> field = lambda t, y, mu: jnp.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])
        >>> limit_cycle(field, jnp.array([2.0, 0.0]), 1.0, period=6.5)
        LimitCycle(period 6.66329, stable, largest multiplier 0.0008597, residual ...)

    Source: R. Seydel, Practical Bifurcation and Stability Analysis, ch. 7 (shooting, Floquet multipliers).
    """
    refuse_traced("system, state, data", system, state, data)
    solver = one_of("solver", solver, tuple(SOLVERS))
    turns = _Turns.of(system, state, data, directions, number("rtol", rtol, above=0), solver)
    return _newton(turns, number("period", period, above=0), whole_number("iterations", iterations))


def _newton(turns: "_Turns", period: float, iterations: int) -> LimitCycle:
    """Newton's method with steps of least norm, shortened where a turn gets further from closing."""
    m, size = turns.start.size, np.linalg.norm(turns.start) or 1.0
    at = np.concatenate([turns.start, [period], turns.drift_of(turns.start, period)])
    taken, least, share, step = at, np.inf, 1.0, np.zeros(at.size)
    for _ in range(iterations):
        end, derivative = turns(at[:m], float(at[m]), at[m + 1 :])
        residual = float(np.linalg.norm(end - at[:m]) / size)
        if not residual < 2 * least and share > 1e-3:
            share /= 4  # too far: a shorter step from where it came
        else:
            if residual < _CLOSED and not residual < 0.1 * least:  # as far as the integration's errors let it
                return turns.found(at, derivative[:, :m], residual)
            taken, least, share = at, residual, min(1.0, 2 * share)
            step = np.linalg.lstsq(derivative - np.eye(m, at.size), at[:m] - end, rcond=1e-9)[0]
            # A step that would halve the period, or more, is shortened.
            step = step * min(1.0, 0.5 * at[m] / max(abs(step[m]), 1e-300))
        at = taken + share * step
    raise ValueError(f"state, period: no cycle was found near them; the best of {iterations} turns is {least:.2g} off")


class _Turns:
    """One turn of the flattened state in the drifting frame, and its derivative by state, period and drift."""

    def __init__(self, start: np.ndarray, back: Any, rate: Any, tangents: Any, rtol: float, solver: str):
        self.start, self.back, self.rtol, self.solver = start, back, rtol, solver
        self._rate, self._tangents = jax.jit(rate), jax.jit(tangents)

        def turning(_: Any, whole: Any, parameters: Any) -> Any:
            """Of time in units of the period."""
            y, columns = whole
            move = lambda y, period, drift: period * (rate(y) - drift @ tangents(y))  # noqa: E731
            period, drift = parameters
            along = jnp.eye(1 + drift.size, columns.shape[1], y.size)
            grow = lambda v, w: jax.jvp(move, (y, period, drift), (v, w[0], w[1:]))[1]  # noqa: E731
            return move(y, period, drift), jax.vmap(grow, (1, 1), 1)(columns, along)

        self._turning = turning

    @classmethod
    def of(cls, system: Any, state: Any, data: Any, directions: Any, rtol: float, solver: str) -> "_Turns":
        state, _ = floating_state(state)
        check_with(system, state, data)
        field, start = field_of(system), ravel_pytree(state)
        flat, back = start
        rate = lambda y: ravel_pytree(field(0.0, back(y), data))[0]  # noqa: E731
        speed = float(jnp.linalg.norm(rate(flat)))
        if not np.isfinite(speed):
            raise ValueError("state, data: the field is not finite there")
        if speed == 0:
            raise ValueError("state: it is at rest there; see `linearise`")
        if not is_autonomous(lambda t, y: ravel_pytree(field(t, back(y), data))[0], flat):
            raise ValueError("system: the field changes with time; a limit cycle is of one that does not")
        directions = directions_of(system) if directions is None else directions
        none = lambda y: jnp.zeros((0, y.size))  # noqa: E731
        tangents = none if directions is None else lambda y: tangents_of(directions, back(y))
        if directions is not None and not commutes(directions, state, rate, False):
            raise ValueError("directions: they are no symmetry of the system, which does not commute with them")
        return cls(np.asarray(flat), back, rate, tangents, rtol, solver)

    def tangents(self, y: Any) -> np.ndarray:
        return np.asarray(self._tangents(y))

    def __call__(self, y: np.ndarray, period: float, drift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        start = (jnp.asarray(y), jnp.eye(y.size, y.size + 1 + drift.size))
        atol = 0.01 * self.rtol * max(1.0, float(np.abs(y).max()))
        turn = flow(self._turning, start, (jnp.asarray(period), jnp.asarray(drift)), t1=1.0, solver=self.solver,
                    rtol=self.rtol, atol=atol)  # fmt: skip
        if int(turn.status) != Status.COMPLETED:
            words = Status(int(turn.status)).name.lower().replace("_", " ")
            raise ValueError(f"state, period: a turn from there ended {words}")
        end, derivative = turn.final
        return np.asarray(end), np.asarray(derivative)

    def drift_of(self, y: np.ndarray, period: float) -> np.ndarray:
        """The rates along the symmetry with which a turn comes back nearest to where it began."""
        from scipy.optimize import least_squares

        count = self.tangents(y).shape[0]
        if not count:
            return np.zeros(0)
        end, _ = self(y, period, np.zeros(count))
        moved = jax.jit(lambda angles: _acted(self._tangents, jnp.asarray(y), angles) - end)
        rng = np.random.default_rng(0)
        starts = rng.uniform(-np.pi, np.pi, (4 * 2 ** min(count, 3), count))
        tries = [least_squares(lambda angles: np.asarray(moved(angles)), start) for start in starts]
        return min(tries, key=lambda each: each.cost).x / period

    def found(self, at: np.ndarray, derivative: np.ndarray, residual: float) -> LimitCycle:
        """The cycle through a point (with period and drift) whose turn has this derivative."""
        y, (period, *drift) = at[: self.start.size], at[self.start.size :]
        rate, tangents = np.asarray(self._rate(y)), self.tangents(y)
        around = _span(tangents.T)
        across = rate - around @ (around.T @ rate)
        if not np.linalg.norm(across) * period > 1e-6 * np.linalg.norm(self.start):
            raise ValueError("state: it is at rest there, up to the symmetry; see `linearise`")
        basis = np.linalg.svd(np.column_stack([around, across / np.linalg.norm(across)]), full_matrices=True)[0]
        rest = basis[:, around.shape[1] + 1 :]
        multipliers = np.linalg.eigvals(rest.T @ derivative @ rest)
        order = np.argsort(-np.abs(multipliers))
        return LimitCycle(self.back(jnp.asarray(y)), float(period), np.asarray(drift), multipliers[order], residual)


def _acted(tangents: Any, y: Any, angles: Any) -> Any:
    """What the symmetry makes of a state, along its directions by these angles: RK4 in 64 steps."""
    h = 1 / 64
    rate = lambda y: angles @ tangents(y)  # noqa: E731

    def step(_: Any, y: Any) -> Any:
        a = rate(y)
        b = rate(y + h / 2 * a)
        c = rate(y + h / 2 * b)
        return y + h / 6 * (a + 2 * b + 2 * c + rate(y + h * c))

    return jax.lax.fori_loop(0, 64, step, y)


def _span(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis of what the columns span."""
    basis, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return basis[:, sizes > _SPANS * max(1.0, sizes.max(initial=0.0))]
