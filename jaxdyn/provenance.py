"""What a result was made with, as flat attributes of a dataset."""

import ast
import datetime
import functools
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("jaxdyn", "jax", "diffrax", "numpy")
_DECIDE_NOTHING = ("jaxdyn", "jaxdyn.provenance")  # the list of public names, and what is written down of a run


def provenance(*, settings: dict[str, Any], precision: str, devices: Sequence[Any]) -> dict[str, str]:
    """Versions, device, precision, settings (as JSON), git commit and time, for `Dataset.attrs`."""
    kinds = sorted({f"{device.platform}: {device.device_kind}" for device in devices})
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": json.dumps(settings),
        "precision": precision,
        "device": f"{len(devices)} x {', '.join(kinds)}",
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "commit": _commit(),
    }


@functools.cache
def sources_of(*modules: str) -> str:
    """A digest of these modules of the package ("networks.train") and of all of it that they import, however far.

    Of what they do: comments, docstrings and layout may change.
    """
    total = hashlib.sha256()
    for module, content in sorted(_reached(modules).items()):
        total.update(f"{module} {_meaning(content)} ".encode())
    return total.hexdigest()


def _meaning(content: bytes) -> str:
    tree = ast.parse(content)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            told = node.body and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
            if told and isinstance(node.body[0].value.value, str):  # type: ignore[union-attr]
                node.body[:1] = [] if len(node.body) > 1 else [ast.Pass()]
    return ast.dump(tree)


def _reached(modules: Iterable[str]) -> dict[str, bytes]:
    found, left = {}, [f"jaxdyn.{module}" for module in modules]
    while left:
        module = left.pop()
        path = _source(module)
        if path is None or module in found or module in _DECIDE_NOTHING:
            continue
        found[module] = path.read_bytes()
        left += _imported(module, path)
    return found


def _source(module: str) -> Path | None:
    place = Path(__file__).resolve().parent.parent.joinpath(*module.split("."))
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _imported(module: str, path: Path) -> Iterator[str]:
    """Names of the package that this module imports from, at its top or inside a function; all its imports of it are
    relative."""
    here = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*here[: len(here) - node.level + 1], *(node.module or "").split(".")]
            parent = ".".join(filter(None, base))
            yield parent
            yield from (f"{parent}.{each.name}" for each in node.names)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


@functools.cache
def _commit() -> str:
    """The git commit of the code that runs, with "+changes" if it was edited; "none" outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return "none"
    try:
        ask = functools.partial(subprocess.run, cwd=root, capture_output=True, text=True, timeout=5, check=True)
        commit = ask(["git", "rev-parse", "HEAD"]).stdout.strip()
        edited = ask(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + ("+changes" if edited else "")
