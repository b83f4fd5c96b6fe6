"""Engines by name."""

from .base import Engine, Finished
from .xla import run as _xla

ENGINES: dict[str, Engine] = {"xla": _xla}

__all__ = ["ENGINES", "Engine", "Finished"]
