"""Readers of the binary files of CIFAR-10 and STL-10, from a folder the user has: nothing is downloaded."""

import os
from pathlib import Path

import numpy as np

from ..checks import whole_number
from .base import Dataset, Split, from_images

_CIFAR = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}


def cifar10(folder: str | os.PathLike[str], *, limit: int | None = None) -> Dataset:
    """CIFAR-10, binary version: `data_batch_1.bin` … (those that are there) and `test_batch.bin`.

    A record is one byte of label and 3,072 of pixels, red, green and blue planes of 32×32, row by row.

    Args:
        folder: where the files are, or a folder above `cifar-10-batches-bin`.
        limit: read at most this many images of each part.

    Raises:
        ValueError: if a file is missing, cut short, or has a label above 9.
    """
    place = _folder(folder, "cifar-10-batches-bin")
    parts = {}
    for part, names in _CIFAR.items():
        paths = [place / name for name in names if (place / name).exists()]
        if not paths:
            raise ValueError(f"{place}: no CIFAR-10 binary files here (expected {names[0]})")
        found = [_records(path, 3073) for path in paths]
        for path, each in zip(paths, found, strict=True):
            if each[:, 0].max() > 9:
                raise ValueError(f"{path}: expected labels 0 to 9, got {each[:, 0].max()}: not CIFAR-10's format")
        records = np.concatenate(found)[: _limit(limit)]
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        parts[part] = Split(_unit(images), None, records[:, 0].astype(np.int32))
    return Dataset("cifar10", parts["train"], parts["test"], 10)


def stl10(folder: str | os.PathLike[str], *, limit: int | None = None, unlabeled: bool = False) -> Dataset:
    """STL-10: `train_X.bin`, `train_y.bin`, `test_X.bin`, `test_y.bin` (and `unlabeled_X.bin`).

    An image is 27,648 bytes, planes of 96×96 column by column; labels are 1 to 10.

    Args:
        folder: where the files are, or a folder above `stl10_binary`.
        limit: read at most this many images of each part.
        unlabeled: train on the unlabelled images; the probes then have no labels.
    """
    place = _folder(folder, "stl10_binary")
    if unlabeled:
        return from_images(_stl_images(place / "unlabeled_X.bin", limit), name="stl10")
    parts = {}
    for part in ("train", "test"):
        images = _stl_images(place / f"{part}_X.bin", limit)
        labels = _bytes(place / f"{part}_y.bin")[: _limit(limit)]
        if len(labels) != len(images):
            raise ValueError(f"{place / f'{part}_y.bin'}: expected {len(images)} labels, got {len(labels)}")
        if labels.min() < 1 or labels.max() > 10:
            raise ValueError(
                f"{place / f'{part}_y.bin'}: expected labels 1 to 10, got {labels.min()} to {labels.max()}"
            )
        parts[part] = Split(_unit(images), None, labels.astype(np.int32) - 1)
    return Dataset("stl10", parts["train"], parts["test"], 10)


def _stl_images(path: Path, limit: int | None) -> np.ndarray:
    return _records(path, 3 * 96 * 96, _limit(limit)).reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)


def _unit(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 255


def _limit(limit: int | None) -> int | None:
    return None if limit is None else whole_number("limit", limit, low=2)


def _folder(folder: str | os.PathLike[str], usual: str) -> Path:
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise ValueError(f"{place}: no such folder")
    return place / usual if (place / usual).is_dir() else place


def _records(path: Path, size: int, limit: int | None = None) -> np.ndarray:
    """Records of `size` bytes, the first `limit` of them: no more than these are read."""
    whole = path.stat().st_size if path.exists() else size
    if whole == 0 or whole % size:
        raise ValueError(f"{path}: expected a multiple of {size} bytes, got {whole}: cut short or another format")
    data = _bytes(path, -1 if limit is None else size * limit)
    return data.reshape(-1, size)


def _bytes(path: Path, count: int = -1) -> np.ndarray:
    try:
        return np.fromfile(path, np.uint8, count)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
