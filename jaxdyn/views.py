"""Real paired views: scikit-learn's bundled digits under random augmentation, and the user's own arrays."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .arrays import float_dtype
from .checks import number, whole_number
from .moments import Moments, check_views

_SIDE = 8  # of a digit, in pixels


class Views(NamedTuple):
    """Paired views [samples, m]; row i of both shows the same underlying sample."""

    source: Float[Array, "samples m"]
    target: Float[Array, "samples m"]


def digits_views(
    key: PRNGKeyArray,
    m: int,
    *,
    copies: int = 4,
    shift: int = 1,
    noise: float = 0.1,
    masked: float = 0.15,
) -> Views:
    """Two independent augmentations of each of the 1,797 digits, projected to m dimensions.

    Each view of an 8×8 image (pixels in [0, 1]) is shifted by up to `shift` pixels each way, loses
    each pixel with probability `masked`, and gets Gaussian pixel noise of standard deviation
    `noise`. Both views are centred by the clean images' mean and projected on their first m
    principal components, then divided by one number that gives the clean projections unit mean
    variance, so that time is counted in units of the data.

    Args:
        key: random key of the augmentations.
        m: dimensions kept, at most 61 (three border pixels never vary).
        copies: how many pairs are made of each digit.

    Returns:
        `Views` of shape [1797·copies, m].

    Raises:
        ValueError: for m out of range or parameters that make no sense.
    """
    m = whole_number("m", m)
    copies, shift = whole_number("copies", copies), whole_number("shift", shift, low=0, high=_SIDE - 1)
    noise, masked = number("noise", noise, low=0), number("masked", masked, low=0, high=1)
    clean = _digits()
    mean, basis, scale = principal_components(clean, m)
    images = jnp.asarray(clean, float_dtype(None))
    one_view = jax.jit(jax.vmap(lambda k, image: _augment(k, image, shift, noise, masked)))
    project = lambda view: (view - mean.astype(view.dtype)) @ (basis / scale).astype(view.dtype)  # noqa: E731
    images = jnp.tile(images, (copies, 1))
    keys = jax.random.split(key, (2, images.shape[0]))
    return Views(project(one_view(keys[0], images)), project(one_view(keys[1], images)))


def load_views(location: str | os.PathLike[str], m: int | None = None) -> Views:
    """Paired views from a file of the user's, projected to m dimensions if that is asked for.

    Args:
        location: an `.npz` file with two arrays named x and y (or just two arrays), or two `.npy`
            files separated by a comma. Trailing axes are flattened.
        m: dimensions kept; the projection is on the principal components of both views together,
            centred by their common mean. Default: the views as they are, neither centred nor turned.

    Raises:
        ValueError: one line that says what is wrong with the file or the arrays.
    """
    m = None if m is None else whole_number("m", m)
    location = os.fspath(location)
    x, y = check_views(*_read_pair(location))
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"{location}: expected views of the same size, got {x.shape[1]} and {y.shape[1]} features")
    if m is not None and m > x.shape[1]:
        raise ValueError(f"m: expected at most {x.shape[1]}, the views' number of features, got {m}")
    dtype = float_dtype(None)
    if m is not None:
        mean, basis, _ = principal_components(np.concatenate([x, y]), m)
        x, y = (x - mean) @ basis, (y - mean) @ basis
    return Views(jnp.asarray(x, dtype), jnp.asarray(y, dtype))


def load_moments(location: str | os.PathLike[str], m: int | None = None) -> Moments:
    """Second moments from a file of the user's: an `.npz` with xx and yx [m, m] (and yy), or paired views.

    Args:
        location: as `load_views` takes it, or an `.npz` file with the moments themselves.
        m: for views: dimensions kept, see `load_views`; for moments: what m must be, if given.

    Raises:
        ValueError: one line that says what is wrong with the file or the arrays.
    """
    location = os.fspath(location)
    loaded = None if "," in location else _read(location)
    if not (isinstance(loaded, dict) and {"xx", "yx"} <= loaded.keys()):
        return Moments.from_views(*load_views(location, m))
    try:
        moments = Moments(loaded["xx"], loaded["yx"], loaded.get("yy"))
    except ValueError as error:
        raise ValueError(f"{location}: {error}") from None
    if m is not None and moments.m != m:
        raise ValueError(f"{location}: expected moments of {m} dimensions, got {moments.m}")
    return moments


def read_arrays(location: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name, or of an .npy file under the name `images`; ValueError in one line."""
    loaded = _read(os.fspath(location))
    return loaded if isinstance(loaded, dict) else {"images": loaded}


def _augment(key: PRNGKeyArray, image: Array, shift: int, noise: float, masked: float) -> Array:
    key_shift, key_mask, key_noise = jax.random.split(key, 3)
    rows, columns = jax.random.randint(key_shift, (2,), 0, 2 * shift + 1)
    padded = jnp.pad(image.reshape(_SIDE, _SIDE), shift)
    moved = jax.lax.dynamic_slice(padded, (rows, columns), (_SIDE, _SIDE)).ravel()
    kept = jax.random.bernoulli(key_mask, 1 - masked, moved.shape)
    return moved * kept + noise * jax.random.normal(key_noise, moved.shape, moved.dtype)


def _digits() -> np.ndarray:
    from sklearn.datasets import load_digits  # heavy, and needed here alone

    return np.asarray(load_digits().data) / 16.0  # type: ignore[attr-defined]


def principal_components(data: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean [p], first m principal directions [p, m], and the root of their mean variance."""
    mean = data.mean(0)
    _, sizes, directions = np.linalg.svd(data - mean, full_matrices=False)
    rank = int(np.sum(sizes > 1e-9 * sizes[0]))
    if m > rank:
        raise ValueError(f"m: expected at most {rank}, the number of dimensions in which the data vary, got {m}")
    variances = sizes[:m] ** 2 / data.shape[0]
    # A principal direction's sign is arbitrary: make its largest entry positive.
    signs = np.sign(directions[np.arange(m), np.abs(directions[:m]).argmax(1)])
    return mean, directions[:m].T * signs, float(np.sqrt(variances.mean()))


def _read_pair(location: str) -> tuple[np.ndarray, np.ndarray]:
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


def _read(location: str) -> Any:
    """The array of an .npy file, or the arrays of an .npz file by name."""
    path = Path(location).expanduser()
    if not path.exists():
        raise ValueError(f"{location}: no such file")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return dict(loaded)
    except Exception:  # damaged archives raise almost anything: zlib, zipfile, tokenizer, pickle errors
        raise ValueError(f"{location}: not a readable .npz or .npy file of plain numeric arrays") from None
