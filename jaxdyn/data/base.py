"""What networks are trained on: samples, or pairs of views, in memory, with labels for the probes and a held-out part.

A data set of the user's is two arrays, or any object with `__len__` and `__getitem__`, or an iterator of batches.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from ..checks import number, whole_number

LIMIT = 8 * 1024**3  # bytes of one data set in memory, in single precision


class Split(NamedTuple):
    """Samples [N, …] and, for given pairs, their partners; labels [N] or None."""

    source: Any
    target: Any
    labels: Any

    def __len__(self) -> int:
        return self.source.shape[0]


class Dataset(NamedTuple):
    """Samples to train on and held-out ones to measure on.

    Arrays are float32: images [N, height, width, channels] or clips [N, frames, height, width, channels]
    in [0, 1], or any other real features [N, …]. `target` is None where both views are augmentations of
    the sample, and row i's second view where pairs are given. `n_classes` is 0 without labels.
    """

    name: str
    train: Split
    held_out: Split
    n_classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.train.source.shape[1:])

    @property
    def is_paired(self) -> bool:
        """Whether the pairs of views are given."""
        return self.train.target is not None


@runtime_checkable
class Indexable(Protocol):
    """A map-style data set, as torchvision's, grain's and Hugging Face's are."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> Any: ...


def from_images(
    images: Any, labels: Any = None, *, held_out: float = 0.2, name: str = "images", seed: int = 0
) -> Dataset:
    """A data set of images or clips, split at random.

    Args:
        images: [N, …] real numbers; unsigned integers of 8 bits are divided by 255. An axis of channels is added
            to [N, h, w].
        labels: [N] class labels, whole numbers or strings, for the probes alone; or None.
        held_out: share of the samples that is held out, in (0, 1).
        seed: of the split.

    Raises:
        ValueError: for unequal lengths, too few samples, NaN, infinities or constant images.
    """
    pixels = _samples("images", images)
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    classes, count = _classes(labels, len(pixels))
    return _split(name, pixels, None, classes, count, held_out, seed)


def from_views(x: Any, y: Any, labels: Any = None, *, held_out: float = 0.2, name: str = "views") -> Dataset:
    """A data set of given pairs: row i of x [N, …] and y [N, …] shows the same underlying sample.

    As with images, an axis of channels is added to [N, h, w]. The last rows are held out: neighbouring pairs of many
    recordings are nearly equal.
    """
    x, y = _samples("x", x), _samples("y", y)
    if len(x) != len(y):
        raise ValueError(f"y: expected as many views as x, got {len(y)} and {len(x)}")
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(f"y: expected views of shape {x.shape[1:]} like x, got {y.shape[1:]}")
    x, y = (part[..., None] if part.ndim == 3 else part for part in (x, y))
    classes, count = _classes(labels, len(x))
    return _split(name, x, y, classes, count, held_out, None)


def from_source(source: Any, *, held_out: float = 0.2, name: str = "source", limit: int | None = None) -> Dataset:
    """A data set from any object with `__len__` and `__getitem__`, or an iterable of NumPy batches.

    Args:
        source: items (or batches, if it is an iterator) are an image, a pair (image, label), or a mapping with
            "image" or "img", and maybe "label". Images are arrays or things NumPy can turn into arrays.
        limit: read at most this many samples; needed for iterators without an end.

    Raises:
        ValueError: one line that names the item.
    """
    limit = None if limit is None else whole_number("limit", limit, low=2)
    images, labels = [], []
    size = count = 0
    is_items = isinstance(source, Indexable) and not isinstance(source, Iterator)
    items = _items(source, limit) if is_items else source
    if not isinstance(items, Iterable):
        raise ValueError(f"source: expected a data set or an iterator of batches, got {type(source).__name__}")
    for position, item in enumerate(items):
        image, label = _parts(item, position)
        image = image[None] if is_items else image
        images.append(image)
        if label is not None:
            labels.append(np.atleast_1d(np.asarray(label)))
        size, count = size + 4 * image.size, count + len(image)
        if size > LIMIT:
            raise ValueError(f"source: more than {LIMIT >> 30} GiB of images; pass limit=…")
        if limit is not None and count >= limit:
            break
    if not images:
        raise ValueError("source: expected at least two samples, got none")
    shapes = {image.shape[1:] for image in images}
    if len(shapes) > 1:
        first, other = sorted(shapes, key=str)[:2]
        raise ValueError(f"source: expected images of one shape, got {first} and {other}")
    if labels and sum(map(len, labels)) != sum(map(len, images)):
        raise ValueError("source: expected a label with every image or with none")
    cut = slice(limit)
    joined = np.concatenate(labels)[cut] if labels else None
    return from_images(np.concatenate(images)[cut], joined, held_out=held_out, name=name)


def _items(source: Any, limit: int | None) -> Iterator[Any]:
    count = len(source) if limit is None else min(limit, len(source))
    return (source[index] for index in range(count))


def _parts(item: Any, position: int) -> tuple[np.ndarray, Any]:
    label = None
    if isinstance(item, dict):
        key = next((name for name in ("image", "img", "images") if name in item), None)
        if key is None:
            raise ValueError(f"source: item {position} has no 'image', only {', '.join(map(str, item))}")
        label = item.get("label", item.get("labels"))
        item = item[key]
    elif isinstance(item, tuple | list) and len(item) == 2:
        item, label = item
    try:
        image = np.asarray(item)
    except (TypeError, ValueError):
        image = np.asarray(None)
    if image.dtype.kind not in "fiub" or image.ndim < 1:
        raise ValueError(f"source: item {position}: expected an array of numbers, got {type(item).__name__}")
    return image, label


def _samples(name: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected a rectangular array of real numbers, got {array.dtype}")
    if array.ndim < 2 or array.shape[0] < 10:
        raise ValueError(f"{name}: expected at least 10 samples of some features, got shape {array.shape}")
    if 0 in array.shape:
        raise ValueError(f"{name}: expected at least one feature, got shape {array.shape}")
    if 4 * array.size > LIMIT:
        raise ValueError(f"{name}: more than {LIMIT >> 30} GiB; take fewer samples")
    scale = 255 if array.dtype == np.uint8 else 1
    array = array.astype(np.float32) / scale
    bad = ~np.isfinite(array).reshape(len(array), -1).all(1)
    if bad.any():
        where = int(np.argmax(bad))
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity in sample {where} ({bad.sum()} in all)")
    flat = array.reshape(len(array), -1)
    if flat.shape[1] > 1:
        constant = np.ptp(flat, axis=1) == 0
        if constant.all():
            raise ValueError(f"{name}: expected images that vary, all {len(flat)} are constant")
    if not np.any(np.ptp(flat, axis=0)):
        raise ValueError(f"{name}: expected samples that differ, all {len(flat)} are equal")
    return array


def _classes(labels: Any, count: int) -> tuple[np.ndarray | None, int]:
    if labels is None:
        return None, 0
    try:
        labels = np.asarray(labels)
    except ValueError:
        labels = np.asarray(0.0)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iubUS":
        raise ValueError(f"labels: expected one class label a sample, got {labels.dtype}{list(labels.shape)}")
    if len(labels) != count:
        raise ValueError(f"labels: expected one for each of {count} samples, got {len(labels)}")
    kinds, classes = np.unique(labels, return_inverse=True)
    if len(kinds) < 2:
        raise ValueError("labels: expected at least two classes, got one")
    return classes.astype(np.int32), len(kinds)


def _split(name: Any, x: Any, y: Any, classes: Any, n_classes: Any, share: Any, seed: Any) -> Dataset:
    share = number("held_out", share, above=0, high=0.9)
    order = np.arange(len(x)) if seed is None else np.random.default_rng(seed).permutation(len(x))
    cut = len(x) - max(2, round(share * len(x)))
    take = lambda part: Split(*(None if each is None else each[part] for each in (x, y, classes)))  # noqa: E731
    return Dataset(name, take(order[:cut]), take(order[cut:]), n_classes)


def to_device(split: Split) -> Split:
    """The split with JAX arrays."""
    return Split(*(None if part is None else jax.numpy.asarray(part) for part in split))
