"""What is measured along a training run: energies, spectra, alignment, and what the frozen features are worth.

All on held-out samples in inference mode (running batch statistics), of one run.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from .predictors import LinearPredictor
from .probes import attentive_accuracy, few_accuracy, frozen_accuracy
from .recipe import Knobs
from .training import Batch, State, Trainer, discrepancy, embed, predict, unit

COLLAPSED = 0.01  # of the spread of unit embeddings, which is 1 for centred ones


class Spectrum(NamedTuple):
    """Of embeddings f [N, n]: eigenvalues of their covariance, descending, and what follows from them.

    rank: RankMe, the exponential of the entropy of the singular values of f (Garrido et al. 2023).
    participation: (Σλ)²/Σλ². unit_std: mean over dimensions of the standard deviation of unit embeddings,
    times √n (SimSiam's measure): 1 for evenly spread ones, 0 if they are all the same. spread: 1 − ‖E f/‖f‖‖²,
    their total variance. collapsed: spread below 0.01, or embeddings that vanish or are not finite.
    """

    eigenvalue: Float[Array, " n"]
    rank: Float[Array, ""]
    participation: Float[Array, ""]
    unit_std: Float[Array, ""]
    spread: Float[Array, ""]
    collapsed: Float[Array, ""]


class Alignment(NamedTuple):
    """Of a linear predictor W_p with F = E[f fᵀ]; NaN for others.

    f_eigenvalue: of F, descending; p_eigenvalue: of the symmetric part of W_p, descending. cosine: mean over
    eigenvectors u of F of |cos(u, W_p u)|, and cosine_weighted by their eigenvalues (T Fig 2). asymmetry:
    ‖W_p − W_pᵀ‖/‖W_p‖. negative: share of the eigenvalues' squares that belongs to negative ones (0: PSD).
    balance: ‖W Wᵀ − W_pᵀW_p/α_p‖ over the sum of both norms, W the encoder's last matrix (P Lemma; T Thm 1).
    """

    f_eigenvalue: Float[Array, " n"]
    p_eigenvalue: Float[Array, " n"]
    cosine: Float[Array, ""]
    cosine_weighted: Float[Array, ""]
    asymmetry: Float[Array, ""]
    negative: Float[Array, ""]
    balance: Float[Array, ""]


class Sizes(NamedTuple):
    """Norms of all weights of the encoder, the predictor and the teacher."""

    encoder: Array
    predictor: Array
    teacher: Array


class Probed(NamedTuple):
    """Held-out accuracies of frozen features (see `probes.Accuracy`), of the embeddings with few labels, and of the
    attentive probe for tokens."""

    linear: Array
    few: Array
    neighbours: Array
    embedding: Array
    attentive: Array


class Measured(NamedTuple):
    """Everything at one time. energy: E; surrogate: F; both the mean loss, without decay terms."""

    energy: Array
    surrogate: Array
    spectrum: Spectrum
    alignment: Alignment
    sizes: Sizes
    accuracy: Probed | None


class Probe(NamedTuple):
    """What the frozen-feature probes see: labelled samples, and rows of them for few labels."""

    train: Array
    labels: Int[Array, " N"]
    test: Array
    test_labels: Int[Array, " M"]
    few: Int[Array, "draws shots"]
    n_classes: int


def spectrum(f: Float[Array, "N n"]) -> Spectrum:
    """See `Spectrum`."""
    n = f.shape[1]
    centred = f - f.mean(0)
    values = jnp.maximum(jnp.linalg.eigvalsh(centred.T @ centred / f.shape[0])[::-1], 0)
    singular = jnp.linalg.svd(f, compute_uv=False)  # roots of eigenvalues of fᵀf would be wrong below 3e-4 in float32
    share = singular / jnp.maximum(singular.sum(), 1e-30) + 1e-7
    directions = unit(f)
    mean = directions.mean(0)
    spread = 1 - jnp.sum(mean**2)
    gone = ~(spread >= COLLAPSED) | ~(jnp.abs(f).max() > 1e-5) | ~jnp.isfinite(f).all()
    return Spectrum(
        values, jnp.exp(-jnp.sum(share * jnp.log(share))), values.sum() ** 2 / jnp.maximum(jnp.sum(values**2), 1e-30),
        jnp.sqrt(n) * directions.std(0).mean(), spread, gone.astype(f.dtype),
    )  # fmt: skip


def alignment(f: Float[Array, "N n"], weight: Any, top: Any, ratio: Any) -> Alignment:
    """See `Alignment`; `weight` is W_p or None, `top` the encoder's last matrix or None."""
    values, vectors = jnp.linalg.eigh(f.T @ f / f.shape[0])
    nan = jnp.full((), jnp.nan)
    if weight is None:
        return Alignment(values[::-1], jnp.full(values.shape, jnp.nan), nan, nan, nan, nan, nan)
    image = weight @ vectors
    cosines = jnp.abs(jnp.sum(vectors * image, 0)) / jnp.maximum(jnp.linalg.norm(image, axis=0), 1e-30)
    size = jnp.maximum(jnp.linalg.norm(weight), 1e-30)
    p = jnp.linalg.eigvalsh((weight + weight.T) / 2)
    balance = nan
    if top is not None:
        outer, inner = top @ top.T, weight.T @ weight / ratio
        balance = jnp.linalg.norm(outer - inner) / (jnp.linalg.norm(outer) + jnp.linalg.norm(inner))
    shares = jnp.maximum(values, 0) / jnp.maximum(jnp.sum(jnp.maximum(values, 0)), 1e-30)
    return Alignment(
        values[::-1], p[::-1], cosines.mean(), jnp.sum(shares * cosines), jnp.linalg.norm(weight - weight.T) / size,
        jnp.sum(jnp.minimum(p, 0) ** 2) / jnp.maximum(jnp.sum(p**2), 1e-30), balance,
    )  # fmt: skip


def measure(program: Trainer, state: State, knobs: Knobs, pairs: Batch, probe: Probe | None) -> Measured:
    """Measure one run on held-out pairs of views, and its features with the probes."""
    recipe = program.recipe
    network, teacher = program.network(state.student), eqx.combine(state.teacher, program.static.encoder)
    network, teacher = eqx.nn.inference_mode(network), eqx.nn.inference_mode(teacher)
    two_way = recipe.both_sides and not recipe.masked
    views = jnp.stack([pairs.x, pairs.y])
    seen = jax.vmap(lambda v: embed(network.encoder, state.student_stats, v)[1])(views)
    own = seen[::-1]
    goal = jax.vmap(lambda v: embed(teacher, state.teacher_stats, v)[1])(views)[::-1] if recipe.has_teacher else own
    if pairs.visible is not None:
        seen = embed(network.encoder, state.student_stats, pairs.x, pairs.visible)[1][None]
    u = jax.vmap(lambda f: predict(network.predictor, state.student_stats, f, pairs.visible)[0])(seen)
    differ = jax.vmap(lambda a, b: discrepancy(recipe, a, b, pairs.visible))
    sides = 2 if two_way else 1
    energy = differ(u[:sides], own[:sides]).mean()
    surrogate = differ(u[:sides], goal[:sides]).mean()
    f = seen[0]
    f = f.mean(1) if f.ndim == 3 else f
    linear = isinstance(network.predictor, LinearPredictor)
    aligned = alignment(f, network.predictor.weight if linear else None, network.encoder.top, knobs.predictor_lr_ratio)
    sizes = Sizes(*map(optax.tree.norm, (state.student.encoder, state.student.predictor, state.teacher)))
    accuracy = None if probe is None else _probed(network, state, probe)
    return Measured(energy, surrogate, spectrum(f), aligned, sizes, accuracy)


def _probed(network: Any, state: State, probe: Probe) -> Probed:
    train, f, _ = embed(network.encoder, state.student_stats, probe.train)
    test, g, _ = embed(network.encoder, state.student_stats, probe.test)
    attentive = jnp.full((), jnp.nan)
    if train.ndim == 3:
        attentive = attentive_accuracy(train, probe.labels, test, probe.test_labels, probe.n_classes)
        train, test = train.mean(1), test.mean(1)
        f, g = (each.mean(1) if each.ndim == 3 else each for each in (f, g))
    found = frozen_accuracy(train, probe.labels, test, probe.test_labels, probe.n_classes, probe.few)
    embedding = found.few
    if network.encoder.top is not None:
        embedding = few_accuracy(f, probe.labels, g, probe.test_labels, probe.n_classes, probe.few)
    return Probed(*found, embedding, attentive)
