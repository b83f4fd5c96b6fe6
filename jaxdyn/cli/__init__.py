"""The command line: `jaxdyn COMMAND …`. Thin: it reads settings, calls the library, prints and writes.

Nothing heavy is imported before a command needs it, so that help and errors come at once.
"""

import gc
import importlib
import os
import sys

from .. import __version__
from ..caching import keep_xla_programs
from .interrupt import MESSAGE, listen

COMMANDS = {
    "trials": "run the random m = 1 trials of SG and EMA: the table of outcomes, with figures",
    "flow": "integrate a system on real second moments and follow its spectrum",
    "equilibria": "find every equilibrium on given second moments, its stability, with proofs",
    "threshold": "find the weight decay at which stable equilibria vanish",
    "train": "train small networks on real images, measured as the linear theory is",
    "ablate": "train the papers' ablation tables, beside the published numbers",
    "diagnose": "predict which modes of real views survive training, and check it",
    "claims": "compute the papers' claims and print the verdicts",
    "figures": "compute and draw the papers' figures",
}

USAGE = f"""usage: jaxdyn COMMAND [options]

Learning dynamics of non-contrastive self-supervised learning, simulated and analysed.

commands:
{chr(10).join(f"  {name:10} {text}" for name, text in COMMANDS.items())}

options:
  --help, --version

`jaxdyn COMMAND --help` lists a command's options; each is also a key of a TOML file
given with --config FILE. Errors are one line, with exit status 2."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        status = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output went away (as `head` does): nothing more to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError) as error:
        return _fail(str(error))
    except MemoryError:
        return _fail("this needs more memory than there is")
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower():
            return _fail(f"this needs more memory than there is: {str(error).splitlines()[0]}")
        if "backend" not in str(error):
            raise
        # JAX_PLATFORMS names what this machine does not have.
        return _fail(f"JAX_PLATFORMS: {str(error).splitlines()[0]}")
    except KeyboardInterrupt:
        print(MESSAGE, file=sys.stderr)
        return 130
    return status


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"jaxdyn {__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else "; see jaxdyn --help"
        raise ValueError(f"unknown command {command!r}{hint}")
    return importlib.import_module(f".{command}", __name__).main(rest)


def entry() -> None:
    """The console script: `main`, then exit with its status."""
    listen()
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        keep_xla_programs()
        gc.set_threshold(50_000, 20, 50)  # what imports and traces make stays, and is not looked through every moment
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters shows question marks
    sys.exit(main())


def _fail(message: str) -> int:
    print(f"jaxdyn: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
