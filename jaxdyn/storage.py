"""Writing results: a run's files appear together and whole, or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def check_folder(location: str | Path) -> Path:
    """The output folder, which may not exist yet; ValueError if it cannot be made or written to."""
    folder = Path(location).expanduser()
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise ValueError(f"out: cannot write to {folder}: {nearest} is not a folder")
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise ValueError(f"out: cannot write to {folder}: {error.strerror or error}") from None
    return folder


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files move to `folder` together when the block ends well, and vanish otherwise."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=folder, prefix=".partial-"))
    _OPEN.append((stage, made))
    try:
        yield stage
        for path in sorted(stage.iterdir()):
            os.replace(path, folder / path.name)
    except BaseException:
        abandon()
        raise
    stage.rmdir()
    _OPEN.clear()


_OPEN: list[tuple[Path, list[Path]]] = []


def abandon() -> None:
    """Remove what unfinished stages have written, and the folders made for them."""
    while _OPEN:
        stage, made = _OPEN.pop()
        shutil.rmtree(stage, ignore_errors=True)
        for place in made:
            with suppress(OSError):
                place.rmdir()


def save_dataset(dataset: "xr.Dataset", path: Path) -> Path:
    """Write a NetCDF file (version 3, 64-bit offsets: read by everything)."""
    dataset.to_netcdf(path, engine="scipy", format="NETCDF3_64BIT")
    return path


def save_figure(figure: "Figure", path: Path) -> list[Path]:
    """Write a figure as PDF and PNG, with `path`'s name."""
    paths = [path.with_suffix(end) for end in (".pdf", ".png")]
    for each in paths:
        figure.savefig(each)
    return paths


def save_settings(settings: dict[str, Any], path: Path) -> Path:
    """Write flat settings as TOML; None is left out, as TOML has no such value."""
    lines = [f"{name} = {_toml(value)}" for name, value in settings.items() if value is not None]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(part) for part in value)}]"
    # JSON's strings, numbers and booleans are TOML's, too.
    return json.dumps(value, ensure_ascii=False)
