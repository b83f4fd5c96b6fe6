"""An ensemble that is run again and again: what can be settled once is settled once."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from .. import engines
from ..checks import checked_arguments
from ..engines.base import Finished, one_trial, traced_as, tracing
from ..engines.fused.engine import Ready, compiled_program
from ..schedules import Schedule
from .ensemble import descend_ensemble, flow_ensemble
from .members import spread_over
from .running import Part, Run, set_up, started
from .solution import Solution


@checked_arguments
def prepare(ensemble: Callable[..., Solution], system: Any, states: Any, data: Any, **options: Any) -> "Prepared":
    """`flow_ensemble` or `descend_ensemble` with these arguments, compiled, for other starts and data.

    A call of an ensemble looks at everything anew, which takes a few milliseconds: what the functions mean now, whether
    shapes fit, which engine. A prepared one has looked, and runs a small batch in a tenth of a millisecond.

    Args:
        ensemble: `flow_ensemble` or `descend_ensemble`.
        system, states, data: as it takes them; shapes and dtypes of the calls to come are theirs.
        options: its keyword arguments, but for `progress` and `save`.

    Returns:
        A function of (states, data), both by default those given here, that returns a `Solution`. Functions of yours
        (a field, `until`) are not looked at again: what they refer to should not change.

    Raises:
        ValueError: what `ensemble` raises, and later for states or data that are not like those prepared.

    Example:
        >>> import numpy as np
        >>> decay = lambda t, y, rate: -rate * y
        >>> again = prepare(flow_ensemble, decay, np.ones(3), 0.5, t1=2.0)
        >>> again(np.array([1.0, 2.0, 3.0, 4.0])).final.round(4).tolist()
        [0.3679, 0.7358, 1.1036, 1.4715]
    """
    if ensemble not in (flow_ensemble, descend_ensemble):
        raise ValueError(f"ensemble: expected flow_ensemble or descend_ensemble, got {ensemble!r}")
    for name in ("progress", "save"):
        if options.get(name) is not None:
            raise ValueError(f"{name}: not for a prepared ensemble")
    run = set_up(lambda: ensemble(system, states, data, **options))
    return Prepared(run, [name for name in _NUMBERS if _of_each_trial(options.get(name))])


_NUMBERS = ("t1", "lr", "dt", "rtol", "atol")  # options of which each trial may have its own


def _of_each_trial(option: Any) -> bool:
    numbers = jax.tree.leaves(option) if isinstance(option, Schedule) else [option]
    return any(np.ndim(number) for number in numbers)


class Prepared:
    """What `prepare` returns: call it with states and data like those prepared."""

    def __init__(self, run: Run, own: Sequence[str]):
        held = jax.tree.map(_own, run.held)
        batch = dataclasses.replace(
            run.batch, states=jax.tree.map(_own, run.batch.states), system=held.system, data=held.data
        )
        self._run = run = run._replace(batch=batch, held=held)
        self._passes = run.passes
        self._x64 = run.batch.dtype == np.float64 or bool(jax.config.read("jax_enable_x64"))
        with jax.enable_x64(self._x64):
            self._settings = tracing()
        self._own = own  # options with a number for each trial
        self._ready: dict[Any, Ready | str] = {}  # by the step and what is kept: a kernel, or the engine's name
        with traced_as(self._settings):
            self._ended(run, 1)  # compiles, and takes no time

    def __call__(self, states: Any = None, data: Any = None) -> Solution:
        """The ensemble of these states [trials, …] and data; the number of trials may be another."""
        run = self._run if states is None and data is None else self._with(states, data)
        with jax.enable_x64(self._x64):
            return run.solution(self._ended(run, run.limit))

    def _ended(self, run: Run, limit: int) -> list[Finished]:
        begun, step = started(run, self._on_engine), Part(run.program, "move")
        return [self._on_engine(step, run.done, begun, run.held, limit, **each) for each in self._passes]

    def _with(self, states: Any, data: Any) -> Run:
        run, batch = self._run, self._run.batch.others(states, data)
        held = run.held._replace(system=(), data=())
        if batch.n != run.batch.n:
            if run.options.order is not None:
                raise ValueError(f"longest_first: there is one for each of {run.batch.n} trials, got {batch.n}")
            if self._own:
                told = f"{', '.join(self._own)}: prepared with a number"
                raise ValueError(f"{told} for each of {run.batch.n} trials, got {batch.n} trials")
            held = jax.tree.map(lambda leaf: spread_over(batch.n, leaf), held)
        return run._replace(batch=batch, held=held._replace(system=batch.system, data=batch.data))

    def _on_engine(self, step: Any, done: Any, states: Any, params: Any, limit: int, **recording: Any) -> Any:
        options = self._run.options
        record = recording.get("record")
        ready = self._ready.get(key := (type(step), record and record.name))
        if ready is None:
            ready = self._ready[key] = self._made(step, done, states, params, record)
        if isinstance(ready, Ready):
            n = len(jax.tree.leaves(states)[0])
            states = jax.tree.map(np.array, states)  # the trials' ends take their place
            return ready.run(states, params, n, limit, options.order, recording.get("times"))
        on = {"devices": options.devices, "order": options.order}
        with traced_as(self._settings):
            return engines.run(ready, step, done, states, params, limit, **on, **recording)

    def _made(self, step: Any, done: Any, states: Any, params: Any, record: Any) -> Ready | str:
        options = self._run.options
        engine = options.engine
        if engine == "auto":
            engine = engines.choose(step, done, states, params, devices=options.devices, record=record)
        device = (options.devices or jax.local_devices()[:1])[0]
        if engine != "fused" or device.platform != "cpu":
            return engine
        return Ready(*compiled_program(step, done, record, one_trial(states), one_trial(params), None))


def _own(leaf: Any) -> np.ndarray:
    """A copy, which nobody else can change; what all trials share is there once."""
    array = np.asarray(leaf)
    shared = array.strides[0] == 0 and array.size
    return np.broadcast_to(array[:1].copy(), array.shape) if shared else array.copy()


__all__ = ["Prepared", "prepare"]
