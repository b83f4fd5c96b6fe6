"""Neighbouring systems of the public literature: eigenvalue flows, deep linear JEPA and MAE, self-predictive flow.

States are bare arrays (eigenvalues, weights) or a matrix; fields broadcast over arrays.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..checks import one_of
from .modes import ModeData
from .siamese import Scalar, convert_rate

VARIANTS = ("stop_gradient", "iso_loss", "no_predictor", "no_stop_gradient")


class EigenvalueFlow(eqx.Module):
    """Eigenvalues λ of W Wᵀ under the predictor (W Wᵀ)^a, a > 0, isotropic data with variance σ²:

        stop_gradient     λ̇ = 2 λ^{1+a} (1 − (1+σ²) λ^a)
        iso_loss          λ̇ = 2 λ (1 − (1+σ²) λ^a)
        no_predictor      λ̇ = −2σ² λ
        no_stop_gradient  λ̇ = −2λ [(1 − λ^a)² + σ² (1 + λ^{2a})]

    The data is a `ModeData` with shared = 1, total = 1 + σ².

    Source: Halvagal, Laborieux & Zenke 2023.
    """

    exponent: Scalar = eqx.field(converter=convert_rate("exponent"))
    variant: str = eqx.field(static=True, default="stop_gradient")

    def __check_init__(self):
        one_of("variant", self.variant, VARIANTS)

    def field(self, t: Any, eigenvalues: Float[Array, "*modes"], data: ModeData) -> Float[Array, "*modes"]:
        power = eigenvalues**self.exponent
        noise = data.total - 1
        rate = {
            "stop_gradient": 2 * power * (1 - data.total * power),
            "iso_loss": 2 * (1 - data.total * power),
            "no_predictor": -2 * noise + 0 * power,
            "no_stop_gradient": -2 * ((1 - power) ** 2 + noise * (1 + power**2)),
        }
        return eigenvalues * rate[self.variant]


class DeepLinearData(NamedTuple):
    """A feature's covariance λ of the two views, and its regression coefficient ρ = λ/σ_x²."""

    covariance: Any
    regression: Any


class DeepLinear(eqx.Module):
    """Product weight w of a depth-L linear encoder, one feature:

        JEPA  ẇ = L λ (w^{3−1/L} − w³/ρ), which tends to ρ^L
        MAE   ẇ = L λ (w^{2−1/L} − w³/ρ), which tends to ρ^{L/(L+1)}

    Source: Littwin et al. 2024.
    """

    depth: Scalar = eqx.field(converter=convert_rate("depth"))
    loss: str = eqx.field(static=True, default="jepa")

    def __check_init__(self):
        one_of("loss", self.loss, ("jepa", "mae"))

    def field(self, t: Any, weight: Float[Array, "*modes"], data: DeepLinearData) -> Float[Array, "*modes"]:
        power = (3 if self.loss == "jepa" else 2) - 1 / self.depth
        return self.depth * data.covariance * (weight**power - weight**3 / data.regression)

    def limit(self, data: DeepLinearData) -> Any:
        """The positive equilibrium."""
        return data.regression ** (self.depth if self.loss == "jepa" else self.depth / (self.depth + 1))


class SelfPredictive(eqx.Module):
    """Representations Φ [states, k] of a Markov chain P^π with an always-optimal latent predictor:

        P* = (Φᵀ Φ)⁻¹ Φᵀ P^π Φ,    Φ̇ = (I − Φ (Φᵀ Φ)⁻¹ Φᵀ) P^π Φ P*ᵀ

    Φᵀ Φ is conserved, so Φ cannot collapse. The data is P^π [states, states].

    Source: Tang et al. 2023.
    """

    def field(self, t: Any, features: Float[Array, "states k"], data: Float[Array, "states states"]) -> Array:
        moved = data @ features
        predictor = self.predictor(features, data)
        target = moved @ predictor.T
        return target - features @ jnp.linalg.solve(features.T @ features, features.T @ target)

    def predictor(self, features: Float[Array, "states k"], data: Float[Array, "states states"]) -> Array:
        """P*, the least-squares predictor of Φ one step ahead from Φ."""
        return jnp.linalg.solve(features.T @ features, features.T @ (data @ features))
