"""The fused engine: whole trials in one kernel, compiled from the step itself.

On CPUs the kernel is machine code whose vectors run over the trials (`kernel`, `native`), one thread a core, and a
lane that finishes takes the next trial from the queue. On other devices it is the portable engine with the step
rewritten trial axis last (`lanes`).
"""

import functools
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ...checks import one_of, whole_number
from ...status import Status
from .. import xla
from ..base import (
    Device,
    DoneFunction,
    Finished,
    Progress,
    RecordFunction,
    StepFunction,
    batch_size,
    constants,
    in_jax_dtype,
    on_host,
    one_trial,
    tracing,
)
from .expressions import TooLarge, Unsupported
from .job import Job
from .kernel import PROMPT, Kernel, build
from .layout import Layout
from .program import Program
from .scalarise import trace


def run(
    step: StepFunction,
    done: DoneFunction | None,
    states: Any,
    params: Any,
    max_steps: int,
    *,
    devices: Sequence[Device] | None = None,
    progress: Progress | None = None,
    record: RecordFunction | None = None,
    times: np.ndarray | None = None,
    order: np.ndarray | None = None,
    threads: int | None = None,
    lanes: int | None = None,
    backend: str | None = None,
) -> Finished:
    """Run every trial until it is done; see `engines.base` for the contract.

    Args:
        backend: "native" (machine code for the CPU) or "xla" (trial axis last). Default: native on CPUs, xla elsewhere.
        threads: how many run at once; default: one a core.
        lanes: trials a thread steps together; default: by the step's size and the processor. A trial's bits do not
            depend on it.

    Raises:
        Unsupported: (a `NotImplementedError`) for a step with a primitive that cannot be compiled; it is named.
    """
    devices = list(devices) if devices is not None else jax.local_devices()[:1]
    if not devices:
        raise ValueError("devices: expected at least one")
    states, params = jax.tree.map(on_host, states), jax.tree.map(in_jax_dtype, params)
    n_trials = batch_size(states, params)
    max_steps = whole_number("max_steps", max_steps, high=2**31 - 2**20)
    backend = backend or ("native" if devices[0].platform == "cpu" else "xla")
    one_of("backend", backend, ("native", "xla"))
    if backend != "native":
        recording = {"record": record, "times": times, "order": order}
        return _elementwise(step, done, states, params, max_steps, devices, progress, recording)
    if lanes is not None and (whole_number("lanes", lanes) & (lanes - 1) or lanes > 64):
        raise ValueError(f"lanes: expected a power of two up to 64, got {lanes}")
    ready = Ready(*compiled_program(step, done, record, one_trial(states), one_trial(params), lanes))
    return ready.run(states, params, n_trials, max_steps, order, times, threads, progress)


class Ready(NamedTuple):
    """A compiled program, for batches of its shapes."""

    program: Program
    compiled: Any

    def run(
        self,
        states: Any,
        params: Any,
        n_trials: int,
        max_steps: int,
        order: Any = None,
        times: Any = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Finished:
        """Like the module's `run`; `states` is overwritten by the trials' ends."""
        most = -(-n_trials // self.compiled.lanes)
        # Steps that take no time, in which most small batches end; none where a step's length is not known.
        few = _HERE // (most * (self.compiled.lines or _HERE + 1))
        if progress is None and threads is None and few >= min(max_steps, _TRIED):
            there = jax.tree.map(np.array, states) if few < max_steps else states
            job = Job(self.program, there, params, min(few, max_steps), n_trials, order, times)
            job.run_here(self.compiled)
            if few >= max_steps or (job.status != Status.OUT_OF_STEPS).all():
                return job.finished(there, self.program)
        job = Job(self.program, states, params, max_steps, n_trials, order, times)
        job.run(self.compiled, max(1, min(threads or _CORES, most)), progress)
        return job.finished(states, self.program)


_CORES = os.cpu_count() or 1
_HERE = 5_000_000  # lines of code, about five milliseconds: shorter than it takes to notice that it cannot be stopped
_TRIED = 64  # steps that are worth trying


def _elementwise(
    step: Any, done: Any, states: Any, params: Any, max_steps: Any, devices: Any, progress: Any, recording: Any
) -> Finished:
    """The program on arrays over the trials, one an element: for devices other than CPUs."""
    from . import lanes

    on = {"devices": devices, "progress": progress}
    if recording["record"] is not None:
        return xla.run(step, done, states, params, max_steps, **on, **recording)
    functions = (step, done, *map(_Example, (one_trial(states), one_trial(params))), tracing())
    try:
        program = _cached(_elementwise_program, functions)
    except TooLarge:
        return xla.run(step, done, states, params, max_steps, **on, **recording)
    elements, numbers = lanes.split(states), lanes.split(params)
    judged = program.done if done is not None else None
    finished = xla.run(program.step, judged, elements, numbers, max_steps, **on, order=recording["order"])
    return finished._replace(states=lanes.join(finished.states, states))


@functools.lru_cache(maxsize=128)
def _elementwise_program(*functions: Any) -> Any:
    from . import lanes

    step, done, state, param, _ = functions
    return lanes.elementwise(_traced(step, done, None, state.tree, param.tree), functions)


def supports(step: StepFunction, done: DoneFunction | None, states: Any, params: Any, record: Any = None) -> bool:
    """Whether the CPU kernel of these functions can be made; if so, it is then compiled and kept."""
    states, params = (jax.tree.map(in_jax_dtype, tree) for tree in (states, params))
    try:
        one, other = one_trial(states), one_trial(params)
        _, kernel = _kernel_of(step, done, record, _Example(one), _Example(other), None, tracing())
        if kernel.lines > PROMPT:
            return False
        compiled_program(step, done, record, one, other, None)
    except (Unsupported, ImportError):
        return False
    return True


class _Example:
    """Shapes and dtypes as a key of a cache."""

    def __init__(self, tree: Any):
        self.tree = tree
        leaves, structure = jax.tree.flatten(tree)
        self.key = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        self.hash = hash(self.key)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Example) and self.key == other.key


def compiled_program(
    step: Any, done: Any, record: Any, state: Any, param: Any, lanes: int | None
) -> tuple[Program, Any]:
    """The traced program and its kernel, from the cache where the same functions and shapes were seen."""
    return _cached(_compiled_program, (step, done, record, _Example(state), _Example(param), lanes, tracing()))


def _cached(function: Any, arguments: tuple[Any, ...]) -> Any:
    """function(*arguments) from its cache, or anew where they cannot be compared."""
    try:
        hash(arguments)
    except TypeError:  # such as bound methods of modules with arrays
        return function.__wrapped__(*arguments)
    return function(*arguments)


def _kernel_of(*functions: Any) -> tuple[Program, Kernel]:
    found = _cached(_built, functions)
    if isinstance(found, Unsupported):
        raise Unsupported(found.what)  # anew: one that is kept would keep the frames it has passed, and their arrays
    return found


@functools.lru_cache(maxsize=128)
def _built(
    step: Any, done: Any, record: Any, state: _Example, param: _Example, lanes: Any, settings: Any
) -> tuple[Program, Kernel] | Unsupported:
    """The program and its kernel, or why there is none, which is to be found out once."""
    from . import native  # llvmlite is imported when something is compiled

    try:
        program = _traced(step, done, record, state.tree, param.tree)
        return program, build(program, lanes, native.features())
    except Unsupported as error:
        return error.with_traceback(None)


@functools.lru_cache(maxsize=128)
def _compiled_program(
    step: Any, done: Any, record: Any, state: _Example, param: _Example, lanes: Any, settings: Any
) -> tuple[Program, Any]:
    from . import native

    program, kernel = _kernel_of(step, done, record, state, param, lanes, settings)
    known = _KERNELS.get(kernel.text)
    if known is None:
        known = _KERNELS[kernel.text] = native.compile_kernel(kernel)
        if len(_KERNELS) > 256:
            _KERNELS.popitem(last=False)
    return program, known


_KERNELS: OrderedDict[str, Any] = OrderedDict()  # by text: equal programs of different functions share their code


_SHARED = 65_536  # numbers of constant arrays: they would be text, and take seconds to be read


def _traced(step: Any, done: Any, record: Any, state: Any, param: Any) -> Program:
    stepped, new = trace(step, state, param)
    _check_new_state(state, new)
    judged = trace(done, state, state, param)[0] if done is not None else None
    recorded, saved, value = None, Layout(()), None
    if record is not None:
        recorded, (_, value) = trace(record, state, state, param, jax.ShapeDtypeStruct((), np.float64))
        saved = Layout.of(recorded.out_avals[1:])
    traced = [each for each in (stepped, judged, recorded) if each is not None]
    effects = {str(effect) for each in traced for effect in each.effects}
    if effects:
        raise Unsupported(f"an effect ({', '.join(sorted(effects))})")
    shared = sum({id(value): np.size(value) for each in traced for value in constants(each)}.values())
    if shared > _SHARED:
        raise Unsupported(f"a step with constants of {shared:,} numbers (more than {_SHARED:,})")
    states, params = (Layout.of(jax.tree.leaves(tree)) for tree in (state, param))
    return Program(stepped, judged, recorded, states, params, saved, value)


def _check_new_state(state: Any, new: Any) -> None:
    described = [
        (jax.tree.structure(tree), [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(tree)])
        for tree in (state, new)
    ]
    if described[0] != described[1]:
        raise ValueError(f"step: expected a state like its argument's, {described[0]}, got {described[1]}")
