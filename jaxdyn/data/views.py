"""Paired views of data: the one way from a data set, or from two arrays, to second moments."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from ..arrays import random_key, refuse_traced
from ..checks import checked_arguments, whole_number
from ..moments import Moments, check_views
from .augment import Augmentation
from .base import Dataset

VIEW = Augmentation(shift=1, noise=0.1)
_COPIES, _POOL = 16, 100_000  # pairs of views of each sample, and of all, at most


class Views(NamedTuple):
    """Paired views [samples, copies, m]: row i of both shows sample i, copy j one pair of random views of it."""

    source: Float[np.ndarray, "samples copies m"]
    target: Float[np.ndarray, "samples copies m"]

    def moments(self) -> Moments:
        """Their uncentred second moments."""
        return Moments.from_views(*(side.reshape(-1, side.shape[-1]) for side in self))


@checked_arguments
def views_of(
    data: Dataset | tuple[Any, Any],
    m: int | None = None,
    augmentation: Augmentation = VIEW,
    *,
    key: PRNGKeyArray | None = None,
    copies: int | None = None,
) -> Views:
    """Views of all samples of a data set, projected on the samples' first m principal components.

    Both views are centred by the samples' mean, and divided by one number that gives the projected samples unit mean
    variance: time counts in units of the data. Pairs that are given are not augmented; without `m` they stay as they
    are, neither centred nor turned.

    Args:
        data: a data set, or two arrays of given pairs x, y [samples, …].
        m: dimensions kept; needed for images.
        augmentation: random views of images, which a data set of given pairs has no use for.
        key: of the augmentations; default: `jax.random.key(0)`.
        copies: pairs of views of each image; default: 16, fewer for more than 6,250 images.

    Returns:
        `Views` in float64.

    Raises:
        ValueError: if the samples vary in fewer than m dimensions, or cannot be augmented so.
    """
    refuse_traced("data", data)
    m = None if m is None else whole_number("m", m)
    key = None if key is None else random_key("key", key)
    flat = lambda part: np.asarray(part, np.float64).reshape(len(part), -1)  # noqa: E731
    if isinstance(data, Dataset) and data.train.target is None:
        samples = np.concatenate([data.train.source, data.held_out.source])
        if m is None:
            raise ValueError(f"m: expected a number of dimensions to keep of {data.name}")
        project = _projection(flat(samples), m)
        made = _augmented(samples, augmentation, data.shape, key, copies)
        return Views(*(np.stack([project(flat(copy)) for copy in side], 1) for side in made))
    if isinstance(data, Dataset):
        parts = (data.train, data.held_out)
        data = (np.concatenate([part.source for part in parts]), np.concatenate([part.target for part in parts]))
    if copies is not None:
        raise ValueError("copies: pairs of views that are given have one copy each")
    x, y = map(flat, check_views(*data))
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"y: expected views of the same size as x, {x.shape[1]} features, got {y.shape[1]}")
    project = (lambda part: part) if m is None else _projection(np.concatenate([x, y]), m)
    return Views(project(x)[:, None], project(y)[:, None])


def _projection(samples: np.ndarray, m: int) -> Any:
    mean, basis, scale = principal_components(samples, m)
    return lambda part: (part - mean) @ (basis / scale)


def _augmented(samples: np.ndarray, augmentation: Augmentation, shape: Any, key: Any, copies: int | None) -> Any:
    """Two sides of `copies` random views each."""
    augmentation.check(shape)
    images, one_view = jnp.asarray(samples), jax.jit(jax.vmap(augmentation))
    count = max(1, min(_COPIES, _POOL // len(samples))) if copies is None else whole_number("copies", copies)
    key = jax.random.key(0) if key is None else key
    return [[one_view(jax.random.split(k, len(samples)), images) for k in jax.random.split(side, count)]
            for side in jax.random.split(key)]  # fmt: skip


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
