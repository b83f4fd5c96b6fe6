"""What a user's functions compute now: compiled programs are kept by it, beside the functions themselves.

A function may refer to what changes (an object's attribute, a global, an array in its closure), and would be the same
function with another meaning. Tracing it anew costs about a millisecond and shows all that it saw.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..arrays import is_traced
from ..engines.base import constants
from ..schedules import is_scheduled

_ADDRESS = re.compile(r"0x[0-9a-f]+")


def is_own(system: Any) -> bool:
    """Whether this is a system of ours without functions of a user's: its numbers are all there is to it."""
    return type(system).__module__.startswith("jaxdyn.") and not is_scheduled(system)


def fingerprint(*calls: tuple[Callable[..., Any] | None, tuple[Any, ...]]) -> str:
    """Of functions, each with arguments like those it will get; "" where they are traced already, or cannot be."""
    if is_traced([arguments for _, arguments in calls]):
        return ""
    total = hashlib.sha256()
    for function, arguments in calls:
        if function is None:
            continue
        try:
            # A new function each time: JAX keeps what it traced by the function.
            closed = jax.make_jaxpr(lambda *given, call=function: call(*given))(*_shapes(arguments))
            _add(total, closed)
            if "custom_jvp_call" in str(closed):  # a rule of its own for the derivative is not in the text
                _add(total, jax.make_jaxpr(lambda *given, call=function: _pushed(call, given))(*_shapes(arguments)))
        except Exception:  # whatever is wrong with it, the run itself says better
            return ""
    return total.hexdigest()


def _pushed(function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
    """The function's derivative along its own arguments."""
    numbers, rest = eqx.partition(given, eqx.is_inexact_array)
    return jax.jvp(lambda numbers: function(*eqx.combine(numbers, rest)), (numbers,), (numbers,))


def _add(total: Any, closed: Any) -> None:
    total.update(_ADDRESS.sub("", str(closed)).encode())
    for constant in constants(closed):
        array = np.asarray(constant) if not is_traced(constant) else np.zeros(0)
        total.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())


def _shapes(tree: Any) -> Any:
    """Arrays and numbers by shape and dtype, so that their values are no part of it."""

    def shape(leaf: Any) -> Any:
        is_array = isinstance(leaf, np.ndarray | jax.Array | np.generic)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if is_array else leaf

    return jax.tree.map(shape, tree)
