"""All pictures by id."""

from . import equilibria, foundation, matrices, modes, observations
from .base import Picture

PICTURES: dict[str, Picture] = {
    picture.id: picture
    for module in (foundation, equilibria, modes, matrices, observations)
    for picture in module.PICTURES
}
