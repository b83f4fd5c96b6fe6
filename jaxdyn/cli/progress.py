"""How far a command has come."""

from contextlib import contextmanager


@contextmanager
def progress_bar(total: int, label: str, unit: str = "trial"):
    """A bar on the terminal's error stream; silent where there is no terminal. Yields an update function."""
    from tqdm import tqdm

    with tqdm(total=total, desc=label, unit=unit, disable=None, leave=False, dynamic_ncols=True) as bar:
        yield bar.update


@contextmanager
def progress_to(total: int, label: str, unit: str = "step"):
    """The same for work that says how far it is, not how much was newly done."""
    with progress_bar(total, label, unit) as update:
        done = 0

        def report(now: int) -> None:
            nonlocal done
            update(now - done)
            done = now

        yield report
