"""Where compiled code is kept on disk: in folders that nobody else can write, for what lies there is run.

Free of JAX and of anything else that is slow to import.
"""

import os
import platform
from pathlib import Path

_KEPT = 500  # files of a folder; the oldest go
_PROGRAMS = 4000  # files of JAX's own folder, most of them tiny


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


def forget_oldest(folder: Path, pattern: str, kept: int = _KEPT) -> None:
    """Keep the newest files."""
    aged: list[tuple[float, Path]] = []
    for path in folder.glob(pattern):
        try:
            aged.append((path.stat().st_mtime, path))
        except OSError:  # another process was quicker
            continue
    for _, path in sorted(aged)[:-kept]:
        path.unlink(missing_ok=True)


_DIGEST = 32  # bytes at the start of a stored file


def _digest(path: Path, content: bytes) -> bytes:
    """Of the content and of whose it is: a file under another's name is damaged like any other."""
    import hashlib

    return hashlib.sha256(path.name.encode() + b"\0" + content).digest()


def read_whole(path: Path | None) -> bytes | None:
    """What `write_whole` stored there, if it is whole and ours."""
    try:
        if path is None or not (is_private(path.parent) and is_private(path)):
            return None
        stored = path.read_bytes()
    except OSError:
        return None
    digest, content = stored[:_DIGEST], stored[_DIGEST:]
    return content if content and _digest(path, content) == digest else None


def write_whole(path: Path | None, content: bytes, pattern: str) -> None:
    """Store the content in a private folder, of whose files of this pattern the newest are kept."""
    if path is None:
        return
    try:
        if not made_private(path.parent):
            return
        partial = path.with_suffix(f".{os.getpid()}.partial")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(_digest(path, content) + content)
        partial.replace(path)
        forget_oldest(path.parent, pattern)
    except OSError:
        pass  # a cache that cannot be written is no cache


def keep_xla_programs() -> None:
    """Let JAX keep what it compiles from one call of a command to the next, unless the user has said where.

    For a process of our own, before JAX is imported. XLA's code for one processor must not be run on another, so each
    kind of processor has a folder. Equinox's checks of traced numbers call back into Python, and such programs are not
    kept: here they give NaN, which every result is looked at for.
    """
    os.environ.setdefault("EQX_ON_ERROR", "nan")
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or "JAX_ENABLE_COMPILATION_CACHE" in os.environ:
        return
    folder = cache_folder(f"xla-{processor()}")
    if folder is None or not made_private(folder):
        return
    forget_oldest(folder, "*", _PROGRAMS)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # small ones are many
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def processor() -> str:
    """A name that differs wherever processors have other instructions."""
    import hashlib  # as slow to import as all of `jaxdyn --help`

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    told = {line for line in lines if line.startswith(("flags", "Features", "model name"))}
    words = "\n".join([platform.machine(), platform.processor(), *sorted(told)])
    return hashlib.sha256(words.encode()).hexdigest()[:12]
