"""Ctrl-C, like a request to terminate, ends the command at once, wherever it is, and leaves no unfinished file.

Raising `KeyboardInterrupt` would not do: it lands in whatever runs at the moment, and callbacks inside
libraries swallow it. Nothing has to be unwound but the output that is being written, which `staged` sees to.
"""

import contextlib
import os
import signal
import sys
import threading
from typing import Any

MESSAGE = "\njaxdyn: interrupted; no result was written"
_ENDINGS = {"SIGINT": MESSAGE, "SIGTERM": "\njaxdyn: terminated; no result was written", "SIGHUP": ""}


def listen() -> None:
    """Handle interrupts from now on (in the main thread; elsewhere Python's own handling stays)."""
    if threading.current_thread() is threading.main_thread():
        for name in _ENDINGS:
            number = getattr(signal, name, None)
            # What the caller has us ignore (nohup, a script's background) stays ignored.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _end)


def _end(signum: int, frame: Any) -> None:
    with contextlib.suppress(OSError):
        os.write(
            sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{_ENDINGS[signal.Signals(signum).name]}\n".encode()
        )
    os._exit(128 + signum)
