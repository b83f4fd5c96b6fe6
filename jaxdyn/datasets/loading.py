"""A data set by its name on the command line."""

from ..views import read_arrays
from .base import Dataset, from_images, from_views
from .bundled import clips, digits, patches
from .readers import cifar10, stl10

NAMED = {"digits": digits, "patches": patches, "clips": clips}
FOLDERS = {"cifar10": cifar10, "stl10": stl10}


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
