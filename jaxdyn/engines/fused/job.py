"""A batch in the kernel's memory layout, and the threads that work on it.

Threads are kept between runs: starting them takes as long as a small batch.
"""

import functools
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import jax
import numpy as np

from ..base import Finished, Progress, save_times
from .layout import address, readable
from .module import JOB
from .program import Program

_POLL = 0.05  # seconds between two looks at the counter of finished trials


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Kept: starting threads takes as long as a small batch."""
    return ThreadPoolExecutor(threads, thread_name_prefix="jaxdyn-fused")


_NO_TIMES = save_times(())


class Job:
    """A batch in the kernel's memory layout, and the threads that work on it."""

    def __init__(self, program: Program, states: Any, params: Any, max_steps: int, n: int, order: Any, times: Any):
        self.n = n
        self.states, self.params = jax.tree.leaves(states), [readable(leaf) for leaf in jax.tree.leaves(params)]
        # In one piece: finding an array's address takes as long as a few steps of a small batch.
        numbers = np.zeros(2 * n + 3, np.int64)
        self.steps, self.n_saved = numbers[:n], numbers[n : 2 * n]
        self.next, self.count, self.stop = (numbers[k : k + 1] for k in range(2 * n, 2 * n + 3))
        first = numbers.ctypes.data
        at = {"steps": 0, "n_saved": n, "next": 2 * n, "finished": 2 * n + 1, "stop": 2 * n + 2}
        self.status = np.full(n, -1, np.int8)
        self.order = np.arange(n) if order is None else np.ascontiguousarray(order, np.int64)
        if order is not None and (self.order.shape != (n,) or (np.bincount(self.order, minlength=n) != 1).any()):
            raise ValueError(f"order: expected a permutation of {n} trials")
        self.times = _NO_TIMES if times is None else save_times(times)
        n_times = self.times.size - 1
        self.saved = [np.zeros((n, n_times, *leaf.shape), leaf.dtype) for leaf in program.saved.leaves]
        values: dict[str, int] = {name: first + 8 * place for name, place in at.items()}
        values |= {name: array.ctypes.data for name, array in
                   (("status", self.status), ("order", self.order), ("times", self.times))}  # fmt: skip
        values |= {"total": n, "max_steps": max_steps, "n_times": n_times}
        fixed = [values[name] for name in JOB]
        leaves = [number for leaf in (*self.states, *self.params) for number in address(leaf)]
        rows = [number for leaf in self.saved for number in (leaf.ctypes.data, leaf[:1, :1].nbytes)]
        self.arguments = np.array(fixed + leaves + rows, np.int64)

    def run_here(self, compiled: Any) -> None:
        """In this thread, which nothing can interrupt meanwhile."""
        memory = np.zeros(compiled.work_bytes + 64, np.uint8)
        compiled.run(self.arguments.ctypes.data, -(-memory.ctypes.data // 64) * 64)

    def run(self, compiled: Any, threads: int, progress: Progress | None) -> None:
        jobs: list[Future[None]] = []
        told = 0
        try:
            jobs.extend(_pool(threads).submit(self.run_here, compiled) for _ in range(threads))
            while wait(jobs, None if progress is None else _POLL).not_done:
                told = self._tell(progress, told)
            self._tell(progress, told)
        finally:  # an interrupt, or a progress function that failed
            self.stop[0] = 1
            wait(jobs)
        for job in jobs:
            job.result()

    def _tell(self, progress: Progress | None, told: int) -> int:
        """Report what was finished since `told`; returns the count now."""
        count = int(self.count[0])
        if progress is not None and count > told:
            progress(count - told)
        return count

    def finished(self, states: Any, program: Program) -> Finished:
        end = jax.tree.unflatten(jax.tree.structure(states), self.states)
        values = jax.tree.unflatten(jax.tree.structure(program.value), self.saved) if program.record else None
        saved = (values, self.n_saved.astype(np.int32)) if program.record else ()
        return Finished(end, self.steps.astype(np.int32), self.status, *saved)
