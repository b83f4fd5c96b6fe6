"""The `jaxdyn` command's first step, beside the package so that Ctrl-C is quiet before anything is imported.

Until `jaxdyn.cli` listens with a message of its own, an interrupt ends the process as the system does, not with
a traceback out of an import.
"""

import signal


def entry() -> None:
    """The console script."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from jaxdyn.cli import entry

    entry()


if __name__ == "__main__":
    entry()
