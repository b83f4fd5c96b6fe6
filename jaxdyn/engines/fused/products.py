"""Products of matrices in a kernel's memory, by tiles whose sums stay in registers."""

import contextlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from .places import Memory, Workspace, loop, number, row_major
from .translations import type_of
from .vectors import Code


class Products:
    """`tile`: rows and columns that are computed together."""

    def __init__(self, code: Code, space: Workspace, tile: tuple[int, int]):
        self.code, self.space, self.tile = code, space, tile

    def of(self, equation: Any, x: Memory, y: Memory) -> Memory:
        """What a `dot_general` of floating numbers, none of them empty, gives."""
        (over_x, over_y), (batch_x, batch_y) = equation.params["dimension_numbers"]
        dtype = type_of(equation.outvars[0].aval)
        free_x = [axis for axis in range(len(x.shape)) if axis not in (*over_x, *batch_x)]
        free_y = [axis for axis in range(len(y.shape)) if axis not in (*over_y, *batch_y)]
        x, free_x = self._with_free_axis(x, free_x)
        y, free_y = self._with_free_axis(y, free_y)
        batch = [x.shape[axis] for axis in batch_x]
        room = self.space.room((*batch, *(x.shape[a] for a in free_x), *(y.shape[a] for a in free_y)), dtype)
        depth = list(itertools.product(*(range(x.shape[axis]) for axis in over_x)))
        n_batch, n_left = len(batch), len(free_x)
        heads = [*batch, *(x.shape[a] for a in free_x[:-1]), *(y.shape[a] for a in free_y[:-1])]
        with contextlib.ExitStack() as stack:
            head = [number(stack.enter_context(loop(self.code, size, "h"))) for size in heads]
            group, left, right = head[:n_batch], head[n_batch : n_batch + n_left - 1], head[n_batch + n_left - 1 :]

            def of(memory: Memory, axes: Sequence[Sequence[int]], parts: Sequence[Sequence[Any]]) -> str:
                full: list[Any] = [0] * len(memory.shape)
                for axis, i in zip(itertools.chain(*axes), itertools.chain(*parts), strict=True):
                    full[axis] = i
                return memory.load(self.code, tuple(full))

            def block(rows: list[Any], columns: list[Any]) -> None:
                sums: dict[tuple[int, int], str] = {}
                for k in depth:
                    a = [of(x, (batch_x, free_x, over_x), (group, (*left, i), k)) for i in rows]
                    b = [of(y, (batch_y, free_y, over_y), (group, (*right, j), k)) for j in columns]
                    for i, j in itertools.product(range(len(rows)), range(len(columns))):
                        sums[i, j] = self._multiply_add(dtype, a[i], b[j], sums.get((i, j)))
                for (i, j), value in sums.items():
                    place = (*group, *left, rows[i], *right, columns[j])
                    self.code.store(dtype, value, room.address(self.code, place))

            self._blocks(x.shape[free_x[-1]], y.shape[free_y[-1]], block)
        shape = tuple(equation.outvars[0].aval.shape)
        return room._replace(shape=shape, strides=row_major(shape))

    def _with_free_axis(self, memory: Memory, free: list[int]) -> tuple[Memory, list[int]]:
        """A vector is a matrix of one row."""
        if free:
            return memory, free
        return memory._replace(shape=(*memory.shape, 1), strides=(*memory.strides, 0)), [len(memory.shape)]

    def _multiply_add(self, dtype: str, a: str, b: str, total: str | None) -> str:
        kind = self.code.vector(dtype)
        if total is None:
            return self.code.let(f"fmul {kind} {a}, {b}")
        suffix = f"v{self.code.lanes}f{dtype[5:]}"
        return self.code.let(f"call {kind} @llvm.fma.{suffix}({kind} {a}, {kind} {b}, {kind} {total})")

    def _blocks(self, n_rows: int, n_columns: int, block: Callable[[list[Any], list[Any]], None]) -> None:
        """A matrix by tiles: loops over the full ones, the edges by themselves."""
        for rows_at, rows in self._parts(n_rows, self.tile[0]):
            for columns_at, columns in self._parts(n_columns, self.tile[1]):
                with loop(self.code, rows_at[1], "i") as i, loop(self.code, columns_at[1], "j") as j:
                    where = [self._scaled(k, size, start) for k, size, start in
                             ((i, rows, rows_at[0]), (j, columns, columns_at[0]))]  # fmt: skip
                    block(*([self.space.shifted(start, k) for k in range(size)]
                            for start, size in zip(where, (rows, columns), strict=True)))  # fmt: skip

    def _parts(self, size: int, tile: int) -> list[tuple[tuple[int, int], int]]:
        """((first, how many tiles), size of a tile)."""
        whole, rest = divmod(size, tile)
        parts = [((0, whole), tile)] if whole else []
        return parts + ([((whole * tile, 1), rest)] if rest else [])

    def _scaled(self, counter: str, size: int, start: int) -> "int | str":
        k = number(counter)
        if isinstance(k, int):
            return start + k * size
        return self.space.shifted(self.code.let(f"mul i64 {k}, {size}"), start)
