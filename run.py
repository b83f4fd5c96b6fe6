#!/usr/bin/env python3
"""Set jaxdyn up in `.venv` and run it: `python3 run.py COMMAND …`, with the standard library alone.

    python3 run.py trials     the main job: the table of random trials, with figures
    python3 run.py test       the test suite
    python3 run.py lint       ruff and pyright
    python3 run.py bench      the benchmarks against their peers
    python3 run.py …          any other `jaxdyn` command

The first call makes the virtual environment from the hash-pinned requirements file; later calls start
at once. Delete `.venv` to begin again.
"""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is quiet from here on, while importing as well

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
REQUIREMENTS = {"run": ROOT / "requirements.txt", "lint": ROOT / "requirements-lint.txt"}


def main(arguments: list[str]) -> int:
    if sys.version_info < (3, 11):  # noqa: UP036  (the reader may have an older one)
        return fail(f"jaxdyn needs Python 3.11 or newer, this is {sys.version.split()[0]}")
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    command, rest = arguments[0], arguments[1:]
    problem = set_up("run") or (set_up("lint") if command == "lint" else None)
    if problem:
        return fail(problem)
    if command == "test":
        return run([PYTHON, "-m", "pytest", *rest], cwd=ROOT)
    if command == "bench":
        return run([PYTHON, ROOT / "benchmarks" / "run.py", *rest])
    if command == "lint":
        steps = [[BIN / "ruff", "check", "."], [BIN / "ruff", "format", "--check", "."], [BIN / "pyright"]]
        return max([run(step, cwd=ROOT) for step in steps])
    return run([PYTHON, "-m", "jaxdyn_command", command, *rest])


def set_up(kind: str) -> str | None:
    """Install what `kind` of command needs, once; returns what went wrong, if anything."""
    stamp, wanted = VENV / f"jaxdyn-{kind}.stamp", fingerprint(kind)
    if PYTHON.exists() and stamp.exists() and stamp.read_text() == wanted:
        return None
    print(f"Setting up {VENV.name} for '{kind}' (once; takes a minute or two) …", file=sys.stderr, flush=True)
    try:
        if not PYTHON.exists() or not works(PYTHON):
            shutil.rmtree(VENV, ignore_errors=True)
            import ensurepip  # noqa: F401  (venv needs it; some systems package both apart)
            import venv

            venv.create(VENV, with_pip=True)
    except (ImportError, subprocess.CalledProcessError):
        shutil.rmtree(VENV, ignore_errors=True)
        return "this Python lacks the modules venv and pip (on Debian and Ubuntu: install the package python3-venv)"
    except OSError as error:
        return f"cannot write {VENV}: {error.strerror or error}"
    pip = [PYTHON, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "install"]
    installs = [[*pip, "--require-hashes", "-r", REQUIREMENTS[kind]]]
    if kind == "run":
        installs.append([*pip, "--no-deps", "--no-build-isolation", "--no-index", "-e", ROOT])
    for install in installs:
        done = subprocess.run([*map(str, install)], capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            return explain(done.stderr)
    stamp.write_text(wanted)
    return None


def fingerprint(kind: str) -> str:
    """Changes whenever the environment has to be made anew."""
    digest = hashlib.sha256(f"{ROOT} {sys.version_info[:2]}".encode())
    digest.update(REQUIREMENTS[kind].read_bytes())
    digest.update((ROOT / "pyproject.toml").read_bytes())
    return digest.hexdigest()


def works(python: Path) -> bool:
    """Whether the interpreter runs, is of this version, and has pip."""
    ask = "import sys, pip; print(*sys.version_info[:2])"
    done = subprocess.run([str(python), "-c", ask], capture_output=True, text=True)
    return done.returncode == 0 and done.stdout.split() == [str(part) for part in sys.version_info[:2]]


def explain(stderr: str) -> str:
    """One line for what pip printed."""
    errors = [line.strip() for line in stderr.splitlines() if line.startswith("ERROR")]
    unreachable = (
        "Temporary failure",
        "Connection",
        "Could not find a version",
        "No matching distribution",
        "Max retries",
    )
    if any(word in stderr for word in unreachable):
        return f"no package index within reach (pip said: {errors[-1][7:] if errors else 'no connection'})"
    return f"installing the requirements failed (pip said: {errors[-1][7:] if errors else stderr.strip()[-300:]})"


def run(command: list, cwd: Path | None = None) -> int:
    """Run in the foreground; Ctrl-C and requests to end reach the command, whose exit status is passed on."""
    process = subprocess.Popen([*map(str, command)], cwd=cwd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the command, too
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: process.send_signal(number))
    status = process.wait()
    return status if status >= 0 else 128 - status  # as a shell says that a signal ended it


def fail(message: str) -> int:
    print(f"run.py: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
