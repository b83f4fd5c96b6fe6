"""From a JAX function to scalar expressions: trace it, inline what it calls, write every array out element by element.

An array is a NumPy array of places in the graph, so moving data about (transpose, slice, broadcast, …) costs
nothing and leaves no code. A primitive is one rule; what has none is `Unsupported`, by name.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from ...linear import solve_linear
from .derived import DERIVED, derived_jaxpr
from .elementwise import ELEMENTWISE, Places, elementwise, tree
from .expressions import Graph, Unsupported
from .indexing import choose
from .pairs import PARTS, is_pair
from .translations import RULES, constant_places, literal, rule, type_of


def trace(function: Callable[..., Any], *examples: Any) -> tuple[Any, Any]:
    """The closed jaxpr of `function` at the shapes of `examples`, and the structure of what it returns."""
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*examples)
    return jaxpr, shapes


def scalarise(closed: Any, graph: Graph, inputs: Sequence[Places]) -> list[Places]:
    """The outputs of a closed jaxpr, as places in `graph`, for inputs that are places in it."""
    constants = [constant_places(graph, value) for value in closed.consts]
    return _evaluate(closed.jaxpr, graph, constants, inputs)


def _evaluate(jaxpr: Any, graph: Graph, constants: Sequence[Places], inputs: Sequence[Places]) -> list[Places]:
    known: dict[Any, Places] = dict(zip(jaxpr.constvars, constants, strict=True))
    known |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Places:
        return constant_places(graph, literal(atom)) if isinstance(atom, jex.Literal) else known[atom]

    for equation in needed(jaxpr):
        for out in equation.outvars:
            if hasattr(out.aval, "dtype"):
                type_of(out.aval)
        results = apply_rule(equation, graph, [read(atom) for atom in equation.invars])
        for variable, places in zip(equation.outvars, results, strict=True):
            known[variable] = places.reshape(variable.aval.shape)
    return [read(atom) for atom in jaxpr.outvars]


def needed(jaxpr: Any) -> list[Any]:
    """The equations that the outputs depend on, in order.

    A linear solve is compiled from its operator: the factors that JAX has prepared for it are nothing it needs.
    """
    wanted = {atom for atom in jaxpr.outvars if not isinstance(atom, jex.Literal)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if wanted.isdisjoint(equation.outvars):
            continue
        if equation.primitive.name == "custom_linear_solve":
            lengths = equation.params["const_lengths"]
            bare = type(lengths)(lengths.matvec, 0, 0, 0)
            arguments = [*equation.invars[: lengths.matvec], *equation.invars[sum(lengths) :]]
            equation = equation.replace(invars=arguments, params=equation.params | {"const_lengths": bare})
        wanted.update(atom for atom in equation.invars if not isinstance(atom, jex.Literal))
        kept.append(equation)
    return kept[::-1]


def apply_rule(equation: Any, graph: Graph, arguments: list[Places]) -> list[Places]:
    """The outputs of one equation of a jaxpr."""
    name = equation.primitive.name
    try:
        inner = inner_jaxpr(equation)
    except Unsupported as error:
        return [_unknown(graph, error.what, out.aval) for out in equation.outvars]
    if inner is not None:
        return scalarise(inner, graph, arguments)
    if name in ELEMENTWISE:
        dtype = type_of(equation.outvars[0].aval)
        return [elementwise(graph, name, equation.params, arguments, dtype)]
    if name not in RULES:
        return [_unknown(graph, f"the primitive {name}", out.aval) for out in equation.outvars]
    return [np.asarray(result) for result in RULES[name](graph, equation, *arguments)]


def _unknown(graph: Graph, what: str, aval: Any) -> Places:
    """Elements that nothing may depend on in the end: writing them out as code is what raises `Unsupported`."""
    node = graph.unsupported(what, type_of(aval))
    return np.full(aval.shape, node, np.int64)


CALLS = {
    "jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2", "custom_jvp_call", "custom_vjp_call",
    "custom_vjp_call_jaxpr",
}  # fmt: skip


def inner_jaxpr(equation: Any) -> Any:
    """The jaxpr of an equation that only calls another function, or stands for one; else None."""
    if equation.primitive.name in DERIVED:
        return derived_jaxpr(equation)
    if equation.primitive.name not in CALLS:
        return None
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = equation.params.get(key)
        if inner is not None:
            return inner if hasattr(inner, "consts") else jex.ClosedJaxpr(inner, ())
    return None


# Primitives that call functions: solves, loops of known length, both branches of a choice.


@rule("custom_linear_solve")
def _linear_solve(graph: Any, equation: Any, *arguments: Any) -> list[Places]:
    """The operator's matrix, its columns the images of the unit vectors, and elimination."""
    from scipy.sparse.csgraph import connected_components  # a quarter of a second, and few steps have solves

    lengths, jaxprs = equation.params["const_lengths"], equation.params["jaxprs"]
    constants, rights = arguments[: lengths.matvec], arguments[sum(lengths) :]
    if len(rights) != 1:
        raise Unsupported("a linear solve with several unknown arrays")
    (right,) = rights
    dtype = graph.nodes[right.flat[0]].dtype

    def image(vector: Any) -> Places:
        return scalarise(jaxprs.matvec, graph, [*constants, np.reshape(vector, right.shape)])[0].ravel()

    # Blocks that do not see one another, such as a matrix's right sides: the first columns of all are found at once,
    # then the second ones, and a matrix that several have is eliminated once.
    count, labels = connected_components(_seen(graph, image, right.size, dtype), directed=False)
    blocks = [np.flatnonzero(labels == label) for label in range(count)]
    columns: list[list[Places]] = [[] for _ in blocks]
    for k in range(max(block.size for block in blocks)):
        unit = np.full(right.size, graph.void(dtype))
        unit[[block[k] for block in blocks if block.size > k]] = graph.constant(1, dtype)
        images = image(unit)
        for block, found in zip(blocks, columns, strict=True):
            found += [images[block]] * (block.size > k)
    solved: dict[bytes, list[int]] = {}
    for which, found in enumerate(columns):
        solved.setdefault(np.stack(found).tobytes(), []).append(which)
    flat, solution = right.ravel(), np.empty(right.size, np.int64)
    for alike in solved.values():
        matrix = np.stack(columns[alike[0]], 1)
        shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape in (matrix.shape, (len(matrix), len(alike)))]
        elimination, _ = trace(solve_linear, *shapes)
        sides = np.stack([flat[blocks[which]] for which in alike], 1)
        (found,) = scalarise(elimination, graph, [matrix, sides])
        for side, which in enumerate(alike):
            solution[blocks[which]] = found[:, side]
    return [solution.reshape(right.shape)]


def _seen(graph: Graph, image: Callable[[Any], Places], size: int, dtype: str) -> np.ndarray:
    """Which elements of an image depend on which of the argument, bool [size, size]."""
    before = len(graph.nodes)
    names = [[("unknown", before, k, part) for part in range(2 if is_pair(dtype) else 1)] for k in range(size)]
    parts = [[graph.input(name, PARTS.get(dtype, dtype)) for name in each] for each in names]
    images = image([graph.pair(each, dtype) if is_pair(dtype) else each[0] for each in parts])
    masks = {place: 1 << k for k, each in enumerate(parts) for place in each}
    for place in range(before, len(graph.nodes)):
        for argument in graph.nodes[place].args:
            masks[place] = masks.get(place, 0) | masks.get(argument, 0)
    return np.array([[masks.get(place, 0) >> k & 1 for k in range(size)] for place in images.tolist()], bool)


# Nodes and passes of a loop that are written out; beyond, what can be is a loop in the code.
_WRITTEN, _PASSES = 4000, 1000


@rule("scan")
def _scan(graph: Any, equation: Any, *arguments: Any):
    params = equation.params
    n_constants, n_carry, length = params["num_consts"], params["num_carry"], params["length"]
    constants, start = list(arguments[:n_constants]), list(arguments[n_constants : n_constants + n_carry])
    slices, before, carry = arguments[n_constants + n_carry :], len(graph.nodes), start
    repeats = not slices and len(equation.outvars) == n_carry
    outputs: list[list[Places]] = []
    for k in range(length)[:: -1 if params["reverse"] else 1]:
        if repeats and (length > _PASSES or len(graph.nodes) - before > _WRITTEN):
            return _counted(graph, params["jaxpr"], constants, start, length)
        out = scalarise(params["jaxpr"], graph, [*constants, *carry, *(np.asarray(each[k]) for each in slices)])
        carry = out[:n_carry]
        outputs.append(out[n_carry:])
    if params["reverse"]:
        outputs.reverse()
    shapes = [variable.aval.shape for variable in equation.outvars[n_carry:]]
    stacked = [np.array([out[k] for out in outputs], np.int64).reshape(shape) for k, shape in enumerate(shapes)]
    return [*carry, *stacked]


def _counted(graph: Graph, closed: Any, constants: list[Places], start: list[Places], length: int) -> list[Places]:
    """`length` passes, as a loop in the code."""
    count = np.array(graph.constant(0, "int64"))

    def go_on(inner: Graph, _: Any, carried: list[Places]) -> int:
        return inner.apply("lt", carried[0].item(), inner.constant(length, "int64"))

    def new(inner: Graph, outer: list[Places], carried: list[Places]) -> list[Places]:
        after = np.array(inner.apply("add", carried[0].item(), inner.constant(1, "int64")))
        return [after, *scalarise(closed, inner, [*outer, *carried[1:]])]

    return _looped(graph, constants, [count, *start], go_on, new)[1:]


@rule("while")
def _while(graph: Any, equation: Any, *arguments: Any):
    params = equation.params
    n_cond, n_body = params["cond_nconsts"], params["body_nconsts"]
    constants, start = list(arguments[: n_cond + n_body]), list(arguments[n_cond + n_body :])
    carry, before = start, len(graph.nodes)
    for _ in range(_PASSES):
        if len(graph.nodes) - before > _WRITTEN:
            break
        (go_on,) = scalarise(params["cond_jaxpr"], graph, [*constants[:n_cond], *carry])
        known = [graph.value(place) if graph.is_constant(place) else None for place in go_on.ravel().tolist()]
        if None in known:
            break
        if not any(known):
            return carry
        new = scalarise(params["body_jaxpr"], graph, [*constants[n_cond:], *carry])
        carry = _where(graph, go_on, new, carry)

    def going(inner: Graph, outer: list[Places], carried: list[Places]) -> Places:
        return scalarise(params["cond_jaxpr"], inner, [*outer[:n_cond], *carried])[0]

    def go_on_at_all(inner: Graph, outer: list[Places], carried: list[Places]) -> int:
        return tree(inner, "or", going(inner, outer, carried).ravel().tolist())

    def body(inner: Graph, outer: list[Places], carried: list[Places]) -> list[Places]:
        new = scalarise(params["body_jaxpr"], inner, [*outer[n_cond:], *carried])
        return _where(inner, going(inner, outer, carried), new, carried)

    return _looped(graph, constants, carry, go_on_at_all, body)


def _where(graph: Graph, which: Places, new: list[Places], old: list[Places]) -> list[Places]:
    """The new arrays in the rows that go on: a loop under `vmap` has a condition for each row."""
    if not which.shape:
        return new
    out = []
    for fresh, before in zip(new, old, strict=True):
        spread = np.broadcast_to(which.reshape(*which.shape, *(1,) * (fresh.ndim - which.ndim)), fresh.shape)
        each = zip(*(part.ravel().tolist() for part in (spread, before, fresh)), strict=True)
        places = [graph.apply("select", go, no, yes, dtype=graph.nodes[yes].dtype) for go, no, yes in each]
        out.append(np.array(places, np.int64).reshape(fresh.shape))
    return out


def _looped(graph: Graph, constants: list[Places], start: list[Places], go_on: Any, new: Any) -> list[Places]:
    """A loop in the code: while go_on(graph, constants, carried), they become new(graph, constants, carried)."""
    inner = Graph(graph.limit)
    outer: dict[int, int] = {}  # their numbers

    def read(place: int) -> int:
        """A place of the graph around it in the inner one."""
        node = graph.nodes[place]
        if node.op == "pair":
            return inner.pair([read(part) for part in node.args], node.dtype)
        if graph.is_void(place):
            return inner.void(node.dtype)
        if node.op == "constant":
            return inner.constant(node.value, node.dtype)
        if node.op == "unsupported":
            return inner.unsupported(node.value, node.dtype)
        return inner.input(("outer", outer.setdefault(place, len(outer))), node.dtype)

    begun: list[int] = []

    def carried(place: int) -> int:
        node = graph.nodes[place]
        if is_pair(node.dtype) and node.op == "pair":
            return inner.pair([carried(part) for part in node.args], node.dtype)
        begun.append(place)
        return inner.input(("carried", len(begun) - 1), node.dtype)

    over = lambda array, of: np.array([of(k) for k in array.ravel().tolist()], np.int64).reshape(array.shape)  # noqa: E731
    there = [over(array, read) for array in constants]
    inside = [over(array, carried) for array in start]
    goes_on, after = go_on(inner, there, inside), new(inner, there, inside)
    for guard in graph.guards:  # of a choice that was not taken no loop needs to end
        goes_on = inner.apply("and", goes_on, read(guard))
    parts = [part for array in after for place in array.ravel().tolist() for part in _flat(inner, place)]
    results = iter(graph.loop(inner, goes_on, parts, begun, list(outer)))

    def rebuilt(place: int) -> int:
        dtype = graph.nodes[place].dtype
        return graph.pair([rebuilt_part(dtype), rebuilt_part(dtype)], dtype) if is_pair(dtype) else next(results)

    def rebuilt_part(dtype: str) -> int:
        part = next(results)
        assert graph.nodes[part].dtype == PARTS[dtype]
        return part

    return [over(array, rebuilt) for array in start]


def _flat(graph: Graph, place: int) -> tuple[int, ...]:
    return graph.parts(place) if is_pair(graph.nodes[place].dtype) else (place,)


@rule("cond")
def _cond(graph: Any, equation: Any, which: Any, *arguments: Any):
    branches = equation.params["branches"]
    place = which.item()
    if graph.is_constant(place):
        index = min(max(int(graph.value(place)), 0), len(branches) - 1)
        return scalarise(branches[index], graph, arguments)
    index = graph.apply("convert", place, dtype="int32")
    results = []
    for k, branch in enumerate(branches):
        op = "le" if k == 0 else "ge" if k == len(branches) - 1 else "eq"
        graph.guards.append(graph.apply(op, index, graph.constant(k, "int32")))
        results.append(scalarise(branch, graph, arguments))
        graph.guards.pop()
    return [choose(graph, index, [np.asarray(case) for case in cases]) for cases in zip(*results, strict=True)]
