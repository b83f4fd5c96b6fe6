"""Cube roots and the error function of vectors, to less than one unit in the last place; see `exponentials`."""

from .arithmetic import Value, Vectors, at_most, bits_of, signed_as
from .exponentials import EXPQ, INF, INVERSE_LN2, LN2_HIGH, LN2_LOW, MAGIC, ONE_BITS

# (u+1.5)^(-1/3), degree 6; weighted error 2^-20.1
RCBRT = (
    0.8735803108359085, -0.19413961447783662, 0.08629714821709784, -0.04440482171017486, 0.024532042418028744,
    -0.016912845358649377, 0.01038856091378017,
)  # fmt: skip
# erf(x)/x-1 in z=x^2, x<=1, degree 11; weighted error 2^-56.0
ERFS = (
    0.12837916709551256, -0.37612638903183343, 0.11283791670936946, -0.026866170641957402, 0.005223977596708946,
    -0.0008548325482874764, 0.00012055280400539622, -1.4924463020292068e-05, 1.644410696789438e-06,
    -1.61835595558188e-07, 1.3614371396555254e-08, -7.602555318138224e-10,
)  # fmt: skip
# log(erfc(1+u)) 0<=u<=5, degree 18; weighted error 2^-59.0
ERFQN = (
    -1.8496055099332482, -2.638967514234794, -0.8431072563583908, -0.04156109804751875, 0.01003382543405629,
    -0.0019779029427135007, 0.0002373240196896361, 2.6273528198104572e-05, -2.7150351311483498e-05,
    9.596009009741012e-06, -2.0457184496346145e-06, 1.3144102905800433e-07, 1.0449376010531157e-07,
    -5.516633579123919e-08, 1.5938635222618222e-08, -3.1024001439523932e-09, 4.052086711955264e-10,
    -3.2245087947930486e-11, 1.1828537895527047e-12,
)  # fmt: skip


def erf(o: Vectors, x: Value) -> Value:
    """x + x P(x²) below one, else 1 − exp(Q(|x|)) with Q = log erfc."""
    a = abs(x)
    small = a < 1.0
    z = a * a
    rs = o.fma(a, o.polynomial(ERFS, z), a)
    u = at_most(o, a, 6.0) - 1.0
    q = o.polynomial(ERFQN, u)
    m = o.fma(q, INVERSE_LN2, MAGIC)
    k = m - MAGIC
    r = o.fma(k, -LN2_LOW, o.fma(k, -LN2_HIGH, q))
    p = o.fma(r * r, o.polynomial(EXPQ, r), r)
    s = (m.bits + (1023 - 2048) << 52).real
    rb = o.fma(s, p, s + 1.0)
    return signed_as(o.where(small, rs, rb), x)


def cbrt(o: Vectors, x: Value) -> Value:
    """Of the mantissa m·2^rem: 1/∛ by a polynomial, a Newton step, and one more with r³ to twice the digits."""
    a = abs(x)
    tiny = a < 2.0 ** (-1022)
    v = o.where(tiny, a * 2.0**54, a)
    kb = v.bits >> 52
    e = (kb | bits_of(2.0**52)).real - o.where(tiny, 2.0**52 + 1023 + 54, 2.0**52 + 1023)
    n = o.fma(e, 1.0 / 3.0, MAGIC)
    rem = o.fma(n - MAGIC, -3.0, e)
    m = (v.bits & 2**52 - 1 | ONE_BITS).real
    hi, lo = (rem > 0.5, rem < -0.5)
    c = o.where(hi, 2.0 ** (-1.0 / 3.0), o.where(lo, 2.0 ** (1.0 / 3.0), 1.0))
    scaled = m * o.where(hi, 2.0, o.where(lo, 0.5, 1.0))
    y = c * o.polynomial(RCBRT, m - 1.5)
    minus = -scaled
    q = o.fma(minus, y * y * y, 1.0)
    y = o.fma(y * q, o.fma(q, 2.0 / 9.0, 1.0 / 3.0), y)
    yy = y * y
    r = scaled * yy
    rr = r * r
    f = o.fma(o.fma(r, r, -rr), r, o.fma(rr, r, minus))
    r = o.fma(f, yy * (-1.0 / 3.0), r)
    r = r * (n.bits + 1023 << 52).real
    r = o.where(a < INF, r, a)
    return o.where(o.equal(x, 0.0), x, signed_as(r, x))
