"""Functions whose XLA programs are kept on disk: a process's first call need not wait for XLA to compile them again.

A program is known by its text, so that a changed formula is another program; tracing is what is still to be done.
"""

import hashlib
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
import numpy as np
from jax.experimental import serialize_executable

from ..arrays import is_traced
from ..caching import cache_folder, processor, read_whole, write_whole
from .base import in_jax_dtype, tracing

_living: "weakref.WeakSet[Kept]" = weakref.WeakSet()


def forget() -> None:
    """Let go of the programs of this process: each maps hundreds of pieces of memory."""
    for each in list(_living):
        each.forget()


class Kept:
    """`jax.jit` of a function of arrays alone, for CPUs.

    Where JAX keeps programs itself, where arguments are traced and on other devices it is `jax.jit`.
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = jax.jit(function)
        self._ready: dict[Any, tuple[Any, Any]] = {}
        _living.add(self)

    def __call__(self, *arguments: Any) -> Any:
        if is_traced(arguments) or not _applies():
            return self._function(*arguments)
        leaves, structure = jax.tree.flatten(jax.tree.map(in_jax_dtype, arguments))
        key = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves), tracing())
        if key not in self._ready:
            self._ready[key] = self._compiled(leaves, structure)
        run, result = self._ready[key]
        return jax.tree.unflatten(result, run(*leaves))

    def forget(self) -> None:
        self._ready.clear()

    def _compiled(self, leaves: list[np.ndarray], structure: Any) -> tuple[Any, Any]:
        """The program for arguments like these, of the leaves alone, and the structure of what it gives."""
        results: list[Any] = []

        def flat(*leaves: Any) -> list[Any]:
            values, result = jax.tree.flatten(self._function(*jax.tree.unflatten(structure, leaves)))
            results.append(result)
            return values

        lowered = jax.jit(flat).lower(*leaves)
        path = _path(lowered.as_text())
        loaded = _load(path, leaves, results[-1].num_leaves)
        if loaded is None:
            loaded = lowered.compile()
            _save(path, loaded)
        return loaded, results[-1]


def _applies() -> bool:
    config = jax.config
    other = ("jax_compilation_cache_dir", "jax_default_device", "jax_debug_nans", "jax_debug_infs", "jax_disable_jit")
    if not config.jax_enable_compilation_cache or any(getattr(config, name) for name in other):  # pyright: ignore[reportAttributeAccessIssue]
        return False
    return jax.default_backend() == "cpu"


def _path(text: str) -> Path | None:
    """Where the program of this text is kept; XLA's code for one processor must not be run on another."""
    folder = cache_folder("programs")
    if folder is None:
        return None
    about = [jax.__version__, jaxlib.version.__version__, processor(), os.environ.get("XLA_FLAGS", ""), text]
    return folder / f"{hashlib.sha256(chr(0).join(about).encode()).hexdigest()}.xla"


def _load(path: Path | None, leaves: list[np.ndarray], n_results: int) -> Any:
    """The program, which has run once: one that lacks a part of itself is loaded all the same."""
    content = read_whole(path)
    if content is None:
        return None
    taken = jax.tree.structure((tuple(leaves), {}))
    given = jax.tree.structure([0] * n_results)
    first = jax.local_devices(backend="cpu")[:1]
    try:
        loaded = serialize_executable.deserialize_and_load(content, taken, given, "cpu", first)
        jax.block_until_ready(loaded(*leaves))
    except Exception:  # of another build of the same version
        return None
    return loaded


def _save(path: Path | None, compiled: Any) -> None:
    if path is None:
        return
    try:
        content = serialize_executable.serialize(compiled)[0]
    except Exception:  # this one cannot be kept, as where it calls back into Python; it was compiled all the same
        return
    write_whole(path, content, "*.xla")
