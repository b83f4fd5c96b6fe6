"""A batch in the kernel's memory layout, and the threads that work on it.

Threads are kept between runs: starting them takes as long as a small batch.
"""

import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ..base import Finished, Progress, save_times
from .layout import address, readable
from .module import JOB
from .program import Program

_POLL = 0.05  # seconds between two looks at the counter of finished trials


class _Hand:
    """A thread that does one piece of work after another; the lock is free when it has nothing to do."""

    def __init__(self) -> None:
        self.work: Callable[[], None] | None = None
        self.failed: BaseException | None = None
        self.given, self.finished = threading.Lock(), threading.Lock()
        self.given.acquire()
        self.waited = True
        self.finished.acquire()
        threading.Thread(target=self._run, name="jaxdyn-fused", daemon=True).start()

    def _run(self) -> None:
        while True:
            self.given.acquire()
            try:
                assert self.work is not None
                self.work()
            except BaseException as error:
                self.failed = error
            self.work = None
            self.finished.release()

    def take(self, work: Callable[[], None]) -> None:
        self.work, self.failed, self.waited = work, None, False
        self.given.release()

    def done(self, seconds: float | None) -> bool:
        """Wait until the work is done, at most so long."""
        self.waited = self.waited or self.finished.acquire(timeout=-1 if seconds is None else seconds)
        return self.waited

    def settle(self) -> None:
        """Wait until there is nothing to do, whatever happens meanwhile."""
        while not self.waited:
            try:
                self.done(None)
            except KeyboardInterrupt:
                continue

    def raise_what_failed(self) -> None:
        failed, self.failed = self.failed, None
        if failed is not None:
            raise failed


_IDLE: list[_Hand] = []


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
        hands = [_IDLE.pop() if _IDLE else _Hand() for _ in range(threads)]
        told = 0
        try:
            for hand in hands:
                hand.take(lambda: self.run_here(compiled))
            for hand in hands:
                while not hand.done(None if progress is None else _POLL):
                    told = self._tell(progress, told)
            self._tell(progress, told)
        finally:  # an interrupt, or a progress function that failed
            self.stop[0] = 1
            for hand in hands:
                hand.settle()
            _IDLE.extend(hands)
        for hand in hands:
            hand.raise_what_failed()

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
