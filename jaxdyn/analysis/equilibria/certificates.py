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

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg

from ...moments import Moments
from ...systems.siamese import MovingAverage, Objective, Siamese

if TYPE_CHECKING:
    from .listing import Equilibrium

_BITS = 106
_LARGEST_BOX = 1e-8  # of the proven box's half-width, relative to ‖S‖: the root must be the one that was given


@dataclass(frozen=True)
class Certificate:
    """What was proved: `proved`, or the first `step` that failed (root, positive, stability) and why.

    `radius` half-width of the box that holds the one root, in the entries of Ŝ, relative to ‖S‖;
    `n_unstable` proven number of unstable directions of the flow, None if that step failed.
    """

    proved: bool
    step: str
    reason: str
    radius: float
    n_unstable: int | None

    def __str__(self) -> str:
        return f"proved, {self.n_unstable} unstable" if self.proved else f"{self.step}: {self.reason}"


class _Unproved(Exception):
    """A step failed."""

    def __init__(self, step: str, reason: str):
        super().__init__(step, reason)
        self.step, self.reason = step, reason


def certify(item: "Equilibrium", system: Siamese, moments: Moments) -> Certificate:
    """Prove that an equilibrium exists near `item.gram`, alone, with that rank and number of unstable directions.

    Raises:
        ValueError: if python-flint is not installed.
    """
    try:
        import flint
    except ImportError:
        raise ValueError("certify: needs python-flint; install it with pip install 'jaxdyn[certify]'") from None
    radius = float("nan")
    with flint.ctx.workprec(_BITS):
        try:
            problem = _Exact(system, moments)
            encoder, radius = problem.encoder(np.asarray(item.gram), item.rank)
            unstable = problem.unstable_count(encoder, item.rank, item.state.encoder.shape[0])
        except _Unproved as failure:
            return Certificate(False, failure.step, failure.reason, radius, None)
    return Certificate(True, "", "", radius, unstable)


class _Exact:
    """The problem in balls of radius zero, and the steps of the proof."""

    def __init__(self, system: Siamese, moments: Moments):
        from flint import arb

        self.system = system
        self.x, self.y = _matrix(np.asarray(moments.xx)), _matrix(np.asarray(moments.yx))
        self.z = _matrix(np.asarray(moments.yy)) if isinstance(system, Objective) else None
        self.decay_a, self.decay_b = (arb(float(part)) for part in system.weight_decay)
        self.ratio = arb(float(system.predictor_lr_ratio))
        self.has_teacher = isinstance(system, MovingAverage)
        self.beta = arb(float(system.ema_rate)) if isinstance(system, MovingAverage) else arb(0)
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
        chart = _matrix(vectors[:, :rank]), _matrix(vectors[:, rank:]) if rank < self.m else None
        if not _matrix(vectors).det().abs_lower() > 0:
            raise _Unproved("root", "the chart's basis is singular")
        rows, columns = np.triu_indices(rank)
        start = np.concatenate([np.diag(values[:rank])[rows, columns], np.zeros((self.m - rank) * rank)])
        box, radius = self._krawczyk(start, rank, chart, float(np.linalg.norm(gram)))
        p, hat, _ = self._gram(box, rank, chart)
        lower = _cholesky(hat)
        if lower is None:
            raise _Unproved("positive", "Ŝ is not positive definite on the whole box")
        return lower.transpose() * p.transpose(), radius

    def _krawczyk(self, start: np.ndarray, rank: int, chart: Any, scale: float) -> tuple[Any, float]:
        from flint import arb

        size = start.size
        exact = _column(start)
        field = self._equations(exact, rank, chart)
        middle = _floats(self._derivative(exact, rank, chart))
        if not np.isfinite(middle).all() or np.linalg.cond(middle) > 1e14:
            raise _Unproved("root", "the equations are singular there")
        inverse = _matrix(np.linalg.inv(middle))
        step = inverse * field
        reach = np.array([float(step[i, 0].abs_upper()) for i in range(size)])
        units = np.concatenate([np.full(rank * (rank + 1) // 2, scale), np.ones(size - rank * (rank + 1) // 2)])
        half = 4 * reach + 1e-15 * units
        relative = float((half / units).max())
        if not relative < _LARGEST_BOX:
            raise _Unproved("root", f"no root within {_LARGEST_BOX:g} of S (a Newton step is {relative / 4:.1e})")
        offset = _list_column([arb(0, float(h)) for h in half])
        box = _list_column([arb(float(v), float(h)) for v, h in zip(start, half, strict=True)])
        contraction = _identity(size) - inverse * self._derivative(box, rank, chart)
        image = contraction * offset - step
        if not all(offset[i, 0].contains_interior(image[i, 0]) for i in range(size)):
            raise _Unproved("root", "Krawczyk's operator does not map the box into its interior")
        return exact + image, relative

    def _gram(self, u: Any, rank: int, chart: Any) -> tuple[Any, Any, Any]:
        """(P, Ŝ, S) at the coordinates u."""
        from flint import arb_mat

        hat = arb_mat(rank, rank)
        for index, (i, j) in enumerate(zip(*np.triu_indices(rank), strict=True)):
            hat[int(i), int(j)] = hat[int(j), int(i)] = u[index, 0]
        p = chart[0]
        if chart[1] is not None:
            p = p + chart[1] * self._tilt(u, rank)
        return p, hat, p * hat * p.transpose()

    def _tilt(self, u: Any, rank: int) -> Any:
        from flint import arb_mat

        offset = rank * (rank + 1) // 2
        return arb_mat([[u[offset + i * rank + j, 0] for j in range(rank)] for i in range(self.m - rank)])

    def _pieces(self, u: Any, rank: int, chart: Any) -> tuple[Any, Any, Any, Any]:
        """(P, Ŝ, L = XS + ℓ, M) with M = (λ_A/ℓ) L Lᵀ − Yᵀ S Y."""
        p, hat, s = self._gram(u, rank, chart)
        lower = self.x * s + _identity(self.m) * self.level
        return p, hat, lower, lower * lower.transpose() * self.balance - self.y.transpose() * s * self.y

    def _equations(self, u: Any, rank: int, chart: Any) -> Any:
        p, _, _, matrix = self._pieces(u, rank, chart)
        return _packed(p.transpose() * matrix * p, p.transpose() * matrix, chart[1])

    def _derivative(self, u: Any, rank: int, chart: Any) -> Any:
        """The Jacobian of the equations, column by column, on balls."""
        from flint import arb_mat

        p, hat, lower, matrix = self._pieces(u, rank, chart)
        columns = []
        for index in range(u.nrows()):
            direction = arb_mat(u.nrows(), 1)
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
        return arb_mat([[column[i, 0] for column in columns] for i in range(u.nrows())])

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
        from flint import arb_mat

        a, b = arb_mat(size, self.m), arb_mat(size, size)
        if rank:
            w = encoder * self.x * encoder.transpose() + _identity(rank) * self.level
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
        from flint import arb_mat

        m, has_teacher = self.m, self.has_teacher
        labels: list[tuple[int, int | None]] = [(i, None) for i in range(size) for _ in range(m)]
        labels += [(i, j) for i in range(size) for j in range(size)]
        labels += [(i, None) for i in range(size) for _ in range(m)] if has_teacher else []
        r = b * a * self.x - a * self.y
        columns = []
        for index in range(len(labels)):
            d = [arb_mat(size, m), arb_mat(size, size), arb_mat(size, m)]
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
        return arb_mat([list(row) for row in zip(*columns, strict=True)]), labels


def _unstable_of_block(jacobian: Any, rows: list[int], tangents: list[list[Any]]) -> int:
    """Eigenvalues with positive real part of one diagonal block, its null vectors divided out."""
    from flint import arb_mat

    size = len(rows)
    block = arb_mat([[jacobian[i, j] for j in rows] for i in rows])
    count = len(tangents)
    if count:
        tangent = arb_mat([[tangents[j][i] for j in range(count)] for i in range(size)])
        q, _ = np.linalg.qr(_floats(tangent), mode="complete")
        rest = _matrix(q[:, count:])
        basis = arb_mat(
            [[tangent[i, j] if j < count else rest[i, j - count] for j in range(size)] for i in range(size)]
        )
        try:
            image = basis.solve(block * rest)
        except ZeroDivisionError:
            raise _Unproved("stability", "the orbit's tangent vectors are not independent in balls") from None
        block = arb_mat([[image[i, j] for j in range(size - count)] for i in range(count, size)])
    return _inertia(block) if block.nrows() else 0


def _inertia(block: Any) -> int:
    """Eigenvalues with positive real part, by an H with HJ + JᵀH ≻ 0."""
    middle = _floats(block)
    size = middle.shape[0]
    try:
        h = scipy.linalg.solve_continuous_lyapunov(middle.T, np.eye(size))
    except (np.linalg.LinAlgError, ValueError):
        h = np.full((size, size), np.nan)
    if not np.isfinite(h).all():
        raise _Unproved("stability", "an eigenvalue is too near the imaginary axis")
    h = (h + h.T) / 2
    exact = _matrix(h)
    product = exact * block
    if _signs(product + product.transpose()) != (size, 0):
        raise _Unproved("stability", "an eigenvalue is too near the imaginary axis")
    positive, negative = _signs(exact)
    if positive + negative != size:
        raise _Unproved("stability", "the inertia of H cannot be decided")
    return positive


def _signs(matrix: Any) -> tuple[int, int]:
    """Proven numbers of positive and negative eigenvalues of a symmetric ball matrix: Gershgorin after a congruence."""
    _, vectors = np.linalg.eigh(_floats(matrix))
    v = _matrix(vectors)
    if not v.det().abs_lower() > 0:
        return 0, 0
    turned = v.transpose() * matrix * v
    size = turned.nrows()
    positive = negative = 0
    for i in range(size):
        off = sum((abs(turned[i, j]) for j in range(size) if j != i), start=0 * turned[i, i])
        positive += int(turned[i, i] - off > 0)
        negative += int(turned[i, i] + off < 0)
    return positive, negative


def _rotation(a: Any, b: Any, i: int, j: int, has_teacher: bool) -> list[Any]:
    """The orbit's tangent vector (ΩA, ΩB − BΩ[, ΩA]) for the rotation of axes i and j."""
    from flint import arb_mat

    omega = arb_mat(b.nrows(), b.nrows())
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
    return _list_column(entries)


def _cholesky(matrix: Any) -> Any:
    """Lower L with L Lᵀ = matrix in balls, or None where a pivot may not be positive."""
    from flint import arb_mat

    size = matrix.nrows()
    lower = arb_mat(size, size)
    for j in range(size):
        pivot = matrix[j, j] - sum((lower[j, k] * lower[j, k] for k in range(j)), start=0 * matrix[j, j])
        if not pivot > 0:
            return None
        lower[j, j] = pivot.sqrt()
        for i in range(j + 1, size):
            inner = sum((lower[i, k] * lower[j, k] for k in range(j)), start=0 * matrix[j, j])
            lower[i, j] = (matrix[i, j] - inner) / lower[j, j]
    return lower


def _matrix(values: np.ndarray) -> Any:
    """Float64 numbers as exact balls."""
    from flint import arb, arb_mat

    return arb_mat([[arb(float(value)) for value in row] for row in values])


def _identity(size: int) -> Any:
    return _matrix(np.eye(size))


def _column(values: np.ndarray) -> Any:
    return _matrix(values[:, None])


def _list_column(entries: list[Any]) -> Any:
    from flint import arb_mat

    return arb_mat([[entry] for entry in entries])


def _floats(matrix: Any) -> np.ndarray:
    """Midpoints, rounded."""
    values = [float(entry.mid()) for entry in matrix.entries()]
    return np.array(values).reshape(matrix.nrows(), matrix.ncols())
