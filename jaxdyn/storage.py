"""Writing results: a run's files appear together and whole, or not at all."""

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

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
def staged(folder: Path) -> Generator[Path]:
    """A temporary folder whose files move to `folder` together when the block ends well, and vanish otherwise.

    Also where a signal ends the process meanwhile.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=folder, prefix=".partial-"))

    def abandon() -> None:
        shutil.rmtree(stage, ignore_errors=True)
        for place in made:
            with suppress(OSError):
                place.rmdir()

    with _first_on_signals(abandon):
        try:
            yield stage
            for path in sorted(stage.iterdir()):
                os.replace(path, folder / path.name)
        except BaseException:
            abandon()
            raise
    stage.rmdir()


@contextmanager
def _first_on_signals(action: Callable[[], None]) -> Generator[None]:
    """Inside the block, do this before what an interrupt or a termination does otherwise (in the main thread)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

    def act(number: int, frame: Any) -> None:
        action()
        usual = before[signal.Signals(number)]
        if callable(usual):
            usual(number, frame)
        elif usual is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for each in before:
        signal.signal(each, act)
    try:
        yield
    finally:
        for each, usual in before.items():
            signal.signal(each, signal.SIG_DFL if usual is None else usual)


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
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    path.write_text(tomli_w.dumps({name: value for name, value in plain.items() if value is not None}), "utf-8")
    return path
