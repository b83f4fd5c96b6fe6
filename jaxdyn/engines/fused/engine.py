"""The fused engine: whole trials in one kernel, compiled from the step itself.

On CPUs the kernel is machine code whose vectors run over the trials (`kernel`, `native`), one thread a core, and a
lane that finishes takes the next trial from the queue. On other devices it is the portable engine with the step
rewritten trial axis last (`lanes`).
"""

import functools
import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import jax
import numpy as np

from ...checks import one_of, whole_number
from .. import xla
from ..base import (
    Device,
    DoneFunction,
    Finished,
    Progress,
    RecordFunction,
    StepFunction,
    batch_size,
    in_jax_dtype,
    on_host,
    one_trial,
    save_times,
)
from .expressions import TooLarge, Unsupported
from .kernel import PROMPT, Kernel, build
from .layout import Layout, address, readable
from .module import JOB
from .program import Program
from .scalarise import trace

_POLL = 0.05  # seconds between two looks at the counter of finished trials


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
    program, compiled = compiled_program(step, done, record, one_trial(states), one_trial(params), lanes)
    job = _Job(program, states, params, max_steps, n_trials, order, times)
    threads = threads or os.cpu_count() or 1
    job.run(compiled, max(1, min(threads, -(-n_trials // compiled.lanes))), progress)
    return job.finished(states, record is not None, program)


def _elementwise(
    step: Any, done: Any, states: Any, params: Any, max_steps: Any, devices: Any, progress: Any, recording: Any
) -> Finished:
    """The program on arrays over the trials, one an element: for devices other than CPUs."""
    from . import lanes

    on = {"devices": devices, "progress": progress}
    if recording["record"] is not None:
        return xla.run(step, done, states, params, max_steps, **on, **recording)
    functions = (step, done, *map(_Example, (one_trial(states), one_trial(params))), _x64())
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
        _, kernel = _kernel_of(step, done, record, _Example(one), _Example(other), None, _x64())
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
        self.key = (structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Example) and self.key == other.key


def compiled_program(
    step: Any, done: Any, record: Any, state: Any, param: Any, lanes: int | None
) -> tuple[Program, Any]:
    """The traced program and its kernel, from the cache where the same functions and shapes were seen."""
    return _cached(_compiled_program, (step, done, record, _Example(state), _Example(param), lanes, _x64()))


def _x64() -> bool:
    return bool(jax.config.read("jax_enable_x64"))


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
    step: Any, done: Any, record: Any, state: _Example, param: _Example, lanes: Any, x64: Any
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
    step: Any, done: Any, record: Any, state: _Example, param: _Example, lanes: Any, x64: Any
) -> tuple[Program, Any]:
    from . import native

    program, kernel = _kernel_of(step, done, record, state, param, lanes, x64)
    known = _KERNELS.get(kernel.text)
    if known is None:
        known = _KERNELS[kernel.text] = native.compile_kernel(kernel)
        if len(_KERNELS) > 256:
            _KERNELS.popitem(last=False)
    return program, known


_KERNELS: OrderedDict[str, Any] = OrderedDict()  # by text: equal programs of different functions share their code


def _traced(step: Any, done: Any, record: Any, state: Any, param: Any) -> Program:
    stepped, new = trace(step, state, param)
    _check_new_state(state, new)
    judged = trace(done, state, state, param)[0] if done is not None else None
    recorded, saved, value = None, Layout(()), None
    if record is not None:
        recorded, (_, value) = trace(record, state, state, param, jax.ShapeDtypeStruct((), np.float64))
        saved = Layout.of(recorded.out_avals[1:])
    effects = {str(effect) for each in (stepped, judged, recorded) if each is not None for effect in each.effects}
    if effects:
        raise Unsupported(f"an effect ({', '.join(sorted(effects))})")
    states, params = (Layout.of(jax.tree.leaves(tree)) for tree in (state, param))
    return Program(stepped, judged, recorded, states, params, saved, value)


def _check_new_state(state: Any, new: Any) -> None:
    described = [
        (jax.tree.structure(tree), [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(tree)])
        for tree in (state, new)
    ]
    if described[0] != described[1]:
        raise ValueError(f"step: expected a state like its argument's, {described[0]}, got {described[1]}")


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads are kept between runs: starting them takes as long as a small batch."""
    return ThreadPoolExecutor(threads, thread_name_prefix="jaxdyn-fused")


class _Job:
    """A batch in the kernel's memory layout, and the threads that work on it."""

    def __init__(self, program: Program, states: Any, params: Any, max_steps: int, n: int, order: Any, times: Any):
        self.n = n
        self.states, self.params = jax.tree.leaves(states), [readable(leaf) for leaf in jax.tree.leaves(params)]
        self.steps, self.status = np.zeros(n, np.int64), np.full(n, -1, np.int8)
        self.order = np.ascontiguousarray(np.arange(n) if order is None else order, np.int64)
        if self.order.shape != (n,) or (np.bincount(self.order, minlength=n) != 1).any():
            raise ValueError(f"order: expected a permutation of {n} trials")
        self.times = save_times(() if times is None else times)
        n_times = self.times.size - 1
        self.saved = [np.zeros((n, n_times, *leaf.shape), leaf.dtype) for leaf in program.saved.leaves]
        self.n_saved = np.zeros(n, np.int64)
        self.next, self.count, self.stop = (np.zeros(1, np.int64) for _ in range(3))
        values = {
            "steps": self.steps, "status": self.status,
            "order": self.order, "next": self.next, "total": n, "max_steps": max_steps, "stop": self.stop,
            "finished": self.count, "times": self.times, "n_times": n_times, "n_saved": self.n_saved,
        }  # fmt: skip
        fixed = [value if isinstance(value, int) else value.ctypes.data for value in (values[name] for name in JOB)]
        leaves = [number for leaf in (*self.states, *self.params) for number in address(leaf)]
        rows = [number for leaf in self.saved for number in (leaf.ctypes.data, leaf[:1, :1].nbytes)]
        self.arguments = np.array(fixed + leaves + rows, np.int64)

    def run(self, compiled: Any, threads: int, progress: Progress | None) -> None:
        def work() -> None:
            memory = np.zeros(compiled.work_bytes + 64, np.uint8)
            compiled.run(self.arguments.ctypes.data, -(-memory.ctypes.data // 64) * 64)

        jobs = [_pool(threads).submit(work) for _ in range(threads)]
        told = 0
        try:
            while wait(jobs, None if progress is None else _POLL).not_done:
                told = self._tell(progress, told)
            self._tell(progress, told)
            for job in jobs:
                job.result()
        finally:  # an interrupt, or a progress function that failed
            self.stop[0] = 1
            wait(jobs)

    def _tell(self, progress: Progress | None, told: int) -> int:
        """Report what was finished since `told`; returns the count now."""
        count = int(self.count[0])
        if progress is not None and count > told:
            progress(count - told)
        return count

    def finished(self, states: Any, recorded: bool, program: Program) -> Finished:
        end = jax.tree.unflatten(jax.tree.structure(states), self.states)
        values = jax.tree.unflatten(jax.tree.structure(program.value), self.saved) if recorded else None
        saved = (values, self.n_saved.astype(np.int32)) if recorded else ()
        return Finished(end, self.steps.astype(np.int32), self.status, *saved)
