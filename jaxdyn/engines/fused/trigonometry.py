"""Trigonometric functions of vectors and their inverses, to less than one unit in the last place (atan2 with numbers
below 2^-1022 to 1.4); see `exponentials`.
"""

from .arithmetic import SIGN, Value, Vectors, at_most, sign_of, signed_as
from .exponentials import INF, MAGIC, ONE_BITS

BOUND = 2.0**39  # of |x| for sine, cosine and tangent: beyond it they are the C library's
TWO_OVER_PI = 0.6366197723675814
HALF_PI = 1.5707963267948966
HALF_PI_2 = 6.123233995736766e-17
HALF_PI_3 = -1.4973849048591698e-33
PI = 3.141592653589793
PI_2 = 1.2246467991473532e-16
# (r-sin r)/r^3 in z=r^2, |r|<=pi/4, degree 5; weighted error 2^-58.0
SINT = (
    0.16666666666666632, -0.00833333333332248, 0.00019841269829846728, -2.7557313702155803e-06,
    2.5050759361873416e-08, -1.5896852566138908e-10,
)  # fmt: skip
# (cos r-1+r^2/2)/r^4 in z=r^2, degree 5; weighted error 2^-64.2
COSC = (
    0.0416666666666666, -0.0013888888888874465, 2.4801587289662294e-05, -2.755731439751647e-07,
    2.087572871102915e-09, -1.1359900698044502e-11,
)  # fmt: skip
# (atan t-t)/t^3 in z=t^2, t<=1, degree 19; weighted error 2^-57.6
ATANP = (
    -0.3333333333333307, 0.1999999999995175, -0.14285714282588155, 0.11111111007342837, -0.09090907007790898,
    0.07692279888601432, -0.06666404419468251, 0.058805297802491475, -0.05253526648127012, 0.047223479140374836,
    -0.042192424827791494, 0.03664314029182495, -0.029905721259427108, 0.021987052103557034, -0.013902558791632703,
    0.007197874255926391, -0.0028856045179950977, 0.0008315580329221278, -0.00015221085680957677,
    1.3229978121143093e-05,
)  # fmt: skip
# (asin t-t)/t^3 in z=t^2, t<=1/2, degree 12; weighted error 2^-59.9
ASINP = (
    0.1666666666666676, 0.07499999999970867, 0.044642857174559764, 0.03038194270990146, 0.02237221493542456,
    0.017351612854448046, 0.013980811348811196, 0.011398981861328173, 0.010779887769956042, 0.0037077094658772547,
    0.021704439433600675, -0.020994992344864308, 0.03262617684387498,
)  # fmt: skip


def trig_reduce(o: Vectors, x: Value) -> tuple[Value, Value, Value]:
    """x = k π/2 + high − d: (bits of k, high, d). The first step is exact with one rounding (|k| < 2^50)."""
    m = o.fma(x, TWO_OVER_PI, MAGIC)
    k = m - MAGIC
    r = o.fma(k, -HALF_PI, x)
    h = k * HALF_PI_2
    high = r - h
    e = r - high - h
    rest = o.fma(k, HALF_PI_3, o.fma(k, HALF_PI_2, -h))
    return (m.bits, high, rest - e)


def sin_cos_parts(o: Vectors, high: Value, d: Value) -> tuple[Value, Value, Value, Value]:
    """sin(high − d) = high − sl and cos(high − d) = w + cl."""
    z = high * high
    w = o.fma(z, -0.5, 1.0)
    sl = o.fma(high * z, o.polynomial(SINT, z), d * w)
    cl = o.fma(z, -0.5, 1.0 - w)
    cl = o.fma(z * z, o.polynomial(COSC, z), o.fma(high, d, cl))
    return (high, sl, w, cl)


def sin_cos(o: Vectors, x: Value, shift: bool) -> Value:
    """The one or the other by the quarter turn; `shift` for the cosine."""
    bits_, high, d = trig_reduce(o, x)
    high, sl, w, cl = sin_cos_parts(o, high, d)
    s = high - sl
    c = w + cl
    if shift:
        bits_ = bits_ + 1
    odd = o.equal(bits_ & 1, 0)
    r = o.where(odd, s, c)
    return (r.bits ^ bits_ >> 1 << 63).real


def sin(o: Vectors, x: Value) -> Value:
    """For |x| ≤ BOUND."""
    return sin_cos(o, x, False)


def cos(o: Vectors, x: Value) -> Value:
    """For |x| ≤ BOUND."""
    return sin_cos(o, x, True)


def tan(o: Vectors, x: Value) -> Value:
    """For |x| ≤ BOUND: the quotient of sine and cosine, each with its rounding error."""
    bits_, high, d = trig_reduce(o, x)
    high, sl, w, cl = sin_cos_parts(o, high, d)
    s = high - sl
    st = high - s - sl
    c = w + cl
    ct = w - c + cl
    even = o.equal(bits_ & 1, 0)
    nh, nl = (o.where(even, s, c), o.where(even, st, ct))
    dh, dl = (o.where(even, c, s), o.where(even, ct, st))
    ih = 1.0 / dh
    q = nh * ih
    e = o.fma(q, dl, o.fma(q, dh, -nh)) - nl
    r = o.fma(e, -ih, q)
    return (r.bits ^ bits_ << 63).real


def atan(o: Vectors, x: Value) -> Value:
    """By a polynomial on [0, 1]; above, π/2 + atan(−1/a) with the rest of the quotient."""
    a = at_most(o, abs(x), 2.0**60)
    big = a > 1.0
    n = o.where(big, -1.0, a)
    d = o.where(big, a, 1.0)
    t = n / d
    e = o.fma(-t, d, n)
    b = o.where(big, HALF_PI, 0.0)
    bl = o.where(big, HALF_PI_2, 0.0)
    z = t * t
    low = o.fma(t * -0.6, e, bl)
    p = o.fma(t, z * o.polynomial(ATANP, z), low)
    h = b + t
    rest = b - h + t
    return signed_as(h + (rest + p), x)


def atan2(o: Vectors, y: Value, x: Value) -> Value:
    """By the quotient of the smaller by the larger, with its rest; signs and ends as C99 has them."""
    ay, ax = (abs(y), abs(x))
    swap = ax < ay
    n, d = (o.where(swap, ax, ay), o.where(swap, ay, ax))
    d = o.where(o.equal(d, 0.0), 2.0 ** (-1074), d)
    q = n / d
    same = o.equal(n, d)
    t = o.where(same, 1.0, q)
    tl = o.fma(-t, d, n) / d
    ok = d < INF
    tl = o.where(ok, tl, 0.0)
    sign_x = sign_of(x)
    z = t * t
    p = o.fma(t, z * o.polynomial(ATANP, z), tl * o.fma(z, -0.5, 1.0))
    left = (sign_x | ONE_BITS).real < 0.0
    b = o.where(swap, HALF_PI, o.where(left, PI, 0.0))
    bl = o.where(swap, HALF_PI_2, o.where(left, PI_2, 0.0))
    turned = sign_x ^ o.where(swap, SIGN, 0)
    t = (t.bits ^ turned).real
    p = (p.bits ^ turned).real
    h = b + t
    rest = b - h + t
    return signed_as(h + (rest + (bl + p)), y)


def asin(o: Vectors, x: Value) -> Value:
    """Above ½, π/2 − 2 asin √((1 − a)/2)."""
    a = abs(x)
    big = a > 0.5
    z = o.where(big, o.fma(a, -0.5, 0.5), a * a)
    t = o.where(big, o.sqrt(z), a)
    lin = o.where(big, o.fma(z, -3.6, 1.9), 0.0)
    p = o.fma(t * z, o.polynomial(ASINP, z), lin * o.fma(-t, t, z))
    cf = o.where(big, -2.0, 1.0)
    b = o.where(big, HALF_PI, 0.0)
    bl = o.where(big, HALF_PI_2, 0.0)
    h = o.fma(t, cf, b)
    rest = o.fma(t, cf, b - h)
    return signed_as(h + (rest + o.fma(p, cf, bl)), x)


def acos(o: Vectors, x: Value) -> Value:
    """π/2 − asin x up to ½; 2 asin √((1 − x)/2) to the right, π − 2 asin √((1 + x)/2) to the left."""
    a = abs(x)
    big = a > 0.5
    z = o.where(big, o.fma(a, -0.5, 0.5), a * a)
    t = o.where(big, o.sqrt(z), a)
    e = o.fma(-t, t, z) / o.fma(t, 2.0, 2.0 ** (-1000))
    p = o.fma(t * z, o.polynomial(ASINP, z), o.where(big, e, 0.0))
    cf = o.where(big, 2.0, -1.0)
    cf = (cf.bits ^ sign_of(x)).real
    left = x < 0.0
    b = o.where(big, o.where(left, PI, 0.0), HALF_PI)
    bl = o.where(big, o.where(left, PI_2, 0.0), HALF_PI_2)
    h = o.fma(t, cf, b)
    rest = o.fma(t, cf, b - h)
    return h + (rest + o.fma(p, cf, bl))
