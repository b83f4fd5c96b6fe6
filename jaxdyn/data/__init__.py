"""Real images and clips to train on: bundled ones, the user's own, and the views made of them."""

from .augment import Augmentation
from .base import Dataset, from_images, from_source, from_views
from .bundled import clips, digits, patches
from .loading import load_dataset
from .readers import cifar10, stl10

__all__ = [
    "Augmentation",
    "Dataset",
    "cifar10",
    "clips",
    "digits",
    "from_images",
    "from_source",
    "from_views",
    "load_dataset",
    "patches",
    "stl10",
]
