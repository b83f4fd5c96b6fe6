"""Vectors in LLVM code as values with operators: what mathematical functions are written in.

Every operation is one of IEEE's, rounded once; none may be reordered or contracted, so that a function has the same
bits on every processor.
"""

import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

Number: TypeAlias = "float | int | Value"
SIGN = -(2**63)  # the sign's bit

_OPERATIONS = {
    "real": {"+": "fadd", "-": "fsub", "*": "fmul", "/": "fdiv"},
    "whole": {"+": "add", "-": "sub", "&": "and", "|": "or", "^": "xor", "<<": "shl", ">>": "lshr"},
}


def bits_of(value: float) -> int:
    """A number's bits as a whole number."""
    return struct.unpack("<q", struct.pack("<d", value))[0]


def bits_of_single(value: float) -> int:
    """The bits of the number of single precision next to it."""
    return struct.unpack("<i", struct.pack("<f", value))[0]


class Value:
    """A vector by its name in the code: "real" numbers, "whole" ones of as many bits, or a "mask"."""

    def __init__(self, code: "Vectors", name: str, kind: str):
        self.code, self.name, self.kind = code, name, kind

    def _with(self, op: str, other: Number, swapped: bool = False) -> "Value":
        pair = (
            (self.code.text(other, self.kind), self.name) if swapped else (self.name, self.code.text(other, self.kind))
        )
        kind = self.code.kinds[self.kind]
        return self.code.let(f"{_OPERATIONS[self.kind][op]} {kind} {pair[0]}, {pair[1]}", self.kind)

    def __add__(self, other: Number) -> "Value":
        return self._with("+", other)

    def __radd__(self, other: Number) -> "Value":
        return self._with("+", other, True)

    def __sub__(self, other: Number) -> "Value":
        return self._with("-", other)

    def __rsub__(self, other: Number) -> "Value":
        return self._with("-", other, True)

    def __mul__(self, other: Number) -> "Value":
        return self._with("*", other)

    def __truediv__(self, other: Number) -> "Value":
        return self._with("/", other)

    def __rtruediv__(self, other: Number) -> "Value":
        return self._with("/", other, True)

    def __and__(self, other: Number) -> "Value":
        return self._with("&", other)

    def __or__(self, other: Number) -> "Value":
        return self._with("|", other)

    def __xor__(self, other: Number) -> "Value":
        return self._with("^", other)

    def __lshift__(self, other: Number) -> "Value":
        return self._with("<<", other)

    def __rshift__(self, other: Number) -> "Value":
        """Zeros come from the left."""
        return self._with(">>", other)

    def __neg__(self) -> "Value":
        return self.code.let(f"fneg {self.code.kinds['real']} {self.name}", "real")

    def __abs__(self) -> "Value":
        return self.code.call("fabs", self)

    def __lt__(self, other: Number) -> "Value":
        """False where either is no number."""
        return self.code.compare("olt", self, other)

    def __gt__(self, other: Number) -> "Value":
        return self.code.compare("ogt", self, other)

    @property
    def bits(self) -> "Value":
        kinds = self.code.kinds
        return self.code.let(f"bitcast {kinds['real']} {self.name} to {kinds['whole']}", "whole")

    @property
    def real(self) -> "Value":
        """The number that has these bits."""
        kinds = self.code.kinds
        return self.code.let(f"bitcast {kinds['whole']} {self.name} to {kinds['real']}", "real")


class Vectors:
    """The lines of one function over vectors, in double precision or (`bits` 32) in single."""

    def __init__(self, head: str, lanes: int, bits: int = 64):
        self.lines, self.lanes, self.count, self.bits = [head], lanes, 0, bits
        self.scalar = {64: "double", 32: "float"}[bits]
        self.kinds = {"real": f"<{lanes} x {self.scalar}>", "whole": f"<{lanes} x i{bits}>", "mask": f"<{lanes} x i1>"}

    def let(self, expression: str, kind: str) -> Value:
        self.count += 1
        self.lines.append(f"  %t{self.count} = {expression}")
        return Value(self, f"%t{self.count}", kind)

    def text(self, value: Number, kind: str) -> str:
        if isinstance(value, Value):
            return value.name
        if kind == "whole":
            return f"splat (i{self.bits} {int(value)})"
        # LLVM writes both precisions by a double's bits.
        number = float(value) if self.bits == 64 else struct.unpack("<f", struct.pack("<f", value))[0]
        return f"splat ({self.scalar} 0x{bits_of(number) & (2**64 - 1):016X})"

    def call(self, intrinsic: str, *values: Number) -> Value:
        kind = self.kinds["real"]
        listed = ", ".join(f"{kind} {self.text(value, 'real')}" for value in values)
        return self.let(f"call {kind} @llvm.{intrinsic}.v{self.lanes}f{self.bits}({listed})", "real")

    def fma(self, a: Number, b: Number, c: Number) -> Value:
        """a·b + c, rounded once."""
        return self.call("fma", a, b, c)

    def sqrt(self, x: Value) -> Value:
        return self.call("sqrt", x)

    def round(self, x: Value) -> Value:
        """To the nearest whole number, halves to even ones."""
        return self.call("roundeven", x)

    def compare(self, order: str, x: Value, y: Number) -> Value:
        return self.let(f"fcmp {order} {self.kinds['real']} {x.name}, {self.text(y, 'real')}", "mask")

    def equal(self, x: Value, y: Number) -> Value:
        if x.kind == "real":
            return self.compare("oeq", x, y)
        return self.let(f"icmp eq {self.kinds['whole']} {x.name}, {self.text(y, 'whole')}", "mask")

    def where(self, which: Value, yes: Number, no: Number) -> Value:
        kinds = {value.kind for value in (yes, no) if isinstance(value, Value)}
        kind = kinds.pop() if kinds else "real" if isinstance(yes, float) else "whole"
        listed = f"{self.kinds[kind]} {self.text(yes, kind)}, {self.kinds[kind]} {self.text(no, kind)}"
        return self.let(f"select {self.kinds['mask']} {which.name}, {listed}", kind)

    def polynomial(self, coefficients: Sequence[float], x: Value) -> Any:
        """c₀ + c₁ x + …, by Horner's rule."""
        total: Number = coefficients[-1]
        for coefficient in coefficients[-2::-1]:
            total = self.fma(total, x, coefficient)
        return total

    def end(self, value: Value) -> str:
        return "\n".join([*self.lines, f"  ret {self.kinds['real']} {value.name}", "}"])


def signed_as(r: Value, x: Value) -> Value:
    """r, not negative or already of x's sign, with the sign of x."""
    return (r.bits | sign_of(x)).real


def sign_of(x: Value) -> Value:
    """The sign's bit."""
    return x.bits & -(2 ** (x.code.bits - 1))


def at_most(o: Vectors, x: Value, bound: float) -> Value:
    """The smaller of both; what is no number stays."""
    return o.where(x > bound, bound, x)


def at_least(o: Vectors, x: Value, bound: float) -> Value:
    return o.where(x < bound, bound, x)
