"""The lowering as a JAX program with the trial axis last: every element of a state is an array over the trials.

For XLA on any device: the state of a batch is a tuple of arrays [trials], one an element, so that a step is one
fusion of elementwise operations without any small matrix in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .expressions import Graph, Node, TooLarge
from .program import Parts, Program, scalarised

LIMIT = 4000  # operations that XLA still compiles as one fusion in reasonable time

_ONE_TO_ONE: dict[str, Callable[..., Any]] = {
    "add": jnp.add, "sub": jnp.subtract, "mul": jnp.multiply, "div": jax.lax.div, "neg": jnp.negative,
    "max": jnp.maximum, "min": jnp.minimum, "abs": jnp.abs, "sqrt": jnp.sqrt, "floor": jnp.floor, "ceil": jnp.ceil,
    "eq": jnp.equal, "ne": jnp.not_equal, "lt": jnp.less, "le": jnp.less_equal, "gt": jnp.greater,
    "ge": jnp.greater_equal, "and": jax.lax.bitwise_and, "or": jax.lax.bitwise_or, "xor": jax.lax.bitwise_xor,
    "not": jax.lax.bitwise_not, "is_finite": jnp.isfinite, "rem": jax.lax.rem, "pow": jax.lax.pow,
    "atan2": jnp.arctan2, "asin": jnp.arcsin, "acos": jnp.arccos, "atan": jnp.arctan, "asinh": jnp.arcsinh,
    "acosh": jnp.arccosh, "atanh": jnp.arctanh, "erf": jax.lax.erf, "erfc": jax.lax.erfc, "lgamma": jax.lax.lgamma,
    "round_even": lambda x: jax.lax.round(x, jax.lax.RoundingMethod.TO_NEAREST_EVEN),
    "round_away": lambda x: jax.lax.round(x, jax.lax.RoundingMethod.AWAY_FROM_ZERO),
    "fma": lambda a, b, c: a * b + c, "fms": lambda a, b, c: a * b - c, "fnma": lambda a, b, c: c - a * b,
    "shift_left": jax.lax.shift_left, "shift_right_logical": jax.lax.shift_right_logical,
    "shift_right_arithmetic": jax.lax.shift_right_arithmetic, "population_count": jax.lax.population_count,
    "select": lambda which, no, yes: jnp.where(which, yes, no),
}  # fmt: skip


def evaluate(graph: Graph, outputs: Sequence[int], inputs: Callable[[Any], Any]) -> list[Any]:
    """The outputs as JAX arrays, for inputs by name; all have the shape of the lanes or none."""
    nodes, order = graph.contracted(outputs)
    values: dict[int, Any] = {}
    for place in order:
        node = nodes[place]
        values[place] = _value(node, [values[arg] for arg in node.args], inputs)
    return [values[place] for place in outputs]


def _value(node: Node, arguments: Sequence[Any], inputs: Callable[[Any], Any]) -> Any:
    if node.op == "constant":
        return node.value  # a NumPy scalar of its own type
    if node.op == "input":
        return inputs(node.value)
    if node.op == "bitcast":
        return jax.lax.bitcast_convert_type(arguments[0], node.dtype)
    if node.op == "convert":
        return jnp.asarray(arguments[0], node.dtype)
    function = _ONE_TO_ONE.get(node.op) or getattr(jnp, node.op)
    return function(*arguments)


@dataclass(frozen=True)
class Elementwise:
    """Step and judgement of a program on tuples of elements; equal for equal programs of the same functions."""

    functions: Any  # what the program was traced from, as a key
    program: Program
    graph: Graph
    parts: Parts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Elementwise) and self.functions == other.functions

    def __hash__(self) -> int:
        return hash(self.functions)

    def step(self, state: tuple[Any, ...], params: tuple[Any, ...]) -> tuple[Any, ...]:
        new = evaluate(self.graph, self.parts.new, self._inputs(state, params).__getitem__)
        return tuple(jnp.broadcast_to(value, old.shape) for value, old in zip(new, state, strict=True))

    def done(self, previous: tuple[Any, ...], state: tuple[Any, ...], params: tuple[Any, ...]) -> Any:
        """`done` reads the new state from its own expressions, which XLA finds computed already."""
        (ended,) = evaluate(self.graph, self.parts.done, self._inputs(previous, params).__getitem__)
        return jnp.broadcast_to(ended, jnp.shape(state[0]))

    def _inputs(self, state: tuple[Any, ...], params: tuple[Any, ...]) -> dict[Any, Any]:
        return {("state", k): value for k, value in enumerate(state)} | {
            ("params", k): value for k, value in enumerate(params)
        }


def elementwise(program: Program, functions: Any) -> Elementwise:
    """The program on elements; `TooLarge` where it would be too long for XLA."""
    graph = Graph(limit=8 * LIMIT)
    parts = scalarised(program, graph)
    live = graph.live([*parts.new, *parts.done])
    if len(live) > LIMIT or any(graph.nodes[place].op == "loop" for place in live):
        raise TooLarge
    return Elementwise(functions, program, graph, parts)


def split(tree: Any) -> tuple[np.ndarray, ...]:
    """A batch's leaves [trials, …] as one array [trials] an element."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    columns = [np.ascontiguousarray(np.moveaxis(leaf.reshape(leaf.shape[0], -1), 0, -1)) for leaf in leaves]
    return tuple(row for column in columns for row in column)


def join(elements: Sequence[np.ndarray], tree: Any) -> Any:
    """The inverse of `split`, shaped like `tree`."""
    leaves, left = [], list(elements)
    for leaf in jax.tree.leaves(tree):
        count = int(np.prod(np.shape(leaf)[1:]))
        rows, left = left[:count], left[count:]
        stacked = np.stack(rows, -1) if rows else np.zeros((np.shape(leaf)[0], 0), leaf.dtype)
        leaves.append(np.ascontiguousarray(stacked.reshape(np.shape(leaf))))
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)
