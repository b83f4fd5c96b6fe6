"""Elements that are found by an index, which may differ from trial to trial: a choice among all it may mean.

Gather, scatter and slices as XLA defines them; places that are known when the code is written cost nothing.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .elementwise import Places
from .expressions import Graph, Unsupported
from .translations import rule, type_of

_CHOICES = 60_000  # nodes of one equation's choices


def choose(graph: Graph, which: int, cases: Sequence[Places]) -> Places:
    """cases[which], with `which` clipped to their number, element by element."""
    dtype = graph.nodes[which].dtype
    chosen = cases[-1]
    for k in range(len(cases) - 2, -1, -1):
        here = graph.apply("le", which, graph.constant(k, dtype))
        pairs = zip(chosen.ravel(), cases[k].ravel(), strict=True)
        places = [graph.apply("select", here, int(no), int(yes), dtype=graph.nodes[int(yes)].dtype)
                  for no, yes in pairs]  # fmt: skip
        chosen = np.array(places, np.int64).reshape(chosen.shape)
    return chosen


def _wide(graph: Graph, place: int) -> int:
    """The index in a type that has the numbers of all places."""
    narrow = np.dtype(graph.nodes[place].dtype).itemsize < 4
    return graph.apply("convert", place, dtype="int32") if narrow else place


class _Start:
    """Where a window begins along one axis: one of `positions`, chosen by a place unless there is only one."""

    def __init__(self, graph: Graph, place: "int | None", room: int):
        self.graph, self.room = graph, room
        self.place = place = None if place is None else _wide(graph, place)
        self.inside: int | None = None  # whether it was, where that is not known
        self.positions = range(room + 1)
        known = 0 if place is None else self._value()
        if known is not None:
            at = min(max(known, 0), room)
            self.positions = range(at, at + 1)
            if at != known:
                self.inside = graph.constant(False, "bool")
        elif place is not None:
            zero, most = (graph.constant(n, graph.nodes[place].dtype) for n in (0, room))
            self.inside = graph.apply("and", graph.apply("ge", place, zero), graph.apply("le", place, most))

    def _value(self) -> int | None:
        place = self.place
        return int(self.graph.value(place)) if place is not None and self.graph.is_constant(place) else None

    def at(self, position: int) -> int | None:
        """Whether it begins there, once clipped; None if it must."""
        if len(self.positions) == 1 or self.place is None:
            return None
        graph, dtype = self.graph, self.graph.nodes[self.place].dtype
        here = graph.constant(position, dtype)
        op = "le" if position == 0 else "ge" if position == self.room else "eq"
        return graph.apply(op, self.place, here)


def _all(graph: Graph, conditions: Sequence["int | None"]) -> int | None:
    there = [each for each in conditions if each is not None]
    total = None
    for each in there:
        total = each if total is None else graph.apply("and", total, each)
    return total


def _check_size(choices: int, name: str) -> None:
    if choices > _CHOICES:
        raise Unsupported(f"{name} with this many places")


def _starts(
    graph: Graph, shape: Sequence[int], window: Sequence[int], index: Any, axes: Any, fixed: dict[int, int]
) -> list[_Start]:
    """Of a window in an array: along `axes` by the index' elements, along `fixed` as said, else zero."""
    places: list[Any] = [None] * len(shape)
    for axis, place in zip(axes, index, strict=True):
        places[axis] = int(place)
    starts = [_Start(graph, place, size - part) for place, size, part in zip(places, shape, window, strict=True)]
    for axis, position in fixed.items():
        starts[axis].positions = range(position, position + 1)
    return starts


def _looked_up(graph: Graph, x: Places, starts: Sequence[_Start], offset: Sequence[int]) -> int:
    """x[starts + offset], the starts clipped."""
    grid = x[np.ix_(*([k + o for k in start.positions] for start, o in zip(starts, offset, strict=True)))]
    for start in starts:
        cases = [np.asarray(grid[k]) for k in range(grid.shape[0])]
        grid = cases[0] if len(cases) == 1 else choose(graph, start.place or 0, cases)
    return int(grid)


@rule("dynamic_slice")
def _dynamic_slice(graph: Any, equation: Any, x: Any, *indices: Any):
    sizes = equation.params["slice_sizes"]
    for axis, (start, size) in enumerate(zip(indices, sizes, strict=True)):
        place, room = _wide(graph, start.item()), x.shape[axis] - size
        if graph.is_constant(place):
            at = min(max(int(graph.value(place)), 0), room)
            x = np.take(x, range(at, at + size), axis)
            continue
        _check_size(x.size * (room + 1), "dynamic_slice")
        x = choose(graph, place, [np.take(x, range(k, k + size), axis) for k in range(room + 1)])
    return [x]


@rule("dynamic_update_slice")
def _dynamic_update(graph: Any, equation: Any, x: Any, update: Any, *indices: Any):
    starts = [_Start(graph, index.item(), size - part)
              for index, size, part in zip(indices, x.shape, update.shape, strict=True)]  # fmt: skip
    out = x.copy()
    _check_size(update.size * math.prod(len(start.positions) for start in starts), "dynamic_update_slice")
    for offset in np.ndindex(update.shape):
        _put(graph, out, starts, offset, None, lambda _, new: new, int(update[offset]))
    return [out]


def _put(
    graph: Graph, out: Places, starts: Any, offset: Any, inside: Any, combined: Callable[[int, int], int], new: int
) -> None:
    """out[starts + offset] becomes combined(itself, new), where `inside` holds (None: everywhere)."""
    for position in itertools.product(*(start.positions for start in starts)):
        here = _all(graph, [inside, *(start.at(k) for start, k in zip(starts, position, strict=True))])
        at = tuple(k + o for k, o in zip(position, offset, strict=True))
        old = int(out[at])
        put = combined(old, new)
        out[at] = put if here is None else graph.apply("select", here, old, put, dtype=graph.nodes[put].dtype)


def _is_clipped(mode: Any, promised: bool = False) -> bool:
    """Whether indices outside are moved inside; else they are left out. `promised`: so are those promised inside."""
    return "CLIP" in str(mode) or (promised and "PROMISE" in str(mode))


@rule("gather")
def _gather(graph: Any, equation: Any, x: Any, index: Any):
    params, dtype = equation.params, type_of(equation.outvars[0].aval)
    numbers, window = params["dimension_numbers"], params["slice_sizes"]
    shape = equation.outvars[0].aval.shape
    batched = [axis for axis in range(len(shape)) if axis not in numbers.offset_dims]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [axis for axis in range(x.ndim) if axis not in gone]
    clipped = _is_clipped(params["mode"], promised=True)
    if dtype == "key" and not clipped:
        raise Unsupported("keys found by an index that may be outside")
    fill = 0 if clipped else graph.constant(params["fill_value"], dtype)
    out = np.empty(shape, np.int64)
    used = 0
    for where in np.ndindex(out.shape):
        batch = tuple(where[axis] for axis in batched)
        fixed = _fixed(numbers.operand_batching_dims, numbers.start_indices_batching_dims, batch)
        starts = _starts(graph, x.shape, window, index[batch], numbers.start_index_map, fixed)
        offset = [0] * x.ndim
        for axis, at in zip(kept, numbers.offset_dims, strict=True):
            offset[axis] = where[at]
        used += math.prod(len(start.positions) for start in starts)
        _check_size(used, "gather")
        place = _looked_up(graph, x, starts, offset)
        inside = None if clipped else _all(graph, [start.inside for start in starts])
        out[where] = place if inside is None else graph.apply("select", inside, fill, place, dtype=dtype)
    return [out]


def _fixed(operand_axes: Any, index_axes: Any, batch: Sequence[int]) -> dict[int, int]:
    return {int(axis): batch[at] for axis, at in zip(operand_axes, index_axes, strict=True)}


_COMBINED = {"scatter-add": "add", "scatter-mul": "mul", "scatter-min": "min", "scatter-max": "max",
             "scatter-sub": "sub"}  # fmt: skip


@rule("scatter", *_COMBINED)
def _scatter(graph: Any, equation: Any, x: Any, index: Any, update: Any):
    name, numbers = equation.primitive.name, equation.params["dimension_numbers"]
    if name == "scatter" and equation.params.get("update_jaxpr") is not None:
        raise Unsupported("scatter with a function of its own")
    combined = (lambda old, new: graph.apply(_COMBINED[name], old, new)) if name in _COMBINED else lambda _, new: new
    gone = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    kept = [axis for axis in range(x.ndim) if axis not in gone]
    batched = [axis for axis in range(update.ndim) if axis not in numbers.update_window_dims]
    window = [1] * x.ndim
    for axis, at in zip(kept, numbers.update_window_dims, strict=True):
        window[axis] = update.shape[at]
    out, used = x.copy(), 0
    for where in np.ndindex(update.shape):
        batch = tuple(where[axis] for axis in batched)
        fixed = _fixed(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, batch)
        starts = _starts(graph, x.shape, window, index[batch], numbers.scatter_dims_to_operand_dims, fixed)
        used += math.prod(len(start.positions) for start in starts)
        _check_size(used, name)
        offset = [0] * x.ndim
        for axis, at in zip(kept, numbers.update_window_dims, strict=True):
            offset[axis] = where[at]
        inside = None if _is_clipped(equation.params["mode"]) else _all(graph, [start.inside for start in starts])
        if inside is not None and graph.is_constant(inside) and not graph.value(inside):
            continue
        _put(graph, out, starts, offset, inside, combined, int(update[where]))
    return [out]


# Sorting, by a network: the comparisons are the same for every trial.

_SORTED = 16  # numbers of a row: more take seconds to compile


@rule("sort")
def _sort(graph: Any, equation: Any, *arrays: Any):
    axis, n_keys = equation.params["dimension"], equation.params["num_keys"]
    size = arrays[0].shape[axis]
    if size > _SORTED:
        raise Unsupported(f"sort of more than {_SORTED} numbers")
    moved = [np.moveaxis(array, axis, -1).copy() for array in arrays]
    network = _network(size)
    for where in np.ndindex(moved[0].shape[:-1]):
        rows = [tuple(int(each[where][k]) for each in moved) for k in range(size)]
        # What compares equal stays in its order, which its number settles.
        rows = [(*row, graph.constant(k, "int32")) for k, row in enumerate(rows)]
        for i, j in network:
            later = _precedes(graph, rows[j], rows[i], n_keys)
            pairs = [(graph.apply("select", later, a, b, dtype=graph.nodes[a].dtype),
                      graph.apply("select", later, b, a, dtype=graph.nodes[a].dtype))
                     for a, b in zip(rows[i], rows[j], strict=True)]  # fmt: skip
            rows[i], rows[j] = tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)
        for k, row in enumerate(rows):
            for each, place in zip(moved, row[:-1], strict=True):
                each[where][k] = place
    return [np.moveaxis(each, -1, axis) for each in moved]


def _precedes(graph: Graph, a: Sequence[int], b: Sequence[int], n_keys: int) -> int:
    """Whether row a comes before row b: by its keys, then by its number; NaN is the largest, −0 equals 0."""
    before = graph.apply("lt", a[-1], b[-1])
    for x, y in reversed([*zip(a, b, strict=True)][:n_keys]):
        smaller, same = graph.apply("lt", x, y), graph.apply("eq", x, y)
        if graph.nodes[x].dtype.startswith("float"):
            no_x, no_y = graph.apply("ne", x, x), graph.apply("ne", y, y)
            smaller = graph.apply("or", smaller, graph.apply("and", no_y, graph.apply("eq", x, x)))
            same = graph.apply("or", same, graph.apply("and", no_x, no_y))
        before = graph.apply("or", smaller, graph.apply("and", same, before))
    return before


def _network(size: int) -> list[tuple[int, int]]:
    """Batcher's merge exchange: the pairs to be put in order, one after the other (Knuth, volume 3, 5.2.2 M)."""
    pairs, p = [], 1
    while p < size:
        p *= 2
    top = p = p // 2
    while p > 0:
        q, r, d = top, 0, p
        while d > 0:
            pairs += [(i, i + d) for i in range(size - d) if i & p == r]
            d, q, r = q - p, q // 2, p
        p //= 2
    return pairs
