#!/usr/bin/env python3
"""Check certificates of equilibria of SG and EMA (numbers exact, as float.hex writes them): check.py CERTIFICATE.json …
A certificate claims, of the flow  dA/dt = −(Bᵀ R + λ_A A),  dB/dt = −(α_p R Aᵀ + λ_B B),  R = B A X − C Y,  with C = A
(SG) or dC/dt = β (A − C) (EMA), for all X and Y within `radius` of each entry: up to orthogonal turns there is just one
equilibrium with S = AᵀA = P Ŝ Pᵀ, P = range + complement·Z, and (Ŝ, Z) in the box (centre, half); its rank; how many
directions grow there.
1. One root: Krawczyk's operator maps the box into its interior, for PᵀM(S) = 0, where with ℓ = λ_B/α_p
   M = (λ_A/ℓ)(XS + ℓ)(SX + ℓ) − YᵀSY; then A = TPᵀ with TᵀT = Ŝ and B = A Y Aᵀ(A X Aᵀ + ℓ)⁻¹ are the equilibrium.
2. Its rank: [range, complement] is regular, and Ŝ positive definite all over the box.
3. The count: in coordinates A = T Â, B = T B̂ T⁻¹ the Jacobian is rational in Ŝ. With its null vectors along the turns
   divided out it is J, and HJ + JᵀH is positive definite for the given symmetric H: no eigenvalue is on the imaginary
   axis, and as many are right of it as H has positive ones (Ostrowski and Schneider, 1962)."""

import json
import sys

ONE = 1 << (BITS := 240)


class Span:  # [low, high] / 2^BITS, rounded outwards
    def __init__(self, low, high):
        self.low, self.high = low, high

    def __add__(self, other):
        return other + self if isinstance(other, Jet) else Span(self.low + other.low, self.high + other.high)

    def __mul__(self, other):
        if isinstance(other, Jet):
            return other * self
        four = (self.low * other.low, self.low * other.high, self.high * other.low, self.high * other.high)
        return Span(min(four) >> BITS, -(-max(four) >> BITS))

    def __truediv__(self, other):
        if other.low <= 0 <= other.high:
            raise ValueError("a division by what may be zero")
        ends = ONE * ONE // other.low, ONE * ONE // other.high
        return self * Span(min(ends), max(ends) + 1)

    def around(self, half):
        return Span(self.low - half.high, self.high + half.high)

    def __abs__(self):
        return Span(0, max(-self.low, self.high))


ZERO, UNIT, MINUS = Span(0, 0), Span(ONE, ONE), Span(-ONE, -ONE)


class Jet:  # a number that changes at the rate `slope`
    def __init__(self, value, slope):
        self.value, self.slope = value, slope

    def __add__(self, other):
        value, slope = (other, ZERO) if isinstance(other, Span) else (other.value, other.slope)
        return Jet(self.value + value, self.slope + slope)

    def __mul__(self, other):
        if isinstance(other, Span):
            return Jet(self.value * other, self.slope * other)
        return Jet(self.value * other.value, self.slope * other.value + self.value * other.slope)


class Matrix:
    def __init__(self, rows):
        self.rows = [list(row) for row in rows]

    def __add__(self, other):
        return Matrix([[x + y for x, y in zip(*rows, strict=True)] for rows in zip(self.rows, other.rows, strict=True)])

    def __mul__(self, factor):
        return Matrix([[x * factor for x in row] for row in self.rows])

    def __matmul__(self, other):
        return Matrix([[sum((x * y for x, y in zip(row, column, strict=True)), ZERO) for column in zip(*other.rows)]
                       for row in self.rows])  # fmt: skip

    T = property(lambda self: Matrix(zip(*self.rows, strict=True)))
    flat = property(lambda self: [value for row in self.rows for value in row])


def identity(size):
    return Matrix([[UNIT if i == j else ZERO for j in range(size)] for i in range(size)])


def number(text):
    if float.fromhex(text).hex() != text:
        raise ValueError("a number that is not as float.hex writes it")
    top, bottom = float.fromhex(text).as_integer_ratio()
    return Span((top << BITS) // bottom, -((-top << BITS) // bottom))


def matrix(told, rows, columns, symmetric=False):
    if type(told) is not list or {type(row) for row in told} - {list} or [len(row) for row in told] != [columns] * rows:
        raise ValueError(f"a matrix of {rows} rows and {columns} columns was expected")
    if symmetric and told != [list(row) for row in zip(*told)]:
        raise ValueError("X or the form is not symmetric")
    return Matrix([map(number, row) for row in told])


def whole(value, most):
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"a whole number from 0 to {most} was expected")
    return value


def solved(a, b):
    """x with a x = b, by elimination on intervals."""
    size, rows = len(a.rows), [left + right for left, right in zip(a.rows, b.rows, strict=True)]
    for k in range(size):
        best = max(range(k, size), key=lambda i: abs(rows[i][k].low + rows[i][k].high))
        rows[k], rows[best] = rows[best], rows[k]
        rows[k] = [value / rows[k][k] for value in rows[k]]
        for i in set(range(size)) - {k}:
            factor = rows[i][k] * MINUS
            rows[i] = [x + factor * y for x, y in zip(rows[i], rows[k])]
    return Matrix([row[size:] for row in rows])


def positive(a):
    """How many eigenvalues of a symmetric matrix are positive, the others being negative: by its pivots (Sylvester)."""
    rows, count = [list(row) for row in a.rows], 0
    for k in range(len(rows)):
        if rows[k][k].low <= 0 <= rows[k][k].high:
            raise ValueError("a quadratic form cannot be decided")
        count += rows[k][k].low > 0
        for i in range(k + 1, len(rows)):
            factor = rows[i][k] / rows[k][k] * MINUS
            rows[i] = [x + factor * y for x, y in zip(rows[i], rows[k])]
    return count


def slopes(function, values):
    """The Jacobian of a function from a list of intervals to a list."""
    along = [[Jet(value, UNIT if i == k else ZERO) for i, value in enumerate(values)] for k in range(len(values))]
    return Matrix([[getattr(each, "slope", ZERO) for each in function(each)] for each in along]).T


class Statement:  # one equilibrium's claim, with the data as intervals
    def __init__(self, told, claim):
        self.radius, self.has_teacher, self.m = number(told["radius"]), told["ema_rate"] is not None, len(told["X"])
        self.n, x, y = whole(told["n"], 1000), *(matrix(told[name], self.m, self.m, name == "X") for name in "XY")
        self.exact, self.data = x.flat + y.flat, [value.around(self.radius) for value in x.flat + y.flat]
        self.decay_a, self.decay_b = map(number, told["weight_decay"])
        self.ratio = number(told["predictor_lr_ratio"])
        self.beta = number(told["ema_rate"]) if self.has_teacher else UNIT
        if min(value.low for value in (self.decay_a, self.decay_b, self.ratio, self.beta)) <= 0 or self.radius.low < 0:
            raise ValueError("λ, α_p and β must be positive")
        self.level, self.claim = self.decay_b / self.ratio, claim
        self.rank = k = whole(claim["rank"], min(self.m, self.n))
        self.range, self.complement = matrix(claim["range"], self.m, k), matrix(claim["complement"], self.m, self.m - k)
        basis = Matrix([a + b for a, b in zip(self.range.rows, self.complement.rows)])
        solved(basis, identity(self.m))  # it is regular
        size = self.n * (self.m + self.n + self.m * self.has_teacher)
        free = size - k * (k - 1) // 2 - k * (self.n - k)  # less the orthogonal turns' tangents
        self.rest, self.form = matrix(claim["quotient"], size, free), matrix(claim["form"], free, free, True)

    def chart(self, u):
        """P and Ŝ at the coordinates u."""
        k, rest = self.rank, iter(u)
        upper = {(i, j): next(rest) for i in range(k) for j in range(i, k)}
        tilt = Matrix([[next(rest) for _ in range(k)] for _ in range(self.m - k)])
        p = self.range + self.complement @ tilt if k < self.m else self.range
        return p, Matrix([[upper[min(i, j), max(i, j)] for j in range(k)] for i in range(k)])

    def moments(self, data):
        rows = list(zip(*[iter(data)] * self.m))
        return Matrix(rows[: self.m]), Matrix(rows[self.m :])

    def equations(self, u, data):
        """Pᵀ M(S) P above its diagonal, and Pᵀ M(S) complement."""
        (p, hat), (x, y) = self.chart(u), self.moments(data)
        s = p @ hat @ p.T
        left = x @ s + identity(self.m) * self.level
        side = p.T @ (left @ left.T * (self.decay_a / self.level) + y.T @ s @ y * MINUS)
        square = (side @ p).rows
        return [square[i][j] for i in range(self.rank) for j in range(i, self.rank)] + (side @ self.complement).flat

    def root(self):
        """P and Ŝ on the whole box, which holds one root."""
        size = self.rank * (self.rank + 1) // 2 + (self.m - self.rank) * self.rank
        centre, half = (matrix([self.claim[name]], 1, size).flat for name in ("centre", "half"))
        box = [value.around(width) for value, width in zip(centre, half)]
        p, hat = self.chart(box)
        if self.rank > 0:
            inverse = matrix(self.claim["inverse"], size, size)
            newton = lambda data: (inverse @ Matrix([[value] for value in self.equations(centre, data)])).flat
            spread = inverse @ slopes(lambda u: self.equations(u, self.data), box) + identity(size) * MINUS
            drift = slopes(newton, self.data) if self.radius.high else Matrix([[]] * size)  # of the step, by the data
            for i, step in enumerate(newton(self.exact)):
                widths = half + [self.radius] * len(drift.rows[i])
                terms = [abs(x) * width for x, width in zip(spread.rows[i] + drift.rows[i], widths, strict=True)]
                if sum(terms, abs(step)).high >= half[i].low:
                    raise ValueError("Krawczyk's operator leaves the box")
            if positive(hat) != self.rank:
                raise ValueError("Ŝ is not positive definite")
        return p, hat

    def check(self):
        """All steps; raises `ValueError`."""
        (p, hat), (xx, yx), (n, m, k) = self.root(), self.moments(self.data), (self.n, self.m, self.rank)
        metric, a = identity(n), Matrix(p.T.rows + [[ZERO] * m for _ in range(n - k)])
        for i in range(k):
            metric.rows[i][:k] = hat.rows[i]
        inverse, ag = solved(metric, identity(n)), a.T @ metric
        b = solved((a @ xx @ ag + identity(n) * self.level).T, (a @ yx @ ag).T).T

        def rates(values):
            rest = iter(values)
            a, b, *c = (Matrix([[next(rest) for _ in range(width)] for _ in range(n)])
                        for width in (m, n, m)[: 3 if self.has_teacher else 2])  # fmt: skip
            r = b @ a @ xx + (c[0] if c else a) @ yx * MINUS
            by_a = inverse @ b.T @ metric @ r + a * self.decay_a
            by_b = r @ a.T @ metric * self.ratio + b * self.decay_b
            return (by_a * MINUS).flat + (by_b * MINUS).flat + (((a + c[0] * MINUS) * self.beta).flat if c else [])

        jacobian = slopes(rates, a.flat + b.flat + a.flat * self.has_teacher)
        tangents = []
        for i, j in ((i, j) for i in range(k) for j in range(i + 1, n)):
            turn = identity(n) * ZERO
            turn.rows[i][j], turn.rows[j][i] = UNIT, MINUS
            turn = inverse @ turn
            tangents.append((turn @ a).flat + (turn @ b + b @ turn * MINUS).flat + (turn @ a).flat * self.has_teacher)
        basis = Matrix([[tangent[i] for tangent in tangents] + row for i, row in enumerate(self.rest.rows)])
        product = self.form @ Matrix(solved(basis, jacobian @ self.rest).rows[len(tangents) :])
        if positive(product + product.T) != len(product.rows):
            raise ValueError("an eigenvalue may be on the imaginary axis")
        if (grow := positive(self.form)) != whole(self.claim["unstable"], len(product.rows)):
            raise ValueError(f"{grow} directions grow, not {self.claim['unstable']}")


def main(paths):
    wrong = not paths
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                told = json.load(file)
            for index, claim in enumerate(told["equilibria"] or [{}]):
                Statement(told, claim).check()
                print(f"{path}, equilibrium {index}: rank {claim['rank']}, {claim['unstable']} growing: verified")
        except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as reason:
            wrong = True
            print(f"{path}: NOT verified here, and not looked at further: {reason}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
