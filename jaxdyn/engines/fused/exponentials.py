"""Exponentials and logarithms of vectors, and what is made of them, each to less than one unit in the last place.

The polynomials are our own minimax fits, told with what they approximate and their weighted error; `tests` measure the
functions. Arguments beyond the range come out as C99 says: infinite, zero or no number.
"""

import math

from .arithmetic import SIGN, Value, Vectors, at_least, at_most, bits_of, signed_as

MAGIC = 1.5 * 2.0**52  # adding it rounds to a whole number, which the low bits then hold
ONE_BITS = bits_of(1.0)
INF, NAN = math.inf, math.nan
INVERSE_LN2 = 1.4426950408889634
LN2_HIGH = 0.6931471805592082
LN2_LOW = 7.371002565167799e-13
LN2 = 0.6931471805599453
SQRT_HALF = 0.7071067811865476
TWO_THIRDS_LOW = 3.700743415417188e-17
_LN2_SHORT, _LN2_REST = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # their sum is ln 2 as well
# (exp(r)-1-r)/r^2, |r|<=ln2/2, degree 10; weighted error 2^-61.6
EXPQ = (
    0.5, 0.16666666666666677, 0.041666666666666685, 0.008333333333321815, 0.0013888888888895013,
    0.00019841269885276642, 2.480158727401032e-05, 2.7557245225497387e-06, 2.755733546978226e-07,
    2.5108660551877376e-08, 2.0891634444782813e-09,
)  # fmt: skip
# (2^r-1-r ln2)/r^2, |r|<=1/2, degree 10; weighted error 2^-62.9
EXP2Q = (
    0.24022650695910072, 0.055504108664821666, 0.009618129107627835, 0.0013333558146392261, 0.000154035303946813,
    1.5252733857453261e-05, 1.321548568456478e-06, 1.017804995473765e-07, 7.055327086779634e-09,
    4.4569363794967643e-10, 2.5124861946637013e-11,
)  # fmt: skip
# (log((1+s)/(1-s))-2s)/s^3 in z=s^2, degree 6; weighted error 2^-59.5
LOGR = (
    0.6666666666666735, 0.3999999999940934, 0.28571428743691724, 0.22222198428165532, 0.18183572410421647,
    0.15313830448781657, 0.14798278430542036,
)  # fmt: skip
# (log((1+s)/(1-s))-2s-2s^3/3)/s^5 in z=s^2, degree 6; weighted error 2^-66.3
LOGT = (
    0.4000000000000226, 0.2857142857009683, 0.22222222520431673, 0.18181784321061756, 0.15386759520349114,
    0.13256765279805685, 0.13196828872147376,
)  # fmt: skip
# (sinh r-r)/r^3 in z=r^2, |r|<=ln2/2, degree 4; weighted error 2^-61.7
SINHS = (
    0.16666666666666677, 0.008333333333321384, 0.00019841269886823525, 2.7557243441082342e-06,
    2.5109325758018974e-08,
)  # fmt: skip
# (cosh r-1)/r^2 in z=r^2, degree 5; weighted error 2^-70.0
COSHC = (
    0.5, 0.041666666666666685, 0.0013888888888873283, 2.48015873492019e-05, 2.755725182015498e-07,
    2.0921769670808544e-09,
)  # fmt: skip


def exp_reduce(o: Vectors, x: Value) -> tuple[Value, Value, Value, Value]:
    """x = k ln 2 + high + low with |high| ≤ 0.3466: (m, k, high, low); the low bits of m are those of k."""
    m = o.fma(x, INVERSE_LN2, MAGIC)
    k = m - MAGIC
    r = o.fma(k, -LN2_HIGH, x)
    high = o.fma(k, -LN2_LOW, r)
    low = o.fma(k, -LN2_LOW, r - high)
    return (m, k, high, low)


def scale(r: Value, m: Value) -> Value:
    """r 2^k by two factors, so that results near the ends of the range are right; the low bits of m are those of k."""
    ki = m.bits + 2046
    a = ki >> 1
    b = ki - a
    return r * (a << 52).real * (b << 52).real


def exp(o: Vectors, x: Value) -> Value:
    """2^k e^r with |r| ≤ ln 2 / 2, e^r by its Taylor polynomial of degree 13; infinite or zero beyond the bounds."""
    x = at_most(o, at_least(o, x, -746.0), 710.0)
    m = o.fma(x, INVERSE_LN2, MAGIC)
    k = m - MAGIC
    r = o.fma(k, -_LN2_SHORT, x)
    r = o.fma(k, -_LN2_REST, r)
    tail = o.polynomial([1 / math.factorial(n) for n in range(2, 14)], r)
    return scale(o.fma(tail, r * r, r) + 1.0, m)


def log(o: Vectors, x: Value) -> Value:
    """k ln 2 + log(1 + f) with 1 + f in [√½, √2], by the series of artanh(f / (2 + f))."""
    tiny = x < 2.0**-1022
    bits = o.where(tiny, x * 2.0**54, x).bits
    kb = bits + (ONE_BITS - bits_of(SQRT_HALF)) >> 52
    k = (kb | bits_of(2.0**52)).real - o.where(tiny, 2.0**52 + 1023 + 54, 2.0**52 + 1023)
    f = (bits - ((kb << 52) - ONE_BITS)).real - 1.0
    s = f / (f + 2.0)
    z = s * s
    series = o.polynomial([2 / (2 * n + 1) for n in range(1, 13)], z) * z
    half = f * f * 0.5
    # log(1 + f) = f − (f²/2 − s (f²/2 + series)), the small terms first.
    correction = o.fma(s, half + series, k * _LN2_REST)
    value = 0.0 - o.fma(k, -_LN2_SHORT, half - correction - f)  # 0 at one, not −0
    value = o.where(o.equal(x, INF), INF, value)
    value = o.where(o.equal(x, 0.0), -INF, value)
    return o.where(o.compare("ult", x, 0.0), NAN, value)


def tanh(o: Vectors, x: Value) -> Value:
    """((1 − t) + p) / ((1 + t) + p) where e^(2|x|) = 2^k (1 + p) and t = 2^−k, both sums with their rounding errors."""
    a = at_most(o, abs(x), 20.0)
    y = a + a
    m, _k, high, low = exp_reduce(o, y)
    p = o.fma(high * high, o.polynomial(EXPQ, high), low)
    ph = high + p
    pl = high - ph + p
    t = (1023 - m.bits << 52).real
    v = 1.0 + t
    u = o.fma(t, -2.0, v)
    nh = u + ph
    nl = u - nh + ph + pl
    dh = v + ph
    dl = v - dh + ph + pl
    ih = 1.0 / dh
    q = nh * ih
    e = nl - o.fma(q, dl, o.fma(q, dh, -nh))
    return signed_as(o.fma(e, ih, q), x)


def expm1(o: Vectors, x: Value) -> Value:
    """2^k (1 + p) − 1 as 2^k ((1 − 2^−k) + p)."""
    y = at_least(o, at_most(o, x, 710.0), -40.0)
    m, k, high, low = exp_reduce(o, y)
    p = o.fma(high * high * high, o.polynomial(EXPQ[1:], high), low)
    kk = o.where(k > 80.0, MAGIC + 80.0, m)
    t = (1023 - kk.bits << 52).real
    u = 1.0 - t
    ul = 1.0 - u - t
    h = u + high
    rest = o.fma(high * 0.5, high, u - h + high)
    return signed_as(scale(h + (rest + (p + ul)), m), x)


def log1p_core(o: Vectors, x: Value, xl: Value | None = None, kadd: Value | None = None) -> Value:
    """log(1 + x + xl) + kadd ln 2 for a finite x > −1 and a small correction xl of it.

    1 + x = 2^k (1 + f); with s = f / (2 + f), log(1 + f) = f − f²/2 + s (f²/2 + s² R(s²)).
    """
    u = x + 1.0
    bits_ = u.bits + (ONE_BITS - bits_of(SQRT_HALF))
    kb = bits_ >> 52
    t = (2048 - kb << 52).real
    t = t * 0.25
    k = (kb | bits_of(2.0**52)).real - (2.0**52 + 1023)
    if kadd is not None:
        k = k + kadd
    a = t - 1.0
    f = o.fma(x, t, a)
    fl = o.fma(x, t, a - f)
    if xl is not None:
        fl = o.fma(xl, t, fl)
    s = f / (f + 2.0)
    z = s * s
    hf = f * 0.5
    g = o.fma(z, o.polynomial(LOGR, z), hf * f)
    low = o.fma(k, LN2_LOW, o.fma(-f, fl, fl))
    whole = k * LN2_HIGH
    h = whole + f
    rest = o.fma(-hf, f, whole - h + f)
    return h + (rest + o.fma(s, g, low))


def log1p(o: Vectors, x: Value) -> Value:
    """log(1 + x)."""
    r = log1p_core(o, x)
    r = o.where(x < INF, r, x)
    bad = o.where(o.equal(x, -1.0), -INF, NAN)
    r = o.where(x > -1.0, r, bad)
    return signed_as(r, x)


def power(o: Vectors, x: Value, y: Value) -> Value:
    """exp(y log |x|) with the logarithm and the product to twice the digits; signs and ends as C99 has them."""
    ax = abs(x)
    tiny = ax < 2.0 ** (-1022)
    v = o.where(tiny, ax * 2.0**64, ax)
    bits_ = v.bits + (ONE_BITS - bits_of(SQRT_HALF))
    kb = bits_ >> 52
    k = (kb | bits_of(2.0**52)).real - o.where(tiny, 2.0**52 + 1023 + 64, 2.0**52 + 1023)
    m = (v.bits - ((kb << 52) - ONE_BITS)).real
    f = m - 1.0
    dh = m + 1.0
    dl = m - (dh - 1.0)
    ih = 1.0 / dh
    sh = f * ih
    ns = -sh
    sl = o.fma(ns, dl, o.fma(ns, dh, f)) * ih
    s2 = sh + sh
    z = sh * sh
    zl = o.fma(s2, sl, o.fma(sh, sh, -z))
    t = z * o.polynomial(LOGT, z)
    ch = t + 2.0 / 3.0
    cl = 2.0 / 3.0 - ch + t + TWO_THIRDS_LOW
    wh = sh * z
    wl = o.fma(sl, z, o.fma(sh, zl, o.fma(sh, z, -wh)))
    gh = wh * ch
    gl = o.fma(wl, ch, o.fma(wh, cl, o.fma(wh, ch, -gh)))
    whole = k * LN2_HIGH
    h1 = whole + s2
    l1 = whole - h1 + s2
    lh = h1 + gh
    l2 = h1 - lh + gh
    ll = l1 + l2 + o.fma(k, LN2_LOW, o.fma(sl, 2.0, gl))
    lh = o.where(o.equal(ax, 0.0), -INF, lh)
    lh = o.where(ax < INF, lh, ax)
    yc = at_least(o, at_most(o, y, 2.0**64), -(2.0**64))
    ph = yc * lh
    pl = o.fma(yc, ll, o.fma(yc, lh, -ph))
    mm = o.fma(ph, INVERSE_LN2, MAGIC)
    n = mm - MAGIC
    r0 = o.fma(n, -LN2_HIGH, ph)
    rl = o.fma(n, -LN2_LOW, pl)
    r = r0 + rl
    e = r0 - r + rl
    p = o.fma(r * r, o.polynomial(EXPQ, r), e)
    h = r + 1.0
    rest = 1.0 - h + r
    res = scale(h + (rest + p), mm)
    res = o.where(ph < -746.0, 0.0, res)
    res = o.where(ph > 710.0, INF, res)
    half = y * 0.5
    yint = o.equal(o.round(y), y)
    odd = o.where(o.equal(o.round(half), half), 0, o.where(yint, SIGN, 0))
    res = (res.bits | odd & x.bits).real
    other = o.where(yint, res, o.where(ax < INF, NAN, res))
    res = o.where(x < 0.0, other, res)
    res = o.where(o.equal(y, 0.0), 1.0, res)
    return o.where(o.equal(x, 1.0), 1.0, res)


def sinh_cosh(o: Vectors, a: Value) -> tuple[Value, ...]:
    """For a ≥ 0 with e^a = 2^k e^r: m, sinh r = high + s, cosh r = 1 + c, and (1 ∓ 2^−2k) / 2 with their rounding."""
    m, k, high, low = exp_reduce(o, at_most(o, a, 711.0))
    z = high * high
    c = z * o.polynomial(COSHC, z)
    s = o.fma(high * z, o.polynomial(SINHS, z), low)
    v = (1022 - (m.bits << 1) << 52).real
    v = o.where(k > 40.0, 0.0, v)
    less, more = (0.5 - v, v + 0.5)
    lost = 0.5 - less - v
    return (m, high, c, s, less, more, lost)


def sinh_cosh_sum(
    o: Vectors, m: Value, high: Value, c: Value, s: Value, less: Value, more: Value, lost: Value, add: bool
) -> Value:
    """2^k (less cosh r + more sinh r), which is sinh a; with both exchanged it is cosh a."""
    h = o.fma(more, high, less)
    rest = o.fma(more, high, less - h)
    rest = rest + lost if add else rest - lost
    return scale(h + o.fma(less, c, o.fma(more, s, rest)), m)


def sinh(o: Vectors, x: Value) -> Value:
    """By `sinh_cosh`, odd."""
    m, high, c, s, less, more, lost = sinh_cosh(o, abs(x))
    return signed_as(sinh_cosh_sum(o, m, high, c, s, less, more, lost, True), x)


def cosh(o: Vectors, x: Value) -> Value:
    """By `sinh_cosh`, even."""
    m, high, c, s, less, more, lost = sinh_cosh(o, abs(x))
    return sinh_cosh_sum(o, m, high, c, s, more, less, lost, False)


def asinh(o: Vectors, x: Value) -> Value:
    """log1p(a + a² / (1 + √(1 + a²))); log a + ln 2 far out."""
    a = abs(x)
    g = a / (o.sqrt(o.fma(a, a, 1.0)) + 1.0)
    v = o.fma(a, g, a)
    vl = o.fma(a, g, a - v)
    big = a > 2.0**60
    v = o.where(big, a, v)
    vl = o.where(big, 0.0, vl)
    r = log1p_core(o, v, vl, o.where(big, 1.0, 0.0))
    return signed_as(o.where(a < INF, r, a), x)


def acosh(o: Vectors, x: Value) -> Value:
    """log1p(d + √(d (d + 2))) with d = x − 1, the root with its rounding error."""
    d = x - 1.0
    d2 = d + d
    w = o.fma(d, d, d2)
    wl = o.fma(d, d, d2 - w)
    q = o.sqrt(w)
    ql = (o.fma(-q, q, w) + wl) / o.fma(q, 2.0, 2.0 ** (-1000))
    v = q + d
    vl = q - v + d + ql
    big = x > 2.0**60
    v = o.where(big, x, v)
    vl = o.where(big, 0.0, vl)
    r = log1p_core(o, v, vl, o.where(big, 1.0, 0.0))
    r = o.where(x < INF, r, x)
    return o.where(x < 1.0, NAN, r)


def atanh(o: Vectors, x: Value) -> Value:
    """log1p(2a / (1 − a)) / 2."""
    a = abs(x)
    n = a + a
    dh = 1.0 - a
    dl = 1.0 - dh - a
    v = n / dh
    nv = -v
    vl = o.fma(nv, dl, o.fma(nv, dh, n)) / dh
    r = log1p_core(o, v, vl) * 0.5
    r = o.where(a < 1.0, r, o.where(o.equal(a, 1.0), INF, NAN))
    return signed_as(r, x)


def exp2(o: Vectors, x: Value) -> Value:
    """2^x = 2^k 2^r with |r| ≤ ½."""
    y = at_least(o, at_most(o, x, 1025.0), -1080.0)
    m = y + MAGIC
    r = y - (m - MAGIC)
    h = o.fma(r, LN2, 1.0)
    rest = o.fma(r, LN2, 1.0 - h)
    p = o.fma(r * r, o.polynomial(EXP2Q, r), rest)
    return scale(h + p, m)
