"""All pictures by id."""

from . import decays, equilibria, foundation, matrices, modes, observations, parted
from .base import Picture

PICTURES: dict[str, Picture] = {
    picture.id: picture
    for module in (foundation, equilibria, parted, modes, matrices, decays, observations)
    for picture in module.PICTURES
}
