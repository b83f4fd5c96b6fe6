"""Predictors set in closed form instead of by gradients: DirectPred and its relatives (T §4, eqs 18-19, Table 1).

A rule maps the estimated correlation F̂ of the predictor's inputs (and, for least squares, the
estimated cross-correlation with the teacher's outputs) to W_p. `DirectTraining` is the procedure:
sampled minibatches, moving-average estimates, the rule every N steps, gradient steps between.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from ..arrays import ArrayLike
from ..checks import number, whole_number
from ..moments import Moments
from .siamese import MovingAverage, StopGradient, StudentState, TeacherState

Rule = Callable[[Float[Array, "n n"], Float[Array, "n n"]], Float[Array, "n n"]]


class DirectPred(eqx.Module):
    """W_p = Û diag(p) Ûᵀ with F̂ = Û diag(s) Ûᵀ and p_j = √max(s_j − c, 0) + boost.

    Args:
        epsilon: ε >= 0; the paper's boost is ε max_j s_j (T eq 18), the released code's ε max_j √s_j.
        released: take the released code's boost.
        offset: c, the constant of T Table 7; 0 in DirectPred proper.
    """

    epsilon: float = eqx.field(converter=lambda value: number("epsilon", value, low=0), default=0.0)
    released: bool = eqx.field(static=True, default=False)
    offset: float = eqx.field(converter=lambda value: number("offset", value), default=0.0)

    def __call__(self, correlation: Float[Array, "n n"], cross: Float[Array, "n n"]) -> Float[Array, "n n"]:
        s, u = jnp.linalg.eigh(correlation)
        s = jnp.maximum(s, 0)
        boost = self.epsilon * (jnp.sqrt(s.max()) if self.released else s.max())
        return (u * (jnp.sqrt(jnp.maximum(s - self.offset, 0)) + boost)) @ u.T


class DirectCopy(eqx.Module):
    """W_p = F̂ + ε max_j s_j I: no eigendecomposition (Wang, Chen, Du & Tian 2021)."""

    epsilon: float = eqx.field(converter=lambda value: number("epsilon", value, low=0), default=0.0)

    def __call__(self, correlation: Float[Array, "n n"], cross: Float[Array, "n n"]) -> Float[Array, "n n"]:
        top = jnp.linalg.eigvalsh(correlation)[-1]
        return correlation + self.epsilon * top * jnp.eye(correlation.shape[0], dtype=correlation.dtype)


class LeastSquares(eqx.Module):
    """The "optimal" predictor W_p (F̂ + ridge·I) = ½(Ĝ + Ĝᵀ), Ĝ = E[f_a fᵀ] (T Table 1), which fails."""

    ridge: float = eqx.field(converter=lambda value: number("ridge", value, low=0), default=1e-6)

    def __call__(self, correlation: Float[Array, "n n"], cross: Float[Array, "n n"]) -> Float[Array, "n n"]:
        regular = correlation + self.ridge * jnp.eye(correlation.shape[0], dtype=correlation.dtype)
        return jnp.linalg.solve(regular, (cross + cross.T) / 2).T


class DirectState(NamedTuple):
    """Encoder, predictor, teacher, the moving averages F̂ and Ĝ [n, n], and the number of steps taken."""

    encoder: Float[Array, "n m"]
    predictor: Float[Array, "n n"]
    teacher: Float[Array, "n m"]
    correlation: Float[Array, "n n"]
    cross: Float[Array, "n n"]
    taken: Float[Array, ""]


class Samples(NamedTuple):
    """Paired views to draw minibatches from: Gaussian with the given moments, or the rows of two arrays.

    `draw(key, batch)` returns x, y [batch, m].
    """

    key: PRNGKeyArray
    root: Float[Array, "2m 2m"]

    @classmethod
    def gaussian(cls, key: PRNGKeyArray, moments: Moments) -> "Samples":
        """Zero-mean Gaussian pairs (x, y) with these joint second moments, which must be realisable."""
        if not moments.is_realisable:
            raise ValueError("moments: expected moments that some pair of views has")
        joint = jnp.block([[moments.xx, moments.yx.T], [moments.yx, moments.required_yy("sampling")]])
        values, vectors = jnp.linalg.eigh(joint)
        return cls(key, vectors * jnp.sqrt(jnp.maximum(values, 0)))

    def draw(self, step: Integer[Array, ""], batch: int) -> tuple[Array, Array]:
        """Minibatch number `step`."""
        m = self.root.shape[0] // 2
        normal = jax.random.normal(jax.random.fold_in(self.key, step), (batch, 2 * m), self.root.dtype)
        both = normal @ self.root.T
        return both[:, :m], both[:, m:]


class DirectTraining(eqx.Module):
    """Train the encoder of `system` on minibatches while `rule` sets the predictor.

    Each step draws x, y [batch, m], updates F̂ ← ρ F̂ + (1 − ρ) E_B[f fᵀ] (T eq 19) and Ĝ alike with
    E_B[f_a fᵀ], sets W_p by the rule in every `every`-th step, lets the encoder take its gradient step,
    and the predictor too in the steps in which it was not set, if `mixed`; then the teacher follows.

    Args:
        system: `StopGradient` or `MovingAverage`: decays, α_p and the teacher.
        rule: the predictor's rule.
        momentum: ρ in [0, 1], the memory of the estimates.
        every: N >= 1, steps between two settings of the predictor.
        mixed: whether the predictor takes gradient steps in between.
        batch: size of the minibatches.

    Source: T §4, Tables 1, 6-8.
    """

    system: StopGradient | MovingAverage
    rule: Rule
    momentum: float = eqx.field(converter=lambda value: number("momentum", value, low=0, high=1), default=0.3)
    every: int = eqx.field(converter=lambda value: whole_number("every", value), default=1, static=True)
    mixed: bool = eqx.field(default=False, static=True)
    batch: int = eqx.field(converter=lambda value: whole_number("batch", value), default=128, static=True)

    def state(self, *, encoder: ArrayLike, predictor: ArrayLike, teacher: ArrayLike | None = None) -> DirectState:
        """The start; the estimates begin at zero."""
        student = StopGradient(0.0).state(encoder=encoder, predictor=predictor)
        full = MovingAverage(0.0, ema_rate=0.0).state(encoder=encoder, predictor=predictor, teacher=teacher)
        zero = jnp.zeros_like(student.predictor)
        return DirectState(*full, zero, zero, jnp.zeros((), student.encoder.dtype))

    def step(self, state: DirectState, data: Samples, lr: Any) -> DirectState:
        """One minibatch step."""
        x, y = data.draw(state.taken.astype(jnp.uint32), self.batch)
        moments = jax.tree.map(lambda total: total / self.batch, (x.T @ x, y.T @ x))
        batch_moments = Moments(*moments)
        teacher = state.teacher if isinstance(self.system, MovingAverage) else state.encoder
        f, target = x @ state.encoder.T, y @ teacher.T
        remember = lambda old, new: self.momentum * old + (1 - self.momentum) * new  # noqa: E731
        correlation = remember(state.correlation, f.T @ f / self.batch)
        cross = remember(state.cross, target.T @ f / self.batch)
        sets = state.taken % self.every == 0
        predictor = jnp.where(sets, self.rule(correlation, cross), state.predictor)
        inner = self._inner(state.encoder, predictor, teacher)
        gradient = self.system.gradient(inner, batch_moments)
        learns = jnp.where(sets, 0.0, 1.0) if self.mixed else 0.0
        moved = self.system.advance(inner, StudentState(-lr * gradient.encoder, -lr * learns * gradient.predictor), lr)
        return DirectState(
            moved.encoder,
            moved.predictor,
            moved.teacher if isinstance(moved, TeacherState) else moved.encoder,
            correlation,
            cross,
            state.taken + 1,
        )

    def _inner(self, encoder: Array, predictor: Array, teacher: Array) -> Any:
        if isinstance(self.system, MovingAverage):
            return TeacherState(encoder, predictor, teacher)
        return StudentState(encoder, predictor)
