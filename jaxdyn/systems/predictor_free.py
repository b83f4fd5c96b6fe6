"""What is left when a part is taken away: no predictor (T App. D.3). For no stop gradient see `Objective`."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..arrays import ArrayLike, matrix
from ..moments import Moments
from .modes import PairState
from .siamese import Scalar, convert_rate


class PredictorFree(eqx.Module):
    """Moving average without predictor, B ≡ I; β → ∞ is stop gradient without predictor:

        Ȧ = −(A X − C Y) − λ A,    Ċ = β (A − C)

    Linear. Equilibria at λ = 0 are A = C with A = A Y X⁻¹: only directions of eigenvalue 1 survive.

    Args:
        weight_decay: λ >= 0.
        ema_rate: β > 0 per unit of time, or None for the stop-gradient version, C ≡ A.

    Source: T App. D.3.
    """

    weight_decay: Scalar = eqx.field(converter=convert_rate("weight_decay"), default=0.0)
    ema_rate: Scalar | None = eqx.field(converter=convert_rate("ema_rate", optional=True), default=None)

    def state(self, *, encoder: ArrayLike, teacher: ArrayLike | None = None) -> PairState:
        """A and C [n, m]; C is a copy of A by default."""
        a = matrix("encoder", encoder)
        c = a if teacher is None else matrix("teacher", teacher)
        if c.shape != a.shape:
            raise ValueError(f"teacher: expected shape {a.shape} like encoder, got {c.shape}")
        return PairState(a, c)

    def field(self, t: Any, state: PairState, moments: Moments) -> PairState:
        moments = moments.in_working_precision()
        a = state.encoder
        c = a if self.ema_rate is None else state.teacher
        rate = -(a @ moments.xx - c @ moments.yx) - self.weight_decay * a
        # Without an EMA the teacher is the encoder, and moves with it.
        return PairState(rate, rate if self.ema_rate is None else self.ema_rate * (a - state.teacher))

    def step(self, state: PairState, moments: Moments, lr: Scalar) -> PairState:
        """Encoder from the old state, then the teacher follows the new encoder."""
        a = state.encoder + lr * self.field(0.0, state, moments).encoder
        c = a if self.ema_rate is None else state.teacher + self.ema_rate * lr * (a - state.teacher)
        return PairState(a, c)


def growth_operator(system: PredictorFree, moments: Moments) -> Float[Array, "size size"]:
    """The matrix M of the linear flow of one row (a, c): d(a, c)/dt = (a, c) M."""
    m = moments.m
    eye = jnp.eye(m, dtype=moments.xx.dtype)
    own = -(moments.xx + system.weight_decay * eye)
    if system.ema_rate is None:
        return own + moments.yx
    return jnp.block([[own, system.ema_rate * eye], [moments.yx, -system.ema_rate * eye]])
