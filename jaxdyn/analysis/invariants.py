"""Identities that hold along whole trajectories of the Siamese flows."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..checks import checked_arguments
from ..moments import Moments
from ..systems.siamese import Objective, Siamese, SiameseState


@checked_arguments
def balance(system: Siamese, state: SiameseState) -> Float[Array, "n n"]:
    """K = A Aᵀ − Bᵀ B / α_p, which decays as e^{−2λt} along the flow of SG and EMA (any teacher).

    Holds for equal weight decays λ of encoder and predictor and α_p > 0 (P §4, balance lemma; T Thm 1).
    """
    return state.encoder @ state.encoder.T - state.predictor.T @ state.predictor / system.predictor_lr_ratio


def encoder_decay_rate(system: Objective, state: SiameseState, moments: Moments) -> Float[Array, ""]:
    """d/dt ½‖A‖² along the objective's flow: −E‖B A x − A y‖² − λ_A ‖A‖², never positive (P Lemma 4.3).

    Hence ‖A(t)‖ <= e^{−λ_A t} ‖A(0)‖ for moments that some pair of views has.
    """
    a, prediction = state.encoder, state.predictor @ state.encoder
    mismatch = (
        jnp.sum(prediction * (prediction @ moments.xx))
        - 2 * jnp.sum(prediction * (a @ moments.yx))
        + jnp.sum(a * (a @ moments.required_yy("the objective")))
    )
    return -mismatch - system.weight_decay.encoder * jnp.sum(a**2)


@checked_arguments
def gram(state: SiameseState) -> Float[Array, "m m"]:
    """S = Aᵀ A, what of the encoder is left when the O(n) symmetry is divided out."""
    return state.encoder.T @ state.encoder
