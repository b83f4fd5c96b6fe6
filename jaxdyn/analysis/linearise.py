"""Linear stability of an equilibrium, transversally to its orbit under a symmetry.

An equilibrium of a Siamese system comes with its whole orbit, so the Jacobian J there has one zero
eigenvalue for each orbit dimension. They say nothing about stability and are projected out: with P
the projection off the orbit's tangent space, the eigenvalues of P J P are those that decide, plus
one exact zero for each orbit dimension. Any further zero leaves the verdict *undetermined*. For a
discrete procedure J is the step's Jacobian less the identity, and moduli are compared with one; with
an optimizer the map is that of the state and the optimizer's memory together.
"""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Complex, Float, Integer

from ..arrays import ScalarLike, floating_state, is_traced, scalar, traceable
from ..checks import checked_arguments, number
from ..linear import after
from ..schedules import is_scheduled
from ..solve.fingerprint import fingerprint, is_own
from ..solve.methods.base import check_like, check_rate
from ..solve.methods.procedure import Optimizer, check_optimizer, optimizer_memory, take_step
from ..systems.base import DiscreteSystem, System, check_with, directions_of, field_of, step_of
from .soundness import is_autonomous, is_smooth, outlasts_rounding
from .symmetry import Orbit, commutes, orbit_of

Directions = Callable[[Any], Any]
Counts = Integer[Array | np.ndarray, "*batch"] | int
Numbers = Float[Array | np.ndarray, "*batch"] | float
_MANY = 10**8  # steps
_RESTS = 1e-6  # residual relative to the state's and the Jacobian's size, above which a state is no equilibrium
_NEAR = 1e-4  # how far the equilibrium may be by Newton's method, relative to the state's size; float32 gets that close


class Verdict(enum.IntEnum):
    """What the linearisation says of an orbit of equilibria."""

    STABLE = 0
    SADDLE = 1
    REPELLER = 2
    UNDETERMINED = 3


class Doubt(enum.IntEnum):
    """Why a linearisation decides nothing."""

    NONE = 0
    NOT_FINITE = 1
    NOT_SMOOTH = 2
    NO_EQUILIBRIUM = 3
    NO_SYMMETRY = 4
    ZERO_EIGENVALUE = 5
    NOT_AUTONOMOUS = 6
    ILL_CONDITIONED = 7


# The first that applies is told.
_ORDER = (
    Doubt.NOT_FINITE, Doubt.NOT_AUTONOMOUS, Doubt.NOT_SMOOTH, Doubt.NO_EQUILIBRIUM, Doubt.NO_SYMMETRY,
    Doubt.ZERO_EIGENVALUE, Doubt.ILL_CONDITIONED,
)  # fmt: skip
_WORDS = {
    Doubt.NOT_FINITE: "the map has no finite derivative here (as Adam's at rest, which divides by the root of a second "
    "moment that is zero; or a NaN in the state or the data, or a learning rate or tolerance that is not positive)",
    Doubt.NOT_SMOOTH: "the map is not differentiable here: a small nudge does not move as its derivative says",
    Doubt.NO_EQUILIBRIUM: "the state is no equilibrium",
    Doubt.NO_SYMMETRY: "the declared symmetry is none of this system, which does not commute with it",
    Doubt.ZERO_EIGENVALUE: "an eigenvalue beyond the orbit's neither grows nor decays",
    Doubt.NOT_AUTONOMOUS: "the field changes with time: its derivative at one time decides nothing",
    Doubt.ILL_CONDITIONED: "rounding errors of the Jacobian could bring an eigenvalue across the border of stability",
}


class Linearisation(NamedTuple):
    """The linearisation at a state (arrays carry the batch axes of a `vmap`, if any).

    `eigenvalues` of the projected Jacobian, 1/time (of a procedure: the step's multipliers); `orbit_dim` dimension of
    the orbit; `nullity` how many eigenvalues decide nothing (zero real part, modulus one; at least `orbit_dim`);
    `n_unstable` how many grow; `verdict` a `Verdict`; `doubt` a `Doubt`, why it is undetermined; `residual` the largest
    component of the field, or of what a step moves; `margin` −max Re, or one less the largest modulus, of the
    eigenvalues that are not the orbit's.
    """

    eigenvalues: Complex[Array | np.ndarray, "*batch size"]
    orbit_dim: Counts
    nullity: Counts
    n_unstable: Counts
    verdict: Counts
    doubt: Counts
    residual: Numbers
    margin: Numbers

    def __repr__(self) -> str:
        if is_traced(self) or np.ndim(self.verdict):
            return f"Linearisation(of {list(jnp.shape(self.verdict))} states, size {self.eigenvalues.shape[-1]})"
        verdict = Verdict(int(self.verdict))
        why = f" ({_WORDS[Doubt(int(self.doubt))]})" if verdict is Verdict.UNDETERMINED else ""
        size = self.eigenvalues.shape[-1]
        return (
            f"{verdict.name.lower()}{why}: {int(self.n_unstable)} of {size} directions grow, margin "
            f"{float(self.margin):.4g}, orbit of dimension {int(self.orbit_dim)}, residual {float(self.residual):.2g}"
        )

    __str__ = __repr__


@checked_arguments
def jacobian(system: System, state: Any, data: Any) -> Float[Array, "size size"]:
    """Exact Jacobian of the field, of the flattened state, by forward-mode differentiation."""
    state, _ = floating_state(state)
    check_with(system, state, data)
    field = _flat_field(system, state, data)
    return jax.jacfwd(lambda y: field(0.0, y))(ravel_pytree(state)[0])


@checked_arguments
def linearise(
    system: System,
    state: Any,
    data: Any,
    *,
    lr: Any = None,
    optimizer: Optimizer | None = None,
    directions: Directions | None = None,
    zero_tolerance: ScalarLike = 1e-9,
) -> Linearisation:
    """Linearise a flow, or the procedure with learning rate `lr`, at an equilibrium, and count what grows.

    Works under `jax.vmap` (on CPU: nonsymmetric eigenvalues). Computed in float64.

    Args:
        system: a system, or a field (t, state, data), or with `lr` a step (state, data, lr); without schedules.
        state: the equilibrium, a pytree of numbers; float32 ones are taken as they are, and `residual` says how good.
        data: what the field takes, such as Moments.
        lr: learning rate of the procedure; None for the flow.
        optimizer: of the procedure, see `descend`: the map of the state and the optimizer's memory is linearised, its
            counters after many steps (10⁸), where bias corrections and schedules of its own have come to their end.
        directions: the symmetry, a function from the state to tangent vectors of its orbit (a state
            with a leading axis). Default: the system's own `directions`, if it has any.
        zero_tolerance: an eigenvalue counts as deciding nothing within zero_tolerance·‖J‖.

    Returns:
        A `Linearisation`. The verdict is undetermined, and `doubt` says why, where anything is not finite, the map is
        not smooth or changes in time, the state is no equilibrium, the system does not commute with its symmetry, a
        further eigenvalue is zero, or rounding could turn the verdict.

    Raises:
        ValueError: if a traced state is not in float64 (a verdict needs more digits than float32 has), or does not fit.

    Example:
        >>> import jax
        >>> with jax.enable_x64(True):
        ...     print(linearise(lambda t, y, rate: rate * y, jnp.zeros(2), -0.5))
        stable: 0 of 2 directions grow, margin 0.5, orbit of dimension 0, residual 0

    Source: the claims it is used on are P Prop 4.10 and 4.11.
    """
    if not is_traced(system, state, data, lr):
        with jax.enable_x64(True):
            state = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), floating_state(state)[0])
            system, data = traceable((system, data), jnp.float64)
            lr = _checked(system, state, data, lr, optimizer, zero_tolerance)
            rate = None if lr is None else jnp.asarray(lr, jnp.float64)  # numbers are not compiled in
            arguments = (system, state, data, rate, optimizer, directions, jnp.asarray(zero_tolerance, jnp.float64))
            # Our systems are their numbers; a user's may be another one after a change of what it refers to.
            meaning = meaning_of(system, state, data, rate, optimizer) if directions is None else None
            return _linearised(*arguments) if meaning is None else _compiled(meaning, *arguments)
    state, dtype = floating_state(state)
    if dtype != jnp.float64:
        raise ValueError(f"state: a verdict needs float64, got {dtype}; trace under jax.enable_x64(True)")
    lr = _checked(system, state, data, lr, optimizer, zero_tolerance)
    return _linearised(system, state, data, lr, optimizer, directions, zero_tolerance)


def _checked(system: Any, state: Any, data: Any, lr: Any, optimizer: Any, zero_tolerance: Any) -> Any:
    """ValueError for what cannot be asked; the learning rate."""
    if is_scheduled((system, lr)):
        raise ValueError("system: a schedule has no equilibrium; take its numbers at one step, jd.at(system, step)")
    check_with(system, state, data, lr)
    if not is_traced(zero_tolerance):
        number("zero_tolerance", zero_tolerance, above=0)
    if lr is not None:
        lr = scalar("lr", lr, above=0)
    if optimizer is not None and lr is None:
        raise ValueError("lr: an optimizer trains in steps; expected a learning rate")
    return lr


def _linearised(
    system: Any, state: Any, data: Any, lr: Any, optimizer: Any, directions: Any, zero_tolerance: Any
) -> Linearisation:
    directions = directions_of(system) if directions is None else directions
    move, flat, memory = _map(system, state, data, lr, optimizer)
    growth, moved = jax.jacfwd(move)(flat), move(flat)
    orbit = orbit_of(directions, state, growth, memory)
    if directions is not None and (optimizer is None or isinstance(system, DiscreteSystem)):
        plain = move if optimizer is None else _map(system, state, data, lr, None)[0]
        orbit = orbit._replace(is_kept=orbit.is_kept & commutes(directions, state, plain, lr is not None))
    # Traced numbers could not be refused.
    finite = jnp.isfinite(growth).all() & jnp.isfinite(moved).all() & (jnp.asarray(zero_tolerance) > 0)
    if lr is not None:
        finite &= jnp.asarray(lr) > 0
    autonomous = jnp.asarray(True) if lr is not None else is_autonomous(_flat_field(system, state, data), flat)
    doubts = {
        Doubt.NOT_FINITE: ~finite,
        Doubt.NOT_AUTONOMOUS: ~autonomous,
        Doubt.NOT_SMOOTH: ~is_smooth(move, flat, growth),
        Doubt.NO_SYMMETRY: ~orbit.is_kept,
    }
    return _judged(jnp.where(finite, growth, 0), moved, flat, orbit, doubts, lr is not None, zero_tolerance)


@eqx.filter_jit
def _compiled(meaning: str, *arguments: Any) -> Linearisation:
    return _linearised(*arguments)


def meaning_of(system: Any, state: Any, data: Any, lr: Any, optimizer: Any) -> str | None:
    """What a compiled linearisation is kept by, beside its arguments; None where it must not be kept."""
    if is_own(system) and optimizer is None:
        return ""
    if not _is_hashable((system, data, optimizer)):
        return None
    directions = directions_of(system)
    symmetry = (directions, (state,))
    if lr is None:
        return fingerprint((field_of(system), (jnp.asarray(0.0), state, data)), symmetry) or None
    # With the memory as an argument, for steps far from the first, and as the optimizer begins it.
    begin = lambda state, lr: optimizer_memory(system, state, optimizer, lr)  # noqa: E731
    step = lambda state, memory, lr: take_step(system, optimizer, 0, state, memory, data, lr)  # noqa: E731
    first = lambda state, lr: step(state, begin(state, lr), lr)  # noqa: E731
    rate = jnp.asarray(lr)
    calls = (step, (state, begin(state, lr), rate)), (begin, (state, rate)), (first, (state, rate))
    return fingerprint(*calls, symmetry) or None


def _is_hashable(tree: Any) -> bool:
    """Whether what is no array in a tree can be looked up."""
    leaves, structure = jax.tree.flatten(eqx.filter(tree, eqx.is_array, inverse=True))
    try:
        hash((structure, *leaves))
        return all(isinstance(leaf == leaf, bool) for leaf in leaves)
    except Exception:  # a user's own comparison may raise anything
        return False


def _flat_field(system: Any, state: Any, data: Any) -> Any:
    """The field of (time, flattened state)."""
    unravel, field = ravel_pytree(state)[1], field_of(system)

    def flat_field(t: Any, y: Any) -> Array:
        rate = field(t, unravel(y), data)
        check_rate(state, rate)
        return ravel_pytree(rate)[0]

    return flat_field


def after_many_steps(memory: Any) -> Any:
    """An optimizer's memory whose counters, no numbers that change continuously, stand where many steps bring them."""
    late = lambda leaf: jnp.full_like(leaf, _MANY) if jnp.issubdtype(jnp.result_type(leaf), jnp.integer) else leaf  # noqa: E731
    return jax.tree.map(late, memory)


def _map(system: Any, state: Any, data: Any, lr: Any, optimizer: Any) -> tuple[Any, Array, int]:
    """What the flattened state (and memory) moves by: the rate, or a step's change; and the memory's size."""
    if lr is None:
        field = _flat_field(system, state, data)
        return (lambda y: field(0.0, y)), ravel_pytree(state)[0], 0
    if optimizer is None:
        step_of(system)
    else:
        check_optimizer(system, optimizer)
    leaves, structure = jax.tree.flatten(after_many_steps(optimizer_memory(system, state, optimizer, lr)))
    inexact = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves]
    numbers = [jnp.asarray(leaf, jnp.float64) for leaf, kind in zip(leaves, inexact, strict=True) if kind]
    flat, unravel = ravel_pytree((state, numbers))

    def move(y: Any):
        state, numbers = unravel(y)
        remaining = iter(numbers)
        memory = jax.tree.unflatten(structure, [next(remaining) if kind else leaf for leaf, kind in
                                                zip(leaves, inexact, strict=True)])  # fmt: skip
        state, memory = take_step(system, optimizer, 0, state, memory, data, lr)
        check_like("system", unravel(y)[0], state)
        after = [leaf for leaf, kind in zip(jax.tree.leaves(memory), inexact, strict=True) if kind]
        return ravel_pytree((state, after))[0] - y

    return move, flat, flat.size - ravel_pytree(state)[0].size


def _judged(
    growth: Any, moved: Any, flat: Any, orbit: Orbit, doubts: dict[Doubt, Any], is_map: bool, zero_tolerance: Any
) -> Linearisation:
    size, norm, residual = flat.size, jnp.linalg.norm(growth), jnp.max(jnp.abs(moved))
    off_orbit = jnp.eye(size) - orbit.basis @ orbit.basis.T
    projected = off_orbit @ growth @ off_orbit
    eigenvalues = jnp.linalg.eigvals(projected)
    rate = jnp.abs(1 + eigenvalues) - 1 if is_map else eigenvalues.real
    tolerance = zero_tolerance * norm
    n_zero, n_unstable = jnp.sum(jnp.abs(rate) <= tolerance), jnp.sum(rate > tolerance)
    has_zero = n_zero > orbit.dimension
    # The orbit's directions are made stable ones: what is left is regular, and tells how far the equilibrium is.
    regular = projected - (1.0 if is_map else norm) * orbit.basis @ orbit.basis.T
    in_turn = after(regular, eigenvalues)
    newton_step = jnp.linalg.solve(in_turn, off_orbit @ moved)
    is_robust = outlasts_rounding(after(regular, newton_step), eigenvalues, rate, orbit.dimension, is_map)
    to_equilibrium = jnp.linalg.norm(newton_step)
    bound = 1 + jnp.linalg.norm(flat)
    rests = residual <= _RESTS * bound * jnp.maximum(norm, jnp.finfo(flat.dtype).tiny)
    rests &= has_zero | (to_equilibrium <= _NEAR * bound)
    doubts = doubts | {
        Doubt.NO_EQUILIBRIUM: ~(rests | (residual == 0)),
        Doubt.ZERO_EIGENVALUE: has_zero,
        Doubt.ILL_CONDITIONED: ~is_robust,
    }
    doubt = jnp.asarray(Doubt.NONE)
    for kind in reversed(_ORDER):
        doubt = jnp.where(doubts[kind], kind, doubt)
    decided = jnp.where(
        n_unstable == 0,
        Verdict.STABLE,
        jnp.where(n_unstable + orbit.dimension == size, Verdict.REPELLER, Verdict.SADDLE),
    )
    # The orbit's zeros are exact up to rounding: leave out as many of the smallest as it has dimensions.
    order = jnp.argsort(jnp.abs(eigenvalues))
    margin = -jnp.max(jnp.where(jnp.arange(size) < orbit.dimension, -jnp.inf, rate[order]))
    nan = lambda value: jnp.where(doubts[Doubt.NOT_FINITE], jnp.nan, value)  # noqa: E731
    verdict = jnp.where(doubt == Doubt.NONE, decided, Verdict.UNDETERMINED)
    shown = nan(1 + eigenvalues if is_map else eigenvalues)
    return Linearisation(shown, orbit.dimension, n_zero, n_unstable, verdict, doubt, residual, nan(margin))
