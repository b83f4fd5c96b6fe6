"""Writing results: a run's files appear together and whole, or not at all."""

import os
import platform
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


_ENDINGS = {".nc", ".pdf", ".png", ".toml"}  # of what runs write
_MARK = "settings.toml"  # every run's folder has one


def check_folder(location: str | Path, *, whole: bool = True, force: bool = False) -> Path:
    """The output folder; ValueError if it cannot be made or written to.

    A run's results (`whole`) go into a new folder, an empty one, or beside files that are no results; with `force` they
    replace those of an earlier run. Files by themselves, as of figures, go into any folder.
    """
    if "\0" in str(location):
        raise ValueError(f"out: expected the name of a folder, got {str(location)!r}")
    try:
        folder = Path(location).expanduser().absolute()
        folder = folder.resolve() if folder.is_dir() else folder
        if whole and folder == Path.cwd():
            raise ValueError("out: expected the name of a folder, not the one you are in")
        nearest = next(place for place in (folder, *folder.parents) if place.exists() or place.is_symlink())
        if not nearest.is_dir():
            raise ValueError(f"out: cannot write to {location}: {nearest} is not a folder")
        with tempfile.TemporaryFile(dir=nearest):
            pass
        if nearest == folder:
            if whole:
                _check_replaceable(folder, str(location), force)
            if force and (folder / _MARK).exists() and not _can_be_renamed(folder):
                raise ValueError(f"out: cannot replace {location}: no permission to change {folder.parent}")
    except (OSError, RuntimeError) as error:  # RuntimeError: no such user's home
        raise ValueError(f"out: cannot write to {location}: {getattr(error, 'strerror', None) or error}") from None
    return folder


def _check_replaceable(folder: Path, told: str, force: bool) -> None:
    """ValueError unless results can go here: there are none, or they stand alone and may be replaced."""
    inside = [place for place in folder.iterdir() if not _is_left_over(place)]
    for place in inside:
        if place.is_dir() and place.suffix in _ENDINGS:
            raise ValueError(f"out: cannot write to {told}: {place.name} in it is a folder")
    if not (folder / _MARK).exists():
        return
    if not force:
        raise ValueError(f"out: {told} has results already; --force replaces them, or give another folder")
    for place in inside:
        if place.suffix not in _ENDINGS or place.is_symlink():
            raise ValueError(f"out: {told} has {place.name} beside the results; give another folder")


@contextmanager
def staged(folder: Path, *, force: bool = False) -> Generator[Path]:
    """A temporary folder that becomes `folder` by one rename when the block ends well, and vanishes otherwise.

    Also where a signal ends the process meanwhile. Where `folder` has files that are no results, its files join them.
    """
    with _stage_beside(folder) as stage:
        yield stage
        stage.chmod(0o777 & ~_umask())
        if folder.exists():
            _check_replaceable(folder, str(folder), force)
            if stage.parent == folder or (any(folder.iterdir()) and not (folder / _MARK).exists()):
                _move_into(stage, folder)
                return
        aside = stage.with_name(f"{_STAGE}{os.getpid()}{_OLD}{folder.name}")
        with _signals_later():
            if folder.exists():
                os.rename(folder, aside)
            try:
                os.rename(stage, folder)
            except OSError:
                if aside.exists():
                    os.rename(aside, folder)
                raise
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def staged_files(folder: Path) -> Generator[Path]:
    """A temporary folder whose files move into `folder`, each whole, when the block ends well."""
    with _stage_beside(folder) as stage:
        yield stage
        folder.mkdir(exist_ok=True)
        _move_into(stage, folder)


def _move_into(stage: Path, folder: Path) -> None:
    """Each file whole; signals wait until all are there."""
    files = sorted(stage.iterdir())
    for path in files:
        if (folder / path.name).is_dir():
            raise ValueError(f"out: cannot write {folder / path.name}: it is a folder")
    with _signals_later():
        for path in files:
            os.replace(path, folder / path.name)
        stage.rmdir()


@contextmanager
def _stage_beside(folder: Path) -> Generator[Path]:
    made = [place for place in folder.parents if not place.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    where = folder.parent if not folder.exists() or _can_be_renamed(folder) else folder
    for place in filter(_is_left_over, where.glob(f"{_STAGE}*")):
        replaced = where / (place.name.partition(_OLD)[2] or ".")
        if not replaced.exists():  # killed between two renames: the old results are still whole
            os.rename(place, replaced)
        shutil.rmtree(place, ignore_errors=True)
    stages: list[Path] = []

    def abandon() -> None:
        for stage in stages:
            shutil.rmtree(stage, ignore_errors=True)
        for place in made:
            with suppress(OSError):
                place.rmdir()

    with _first_on_signals(abandon):
        try:
            with _signals_later():
                stages.append(Path(tempfile.mkdtemp(dir=where, prefix=f"{_STAGE}{os.getpid()}-")))
            yield stages[0]
        except BaseException:
            abandon()
            raise


_STAGE, _OLD = f".partial-{platform.node()}-", "-old-"


def _can_be_renamed(folder: Path) -> bool:
    return os.access(folder.parent, os.W_OK) and not os.path.ismount(folder)


def _is_left_over(place: Path) -> bool:
    """Whether this is what a killed process left: a stage of a process that is no more."""
    owner = place.name.removeprefix(_STAGE).partition("-")[0]  # of this machine: others may share the folder
    if not place.name.startswith(_STAGE) or not owner.isdigit():
        return False
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_SIGNALS = [getattr(signal, each) for each in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, each)]
_waiting: ContextVar[list[int] | None] = ContextVar("waiting", default=None)  # signals that came meanwhile


@contextmanager
def _signals_later() -> Generator[None]:
    """Inside the block, signals that `_first_on_signals` handles wait."""
    waiting: list[int] = []
    token = _waiting.set(waiting)
    try:
        yield
    finally:
        _waiting.reset(token)
        for number in waiting:
            os.kill(os.getpid(), number)


@contextmanager
def _first_on_signals(action: Callable[[], None]) -> Generator[None]:
    """Inside the block, do this before what an interrupt or a termination does otherwise (in the main thread)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def act(number: int, frame: Any) -> None:
        waiting = _waiting.get()
        if waiting is not None:
            waiting.append(number)
            return
        action()
        usual = before[number]
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
        # A signal that Python has noted, but not handled yet, would be lost with its handler: blocking handles it.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS) if hasattr(signal, "pthread_sigmask") else None
        for each, usual in before.items():
            signal.signal(each, signal.SIG_DFL if usual is None else usual)
        if held is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)


def save_dataset(dataset: "xr.Dataset", path: Path) -> Path:
    """Write a NetCDF file (version 3, 64-bit offsets: read by everything)."""
    dataset.to_netcdf(path, engine="scipy", format="NETCDF3_64BIT")
    return path


def save_figure(figure: "Figure", path: Path) -> list[Path]:
    """Write a figure as PDF and PNG, with `path`'s name."""
    layout = figure.get_layout_engine()
    if layout is not None:  # once, and not twice for each file
        layout.execute(figure)
        figure.set_layout_engine(None)
    paths = [path.with_suffix(end) for end in (".pdf", ".png")]
    try:
        for each in paths:
            figure.savefig(each)
    finally:
        figure.set_layout_engine(layout)
    return paths


def save_settings(settings: dict[str, Any], path: Path) -> Path:
    """Write flat settings as TOML; None is left out, as TOML has no such value."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    path.write_text(tomli_w.dumps({name: value for name, value in plain.items() if value is not None}), "utf-8")
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
