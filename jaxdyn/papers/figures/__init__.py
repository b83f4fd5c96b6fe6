"""The papers' figures and ours, by id."""

from . import equilibria, foundation, matrices, modes, observations
from .base import Picture, make

PICTURES: dict[str, Picture] = {
    picture.id: picture
    for module in (foundation, equilibria, modes, matrices, observations)
    for picture in module.PICTURES
}

__all__ = ["PICTURES", "Picture", "make"]
