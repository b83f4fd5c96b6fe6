"""Where EMA's stable limit cycle begins: beside P-oscillation, followed as Y goes towards its symmetric part."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ...analysis.cycles import LimitCycle, limit_cycle
from ...equilibria.census import equilibria
from ...moments import Moments
from ...solve.flow import flow
from ...systems.siamese import MovingAverage
from .base import Clause, Row, clause, limit

_N = 2
_LONG, _SPAN = 30_000.0, 3_000.0
_TOLERANCE = 1e-10
_BEFORE, _NEAR, _SHARES = 0.998, (0.9987, 0.999), (0.9995, 1.0, 1.0005)  # of Y's odd part
_P = "share of Y's odd part"
Turned = Callable[[float], Moments]


def begins(system: MovingAverage, moments: Moments, state: Any, fast: bool) -> tuple[Clause, list[Row]]:
    """Of a cycle at `moments` through `state`: where it is gone, and the unstable one beside it, from a Hopf point on.

    Y(p) = Yₛ + p(Y − Yₛ) with Yₛ the symmetric part. An unstable cycle with one growing direction is what separates the
    starts that come to rest from those that go on: it is found by bisection, then closed by Newton's method.
    """
    even = (moments.yx + moments.yx.T) / 2
    turned = lambda p: Moments(moments.xx, even + p * (moments.yx - even))  # noqa: E731
    shares, near = (_SHARES[:1], ()) if fast else (_SHARES, _NEAR)
    hopf, period = _hopf(system, turned, 1.0, 1.005)
    stable = [_settled_cycle(system, turned(p), state) for p in shares]
    rest = _final(system, turned(_BEFORE), state)
    before = _swing(system, turned(_BEFORE), rest)
    unstable: list[LimitCycle] = []
    for p, on in zip(shares, stable, strict=True):
        rest = _final(system, turned(p), rest)
        edge = _between(system, turned(p), rest, on.state)
        guess = _period(system, turned(p), edge)
        unstable.append(limit_cycle(system, edge, turned(p), period=guess, rtol=_TOLERANCE, solver="dopri8"))
    swings = [_swing(system, turned(p), each.state, each.period) for p, each in zip(shares, unstable, strict=True)]
    periods = [each.period for each in unstable]
    multipliers = [_largest(_settled_cycle(system, turned(p), state)) for p in near] + [
        _largest(each) for each in stable
    ]
    text = (f"towards symmetric Y it ends, between {_BEFORE:g} and {_NEAR[0]:g} of Y's odd part; what separates it "
            "from rest is an unstable cycle that shrinks to a Hopf point of the equilibrium")  # fmt: skip
    rows = [
        limit("swing of tr S after a long flow, where it is gone", before, below=1e-6, at={_P: _BEFORE}),
        limit("largest multiplier of the stable cycle, at most", max(multipliers), below=1),
        *(limit("growing directions of the unstable cycle", each.n_unstable, equals=1, at={_P: p})
          for p, each in zip(shares, unstable, strict=True)),
        limit("Hopf point", hopf, above=shares[-1], below=1.005, at={"2π/ω": period}),
    ]  # fmt: skip
    if not fast:
        apart = [abs(each / period - 1) for each in periods]
        rows += [
            limit("least rise of the stable cycle's largest multiplier towards its end", -max(np.diff(multipliers)),
                  above=0),
            limit("least fall of the unstable cycle's swing towards the Hopf point", -max(np.diff(swings)), above=0),
            limit("least approach of its period to 2π/ω", -max(np.diff(apart)), above=0),
        ]  # fmt: skip
    beside = [
        Row("stable cycle: periods", [each.period for each in stable], at={_P: shares}),
        Row("… largest multipliers", multipliers, at={_P: [*near, *shares]}),
        Row("unstable cycle: periods", periods, at={_P: shares}),
        Row("… largest multipliers", [_largest(each) for each in unstable], at={_P: shares}),
        Row("… swings of tr S, relative", swings, at={_P: shares}),
    ]
    return clause(text, *rows), beside


def _largest(cycle: LimitCycle) -> float:
    return float(np.abs(cycle.multipliers).max())


def _hopf(system: MovingAverage, turned: Turned, low: float, high: float) -> tuple[float, float]:
    """Where the complex pair of the larger equilibrium of rank one crosses, and its period."""
    from scipy.optimize import brentq

    def pair(p: float) -> complex:
        found = equilibria(system, turned(p), n=_N)
        item = max((each for each in found if each.rank == 1), key=lambda each: np.trace(each.gram))
        values: Any = item.flow.eigenvalues
        pairs = values[np.abs(values.imag) > 1e-6]
        return complex(pairs[np.argmax(pairs.real)])

    at: Any = brentq(lambda p: pair(p).real, low, high, xtol=1e-7)
    return float(at), 2 * np.pi / abs(pair(at).imag)


def _final(system: MovingAverage, moments: Moments, state: Any, span: float = _LONG) -> Any:
    return flow(system, state, moments, t1=span, solver="dopri8", rtol=1e-9, atol=1e-13, max_steps=4_000_000).final


def _grams(system: MovingAverage, moments: Moments, state: Any, span: float) -> tuple[np.ndarray, np.ndarray]:
    """Times and S along a flow."""
    times = np.linspace(0, span, 4001)
    path = flow(system, state, moments, t1=span, ts=times, solver="dopri8", rtol=1e-9, atol=1e-13, max_steps=4_000_000)
    return times, np.einsum("tki,tkj->tij", path.states.encoder, path.states.encoder)


def _swing(system: MovingAverage, moments: Moments, state: Any, span: float = _SPAN) -> float:
    sizes = np.trace(_grams(system, moments, state, span)[1], axis1=1, axis2=2)
    return float(np.ptp(sizes) / sizes.mean())


def _period(system: MovingAverage, moments: Moments, state: Any) -> float:
    found = passes(*_grams(system, moments, state, _SPAN))
    if len(found) < 2:
        raise ArithmeticError("a flow does not come back to where it was")
    return float(found[1][0] - found[0][0])


def passes(times: np.ndarray, grams: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Where S₁₁ rises through the middle of its range: time and S, interpolated."""
    height = grams[:, 0, 0] - (grams[:, 0, 0].max() + grams[:, 0, 0].min()) / 2
    found = []
    for i in np.flatnonzero((height[:-1] < 0) & (height[1:] >= 0)):
        share = -height[i] / (height[i + 1] - height[i])
        found.append((times[i] + share * (times[i + 1] - times[i]), grams[i] + share * (grams[i + 1] - grams[i])))
    return found


def _settled_cycle(system: MovingAverage, moments: Moments, state: Any) -> LimitCycle:
    on = _final(system, moments, state)
    return limit_cycle(system, on, moments, period=_period(system, moments, on), rtol=_TOLERANCE, solver="dopri8")


def _between(system: MovingAverage, moments: Moments, rests: Any, cycle: Any) -> Any:
    """A state next to the cycle that separates two attractors: a flow from their border, before it leaves it."""
    first, back = ravel_pytree(jax.tree.map(jnp.asarray, rests))
    last, _ = ravel_pytree(cycle)
    low, high = 0.0, 1.0
    for _ in range(46):
        middle = (low + high) / 2
        end = _final(system, moments, back(first + middle * (last - first)))
        low, high = (middle, high) if _swing(system, moments, end) < 1e-2 else (low, middle)
    return _final(system, moments, back(first + high * (last - first)), 3_000.0)
