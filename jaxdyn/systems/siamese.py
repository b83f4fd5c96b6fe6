"""The linear Siamese systems: stop gradient, moving average and the plain objective (P §4; T eqs 2-4).

Encoder A [n, m], predictor B [n, n], teacher C [n, m]; X = E[x xᵀ], Y = E[y xᵀ], Z = E[y yᵀ];
λ_A, λ_B weight decays of encoder and predictor, α_p the predictor's learning-rate ratio.

    R(A, B, C) = B A X − C Y
    F(A, B, C) = ½ E‖B A x − C y‖² + ½ (λ_A ‖A‖² + λ_B ‖B‖²),     E(A, B) = F(A, B, A)

Time is in flow units (one unit is 1/lr steps); learning rates and decays are per unit of time.
"""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..arrays import ArrayLike, ScalarLike, is_traced, matrix, random_key, scalar
from ..checks import number, whole_number
from ..moments import Moments
from ..schedules import Schedule, as_schedule, at, is_scheduled

_SLACK = 1e-6  # of ema_rate·lr, a product of two roundings

if TYPE_CHECKING:  # what fields and steps see: runners replace schedules by their numbers
    Scalar = float | Float[Array, ""]
else:
    Scalar = float | Float[Array, ""] | Schedule


class StudentState(NamedTuple):
    """Encoder A [n, m] and predictor B [n, n]."""

    encoder: Float[Array, "n m"]
    predictor: Float[Array, "n n"]


class TeacherState(NamedTuple):
    """Encoder A [n, m], predictor B [n, n] and teacher C [n, m]."""

    encoder: Float[Array, "n m"]
    predictor: Float[Array, "n n"]
    teacher: Float[Array, "n m"]


SiameseState = StudentState | TeacherState


class WeightDecay(NamedTuple):
    """λ_A of the encoder and λ_B of the predictor, per unit of time."""

    encoder: Scalar
    predictor: Scalar


def convert_weight_decay(value: Any) -> WeightDecay:
    """One number or schedule for both, or a pair (encoder, predictor), each >= 0."""
    is_pair = isinstance(value, tuple | list) or (isinstance(value, np.ndarray | jax.Array) and value.ndim == 1)
    pair = tuple(value) if is_pair else (value, value)  # type: ignore[arg-type]
    if len(pair) != 2:
        raise ValueError(f"weight_decay: expected one number or a pair (encoder, predictor), got {value}")
    return WeightDecay(*map(convert_rate("weight_decay"), pair))


def convert_rate(name: str, *, optional: bool = False) -> Callable[[Any], Any]:
    """The converter of a hyperparameter that is a number >= 0 or a schedule, or None if it is `optional`."""

    def convert(value: Any) -> Any:
        value = as_schedule(value)
        left_out = value is None and optional
        return value if left_out or isinstance(value, Schedule) else scalar(name, value, low=0)

    return convert


class Siamese(eqx.Module):
    """What the three systems share: hyperparameters, states, the energies E and F.

    Args:
        weight_decay: λ >= 0, one number for both or a pair (encoder, predictor); per unit time.
        predictor_lr_ratio: α_p >= 0, how many times faster the predictor learns than the encoder.

    Any of them may be a schedule: a function of the steps taken in a procedure, of the time in a flow.
    """

    weight_decay: WeightDecay = eqx.field(converter=convert_weight_decay)
    predictor_lr_ratio: Scalar = eqx.field(converter=convert_rate("predictor_lr_ratio"), default=1.0)

    def __repr__(self) -> str:
        decay = self.weight_decay
        same = decay.encoder is decay.predictor or _told(decay.encoder) == _told(decay.predictor)
        parts = [_told(decay.encoder) if same else f"({_told(decay.encoder)}, {_told(decay.predictor)})"]
        others = {"predictor_lr_ratio": self.predictor_lr_ratio, "ema_rate": getattr(self, "ema_rate", None)}
        shown = {name: _told(value) for name, value in others.items() if value is not None}
        if shown["predictor_lr_ratio"] == "1":
            del shown["predictor_lr_ratio"]
        parts += [f"{name}={text}" for name, text in shown.items()]
        return f"{type(self).__name__}({', '.join(parts)})"

    @abc.abstractmethod
    def gradient(self, state: Any, moments: Moments) -> StudentState:
        """The direction that encoder and predictor descend (not a gradient of anything in general)."""

    def check(self, state: Any, moments: Any) -> None:
        """ValueError unless this is a state of this system, in shapes that fit the moments."""
        if not isinstance(state, kind := self._state_kind()):
            raise ValueError(
                f"state: expected a {kind.__name__} as {type(self).__name__}.state makes it, got {type(state).__name__}"
            )
        if not isinstance(moments, Moments):
            raise ValueError(f"data: expected Moments, got {type(moments).__name__}")
        n, m = state.encoder.shape[0], moments.m
        wanted = {"encoder": (n, m), "predictor": (n, n), "teacher": (n, m)}
        for name, part in state._asdict().items():
            if part.shape != wanted[name]:
                raise ValueError(
                    f"{name}: expected shape {wanted[name]} for embedding dimension {n} and moments of input dimension "
                    f"{m}, got {part.shape}"
                )

    @abc.abstractmethod
    def _state_kind(self) -> type:
        """What `state` returns."""

    @abc.abstractmethod
    def field(self, t: Any, state: Any, moments: Moments) -> Any:
        """Rate of change of the state, per unit of time."""

    @abc.abstractmethod
    def advance(self, state: Any, update: StudentState, lr: Scalar) -> Any:
        """Add `update` to encoder and predictor, then let the teacher follow for one step of size `lr`."""

    def state(self, *, encoder: ArrayLike, predictor: ArrayLike) -> Any:
        """The state with encoder A [n, m] and predictor B [n, n]; ValueError if the shapes disagree."""
        return StudentState(*_check_student(encoder, predictor))

    def random_state(self, key: PRNGKeyArray, *, n: int, m: int, scale: float = 1.0) -> Any:
        """A start with Gaussian A [n, m] and B [n, n], entries of standard deviation scale/√n; a teacher is a copy."""
        n, m = whole_number("n", n), whole_number("m", m)
        deviation = number("scale", scale, low=0) / n**0.5
        keys = jax.random.split(random_key("key", key))
        a, b = (deviation * jax.random.normal(k, (n, size)) for k, size in zip(keys, (m, n), strict=True))
        return self.state(encoder=a, predictor=b)

    def directions(self, state: Any) -> Any:
        """Velocities of the state under infinitesimal rotations U of the embedding, with a leading axis [n(n−1)/2].

        (A, B, C) → (U A, U B Uᵀ, U C) maps solutions to solutions. For each basis element Ω of the skew matrices:
        (Ω A, Ω B − B Ω, Ω C). They span the orbit's tangent space; fewer of them are independent where the state has
        a continuous stabiliser.
        """
        return rotation_directions(state)

    def learns(self, state: Any) -> StudentState:
        """What an optimizer moves: encoder and predictor."""
        return StudentState(state.encoder, state.predictor)

    def check_lr(self, lr: Any) -> None:
        """ValueError for a learning rate that the procedure cannot have."""

    def step(self, state: Any, moments: Moments, lr: Scalar) -> Any:
        """One step of the procedure as written: encoder and predictor from the old state, teacher last."""
        update = jax.tree.map(lambda gradient: -lr * gradient, self.gradient(state, moments))
        return self.advance(state, update, lr)

    def teacher(self, state: Any) -> Float[Array, "n m"]:
        """The teacher's weights C; the encoder's own for systems without a separate teacher."""
        return state.encoder

    def objective(self, state: Any, moments: Moments) -> Float[Array, ""]:
        """E(A, B) = F(A, B, A), the loss as a user would write it, weight decay included."""
        return self._energy(state, state.encoder, moments)

    def surrogate(self, state: Any, moments: Moments) -> Float[Array, ""]:
        """F(A, B, C), the loss seen with the teacher held fixed; equals E where the teacher is the encoder."""
        return self._energy(state, self.teacher(state), moments)

    def _energy(self, state: Any, teacher: jax.Array, moments: Moments) -> Float[Array, ""]:
        """½ E‖B A x − C y‖² + ½ (λ_A ‖A‖² + λ_B ‖B‖²), written out in the second moments."""
        moments = moments.in_working_precision()
        prediction = state.predictor @ state.encoder
        fit = (
            jnp.sum(prediction * (prediction @ moments.xx)) / 2
            - jnp.sum(prediction * (teacher @ moments.yx))
            + jnp.sum(teacher * (teacher @ moments.required_yy("this energy"))) / 2
        )
        decay = self.weight_decay.encoder * jnp.sum(state.encoder**2)
        return fit + (decay + self.weight_decay.predictor * jnp.sum(state.predictor**2)) / 2

    def _stopped_gradient(self, state: Any, teacher: jax.Array, moments: Moments) -> StudentState:
        """(Bᵀ R + λ_A A, α_p R Aᵀ + λ_B B): ∂F/∂(A, B) with the teacher held fixed (α_p = 1)."""
        a, b = state.encoder, state.predictor
        r = residual(a, b, teacher, moments)
        return StudentState(
            b.T @ r + self.weight_decay.encoder * a,
            self.predictor_lr_ratio * (r @ a.T) + self.weight_decay.predictor * b,
        )


class _StudentOnly(Siamese):
    """A system whose state is encoder and predictor alone: its flow is its step's limit."""

    def _state_kind(self) -> type:
        return StudentState

    def field(self, t: Any, state: StudentState, moments: Moments) -> StudentState:
        return jax.tree.map(jnp.negative, self.gradient(state, moments))

    def advance(self, state: StudentState, update: StudentState, lr: Scalar) -> StudentState:
        return StudentState(state.encoder + update.encoder, state.predictor + update.predictor)


class StopGradient(_StudentOnly):
    """Stop gradient (SG, SimSiam): the teacher is the encoder, but no gradient flows through it.

        Ȧ = −Bᵀ R(A, B, A) − λ_A A,    Ḃ = −α_p R(A, B, A) Aᵀ − λ_B B

    The procedure is explicit Euler with step `lr`, both parts from the old state.

    Example:
        >>> system = StopGradient(weight_decay=0.05)
        >>> state = system.state(encoder=[[1.0], [0.0]], predictor=[[1.0, 0.0], [0.0, 1.0]])
        >>> system.field(0.0, state, Moments.scalar(1.0, 0.8)).encoder.tolist()  # doctest: +ELLIPSIS
        [[-0.2...], [-0.0]]

    Source: P §4 (SG); T eqs 2-3 with W_a = W, symmetric Y.
    """

    def gradient(self, state: StudentState, moments: Moments) -> StudentState:
        return self._stopped_gradient(state, state.encoder, moments)


class Objective(_StudentOnly):
    """The plain objective E, without stop gradient: gradient descent, which always collapses (P Lemma 4.3).

        Ȧ = −Bᵀ (B A X − A Y) + (B A Yᵀ − A Z) − λ_A A,    Ḃ = −α_p R(A, B, A) Aᵀ − λ_B B

    E itself never rises along the flow when α_p = 1.

    Source: P §4; T Thm 2 (λ = 0).
    """

    def gradient(self, state: StudentState, moments: Moments) -> StudentState:
        moments = moments.in_working_precision()
        stopped = self._stopped_gradient(state, state.encoder, moments)
        a, b = state.encoder, state.predictor
        through_target = a @ moments.required_yy("the objective") - b @ a @ moments.yx.T
        return stopped._replace(encoder=stopped.encoder + through_target)


class MovingAverage(Siamese):
    """Exponential moving average (EMA, BYOL, JEPA): the teacher follows the encoder at rate β.

        Ȧ = −Bᵀ R(A, B, C) − λ_A A,    Ḃ = −α_p R(A, B, C) Aᵀ − λ_B B,    Ċ = β (A − C)

    The procedure updates A and B from the old state, then C⁺ = α C + (1 − α) A⁺ with α = 1 − β lr.

    Args:
        ema_rate: β >= 0, per unit of time; 0 freezes the teacher.

    Source: P §4 (EMA); T eqs 2-4 (W_a = C, symmetric Y).
    """

    ema_rate: Scalar = eqx.field(converter=convert_rate("ema_rate"), kw_only=True)

    @classmethod
    def from_decay(
        cls,
        weight_decay: Any,
        predictor_lr_ratio: Any = 1.0,
        *,
        ema_decay: ScalarLike | Schedule | Callable[[Any], Any],
        lr: ScalarLike | Schedule | Callable[[Any], Any],
    ) -> "MovingAverage":
        """The system whose procedure at learning rate `lr` has decay α = `ema_decay` in [0, 1].

        Either may be a schedule of the steps taken, such as `byol_decay(0.99, steps)`.
        """
        ema_decay, lr = as_schedule(ema_decay), as_schedule(lr)
        if isinstance(ema_decay, Schedule) or isinstance(lr, Schedule):
            return cls(weight_decay, predictor_lr_ratio, ema_rate=Schedule(_rate_of_decay, ema_decay, lr))
        alpha = scalar("ema_decay", ema_decay, low=0, high=1)
        return cls(weight_decay, predictor_lr_ratio, ema_rate=(1 - alpha) / scalar("lr", lr, above=0))

    def state(self, *, encoder: ArrayLike, predictor: ArrayLike, teacher: ArrayLike | None = None) -> TeacherState:
        """The state with A [n, m], B [n, n] and teacher C [n, m], by default a copy of the encoder."""
        a, b = _check_student(encoder, predictor)
        c = a if teacher is None else matrix("teacher", teacher)
        if c.shape != a.shape:
            raise ValueError(f"teacher: expected shape {a.shape} like encoder, got {c.shape}")
        return TeacherState(a, b, c.astype(a.dtype))

    def _state_kind(self) -> type:
        return TeacherState

    def check_lr(self, lr: Any) -> None:
        """ValueError where β·lr > 1: the decay α = 1 − β·lr would be negative."""
        if is_traced(self.ema_rate, lr) or is_scheduled((self.ema_rate, lr)):
            return
        product = np.max(np.asarray(self.ema_rate) * np.asarray(lr))
        if not product <= 1 + _SLACK:
            raise ValueError(f"ema_rate: expected ema_rate * lr <= 1 (a decay in [0, 1]), got {product:g}")

    def teacher(self, state: TeacherState) -> Float[Array, "n m"]:
        return state.teacher

    def gradient(self, state: TeacherState, moments: Moments) -> StudentState:
        return self._stopped_gradient(state, state.teacher, moments)

    def field(self, t: Any, state: TeacherState, moments: Moments) -> TeacherState:
        da, db = self.gradient(state, moments)
        return TeacherState(-da, -db, self.ema_rate * (state.encoder - state.teacher))

    def advance(self, state: TeacherState, update: StudentState, lr: Scalar) -> TeacherState:
        encoder = state.encoder + update.encoder
        share = self.ema_rate * lr
        share = jnp.where(share <= 1 + _SLACK, share, jnp.nan)  # traced rates: a negative decay is no procedure
        teacher = state.teacher + share * (encoder - state.teacher)
        return TeacherState(encoder, state.predictor + update.predictor, teacher)


def _told(value: Any) -> str:
    """A hyperparameter in few words."""
    if isinstance(value, Schedule):
        return "schedule"
    if is_traced(value):
        return "traced"
    return f"{float(value):.6g}" if np.ndim(value) == 0 else f"[{', '.join(map(str, np.shape(value)))}]"


def _rate_of_decay(step: Any, ema_decay: Any, lr: Any) -> Any:
    return (1 - at(ema_decay, step)) / at(lr, step)


def rotation_directions(state: Any) -> Any:
    """`Siamese.directions`."""
    n = state.encoder.shape[0]
    rows, columns = jnp.triu_indices(n, 1)
    index = jnp.arange(rows.size)
    skew = jnp.zeros((rows.size, n, n), state.encoder.dtype)
    skew = skew.at[index, rows, columns].set(1).at[index, columns, rows].set(-1)

    def velocity(omega: Any):
        moved = {"encoder": omega @ state.encoder, "predictor": omega @ state.predictor - state.predictor @ omega}
        if isinstance(state, TeacherState):
            moved["teacher"] = omega @ state.teacher
        return state._replace(**moved)

    return jax.vmap(velocity)(skew)


def residual(
    encoder: Float[Array, "n m"], predictor: Float[Array, "n n"], teacher: Float[Array, "n m"], moments: Moments
) -> Float[Array, "n m"]:
    """R(A, B, C) = B A X − C Y, the mean of (B A x − C y) xᵀ (P Lemma 4.1)."""
    chex.assert_equal_shape([encoder, teacher])
    chex.assert_shape(predictor, (encoder.shape[0], encoder.shape[0]))
    chex.assert_shape([moments.xx, moments.yx], (encoder.shape[1], encoder.shape[1]))
    moments = moments.in_working_precision()
    return predictor @ encoder @ moments.xx - teacher @ moments.yx


def _check_student(encoder: ArrayLike, predictor: ArrayLike) -> tuple[jax.Array, jax.Array]:
    a, b = matrix("encoder", encoder), matrix("predictor", predictor, square=True)
    if b.shape[0] != a.shape[0]:
        raise ValueError(
            f"predictor: expected shape {(a.shape[0], a.shape[0])} for an encoder of shape {a.shape}, got {b.shape}"
        )
    dtype = jnp.result_type(a, b)
    return a.astype(dtype), b.astype(dtype)
