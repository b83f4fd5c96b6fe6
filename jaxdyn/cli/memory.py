"""Compiled programs map memory, hundreds of pieces each, and Linux ends a process that holds more than 65,530."""

import gc
from pathlib import Path

_MAPS = Path("/proc/self/maps")  # Linux alone; elsewhere there is no such limit


def forget_programs(above: int = 20_000) -> bool:
    """Drop JAX's compiled programs if this process holds more than `above` memory maps; whether it did."""
    if not _MAPS.exists() or _MAPS.read_bytes().count(b"\n") <= above:
        return False
    import jax

    from ..engines import kept

    jax.clear_caches()
    kept.forget()
    gc.collect()
    return True
