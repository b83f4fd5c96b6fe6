"""The engine contract: many independent trials of one step function, each until it is done.

    run(step, done, states, params, max_steps, **options) -> Finished(states, steps, status)

`step(state, params) -> state` and `done(previous, state, params) -> bool` are pure JAX functions of a
single trial; `states` and `params` are pytrees with a leading trial axis. A trial is stepped until
`done` (status `CONVERGED`), until a component stops being finite (`DIVERGED`; its last finite state is
kept), or for `max_steps` steps (`OUT_OF_STEPS`). It is judged after every step of its own. A slow or
diverging trial costs no other trial its result, and what happens to a trial depends on nothing but
its own state and parameters: not on the batch, the order, the devices or a restart.

To add an engine: write `run` in a module of its own, register it in `engines/__init__.py` and add its name
to `jaxdyn.names`; the tests run every registered engine over the same trials.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

Device: TypeAlias = Any  # jax.Device, which type checkers see as a variable
StepFunction = Callable[[Any, Any], Any]
DoneFunction = Callable[[Any, Any, Any], Any]
Progress = Callable[[int], Any]


class Finished(NamedTuple):
    """Results of a batch, on the host: final states, steps taken [trials] and `Status` [trials]."""

    states: Any
    steps: np.ndarray
    status: np.ndarray


class Engine(Protocol):
    """See the module's docstring. `progress` is called with the number of trials newly finished."""

    def __call__(
        self,
        step: StepFunction,
        done: DoneFunction,
        states: Any,
        params: Any,
        max_steps: int,
        *,
        devices: Sequence[Device] | None = None,
        progress: Progress | None = None,
    ) -> Finished: ...
