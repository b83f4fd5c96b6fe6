"""Writing results: each file appears whole or not at all."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def prepare_folder(location: str | Path) -> Path:
    """The output folder, made if need be and seen to be writable; ValueError if it cannot be."""
    folder = Path(location).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"out: cannot write to {folder}: {error.strerror or error}") from None
    return folder


def write_whole(path: Path, write: Callable[[Path], Any]) -> Path:
    """Let `write` fill a temporary file beside `path`, then move it there in one step."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-", suffix=path.suffix)
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def save_dataset(dataset: "xr.Dataset", path: Path) -> Path:
    """Write a NetCDF file (version 3, 64-bit offsets: read by everything)."""
    return write_whole(path, lambda p: dataset.to_netcdf(p, engine="scipy", format="NETCDF3_64BIT"))


def save_figure(figure: "Figure", path: Path) -> list[Path]:
    """Write a figure as PDF and PNG, with `path`'s name."""
    return [write_whole(path.with_suffix(end), lambda p: figure.savefig(p)) for end in (".pdf", ".png")]


def save_settings(settings: dict[str, Any], path: Path) -> Path:
    """Write flat settings as TOML; None is left out, as TOML has no such value."""
    lines = [f"{name} = {_toml(value)}" for name, value in settings.items() if value is not None]
    return write_whole(path, lambda p: p.write_text("\n".join(lines) + "\n", encoding="utf-8"))


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(part) for part in value)}]"
    # JSON's strings, numbers and booleans are TOML's, too.
    return json.dumps(value, ensure_ascii=False)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
