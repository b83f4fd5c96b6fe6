"""From a JAX function to scalar expressions: trace it, inline what it calls, write every array out element by element.

An array is a NumPy array of places in the graph, so moving data about (transpose, slice, broadcast, …) costs
nothing and leaves no code. A primitive is one rule; what has none is `Unsupported`, by name.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from ...linear import solve_linear
from .elementwise import ELEMENTWISE, Places, elementwise, tree
from .expressions import Graph, Unsupported

Rule = Callable[..., list[Places]]

_TYPES = {"bool", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}


def trace(function: Callable[..., Any], *examples: Any) -> tuple[Any, Any]:
    """The closed jaxpr of `function` at the shapes of `examples`, and the structure of what it returns."""
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*examples)
    return jaxpr, shapes


def type_of(aval: Any) -> str:
    name = str(aval.dtype)
    if name not in _TYPES:
        raise Unsupported(f"the number type {name}")
    return name


def scalarise(closed: Any, graph: Graph, inputs: Sequence[Places]) -> list[Places]:
    """The outputs of a closed jaxpr, as places in `graph`, for inputs that are places in it."""
    constants = [constant_places(graph, value) for value in closed.consts]
    return _evaluate(closed.jaxpr, graph, constants, inputs)


def literal(atom: Any) -> np.ndarray:
    """A literal of a jaxpr in the type it stands for, which its value need not have."""
    return np.asarray(atom.val, atom.aval.dtype)


def constant_places(graph: Graph, value: Any) -> Places:
    value = np.asarray(value)
    dtype = type_of(value)
    return np.array([graph.constant(each, dtype) for each in value.ravel()], np.int64).reshape(value.shape)


def _evaluate(jaxpr: Any, graph: Graph, constants: Sequence[Places], inputs: Sequence[Places]) -> list[Places]:
    known: dict[Any, Places] = dict(zip(jaxpr.constvars, constants, strict=True))
    known |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Places:
        return constant_places(graph, literal(atom)) if isinstance(atom, jex.Literal) else known[atom]

    for equation in jaxpr.eqns:
        for out in equation.outvars:
            if hasattr(out.aval, "dtype"):
                type_of(out.aval)
        results = apply_rule(equation, graph, [read(atom) for atom in equation.invars])
        for variable, places in zip(equation.outvars, results, strict=True):
            known[variable] = places.reshape(variable.aval.shape)
    return [read(atom) for atom in jaxpr.outvars]


def apply_rule(equation: Any, graph: Graph, arguments: list[Places]) -> list[Places]:
    """The outputs of one equation of a jaxpr."""
    name = equation.primitive.name
    inner = inner_jaxpr(equation)
    if inner is not None:
        return scalarise(inner, graph, arguments)
    if name in ELEMENTWISE:
        dtype = type_of(equation.outvars[0].aval)
        return [elementwise(graph, name, equation.params, arguments, dtype)]
    if name not in RULES:
        return [_unknown(graph, name, out.aval) for out in equation.outvars]
    return RULES[name](graph, equation, *arguments)


def _unknown(graph: Graph, name: str, aval: Any) -> Places:
    """Elements that nothing may depend on in the end: writing them out as code is what raises `Unsupported`.

    A linear solve is compiled from its operator; the factors that JAX prepares for it are then not needed.
    """
    node = graph.unsupported(f"the primitive {name}", type_of(aval))
    return np.full(aval.shape, node, np.int64)


_CALLS = {
    "jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2", "custom_jvp_call", "custom_vjp_call",
    "custom_vjp_call_jaxpr",
}  # fmt: skip


def inner_jaxpr(equation: Any) -> Any:
    """The jaxpr of an equation that only calls another function, or None."""
    if equation.primitive.name not in _CALLS:
        return None
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = equation.params.get(key)
        if inner is not None:
            return inner if hasattr(inner, "consts") else jex.ClosedJaxpr(inner, ())
    return None


# Primitives of arrays. Each rule takes the graph, the equation, and its arguments.

_TILE = 4  # rows and columns of a product computed together
RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


@_rule("reshape", "squeeze", "expand_dims")
def _reshape(graph: Any, equation: Any, x: Any, *_):
    return [x.reshape(equation.outvars[0].aval.shape)]


@_rule("optimization_barrier")
def _barrier(graph: Any, equation: Any, *arrays: Any):
    return list(arrays)


@_rule("transpose")
def _transpose(graph: Any, equation: Any, x: Any):
    return [x.transpose(equation.params["permutation"])]


@_rule("broadcast_in_dim")
def _broadcast(graph: Any, equation: Any, x: Any, *_):
    shape, where = equation.params["shape"], equation.params["broadcast_dimensions"]
    spread = np.ones(len(shape), int)
    spread[list(where)] = x.shape
    return [np.broadcast_to(x.reshape(spread), shape)]


@_rule("slice")
def _slice(graph: Any, equation: Any, x: Any):
    start, stop, step = (equation.params[key] for key in ("start_indices", "limit_indices", "strides"))
    return [x[tuple(slice(*each) for each in zip(start, stop, step or (1,) * x.ndim, strict=True))]]


@_rule("rev")
def _rev(graph: Any, equation: Any, x: Any):
    return [np.flip(x, equation.params["dimensions"])]


@_rule("concatenate")
def _concatenate(graph: Any, equation: Any, *arrays: Any):
    return [np.concatenate(arrays, equation.params["dimension"])]


@_rule("stack")
def _stack(graph: Any, equation: Any, *arrays: Any):
    return [np.stack(arrays, equation.params["axis"])]


@_rule("unstack")
def _unstack(graph: Any, equation: Any, x: Any):
    return list(np.moveaxis(x, equation.params["axis"], 0))


@_rule("split")
def _split(graph: Any, equation: Any, x: Any):
    return np.split(x, np.cumsum(equation.params["sizes"])[:-1], equation.params["axis"])


@_rule("pad")
def _pad(graph: Any, equation: Any, x: Any, fill: Any):
    if any(low < 0 or high < 0 for low, high, _ in equation.params["padding_config"]):
        raise Unsupported("pad with a negative width")
    out = np.full(equation.outvars[0].aval.shape, fill.item())
    config = equation.params["padding_config"]
    out[tuple(slice(low, low + (size - 1) * (inner + 1) + 1 if size else low, inner + 1)
              for (low, _, inner), size in zip(config, x.shape, strict=True))] = x  # fmt: skip
    return [out]


@_rule("iota")
def _iota(graph: Any, equation: Any):
    aval, along = equation.outvars[0].aval, equation.params["dimension"]
    return [constant_places(graph, np.asarray(np.indices(aval.shape)[along], aval.dtype))]


@_rule("gather", "scatter")
def _by_index(graph: Any, equation: Any, x: Any, index: Any, *updates: Any):
    """Constant places: the primitive itself is applied to the numbers of its operand's elements."""
    positions = _constants(graph, index, equation.primitive.name)
    if equation.params.get("update_jaxpr") is not None:
        raise Unsupported(f"{equation.primitive.name} that combines values")
    everything = np.concatenate([x.ravel(), *(update.ravel() for update in updates)])
    with jax.ensure_compile_time_eval():
        numbers = jax.numpy.arange(everything.size, dtype="int32")
        pieces = [numbers[: x.size].reshape(x.shape), positions]
        pieces += [numbers[x.size :].reshape(update.shape) for update in updates]
        params = dict(equation.params)
        if params.get("fill_value", 0) is None or "fill_value" in params:
            params["fill_value"] = -1
        out = np.asarray(equation.primitive.bind(*pieces, **params))
    if (out < 0).any():
        raise Unsupported(f"{equation.primitive.name} outside the array")
    return [everything[out]]


def _constants(graph: Graph, places: Places, what: str) -> np.ndarray:
    flat = places.ravel().tolist()
    if not all(graph.is_constant(place) for place in flat):
        raise Unsupported(f"{what} at an index that differs from trial to trial")
    return np.array([graph.value(place) for place in flat], graph.nodes[flat[0]].dtype).reshape(places.shape)


@_rule("dynamic_slice")
def _dynamic_slice(graph: Any, equation: Any, x: Any, *starts: Any):
    sizes = equation.params["slice_sizes"]
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        windows = [np.take(x, range(k, k + size), axis) for k in range(x.shape[axis] - size + 1)]
        x = _choose(graph, start.item(), windows)
    return [x]


def _choose(graph: Graph, which: int, cases: list[Places]) -> Places:
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


@_rule("dynamic_update_slice")
def _dynamic_update(graph: Any, equation: Any, x: Any, update: Any, *starts: Any):
    at = np.indices(update.shape)
    for place, start in enumerate(starts):
        if not graph.is_constant(start.item()):
            raise Unsupported("dynamic_update_slice at an index that differs from trial to trial")
        offset = min(max(int(graph.value(start.item())), 0), x.shape[place] - update.shape[place])
        at[place] += offset
    x = x.copy()
    x[tuple(at)] = update
    return [x]


@_rule("dot_general")
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
    out = np.empty((left.shape[0], left.shape[1], right.shape[1]), np.int64)
    convert = lambda place: graph.apply("convert", int(place), dtype=dtype)  # noqa: E731
    out[:] = graph.constant(0, dtype)
    # By tiles, the sum outermost: a processor's registers can hold a tile's sums, and every load serves a whole row.
    for group in range(out.shape[0]):
        for rows, columns in itertools.product(_tiles(out.shape[1]), _tiles(out.shape[2])):
            for k in range(depth):
                for i, j in itertools.product(rows, columns):
                    product = graph.apply(times, convert(left[group, i, k]), convert(right[group, j, k]))
                    out[group, i, j] = graph.apply(plus, int(out[group, i, j]), product)
    return [out]


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


@_rule("custom_linear_solve")
def _linear_solve(graph: Any, equation: Any, *arguments: Any):
    """The operator's matrix, its columns the images of the unit vectors, and elimination."""
    lengths, jaxprs = equation.params["const_lengths"], equation.params["jaxprs"]
    constants, rights = arguments[: lengths.matvec], arguments[sum(lengths) :]
    if len(rights) != 1:
        raise Unsupported("a linear solve with several unknown arrays")
    (right,) = rights
    dtype = graph.nodes[right.flat[0]].dtype
    columns = []
    for k in range(right.size):
        unit = constant_places(graph, np.eye(right.size, dtype=dtype)[k].reshape(right.shape))
        columns.append(scalarise(jaxprs.matvec, graph, [*constants, unit])[0].ravel())
    shapes = jax.ShapeDtypeStruct((right.size, right.size), dtype), jax.ShapeDtypeStruct((right.size,), dtype)
    elimination, _ = trace(solve_linear, *shapes)
    (solution,) = scalarise(elimination, graph, [np.stack(columns, 1), right.ravel()])
    return [solution.reshape(right.shape)]


@_rule("argmax", "argmin")
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


# Control flow, written out: loops of known length, both branches of a choice.


@_rule("scan")
def _scan(graph: Any, equation: Any, *arguments: Any):
    params = equation.params
    n_constants, n_carry = params["num_consts"], params["num_carry"]
    constants, carry, slices = (
        list(arguments[:n_constants]),
        list(arguments[n_constants : n_constants + n_carry]),
        arguments[n_constants + n_carry :],
    )
    outputs: list[list[Places]] = []
    for k in range(params["length"])[:: -1 if params["reverse"] else 1]:
        out = scalarise(params["jaxpr"], graph, [*constants, *carry, *(each[k] for each in slices)])
        carry = out[:n_carry]
        outputs.append(out[n_carry:])
    if params["reverse"]:
        outputs.reverse()
    shapes = [variable.aval.shape for variable in equation.outvars[n_carry:]]
    stacked = [np.array([out[k] for out in outputs], np.int64).reshape(shape) for k, shape in enumerate(shapes)]
    return [*carry, *stacked]


@_rule("while")
def _while(graph: Any, equation: Any, *arguments: Any):
    params = equation.params
    n_cond, n_body = params["cond_nconsts"], params["body_nconsts"]
    for_cond, for_body = arguments[:n_cond], arguments[n_cond : n_cond + n_body]
    carry = list(arguments[n_cond + n_body :])
    while True:
        (go_on,) = scalarise(params["cond_jaxpr"], graph, [*for_cond, *carry])
        if not graph.is_constant(go_on.item()):
            raise Unsupported("a while loop whose length differs from trial to trial")
        if not graph.value(go_on.item()):
            return carry
        carry = scalarise(params["body_jaxpr"], graph, [*for_body, *carry])


@_rule("cond")
def _cond(graph: Any, equation: Any, which: Any, *arguments: Any):
    branches = equation.params["branches"]
    place = which.item()
    if graph.is_constant(place):
        index = min(max(int(graph.value(place)), 0), len(branches) - 1)
        return scalarise(branches[index], graph, arguments)
    results = [scalarise(branch, graph, arguments) for branch in branches]
    index = graph.apply("convert", place, dtype="int32")
    return [_choose(graph, index, [np.asarray(case) for case in cases]) for cases in zip(*results, strict=True)]
