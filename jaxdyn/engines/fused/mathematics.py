"""Mathematical functions of vectors, as LLVM functions.

`exp` and `log` are vector code (an error below one unit in the last place, tested); the others call the C library
lane by lane.
"""

import math
import struct
from collections.abc import Iterable

LIBRARY = {
    "exp2": "exp2", "log1p": "log1p", "expm1": "expm1", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "asin",
    "acos": "acos", "atan": "atan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "asinh": "asinh",
    "acosh": "acosh", "atanh": "atanh", "cbrt": "cbrt", "erf": "erf", "erfc": "erfc", "lgamma": "lgamma",
    "pow": "pow", "atan2": "atan2",
}  # fmt: skip
FUNCTIONS = {"exp", "log", *LIBRARY}
_TWO = {"pow", "atan2"}


def symbol(function: str, dtype: str, lanes: int) -> str:
    return f"jaxdyn.{function}.f{dtype[5:]}.{lanes}"


def definitions(helpers: Iterable[tuple[str, str]], lanes: int) -> list[str]:
    """The text of the functions a module uses, and of what they use."""
    wanted = set(helpers)
    for function, dtype in list(wanted):
        if dtype == "float32" and function in ("exp", "log"):
            wanted.add((function, "float64"))
    text = []
    for function, dtype in sorted(wanted):
        if function in LIBRARY:
            text.append(_library(function, dtype, lanes))
        elif dtype == "float32":
            text.append(_by_double(function, lanes))
        else:
            text.append(_exp(lanes) if function == "exp" else _log(lanes))
    names = sorted({LIBRARY[function] for function, _ in wanted if function in LIBRARY})
    text += [f"declare double @{name}({'double, double' if name in _TWO else 'double'})" for name in names]
    return text


def _head(function: str, dtype: str, lanes: int) -> str:
    kind = f"<{lanes} x {'double' if dtype == 'float64' else 'float'}>"
    arguments = f"{kind} %x, {kind} %y" if function in _TWO else f"{kind} %x"
    # A call of the library in each lane is long: it is not written out wherever it is used.
    attributes = "#1" if function in LIBRARY else "#0"
    return f"define internal {kind} @{symbol(function, dtype, lanes)}({arguments}) {attributes} {{"


def _library(function: str, dtype: str, lanes: int) -> str:
    """One call a lane, in double precision."""
    kind = f"<{lanes} x {'double' if dtype == 'float64' else 'float'}>"
    scalar = "double" if dtype == "float64" else "float"
    lines, result = [_head(function, dtype, lanes)], "poison"
    for lane in range(lanes):
        listed = []
        for name in "xy" if function in _TWO else "x":
            lines.append(f"  %{name}.{lane} = extractelement {kind} %{name}, i32 {lane}")
            if scalar == "float":
                lines.append(f"  %{name}d.{lane} = fpext float %{name}.{lane} to double")
            listed.append(f"double %{name}{'d' if scalar == 'float' else ''}.{lane}")
        lines.append(f"  %r.{lane} = call double @{LIBRARY[function]}({', '.join(listed)})")
        value = f"%r.{lane}"
        if scalar == "float":
            lines.append(f"  %s.{lane} = fptrunc double %r.{lane} to float")
            value = f"%s.{lane}"
        lines.append(f"  %o.{lane} = insertelement {kind} {result}, {scalar} {value}, i32 {lane}")
        result = f"%o.{lane}"
    return "\n".join([*lines, f"  ret {kind} {result}", "}"])


def _by_double(function: str, lanes: int) -> str:
    wide, narrow = f"<{lanes} x double>", f"<{lanes} x float>"
    return "\n".join([
        _head(function, "float32", lanes),
        f"  %d = fpext {narrow} %x to {wide}",
        f"  %r = call {wide} @{symbol(function, 'float64', lanes)}({wide} %d)",
        f"  %s = fptrunc {wide} %r to {narrow}",
        f"  ret {narrow} %s",
        "}",
    ])  # fmt: skip


def _bits(value: float) -> str:
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


class _Lines:
    """A few lines of vector code in double precision."""

    def __init__(self, function: str, lanes: int):
        self.lines, self.lanes, self.count = [_head(function, "float64", lanes)], lanes, 0
        self.real, self.whole, self.mask = (f"<{lanes} x {kind}>" for kind in ("double", "i64", "i1"))

    def let(self, expression: str) -> str:
        self.count += 1
        self.lines.append(f"  %t{self.count} = {expression}")
        return f"%t{self.count}"

    def number(self, value: float) -> str:
        return f"splat (double {_bits(value)})"

    def integer(self, value: int) -> str:
        return f"splat (i64 {value})"

    def fma(self, a: str, b: str, c: str) -> str:
        return self.let(
            f"call {self.real} @llvm.fma.v{self.lanes}f64({self.real} {a}, {self.real} {b}, {self.real} {c})"
        )

    def op(self, op: str, a: str, b: str) -> str:
        return self.let(f"{op} {self.whole if op in _WHOLE else self.real} {a}, {b}")

    def select(self, which: str, yes: str, no: str) -> str:
        return self.let(f"select {self.mask} {which}, {self.real} {yes}, {self.real} {no}")

    def cast(self, value: str, to_whole: bool) -> str:
        was, will = (self.real, self.whole) if to_whole else (self.whole, self.real)
        return self.let(f"bitcast {was} {value} to {will}")

    def polynomial(self, x: str, coefficients: list[float]) -> str:
        """Horner's rule; the highest coefficient first."""
        total = self.number(coefficients[0])
        for coefficient in coefficients[1:]:
            total = self.fma(total, x, self.number(coefficient))
        return total

    def end(self, value: str) -> str:
        return "\n".join([*self.lines, f"  ret {self.real} {value}", "}"])


_WHOLE = {"add", "sub", "shl", "ashr", "lshr", "and"}
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # their sum is ln 2; the first is short
_MAGIC = 1.5 * 2.0**52  # adding it leaves a whole number in the low bits


def _exp(lanes: int) -> str:
    """2^k e^r with |r| ≤ ln 2 / 2, e^r by its Taylor polynomial of degree 13."""
    code = _Lines("exp", lanes)
    # Beyond these bounds the result is infinite or zero; a NaN stays one.
    low = code.let(f"fcmp olt {code.real} %x, {code.number(-746.0)}")
    x = code.select(low, code.number(-746.0), "%x")
    high = code.let(f"fcmp ogt {code.real} {x}, {code.number(710.0)}")
    x = code.select(high, code.number(710.0), x)
    shifted = code.fma(x, code.number(1 / math.log(2)), code.number(_MAGIC))
    k = code.op("fsub", shifted, code.number(_MAGIC))
    r = code.fma(k, code.number(-_LN2_HIGH), x)
    r = code.fma(k, code.number(-_LN2_LOW), r)
    tail = code.polynomial(r, [1 / math.factorial(n) for n in range(13, 1, -1)])
    square = code.op("fmul", r, r)
    value = code.op("fadd", code.fma(tail, square, r), code.number(1.0))
    whole = code.op("sub", code.cast(shifted, True), code.cast(code.number(_MAGIC), True))
    half = code.op("ashr", whole, code.integer(1))
    # Two factors, so that results near the ends of the range are scaled right.
    for part in (half, code.op("sub", whole, half)):
        scale = code.cast(code.op("shl", code.op("add", part, code.integer(1023)), code.integer(52)), False)
        value = code.op("fmul", value, scale)
    return code.end(value)


def _log(lanes: int) -> str:
    """ln x = k ln 2 + ln(1 + f) with 1 + f in [√½, √2]; ln(1 + f) from the series of artanh(f / (2 + f))."""
    code = _Lines("log", lanes)
    tiny = code.let(f"fcmp olt {code.real} %x, {code.number(2.0**-1022)}")
    scaled = code.op("fmul", "%x", code.number(2.0**54))
    bits = code.cast(code.select(tiny, scaled, "%x"), True)
    root_half = struct.unpack("<q", struct.pack("<d", math.sqrt(0.5)))[0]
    power = code.op("ashr", code.op("sub", bits, code.integer(root_half)), code.integer(52))
    mantissa = code.cast(code.op("sub", bits, code.op("shl", power, code.integer(52))), False)
    k = code.let(f"sitofp {code.whole} {power} to {code.real}")
    k = code.op("fsub", k, code.select(tiny, code.number(54.0), code.number(0.0)))
    f = code.op("fsub", mantissa, code.number(1.0))
    s = code.op("fdiv", f, code.op("fadd", f, code.number(2.0)))
    z = code.op("fmul", s, s)
    series = code.op("fmul", code.polynomial(z, [2 / (2 * n + 1) for n in range(12, 0, -1)]), z)
    half = code.op("fmul", code.op("fmul", f, f), code.number(0.5))
    # ln(1 + f) = f − (f²/2 − s (f²/2 + series)), the small terms first.
    correction = code.fma(s, code.op("fadd", half, series), code.op("fmul", k, code.number(_LN2_LOW)))
    inner = code.op("fsub", code.op("fsub", half, correction), f)
    value = code.let(f"fneg {code.real} {code.fma(k, code.number(-_LN2_HIGH), inner)}")
    infinite = code.let(f"fcmp oeq {code.real} %x, {code.number(math.inf)}")
    value = code.select(infinite, code.number(math.inf), value)
    zero = code.let(f"fcmp oeq {code.real} %x, {code.number(0.0)}")
    value = code.select(zero, code.number(-math.inf), value)
    bad = code.let(f"fcmp ult {code.real} %x, {code.number(0.0)}")
    return code.end(code.select(bad, code.number(math.nan), value))
