"""What a result was made with, as flat attributes of a dataset."""

import datetime
import functools
import json
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("jaxdyn", "jax", "diffrax", "numpy")


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
