"""Argument checks: each raises a ValueError that names the argument, what was expected and what came.

Public functions look at the kinds of their arguments by `checked_arguments`: what is None, a class in place of an
object, or text for a function is refused by name before anything is computed. Free of JAX, so that settings can be
checked before anything heavy is imported.
"""

import collections.abc
import functools
import inspect
import math
import numbers
import os
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints  # pyright: ignore[reportDeprecated]

Function = TypeVar("Function", bound=Callable[..., Any])
_UNIONS = {types.UnionType, Union}  # pyright: ignore[reportDeprecated]  (as get_origin has it)
_LARGEST = 2**31 - 1
_LIBRARIES = {"jaxdyn", "optax", "xarray"}  # whose classes an annotation is taken to mean


def told(value: Any) -> str:
    """A value in one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:79]}…"


def number(
    name: str, value: Any, *, low: float = -math.inf, high: float = math.inf, above: float | None = None
) -> float:
    """A finite real number in [low, high], and > `above` if that is given."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            real = float(value)
        except OverflowError:
            real = math.inf
        if math.isfinite(real) and low <= real <= high and (above is None or real > above):
            return real
    if above is not None:
        want = f"a number > {above:g}" + (f" and <= {high:g}" if high < math.inf else "")
    elif high < math.inf:
        want = f"a number in [{low:g}, {high:g}]"
    else:
        want = f"a number >= {low:g}" if low > -math.inf else "a finite number"
    raise ValueError(f"{name}: expected {want}, got {told(value)}")


def whole_number(name: str, value: Any, *, low: int = 1, high: int | None = None) -> int:
    """An integer in [low, high]; by default as large as a 32-bit integer may be."""
    most = _LARGEST if high is None else high
    too_large = False
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        integer = int(value)
        if low <= integer <= most:
            return integer
        too_large = integer > most
    want = f">= {low}" if high is None and not too_large else f"from {low} to {most}"
    raise ValueError(f"{name}: expected a whole number {want}, got {told(value)}")


def expected(name: str, value: Any, *kinds: type) -> Any:
    """An object of one of these classes, not the class itself."""
    if isinstance(value, kinds):
        return value
    want = " or ".join(kind.__name__ for kind in kinds)
    if isinstance(value, type) and issubclass(value, kinds):
        raise ValueError(f"{name}: expected an object, got the class {value.__name__}; call it with its settings")
    raise ValueError(f"{name}: expected {want}, got {'None' if value is None else type(value).__name__}")


def fits_in_memory(name: str, n_bytes: float) -> None:
    """ValueError for what needs more memory than is free, where the system tells how much that is."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return
    if n_bytes > free:
        raise ValueError(
            f"{name}: about {n_bytes / 1e9:.0f} GB of memory are needed, {free / 1e9:.0f} GB are free; "
            "take fewer, or several runs with seeds of their own"
        )


def yes_or_no(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected True or False, got {told(value)}")
    return value


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """A value out of a list of names."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {told(value)}")
    return value


def checked_arguments(function: Function) -> Function:
    """The function, which refuses arguments that are not of the kinds its annotations say; ValueError.

    RuntimeError in the child of a fork, where it would hang.
    """
    signature = inspect.signature(function)

    @functools.cache
    def kinds() -> dict[str, tuple[Any, ...] | None]:
        hints = get_type_hints(inspect.unwrap(function))
        return {name: _kinds(hints.get(name, Any)) for name in signature.parameters}

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        if os.getpid() != _first_process():
            raise RuntimeError(
                "jaxdyn was used before this process was forked, and JAX's threads do not outlive a fork: every call "
                'would hang; start processes by multiprocessing.get_context("spawn")'
            )
        bound = signature.bind(*arguments, **options)
        for name, value in bound.arguments.items():
            several = signature.parameters[name].kind in (
                inspect.Parameter.VAR_KEYWORD,
                inspect.Parameter.VAR_POSITIONAL,
            )
            if not several:
                _check(name, value, kinds()[name])
        return function(*arguments, **options)

    return wrapped  # type: ignore[return-value]


@functools.cache
def _first_process() -> int:
    """The process that first called a public function."""
    return os.getpid()


def _kinds(hint: Any) -> tuple[Any, ...] | None:
    """What a value may be an instance of (`Callable` for functions), or None where nothing can be said."""
    import numpy as np  # settings are read without it

    origin = get_origin(hint)
    if origin in _UNIONS:
        parts = [_kinds(part) for part in get_args(hint)]
        return None if None in parts else tuple(kind for part in parts if part for kind in part)
    if hint is None or hint is type(None):
        return (type(None),)
    if origin is Literal:
        return (str,)
    if origin is collections.abc.Callable:
        return (Callable,)
    if origin is collections.abc.Sequence:
        return (list, tuple, np.ndarray)
    if origin in {list, tuple, dict, set, os.PathLike}:
        return (origin,)
    if isinstance(hint, TypeVar) and hint.__bound__ is not None:
        return _kinds(hint.__bound__)
    if hint is Path:
        return (str, os.PathLike)
    if hint is bool:
        return (bool, np.bool_)
    if isinstance(hint, type) and origin is None and hint.__module__.partition(".")[0] in _LIBRARIES:
        return (hint,)
    return (str,) if hint is str else None


def _check(name: str, value: Any, kinds: tuple[Any, ...] | None) -> None:
    if isinstance(value, type) and value.__module__.startswith("jaxdyn"):
        raise ValueError(f"{name}: expected an object, got the class {value.__name__}; call it with its settings")
    if kinds is None:
        return
    for kind in kinds:
        if (callable(value) and not isinstance(value, type)) if kind is Callable else isinstance(value, kind):
            return
    raise ValueError(f"{name}: expected {_words(kinds)}, got {'None' if value is None else type(value).__name__}")


def _words(kinds: tuple[Any, ...]) -> str:
    named: dict[Any, str] = {
        Callable: "a function", str: "text", bool: "True or False", type(None): "None", os.PathLike: "a path",
    }  # fmt: skip
    words: list[str] = [
        named.get(kind, getattr(kind, "__name__", str(kind))) for kind in kinds if "numpy" not in str(kind)
    ]
    return " or ".join(dict.fromkeys(words))
