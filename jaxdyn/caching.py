"""Where compiled code is kept on disk: in folders that nobody else can write, for what lies there is run.

Free of JAX and of anything else that is slow to import.
"""

import os
import platform
from pathlib import Path

_KEPT = 500  # files of a folder; the oldest go


def cache_folder(kind: str) -> Path | None:
    """A folder of $JAXDYN_CACHE_DIR (empty: no cache), or of the user's cache; None where there is no home."""
    given = os.environ.get("JAXDYN_CACHE_DIR")
    if given is not None:
        return Path(given).expanduser().absolute() / kind if given else None
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(base) / "jaxdyn" / kind


def is_private(place: Path) -> bool:
    """Whether nobody else can write here."""
    about = place.stat()
    return not hasattr(os, "geteuid") or (about.st_uid == os.geteuid() and not about.st_mode & 0o022)


def made_private(folder: Path) -> bool:
    """Make the folder; whether it is there and nobody else can write in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return is_private(folder)
    except OSError:
        return False


def forget_oldest(folder: Path, pattern: str) -> None:
    """Keep the 500 newest files."""
    aged: list[tuple[float, Path]] = []
    for path in folder.glob(pattern):
        try:
            aged.append((path.stat().st_mtime, path))
        except OSError:  # another process was quicker
            continue
    for _, path in sorted(aged)[:-_KEPT]:
        path.unlink(missing_ok=True)


def keep_xla_programs() -> None:
    """Let JAX keep what it compiles from one call of a command to the next, unless the user has said where.

    For a process of our own, before JAX is imported. XLA's code for one processor must not be run on another, so each
    kind of processor has a folder.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or "JAX_ENABLE_COMPILATION_CACHE" in os.environ:
        return
    folder = cache_folder(f"xla-{_processor()}")
    if folder is None or not made_private(folder):
        return
    forget_oldest(folder, "*")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def _processor() -> str:
    """A name that differs wherever processors have other instructions."""
    import hashlib  # as slow to import as all of `jaxdyn --help`

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    told = {line for line in lines if line.startswith(("flags", "Features", "model name"))}
    words = "\n".join([platform.machine(), platform.processor(), *sorted(told)])
    return hashlib.sha256(words.encode()).hexdigest()[:12]
