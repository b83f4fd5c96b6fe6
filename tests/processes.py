"""Commands in processes of their own, as tests start them."""

import signal
import sys


def hearing(number, *words, handler=signal.SIG_DFL):
    """A command that begins with `handler` for a signal, whatever this process does with it (forking would warn)."""
    first = "import os, signal, sys; n, how, *words = sys.argv[1:]; signal.signal(int(n), signal.Handlers(int(how)));"
    return [sys.executable, "-c", f"{first} os.execv(sys.executable, [sys.executable, *words])", str(int(number)),
            str(int(handler)), *words]  # fmt: skip
