"""Limit cycles of S = AᵀA: whether a flow returns to itself, also from a nudged state."""

from typing import Any

import jax
import numpy as np

from ...moments import Moments
from ...solve.flow import flow
from ...systems.siamese import MovingAverage


def stable_cycle(system: MovingAverage, state: Any, moments: Moments) -> tuple[float, float, float, float] | None:
    """Period, swing, return gap and nudged return gap of a stable cycle of S that goes through a state, or None."""
    settled = flow(system, state, moments, t1=10_000.0).final
    span = 4_000.0
    times = np.linspace(0.0, span, 8001)
    grams = _grams(flow(system, settled, moments, t1=span, ts=times).states)
    passes = _passes(times, grams)
    if len(passes) < 3:
        return None
    period = passes[2][0] - passes[1][0]
    gap = float(np.linalg.norm(passes[2][1] - passes[1][1]) / np.linalg.norm(passes[1][1]))
    nudged = jax.tree.map(lambda part: 1.02 * part, settled)
    later = flow(system, nudged, moments, t1=20 * period).final
    again = _passes(times, _grams(flow(system, later, moments, t1=span, ts=times).states))
    nudged_gap = float(np.linalg.norm(again[0][1] - passes[1][1]) / np.linalg.norm(passes[1][1])) if again else np.inf
    sizes = np.trace(grams, axis1=1, axis2=2)
    moves = np.linalg.norm(grams - grams[0], axis=(1, 2)).max() / np.linalg.norm(grams[0])
    if not (gap < 1e-3 and nudged_gap < 1e-2 and moves > 0.1):
        return None
    return float(period), float(sizes.max() / sizes.min()), gap, nudged_gap


def _grams(states: Any) -> np.ndarray:
    encoder = np.asarray(states.encoder)
    return np.swapaxes(encoder, 1, 2) @ encoder


def _passes(times: np.ndarray, grams: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Where S₁₁ rises through the middle of its range: time and S, interpolated."""
    height = grams[:, 0, 0] - (grams[:, 0, 0].max() + grams[:, 0, 0].min()) / 2
    found = []
    for i in np.flatnonzero((height[:-1] < 0) & (height[1:] >= 0)):
        share = -height[i] / (height[i + 1] - height[i])
        found.append((times[i] + share * (times[i + 1] - times[i]), grams[i] + share * (grams[i + 1] - grams[i])))
    return found
