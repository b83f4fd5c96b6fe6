"""How far a long computation has come: a bar in terminals and notebooks, silence elsewhere."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeAlias

Progress: TypeAlias = Callable[[int], Any]


@contextmanager
def progress_bar(total: int | None, label: str, unit: str = "trial") -> Generator[Progress]:
    """A bar on the terminal's error stream, or in the notebook; yields a function of how much was newly done.

    Without a total it counts.
    """
    import tqdm.auto
    import tqdm.notebook

    in_notebook = issubclass(tqdm.auto.tqdm, tqdm.notebook.tqdm)
    off = False if in_notebook else None  # None: off where there is no terminal
    with tqdm.auto.tqdm(total=total, desc=label, unit=unit, disable=off, leave=False, dynamic_ncols=True) as bar:
        yield bar.update


@contextmanager
def progress_to(total: int, label: str, unit: str = "step") -> Generator[Progress]:
    """The same for work that says how far it is, not how much was newly done."""
    with progress_bar(total, label, unit) as update:
        done = 0

        def report(now: int) -> None:
            nonlocal done
            update(now - done)
            done = now

        yield report


@contextmanager
def shown(progress: Progress | bool | None, total: int, label: str = "trials") -> Generator[Progress | None]:
    """What `progress=` of a function means: True is a bar, a function is told what was newly done, None is silence."""
    if progress is True:
        with progress_bar(total, label) as update:
            yield update
    elif progress is None or progress is False or callable(progress):
        yield progress or None
    else:
        raise ValueError(f"progress: expected True, False or a function of how many are newly done, got {progress!r}")
