"""Programs of an engine: a map iterated, a flow integrated, each as the step of one trial.

A program is written for a single trial in plain JAX, like the systems themselves: it has `start`, the step
`program(path, trial)`, `done` and `record`, and any engine runs it. A step of an adaptive method is one attempt,
accepted or not, with the trial's own step size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ..linear import solve_linear
from . import tableaux as table

Field = Callable[[Any, Any, Any], Any]
Until = Callable[[Any, Any, Any], Any]
Save = Callable[[Any, Any, Any], Any]

_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 10.0  # of the step size, as diffrax has them


class Trial(NamedTuple):
    """What a trial keeps: its parameters, the end of its time, and the method's numbers.

    Adaptive ones have tolerances, fixed steps their size, how many they are, and the start of time.
    """

    params: Any
    t1: Any
    dt: Any = ()
    rtol: Any = ()
    atol: Any = ()
    t0: Any = ()
    n_steps: Any = ()


class Path(NamedTuple):
    """What a trial carries: its time, its state; for adaptive methods the next step and the rate at `t`, for fixed
    steps how many were taken."""

    t: Any
    state: Any
    dt: Any = ()
    rate: Any = ()
    taken: Any = ()


def checked_rate(function: Field, t: Any, state: Any, params: Any) -> Any:
    """function(t, state, params), which must be like the state; at trace time."""
    rate = function(t, state, params)
    like = [jax.tree.structure(tree) for tree in (state, rate)]
    if like[0] != like[1] or [jnp.shape(leaf) for leaf in jax.tree.leaves(rate)] != [
        jnp.shape(leaf) for leaf in jax.tree.leaves(state)
    ]:
        described = [jax.tree.map(jnp.shape, tree) for tree in (state, rate)]
        raise ValueError(f"function: expected a rate like the state, shapes {described[0]}, got {described[1]}")
    return rate


def plus(state: Any, *terms: tuple[Any, Any]) -> Any:
    """state + Σ factor·tree."""

    def leaf(y, *slopes):
        for (factor, _), slope in zip(terms, slopes, strict=True):
            y = y + factor * slope
        return y

    return jax.tree.map(leaf, state, *(tree for _, tree in terms))


def combination(factors: Any, trees: Any) -> Any:
    """Σ factor·tree, without the zeros."""
    chosen = [(factor, tree) for factor, tree in zip(factors, trees, strict=True) if not _is_zero(factor)]
    return jax.tree.map(lambda *leaves: sum(f * leaf for (f, _), leaf in zip(chosen, leaves, strict=True)),
                        *(tree for _, tree in chosen))  # fmt: skip


def _is_zero(factor: Any) -> bool:
    return isinstance(factor, float) and float(factor) == 0.0


@dataclass(frozen=True)
class Program:
    """Shared by all: `function` is the map or field, `until` ends a trial early, `save` says what is recorded."""

    function: Callable[..., Any]
    until: Until | None = None
    save: Save | None = None
    at_end: bool = True  # whether a trial ends at its own t1; if not, the engine counts the steps

    def done(self, previous: Path, path: Path, trial: Trial) -> Any:
        ended = path.t >= trial.t1 if self.at_end else jnp.zeros((), bool)
        if self.until is None:
            return ended
        # A step that was rejected moved nothing, which a rule must not take for rest.
        moved = path.t > previous.t
        return ended | (moved & self.until(previous.state, path.state, trial.params))

    # Whether a path needs more than its time and state before the first step, which `start` computes.
    adaptive: ClassVar[bool] = False
    keeps_rate: ClassVar[bool] = False

    def start(self, state: Any, trial: Trial, t0: Any) -> Path:
        return Path(t0, state)

    def rate(self, t: Any, state: Any, params: Any) -> Any:
        return checked_rate(self.function, t, state, params)

    @property
    def judged(self) -> bool:
        """Whether `done` can be true."""
        return self.at_end or self.until is not None

    def record(self, previous: Path, path: Path, trial: Trial, when: Any) -> tuple[Any, Any]:
        """Whether the step passed the time `when`, and what is saved of the state there."""
        when = when.astype(path.t.dtype)
        due = (when <= path.t) & (path.t > previous.t)
        span = jnp.where(path.t > previous.t, path.t - previous.t, 1)
        x = jnp.clip((when - previous.t) / span, 0, 1)
        return due, self.save(when, self.between(previous, path, trial, x), trial.params)  # type: ignore[misc]

    def between(self, previous: Path, path: Path, trial: Trial, x: Any) -> Any:
        """The state at a share x of the last step."""
        raise NotImplementedError


class Map(Program):
    """A step function iterated; time is the number of steps."""

    def __call__(self, path: Path, trial: Trial) -> Path:
        return Path(path.t + 1, self.function(path.state, trial.params))

    def between(self, previous: Path, path: Path, trial: Trial, x: Any) -> Any:
        return jax.tree.map(lambda old, new: jnp.where(x < 1, old, new), previous.state, path.state)


class _Fixed(Program):
    """Steps of a fixed size, `trial.dt`: `trial.n_steps` of them end at `trial.t1`."""

    def start(self, state: Any, trial: Trial, t0: Any) -> Path:
        return Path(t0, state, taken=jnp.zeros((), jnp.int32))

    def __call__(self, path: Path, trial: Trial) -> Path:
        # By the count: a sum of steps would drift.
        taken = path.taken + 1
        then = jnp.where(taken >= trial.n_steps, trial.t1, trial.t0 + taken.astype(trial.dt.dtype) * trial.dt)
        return Path(then, self.advance(path, trial), taken=taken)

    def advance(self, path: Path, trial: Trial) -> Any:
        """The state one step later."""
        raise NotImplementedError


class RK4(_Fixed):
    """The classical method of order 4; between steps the cubic through both ends and their rates."""

    def advance(self, path: Path, trial: Trial) -> Any:
        t, y, h = path.t, path.state, trial.dt
        rate = lambda t, y: self.rate(t, y, trial.params)  # noqa: E731
        k1 = rate(t, y)
        k2 = rate(t + h / 2, plus(y, (h / 2, k1)))
        k3 = rate(t + h / 2, plus(y, (h / 2, k2)))
        k4 = rate(t + h, plus(y, (h, k3)))
        return jax.tree.map(lambda y, a, b, c, d: y + h / 6 * (a + 2 * b + 2 * c + d), y, k1, k2, k3, k4)

    def between(self, previous: Path, path: Path, trial: Trial, x: Any) -> Any:
        h = path.t - previous.t
        first = self.rate(previous.t, previous.state, trial.params)
        last = self.rate(path.t, path.state, trial.params)

        def cubic(y, z, dy, dz):
            return (1 - x) * y + x * z + x * (x - 1) * ((1 - 2 * x) * (z - y) + (x - 1) * h * dy + x * h * dz)

        return jax.tree.map(cubic, previous.state, path.state, first, last)


def _tsit5_stages(rate: Field, t: Any, y: Any, h: Any, params: Any, first: Any) -> tuple[Any, list[Any]]:
    """The new state and the rates of all seven stages, the last of them the new state's."""
    rates, new = [first], y
    for node, row in zip(table.TSIT5_C, table.TSIT5_A, strict=True):
        slope = combination(row, rates)
        new = plus(y, (h, slope))
        rates.append(rate(t + node * h, new, params))
    return new, rates


class FixedTsit5(_Fixed):
    """Tsitouras' method of order 5 in steps of a fixed size."""

    def advance(self, path: Path, trial: Trial) -> Any:
        t, y, h = path.t, path.state, trial.dt
        return _tsit5_stages(self.rate, t, y, h, trial.params, self.rate(t, y, trial.params))[0]

    def between(self, previous: Path, path: Path, trial: Trial, x: Any) -> Any:
        h = path.t - previous.t
        first = self.rate(previous.t, previous.state, trial.params)
        _, rates = _tsit5_stages(self.rate, previous.t, previous.state, h, trial.params, first)
        return plus(previous.state, (h, combination(table.tsit5_weights(x), rates)))


class _Adaptive(Program):
    """Steps by the estimated error: a step stands if its scaled root mean square is below one."""

    adaptive = True

    def start(self, state: Any, trial: Trial, t0: Any) -> Path:
        """The first step size after Hairer, Nørsett & Wanner (II.4)."""
        rate = self.rate(t0, state, trial.params)
        size, speed = (self._scaled(tree, state, state, trial) for tree in (state, rate))
        ready = (size > 1e-5) & (speed > 1e-5)
        small = jnp.where(ready, 0.01 * size / jnp.where(ready, speed, 1), 1e-6)
        ahead = self.rate(t0 + small, plus(state, (small, rate)), trial.params)
        bend = self._scaled(jax.tree.map(jnp.subtract, ahead, rate), state, state, trial) / small
        most = jnp.maximum(speed, bend)
        next_ = jnp.where(most <= 1e-15, jnp.maximum(1e-6, small * 1e-3), (0.01 / most) ** 0.2)
        dt = jnp.minimum(100 * small, next_)
        return Path(t0, state, jnp.where(jnp.isfinite(dt), dt, 1e-6), rate if self.keeps_rate else ())

    def attempt(self, path: Path, trial: Trial, h: Any) -> tuple[Any, Any, Any]:
        """(new state, error, rate to keep) of a step of size h."""
        raise NotImplementedError

    def __call__(self, path: Path, trial: Trial) -> Path:
        # Of what remains, so that a rejected last step is a shorter one.
        last = path.dt >= (trial.t1 - path.t) * (1 - 100 * jnp.finfo(path.t.dtype).eps)
        h = jnp.where(last, trial.t1 - path.t, path.dt)
        new, error, rate = self.attempt(path, trial, h)
        square = self._mean_square(error, path.state, new, trial)
        stands = square < 1
        # The error goes with h⁵; log and exp are an engine's own code. A step to no finite number is shortened.
        factor = _SAFETY * jnp.exp(-0.1 * jnp.log(square))
        factor = jnp.clip(
            jnp.where(jnp.isfinite(square), factor, _SHRINK),
            jnp.where(stands, 1.0, _SHRINK),
            jnp.where(stands, _GROW, _SAFETY),
        )
        dt = h * factor
        # Steps that no longer advance the time: the trial cannot go on, which engines see by a number not finite.
        stuck = (dt <= 4 * jnp.finfo(path.t.dtype).eps * jnp.abs(path.t)) & ~stands
        keep = lambda new, old: jnp.where(stands, new, old)  # noqa: E731
        then = keep(jnp.where(last, trial.t1, path.t + h), path.t)
        return Path(
            then,
            jax.tree.map(keep, new, path.state),
            jnp.where(stuck, jnp.nan, dt),
            jax.tree.map(keep, rate, path.rate),
        )

    def _mean_square(self, error: Any, old: Any, new: Any, trial: Trial) -> Any:
        def leaf(e, y, z):
            return jnp.sum((e / (trial.atol + trial.rtol * jnp.maximum(jnp.abs(y), jnp.abs(z)))) ** 2)

        count = sum(y.size for y in jax.tree.leaves(old))
        return sum(jax.tree.leaves(jax.tree.map(leaf, error, old, new))) / count

    def _scaled(self, tree: Any, old: Any, new: Any, trial: Trial) -> Any:
        return jnp.sqrt(self._mean_square(tree, old, new, trial))


class Tsit5(_Adaptive):
    """Tsitouras' pair of order 5(4), explicit: for flows that are not stiff."""

    keeps_rate = True

    def attempt(self, path: Path, trial: Trial, h: Any) -> tuple[Any, Any, Any]:
        new, rates = _tsit5_stages(self.rate, path.t, path.state, h, trial.params, path.rate)
        error = jax.tree.map(lambda slope: h * slope, combination(table.TSIT5_ERROR, rates))
        return new, error, rates[-1]

    def between(self, previous: Path, path: Path, trial: Trial, x: Any) -> Any:
        h = path.t - previous.t
        _, rates = _tsit5_stages(self.rate, previous.t, previous.state, h, trial.params, previous.rate)
        return plus(previous.state, (h, combination(table.tsit5_weights(x), rates)))


class Rodas5P(_Adaptive):
    """Steinebach's Rosenbrock pair of order 5(4), L-stable, with the exact Jacobian: for stiff flows."""

    def attempt(self, path: Path, trial: Trial, h: Any) -> tuple[Any, Any, Any]:
        stages, flat, back = self._stages(path, trial, h)
        total = flat + sum(a * u for a, u in zip(table.RODAS5P_A[-1], stages[:-1], strict=True))
        return back(total + stages[-1]), back(stages[-1]), ()

    def between(self, previous: Path, path: Path, trial: Trial, x: Any) -> Any:
        stages, flat, back = self._stages(previous, trial, path.t - previous.t)
        k1, k2, k3 = (sum(h * u for h, u in zip(row, stages, strict=True)) for row in table.RODAS5P_DENSE)
        end, _ = ravel_pytree(path.state)
        return back((1 - x) * flat + x * (end + (1 - x) * (k1 + x * (k2 + x * k3))))

    def _stages(self, path: Path, trial: Trial, h: Any) -> tuple[list[Any], Any, Any]:
        """The eight stages U_i of (I/(γh) − J) U_i = f(t + c_i h, y + Σ a U) + Σ C U / h + h d_i ∂f/∂t."""
        flat, back = ravel_pytree(path.state)
        rate = lambda t, y: ravel_pytree(self.rate(t, back(y), trial.params))[0]  # noqa: E731
        jacobian = jax.jacfwd(rate, argnums=1)(path.t, flat)
        _, drift = jax.jvp(lambda t: rate(t, flat), (path.t,), (jnp.ones_like(path.t),))
        size = flat.size
        matrix = jnp.eye(size, dtype=flat.dtype) / (table.RODAS5P_GAMMA * h) - jacobian
        inverse = solve_linear(matrix, jnp.eye(size, dtype=flat.dtype))
        stages: list[Any] = []
        for node, a, coupling, d in zip(
            table.RODAS5P_C, table.RODAS5P_A, table.RODAS5P_COUPLING, table.RODAS5P_D, strict=True
        ):
            y = flat + sum(factor * u for factor, u in zip(a, stages, strict=True))
            right = rate(path.t + node * h, y)
            right = right + sum(factor * u for factor, u in zip(coupling, stages, strict=True)) / h
            right = right + (h * d) * drift
            stages.append(inverse @ right)
        return stages, flat, back


METHODS: dict[str, type[Program]] = {"map": Map, "rk4": RK4, "tsit5": Tsit5, "rodas5p": Rodas5P}
