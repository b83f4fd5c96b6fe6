"""Small dense linear systems in plain JAX operations, for lanes of an engine.

No library call is in them: on CPUs those take one lane at a time, and can deadlock when two engine threads wait for
their thread pool at once.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

Function = TypeVar("Function", bound=Callable[..., Any])


def after(value: Any, *earlier: Any) -> Any:
    """The value, bit for bit, to be computed with only once `earlier` is there.

    On CPUs two batched library calls (LAPACK's) that run at once can each wait for the other's threads for ever. What
    must not be concurrent has to depend on one another in its numbers: a barrier for the compiler alone is dropped.
    """
    leaves = [leaf for leaf in jax.tree.leaves(earlier) if jnp.size(leaf)]
    if not leaves:
        return value
    seen = sum(jnp.real(leaf).ravel()[0] for leaf in leaves)
    never = jax.lax.stop_gradient(seen) == _NEVER
    return jax.tree.map(lambda leaf: jnp.where(never, jnp.zeros_like(leaf), leaf), value)


def one_thread_at_a_time(function: Function) -> Function:
    """The function, for which other threads wait: the library's batched calls of two threads can hang likewise."""
    turn = threading.RLock()

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        with turn:
            return function(*arguments, **options)

    return wrapped  # type: ignore[return-value]


_NEVER = 1.2345678901234567e-30  # no sum of numbers that were computed


def solve_linear(matrix: Array, right: Array) -> Array:
    """Solve matrix [n, n] · x = right, [n] or [n, k], by Gauss-Jordan elimination with row pivoting."""
    size = matrix.shape[0]
    table = jnp.concatenate([matrix, right.reshape(size, -1)], 1)
    rows, columns = jnp.arange(size), jnp.arange(table.shape[1])

    def eliminate(k: Any, carry: Any):
        table, free, pivots = carry
        column = jnp.sum(jnp.where(columns == k, table, 0), 1)
        magnitude = jnp.where(free, jnp.abs(column.real) + jnp.abs(column.imag), -1.0)
        pivot = rows == jnp.argmax(magnitude)
        row = jnp.sum(jnp.where(pivot[:, None], table, 0), 0)
        row = row / jnp.sum(jnp.where(columns == k, row, 0))
        table = jnp.where(pivot[:, None], row, table - column[:, None] * row)
        return table, free & ~pivot, jnp.where((rows == k)[:, None], pivot, pivots)

    start = (table, jnp.ones(size, bool), jnp.zeros((size, size), bool))
    table, _, pivots = jax.lax.fori_loop(0, size, eliminate, start)
    # Row k of the solution is in the row that was the k-th pivot.
    ordered = jnp.sum(jnp.where(pivots[:, :, None], table[None, :, size:], 0), 1)
    return ordered.reshape(right.shape)
