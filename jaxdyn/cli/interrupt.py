"""Ctrl-C ends the command at once, wherever it is, and leaves no unfinished file.

Raising `KeyboardInterrupt` would not do: it lands in whatever runs at the moment, and callbacks inside
libraries swallow it. Nothing has to be unwound but the output that is being written, which `staged` sees to.
"""

import os
import signal
import sys
import threading
from typing import Any

MESSAGE = "\njaxdyn: interrupted; no result was written"


def listen() -> None:
    """Handle interrupts from now on (in the main thread; elsewhere Python's own handling stays)."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _end)


def _end(signum: int, frame: Any) -> None:
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{MESSAGE}\n".encode())
    os._exit(130)
