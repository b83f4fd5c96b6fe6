"""Random views of images and clips, each sample with its own key, in JAX."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ..checks import number, whole_number, yes_or_no


@dataclass(frozen=True)
class Augmentation:
    """A random view of one image [h, w, c], or one clip [frames, h, w, c] (all frames alike).

    In this order: a crop of random size, resized to the whole; a shift with zeros coming in; a mirror image;
    contrast about the mean and brightness; Gaussian pixel noise; a square hole. Each is left out at its default.

    Example:
        >>> view = Augmentation(shift=1, noise=0.1)(jax.random.key(0), jnp.ones((8, 8, 1)))
        >>> view.shape
        (8, 8, 1)
    """

    crop: float = 1.0
    """Views: smallest side of the random crop, as a share of the image's, in (0, 1]; 1 leaves the image whole."""
    shift: int = 0
    """Views: largest shift each way, in pixels."""
    flip: bool = False
    """Views: whether to mirror left and right, every other time."""
    contrast: float = 0.0
    """Views: contrast factors are uniform on [1 − contrast, 1 + contrast]."""
    brightness: float = 0.0
    """Views: what is added is uniform on [−brightness, brightness]."""
    noise: float = 0.0
    """Views: standard deviation of the pixels' noise."""
    cutout: int = 0
    """Views: side of a square hole, in pixels."""

    def __post_init__(self):
        yes_or_no("flip", self.flip)
        number("crop", self.crop, above=0, high=1)
        number("contrast", self.contrast, low=0, high=1)
        for name in ("brightness", "noise"):
            number(name, getattr(self, name), low=0)
        for name in ("shift", "cutout"):
            whole_number(name, getattr(self, name), low=0)

    def check(self, shape: tuple[int, ...]) -> None:
        """ValueError if samples of this shape cannot be augmented so."""
        plain = Augmentation(contrast=self.contrast, brightness=self.brightness, noise=self.noise)
        if len(shape) not in (3, 4):
            if self != plain:
                raise ValueError(
                    f"augmentation: crop, shift, flip and cutout need images, got samples of shape {shape}; "
                    "leave them out (1, 0, no, 0)"
                )
            return
        side = min(shape[-3], shape[-2])
        for name in ("shift", "cutout"):
            if getattr(self, name) >= side:
                raise ValueError(f"{name}: expected less than the image's side {side}, got {getattr(self, name)}")

    def __call__(self, key: PRNGKeyArray, image: Any) -> Array:
        """One view, of the sample's shape."""
        keys = jax.random.split(key, 7)
        if self.crop < 1:
            image = self._cropped(keys[0], image)
        if self.shift:
            image = self._shifted(keys[1], image)
        if self.flip:
            image = jnp.where(jax.random.bernoulli(keys[2]), image[..., ::-1, :], image)
        if self.contrast or self.brightness:
            factor, offset = jax.random.uniform(keys[3], (2,), image.dtype, -1, 1)
            mean = image.mean()
            image = mean + (1 + self.contrast * factor) * (image - mean) + self.brightness * offset
        if self.noise:
            image = image + self.noise * jax.random.normal(keys[4], image.shape, image.dtype)
        if self.cutout:
            image = self._holed(keys[5], image)
        return image

    def _cropped(self, key: PRNGKeyArray, image: Array) -> Array:
        """Resampled linearly: output pixel i shows the point start + (i + ½)·share of the axis."""
        rows, columns = image.shape[-3:-1]
        share, top, left = jax.random.uniform(key, (3,), image.dtype)
        share = self.crop + (1 - self.crop) * share

        def resample(length: Any, place: Any):
            at = (jnp.arange(length) + 0.5) * share + place * (1 - share) * length - 0.5
            return jnp.maximum(0, 1 - jnp.abs(jnp.clip(at, 0, length - 1)[:, None] - jnp.arange(length)))

        return jnp.einsum("ir,jc,...rck->...ijk", resample(rows, top), resample(columns, left), image)

    def _shifted(self, key: PRNGKeyArray, image: Array) -> Array:
        down, right = jax.random.randint(key, (2,), 0, 2 * self.shift + 1)
        lead = image.ndim - 3
        padded = jnp.pad(image, [(0, 0)] * lead + [(self.shift, self.shift)] * 2 + [(0, 0)])
        return jax.lax.dynamic_slice(padded, (0,) * lead + (down, right, 0), image.shape)

    def _holed(self, key: PRNGKeyArray, image: Array) -> Array:
        rows, columns = image.shape[-3:-1]
        top, left = jax.random.randint(key, (2,), 0, jnp.array([rows, columns]) - self.cutout + 1)
        inside = lambda length, start: (jnp.arange(length) >= start) & (jnp.arange(length) < start + self.cutout)  # noqa: E731
        return jnp.where((inside(rows, top)[:, None] & inside(columns, left))[..., None], 0, image)
