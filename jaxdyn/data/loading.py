"""Data sets and moments by their names on the command line."""

import os

import jax

from ..checks import checked_arguments, whole_number
from ..moments import Moments
from .augment import Augmentation
from .base import Dataset, from_images, from_views
from .bundled import clips, digits, patches
from .files import read_arrays, read_pair
from .readers import cifar10, stl10
from .views import VIEW, Views, views_of

NAMED = {"digits": digits, "patches": patches, "clips": clips}
FOLDERS = {"cifar10": cifar10, "stl10": stl10}


@checked_arguments
def load_dataset(location: str) -> Dataset:
    """ "digits", "patches", "clips", "cifar10:FOLDER", "stl10:FOLDER", or an .npz file of the user's.

    The file has `images` (and maybe `labels`), or paired views `x` and `y` (and maybe `labels`).

    Raises:
        ValueError: one line that says what is wrong with the name or the data.
    """
    if location in NAMED:
        return NAMED[location]()
    kind, colon, folder = location.partition(":")
    if colon and kind in FOLDERS:
        return FOLDERS[kind](folder)
    if not location.endswith((".npz", ".npy")):
        known = ", ".join([*NAMED, *(f"{name}:FOLDER" for name in FOLDERS)])
        raise ValueError(f"data: unknown data set {location!r}; there are {known}, or an .npz file")
    arrays = read_arrays(location)
    try:
        if {"x", "y"} <= arrays.keys():
            return from_views(arrays["x"], arrays["y"], arrays.get("labels"), name=location)
        if "images" in arrays:
            return from_images(arrays["images"], arrays.get("labels"), name=location)
    except ValueError as error:
        raise ValueError(f"{location}: {error}") from None
    raise ValueError(f"{location}: expected arrays named images, or x and y, got {', '.join(arrays) or 'none'}")


def load_views(
    location: str | os.PathLike[str], m: int | None = None, augmentation: Augmentation = VIEW, *, seed: int = 0
) -> Views:
    """Paired views by name: of a data set that `load_dataset` knows, or of a file of the user's.

    Args:
        location: a data set's name; an `.npz` file with two arrays named x and y (or just two arrays), or with images;
            or two `.npy` files separated by a comma. Trailing axes are flattened.
        m: dimensions kept, see `views_of`.
        augmentation, seed: of views of images.

    Raises:
        ValueError: one line that says what is wrong with the name, the file or the arrays.
    """
    location, seed = os.fspath(location), whole_number("seed", seed, low=0, high=2**32 - 1)
    is_file = "," in location or location.endswith((".npz", ".npy"))
    if not is_file or ("," not in location and "images" in read_arrays(location)):
        return views_of(load_dataset(location), m, augmentation, key=jax.random.key(seed))
    pair = read_pair(location)
    try:
        return views_of(pair, m)
    except ValueError as error:
        raise ValueError(f"{location}: {error}") from None


@checked_arguments
def load_moments(
    location: str | os.PathLike[str], m: int | None = None, augmentation: Augmentation = VIEW, *, seed: int = 0
) -> Moments:
    """Second moments by name: an `.npz` file with xx and yx [m, m] (and yy), or the moments of `load_views`.

    Args:
        location: as `load_views` takes it, or an `.npz` file with the moments themselves.
        m: for views: dimensions kept; for moments: what m must be, if given.
        augmentation, seed: see `load_views`.

    Raises:
        ValueError: one line that says what is wrong with the name, the file or the arrays.
    """
    location = os.fspath(location)
    loaded = read_arrays(location) if location.endswith(".npz") and "," not in location else {}
    if not {"xx", "yx"} <= loaded.keys():
        return load_views(location, m, augmentation, seed=seed).moments()
    try:
        moments = Moments(loaded["xx"], loaded["yx"], loaded.get("yy"))
    except ValueError as error:
        raise ValueError(f"{location}: {error}") from None
    if m is not None and moments.m != m:
        raise ValueError(f"{location}: expected moments of {m} dimensions, got {moments.m}")
    return moments
