"""Scalar expressions as LLVM code in which every value is a vector over the lanes.

No operation may be reordered or contracted by the compiler behind it (fused multiply-adds are written as such), so
a trial's bits do not depend on its lane, the number of lanes, or the machine's vector width.
"""

import contextlib
import struct
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import mathematics
from .expressions import Graph, Node, Unsupported

_LLVM = {"bool": "i1", "float32": "float", "float64": "double"}
SIZES = {"bool": 1, "float32": 4, "float64": 8}


def scalar_type(dtype: str) -> str:
    return _LLVM.get(dtype) or f"i{dtype.lstrip('uint')}"


def size_of(dtype: str) -> int:
    """Bytes of one element in memory; truth values take a byte."""
    return SIZES.get(dtype) or int(dtype.lstrip("uint")) // 8


def literal(value: Any, dtype: str) -> str:
    """A constant as LLVM writes it: floating ones by their bits."""
    if dtype == "bool":
        return "true" if value else "false"
    if dtype.startswith("float"):
        return f"0x{struct.unpack('<Q', struct.pack('<d', float(value)))[0]:016X}"
    return str(int(value))


@dataclass
class Code:
    """Lines of one function, and names for what they compute."""

    lanes: int
    lines: list[str] = field(default_factory=list)
    helpers: set[tuple[str, str]] = field(default_factory=set)
    tables: dict[str, str] = field(default_factory=dict)  # arrays of the module, by their text, and their names
    count: int = 0
    active: str = "%active"  # the lanes whose loops have to end

    @contextlib.contextmanager
    def running(self, mask: str) -> Generator[None]:
        """Inside a loop that only these lanes are still in."""
        before, self.active = self.active, mask
        yield
        self.active = before

    def name(self, stem: str = "v") -> str:
        self.count += 1
        return f"%{stem}{self.count}"

    def put(self, line: str) -> None:
        self.lines.append("  " + line)

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def label_now(self) -> str:
        """The block that is being written."""
        return next(line[:-1] for line in reversed(self.lines) if line.endswith(":"))

    def goes_on(self, mask: str) -> str:
        """A loop's condition for the lanes whose trials are running, as long as nobody stops the run."""
        stop = self.let("load volatile i8, ptr %stop")
        go = self.let(f"insertelement <{self.lanes} x i1> poison, i1 {self.let(f'icmp eq i8 {stop}, 0')}, i64 0")
        kind = f"<{self.lanes} x i1>"
        go = self.let(f"shufflevector {kind} {go}, {kind} poison, <{self.lanes} x i32> zeroinitializer")
        return self.let(f"and {kind} {go}, {self.let(f'and {kind} {mask}, {self.active}')}")

    def let(self, expression: str, stem: str = "v") -> str:
        name = self.name(stem)
        self.put(f"{name} = {expression}")
        return name

    def vector(self, dtype: str) -> str:
        return f"<{self.lanes} x {scalar_type(dtype)}>"

    def splat(self, value: Any, dtype: str) -> str:
        return f"splat ({scalar_type(dtype)} {literal(value, dtype)})"

    def address(self, base: str, offset: int | str, kind: str = "i8") -> str:
        return self.let(f"getelementptr {kind}, ptr {base}, i64 {offset}", "a")

    def load(self, dtype: str, address: str) -> str:
        """A vector from memory (truth values are bytes there)."""
        size = size_of(dtype) * self.lanes
        if dtype == "bool":
            raw = self.let(f"load <{self.lanes} x i8>, ptr {address}, align {min(64, size)}")
            return self.let(f"icmp ne <{self.lanes} x i8> {raw}, zeroinitializer")
        return self.let(f"load {self.vector(dtype)}, ptr {address}, align {min(64, size)}")

    def load_spread(self, dtype: str, address: str) -> str:
        """One number from memory, in every lane."""
        kind = scalar_type(dtype)
        one = self.let(f"load {kind}, ptr {address}, align {size_of(dtype)}")
        first = self.let(f"insertelement {self.vector(dtype)} poison, {kind} {one}, i64 0")
        zeros = f"<{self.lanes} x i32> zeroinitializer"
        return self.let(f"shufflevector {self.vector(dtype)} {first}, {self.vector(dtype)} poison, {zeros}")

    def table(self, numbers: Sequence[Any], dtype: str) -> str:
        """The address of an array of the module with these numbers, one of each."""
        kind = scalar_type(dtype)
        listed = ", ".join(f"{kind} {literal(number, dtype)}" for number in numbers)
        text = f"internal unnamed_addr constant [{len(numbers)} x {kind}] [{listed}], align 64"
        return self.tables.setdefault(text, f"@table{len(self.tables)}")

    def store(self, dtype: str, value: str, address: str) -> None:
        size = size_of(dtype) * self.lanes
        kind = self.vector(dtype)
        if dtype == "bool":
            value, kind = (
                self.let(f"zext <{self.lanes} x i1> {value} to <{self.lanes} x i8>"),
                f"<{self.lanes} x i8>",
            )
        self.put(f"store {kind} {value}, ptr {address}, align {min(64, size)}")

    def any(self, mask: str) -> str:
        bits = self.let(f"bitcast <{self.lanes} x i1> {mask} to i{self.lanes}")
        return self.let(f"icmp ne i{self.lanes} {bits}, 0")

    def call(self, function: str, dtype: str, *arguments: str) -> str:
        """A mathematical function of this module, one vector in, one out."""
        self.helpers.add((function, dtype))
        kind = self.vector(dtype)
        listed = ", ".join(f"{kind} {argument}" for argument in arguments)
        return self.let(f"call {kind} @{mathematics.symbol(function, dtype, self.lanes)}({listed})")


def emit(code: Code, graph: Graph, outputs: Sequence[int], inputs: Callable[[Any], str]) -> list[str]:
    """Write the code of `outputs`; `inputs` gives the value of an input's name. Returns the outputs' values."""
    nodes, order = graph.contracted(outputs)
    values: dict[int, str] = {}
    looped: dict[int, list[str]] = {}
    for place in order:
        node = nodes[place]
        if node.op == "constant":
            values[place] = code.splat(node.value, node.dtype)
        elif node.op == "input":
            values[place] = inputs(node.value)
        elif node.op == "loop":
            looped[place] = _emit_loop(code, node, [values[arg] for arg in node.args])
        elif node.op == "result":
            values[place] = looped[node.args[0]][node.value]
        else:
            types = [graph.nodes[arg].dtype for arg in node.args]
            values[place] = operation(code, node, [values[arg] for arg in node.args], types)
    return [values[place] for place in outputs]


def _emit_loop(code: Code, node: Node, arguments: Sequence[str]) -> list[str]:
    """The carried values after the loop: it ends with the last lane, whose trial is running; see `Module.guards`."""
    what = node.value
    start, outer = arguments[: len(what.new)], arguments[len(what.new) :]
    carried = [code.name("c") for _ in start]
    inputs = {("carried", k): value for k, value in enumerate(carried)}
    inputs |= {("outer", k): value for k, value in enumerate(outer)}
    kinds = [code.vector(what.graph.nodes[place].dtype) for place in what.new]
    before, number = code.label_now(), code.count
    code.put(f"br label %while{number}")
    code.label(f"while{number}")
    at = len(code.lines)
    (goes_on,) = emit(code, what.graph, [what.go_on], inputs.__getitem__)
    goes_on = code.goes_on(goes_on)
    code.put(f"br i1 {code.any(goes_on)}, label %again{number}, label %ended{number}")
    code.label(f"again{number}")
    with code.running(goes_on):
        new = emit(code, what.graph, what.new, inputs.__getitem__)
    kept = [code.let(f"select <{code.lanes} x i1> {goes_on}, {kind} {value}, {kind} {old}")
            for kind, value, old in zip(kinds, new, carried, strict=True)]  # fmt: skip
    back = code.label_now()
    code.put(f"br label %while{number}")
    code.lines[at:at] = [f"  {name} = phi {kind} [ {first}, %{before} ], [ {value}, %{back} ]"
                         for name, kind, first, value in zip(carried, kinds, start, kept, strict=True)]  # fmt: skip
    code.label(f"ended{number}")
    return carried


_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv", "rem": "frem"}
_INTEGER = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_INTRINSICS = {
    "sqrt": "sqrt", "abs": "fabs", "floor": "floor", "ceil": "ceil", "round_even": "roundeven", "round_away": "round",
}  # fmt: skip
_COMPARE = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}


def operation(code: Code, node: Node, arguments: Sequence[str], types: Sequence[str]) -> str:
    """The code of one operation on vectors; `types` are the arguments' types."""
    op, dtype = node.op, types[-1]
    if op == "select":
        which, no, yes = arguments
        kind = code.vector(node.dtype)
        return code.let(f"select <{code.lanes} x i1> {which}, {kind} {yes}, {kind} {no}")
    if op == "bitcast":
        return code.let(f"bitcast {code.vector(types[0])} {arguments[0]} to {code.vector(node.dtype)}")
    if op == "convert":
        return _convert(code, arguments[0], types[0], node.dtype)
    if op in _COMPARE:
        return _compare(code, op, arguments, dtype)
    if dtype.startswith("float"):
        return _floating(code, op, arguments, dtype)
    return _whole(code, op, arguments, dtype)


def _floating(code: Code, op: str, arguments: Sequence[str], dtype: str) -> str:
    kind, x = code.vector(dtype), arguments[0]
    suffix = f"v{code.lanes}f{dtype[5:]}"
    if op in _FLOAT:
        return code.let(f"{_FLOAT[op]} {kind} {x}, {arguments[1]}")
    if op == "neg":
        return code.let(f"fneg {kind} {x}")
    if op in ("fma", "fms", "fnma"):
        a, b, c = arguments
        if op == "fms":
            c = code.let(f"fneg {kind} {c}")
        if op == "fnma":
            a = code.let(f"fneg {kind} {a}")
        return code.let(f"call {kind} @llvm.fma.{suffix}({kind} {a}, {kind} {b}, {kind} {c})")
    if op in _INTRINSICS:
        return code.let(f"call {kind} @llvm.{_INTRINSICS[op]}.{suffix}({kind} {x})")
    if op in ("max", "min"):  # NaN if either is
        y = arguments[1]
        order = code.let(f"fcmp {'ogt' if op == 'max' else 'olt'} {kind} {x}, {y}")
        larger = code.let(f"select <{code.lanes} x i1> {order}, {kind} {x}, {kind} {y}")
        unordered = code.let(f"fcmp uno {kind} {x}, {x}")
        return code.let(f"select <{code.lanes} x i1> {unordered}, {kind} {x}, {kind} {larger}")
    if op == "is_finite":
        size = code.let(f"call {kind} @llvm.fabs.{suffix}({kind} {x})")
        return code.let(f"fcmp one {kind} {size}, {code.splat(float('inf'), dtype)}")
    if op in mathematics.FUNCTIONS:
        return code.call(op, dtype, *arguments)
    raise Unsupported(f"{op} of {dtype}")


def _whole(code: Code, op: str, arguments: Sequence[str], dtype: str) -> str:
    kind, x = code.vector(dtype), arguments[0]
    unsigned = dtype.startswith("u") or dtype == "bool"
    if op in _INTEGER:
        return code.let(f"{_INTEGER[op]} {kind} {x}, {arguments[1]}")
    if op == "not":
        ones = code.splat(True, dtype) if dtype == "bool" else code.splat(-1, dtype)
        return code.let(f"xor {kind} {x}, {ones}")
    if op == "neg":
        return code.let(f"sub {kind} zeroinitializer, {x}")
    if op in ("max", "min"):
        order = code.let(f"icmp {'u' if unsigned else 's'}{'gt' if op == 'max' else 'lt'} {kind} {x}, {arguments[1]}")
        return code.let(f"select <{code.lanes} x i1> {order}, {kind} {x}, {kind} {arguments[1]}")
    if op == "abs":
        negative = code.let(f"icmp slt {kind} {x}, zeroinitializer")
        minus = code.let(f"sub {kind} zeroinitializer, {x}")
        return code.let(f"select <{code.lanes} x i1> {negative}, {kind} {minus}, {kind} {x}")
    if op == "population_count":
        kinds = f"v{code.lanes}{scalar_type(dtype)}"
        return code.let(f"call {kind} @llvm.ctpop.{kinds}({kind} {x})")
    if op in ("div", "rem"):
        return _divided(code, op, x, arguments[1], dtype)
    if op in _SHIFTS:
        return _shifted(code, op, x, arguments[1], dtype)
    raise Unsupported(f"{op} of {dtype}")


def _divided(code: Code, op: str, x: str, y: str, dtype: str) -> str:
    """XLA's division of whole numbers, which never traps: x/0 is −1 (all bits set), its rest x; −2ⁿ/−1 is −2ⁿ."""
    kind, mask, unsigned = code.vector(dtype), code.vector("bool"), dtype.startswith("u")
    by_zero = bad = code.let(f"icmp eq {kind} {y}, zeroinitializer")
    if not unsigned:
        least = code.splat(-(1 << (8 * size_of(dtype) - 1)), dtype)
        minus = code.let(f"icmp eq {kind} {y}, {code.splat(-1, dtype)}")
        over = code.let(f"and {mask} {minus}, {code.let(f'icmp eq {kind} {x}, {least}')}")
        bad = code.let(f"or {mask} {by_zero}, {over}")
    safe = code.let(f"select {mask} {bad}, {kind} {code.splat(1, dtype)}, {kind} {y}")
    result = code.let(f"{'u' if unsigned else 's'}{op} {kind} {x}, {safe}")
    instead = code.splat(-1, dtype) if op == "div" else x
    return code.let(f"select {mask} {by_zero}, {kind} {instead}, {kind} {result}")


_SHIFTS = {"shift_left": "shl", "shift_right_logical": "lshr", "shift_right_arithmetic": "ashr"}


def _shifted(code: Code, op: str, x: str, y: str, dtype: str) -> str:
    """XLA's shifts: all bits leave where they are shifted by more than there are."""
    kind, mask, bits = code.vector(dtype), code.vector("bool"), 8 * size_of(dtype)
    if any(y == code.splat(by, dtype) for by in range(bits)):
        return code.let(f"{_SHIFTS[op]} {kind} {x}, {y}")
    inside = code.let(f"icmp ult {kind} {y}, {code.splat(bits, dtype)}")
    sign = op == "shift_right_arithmetic"
    by = code.let(f"select {mask} {inside}, {kind} {y}, {kind} {code.splat(bits - 1 if sign else 0, dtype)}")
    result = code.let(f"{_SHIFTS[op]} {kind} {x}, {by}")
    return result if sign else code.let(f"select {mask} {inside}, {kind} {result}, {kind} zeroinitializer")


def _compare(code: Code, op: str, arguments: Sequence[str], dtype: str) -> str:
    kind = code.vector(dtype)
    if dtype.startswith("float"):
        return code.let(f"fcmp {_COMPARE[op]} {kind} {arguments[0]}, {arguments[1]}")
    sign = "" if op in ("eq", "ne") else "u" if dtype.startswith("u") or dtype == "bool" else "s"
    return code.let(f"icmp {sign}{op} {kind} {arguments[0]}, {arguments[1]}")


def _convert(code: Code, x: str, old: str, new: str) -> str:
    if old == new:
        return x
    was, will = code.vector(old), code.vector(new)
    floats = old.startswith("float"), new.startswith("float")
    if new == "bool":
        test = f"fcmp une {was}" if floats[0] else f"icmp ne {was}"
        return code.let(f"{test} {x}, zeroinitializer")
    unsigned = old.startswith("u") or old == "bool"
    if floats == (True, True):
        return code.let(f"{'fpext' if size_of(new) > size_of(old) else 'fptrunc'} {was} {x} to {will}")
    if floats == (False, True):
        return code.let(f"{'u' if unsigned else 's'}itofp {was} {x} to {will}")
    if floats == (True, False):
        kind = f"fpto{'u' if new.startswith('u') else 's'}i.sat"
        suffix = f"v{code.lanes}{scalar_type(new)}.v{code.lanes}f{old[5:]}"
        return code.let(f"call {will} @llvm.{kind}.{suffix}({was} {x})")
    if scalar_type(old) == scalar_type(new):
        return x
    wider = old == "bool" or size_of(new) > size_of(old)
    return code.let(f"{('zext' if unsigned else 'sext') if wider else 'trunc'} {was} {x} to {will}")
