"""Which equilibrium a final state belongs to, modulo O(n)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..engines.blocks import blockwise
from ..engines.kept import Kept
from ..equilibria.result import Equilibrium


class Matched(NamedTuple):
    """Index of the equilibrium [trials] (−1: none), relative distances of S and of the state to the nearest."""

    which: np.ndarray
    gram_distance: np.ndarray
    orbit_distance: np.ndarray


def orbit_distance(state: Any, reference: Any) -> Array:
    """Distance of a Siamese state to the O(n)-orbit of another: min over U of ‖state − (UA, UBUᵀ[, UC])‖.

    U is the one that brings the encoders closest (orthogonal Procrustes), so this is an upper bound, zero on
    the orbit.
    """
    left, _, right = jnp.linalg.svd(state.encoder @ reference.encoder.T)
    u = left @ right
    pairs = [(state.encoder, u @ reference.encoder), (state.predictor, u @ reference.predictor @ u.T)]
    if hasattr(state, "teacher"):
        pairs.append((state.teacher, u @ reference.teacher))
    return jnp.sqrt(sum(jnp.sum((have - want) ** 2) for have, want in pairs))


_distances = Kept(jax.vmap(orbit_distance))


def match(end: Any, answers: Sequence[Sequence[Equilibrium]], tolerance: float) -> Matched:
    """The equilibrium whose S and whose orbit are both within the tolerance, and much nearer than the next one's.

    Args:
        end: final states [trials].
        answers: for each trial the equilibria it may belong to, or one list for all.
        tolerance: relative.
    """
    count = np.shape(end.encoder)[0]
    of_trial = list(answers) * count if len(answers) == 1 else list(answers)
    most = max(map(len, of_trial))
    trial = np.repeat(np.arange(count), [len(found) for found in of_trial])
    slot = np.concatenate([np.arange(len(found)) for found in of_trial])
    items = [item for found in of_trial for item in found]
    references = jax.tree.map(lambda *leaves: np.stack(list(map(np.asarray, leaves))), *[item.state for item in items])
    with np.errstate(all="ignore"):  # diverged trials overflow
        grams = np.swapaxes(end.encoder, 1, 2) @ end.encoder
        scale = 1 + np.sqrt((references.encoder**2).sum((1, 2)))
        off = np.linalg.norm(grams[trial] - np.stack([item.gram for item in items]), axis=(1, 2))
        is_origin = np.array([item.rank == 0 for item in items])
        off = np.where(is_origin, np.sqrt(off) / scale, off / scale**2)
        orbit = blockwise(_distances, jax.tree.map(lambda leaf: leaf[trial], end), references) / scale
    by_gram, by_orbit = np.full((most, count), np.inf), np.full((most, count), np.inf)
    by_gram[slot, trial], by_orbit[slot, trial] = off, np.nan_to_num(orbit, nan=np.inf)
    order, at = np.argsort(by_orbit, axis=0), np.arange(count)
    nearest = order[0]
    distance = by_orbit[nearest, at]
    second = by_orbit[order[1], at] if most > 1 else np.full_like(distance, np.inf)
    matched = (distance <= tolerance) & (by_gram[nearest, at] <= tolerance) & (distance <= second / 4)
    return Matched(np.where(matched, nearest, -1), by_gram[nearest, at], distance)
