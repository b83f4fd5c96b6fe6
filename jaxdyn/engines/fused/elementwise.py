"""Elementwise primitives as scalar expressions."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .expressions import Graph
from .pairs import is_pair

Places = np.ndarray  # of integers: an array whose elements are nodes

# Primitives that are one operation, by name.
SAME = {
    "add": "add", "add_any": "add", "sub": "sub", "mul": "mul", "div": "div", "neg": "neg", "max": "max", "min": "min",
    "abs": "abs", "sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "eq": "eq", "ne": "ne", "lt": "lt", "le": "le",
    "gt": "gt", "ge": "ge", "and": "and", "or": "or", "xor": "xor", "not": "not", "is_finite": "is_finite",
    "rem": "rem", "pow": "pow", "atan2": "atan2", "exp": "exp", "exp2": "exp2", "log": "log", "log1p": "log1p",
    "expm1": "expm1", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "asin", "acos": "acos", "atan": "atan",
    "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "asinh": "asinh", "acosh": "acosh", "atanh": "atanh",
    "cbrt": "cbrt", "erf": "erf", "erfc": "erfc", "lgamma": "lgamma", "stop_gradient": "copy", "copy": "copy",
    "copy_p": "copy", "shift_left": "shift_left", "shift_right_logical": "shift_right_logical",
    "shift_right_arithmetic": "shift_right_arithmetic", "complex": "complex", "real": "real", "imag": "imag",
    "conj": "conj", "population_count": "population_count",
}  # fmt: skip
ELEMENTWISE = set(SAME) | {
    "integer_pow", "square", "rsqrt", "logistic", "sign", "round", "select_n", "clamp", "convert_element_type",
}  # fmt: skip


def elementwise(graph: Graph, name: str, params: Any, arguments: Sequence[Places], dtype: str) -> Places:
    """The rule of an elementwise primitive, applied to each element; scalars are broadcast."""
    arrays = np.broadcast_arrays(*arguments)
    flat = zip(*(array.ravel().tolist() for array in arrays), strict=True)
    places = [_one(graph, name, params, dtype, *each) for each in flat]
    return np.array(places, np.int64).reshape(arrays[0].shape)


def _one(graph: Graph, name: str, params: Any, dtype: str, x: int, *rest: int) -> int:
    apply = graph.apply
    if name in SAME:
        op = SAME[name]
        if name == "pow":  # the exponent may be a whole number
            rest = tuple(apply("convert", each, dtype=dtype) for each in rest)
        return x if op == "copy" else apply(op, x, *rest, dtype=dtype)
    if name == "convert_element_type":
        return apply("convert", x, dtype=dtype)
    if name in ("integer_pow", "square"):
        return _power(graph, x, params.get("y", 2), dtype)
    if name in ("rsqrt", "logistic"):
        one = graph.constant(1, dtype)
        below = apply("sqrt", x) if name == "rsqrt" else apply("add", one, apply("exp", apply("neg", x)))
        return apply("div", one, below)
    if name == "sign" and not is_pair(dtype):
        zero, one = graph.constant(0, dtype), graph.constant(1, dtype)
        minus = one if dtype.startswith("u") else graph.constant(-1, dtype)
        negative = apply("select", apply("lt", x, zero), x, minus, dtype=dtype)
        return apply("select", apply("gt", x, zero), negative, one, dtype=dtype)
    if name == "round":
        to_even = int(params["rounding_method"]) == 1
        return apply("round_even" if to_even else "round_away", x)
    if name == "clamp":
        value, high = rest
        return apply("min", apply("max", x, value), high)
    if name != "select_n":
        return graph.unsupported(f"{name} of {dtype}", dtype)
    return _select(graph, x, rest, dtype)


def _select(graph: Graph, which: int, cases: Sequence[int], dtype: str) -> int:
    if len(cases) == 2 and graph.nodes[which].dtype == "bool":
        return graph.apply("select", which, *cases, dtype=dtype)
    chosen = cases[0]
    for k, case in enumerate(cases[1:], 1):
        index = graph.constant(k, graph.nodes[which].dtype)
        chosen = graph.apply("select", graph.apply("eq", which, index), chosen, case, dtype=dtype)
    return chosen


def _power(graph: Graph, x: int, exponent: int, dtype: str) -> int:
    """x to a whole power by repeated squaring."""
    result, square, left = None, x, abs(exponent)
    while left:
        if left & 1:
            result = square if result is None else graph.apply("mul", result, square)
        left >>= 1
        if left:
            square = graph.apply("mul", square, square)
    result = graph.constant(1, dtype) if result is None else result
    return graph.apply("div", graph.constant(1, dtype), result) if exponent < 0 else result


def tree(graph: Graph, op: str, places: Sequence[int]) -> int:
    """op over the places by pairs: short chains, small rounding errors."""
    level = list(places)
    while len(level) > 1:
        pairs = [graph.apply(op, a, b) for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0]
