"""Ctrl-C: ends the command once, wherever it is; a second one ends the process at once."""

import os
import signal
import threading
from typing import Any

_SEEN = threading.Event()


def interrupted() -> bool:
    """Whether Ctrl-C was pressed. Code deep in a library may swallow the exception, but not this."""
    return _SEEN.is_set()


def listen() -> None:
    """Note interrupts from now on (in the main thread; elsewhere Python's own handling stays)."""
    _SEEN.clear()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _note)


def _note(signum: int, frame: Any) -> None:
    if _SEEN.is_set():
        os._exit(130)
    _SEEN.set()
    raise KeyboardInterrupt
