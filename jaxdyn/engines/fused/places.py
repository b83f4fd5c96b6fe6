"""Arrays in a kernel's memory, and arrays that are computed where they are read: what large steps are made of."""

import contextlib
import functools
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .expressions import Graph, Unsupported
from .pairs import PARTS, is_pair
from .translations import type_of
from .vectors import Code, emit, size_of

Index = tuple[Any, ...]  # of an element: numbers, or names of loop counters in the code

_UNROLLED = 8  # elements of an inner loop that are written out


@contextlib.contextmanager
def loop(code: Code, count: int, stem: str) -> Generator[Any]:
    """A loop in the code, of at least one pass; gives the counter's name (or "0" where there is nothing to repeat)."""
    assert count > 0  # it would run 2⁶⁴ times
    if count == 1:
        yield "0"
        return
    before, number = code.label_now(), code.count
    code.count += 1
    top, end, k = f"{stem}.loop{number}", f"{stem}.end{number}", f"%{stem}.k{number}"
    code.put(f"br label %{top}")
    code.label(top)
    at = len(code.lines)
    code.put("")
    yield k
    code.lines[at] = f"  {k} = phi i64 [ 0, %{before} ], [ {k}.n, %{code.label_now()} ]"
    code.put(f"{k}.n = add i64 {k}, 1")
    code.put(f"{k}.e = icmp eq i64 {k}.n, {count}")
    code.put(f"br i1 {k}.e, label %{end}, label %{top}")
    code.label(end)


class Memory(NamedTuple):
    """An array in memory: element i is at base + (offset + i·strides) vectors, or numbers that all lanes share."""

    shape: tuple[int, ...]
    dtype: str
    base: str
    start: int  # bytes
    strides: tuple[int, ...]  # vectors
    shared: bool = False

    def step(self, code: Code) -> int:
        """Bytes from one element to the next."""
        return size_of(self.dtype) * (1 if self.shared else code.lanes)

    def load(self, code: Code, index: Index) -> str:
        place = self.address(code, index)
        return code.load_spread(self.dtype, place) if self.shared else code.load(self.dtype, place)

    def build(self, graph: Graph, index: Index) -> int:
        return graph.input((self, index), self.dtype)

    def address(self, code: Code, index: Index) -> str:
        step = self.step(code)
        constant = self.start
        moving = []
        for i, stride in zip(index, self.strides, strict=True):
            if isinstance(i, int):
                constant += i * stride * step
            elif stride:
                moving.append(code.let(f"mul i64 {i}, {stride * step}"))
        base = self.base
        for offset in moving:
            base = code.address(base, offset)
        return code.address(base, constant)


class Lazy(NamedTuple):
    """An array that is computed where it is read; not `known` if it cannot be."""

    shape: tuple[int, ...]
    dtype: str
    build: Callable[[Graph, Index], int]
    known: bool = True


def _uniform(array: np.ndarray) -> bool:
    """Whether all numbers are the same, the signs of zeros as well."""
    numbers = np.ascontiguousarray(array).reshape(-1, 1).view(np.uint8)
    return array.size > 0 and bool((numbers == numbers[0]).all())


class Constant(NamedTuple):
    """An array whose numbers are known; `uniform` if they are all the same."""

    array: np.ndarray
    uniform: bool
    table: Callable[[], Memory]  # the numbers in memory, for indices that are not known

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> str:
        return str(self.array.dtype)

    def build(self, graph: Graph, index: Index) -> int:
        if all(isinstance(i, int) for i in index):
            return graph.constant(self.array[index], self.dtype)
        if self.uniform:
            return graph.constant(self.array.flat[0], self.dtype)
        if is_pair(self.dtype):
            raise Unsupported(f"constant arrays of {self.dtype} in a large step")
        return self.table().build(graph, index)


class Both(NamedTuple):
    """An array of pairs, its parts in memory."""

    dtype: str
    parts: tuple[Memory, Memory]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parts[0].shape

    def build(self, graph: Graph, index: Index) -> int:
        return graph.pair([part.build(graph, index) for part in self.parts], self.dtype)

    def each(self, change: Callable[[Memory], Memory]) -> "Both":
        return self._replace(parts=tuple(change(part) for part in self.parts))


Value = Memory | Lazy | Constant | Both
Stored = Memory | Both


def part_of(value: Value, which: int) -> Lazy:
    """The first or second parts of an array of pairs."""
    build = lambda graph, index: graph.parts(value.build(graph, index))[which]  # noqa: E731
    return Lazy(value.shape, PARTS[value.dtype], build)


class Workspace:
    """The memory of temporaries, and loops that fill it."""

    def __init__(self, code: Code):
        self.code, self.used = code, 0

    def room(self, shape: tuple[int, ...], dtype: str) -> Any:
        """`Stored`: memory for an array."""
        if is_pair(dtype):
            return Both(dtype, (self.room(shape, PARTS[dtype]), self.room(shape, PARTS[dtype])))
        start = self.used
        count = int(np.prod(shape)) * self.code.lanes * size_of(dtype)
        self.used += -(-count // 64) * 64
        return Memory(tuple(shape), dtype, "%free", start, row_major(shape))

    def write(self, value: Value, target: Value) -> None:
        if isinstance(target, Both):
            for which, part in enumerate(target.parts):
                self.write(part_of(value, which), part)
            return
        assert isinstance(target, Memory)
        if 0 not in target.shape:
            self._over(value.shape, lambda indices: self._write_elements(value, target, indices))

    def _over(self, shape: Sequence[int], body: Callable[[list[Index]], None]) -> None:
        """Loops over an array: `body` gets the indices of a few elements at a time."""
        outer, last = ([], (1,)) if not shape else (list(shape[:-1]), shape[-1:])
        with contextlib.ExitStack() as stack:
            head = [number(stack.enter_context(loop(self.code, size, "e"))) for size in outer]
            (size,) = last
            few = size if size <= 2 * _UNROLLED else _UNROLLED
            whole, rest = divmod(size, few)
            with loop(self.code, whole, "e") as k:
                start = number(k)
                if isinstance(start, str):
                    start = self.code.let(f"mul i64 {start}, {few}")
                columns = [self.shifted(start, j) for j in range(few)]
                body([(*head, *([column] if shape else [])) for column in columns])
            if rest:
                body([(*head, whole * few + j) for j in range(rest)])

    def shifted(self, start: "int | str", by: int) -> "int | str":
        if isinstance(start, int):
            return start + by
        return self.code.let(f"add i64 {start}, {by}") if by else start

    def _write_elements(self, value: Value, target: Memory, indices: list[Index]) -> None:
        graph = Graph()
        places = [value.build(graph, index) for index in indices]
        for result, index in zip(self.emitted(graph, places), indices, strict=True):
            self.code.store(target.dtype, result, target.address(self.code, index))

    def emitted(self, graph: Graph, places: Sequence[int]) -> list[str]:
        def load(name: tuple[Memory, Index]) -> str:
            memory, index = name
            return memory.load(self.code, index)

        return emit(self.code, graph, places, load)

    def copied(self, value: Value) -> Any:
        """The array in memory of its own."""
        room = self.room(value.shape, value.dtype)
        self.write(value, room)
        return room

    def write_where(self, mask: str, value: Any, target: Any) -> None:
        """target = where(mask, value, target), lane by lane; `Stored` both."""
        if isinstance(target, Both):
            for new, old in zip(value.parts, target.parts, strict=True):
                self.write_where(mask, new, old)
            return

        def body(indices: list[Index]) -> None:
            for index in indices:
                kind = self.code.vector(target.dtype)
                new, old = (each.load(self.code, index) for each in (value, target))
                kept = self.code.let(f"select <{self.code.lanes} x i1> {mask}, {kind} {new}, {kind} {old}")
                self.code.store(target.dtype, kept, target.address(self.code, index))

        if 0 not in target.shape:
            self._over(target.shape, body)

    def stored(self, value: Value) -> Any:
        """`Stored`: the array itself if it is in memory, else written there."""
        if isinstance(value, Memory | Both):
            return value
        if isinstance(value, Constant) and value.dtype != "bool" and value.array.size and not is_pair(value.dtype):
            return value.table()
        room = self.room(value.shape, value.dtype)
        self.write(value, room)
        return room

    def constant(self, value: Any) -> Constant:
        array = np.asarray(value)
        type_of(array)

        @functools.cache
        def table() -> Memory:
            """Numbers of the module; truth values are written where they are first read, outside of any loop."""
            if str(array.dtype) != "bool":
                base = self.code.table(array.ravel().tolist(), str(array.dtype))
                return Memory(array.shape, str(array.dtype), base, 0, row_major(array.shape), shared=True)
            room = self.room(array.shape, str(array.dtype))
            for index in np.ndindex(array.shape):
                number = self.code.splat(array[index], room.dtype)
                self.code.store(room.dtype, number, room.address(self.code, index))
            return room

        return Constant(array, _uniform(array), table)

    def view(self, value: Value, shape: Sequence[int], axes: Callable[[Index], Index]) -> Value:
        """value[axes(index)]; a memory stays one where `axes` is linear, which its values at the corners show."""
        if isinstance(value, Both):
            return Both(value.dtype, tuple(self.view(part, shape, axes) for part in value.parts))  # type: ignore
        if not isinstance(value, Memory):
            return Lazy(tuple(shape), value.dtype, lambda graph, index: value.build(graph, axes(index)))
        step = value.step(self.code)
        corner = [0] * len(shape)
        at = lambda index: int(np.dot(axes(tuple(index)), value.strides)) if value.strides else 0  # noqa: E731
        first = at(corner)
        strides = []
        for axis in range(len(shape)):
            corner[axis] = 1
            strides.append(at(corner) - first if shape[axis] > 1 else 0)
            corner[axis] = 0
        return value._replace(shape=tuple(shape), start=value.start + first * step, strides=tuple(strides))

    def window(self, x: Value, shape: Sequence[int], starts: Sequence[int], steps: Sequence[int]) -> Value:
        if isinstance(x, Memory | Both):
            axes = lambda index: tuple(s + i * k for s, i, k in zip(starts, index, steps, strict=True))  # noqa: E731
        else:
            axes = lambda index: tuple(self.shifted(i, s) for i, s in zip(index, starts, strict=True))  # noqa: E731
        return self.view(x, shape, axes)


def number(counter: str) -> "int | str":
    return int(counter) if counter.isdigit() else counter


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    strides = np.cumprod([1, *shape[:0:-1]])[::-1] if len(shape) else ()
    return tuple(int(stride) for stride in strides)
