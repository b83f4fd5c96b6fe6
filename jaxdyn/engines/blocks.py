"""Functions over a leading trial axis, in blocks of one fixed size: bits do not depend on the number of trials."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

BLOCK = 1024


def blockwise(function: Callable[..., Any], *arrays: Any, size: int = BLOCK) -> Any:
    """Apply a function of whole blocks over a leading trial axis, in padded blocks of one fixed size.

    The shapes that `function` sees never depend on the number of trials, so neither do its bits.
    """
    total = jax.tree.leaves(arrays)[0].shape[0]
    parts = []
    for start in range(0, total, size):
        index = np.minimum(np.arange(start, start + size), total - 1)
        out = function(*jax.tree.map(lambda leaf: leaf[index], arrays))  # noqa: B023
        parts.append(jax.tree.map(lambda leaf: np.asarray(leaf)[: total - start], out))  # noqa: B023
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
