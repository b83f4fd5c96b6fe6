"""Engines by name."""

from typing import Any

from .base import Engine, Finished
from .fused.engine import run as _fused
from .fused.engine import supports
from .xla import run as _xla

ENGINES: dict[str, Engine] = {"xla": _xla, "fused": _fused}


def run(engine: str, step: Any, done: Any, states: Any, params: Any, max_steps: int, **options: Any) -> Finished:
    """Run a batch on the engine of that name; "auto" is `choose`'s."""
    _check_devices(options.get("devices"))
    name = choose(step, done, states, params, **options) if engine == "auto" else engine
    return ENGINES[name](step, done, states, params, max_steps, **options)


def _check_devices(devices: Any) -> None:
    if devices is not None and not len(devices):
        raise ValueError("devices: expected at least one")
    for each in () if devices is None else devices:
        if not hasattr(each, "platform"):
            raise ValueError(f"devices: expected devices, as jax.devices() has them, got {each!r}")


def choose(step: Any, done: Any, states: Any, params: Any, *, devices: Any = None, record: Any = None, **_: Any) -> str:
    """The engine "auto" stands for: fused on CPUs where it can compile the functions, else xla."""
    import jax

    _check_devices(devices)
    device = (devices or jax.local_devices()[:1])[0]
    return "fused" if device.platform == "cpu" and supports(step, done, states, params, record) else "xla"


__all__ = ["ENGINES", "Engine", "Finished", "choose", "run"]
