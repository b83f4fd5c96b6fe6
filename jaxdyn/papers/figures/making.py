"""`make_figure`: any of the pictures by its id, with other parameters."""

from pathlib import Path
from typing import Any

from ...checks import checked_arguments
from ...storage import check_folder, staged_files
from .base import make
from .gallery import PICTURES


@checked_arguments
def make_figure(id: str, folder: str | Path, *, fast: bool = False, **changes: Any) -> list[Path]:
    """Compute and draw one of the papers' figures (or ours), with other parameters if you like.

    Args:
        id: such as "T-3"; `jaxdyn figures --list` has them with their parameters.
        folder: where data (NetCDF), PDF and PNG are written, named by the id.
        fast: small sizes, for a quick look.
        changes: the figure's parameters, such as eta=(0.0, 0.02); the caption says what was changed.

    Returns:
        The files.

    Raises:
        ValueError: for an unknown id or parameter, or a value unlike the parameter's own.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = make_figure("T-4", folder, sigma=0.3, fast=True)
        >>> [file.name for file in files]
        ['t-4.nc', 't-4.pdf', 't-4.png']

    Source: the figure's, in its caption.
    """
    names = {name.lower(): name for name in PICTURES}
    if id.lower() not in names:
        raise ValueError(f"id: unknown figure {id!r}; there are {', '.join(PICTURES)}")
    picture, folder = PICTURES[names[id.lower()]], check_folder(folder, whole=False)
    picture.checked(changes)
    with staged_files(folder) as stage:
        written = make(picture, stage, fast=fast, **changes)
    return [folder / path.name for path in written]
