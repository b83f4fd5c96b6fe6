"""How trials lie in memory: arrays [trials, …] outside the kernel, one vector over the lanes an element inside it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .expressions import Unsupported
from .pairs import is_pair
from .translations import type_of
from .vectors import size_of


class Leaf(NamedTuple):
    """One array of a trial: the number of its `first` element among all, and how many they are, its `size`."""

    shape: tuple[int, ...]
    dtype: str
    first: int
    size: int


class Layout(NamedTuple):
    """The leaves of a pytree, one after the other."""

    leaves: tuple[Leaf, ...]

    @classmethod
    def of(cls, avals: Sequence[Any]) -> "Layout":
        leaves, first = [], 0
        for aval in avals:
            if is_pair(type_of(aval)):
                raise Unsupported(f"a state of {aval.dtype}")
            count = int(np.prod(aval.shape))
            leaves.append(Leaf(tuple(aval.shape), type_of(aval), first, count))
            first += count
        return cls(tuple(leaves))

    @property
    def elements(self) -> list[str]:
        """The type of every element."""
        return [leaf.dtype for leaf in self.leaves for _ in range(leaf.size)]

    def offsets(self, lanes: int) -> list[int]:
        """Where each leaf's vectors start in the kernel's memory, and where the last ends, in bytes."""
        ends = np.cumsum([0] + [-(-leaf.size * lanes * size_of(leaf.dtype) // 64) * 64 for leaf in self.leaves])
        return [int(end) for end in ends]

    def places(self, lanes: int) -> list[int]:
        """Where each element's vector starts in the kernel's memory, in bytes."""
        return [
            start + k * lanes * size_of(leaf.dtype)
            for leaf, start in zip(self.leaves, self.offsets(lanes), strict=False)
            for k in range(leaf.size)
        ]


def address(leaf: np.ndarray) -> list[int]:
    """Where a leaf [trials, …] starts, and how many bytes a trial is from the next (0: shared by all)."""
    return [leaf.ctypes.data, leaf.strides[0]]


def readable(leaf: np.ndarray) -> np.ndarray:
    """The leaf itself if every trial's elements lie one after the other, else a copy."""
    packed = leaf[:1].flags.c_contiguous
    return leaf if packed else np.ascontiguousarray(leaf)
