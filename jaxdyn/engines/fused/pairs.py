"""Numbers of two parts: complex ones, and random keys. A node of such a type only holds its parts' places.

What is done to one is done to its parts, so no code knows them; they live inside a step and are never in a state.
"""

from collections.abc import Callable, Sequence
from typing import Any

PARTS = {"key": "uint32", "complex64": "float32", "complex128": "float64"}


def is_pair(dtype: str) -> bool:
    return dtype in PARTS


def applied(graph: Any, op: str, args: Sequence[int], dtype: str) -> int | None:
    """op(args), where the result or an argument is a pair; None where there is no such operation."""
    if op == "select":
        which, no, yes = args
        cases = zip(graph.parts(no), graph.parts(yes), strict=True)
        return graph.pair([graph.apply("select", which, *case, dtype=PARTS[dtype]) for case in cases], dtype)
    if op == "convert":
        return _converted(graph, args[0], dtype)
    if op == "complex":
        return graph.pair(args, dtype)
    if not dtype.startswith("complex") and not any(graph.nodes[arg].dtype.startswith("complex") for arg in args):
        return None
    if op == "conj" and not is_pair(graph.nodes[args[0]].dtype):
        args = (_converted(graph, args[0], dtype),)
    kind = next(graph.nodes[arg].dtype for arg in args if is_pair(graph.nodes[arg].dtype))
    function = _FUNCTIONS.get(op)
    if function is None:
        return None
    result = function(_Arithmetic(graph, PARTS[kind]), *(graph.parts(arg) for arg in args))
    return graph.pair(result, kind) if isinstance(result, tuple) else result


def _converted(graph: Any, x: int, dtype: str) -> int:
    old = graph.nodes[x].dtype
    if old == dtype:
        return x
    if not is_pair(dtype):  # of complex numbers the real part; JAX takes it before
        return graph.apply("convert", graph.parts(x)[0], dtype=dtype)
    parts = graph.parts(x) if is_pair(old) else (x, graph.constant(0, PARTS[dtype]))
    return graph.pair([graph.apply("convert", part, dtype=PARTS[dtype]) for part in parts], dtype)


class _Arithmetic:
    """Real operations by name, on places."""

    def __init__(self, graph: Any, dtype: str):
        self.graph, self.dtype = graph, dtype

    def __getattr__(self, op: str) -> Callable[..., int]:
        return lambda *args: self.graph.apply(op.rstrip("_"), *args)

    def number(self, value: float) -> int:
        return self.graph.constant(value, self.dtype)

    def where(self, which: int, yes: int, no: int) -> int:
        return self.graph.apply("select", which, no, yes)


Pair = tuple[int, int]


def _mul(a: Any, x: Pair, y: Pair) -> Pair:
    real = a.sub(a.mul(x[0], y[0]), a.mul(x[1], y[1]))
    return real, a.add(a.mul(x[0], y[1]), a.mul(x[1], y[0]))


def _div(a: Any, x: Pair, y: Pair) -> Pair:
    """By Smith's rule: the divisor's larger part is taken out first, so that no square overflows."""
    wide = a.ge(a.abs(y[0]), a.abs(y[1]))
    large, small = a.where(wide, y[0], y[1]), a.where(wide, y[1], y[0])
    nothing = a.eq(large, a.number(0))  # x / 0 is each part over zero
    ratio = a.where(nothing, a.number(0), a.div(small, large))
    below = a.add(large, a.mul(small, ratio))
    first, second = a.where(wide, x[0], x[1]), a.where(wide, x[1], x[0])
    real = a.div(a.add(first, a.mul(second, ratio)), below)
    imag = a.div(a.sub(second, a.mul(first, ratio)), below)
    return real, a.where(wide, imag, a.neg(imag))


def _abs(a: Any, x: Pair) -> int:
    sizes = a.abs(x[0]), a.abs(x[1])
    large, small = a.max(*sizes), a.min(*sizes)
    plain = a.or_(a.eq(large, a.number(0)), a.eq(large, a.number(float("inf"))))
    ratio = a.div(small, a.where(plain, a.number(1), large))
    root = a.mul(large, a.sqrt(a.add(a.number(1), a.mul(ratio, ratio))))
    return a.where(plain, large, root)


def _exp(a: Any, x: Pair) -> Pair:
    size = a.exp(x[0])
    imag = a.mul(size, a.sin(x[1]))
    return a.mul(size, a.cos(x[1])), a.where(a.eq(x[1], a.number(0)), x[1], imag)


def _log(a: Any, x: Pair) -> Pair:
    """Of the size by its larger part where the size itself would be too large."""
    sizes = a.abs(x[0]), a.abs(x[1])
    large, small = a.max(*sizes), a.min(*sizes)
    far = a.and_(a.gt(large, a.number(1e30)), a.is_finite(large))
    ratio = a.div(small, a.where(far, large, a.number(1)))
    by_parts = a.add(a.log(large), a.mul(a.number(0.5), a.log1p(a.mul(ratio, ratio))))
    return a.where(far, by_parts, a.log(_abs(a, x))), a.atan2(x[1], x[0])


def _sqrt(a: Any, x: Pair) -> Pair:
    """The root with a real part ≥ 0; the part that does not cancel is computed, the other follows from it."""
    zero, two = a.number(0), a.number(2)
    size = _abs(a, x)
    root = a.sqrt(a.mul(a.number(0.5), a.add(size, a.abs(x[0]))))
    other = a.div(a.abs(x[1]), a.mul(two, root))
    nothing, right = a.eq(size, zero), a.ge(x[0], zero)
    real = a.where(nothing, zero, a.where(right, root, other))
    imag = a.where(nothing, zero, a.where(right, other, root))
    return real, a.where(a.lt(x[1], zero), a.neg(imag), imag)


def _power(a: Any, x: Pair, y: Pair) -> Pair:
    result = _exp(a, _mul(a, y, _log(a, x)))
    none, nothing = (a.and_(a.eq(z[0], a.number(0)), a.eq(z[1], a.number(0))) for z in (x, y))
    of_zero = a.where(nothing, a.number(1), a.number(0))  # 0⁰ is one
    return a.where(none, of_zero, result[0]), a.where(none, a.number(0), result[1])


def _times(a: Any, x: int, y: int) -> int:
    """x·y, where zero times infinity is zero: what overflows is multiplied by an exact zero."""
    product = a.mul(x, y)
    nothing = a.or_(a.eq(x, a.number(0)), a.eq(y, a.number(0)))
    return a.where(a.and_(nothing, a.ne(product, product)), a.number(0), product)


def _sin(a: Any, x: Pair) -> Pair:
    return _times(a, a.sin(x[0]), a.cosh(x[1])), _times(a, a.cos(x[0]), a.sinh(x[1]))


def _cos(a: Any, x: Pair) -> Pair:
    return _times(a, a.cos(x[0]), a.cosh(x[1])), a.neg(_times(a, a.sin(x[0]), a.sinh(x[1])))


def _sinh(a: Any, x: Pair) -> Pair:
    return _times(a, a.sinh(x[0]), a.cos(x[1])), _times(a, a.cosh(x[0]), a.sin(x[1]))


def _cosh(a: Any, x: Pair) -> Pair:
    return _times(a, a.cosh(x[0]), a.cos(x[1])), _times(a, a.sinh(x[0]), a.sin(x[1]))


def _tanh(a: Any, x: Pair) -> Pair:
    """With t = tanh of the real part and u = tan of the other: (t + iu) / (1 + itu)."""
    t, u = a.tanh(x[0]), a.tan(x[1])
    return _div(a, (t, u), (a.number(1), a.mul(t, u)))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": lambda a, x, y: (a.add(x[0], y[0]), a.add(x[1], y[1])),
    "sub": lambda a, x, y: (a.sub(x[0], y[0]), a.sub(x[1], y[1])),
    "neg": lambda a, x: (a.neg(x[0]), a.neg(x[1])),
    "conj": lambda a, x: (x[0], a.neg(x[1])),
    "real": lambda a, x: x[0],
    "imag": lambda a, x: x[1],
    "eq": lambda a, x, y: a.and_(a.eq(x[0], y[0]), a.eq(x[1], y[1])),
    "ne": lambda a, x, y: a.or_(a.ne(x[0], y[0]), a.ne(x[1], y[1])),
    "is_finite": lambda a, x: a.and_(a.is_finite(x[0]), a.is_finite(x[1])),
    "mul": _mul, "div": _div, "abs": _abs, "exp": _exp, "log": _log, "sqrt": _sqrt, "pow": _power,
    "sin": _sin, "cos": _cos, "sinh": _sinh, "cosh": _cosh, "tanh": _tanh,
}  # fmt: skip
