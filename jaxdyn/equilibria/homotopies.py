"""The families of equations along which solutions are followed, many paths at once, in NumPy.

They are the equations of `equations`, made homogeneous: M(S, h) = (XS + hI)(SX + hI) − h Yᵀ S Y vanishes with S/h. X is
diagonal here, X = diag(d), which costs nothing:
(X, Y, S) → (QᵀXQ, QᵀYQ, QᵀSQ) with QᵀQ = I, complex or real, changes no equation.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from .equations import pack, symmetric


class Linearised(NamedTuple):
    """H, ∂H/∂z and ∂H/∂t of many paths: [paths, K], [paths, K, K + 1], [paths, K]."""

    value: np.ndarray
    jacobian: np.ndarray
    rate: np.ndarray


@runtime_checkable
class Homotopy(Protocol):
    """K equations H(z, t) = 0 of each of many paths, z ∈ C^{K+1}, homogeneous in its first `homogeneous` ones."""

    @property
    def homogeneous(self) -> int: ...

    def take(self, index: np.ndarray) -> "Homotopy":
        """The same of some paths only."""
        ...

    def linear(self, z: np.ndarray, t: np.ndarray) -> Linearised:
        """The equations and their derivatives at z [paths, K + 1], t [paths]."""
        ...

    def recentre(self, z: np.ndarray, rates: np.ndarray) -> tuple["Homotopy", np.ndarray, np.ndarray]:
        """In coordinates that suit the newest of z and dz/dt, both [paths, points, K + 1] with the newest first."""
        ...

    def solutions(self, z: np.ndarray) -> np.ndarray:
        """What z [paths, K + 1] stands for, in coordinates of all paths; not finite at infinity."""
        ...


@dataclass(frozen=True)
class TotalDegree:
    """γ t (zᵢ² − cᵢ h²) + (1 − t) M(S, h) with z = (h, S), S of full rank; d [m], Y [m, m], c and γ for all paths."""

    values: np.ndarray
    yx: np.ndarray
    constants: np.ndarray
    gamma: complex

    @property
    def homogeneous(self) -> int:
        return self.constants.size + 1

    def take(self, index: np.ndarray) -> "TotalDegree":
        return self

    def linear(self, z: np.ndarray, t: np.ndarray) -> Linearised:
        h, s = z[:, :1], z[:, 1:]
        simple = s**2 - self.constants * h**2
        slopes = np.concatenate([-2 * (self.constants * h)[..., None], 2 * s[..., None] * np.eye(s.shape[1])], 2)
        m, gram = self.values.size, symmetric(s, self.values.size)
        eye = np.broadcast_to(np.eye(m), gram.shape)
        chart, still = _Chart(eye, eye[..., m:], gram), (0 * self.values, 0 * self.yx)
        full = _of_rank(chart, _Point.at(h[:, 0], gram, self.values, self.yx), *still)
        start, end = (self.gamma * t)[:, None], (1 - t)[:, None]
        value, slope = start * simple + end * full.value, self.gamma * simple - full.value
        return Linearised(value, start[..., None] * slopes + end[..., None] * full.jacobian, slope)

    def recentre(self, z: np.ndarray, rates: np.ndarray) -> tuple["TotalDegree", np.ndarray, np.ndarray]:
        return self, z, rates

    def solutions(self, z: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return z[:, 1:] / z[:, :1]


class Diagonal(NamedTuple):
    """Reduced moments with X = diag(exp(logs)): logs [..., m] and Y [..., m, m], complex."""

    logs: np.ndarray
    yx: np.ndarray


@dataclass(frozen=True)
class Parameters:
    """From moments at t = 1 to others at t = 0: solutions S of one rank k, along lines of log d and of Y.

    X is never singular on the way, so that no solution passes through infinity. z = (h, Ŝ, Z) with S = P Ŝ Pᵀ/h,
    P = F + GZ, where the unitary frame (F, G) [paths, m, m] moves along before Z [m − k, k] becomes large.
    """

    rank: int
    start: Diagonal
    end: Diagonal
    frames: np.ndarray

    @property
    def homogeneous(self) -> int:
        return 1 + self.rank * (self.rank + 1) // 2

    def take(self, index: np.ndarray) -> "Parameters":
        start, end = (Diagonal(*(leaf[index] for leaf in side)) for side in (self.start, self.end))
        return Parameters(self.rank, start, end, self.frames[index])

    def linear(self, z: np.ndarray, t: np.ndarray) -> Linearised:
        along = t[:, None]
        values = np.exp(along * self.start.logs + (1 - along) * self.end.logs)
        yx = along[..., None] * self.start.yx + (1 - along[..., None]) * self.end.yx
        speed = values * (self.start.logs - self.end.logs), self.start.yx - self.end.yx
        chart = self._chart(z)
        return _of_rank(chart, _Point.at(z[:, 0], chart.range @ chart.hat @ _turn(chart.range), values, yx), *speed)

    def recentre(self, z: np.ndarray, rates: np.ndarray) -> tuple["Parameters", np.ndarray, np.ndarray]:
        m, k = self.frames.shape[1], self.rank
        moved = np.flatnonzero(np.abs(z[:, 0, self.homogeneous :]).max(1, initial=0) > _TILT) if k < m else ()
        if not len(moved):
            return self, z, rates
        count, points = len(moved), z.shape[1]
        old = np.repeat(self.frames[moved], points, 0)
        part, slope = (each[moved].reshape(count * points, -1) for each in (z, rates))
        here = dataclasses.replace(self, frames=old)._chart(part)
        turned, _ = np.linalg.qr(np.concatenate([here.range[::points], old[::points, :, k:]], 2))
        new = np.repeat(turned, points, 0)
        frames, z, rates = self.frames.copy(), z.copy(), rates.copy()
        frames[moved] = turned
        part, slope = _in_frame(new, here, part, slope)
        z[moved], rates[moved] = part.reshape(count, points, -1), slope.reshape(count, points, -1)
        return dataclasses.replace(self, frames=frames), z, rates

    def solutions(self, z: np.ndarray) -> np.ndarray:
        chart = self._chart(z)
        with np.errstate(all="ignore"):
            return pack(chart.range @ chart.hat @ _turn(chart.range)) / z[:, :1]

    def _chart(self, z: np.ndarray) -> "_Chart":
        m, k = self.frames.shape[1], self.rank
        hat = symmetric(z[:, 1 : self.homogeneous], k)
        tilt = z[:, self.homogeneous :].reshape(z.shape[0], m - k, k)
        complement = self.frames[:, :, k:]
        return _Chart(self.frames[:, :, :k] + complement @ tilt, complement, hat)


_TILT = 0.7  # an entry of Z beyond which the frame is moved


class _Chart(NamedTuple):
    """P [paths, m, k], G [paths, m, m − k] and Ŝ [paths, k, k]."""

    range: np.ndarray
    complement: np.ndarray
    hat: np.ndarray


class _Point(NamedTuple):
    """M = LLᵀ − h YᵀSY of many S [paths, m, m] with L = XS + hI, and what its derivatives are made of."""

    h: np.ndarray
    s: np.ndarray
    values: np.ndarray
    yx: np.ndarray
    left: np.ndarray
    inner: np.ndarray
    matrix: np.ndarray

    @classmethod
    def at(cls, h: np.ndarray, s: np.ndarray, values: np.ndarray, yx: np.ndarray) -> "_Point":
        level = h[:, None, None]
        left = values[..., None] * s + level * np.eye(s.shape[1])
        inner = _turn(yx) @ s @ yx
        return cls(h, s, values, yx, left, inner, left @ _turn(left) - level * inner)

    def along(self, directions: np.ndarray) -> np.ndarray:
        """dM for each dS [paths or 1, directions, m, m], with dh = 0."""
        yx = self.yx if self.yx.ndim == 2 else self.yx[:, None]
        part = (self.values[..., None, :, None] * directions) @ _turn(self.left)[:, None]
        return part + _turn(part) - self.h[:, None, None, None] * (_turn(yx) @ directions @ yx)

    def rate(self, values: np.ndarray, yx: np.ndarray) -> np.ndarray:
        """dM/dt for these rates of d and Y."""
        part = (values[..., None] * self.s) @ _turn(self.left)
        other = _turn(yx) @ self.s @ self.yx
        return part + _turn(part) - self.h[:, None, None] * (other + _turn(other))

    def by_level(self) -> np.ndarray:
        """dM/dh."""
        return self.left + _turn(self.left) - self.inner


def _of_rank(chart: _Chart, point: _Point, values_rate: np.ndarray, yx_rate: np.ndarray) -> Linearised:
    """Pᵀ M (P, G), the symmetric part packed, then the rest; by (h, Ŝ, Z), and by t."""
    p, g, _ = chart
    whole, across = np.concatenate([p, g], 2), _turn(p)
    order = _Order.of(*p.shape[1:])
    rows = across @ np.concatenate([point.matrix @ whole, point.by_level() @ whole], 2)
    value, by_level = order.packed(rows[..., : p.shape[1]]), order.packed(rows[..., p.shape[1] :])
    by_gram = _along(chart, point, whole, order)
    if order.bent.size:  # the tilt of P itself: row r gains GᵀM(P, G), column r of the first block PᵀMG
        tilted = (_turn(g) @ point.matrix @ whole).reshape(p.shape[0], -1)
        row, direction, source = order.bent
        by_gram[:, row, direction] += tilted[:, source]
        row, direction, source = order.mirrored
        by_gram[:, row, direction] += tilted[:, source]
    rate = order.packed(across @ point.rate(values_rate, yx_rate) @ whole)
    return Linearised(value, np.concatenate([by_level[..., None], by_gram], 2), rate)


def _along(chart: _Chart, point: _Point, whole: np.ndarray, order: "_Order") -> np.ndarray:
    """Pᵀ dM (P, G) packed, for dS along each of Ŝ and Z: [paths, K, directions].

    A direction is dS = u vᵀ + v uᵀ with u and v among the columns of V = (P, G, PŜ), so that each of the terms of
    dM = X dS Lᵀ + L dS X − h Yᵀ dS Y is a product of columns and rows which are there already.
    """
    p = chart.range
    count, _, k = p.shape
    vectors = np.concatenate([whole, p @ chart.hat], 2)
    scaled, turned = point.values[..., None] * whole, point.yx @ whole
    before = np.stack([scaled[..., :k], _turn(point.left) @ p, turned[..., :k]], 1)
    after = np.stack([_turn(point.left) @ whole, scaled, -point.h[:, None, None] * turned], 1)
    before, after = _turn(before) @ vectors[:, None], _turn(vectors)[:, None] @ after
    products = _turn(before.reshape(count, 3, -1)) @ after.reshape(count, 3, -1)  # (row, u) by (v, column), of all
    products = products.reshape(count, -1)
    return order.weight * (products[:, order.one] + products[:, order.other])


class _Order(NamedTuple):
    """Where the numbers of `_of_rank` are: of which products a derivative is made, and what the tilt of P adds."""

    rows: np.ndarray
    columns: np.ndarray
    one: np.ndarray
    other: np.ndarray
    weight: np.ndarray
    bent: np.ndarray
    mirrored: np.ndarray

    @staticmethod
    @functools.lru_cache(maxsize=64)
    def of(m: int, k: int) -> "_Order":
        grid = lambda *sides: [part.ravel() for part in np.mgrid[sides]]  # noqa: E731
        first, second = np.triu_indices(k)
        a, b = (np.append(*part) for part in zip((first, second), grid(slice(k), slice(k, m)), strict=True))
        c, r = grid(slice(k, m), slice(k))
        # Columns of V: pairs of P's for Ŝ (those with themselves count half), of G's and PŜ's for Z.
        u, v = np.append(first, c), np.append(second, m + r)
        weight = np.append(np.where(first == second, 0.5, 1.0), np.ones(c.size))
        size = m + k
        at = lambda u, v: ((a[:, None] * size + u) * size + v) * m + b[:, None]  # noqa: E731

        def added(to: np.ndarray, along: np.ndarray) -> np.ndarray:
            """Rows, directions and places in GᵀM(P, G) of what is added where `to` is the tilted column of P."""
            row, direction = np.nonzero(to[:, None] == r)
            return np.array([row, first.size + direction, (c[direction] - k) * m + along[row]])

        return _Order(a, b, at(u, v), at(v, u), weight, added(a, b), added(b, a))

    def packed(self, rows: np.ndarray) -> np.ndarray:
        """The equations among the entries of [paths, k, m]."""
        return rows[:, self.rows, self.columns]


def _in_frame(frames: np.ndarray, chart: _Chart, z: np.ndarray, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """z and dz/dt of points of a chart, in the charts of other frames."""
    k = chart.hat.shape[1]
    first = 1 + k * (k + 1) // 2
    tilt_rate = rates[:, first:].reshape(-1, chart.complement.shape[2], k)
    inverse = np.conj(_turn(frames))
    part, slope = inverse @ chart.range, inverse @ (chart.complement @ tilt_rate)
    top, top_rate = part[:, :k], slope[:, :k]
    back = np.linalg.inv(top)
    tilt = part[:, k:] @ back
    new_rate = (slope[:, k:] - tilt @ top_rate) @ back
    hat = top @ chart.hat @ _turn(top)
    mixed = top_rate @ chart.hat @ _turn(top)
    hat_rate = mixed + _turn(mixed) + top @ symmetric(rates[:, 1:first], k) @ _turn(top)
    flat = lambda each: each.reshape(z.shape[0], -1)  # noqa: E731
    return (
        np.concatenate([z[:, :1], pack(hat), flat(tilt)], 1),
        np.concatenate([rates[:, :1], pack(hat_rate), flat(new_rate)], 1),
    )


def _turn(matrices: np.ndarray) -> np.ndarray:
    return np.swapaxes(matrices, -1, -2)
