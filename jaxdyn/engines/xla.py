"""The portable engine: `vmap` of the step in lanes of a fixed width, finished trials retired between chunks.

Trials wait in a queue. Workers (one thread a device; on the CPU as many as there are cores) take
`width` of them at a time, advance them by one compiled chunk of steps, write them back, and replace
the finished ones by the next in the queue, so that a straggler holds up one lane and nothing else.

Bits: an array's width can change the last bit of a result, so the width must not depend on who else
is in the batch. It depends on the trial's own age alone: each *stage* of a trial's life has its width,
wide while nearly all trials are alive, narrow for the few that last (a narrow step is quicker, and
the longest trial is what an ensemble waits for in the end).
"""

import functools
import itertools
import math
import os
import re
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..checks import whole_number
from ..status import Status
from .base import (
    Device,
    DoneFunction,
    Finished,
    Progress,
    RecordFunction,
    StepFunction,
    batch_size,
    on_host,
    one_trial,
    save_times,
    traced_as,
    tracing,
)

_RUNNING = -1


class Stage(NamedTuple):
    """Trials younger than `until` steps run `width` at a time, `chunk` steps between retirements.

    Every `unchecked` steps is looked whether any lane still runs.
    """

    until: int
    width: int
    chunk: int
    unchecked: int = 16


# Chunks divide the stage boundaries, so that every lane of a chunk stays within its stage. Widths were
# measured on two CPU cores; the accelerator's are chosen to fill one, not measured.
_STAGES = {
    "cpu": (Stage(2**14, 512, 1024), Stage(2**17, 128, 2048), Stage(2**62, 32, 8192)),
    "accelerator": (Stage(2**14, 2**16, 1024), Stage(2**17, 2**13, 2048), Stage(2**62, 2**10, 8192)),
}
_ALONE = Stage(2**62, 1, 1024, unchecked=1)  # no idle lane, no step too many: each would print as well
_HELD = {"cpu": 2**20, "accelerator": 2**28}  # numbers of all lanes together


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
) -> Finished:
    """Run every trial until it is done; see `engines.base` for the contract.

    Args:
        devices: where to run; default: the first device of the default backend.
        progress: called with the number of trials newly finished, from any worker's thread.
    """
    states, params = (jax.tree.map(on_host, tree) for tree in (states, params))
    n_trials = batch_size(states, params)
    max_steps = whole_number("max_steps", max_steps, high=2**31 - 2**20)
    devices = list(devices) if devices is not None else jax.local_devices()[:1]
    if not devices:
        raise ValueError("devices: expected at least one")
    on_cpu = devices[0].platform == "cpu"
    batch = _Batch(states, params, n_trials, max_steps)
    if record is not None:
        batch.times = save_times(times)
        one, what = one_trial(states), one_trial(params)
        _, value = jax.eval_shape(record, one, one, what, jax.ShapeDtypeStruct((), batch.times.dtype))
        held = (n_trials, batch.times.size - 1)
        batch.saved = jax.tree.map(lambda leaf: np.zeros((*held, *leaf.shape), leaf.dtype), value)
    try:
        advance = _compiled_chunk(step, done, record)
    except TypeError:  # functions that cannot be hashed, such as bound methods of modules with arrays
        advance = _compiled_chunk.__wrapped__(step, done, record)
    traits = _traits((step, done, record), states, params)
    if on_cpu and traits.calls_lapack:
        devices, threads = devices[:1], 1
    else:
        threads = (os.cpu_count() or 1) if on_cpu else 1
    per_device = max(1, threads // len(devices))
    numbers = sum(leaf[0].size for leaf in jax.tree.leaves((states, params)))
    stages = _stages("cpu" if on_cpu else "accelerator", max(numbers, traits.largest))
    for stage in [_ALONE] if traits.has_effects else stages:
        waiting = np.arange(n_trials) if order is None else np.asarray(order)
        batch.queue.extend(waiting[batch.status[waiting] == _RUNNING].tolist())
        workers = [device for device in devices for _ in range(per_device)]
        workers = workers[: max(1, -(-len(batch.queue) // stage.width))]
        _run_stage(batch, stage, advance, workers, progress)
    recorded = (None, None) if record is None else (batch.saved, batch.n_saved)
    return Finished(batch.states, batch.steps, batch.status, *recorded)


def _stages(kind: str, numbers: int) -> list[Stage]:
    """Lanes by age; fewer where a trial is large, by its size alone, so that a batch never outgrows the memory."""
    most = max(1, _HELD[kind] // numbers)
    looks = 16 if most >= 16 else 1  # a look costs nothing against a step of a large trial
    return [stage._replace(width=min(stage.width, most), unchecked=looks) for stage in _STAGES[kind]]


_LAPACK = re.compile(
    r"\b(lu|eigh?|svd|qr|geqrf|geqp3|householder_product|ormqr|cholesky|triangular_solve|schur|hessenberg|tridiagonal)\["
)
_LANES = 7919  # of a trace that is never run: a prime, to be told from the sizes of a trial's own arrays
_SHAPES = re.compile(r":[a-z]+\d*\[([\d,]+)\]")  # as in a:f64[3,4]


class _Traits(NamedTuple):
    """Of a trial's functions: whether they call linear-algebra libraries (two threads in them deadlock in XLA's thread
    pool), whether they do anything but compute, such as printing, and how many numbers of a trial's own their largest
    array has.
    """

    calls_lapack: bool
    has_effects: bool
    largest: int


def _traits(functions: tuple[Any, ...], states: Any, params: Any) -> _Traits:
    """Of step, done and record, of which the last two may be None."""
    leaves, structure = jax.tree.flatten(one_trial((states, params)))
    kinds = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    try:
        return _looked_up(functions, structure, kinds)
    except TypeError:  # as above
        return _looked_up.__wrapped__(functions, structure, kinds)


@functools.lru_cache(maxsize=256)
def _looked_up(functions: tuple[Any, ...], structure: Any, kinds: tuple[Any, ...]) -> _Traits:
    state, params = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*kind) for kind in kinds])
    time = jax.ShapeDtypeStruct((), np.float64)
    arguments = ((state, params), (state, state, params), (state, state, params, time))
    traced = [jax.make_jaxpr(each)(*what) for each, what in zip(functions, arguments, strict=True) if each is not None]
    text = "\n".join(str(each) for each in traced)  # the functions that they call stand in it as well
    if any(each.effects for each in traced):
        return _Traits(bool(_LAPACK.search(text)), True, 0)  # one trial at a time, whatever its size
    # What all trials share, as a constant matrix, has no axis of lanes, and is there once.
    arguments = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((_LANES, *leaf.shape), leaf.dtype), arguments)
    of_lanes = [
        str(jax.make_jaxpr(jax.vmap(each))(*what))
        for each, what in zip(functions, arguments, strict=True)
        if each is not None
    ]
    shapes = [[int(size) for size in shape.split(",")] for shape in _SHAPES.findall("\n".join(of_lanes))]
    sizes = [math.prod(shape) // _LANES for shape in shapes if _LANES in shape]
    return _Traits(bool(_LAPACK.search(text)), False, max(sizes, default=0))


class _Batch:
    """All trials on the host: their states, parameters, ages, statuses, and the queue of those that wait."""

    def __init__(self, states: Any, params: Any, n_trials: int, max_steps: int):
        self.states, self.params, self.max_steps = states, params, max_steps
        self.steps = np.zeros(n_trials, np.int32)
        self.status = np.full(n_trials, _RUNNING, np.int8)
        self.times = np.full(1, np.inf)
        self.saved: Any = ()
        self.n_saved = np.zeros(n_trials, np.int32)
        self.queue: deque[int] = deque()
        self.lock = threading.Lock()

    def take(self, count: int) -> list[int]:
        with self.lock:
            return [self.queue.popleft() for _ in range(min(count, len(self.queue)))]


def _run_stage(batch: _Batch, stage: Stage, advance: Any, workers: list[Any], progress: Progress | None) -> None:
    stop = threading.Event()

    def work(device: Device) -> None:
        lanes: list[int] = []
        while not stop.is_set():
            lanes += batch.take(stage.width - len(lanes))
            if not lanes:
                return
            lanes, finished = _advance_lanes(batch, stage, advance, lanes, device)
            if progress is not None and finished:
                progress(finished)

    with ThreadPoolExecutor(len(workers), thread_name_prefix="jaxdyn-engine") as pool:
        settings = tracing()

        def guarded(device: Device) -> None:
            try:
                with traced_as(settings):
                    work(device)
            except BaseException:
                stop.set()
                raise

        jobs = [pool.submit(guarded, device) for device in workers]
        try:
            for job in jobs:
                job.result()
        finally:
            stop.set()


def _advance_lanes(
    batch: _Batch, stage: Stage, advance: Any, lanes: list[int], device: Device
) -> tuple[list[int], int]:
    """One chunk for these trials, on a full-width array padded with idle copies; returns those that go on."""
    used = len(lanes)
    index = np.fromiter(itertools.chain(lanes, itertools.repeat(lanes[0], stage.width - used)), np.int64, stage.width)
    status = np.full(stage.width, Status.COMPLETED, np.int8)
    status[:used] = _RUNNING
    gather = lambda tree: jax.tree.map(lambda leaf: leaf[index], tree)  # noqa: E731
    recorded = (batch.n_saved[index], gather(batch.saved))
    arguments = (gather(batch.states), gather(batch.params), batch.steps[index], status, recorded)
    out = advance(*jax.device_put(arguments, device), np.int32(batch.max_steps), batch.times, chunk=stage.chunk,
                  unchecked=stage.unchecked)  # fmt: skip
    states, steps, status, (n_saved, saved) = jax.tree.map(lambda leaf: np.asarray(leaf)[:used], out)
    rows = index[:used]
    batch.steps[rows] = steps
    batch.status[rows] = status
    batch.n_saved[rows] = n_saved
    kept = jax.tree.leaves((batch.states, batch.saved))
    for whole, part in zip(kept, jax.tree.leaves((states, saved)), strict=True):
        whole[rows] = part
    go_on = (status == _RUNNING) & (steps < stage.until)
    return rows[go_on].tolist(), int(np.count_nonzero(status != _RUNNING))


@functools.lru_cache(maxsize=64)
def _compiled_chunk(step: StepFunction, done: DoneFunction | None, record: RecordFunction | None) -> Any:
    """Up to `chunk` steps of every running lane, compiled; made once for the functions."""

    def one(state: Any, params: Any, steps: Any, status: Any, recorded: Any, max_steps: Any, times: Any):
        new = step(state, params)
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(new)]).all()
        running = status == _RUNNING
        moved = running & finite
        converged = False if done is None else done(state, new, params)
        steps = steps + moved
        ended = jnp.where(
            ~finite,
            Status.DIVERGED,
            jnp.where(converged, Status.CONVERGED, jnp.where(steps >= max_steps, Status.OUT_OF_STEPS, _RUNNING)),
        )
        if record is not None:
            recorded = _recorded(record, state, new, params, moved, recorded, times)
        state = jax.tree.map(lambda old, fresh: jnp.where(moved, fresh, old), state, new)
        return state, steps, jnp.where(running, ended, status).astype(jnp.int8), recorded

    several_lanes = jax.vmap(one, in_axes=(0, 0, 0, 0, 0, None, None))

    def one_lane(state: Any, params: Any, steps: Any, status: Any, recorded: Any, max_steps: Any, times: Any):
        """Without `vmap`, which costs a large trial's matrix products a fifth of their speed."""
        first = jax.tree.map(lambda leaf: leaf[0], (state, params, steps, status, recorded))
        out = one(first[0], first[1], first[2], first[3], first[4], max_steps, times)
        return jax.tree.map(lambda leaf: leaf[None], out)

    def advance(
        states: Any,
        params: Any,
        steps: Any,
        status: Any,
        recorded: Any,
        max_steps: Any,
        times: Any,
        *,
        chunk: Any,
        unchecked: Any,
    ):
        lanes = one_lane if status.shape[0] == 1 else several_lanes

        def alive(carry: Any):
            count, (_, _, status, _) = carry
            return (count < chunk // unchecked) & jnp.any(status == _RUNNING)

        def several(carry: Any) -> tuple[Any, Any]:
            count, lanes_now = carry
            lanes_now = jax.lax.fori_loop(
                0,
                unchecked,
                lambda _, now: lanes(now[0], params, now[1], now[2], now[3], max_steps, times),
                lanes_now,
            )
            return count + 1, lanes_now

        return jax.lax.while_loop(alive, several, (jnp.int32(0), (states, steps, status, recorded)))[1]

    return jax.jit(advance, static_argnames=("chunk", "unchecked"))


def _recorded(record: RecordFunction, state: Any, new: Any, params: Any, moved: Any, recorded: Any, times: Any) -> Any:
    """The trial's values, with those that are due after this step."""

    def look(slot: Any):
        due, value = record(state, new, params, times[slot])
        return due & moved & (slot < times.size - 1), value

    def keep(carry: Any):
        slot, saved = carry
        _, value = look(slot)
        return slot + 1, jax.tree.map(lambda whole, part: whole.at[slot].set(part), saved, value)

    return jax.lax.while_loop(lambda carry: look(carry[0])[0], keep, recorded)
