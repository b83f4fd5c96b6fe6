"""Tian's dynamics of the predictor W_p and the embedding correlation F = W Wᵀ (T eqs 7, 55-56, 60).

Isotropic data: Σᵈ = λ_d I, Σˢ = λ_s I, with λ_d = 1 and λ_s = 1 + σ² in the paper; the teacher is
proportional to the encoder, W_a = τ W (T Assumptions 1-2). {·,·} is the anticommutator.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..arrays import ArrayLike, matrix
from .modes import ModeData, Reduced


class EigenspaceState(NamedTuple):
    """W_p [n, n], F [n, n] (None where it is tied to W_p) and τ (None where it is fixed)."""

    predictor: Float[Array, "n n"]
    correlation: Float[Array, "n n"] | None = None
    teacher_ratio: Float[Array, ""] | None = None


class Eigenspace(Reduced):
    """What the symmetrised and the asymmetric system share: states, and F tied or free.

    A state without `correlation` is tied: F = W_pᵀ W_p/α_p, the balance law's limit (T Thm 1, C = 0).
    """

    def state(
        self, *, predictor: ArrayLike, correlation: ArrayLike | None = None, teacher_ratio: Any = None
    ) -> EigenspaceState:
        """The state with W_p [n, n], F [n, n] unless tied, and τ for systems with an `ema_rate`."""
        w_p = matrix("predictor", predictor, square=True)
        f = None if correlation is None else matrix("correlation", correlation, square=True)
        if f is not None and f.shape != w_p.shape:
            raise ValueError(f"correlation: expected shape {w_p.shape} like predictor, got {f.shape}")
        if (teacher_ratio is None) != (self.ema_rate is None):
            raise ValueError("teacher_ratio: expected in the state exactly for systems with an ema_rate")
        tau = None if teacher_ratio is None else jnp.asarray(teacher_ratio, w_p.dtype)
        return EigenspaceState(w_p, f, tau)

    def correlation(self, state: EigenspaceState) -> Float[Array, "n n"]:
        """F, or W_pᵀ W_p/α_p where it is tied."""
        if state.correlation is not None:
            return state.correlation
        return state.predictor.T @ state.predictor / self.predictor_lr_ratio

    def _rates(self, state: EigenspaceState, drive: Array, f_rate: Array) -> EigenspaceState:
        """Assemble the field from Ẇ_p without weight decay and Ḟ; τ follows the trace of F (T eq 83)."""
        tau = self.ratio(state)
        f = self.correlation(state)
        growth = None if self.ema_rate is None else jnp.trace(f_rate) / (2 * jnp.trace(f))
        return EigenspaceState(
            self.predictor_lr_ratio * drive - self.weight_decay.predictor * state.predictor,
            None if state.correlation is None else f_rate,
            self.ratio_rate(tau, growth),
        )


class SymmetricEigenspace(Eigenspace):
    """The symmetrised flow (T eqs 7, 60):

        Ẇ_p = −(α_p/2) λ_s {W_p, F} + α_p τ λ_d F − η_p W_p
        Ḟ   = −λ_s {W_p², F} + τ λ_d {W_p, F} − 2 η_s F

    For symmetric W_p and F the commutator L = [F, W_p] obeys L̇ = −L K − K L, see `alignment_matrix`.
    """

    def field(self, t: Any, state: EigenspaceState, data: ModeData) -> EigenspaceState:
        w_p, f, tau = state.predictor, self.correlation(state), self.ratio(state)
        pull = tau * data.shared
        drive = -data.total / 2 * anticommutator(w_p, f) + pull * f
        f_rate = (
            -data.total * anticommutator(w_p @ w_p, f)
            + pull * anticommutator(w_p, f)
            - 2 * self.weight_decay.encoder * f
        )
        return self._rates(state, drive, f_rate)


class AsymmetricEigenspace(Eigenspace):
    """The flow without symmetrisation (T eqs 55-56):

        Ẇ_p = −α_p λ_s W_p F + α_p τ λ_d F − η_p W_p
        Ḟ   = −λ_s (W_pᵀW_p F + F W_pᵀW_p) + τ λ_d (W_pᵀ F + F W_p) − 2 η_s F

    It is the exact reduction of T eqs 2-3 under isotropic data and W_a = τ W.
    """

    def field(self, t: Any, state: EigenspaceState, data: ModeData) -> EigenspaceState:
        w_p, f, tau = state.predictor, self.correlation(state), self.ratio(state)
        pull = tau * data.shared
        drive = -data.total * w_p @ f + pull * f
        f_rate = (
            -data.total * anticommutator(w_p.T @ w_p, f)
            + pull * (w_p.T @ f + f @ w_p)
            - 2 * self.weight_decay.encoder * f
        )
        return self._rates(state, drive, f_rate)


def anticommutator(a: Float[Array, "n n"], b: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """{A, B} = A B + B A."""
    return a @ b + b @ a


def commutator(a: Float[Array, "n n"], b: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """[A, B] = A B − B A."""
    return a @ b - b @ a


def alignment_matrix(system: SymmetricEigenspace, state: EigenspaceState, data: ModeData) -> Float[Array, "n n"]:
    """K with L̇ = −L K − K L for L = [F, W_p] along the symmetrised flow (T Thm 3, eq 9):

        K = λ_s (α_p/2) F + λ_s W_p² − τ λ_d W_p + (η_s + η_p/2) I

    While λ_min(K(t)) >= λ₀ > 0 the commutator shrinks at least as e^{−2λ₀t} (the paper prints the
    maximum over t where its proof needs the minimum).
    """
    w_p, f = state.predictor, system.correlation(state)
    decay = system.weight_decay.encoder + system.weight_decay.predictor / 2
    return (
        data.total * (system.predictor_lr_ratio / 2 * f + w_p @ w_p)
        - system.ratio(state) * data.shared * w_p
        + decay * jnp.eye(w_p.shape[0], dtype=w_p.dtype)
    )
