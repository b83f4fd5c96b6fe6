"""Scalar expressions as a graph: equal ones are made once, constant ones are folded.

The compiler's middle: `scalarise` turns a traced step into these, `vectors` and `lanes` turn them into code, in
which every node is one vector over the lanes (one lane a trial).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import pairs

_COMMUTATIVE = {"add", "mul", "max", "min", "and", "or", "xor", "eq", "ne"}
_COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}


class Unsupported(NotImplementedError):
    """A step uses what the fused engine cannot compile."""

    def __init__(self, what: str):
        self.what = what
        super().__init__(f'{what} is not supported by the fused engine; use engine="xla" (or "auto")')


class TooLarge(Exception):
    """Written out element by element, a step would be longer than the limit."""


class Node(NamedTuple):
    """`op` of the nodes `args`; `value` is a constant's value or an input's name."""

    op: str
    args: tuple[int, ...]
    dtype: str
    value: Any = None


class Loop:
    """A loop whose end differs from lane to lane: while `go_on`, the carried values become `new`.

    Its own graph's inputs are ("carried", k), and ("outer", k) for what it reads of the values around it.
    """

    def __init__(self, graph: "Graph", go_on: int, new: Sequence[int]):
        self.graph, self.go_on, self.new = graph, go_on, tuple(new)


class Graph:
    """Nodes in the order they were made, arguments first; a node is named by its place."""

    def __init__(self, limit: int = 10**9):
        self.nodes: list[Node] = []
        self.limit = limit
        self._known: dict[Any, int] = {}
        self._has_pairs = False
        self.guards: list[int] = []  # truth values without which nothing of what is being written counts

    def _add(self, node: Node, key: Any = None) -> int:
        key = node if key is None else key
        place = self._known.get(key)
        if place is None:
            place = self._known[key] = len(self.nodes)
            self.nodes.append(node)
            if place > self.limit:
                raise TooLarge
        return place

    def input(self, name: Any, dtype: str) -> int:
        return self._add(Node("input", (), dtype, name))

    def pair(self, parts: Sequence[int], dtype: str) -> int:
        """A number of two parts; see `pairs`."""
        self._has_pairs = True
        return self._add(Node("pair", tuple(parts), dtype))

    def parts(self, place: int) -> tuple[int, ...]:
        """The two parts of a pair."""
        node = self.nodes[place]
        if node.op == "unsupported":
            return place, place
        assert node.op == "pair"
        return node.args

    def loop(self, graph: "Graph", go_on: int, new: Sequence[int], start: Sequence[int], outer: Sequence[int]):
        """The carried values after a loop that begins with `start`; see `Loop`."""
        node = self._add(Node("loop", (*start, *outer), "loop", Loop(graph, go_on, new)))
        return [self._add(Node("result", (node,), self.nodes[place].dtype, k)) for k, place in enumerate(start)]

    def constant(self, value: Any, dtype: str) -> int:
        value = np.asarray(value).astype(dtype)[()]
        if pairs.is_pair(dtype):
            return self.pair([self.constant(part, pairs.PARTS[dtype]) for part in (value.real, value.imag)], dtype)
        return self._add(Node("constant", (), dtype, value), ("constant", dtype, value.tobytes()))

    def void(self, dtype: str) -> int:
        """A zero that says that nothing is there: times anything, even infinity, it is itself.

        The zeros of constant masks are such, as of `jnp.eye` and of the basis along which `jax.jacfwd` goes.
        """
        if pairs.is_pair(dtype):
            return self.pair([self.void(pairs.PARTS[dtype])] * 2, dtype)
        return self._add(Node("constant", (), dtype, np.asarray(0).astype(dtype)[()]), ("void", dtype))

    def is_void(self, place: int) -> bool:
        return self._known.get(("void", self.nodes[place].dtype)) == place

    def is_odd(self, place: int) -> bool:
        """Whether this is a constant, or has a part that is one, which times a void is none."""
        node = self.nodes[place]
        if node.op == "pair":
            return any(self.is_odd(part) for part in node.args)
        return node.op == "constant" and not math.isfinite(float(node.value))

    def _is_false(self, place: int) -> bool:
        node = self.nodes[place]
        return node.op == "constant" and node.dtype == "bool" and not node.value

    def unsupported(self, what: str, dtype: str) -> int:
        """A node that cannot be code; see `contracted`."""
        return self._add(Node("unsupported", (), dtype, what))

    def is_constant(self, place: int) -> bool:
        return self.nodes[place].op == "constant"

    def value(self, place: int) -> Any:
        return self.nodes[place].value

    def apply(self, op: str, *args: int, dtype: str | None = None, value: Any = None) -> int:
        """The node op(args), simplified. `dtype` defaults to the first argument's (bool for comparisons)."""
        if dtype is None:
            dtype = "bool" if op in _COMPARISONS or op == "is_finite" else self.nodes[args[-1]].dtype
        if pairs.is_pair(dtype) or (self._has_pairs and any(self.nodes[arg].op == "pair" for arg in args)):
            known = pairs.applied(self, op, args, dtype)
            return self.unsupported(f"{op} of complex numbers", dtype) if known is None else known
        if op in _COMMUTATIVE:
            args = tuple(sorted(args))
        if any(self.is_void(arg) for arg in args):
            there = self._with_void(op, args, dtype)
            if there is not None:
                return there
        if op == "convert" and dtype.startswith("float") and self._is_false(args[0]):
            return self.void(dtype)
        if all(self.is_constant(arg) for arg in args):
            folded = _fold(op, [self.value(arg) for arg in args], dtype)
            if folded is not None:
                return self.constant(folded, dtype)
        simple = self._simplified(op, args, dtype)
        return self._add(Node(op, args, dtype, value)) if simple is None else simple

    def _number(self, place: int) -> float | None:
        node = self.nodes[place]
        return float(node.value) if node.op == "constant" else None

    def _with_void(self, op: str, args: Sequence[int], dtype: str) -> int | None:
        """A void that multiplies or is divided is one, but by a constant that is no ordinary number."""
        if op in ("neg", "convert"):
            return self.void(dtype) if dtype.startswith("float") else self.constant(0, dtype)
        if op == "mul" or (op == "div" and self.is_void(args[0])):
            others = [self._number(arg) for arg in (args[1:] if op == "div" else args)]
            known = [number for number in others if number is not None]
            odd = any(not math.isfinite(number) or (op == "div" and not number) for number in known)
            return None if odd else self.void(dtype)
        if op == "add":
            return args[1] if self.is_void(args[0]) else args[0]
        if op == "sub":
            return args[0] if self.is_void(args[1]) else self.apply("neg", args[1])
        return None

    def _simplified(self, op: str, args: Sequence[int], dtype: str) -> int | None:
        """The same value by less work, for any numbers (infinite ones, −0), or None."""
        if op in ("add", "mul", "sub", "div"):
            return self._simple_arithmetic(op, *args, dtype=dtype)
        if op == "neg" and self.nodes[args[0]].op == "neg":
            return self.nodes[args[0]].args[0]
        if op == "convert" and self.nodes[args[0]].dtype == dtype:
            return args[0]
        if op == "select":
            which, no, yes = args
            if no == yes:
                return no
            if self.is_constant(which):
                return yes if self.value(which) else no
        if op in ("and", "or") and dtype == "bool":
            for one, other in (args, reversed(list(args))):
                if self.is_constant(one):
                    return other if bool(self.value(one)) == (op == "and") else one
        return None

    def _simple_arithmetic(self, op: str, a: int, b: int, dtype: str) -> int | None:
        left, right = self._number(a), self._number(b)
        floating = dtype.startswith("float")
        nothing = [number == 0 and (not floating or math.copysign(1, number) < 0) for number in (left, right)]
        if op == "add":  # −0.0 alone changes nothing
            return b if nothing[0] else a if nothing[1] else None
        if op == "sub":
            if right == 0 and (not floating or not nothing[1]):
                return a
            return self.apply("neg", b) if floating and nothing[0] else None
        if op == "mul":
            for number, other, constant in ((left, b, a), (right, a, b)):
                if number == 1:
                    return other
                if number == 0 and not floating:
                    return constant
                if number == -1 and floating:
                    return self.apply("neg", other)
            return None
        if right == 1:
            return a
        if floating and right is not None and right != 0 and math.isfinite(right) and abs(math.frexp(right)[0]) == 0.5:
            inverse = 1 / right  # a power of two: exact, if there is one
            if abs(inverse) <= float(np.finfo(dtype).max):
                return self.apply("mul", a, self.constant(inverse, dtype))
        return None

    def live(self, outputs: Sequence[int]) -> list[int]:
        """The places that `outputs` need, arguments first."""
        needed, stack = set(), list(outputs)
        while stack:
            place = stack.pop()
            if place not in needed:
                needed.add(place)
                stack.extend(self.nodes[place].args)
        return sorted(needed)

    def size(self, outputs: Sequence[int]) -> int:
        """How many nodes `outputs` need, those of loops among them."""
        nodes = [self.nodes[place] for place in self.live(outputs)]
        inside = [node.value for node in nodes if node.op == "loop"]
        return len(nodes) + sum(loop.graph.size([loop.go_on, *loop.new]) for loop in inside)

    def has_loops(self, outputs: Sequence[int]) -> bool:
        return any(self.nodes[place].op == "loop" for place in self.live(outputs))

    def contracted(self, outputs: Sequence[int]) -> tuple[dict[int, Node], list[int]]:
        """The live nodes with a·b ± c made one rounding (`fma`) where a·b has no other use, and their order."""
        order = self.live(outputs)
        for place in order:
            if self.nodes[place].op == "unsupported":
                raise Unsupported(self.nodes[place].value)
        uses: dict[int, int] = dict.fromkeys(order, 0)
        for place in order:
            for arg in self.nodes[place].args:
                uses[arg] += 1
        for place in outputs:
            uses[place] += 1
        nodes = {place: self.nodes[place] for place in order}
        for place in order:
            node = nodes[place]
            if node.op in ("add", "sub") and node.dtype.startswith("float"):
                for which in (1, 0) if node.op == "add" else (0, 1):
                    product, other = node.args[which], node.args[1 - which]
                    if nodes[product].op == "mul" and uses[product] == 1 and product != other:
                        kind = "fma" if node.op == "add" else ("fms", "fnma")[which]
                        nodes[place] = Node(kind, (*nodes[product].args, other), node.dtype)
                        uses[product] = 0
                        break
        gone = {place for place in order if uses[place] == 0}
        return nodes, [place for place in order if place not in gone]


_FOLDS: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "neg": np.negative, "max": np.maximum, "min": np.minimum,
    "abs": np.abs, "sqrt": np.sqrt, "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal, "floor": np.floor, "ceil": np.ceil, "is_finite": np.isfinite,
    "exp": np.exp, "log": np.log, "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "pow": np.power,
}  # fmt: skip


def _converted(value: Any, dtype: np.dtype) -> Any:
    """XLA's conversion of numbers to whole ones: to the nearest end of the range where they are beyond it."""
    if not (np.issubdtype(dtype, np.integer) and np.issubdtype(value.dtype, np.floating)):
        return value
    if np.isnan(value):
        return 0
    ends = np.iinfo(dtype)
    return ends.max if value >= float(ends.max) else ends.min if value <= float(ends.min) else int(value)


def _fold(op: str, values: list[Any], dtype: str) -> Any:
    with np.errstate(all="ignore"):
        if op in _FOLDS:
            return _FOLDS[op](*values)
        if op == "div":
            whole = np.issubdtype(np.dtype(dtype), np.integer)
            return None if whole else values[0] / values[1]
        if op == "convert":
            return _converted(values[0], np.dtype(dtype))
        if op == "not":
            return ~values[0]
        if op in ("and", "or", "xor"):
            return {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[op](*values)
    return None
