"""Ensembles of reduced flows until rest, for the claims about modes."""

import functools
from typing import Any

import jax
import numpy as np

from ...solve.ensemble import flow_ensemble
from ...solve.methods.rest import Rest
from ...solve.solution import Solution
from ...status import Status
from .base import finite


def settled(
    states: Any, systems: Any, data: Any, *, dt: float = 0.1, tolerance: float = 1e-8, steps: int = 200_000,
    watch: Any = None,
) -> Solution:  # fmt: skip
    """RK4 flows until rest; ArithmeticError if one fails.

    With `watch` a function of (system, state, data), `states` are its values along the way: after each of the first
    2,000 steps, and at 200 times spaced logarithmically after them.
    """
    times = None
    if watch is not None:
        first = dt * np.arange(min(steps, 2000) + 1)
        times = np.concatenate([first, np.geomspace(first[-1], dt * steps, 201)[1:]])
    save = None if watch is None else functools.partial(_watched, watch)
    finished = flow_ensemble(
        _field, states, (systems, data), t1=dt * steps, ts=times, in_axes=(None, 0, 0), solver="rk4", dt=dt,
        until=Rest(tolerance), save=save, max_steps=steps,
    )  # fmt: skip
    lost = int((np.asarray(finished.status) == Status.DIVERGED).sum())
    if lost:  # their last good state is none to count
        raise ArithmeticError(f"{lost} of {np.size(finished.status)} flows diverged")
    finite(*jax.tree.leaves(finished.final))
    return finished


def _field(t: Any, state: Any, pair: Any) -> Any:
    system, data = pair
    return system.field(t, state, data)


def _watched(watch: Any, t: Any, state: Any, pair: Any) -> Any:
    system, data = pair
    return watch(system, state, data)
