"""From the matrix systems to (F, W_p), to modes, to scalars, and back, where the papers' assumptions hold.

Each map takes states to states and commutes with the flows: reducing and then flowing is flowing and
then reducing. The assumptions are: isotropic data (Σᵈ = λ_d I, Σˢ = λ_s I) and W_a = τ W for the
first; commuting symmetric F and W_p for the second; nothing but 1×1 for the third (T Assumptions 1-3).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..arrays import is_traced, rounding_slack
from .eigenspace import EigenspaceState, commutator
from .modes import ModeState, ScalarState
from .siamese import SiameseState, StudentState, TeacherState


def to_eigenspace(state: SiameseState) -> EigenspaceState:
    """(W_p, F = W Wᵀ[, τ = ⟨W_a, W⟩/‖W‖²]); exact for teachers proportional to the encoder.

    The paper's F is W Σᵈ Wᵀ with Σᵈ = I.
    """
    w = state.encoder
    tau = jnp.sum(state.teacher * w) / jnp.sum(w**2) if isinstance(state, TeacherState) else None
    return EigenspaceState(state.predictor, w @ w.T, tau)


def from_eigenspace(state: EigenspaceState) -> SiameseState:
    """W = F^{1/2} (n = m), W_p, and W_a = τ W if the state has a τ."""
    assert state.correlation is not None
    values, vectors = jnp.linalg.eigh(state.correlation)
    w = (vectors * jnp.sqrt(jnp.maximum(values, 0))) @ vectors.T
    if state.teacher_ratio is None:
        return StudentState(w, state.predictor)
    return TeacherState(w, state.predictor, state.teacher_ratio * w)


def to_modes(state: EigenspaceState) -> tuple[ModeState, Float[Array, "n n"]]:
    """The eigenvalues p and s in a common eigenbasis U of F and W_p, and U itself.

    Raises:
        ValueError: if F and W_p do not commute or are not symmetric, to rounding.
    """
    f, w_p = state.correlation, state.predictor
    assert f is not None
    if not is_traced(f, w_p):
        scale = float(jnp.linalg.norm(f) * jnp.linalg.norm(w_p)) + float(jnp.finfo(f.dtype).tiny)
        slack = rounding_slack(f.dtype)
        if float(jnp.linalg.norm(w_p - w_p.T)) > slack * float(jnp.linalg.norm(w_p)):
            raise ValueError("predictor: expected a symmetric W_p; without symmetry the modes do not decouple")
        if float(jnp.linalg.norm(commutator(f, w_p))) > slack * scale:
            raise ValueError("correlation: expected F and W_p to commute; otherwise the modes do not decouple")
    # A generic combination has simple eigenvalues even where F or W_p has not.
    _, u = jnp.linalg.eigh(f / jnp.linalg.norm(f) + 0.7548776662466927 * w_p / jnp.linalg.norm(w_p))
    diagonal = lambda matrix: jnp.einsum("ji,jk,ki->i", u, matrix, u)  # noqa: E731
    p = diagonal(w_p)
    tau = None if state.teacher_ratio is None else jnp.broadcast_to(state.teacher_ratio, p.shape)
    return ModeState(p, diagonal(f), tau), u


def from_modes(state: ModeState, basis: Float[Array, "n n"]) -> EigenspaceState:
    """W_p = U diag(p) Uᵀ, F = U diag(s) Uᵀ, and τ, which must be the same for all modes."""
    tau = state.teacher_ratio
    if tau is not None:
        if not is_traced(tau) and np.ptp(np.asarray(tau)) > rounding_slack(tau.dtype):
            raise ValueError("teacher_ratio: expected the same τ for every mode")
        tau = tau[0]
    rebuild = lambda values: (basis * values) @ basis.T  # noqa: E731
    return EigenspaceState(rebuild(state.predictor), rebuild(state.correlation), tau)


def scalar_to_mode(state: ScalarState) -> ModeState:
    """s = w², p = w_p, τ = w_a/w (T App. D.4)."""
    return ModeState(state.predictor, state.encoder**2, state.teacher / state.encoder)


def mode_to_scalar(state: ModeState) -> ScalarState:
    """w = √s >= 0, w_p = p, w_a = τ w; τ is 1 where the state has none."""
    w = jnp.sqrt(state.correlation)
    return ScalarState(state.predictor, w, w if state.teacher_ratio is None else state.teacher_ratio * w)
