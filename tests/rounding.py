"""What rounding decides: a function evaluated operation by operation, each of its results off by a rounding."""

from typing import Any

import jax
import jax.numpy as jnp

# These give a number that was there before, or a whole one, and round nothing.
EXACT = {
    "abs", "argsort", "broadcast_in_dim", "ceil", "clamp", "concatenate", "convert_element_type", "copy", "copy_p",
    "copysign", "dynamic_slice", "dynamic_update_slice", "expand_dims", "floor", "gather", "iota", "max", "min", "neg",
    "pad", "reduce_max", "reduce_min", "reshape", "rev", "round", "scatter", "select_n", "sign", "slice", "sort",
    "split", "squeeze", "stop_gradient", "transpose",
}  # fmt: skip
INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def evaluated(function: Any, off: Any, *arguments: Any) -> Any:
    """function(*arguments), with `off` done to every floating result of an operation that rounds; of one trial."""
    jaxpr, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
    flat = _run(jaxpr.jaxpr, jaxpr.consts, jax.tree.leaves(arguments), off)
    return jax.tree.unflatten(jax.tree.structure(shape), flat)


def _closed(part: Any, values: list[Any], off: Any) -> list[Any]:
    return _run(getattr(part, "jaxpr", part), getattr(part, "consts", ()), values, off)


def _run(jaxpr: Any, constants: Any, arguments: list[Any], off: Any) -> list[Any]:
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))
    for equation in jaxpr.eqns:
        values = [known[var] if type(var).__name__ != "Literal" else var.val for var in equation.invars]
        known |= zip(equation.outvars, _results(equation, values, off), strict=True)
    return [known[var] if type(var).__name__ != "Literal" else var.val for var in jaxpr.outvars]


def _results(equation: Any, values: list[Any], off: Any) -> list[Any]:
    name, told = equation.primitive.name, equation.params
    if name == "cond":
        return _closed(told["branches"][int(values[0])], values[1:], off)
    if name == "while":
        first, second = told["cond_nconsts"], told["cond_nconsts"] + told["body_nconsts"]
        carry = values[second:]
        while _closed(told["cond_jaxpr"], [*values[:first], *carry], off)[0]:
            carry = _closed(told["body_jaxpr"], [*values[first:second], *carry], off)
        return carry
    if name == "scan":
        return _scanned(told, values, off)
    inner = next(
        (told[key] for key in INNER if hasattr(told.get(key), "eqns") or hasattr(told.get(key), "jaxpr")), None
    )
    if inner is not None:
        return _closed(inner, values, off)
    results = equation.primitive.bind(*values, **equation.primitive.get_bind_params(told))
    results = list(results) if equation.primitive.multiple_results else [results]
    rounds = name not in EXACT
    return [off(value) if rounds and jnp.issubdtype(value.dtype, jnp.inexact) else value for value in results]


def _scanned(told: Any, values: list[Any], off: Any) -> list[Any]:
    begin, end = told["num_consts"], told["num_consts"] + told["num_carry"]
    constants, carry, rows = values[:begin], values[begin:end], values[end:]
    order, found = range(told["length"]), {}
    for k in reversed(order) if told["reverse"] else order:
        out = _closed(told["jaxpr"], [*constants, *carry, *(row[k] for row in rows)], off)
        carry, found[k] = out[: told["num_carry"]], out[told["num_carry"] :]
    kept = [jnp.stack(column) for column in zip(*(found[k] for k in order), strict=True)]
    return [*carry, *kept]
