"""Ensembles of flows through the trial engine: fixed-step RK4 until each trial is at rest.

For small non-stiff systems with per-trial parameters, where thousands of starts settle at their own
pace; a single trajectory, a stiff one or one with error control is `solve.flow`'s business.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import engines
from .engines import Finished
from .engines.base import Progress

Watch = Callable[[Any, Any, Any], Any]


class FlowTrial(NamedTuple):
    """A trial's system, its data, its time step and its tolerance."""

    system: Any
    data: Any
    dt: Any
    tolerance: Any


class Watched(NamedTuple):
    """A state and the smallest value so far of what is watched along the way (NaN-free)."""

    state: Any
    lowest: Any


def settle(
    systems: Any,
    states: Any,
    data: Any,
    *,
    dt: Any = 0.05,
    tolerance: float = 1e-9,
    max_steps: int = 200_000,
    watch: Watch | None = None,
    engine: str = "auto",
    progress: Progress | None = None,
) -> tuple[Finished, np.ndarray]:
    """Integrate every trial until its field is below tolerance·(1 + |state|) in every component.

    Args:
        systems, data: pytrees with a leading trial axis, or without one where all trials share them.
        states: pytree with a leading trial axis [trials, …].
        dt: RK4 step in flow units, one number or one a trial; steps count in it.
        tolerance: of rest, on the field's components.
        watch: a function (system, state, data) -> number, whose minimum over all steps is returned.

    Returns:
        The engine's `Finished` (its `states` are the final states), and the watched minima [trials].
    """
    trials = {leaf.shape[0] for leaf in jax.tree.leaves(states)}
    if len(trials) != 1:
        raise ValueError(f"states: expected one leading trial axis on every leaf, got sizes {sorted(trials)}")
    (n,) = trials

    def spread(leaf):
        per_trial = np.ndim(leaf) > 0 and np.shape(leaf)[0] == n
        return leaf if per_trial else np.broadcast_to(leaf, (n, *np.shape(leaf)))

    trial = jax.tree.map(spread, FlowTrial(systems, data, dt, tolerance))
    start = Watched(states, np.full(n, np.finfo(float).max))
    watch = _nothing if watch is None else watch
    finished = engines.run(engine, _Step(watch), at_rest, start, trial, max_steps, progress=progress)
    end = finished.states
    return finished._replace(states=end.state), end.lowest


def _nothing(system: Any, state: Any, data: Any) -> Any:
    return jnp.zeros(())


@dataclass(frozen=True)
class _Step:
    """One RK4 step, watching the state it starts from. Equal for equal watches: compilations are shared."""

    watch: Watch

    def __call__(self, watched: Watched, trial: FlowTrial) -> Watched:
        state, dt = watched.state, trial.dt
        rate = lambda s: trial.system.field(0.0, s, trial.data)  # noqa: E731
        ahead = lambda k, h: jax.tree.map(lambda y, dy: y + h * dy, state, k)  # noqa: E731
        k1 = rate(state)
        k2 = rate(ahead(k1, dt / 2))
        k3 = rate(ahead(k2, dt / 2))
        k4 = rate(ahead(k3, dt))
        new = jax.tree.map(lambda y, a, b, c, d: y + dt / 6 * (a + 2 * b + 2 * c + d), state, k1, k2, k3, k4)
        return Watched(new, jnp.minimum(watched.lowest, self.watch(trial.system, state, trial.data)))


def at_rest(previous: Watched, watched: Watched, trial: FlowTrial) -> jax.Array:
    """Whether the mean rate over the step was below the tolerance in every component."""
    pairs = zip(jax.tree.leaves(previous.state), jax.tree.leaves(watched.state), strict=True)
    still = [jnp.all(jnp.abs(new - old) <= trial.tolerance * trial.dt * (1 + jnp.abs(new))) for old, new in pairs]
    return jnp.stack(still).all()
