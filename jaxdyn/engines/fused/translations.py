"""Primitives of arrays as scalar expressions: what is moved about, multiplied, summed and compared.

A rule takes the graph, the equation of the jaxpr, and its arguments as arrays of places in the graph; `scalarise` has
those of primitives that call functions.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from .elementwise import Places, tree
from .expressions import Graph, Unsupported
from .pairs import is_pair

Rule = Callable[..., list[Places]]

_TYPES = {"bool", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}


def type_of(aval: Any) -> str:
    name = str(aval.dtype)
    name = "key" if name == "key<fry>" else name
    if name not in _TYPES and not is_pair(name):
        raise Unsupported(f"the number type {name}")
    return name


def literal(atom: Any) -> np.ndarray:
    """A literal of a jaxpr in the type it stands for, which its value need not have."""
    return np.asarray(atom.val, atom.aval.dtype)


def constant_places(graph: Graph, value: Any) -> Places:
    value = np.asarray(value)
    dtype = type_of(value)
    return np.array([graph.constant(each, dtype) for each in value.ravel()], np.int64).reshape(value.shape)


_TILE = 4  # rows and columns of a product computed together
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule of these primitives."""

    def register(made: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, made))
        return made

    return register


@rule("reshape", "squeeze", "expand_dims")
def _reshape(graph: Any, equation: Any, x: Any, *_):
    return [x.reshape(equation.outvars[0].aval.shape)]


@rule("random_wrap")
def _random_wrap(graph: Any, equation: Any, x: Any):
    """The two halves of each key's data as one node."""
    type_of(equation.outvars[0].aval)
    flat = x.reshape(-1, 2).tolist()
    return [np.array([graph.pair(both, "key") for both in flat], np.int64).reshape(x.shape[:-1])]


@rule("random_unwrap")
def _random_unwrap(graph: Any, equation: Any, keys: Any):
    return [np.array([graph.parts(key) for key in keys.ravel().tolist()], np.int64).reshape(*keys.shape, 2)]


@rule("iota_2x32_shape")
def _counts(graph: Any, equation: Any):
    """The numbers 0, 1, … of an array's elements in two halves, the higher first."""
    shape = equation.params["shape"]
    counts = np.arange(int(np.prod(shape)), dtype=np.uint64).reshape(shape)
    return [constant_places(graph, np.asarray(half, np.uint32)) for half in (counts >> 32, counts & 0xFFFFFFFF)]


@rule("optimization_barrier", "name", "device_put", "sharding_constraint")
def _barrier(graph: Any, equation: Any, *arrays: Any):
    return list(arrays)


@rule("platform_index")
def _platform_index(graph: Any, equation: Any):
    """Which of several ways to compute the same: the one for any platform, else the processor's."""
    platforms = equation.params["platforms"]
    for chosen, names in sorted(enumerate(platforms), key=lambda each: each[1] is not None):
        if names is None or "cpu" in names:
            return [np.array(graph.constant(chosen, "int32"))]
    raise Unsupported("a function that differs from platform to platform")


@rule("transpose")
def _transpose(graph: Any, equation: Any, x: Any):
    return [x.transpose(equation.params["permutation"])]


@rule("broadcast_in_dim")
def _broadcast(graph: Any, equation: Any, x: Any, *_):
    shape, where = equation.params["shape"], equation.params["broadcast_dimensions"]
    spread = np.ones(len(shape), int)
    spread[list(where)] = x.shape
    return [np.broadcast_to(x.reshape(spread), shape)]


@rule("slice")
def _slice(graph: Any, equation: Any, x: Any):
    start, stop, step = (equation.params[key] for key in ("start_indices", "limit_indices", "strides"))
    return [x[tuple(slice(*each) for each in zip(start, stop, step or (1,) * x.ndim, strict=True))]]


@rule("rev")
def _rev(graph: Any, equation: Any, x: Any):
    return [np.flip(x, equation.params["dimensions"])]


@rule("concatenate")
def _concatenate(graph: Any, equation: Any, *arrays: Any):
    return [np.concatenate(arrays, equation.params["dimension"])]


@rule("stack")
def _stack(graph: Any, equation: Any, *arrays: Any):
    return [np.stack(arrays, equation.params["axis"])]


@rule("unstack")
def _unstack(graph: Any, equation: Any, x: Any):
    return list(np.moveaxis(x, equation.params["axis"], 0))


@rule("split")
def _split(graph: Any, equation: Any, x: Any):
    return np.split(x, np.cumsum(equation.params["sizes"])[:-1], equation.params["axis"])


@rule("pad")
def _pad(graph: Any, equation: Any, x: Any, fill: Any):
    if any(low < 0 or high < 0 for low, high, _ in equation.params["padding_config"]):
        raise Unsupported("pad with a negative width")
    out = np.full(equation.outvars[0].aval.shape, fill.item())
    config = equation.params["padding_config"]
    out[tuple(slice(low, low + (size - 1) * (inner + 1) + 1 if size else low, inner + 1)
              for (low, _, inner), size in zip(config, x.shape, strict=True))] = x  # fmt: skip
    return [out]


@rule("bitcast_convert_type")
def _bitcast(graph: Graph, equation: Any, x: Any):
    new, old = type_of(equation.outvars[0].aval), type_of(equation.invars[0].aval)
    if "bool" in (new, old) or np.dtype(new).itemsize != np.dtype(old).itemsize:
        raise Unsupported(f"bitcast_convert_type from {old} to {new}")
    places = [graph.apply("bitcast", place, dtype=new) for place in x.ravel().tolist()]
    return [np.array(places, np.int64).reshape(x.shape)]


@rule("tile")
def _tile(graph: Any, equation: Any, x: Any):
    return [np.tile(x, equation.params["reps"])]


@rule("iota")
def _iota(graph: Any, equation: Any):
    aval, along = equation.outvars[0].aval, equation.params["dimension"]
    return [constant_places(graph, np.asarray(np.indices(aval.shape)[along], aval.dtype))]


@rule("dot_general")
def _dot(graph: Any, equation: Any, x: Any, y: Any):
    (over_x, over_y), (batch_x, batch_y) = equation.params["dimension_numbers"]
    dtype = type_of(equation.outvars[0].aval)
    free_x = [axis for axis in range(x.ndim) if axis not in (*over_x, *batch_x)]
    free_y = [axis for axis in range(y.ndim) if axis not in (*over_y, *batch_y)]
    depth = int(np.prod([x.shape[axis] for axis in over_x]))
    size = lambda array, axes: int(np.prod([array.shape[axis] for axis in axes]))  # noqa: E731
    left = x.transpose([*batch_x, *free_x, *over_x]).reshape(size(x, batch_x), size(x, free_x), depth)
    right = y.transpose([*batch_y, *free_y, *over_y]).reshape(size(y, batch_y), size(y, free_y), depth)
    times, plus = ("and", "or") if dtype == "bool" else ("mul", "add")
    left, right = (_over(array, lambda place: graph.apply("convert", place, dtype=dtype)) for array in (left, right))
    odd_left, odd_right = (_over(array, graph.is_odd).astype(bool) for array in (left, right))
    void = graph.void(dtype)
    out = np.full((left.shape[0], left.shape[1], right.shape[1]), void, np.int64)
    # By tiles, the sum outermost: a processor's registers can hold a tile's sums, and every load serves a whole row.
    for group in range(out.shape[0]):
        for rows, columns in itertools.product(_tiles(out.shape[1]), _tiles(out.shape[2])):
            for k in range(depth):
                x, y = left[group, rows, k], right[group, columns, k]
                # What a void multiplies is one, and adds nothing.
                gone = (x == void)[:, None] & ~odd_right[group, columns, k]
                gone |= (y == void) & ~odd_left[group, rows, k][:, None]
                for i, j in np.argwhere(~gone).tolist():
                    place = (group, rows[i], columns[j])
                    out[place] = graph.apply(plus, int(out[place]), graph.apply(times, int(x[i]), int(y[j])))
    return [out]


def _over(array: Places, function: Callable[[int], Any]) -> np.ndarray:
    """The function of each place, of equal ones once."""
    places, back = np.unique(array, return_inverse=True)
    return np.array([function(place) for place in places.tolist()], np.int64)[back].reshape(array.shape)


def _tiles(size: int) -> list[range]:
    return [range(start, min(start + _TILE, size)) for start in range(0, size, _TILE)]


def _reduction(op: str) -> Rule:
    def rule(graph: Any, equation: Any, x: Any):
        axes = equation.params["axes"]
        kept = [axis for axis in range(x.ndim) if axis not in axes]
        if x.size == 0:
            raise Unsupported(f"{equation.primitive.name} of nothing")
        rows = x.transpose([*kept, *axes]).reshape(int(np.prod([x.shape[axis] for axis in kept])), -1)
        return [np.array([tree(graph, op, row.tolist()) for row in rows], np.int64)]

    return rule


for _name, _op in (("sum", "add"), ("max", "max"), ("min", "min"), ("prod", "mul"), ("and", "and"), ("or", "or")):
    RULES[f"reduce_{_name}"] = _reduction(_op)


@rule("argmax", "argmin")
def _arg(graph: Any, equation: Any, x: Any):
    (axis,) = equation.params["axes"]
    dtype = type_of(equation.outvars[0].aval)
    better = "gt" if equation.primitive.name == "argmax" else "lt"
    columns = np.moveaxis(x, axis, -1)
    out = np.empty(columns.shape[:-1], np.int64)
    for where in np.ndindex(out.shape):
        best, index = int(columns[where][0]), graph.constant(0, dtype)
        for k, place in enumerate(columns[where][1:], 1):
            wins = graph.apply(better, int(place), best)
            if graph.nodes[best].dtype.startswith("float"):  # the first NaN wins
                lost = graph.apply("and", graph.apply("ne", int(place), int(place)), graph.apply("eq", best, best))
                wins = graph.apply("or", wins, lost)
            best = graph.apply("select", wins, best, int(place), dtype=graph.nodes[best].dtype)
            index = graph.apply("select", wins, index, graph.constant(k, dtype), dtype=dtype)
        out[where] = index
    return [out]


def _running(op: str) -> Rule:
    def rule(graph: Any, equation: Any, x: Any):
        axis, backwards = equation.params["axis"], equation.params["reverse"]
        columns = np.moveaxis(x, axis, -1).copy()
        for where in np.ndindex(columns.shape[:-1]):
            row = columns[where][::-1] if backwards else columns[where]
            for k in range(1, row.size):
                row[k] = graph.apply(op, int(row[k - 1]), int(row[k]))
        return [np.moveaxis(columns, -1, axis)]

    return rule


for _name, _op in (("cumsum", "add"), ("cumprod", "mul"), ("cummax", "max"), ("cummin", "min")):
    RULES[_name] = _running(_op)
