"""Predictors that are set instead of learnt: what a batch adds to the estimated correlations, and what a rule makes.

No gradient goes through either (T §4).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from ..systems.direct import DirectCopy, DirectPred, LeastSquares, Rule
from .predictors import LinearPredictor, PartitionedPredictor
from .recipe import Knobs, Recipe


class Estimates(NamedTuple):
    """F̂ and Ĝ [n, n] of a rule ([0, 0] without one); with partitions F̂ is [partitions, 2, n, n], each half's own."""

    correlation: Array
    cross: Array


def no_estimates(recipe: Recipe) -> Estimates:
    """What a run begins with."""
    n = recipe.embedding if recipe.rule != "gradient" else 0
    halves = (recipe.partitions, 2) if recipe.partitions else ()
    return Estimates(jnp.zeros((*halves, n, n)), jnp.zeros((n, n)))


def set_predictor(
    recipe: Recipe,
    knobs: Knobs,
    taken: Integer[Array, ""],
    old: Estimates,
    predictor: Any,
    fs: list[Any],
    vs: list[Any],
) -> tuple[Estimates, Any]:
    """The estimates with this batch, and the predictor that the rule makes of them.

    Args:
        taken: steps before this one.
        predictor: the one so far, whose partitions stay.
        fs: embeddings [batch, n] of the views that predict, vs: of those that are predicted.

    Source: T eq 19 (moving average), the text below it (simple average), and below Table 7 (partitions: there the
    correlations' sum is spoken of, which would depend on no feature; here each half sets a matrix of its own, and a
    sample is predicted by the mean of those of its halves).
    """
    fs, vs, predictor = jax.lax.stop_gradient((fs, vs, predictor))
    memory = taken / (taken + 1) if recipe.average == "simple" else knobs.memory
    remember = lambda before, new: memory * before + (1 - memory) * new  # noqa: E731
    size = sum(f.shape[0] for f in fs)
    cross = remember(old.cross, sum(v.T @ f for v, f in zip(vs, fs, strict=True)) / size)
    rule = _rule(recipe, knobs)
    if isinstance(predictor, PartitionedPredictor):
        every = jnp.concatenate(fs)
        thresholds = (every @ predictor.normals).mean(0)
        correlation = remember(old.correlation, _of_halves(every, every @ predictor.normals >= thresholds))
        weights = jax.vmap(jax.vmap(lambda each: rule(each, cross)))(correlation)
        made = PartitionedPredictor(predictor.normals, thresholds, weights)
        return Estimates(correlation, cross), made
    assert isinstance(predictor, LinearPredictor)  # `Recipe` saw to it
    correlation = remember(old.correlation, sum(f.T @ f for f in fs) / size)
    made = eqx.tree_at(lambda p: p.weight, predictor, rule(correlation, cross))
    return Estimates(correlation, cross), made


def _of_halves(f: Float[Array, "N n"], beyond: Array) -> Float[Array, "partitions 2 n n"]:
    """E[f fᵀ] over the samples on either side of each plane; 0 where there is none."""
    sides = jnp.stack([~beyond, beyond], -1).astype(f.dtype)  # [N, partitions, 2]
    return jnp.einsum("bps,bi,bj->psij", sides, f, f) / jnp.maximum(sides.sum(0), 1)[..., None, None]


def _rule(recipe: Recipe, knobs: Knobs) -> Rule:
    if recipe.rule == "directcopy":
        return eqx.tree_at(lambda r: r.epsilon, DirectCopy(0.0), knobs.epsilon)
    if recipe.rule == "least_squares":
        return LeastSquares(1e-3)
    plain = DirectPred(0.0, recipe.rule == "directpred_released", 0.0)
    return eqx.tree_at(lambda r: (r.epsilon, r.offset), plain, (knobs.epsilon, knobs.offset))
