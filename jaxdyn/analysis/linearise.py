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

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Complex, Float, Integer

from ..arrays import floating_state, is_traced, scalar, traceable
from ..checks import number
from ..schedules import is_scheduled
from ..solve.methods.procedure import Optimizer, check_optimizer, optimizer_memory, take_step
from ..systems.base import System, check_with, directions_of, field_of, step_of
from .symmetry import orbit_of

Directions = Callable[[Any], Any]
Counts = Integer[Array | np.ndarray, "*batch"] | int
Numbers = Float[Array | np.ndarray, "*batch"] | float
_MANY = 10**8  # steps
_NUDGE, _SMOOTH = 1e-6, 1e-2  # size of a nudge, and how well its image must agree with the derivative
_RESTS = 1e-6  # residual relative to the state's and the Jacobian's size, above which a state is no equilibrium


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


_WORDS = {
    Doubt.NOT_FINITE: "the map has no finite derivative here (as Adam's at rest, which divides by the root of a second "
    "moment that is zero; or a NaN in the state, the data or the learning rate)",
    Doubt.NOT_SMOOTH: "the map is not differentiable here: a small nudge does not move as its derivative says",
    Doubt.NO_EQUILIBRIUM: "the state is no equilibrium",
    Doubt.NO_SYMMETRY: "the declared symmetry is none of this system: its tangents are not null vectors",
    Doubt.ZERO_EIGENVALUE: "an eigenvalue beyond the orbit's neither grows nor decays",
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


def jacobian(system: System, state: Any, data: Any) -> Float[Array, "size size"]:
    """Exact Jacobian of the field, of the flattened state, by forward-mode differentiation."""
    flat, unravel = ravel_pytree(state)
    field = field_of(system)  # type: ignore[arg-type]
    return jax.jacfwd(lambda y: ravel_pytree(field(0.0, unravel(y), data))[0])(flat)


def linearise(
    system: System,
    state: Any,
    data: Any,
    *,
    lr: Any = None,
    optimizer: Optimizer | None = None,
    directions: Directions | None = None,
    zero_tolerance: float = 1e-9,
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
        A `Linearisation`. The verdict is undetermined, and `doubt` says why, where anything is not finite, the state is
        no equilibrium, the symmetry's tangents are not null vectors, or a further eigenvalue is zero.

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
            state = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), state)
            system, data = traceable((system, data), jnp.float64)
            return _linearised(system, state, data, lr, optimizer, directions, zero_tolerance)
    state, dtype = floating_state(state)
    if dtype != jnp.float64:
        raise ValueError(f"state: a verdict needs float64, got {dtype}; trace under jax.enable_x64(True)")
    return _linearised(system, state, data, lr, optimizer, directions, zero_tolerance)


def _linearised(
    system: Any, state: Any, data: Any, lr: Any, optimizer: Any, directions: Any, zero_tolerance: Any
) -> Linearisation:
    if is_scheduled((system, lr)):
        raise ValueError("system: a schedule has no equilibrium; take its numbers at one step, jd.at(system, step)")
    check_with(system, state, data, lr)
    if not is_traced(zero_tolerance):
        number("zero_tolerance", zero_tolerance, above=0)
    if lr is not None:
        lr = scalar("lr", lr, above=0)
    if optimizer is not None and lr is None:
        raise ValueError("lr: an optimizer trains in steps; expected a learning rate")
    move, flat, memory = _map(system, state, data, lr, optimizer)
    growth = jax.jacfwd(move)(flat)
    directions = directions_of(system) if directions is None else directions
    nudge = _NUDGE * jnp.cos(jnp.arange(flat.size) + 0.5)
    off = lambda nudge: jnp.linalg.norm(move(flat + nudge) - move(flat) - growth @ nudge)  # noqa: E731
    # Both ways: a kink shows on the side whose slope differentiation did not take.
    bent = jnp.maximum(off(nudge), off(-nudge))
    smooth = bent <= _SMOOTH * (jnp.linalg.norm(growth) + _SMOOTH) * jnp.linalg.norm(nudge)
    return _judged(growth, move(flat), smooth, state, flat, memory, directions, lr, zero_tolerance)


def _map(system: Any, state: Any, data: Any, lr: Any, optimizer: Any) -> tuple[Any, Array, int]:
    """What the flattened state (and memory) moves by: the rate, or a step's change; and the memory's size."""
    if lr is None:
        flat, unravel = ravel_pytree(state)
        field = field_of(system)
        return (lambda y: ravel_pytree(field(0.0, unravel(y), data))[0]), flat, 0
    if optimizer is None:
        step_of(system)
    else:
        check_optimizer(system, optimizer)
    whole = optimizer_memory(system, state, optimizer, lr)
    # Counters are no numbers that change continuously: they stand where many steps have brought them.
    leaves, structure = jax.tree.flatten(whole)
    late = lambda leaf: jnp.full_like(leaf, _MANY) if jnp.issubdtype(jnp.result_type(leaf), jnp.integer) else leaf  # noqa: E731
    leaves = [late(leaf) for leaf in leaves]
    inexact = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves]
    numbers = [jnp.asarray(leaf, jnp.float64) for leaf, kind in zip(leaves, inexact, strict=True) if kind]
    flat, unravel = ravel_pytree((state, numbers))

    def move(y: Any):
        state, numbers = unravel(y)
        remaining = iter(numbers)
        memory = jax.tree.unflatten(structure, [next(remaining) if kind else leaf for leaf, kind in
                                                zip(leaves, inexact, strict=True)])  # fmt: skip
        state, memory = take_step(system, optimizer, 0, state, memory, data, lr)
        after = [leaf for leaf, kind in zip(jax.tree.leaves(memory), inexact, strict=True) if kind]
        return ravel_pytree((state, after))[0] - y

    return move, flat, flat.size - ravel_pytree(state)[0].size


def _judged(
    growth: Any,
    moved: Any,
    smooth: Any,
    state: Any,
    flat: Any,
    memory: int,
    directions: Any,
    lr: Any,
    zero_tolerance: Any,
) -> Linearisation:
    size = flat.size
    residual = jnp.max(jnp.abs(moved))
    finite = jnp.isfinite(growth).all() & jnp.isfinite(residual)
    j = jnp.where(finite, growth, 0)
    basis, orbit_dim, is_kept = orbit_of(directions, state, j, memory)
    off_orbit = jnp.eye(size) - basis @ basis.T
    eigenvalues = jnp.linalg.eigvals(off_orbit @ j @ off_orbit)
    rate = eigenvalues.real if lr is None else jnp.abs(1 + eigenvalues) - 1
    norm = jnp.linalg.norm(j)
    tolerance = zero_tolerance * norm
    n_zero = jnp.sum(jnp.abs(rate) <= tolerance)
    n_unstable = jnp.sum(rate > tolerance)
    rests = residual <= _RESTS * (1 + jnp.linalg.norm(flat)) * jnp.maximum(norm, jnp.finfo(flat.dtype).tiny)
    rests |= residual == 0
    doubt = jnp.where(
        ~finite,
        Doubt.NOT_FINITE,
        jnp.where(~smooth, Doubt.NOT_SMOOTH, jnp.where(~rests, Doubt.NO_EQUILIBRIUM, jnp.where(~is_kept,
                  Doubt.NO_SYMMETRY, jnp.where(n_zero > orbit_dim, Doubt.ZERO_EIGENVALUE, Doubt.NONE)))),
    )  # fmt: skip
    decided = jnp.where(
        n_unstable == 0,
        Verdict.STABLE,
        jnp.where(n_unstable + orbit_dim == size, Verdict.REPELLER, Verdict.SADDLE),
    )
    # The orbit's zeros are exact up to rounding: leave out as many of the smallest as it has dimensions.
    order = jnp.argsort(jnp.abs(eigenvalues))
    margin = -jnp.max(jnp.where(jnp.arange(size) < orbit_dim, -jnp.inf, rate[order]))
    if lr is not None:
        eigenvalues = 1 + eigenvalues
    nan = lambda value: jnp.where(finite, value, jnp.nan)  # noqa: E731
    verdict = jnp.where(doubt == Doubt.NONE, decided, Verdict.UNDETERMINED)
    return Linearisation(nan(eigenvalues), orbit_dim, n_zero, n_unstable, verdict, doubt, residual, nan(margin))
