"""Files of the user's: `.npz` and `.npy`, read whole or refused in one line."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np


def read_arrays(location: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name, an .npy file's as `images`; ValueError in one line."""
    loaded = _read(os.fspath(location))
    return loaded if isinstance(loaded, dict) else {"images": loaded}


def read_pair(location: str) -> tuple[np.ndarray, np.ndarray]:
    """Paired views: of an .npz file, or two .npy files with a comma between; ValueError in one line."""
    parts = [part.strip() for part in location.split(",")]
    loaded = [_read(part) for part in parts]
    if len(loaded) == 2 and all(isinstance(part, np.ndarray) for part in loaded):
        return loaded[0], loaded[1]
    if len(loaded) > 1 or not isinstance(loaded[0], dict):
        raise ValueError(f"{location}: expected an .npz file with two arrays, or two .npy files separated by a comma")
    loaded = loaded[0]
    if {"x", "y"} <= loaded.keys():
        return loaded["x"], loaded["y"]
    if len(loaded) == 2:
        first, second = loaded.values()
        return first, second
    raise ValueError(f"{location}: expected arrays named x and y, got {', '.join(loaded) or 'none'}")


_LARGEST = 2**34  # bytes of an archive's arrays, unpacked
_DENSEST = 200  # times an archive's own size: numbers do not shrink like that, only constants do


def _check_size(location: str, path: Path) -> None:
    """ValueError for an archive that would fill the memory, by the sizes it declares."""
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(member.file_size for member in archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError):
        return  # no archive, or a damaged one: reading it says so
    if declared > _LARGEST or declared > max(2**26, _DENSEST * path.stat().st_size):
        raise ValueError(
            f"{location}: {declared / 1e9:.1f} GB unpacked from {path.stat().st_size / 1e6:.1f} MB: refused"
        )


def _read(location: str) -> Any:
    """The array of an .npy file, or the arrays of an .npz file by name."""
    path = Path(location).expanduser()
    if not path.exists():
        raise ValueError(f"{location}: no such file")
    _check_size(location, path)
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            with loaded:
                return dict(loaded)
    except Exception:  # damaged archives raise almost anything: zlib, zipfile, tokenizer, pickle errors
        raise ValueError(f"{location}: not a readable .npz or .npy file of plain numeric arrays") from None
