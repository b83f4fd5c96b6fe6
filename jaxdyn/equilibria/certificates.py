"""Proofs about single equilibria, in ball arithmetic (Arb, through python-flint): nothing rests on rounding.

Given an approximate S of rank k and the numbers of the problem as exact binary fractions:

1. *root*: Krawczyk's test on Pᵀ M(S) = 0 in the chart S = P Ŝ Pᵀ: one and only one real solution in a small
   box around the approximation, so of rank k exactly.
2. *positive*: Ŝ ≻ 0 on the whole box; then A = LᵀPᵀ with Ŝ = LLᵀ and B = A Y Aᵀ W⁻¹ (W ≻ 0) are an
   equilibrium, enclosed in balls.
3. *stability*: the exact Jacobian on those balls splits into the block of A's row space, n − k equal blocks
   of one further embedding dimension each, and −λ_B. The orbit's tangent vectors, exact null vectors, are
   divided out. For each quotient J a symmetric H with HJ + JᵀH ≻ 0 is exhibited: by the inertia theorem
   (Taussky; Ostrowski & Schneider) no eigenvalue lies on the imaginary axis, and as many have positive real
   part as H has positive eigenvalues, however often eigenvalues repeat.
"""

from typing import Any

import numpy as np

from ..arrays import real_numbers, refuse_traced
from ..checks import checked_arguments, whole_number
from ..moments import Moments
from ..systems.siamese import MovingAverage, Objective, Siamese
from .result import Certificate

balls: Any
try:
    from . import balls
except ImportError:  # python-flint is an extra
    balls = None

_BITS = 106
_LARGEST_BOX = 1e-8  # of the proven box's half-width, relative to ‖S‖: the root must be the one that was given


class _Unproved(Exception):
    """A step failed."""

    def __init__(self, step: str, reason: str):
        super().__init__(step, reason)
        self.step, self.reason = step, reason


@checked_arguments
def certify(gram: np.ndarray, rank: int, n: int, system: Siamese, moments: Moments) -> Certificate:
    """Prove that an equilibrium exists near S = AᵀA = `gram`, alone, of this rank, and count its unstable directions.

    Args:
        gram: S [m, m], as `equilibria` gives it, to about 1e-10 of its size.
        rank: of S.
        n: embedding dimension, for the number of unstable directions.
        system, moments: the learning problem; their float64 numbers are taken as exact.

    Returns:
        A `Certificate`: what was proved, or which step failed and why. A failure says nothing about the equilibrium.

    Raises:
        ValueError: if python-flint is not installed, or for a rank that n and m do not allow.

    Source: Krawczyk (1969); Taussky (1961), Ostrowski & Schneider (1962) for the inertia.
    """
    if balls is None:
        raise ValueError("certify: needs python-flint; install it with pip install 'jaxdyn[certify]'")
    refuse_traced("system, moments", system, moments)
    gram = real_numbers("gram", gram)
    if gram.shape != (moments.m, moments.m) or not np.isfinite(gram).all():
        raise ValueError(f"gram: expected finite numbers [{moments.m}, {moments.m}], got shape {gram.shape}")
    whole_number("rank", rank, low=0, high=min(whole_number("n", n, high=10_000), moments.m))
    radius = float("nan")
    with balls.precision(_BITS):
        try:
            problem = _Exact(system, moments)
            encoder, radius = problem.encoder(gram, rank)
            unstable = problem.unstable_count(encoder, rank, n)
        except _Unproved as failure:
            return Certificate(False, failure.step, failure.reason, radius, None)
    return Certificate(True, "", "", radius, unstable)


class _Exact:
    """The problem in balls of radius zero, and the steps of the proof."""

    def __init__(self, system: Siamese, moments: Moments):
        self.system = system
        self.x, self.y = balls.matrix(np.asarray(moments.xx)), balls.matrix(np.asarray(moments.yx))
        self.z = balls.matrix(np.asarray(moments.yy)) if isinstance(system, Objective) else None
        self.decay_a, self.decay_b = (balls.arb(float(part)) for part in system.weight_decay)
        self.ratio = balls.arb(float(system.predictor_lr_ratio))
        self.has_teacher = isinstance(system, MovingAverage)
        self.beta = balls.arb(float(system.ema_rate)) if isinstance(system, MovingAverage) else balls.arb(0)
        self.m = moments.m
        self.level = self.decay_b / self.ratio if float(system.predictor_lr_ratio) > 0 else self.decay_b
        self.balance = self.decay_a / self.level

    def encoder(self, gram: np.ndarray, rank: int) -> tuple[Any, float]:
        """Steps 1 and 2: balls of A [rank, m], and the box's relative half-width."""
        if rank == 0:
            if np.any(gram):
                raise _Unproved("root", "rank 0 is S = 0 alone")
            return None, 0.0
        values, vectors = np.linalg.eigh(gram)
        values, vectors = values[::-1], vectors[:, ::-1]
        if np.abs(values[rank:]).max(initial=0.0) > _LARGEST_BOX * np.abs(values).max():
            raise _Unproved("root", f"S is not of rank {rank}")
        chart = balls.matrix(vectors[:, :rank]), balls.matrix(vectors[:, rank:]) if rank < self.m else None
        if not balls.matrix(vectors).det().abs_lower() > 0:
            raise _Unproved("root", "the chart's basis is singular")
        rows, columns = np.triu_indices(rank)
        start = np.concatenate([np.diag(values[:rank])[rows, columns], np.zeros((self.m - rank) * rank)])
        box, radius = self._krawczyk(start, rank, chart, float(np.linalg.norm(gram)))
        p, hat, _ = self._gram(box, rank, chart)
        lower = balls.cholesky(hat)
        if lower is None:
            raise _Unproved("positive", "Ŝ is not positive definite on the whole box")
        return lower.transpose() * p.transpose(), radius

    def _krawczyk(self, start: np.ndarray, rank: int, chart: Any, scale: float) -> tuple[Any, float]:
        size = start.size
        exact = balls.column(start)
        field = self._equations(exact, rank, chart)
        middle = balls.floats(self._derivative(exact, rank, chart))
        if not np.isfinite(middle).all() or np.linalg.cond(middle) > 1e14:
            raise _Unproved("root", "the equations are singular there")
        inverse = balls.matrix(np.linalg.inv(middle))
        step = inverse * field
        reach = np.array([float(step[i, 0].abs_upper()) for i in range(size)])
        units = np.concatenate([np.full(rank * (rank + 1) // 2, scale), np.ones(size - rank * (rank + 1) // 2)])
        half = 4 * reach + 1e-15 * units
        relative = float((half / units).max())
        if not relative < _LARGEST_BOX:
            raise _Unproved("root", f"no root within {_LARGEST_BOX:g} of S (a Newton step is {relative / 4:.1e})")
        offset = balls.list_column([balls.arb(0, float(h)) for h in half])
        box = balls.list_column([balls.arb(float(v), float(h)) for v, h in zip(start, half, strict=True)])
        contraction = balls.identity(size) - inverse * self._derivative(box, rank, chart)
        image = contraction * offset - step
        if not all(offset[i, 0].contains_interior(image[i, 0]) for i in range(size)):
            raise _Unproved("root", "Krawczyk's operator does not map the box into its interior")
        return exact + image, relative

    def _gram(self, u: Any, rank: int, chart: Any) -> tuple[Any, Any, Any]:
        """(P, Ŝ, S) at the coordinates u."""
        hat = balls.arb_mat(rank, rank)
        for index, (i, j) in enumerate(zip(*np.triu_indices(rank), strict=True)):
            hat[int(i), int(j)] = hat[int(j), int(i)] = u[index, 0]
        p = chart[0]
        if chart[1] is not None:
            p = p + chart[1] * self._tilt(u, rank)
        return p, hat, p * hat * p.transpose()

    def _tilt(self, u: Any, rank: int) -> Any:
        offset = rank * (rank + 1) // 2
        return balls.arb_mat([[u[offset + i * rank + j, 0] for j in range(rank)] for i in range(self.m - rank)])

    def _pieces(self, u: Any, rank: int, chart: Any) -> tuple[Any, Any, Any, Any]:
        """(P, Ŝ, L = XS + ℓ, M) with M = (λ_A/ℓ) L Lᵀ − Yᵀ S Y."""
        p, hat, s = self._gram(u, rank, chart)
        lower = self.x * s + balls.identity(self.m) * self.level
        return p, hat, lower, lower * lower.transpose() * self.balance - self.y.transpose() * s * self.y

    def _equations(self, u: Any, rank: int, chart: Any) -> Any:
        p, _, _, matrix = self._pieces(u, rank, chart)
        return _packed(p.transpose() * matrix * p, p.transpose() * matrix, chart[1])

    def _derivative(self, u: Any, rank: int, chart: Any) -> Any:
        """The Jacobian of the equations, column by column, on balls."""
        p, hat, lower, matrix = self._pieces(u, rank, chart)
        columns = []
        for index in range(u.nrows()):
            direction = balls.arb_mat(u.nrows(), 1)
            direction[index, 0] = 1
            if index < rank * (rank + 1) // 2:
                _, d_hat, _ = self._gram(direction, rank, (chart[0], None))
                d_p, d_s = None, p * d_hat * p.transpose()
            else:
                d_p = chart[1] * self._tilt(direction, rank)
                half = d_p * hat * p.transpose()
                d_s = half + half.transpose()
            left = self.x * d_s * lower.transpose()
            d_matrix = (left + left.transpose()) * self.balance - self.y.transpose() * d_s * self.y
            square, wide = p.transpose() * d_matrix * p, p.transpose() * d_matrix
            if d_p is not None:
                half = d_p.transpose() * matrix * p
                square, wide = square + half + half.transpose(), wide + d_p.transpose() * matrix
            columns.append(_packed(square, wide, chart[1]))
        return balls.arb_mat([[column[i, 0] for column in columns] for i in range(u.nrows())])

    def unstable_count(self, encoder: Any, rank: int, n: int) -> int:
        """Step 3: eigenvalues with positive real part of the flow's Jacobian, transversally to the orbit."""
        extra = n - rank
        size = rank + min(extra, 1)
        a, b = self._state(encoder, rank, size)
        jacobian, labels = self._jacobian(a, b, size)
        tangents = [_rotation(a, b, i, j, self.has_teacher) for i in range(rank) for j in range(i + 1, size)]
        blocks: dict[str, list[int]] = {"inner": [], "mixed": [], "outer": []}
        for index, (row, column) in enumerate(labels):
            # An encoder's or teacher's entry has its embedding row alone; the predictor's has two.
            outside = int(row >= rank) + int(column is not None and column >= rank)
            kind = ("inner", "mixed", "outer")[outside] if column is not None else ("inner", "mixed")[outside]
            blocks[kind].append(index)
        total = 0
        for kind, copies in (("inner", 1), ("mixed", extra), ("outer", extra**2)):
            rows = blocks[kind]
            others = [i for i in range(len(labels)) if i not in rows]
            if any(not jacobian[i, j].is_zero() for i in others for j in rows):
                raise _Unproved("stability", "the Jacobian does not split into its blocks")
            if rows and copies:
                inside = [[t[i] for i in rows] for t in tangents if any(not t[i].is_zero() for i in rows)]
                total += copies * _unstable_of_block(jacobian, rows, inside)
        return total

    def _state(self, encoder: Any, rank: int, size: int) -> tuple[Any, Any]:
        a, b = balls.arb_mat(size, self.m), balls.arb_mat(size, size)
        if rank:
            w = encoder * self.x * encoder.transpose() + balls.identity(rank) * self.level
            try:
                thin = w.solve((encoder * self.y * encoder.transpose()).transpose()).transpose()
            except ZeroDivisionError:
                raise _Unproved("positive", "W cannot be inverted in balls") from None
            for i in range(rank):
                for j in range(self.m):
                    a[i, j] = encoder[i, j]
                for j in range(rank):
                    b[i, j] = thin[i, j]
        return a, b

    def _jacobian(self, a: Any, b: Any, size: int) -> tuple[Any, list[tuple[int, int | None]]]:
        """The exact Jacobian at (A, B, C = A) on balls, and (row, column) of each unknown (column None for A and C)."""
        m, has_teacher = self.m, self.has_teacher
        labels: list[tuple[int, int | None]] = [(i, None) for i in range(size) for _ in range(m)]
        labels += [(i, j) for i in range(size) for j in range(size)]
        labels += [(i, None) for i in range(size) for _ in range(m)] if has_teacher else []
        r = b * a * self.x - a * self.y
        columns = []
        for index in range(len(labels)):
            d = [balls.arb_mat(size, m), balls.arb_mat(size, size), balls.arb_mat(size, m)]
            n_a, n_b = size * m, size * size
            part = 0 if index < n_a else 1 if index < n_a + n_b else 2
            local = index - (0, n_a, n_a + n_b)[part]
            width = size if part == 1 else m
            d[part][local // width, local % width] = 1
            d_teacher = d[2] if has_teacher else d[0]
            d_r = (d[1] * a + b * d[0]) * self.x - d_teacher * self.y
            rates = [
                (d[1].transpose() * r + b.transpose() * d_r + d[0] * self.decay_a) * (-1),
                (d_r * a.transpose() + r * d[0].transpose()) * (-self.ratio) - d[1] * self.decay_b,
            ]
            if has_teacher:
                rates.append((d[0] - d[2]) * self.beta)
            if self.z is not None:
                through = (d[1] * a + b * d[0]) * self.y.transpose() - d[0] * self.z
                rates[0] = rates[0] + through
            columns.append([entry for rate in rates for entry in rate.entries()])
        return balls.arb_mat([list(row) for row in zip(*columns, strict=True)]), labels


def _unstable_of_block(jacobian: Any, rows: list[int], tangents: list[list[Any]]) -> int:
    """Eigenvalues with positive real part of one diagonal block, its null vectors divided out."""
    size = len(rows)
    block = balls.arb_mat([[jacobian[i, j] for j in rows] for i in rows])
    count = len(tangents)
    if count:
        tangent = balls.arb_mat([[tangents[j][i] for j in range(count)] for i in range(size)])
        q, _ = np.linalg.qr(balls.floats(tangent), mode="complete")
        rest = balls.matrix(q[:, count:])
        basis = balls.arb_mat(
            [[tangent[i, j] if j < count else rest[i, j - count] for j in range(size)] for i in range(size)]
        )
        try:
            image = basis.solve(block * rest)
        except ZeroDivisionError:
            raise _Unproved("stability", "the orbit's tangent vectors are not independent in balls") from None
        block = balls.arb_mat([[image[i, j] for j in range(size - count)] for i in range(count, size)])
    return _inertia(block) if block.nrows() else 0


def _inertia(block: Any) -> int:
    """Eigenvalues with positive real part, by an H with HJ + JᵀH ≻ 0."""
    import scipy.linalg  # slow to import, and needed here alone

    middle = balls.floats(block)
    size = middle.shape[0]
    try:
        h = scipy.linalg.solve_continuous_lyapunov(middle.T, np.eye(size))
    except (np.linalg.LinAlgError, ValueError):
        h = np.full((size, size), np.nan)
    if not np.isfinite(h).all():
        raise _Unproved("stability", "an eigenvalue is too near the imaginary axis")
    h = (h + h.T) / 2
    exact = balls.matrix(h)
    product = exact * block
    if balls.signs(product + product.transpose()) != (size, 0):
        raise _Unproved("stability", "an eigenvalue is too near the imaginary axis")
    positive, negative = balls.signs(exact)
    if positive + negative != size:
        raise _Unproved("stability", "the inertia of H cannot be decided")
    return positive


def _rotation(a: Any, b: Any, i: int, j: int, has_teacher: bool) -> list[Any]:
    """The orbit's tangent vector (ΩA, ΩB − BΩ[, ΩA]) for the rotation of axes i and j."""
    omega = balls.arb_mat(b.nrows(), b.nrows())
    omega[i, j], omega[j, i] = 1, -1
    moved = omega * a
    return (
        moved.entries() + (omega * b - b * omega).entries() + (moved.entries() if has_teacher else [])
    )  # fmt: skip


def _packed(square: Any, wide: Any, complement: Any) -> Any:
    """PᵀMP packed above PᵀM·complement, as a column."""
    rank = square.nrows()
    entries = [square[int(i), int(j)] for i, j in zip(*np.triu_indices(rank), strict=True)]
    if complement is not None:
        rest = wide * complement
        entries += [rest[j, i] for i in range(complement.ncols()) for j in range(rank)]
    return balls.list_column(entries)
