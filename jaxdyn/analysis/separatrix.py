"""The curve through a saddle that parts the plane: starts on one side of it end elsewhere than those on the other."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ..arrays import ScalarLike, floating_state, in_float64, refuse_traced
from ..checks import checked_arguments, number, whole_number
from ..systems.base import ContinuousSystem, Field, check_with, field_of
from .soundness import is_autonomous

_NUDGE = 1e-6  # from the saddle, relative to its size: the curve's curvature shows in the square of it
_NEAR = 1e-4  # relative to its size: how far Newton's method may move what is called the saddle


@checked_arguments
@in_float64
def separatrix(
    system: ContinuousSystem | Field,
    saddle: Any,
    data: Any = None,
    *,
    reach: ScalarLike,
    points: int = 200,
    rtol: ScalarLike = 1e-10,
) -> np.ndarray:
    """The stable manifold of a saddle of a flow in the plane: both branches, followed backward in time.

    Args:
        system: a system whose state has two numbers, or a field (t, state, data) that does not depend on t; the
            scalar Siamese systems of one unit are `StopGradient` or `Objective` with n = m = 1.
        saddle: the saddle, an equilibrium with one direction that grows and one that shrinks.
        data: what the field takes.
        reach: length of either branch, in units of the state; one that comes from an equilibrium ends there.
        points: on either branch, evenly spaced.
        rtol: of the integration.

    Returns:
        Points [2·points + 1, 2] of the flattened state, from the end of one branch through the saddle to that of the
        other.

    Raises:
        ValueError: where the state is no saddle in the plane, or a branch cannot be followed.

    Example:
        >>> pendulum = lambda t, y, data: jnp.stack([y[1], -jnp.sin(y[0])])
        >>> curve = separatrix(pendulum, jnp.array([jnp.pi, 0.0]), reach=3.0)
        >>> bool(np.allclose(curve[:, 1] ** 2, 2 + 2 * np.cos(curve[:, 0]), atol=1e-8))
        True

    Source: S. Strogatz, Nonlinear Dynamics and Chaos, §6.4.
    """
    refuse_traced("system, saddle, data", system, saddle, data)
    length, points = number("reach", reach, above=0), whole_number("points", points)
    state, _ = floating_state(saddle)
    check_with(system, state, data)
    field, (flat, back) = field_of(system), ravel_pytree(state)
    if flat.size != 2:
        raise ValueError(f"saddle: expected a state of two numbers, got {flat.size}")
    rate = jax.jit(lambda y: ravel_pytree(field(0.0, back(y), data))[0])
    size = max(float(jnp.linalg.norm(flat)), 1e-3 * length)
    flat, jacobian = _refined(rate, flat, size)
    if not is_autonomous(lambda t, y: ravel_pytree(field(t, back(y), data))[0], flat):
        raise ValueError("system: the field changes with time; its plane is not parted by one curve")
    values, vectors = np.linalg.eig(jacobian)
    if np.iscomplexobj(values) or not values.min() < 0 < values.max():
        raise ValueError(f"saddle: expected one eigenvalue above and one below zero, got {values}")
    along = vectors[:, values.argmin()]
    starts = [np.asarray(flat) + way * _NUDGE * size * along for way in (1, -1)]
    branches = [_branch(rate, start, length, points, number("rtol", rtol, above=0)) for start in starts]
    return np.concatenate([branches[0][::-1], np.asarray(flat)[None], branches[1]])


def _refined(rate: Any, guess: Any, size: float) -> tuple[Any, np.ndarray]:
    """The equilibrium next to a guess by Newton's method, and the Jacobian there."""
    at = guess
    for _ in range(4):
        jacobian = np.asarray(jax.jacfwd(rate)(at))
        if not (np.isfinite(jacobian).all() and np.linalg.matrix_rank(jacobian) == 2):
            raise ValueError("saddle: the field has no regular derivative there")
        at = at - jnp.linalg.solve(jacobian, rate(at))
    if not float(jnp.linalg.norm(at - guess)) <= _NEAR * size:
        raise ValueError("saddle: it is not at rest there")
    return at, np.asarray(jax.jacfwd(rate)(at))


def _branch(rate: Any, start: np.ndarray, length: float, points: int, rtol: float) -> np.ndarray:
    """Points along the way into this one, by the length of the curve; at its source it rests."""
    from scipy.integrate import solve_ivp

    slowest = 1e-2 * float(np.linalg.norm(rate(start)))  # a hundredth of a nudge from an equilibrium

    def unwind(t: float, y: np.ndarray) -> np.ndarray:
        v = np.asarray(rate(y))
        return -v / np.linalg.norm(v)

    def at_rest(t: float, y: np.ndarray) -> float:
        return float(np.linalg.norm(rate(y))) - slowest

    at_rest.terminal = True  # pyright: ignore[reportFunctionMemberAccess]
    times = np.linspace(0, length, points + 1)[1:]
    found = solve_ivp(unwind, (0, length), start, "DOP853", times, events=at_rest, rtol=rtol, atol=1e-2 * rtol * length)
    if found.status < 0 or not np.isfinite(found.y).all():
        raise ValueError(f"reach: a branch cannot be followed for {length:g}: {found.message}")
    rest = np.repeat(found.y_events[0], points, 0) if found.status == 1 else np.zeros((0, 2))
    return np.concatenate([found.y.T.reshape(-1, 2), rest])[:points]
