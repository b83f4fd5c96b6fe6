"""The exponential functions in single precision, by arithmetic of single precision: twice the lanes, half the terms.

Each is below one unit in the last place, but for `exp` (1.03) and `tanh` (1.34); the polynomials are our own fits.
"""

from .arithmetic import Value, Vectors, at_least, at_most, bits_of_single, signed_as

MAGIC = 1.5 * 2.0**23  # adding it rounds to a whole number, which the low bits then hold
ONE_BITS = bits_of_single(1.0)
HALF_BITS = bits_of_single(0.5**0.5)
INF, NAN = float("inf"), float("nan")
INVERSE_LN2 = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440054690583e-4  # times 150 the first has no rounding
# (exp(r)-1-r)/r^2, |r|<=ln2/2, degree 4; weighted error 2^-28.1
EXPQ = (0.5, 0.16666515171527863, 0.041666429489851, 0.008369320072233677, 0.0013938245829194784)
# (2^r-1)/r, |r|<=1/2, degree 6; weighted error 2^-32.4
EXP2P = (
    0.6931471824645996, 0.24022650718688965, 0.05550406128168106, 0.009618077427148819, 0.0013336827978491783,
    0.0001545635750517249, 1.4599635505874176e-05,
)  # fmt: skip
# (log(1+f)-f+f^2/2)/f^3, sqrt(1/2)<=1+f<=sqrt(2), degree 8; weighted error 2^-30.3
LOGP = (
    0.3333331346511841, -0.25000011920928955, 0.20002073049545288, -0.1666785478591919, 0.14220231771469116,
    -0.12408192455768585, 0.11886218935251236, -0.11660720407962799, 0.06733054667711258,
)  # fmt: skip
# (tanh(x)-x)/x^3 in z=x^2, x<=0.6, degree 4; weighted error 2^-28.4
TANHP = (-0.33333298563957214, 0.13331936299800873, -0.05378471687436104, 0.02079862542450428, -0.005897966679185629)
# erf(x)/x-1 in z=x^2, x<=1, degree 6; weighted error 2^-29.3
ERFP = (
    0.12837916612625122, -0.3761262595653534, 0.1128358319401741, -0.026853691786527634, 0.005188073962926865,
    -0.0008007878204807639, 7.846108201192692e-05,
)  # fmt: skip
# log(erfc(1+u)), 0<=u<=3, degree 6; weighted error 2^-26.9
ERFCQ = (
    -1.8496055603027344, -2.638965368270874, -0.843130350112915, -0.04146169498562813, 0.00983385555446148,
    -0.0017886774148792028, 0.00017664216284174472,
)  # fmt: skip


def _reduced(o: Vectors, x: Value) -> tuple[Value, Value]:
    """x = k ln 2 + r: m, whose low bits are those of k, and e^r − 1."""
    m = o.fma(x, INVERSE_LN2, MAGIC)
    k = m - MAGIC
    r = o.fma(k, -LN2_LOW, o.fma(k, -LN2_HIGH, x))
    return m, o.fma(o.polynomial(EXPQ, r), r * r, r)


def _scaled(r: Value, m: Value) -> Value:
    """r 2^k by two factors, so that results near the ends of the range are right."""
    both = m.bits + 254
    a = both >> 1
    return r * (a << 23).real * (both - a << 23).real


def exp(o: Vectors, x: Value) -> Value:
    """2^k e^r; infinite or zero beyond the bounds."""
    m, p = _reduced(o, at_most(o, at_least(o, x, -105.0), 89.5))
    return _scaled(p + 1.0, m)


def exp2(o: Vectors, x: Value) -> Value:
    """2^x = 2^k 2^r with |r| ≤ ½."""
    y = at_most(o, at_least(o, x, -152.0), 129.0)
    m = y + MAGIC
    r = y - (m - MAGIC)
    return _scaled(o.fma(o.polynomial(EXP2P, r), r, 1.0), m)


def log(o: Vectors, x: Value) -> Value:
    """k ln 2 + log(1 + f) with 1 + f in [√½, √2]."""
    tiny = x < 2.0**-126
    bits = o.where(tiny, x * 2.0**25, x).bits
    kb = bits + (ONE_BITS - HALF_BITS) >> 23
    k = (kb | bits_of_single(2.0**23)).real - o.where(tiny, 2.0**23 + 127 + 25, 2.0**23 + 127)
    f = (bits - ((kb << 23) - ONE_BITS)).real - 1.0
    z = f * f
    y = o.fma(k, LN2_LOW, z * f * o.polynomial(LOGP, f))
    value = o.fma(k, LN2_HIGH, f + o.fma(z, -0.5, y))
    value = o.where(o.equal(x, INF), INF, value)
    value = o.where(o.equal(x, 0.0), -INF, value)
    return o.where(o.compare("ult", x, 0.0), NAN, value)


def tanh(o: Vectors, x: Value) -> Value:
    """x + x³ P(x²) below 0.6, else 1 − 2 / (e^2|x| + 1)."""
    a = abs(x)
    z = a * a
    near = o.fma(a * z, o.polynomial(TANHP, z), a)
    b = at_most(o, a, 10.0)
    m, p = _reduced(o, b + b)
    power = (p + 1.0) * (m.bits + 127 << 23).real
    far = 1.0 - 2.0 / (power + 1.0)
    return signed_as(o.where(a < 0.6, near, far), x)


def erf(o: Vectors, x: Value) -> Value:
    """x + x P(x²) below one, else 1 − exp(Q(|x|)) with Q = log erfc."""
    a = abs(x)
    near = o.fma(a, o.polynomial(ERFP, a * a), a)
    m, p = _reduced(o, o.polynomial(ERFCQ, at_most(o, a, 4.0) - 1.0))
    far = 1.0 - (p + 1.0) * (m.bits + 127 << 23).real
    return signed_as(o.where(a < 1.0, near, far), x)
