"""Data that come with scikit-learn and scikit-image: digits, patches of photographs, and clips made of them."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np

from ..checks import one_of, whole_number
from .base import Dataset, Split

PHOTOGRAPHS = (
    *("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "moon", "rocket"),
    *("china", "flower"),
)  # the last two are scikit-learn's

_SHARE = 0.2  # of each photograph, on its right, that is held out


def digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8×8; the last 360 are held out."""
    table = np.loadtxt(_file("sklearn", "datasets/data/digits.csv.gz"), delimiter=",")
    images = (table[:, :-1].reshape(-1, 8, 8) / 16).astype(np.float32)[..., None]
    labels = table[:, -1].astype(np.int32)
    cut = len(images) - 360
    return Dataset("digits", Split(images[:cut], None, labels[:cut]), Split(images[cut:], None, labels[cut:]), 10)


def patches(side: int = 12, per_photograph: int = 400, *, seed: int = 0) -> Dataset:
    """Grey square patches of the bundled photographs, at half their resolution; the label is the photograph.

    Held-out patches come from the right fifth of each photograph, which no other patch touches.

    Args:
        side: of a patch, in pixels.
        per_photograph: patches for training; a quarter as many are held out.
    """
    side, per_photograph = whole_number("side", side, low=4, high=32), whole_number("per_photograph", per_photograph)
    rng = np.random.default_rng(seed)
    parts = []
    for held_out in (False, True):
        count = -(-per_photograph // 4) if held_out else per_photograph
        images = [_cut(_region(photo, held_out), side, count, rng) for photo in photographs()]
        labels = np.repeat(np.arange(len(images), dtype=np.int32), count)
        parts.append(Split(np.concatenate(images)[..., None], None, labels))
    return Dataset("patches", parts[0], parts[1], len(photographs()))


def clips(
    side: int = 16, frames: int = 4, per_photograph: int = 128, *, labels: str = "photograph", seed: int = 0
) -> Dataset:
    """Short clips: a window pans over a photograph at constant velocity and jitters: synthetic motion, real images.

    Velocities are one of eight compass directions times 1 to 3 pixels a frame; the jitter is 0 or 1 pixel each way.

    Args:
        side: of a frame, in pixels.
        frames: in a clip.
        per_photograph: clips for training; a quarter as many are held out, from the right fifth.
        labels: "photograph", or "motion" for the direction.
    """
    side, frames = whole_number("side", side, low=4, high=32), whole_number("frames", frames, low=2, high=16)
    one_of("labels", labels, ("photograph", "motion"))
    rng = np.random.default_rng(seed)
    parts = []
    for held_out in (False, True):
        count = -(-whole_number("per_photograph", per_photograph) // 4) if held_out else per_photograph
        made = [_pan(_region(photo, held_out), side, frames, count, rng) for photo in photographs()]
        photo = np.repeat(np.arange(len(made)), count)
        classes = photo if labels == "photograph" else np.concatenate([motion for _, motion in made])
        parts.append(Split(np.concatenate([clip for clip, _ in made])[..., None], None, classes.astype(np.int32)))
    return Dataset("clips", parts[0], parts[1], len(photographs()) if labels == "photograph" else 8)


@cache
def photographs() -> tuple[np.ndarray, ...]:
    """The bundled photographs [height, width] in grey, at half resolution, in [0, 1].

    Raises:
        ValueError: if scikit-image is not installed.
    """
    found = []
    for name in PHOTOGRAPHS:
        if name in ("china", "flower"):
            image = _read(_file("sklearn", f"datasets/images/{name}.jpg"))
        else:
            image = _read(_file("skimage", f"data/{name}.{'jpg' if name == 'rocket' else 'png'}"))
        grey = image @ np.array([0.2126, 0.7152, 0.0722]) if image.ndim == 3 else image.astype(float)
        rows, columns = (2 * (length // 2) for length in grey.shape)
        halved = grey[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).mean((1, 3)) / 255
        found.append(halved.astype(np.float32))
    return tuple(found)


_DISTRIBUTIONS = {"sklearn": "scikit-learn", "skimage": "scikit-image"}


def _file(package: str, name: str) -> Path:
    """A file that an installed package has, found without importing it: that takes a second or goes to a network."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"these data need {_DISTRIBUTIONS[package]}: pip install 'jaxdyn[images]'")
    path = Path(spec.submodule_search_locations[0]) / name
    if not path.exists():
        raise ValueError(f"this version of {_DISTRIBUTIONS[package]} has no file {name}; take another one")
    return path


def _read(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB" if image.mode in ("RGB", "RGBA", "P") else "L"))


def _region(photo: np.ndarray, held_out: bool) -> np.ndarray:
    edge = round((1 - _SHARE) * photo.shape[1])
    return photo[:, edge:] if held_out else photo[:, :edge]


def _cut(photo: np.ndarray, side: int, count: int, rng: np.random.Generator) -> np.ndarray:
    rows, columns = (rng.integers(0, length - side + 1, count) for length in photo.shape)
    offset = np.arange(side)
    return photo[(rows[:, None] + offset)[:, :, None], (columns[:, None] + offset)[:, None, :]]


def _pan(photo: np.ndarray, side: int, frames: int, count: int, rng: np.random.Generator):
    """Clips [count, frames, side, side], and the direction of each."""
    compass = np.array([(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)])
    direction = rng.integers(0, 8, count)
    speed = rng.integers(1, 4, count)
    room = 3 * (frames - 1) + 1  # the farthest a window strays from its start
    path = compass[direction][:, None] * (speed[:, None] * np.arange(frames))[..., None]
    path = path + rng.integers(0, 2, (count, frames, 2))
    low = np.maximum(0, -path.min(1))
    high = np.array(photo.shape) - side - np.maximum(0, path.max(1))
    if (high < low).any():
        raise ValueError(f"side, frames: a window of {side} pixels moving {room} does not fit into {photo.shape}")
    start = low + (rng.random((count, 2)) * (high - low + 1)).astype(int)
    rows, columns = np.moveaxis(start[:, None] + path, -1, 0)
    offset = np.arange(side)
    return photo[(rows[..., None] + offset)[..., :, None], (columns[..., None] + offset)[..., None, :]], direction
