"""Tian's decoupled dynamics: one eigenmode at a time (T eqs 11-16 and 98-100).

λ_s and λ_d are a mode's eigenvalues of Σˢ and Σᵈ; isotropic data with augmentation variance σ² has
λ_s = 1 + σ², λ_d = 1 (T §3). p and s are the mode's eigenvalues of the predictor W_p and of W Wᵀ;
τ = w_a/w says how far the teacher is behind. Fields broadcast over arrays of modes of any shape.

`Modes` and `Parabola` take either a fixed `teacher_ratio` τ (1 is SimSiam) or an `ema_rate` β, in which
case τ is part of the state.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..arrays import ScalarLike, scalar
from .siamese import Scalar, WeightDecay, convert_rate, convert_weight_decay


class ModeData(NamedTuple):
    """A mode's eigenvalues of Σˢ (`total`, λ_s) and Σᵈ (`shared`, λ_d)."""

    total: Any
    shared: Any = 1.0

    @classmethod
    def isotropic(cls, sigma: ScalarLike) -> "ModeData":
        """λ_s = 1 + σ², λ_d = 1 (T §3)."""
        return cls(1 + scalar("sigma", sigma, low=0) ** 2, 1.0)


class ModeState(NamedTuple):
    """p, s and, for systems with an `ema_rate`, τ of each mode."""

    predictor: Float[Array, "*modes"]
    correlation: Float[Array, "*modes"]
    teacher_ratio: Float[Array, "*modes"] | None = None


class ParabolaState(NamedTuple):
    """p and, for systems with an `ema_rate`, τ of each mode."""

    predictor: Float[Array, "*modes"]
    teacher_ratio: Float[Array, "*modes"] | None = None


class ScalarState(NamedTuple):
    """w_p, w and w_a of each mode."""

    predictor: Float[Array, "*modes"]
    encoder: Float[Array, "*modes"]
    teacher: Float[Array, "*modes"]


class PairState(NamedTuple):
    """w and w_a of each mode, for the systems whose predictor is tied or absent."""

    encoder: Float[Array, "*modes"]
    teacher: Float[Array, "*modes"]


class Reduced(eqx.Module):
    """What the systems in (F, W_p) and in modes share.

    Args:
        weight_decay: η >= 0, one number or a pair (encoder η_s, predictor η_p), per unit of time.
        predictor_lr_ratio: α_p >= 0.
        teacher_ratio: τ, fixed; 1 is SimSiam. Ignored where `ema_rate` is given.
        ema_rate: β >= 0 per unit of time; if given, τ follows its own equation and is in the state.
    """

    weight_decay: WeightDecay = eqx.field(converter=convert_weight_decay)
    predictor_lr_ratio: Scalar = eqx.field(converter=convert_rate("predictor_lr_ratio"), default=1.0)
    teacher_ratio: Scalar = eqx.field(converter=convert_rate("teacher_ratio"), default=1.0, kw_only=True)
    ema_rate: Scalar | None = eqx.field(converter=convert_rate("ema_rate", optional=True), default=None, kw_only=True)

    def ratio(self, state: Any) -> Any:
        """τ, from the state if it has one."""
        if (state.teacher_ratio is None) != (self.ema_rate is None):
            raise ValueError("teacher_ratio: expected in the state exactly for systems with an ema_rate")
        return self.teacher_ratio if state.teacher_ratio is None else state.teacher_ratio

    def ratio_rate(self, tau: Any, growth: Any) -> Any:
        """τ̇ = β(1 − τ) − τ ẇ/w for a relative growth ẇ/w of the encoder; None where τ is fixed (T eq 86)."""
        return None if self.ema_rate is None else self.ema_rate * (1 - tau) - tau * growth


class Modes(Reduced):
    """The decoupled modes (T eqs 11-13):

        ṗ = α_p s [τ λ_d − λ_s p] − η_p p
        ṡ = 2 p s [τ λ_d − λ_s p] − 2 η_s s
        τ̇ = β (1 − τ) − τ ṡ/(2s)

    Exact integral for η_p = η_s = η (T eq 14): s = p²/α_p + c e^{−2ηt} with c = s(0) − p(0)²/α_p.

    Source: T eqs 11-13, 73-74, 86.
    """

    def field(self, t: Any, state: ModeState, data: ModeData) -> ModeState:
        p, s, tau = state.predictor, state.correlation, self.ratio(state)
        gap = tau * data.shared - data.total * p
        growth = p * gap - self.weight_decay.encoder  # ṡ/(2s) = ẇ/w
        return ModeState(
            self.predictor_lr_ratio * s * gap - self.weight_decay.predictor * p,
            2 * s * growth,
            self.ratio_rate(tau, growth),
        )


def mode_integral(system: Modes, state: ModeState) -> Float[Array, "*modes"]:
    """c = s − p²/α_p, which decays as e^{−2ηt} along the flow when η_p = η_s = η.

    Source: T eq 14, whose text prints c with the opposite sign.
    """
    return state.correlation - state.predictor**2 / system.predictor_lr_ratio


def alignment_margin(system: Modes, state: ModeState, data: ModeData) -> Float[Array, "*modes"]:
    """The mode's eigenvalue of K (T eqs 9, 17): λ_s(α_p s/2 + p²) − τp + η_s + η_p/2."""
    p, decay = state.predictor, system.weight_decay
    pull = (
        data.total * (system.predictor_lr_ratio * state.correlation / 2 + p**2) - system.ratio(state) * p * data.shared
    )
    return pull + decay.encoder + decay.predictor / 2


class Parabola(Reduced):
    """The modes on their invariant parabola s = p²/α_p, for η_p = η_s = η (T eq 16):

        ṗ = p² [τ λ_d − λ_s p] − η p,    τ̇ = β (1 − τ) − τ ṗ/p

    α_p drops out. Source: T eqs 15-16, 87.
    """

    def __check_init__(self):
        same = self.weight_decay.encoder is self.weight_decay.predictor
        if not same and self.weight_decay.encoder != self.weight_decay.predictor:
            raise ValueError("weight_decay: the parabola is invariant for equal decays of encoder and predictor alone")

    def field(self, t: Any, state: ParabolaState, data: ModeData) -> ParabolaState:
        p, tau = state.predictor, self.ratio(state)
        growth = p * (tau * data.shared - data.total * p) - self.weight_decay.encoder  # ṗ/p
        return ParabolaState(p * growth, self.ratio_rate(tau, growth))


class ParabolaPoints(NamedTuple):
    """Nonzero equilibria p*₋ (unstable) and p*₊ (stable) of the parabola at fixed τ; NaN above the threshold."""

    lower: Float[Array, "*modes"]
    upper: Float[Array, "*modes"]


def parabola_points(weight_decay: ScalarLike, teacher_ratio: ScalarLike, data: ModeData) -> ParabolaPoints:
    """p*± = (τλ_d ± √(τ²λ_d² − 4ηλ_s))/(2λ_s), for 0 <= η <= τ²λ_d²/(4λ_s) (T below eq 16).

    Example:
        >>> lower, upper = parabola_points(0.09, 1.0, ModeData(total=1.0))
        >>> round(float(lower), 6), round(float(upper), 6)
        (0.1, 0.9)
    """
    pull = jnp.asarray(teacher_ratio) * data.shared
    inside = pull**2 - 4 * jnp.asarray(weight_decay) * data.total
    larger = pull + jnp.sqrt(jnp.where(inside >= 0, inside, jnp.nan))
    return ParabolaPoints(2 * jnp.asarray(weight_decay) / larger, larger / (2 * data.total))


class ScalarNetwork(eqx.Module):
    """The 1×1 network, or a decoupled mode of a matrix one (T eqs 98-100; weight decay as in eqs 2-3):

        ẇ_p = α_p (w_a λ_d − w_p w λ_s) w − η_p w_p
        ẇ   = w_p (w_a λ_d − w_p w λ_s) − η_s w
        ẇ_a = β (w − w_a)

    The paper misprints the left side of the third line. s = w², p = w_p, τ = w_a/w give `Modes`.
    """

    weight_decay: WeightDecay = eqx.field(converter=convert_weight_decay, default=(0.0, 0.0))
    predictor_lr_ratio: Scalar = eqx.field(converter=convert_rate("predictor_lr_ratio"), default=1.0)
    ema_rate: Scalar = eqx.field(converter=convert_rate("ema_rate"), default=1.0, kw_only=True)

    def field(self, t: Any, state: ScalarState, data: ModeData) -> ScalarState:
        w_p, w, w_a = state
        gap = w_a * data.shared - w_p * w * data.total
        return ScalarState(
            self.predictor_lr_ratio * gap * w - self.weight_decay.predictor * w_p,
            w_p * gap - self.weight_decay.encoder * w,
            self.ema_rate * (w - w_a),
        )


class TiedScalar(eqx.Module):
    """The invariant plane w_p = w of the scalar network, for α_p = 1 and equal decays (T App. D.4):

    ẇ = w (w_a λ_d − w² λ_s) − η w,    ẇ_a = β (w − w_a)
    """

    weight_decay: Scalar = eqx.field(converter=convert_rate("weight_decay"), default=0.0)
    ema_rate: Scalar = eqx.field(converter=convert_rate("ema_rate"), default=1.0, kw_only=True)

    def field(self, t: Any, state: PairState, data: ModeData) -> PairState:
        w, w_a = state
        return PairState(w * (w_a * data.shared - w**2 * data.total) - self.weight_decay * w, self.ema_rate * (w - w_a))


class PredictorFreeScalar(eqx.Module):
    """The scalar network without predictor, w_p ≡ 1 (T App. D.3-D.4):

    ẇ = w_a λ_d − w λ_s − η w,    ẇ_a = β (w − w_a)
    """

    weight_decay: Scalar = eqx.field(converter=convert_rate("weight_decay"), default=0.0)
    ema_rate: Scalar = eqx.field(converter=convert_rate("ema_rate"), default=1.0, kw_only=True)

    def field(self, t: Any, state: PairState, data: ModeData) -> PairState:
        w, w_a = state
        return PairState(w_a * data.shared - w * data.total - self.weight_decay * w, self.ema_rate * (w - w_a))
