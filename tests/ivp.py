"""The DETEST non-stiff problems and seven classical stiff problems, with reference solutions.

The non-stiff set is the one of Hull, Enright, Fellen and Sedgwick, "Comparing numerical methods for ordinary
differential equations", SIAM J. Numer. Anal. 9 (1972): classes A (single equations), B (small systems),
C (moderate systems), D (orbits) and E (higher order equations), each from t = 0 to t = 20. The stiff set holds
problems of Hairer and Wanner, "Solving Ordinary Differential Equations II" (IV.10), and of the Test Set for IVP
Solvers (CWI, later Bari); Pollution is from Verwer, SIAM J. Sci. Comput. 15 (1994).

A field is called as ``field(xp, t, y)`` and returns a list of the components of y'. It indexes ``y``, uses
arithmetic, and takes ``sin``, ``cos`` and ``sqrt`` from ``xp``, so one text serves NumPy, jax.numpy and mpmath.

The constants are the doubles nearest to the published decimals. So are the starts.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

# ---- Class A: single equations -------------------------------------------------------------------------------


def a1(xp, t, y):
    """Exponential decay; the solution is exp(-t)."""
    return [-y[0]]


def a2(xp, t, y):
    """A special case of the Riccati equation; the solution is 1 / sqrt(1 + t)."""
    return [-(y[0] * y[0] * y[0]) / 2]


def a3(xp, t, y):
    """An oscillating problem; the solution is exp(sin t)."""
    return [y[0] * xp.cos(t)]


def a4(xp, t, y):
    """The logistic curve; the solution is 20 / (1 + 19 exp(-t / 4))."""
    return [y[0] / 4 * (1 - y[0] / 20)]


def a5(xp, t, y):
    """A spiral curve; in polar coordinates of the (t, y) plane, r = 4 exp(pi / 2 - theta)."""
    return [(y[0] - t) / (y[0] + t)]


# ---- Class B: small systems ----------------------------------------------------------------------------------


def b1(xp, t, y):
    """The growth of two conflicting populations."""
    both = y[0] * y[1]
    return [2 * (y[0] - both), both - y[1]]


def b2(xp, t, y):
    """A linear chemical reaction."""
    return [y[1] - y[0], y[0] - 2 * y[1] + y[2], y[1] - y[2]]


def b3(xp, t, y):
    """A nonlinear chemical reaction."""
    square = y[1] * y[1]
    return [-y[0], y[0] - square, square]


def b4(xp, t, y):
    """The integral surface of a torus; the solution is ((2 + cos t) cos t, (2 + cos t) sin t, sin t)."""
    radius = xp.sqrt(y[0] * y[0] + y[1] * y[1])
    return [-y[1] - y[0] * y[2] / radius, y[0] - y[1] * y[2] / radius, y[0] / radius]


def b5(xp, t, y):
    """Euler's equations of a rigid body; the solution is sn, cn, dn of t for the parameter m = 0.51."""
    return [y[1] * y[2], -(y[0] * y[2]), -0.51 * y[0] * y[1]]


# ---- Class C: moderate systems -------------------------------------------------------------------------------


def c1(xp, t, y):
    """A radioactive decay chain of 10 members with equal rates."""
    return [-y[0], *(y[i - 1] - y[i] for i in range(1, 9)), y[8]]


def c2(xp, t, y):
    """A radioactive decay chain of 10 members with rates 1, 2, ..., 9."""
    return [-y[0], *(i * y[i - 1] - (i + 1) * y[i] for i in range(1, 9)), 9 * y[8]]


def _second_differences(y, count):
    inner = [y[i - 1] - 2 * y[i] + y[i + 1] for i in range(1, count - 1)]
    return [y[1] - 2 * y[0], *inner, y[count - 2] - 2 * y[count - 1]]


def c3(xp, t, y):
    """The heat equation by the method of lines, 10 points, unit spacing, zero at both ends."""
    return _second_differences(y, 10)


def c4(xp, t, y):
    """The heat equation by the method of lines, 51 points, unit spacing, zero at both ends."""
    return _second_differences(y, 51)


# The sun with the inner planets, then Jupiter, Saturn, Uranus, Neptune, Pluto. Units: solar mass, astronomical
# unit, 100 days.
_GRAVITY = 2.95912208286
_SUN = 1.00000597682
_PLANETS = (0.000954786104043, 0.000285583733151, 0.0000437273164546, 0.0000517759138449, 0.00000277777777778)


def c5(xp, t, y):
    """The motion of five outer planets about the sun.

    The first 15 components are the heliocentric positions, three coordinates a planet, and the last 15 their
    velocities in the same order.
    """
    place = [[y[3 * j + i] for i in range(3)] for j in range(5)]

    def inverse_cube(v):
        square = v[0] * v[0] + v[1] * v[1] + v[2] * v[2]
        return 1 / (square * xp.sqrt(square))

    to_sun = [inverse_cube(p) for p in place]
    pull = [[-_GRAVITY * (_SUN + _PLANETS[j]) * to_sun[j] * place[j][i] for i in range(3)] for j in range(5)]
    for j in range(5):
        for k in range(j):
            gap = [place[k][i] - place[j][i] for i in range(3)]
            between = inverse_cube(gap)
            for i in range(3):
                near = gap[i] * between
                pull[j][i] = pull[j][i] + _GRAVITY * _PLANETS[k] * (near - place[k][i] * to_sun[k])
                pull[k][i] = pull[k][i] - _GRAVITY * _PLANETS[j] * (near + place[j][i] * to_sun[j])
    return [*(y[i] for i in range(15, 30)), *(part for row in pull for part in row)]


# fmt: off
_C5_START = (
    3.42947415189, 3.35386959711, 1.35494901715,
    6.64145542550, 5.97156957878, 2.18231499728,
    11.2630437207, 14.6952576794, 6.27960525067,
    -30.1552268759, 1.65699966404, 1.43785752721,
    -21.1238353380, 28.4465098142, 15.3882659679,
    -0.557160570446, 0.505696783289, 0.230578543901,
    -0.415570776342, 0.365682722812, 0.169143213293,
    -0.325325669158, 0.189706021964, 0.0877265322780,
    -0.0240476254170, -0.287659532608, -0.117219543175,
    -0.176860753121, -0.216393453025, -0.0148647893090,
)
# fmt: on

# ---- Class D: orbits -----------------------------------------------------------------------------------------


def orbit(xp, t, y):
    """The two-body problem in the plane, position then velocity; D1 to D5 differ in eccentricity only."""
    square = y[0] * y[0] + y[1] * y[1]
    cube = square * xp.sqrt(square)
    return [y[2], y[3], -y[0] / cube, -y[1] / cube]


def _orbit_start(tenths):
    """The pericentre of the orbit with semi-major axis 1 and eccentricity tenths / 10."""
    return ((10 - tenths) / 10, 0.0, 0.0, math.sqrt((10 + tenths) / (10 - tenths)))


# ---- Class E: higher order equations -------------------------------------------------------------------------


def e1(xp, t, y):
    """Bessel's equation of order 1/2 with the origin moved to t = -1; the solution is J(1/2, t + 1)."""
    s = t + 1
    return [y[1], -(y[1] / s + (1 - 0.25 / (s * s)) * y[0])]


def e2(xp, t, y):
    """Van der Pol's equation with mu = 1."""
    return [y[1], (1 - y[0] * y[0]) * y[1] - y[0]]


def e3(xp, t, y):
    """Duffing's equation, forced."""
    return [y[1], y[0] * y[0] * y[0] / 6 - y[0] + 2 * xp.sin(2.78535 * t)]


def e4(xp, t, y):
    """A falling body with quadratic drag."""
    return [y[1], 0.032 - 0.4 * y[1] * y[1]]


def e5(xp, t, y):
    """A linear pursuit curve."""
    return [y[1], xp.sqrt(1 + y[1] * y[1]) / (25 - t)]


# ---- Stiff problems ------------------------------------------------------------------------------------------


def robertson(xp, t, y):
    """Robertson's autocatalytic reaction."""
    slow, mixed, fast = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] * y[1]
    return [mixed - slow, slow - mixed - fast, fast]


def van_der_pol_mu(xp, t, y):
    """Van der Pol's equation with mu = 1000, unscaled time."""
    return [y[1], 1e3 * (1 - y[0] * y[0]) * y[1] - y[0]]


def van_der_pol_eps(xp, t, y):
    """Van der Pol's equation with eps = 1e-6 and time scaled by mu.

    With eps = 1 / mu**2 this is again mu = 1000: t here is t / mu there and y[1] here is mu y[1] there.
    """
    return [y[1], ((1 - y[0] * y[0]) * y[1] - y[0]) / 1e-6]


def hires(xp, t, y):
    """High irradiance responses of photomorphogenesis (Schaefer), 8 reactants."""
    bind, free = 280.0 * y[5] * y[7], 1.81 * y[6]
    return [
        -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007,
        1.71 * y[0] - 8.75 * y[1],
        -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4],
        8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3],
        -1.745 * y[4] + 0.43 * y[5] + 0.43 * y[6],
        -bind + 0.69 * y[3] + 1.71 * y[4] - 0.43 * y[5] + 0.69 * y[6],
        bind - free,
        free - bind,
    ]


def orego(xp, t, y):
    """The Oregonator of Field and Noyes."""
    return [
        77.27 * (y[1] + y[0] * (1 - 8.375e-6 * y[0] - y[1])),
        (y[2] - (1 + y[0]) * y[1]) / 77.27,
        0.161 * (y[0] - y[2]),
    ]


# One row a reaction: rate constant, reactants, net change of each species (numbered from 1).
_REACTIONS = (
    (0.35, (1,), {1: -1, 2: 1, 3: 1}),
    (26.6, (2, 4), {1: 1, 2: -1, 4: -1}),
    (1.23e4, (5, 2), {1: 1, 2: -1, 5: -1, 6: 1}),
    (8.6e-4, (7,), {5: 2, 7: -1, 8: 1}),
    (8.2e-4, (7,), {7: -1, 8: 1}),
    (1.5e4, (7, 6), {5: 1, 6: -1, 7: -1, 8: 1}),
    (1.3e-4, (9,), {5: 1, 8: 1, 9: -1, 10: 1}),
    (2.4e4, (9, 6), {6: -1, 9: -1, 11: 1}),
    (1.65e4, (11, 2), {1: 1, 2: -1, 10: 1, 11: -1, 12: 1}),
    (9e3, (11, 1), {1: -1, 11: -1, 13: 1}),
    (0.022, (13,), {1: 1, 11: 1, 13: -1}),
    (1.2e4, (10, 2), {1: 1, 2: -1, 10: -1, 14: 1}),
    (1.88, (14,), {5: 1, 7: 1, 14: -1}),
    (1.63e4, (1, 6), {1: -1, 6: -1, 15: 1}),
    (4.8e6, (3,), {3: -1, 4: 1}),
    (3.5e-4, (4,), {4: -1, 16: 1}),
    (0.0175, (4,), {3: 1, 4: -1}),
    (1e8, (16,), {6: 2, 16: -1}),
    (4.44e11, (16,), {3: 1, 16: -1}),
    (1.24e3, (17, 6), {5: 1, 6: -1, 17: -1, 18: 1}),
    (2.1, (19,), {2: 1, 19: -1}),
    (5.78, (19,), {1: 1, 3: 1, 19: -1}),
    (0.0474, (1, 4), {1: -1, 4: -1, 19: 1}),
    (1.78e3, (19, 1), {1: -1, 19: -1, 20: 1}),
    (3.12, (20,), {1: 1, 19: 1, 20: -1}),
)


def pollution(xp, t, y):
    """The chemical part of an air pollution model, 20 species and 25 reactions."""
    change: list[Any] = [0] * 20
    for constant, reactants, net in _REACTIONS:
        rate = constant
        for species in reactants:
            rate = rate * y[species - 1]
        for species, count in net.items():
            change[species - 1] = change[species - 1] + count * rate
    return change


def e5_stiff(xp, t, y):
    """A chemical pyrolysis, problem E5 of the stiff DETEST set; y[1] = y[2] + y[3] for all t."""
    start, first, second, last = 7.89e-10 * y[0], 1.1e7 * y[0] * y[2], 1.13e9 * y[1] * y[2], 1.13e3 * y[3]
    return [-start - first, start - second, start - second - first + last, first - last]


class Problem(NamedTuple):
    """One initial value problem on [0, t1].

    ``atol_scale`` is the size below which a component need not be right: a run at the relative tolerance rtol takes
    the absolute tolerance rtol * atol_scale. For ``e5_stiff`` Hairer and Wanner take a fixed 1.7e-24 in place of it.
    """

    name: str
    field: Callable
    start: tuple[float, ...]
    t1: float
    stiff: bool
    atol_scale: float


def _first(count):
    return (1.0, *([0.0] * (count - 1)))


_POLLUTION_START = {2: 0.2, 4: 0.04, 7: 0.1, 8: 0.3, 9: 0.01, 17: 0.007}

PROBLEMS: tuple[Problem, ...] = (
    Problem("a1", a1, (1.0,), 20.0, False, 1.0),
    Problem("a2", a2, (1.0,), 20.0, False, 1.0),
    Problem("a3", a3, (1.0,), 20.0, False, 1.0),
    Problem("a4", a4, (1.0,), 20.0, False, 1.0),
    Problem("a5", a5, (4.0,), 20.0, False, 1.0),
    Problem("b1", b1, (1.0, 3.0), 20.0, False, 1.0),
    Problem("b2", b2, (2.0, 0.0, 1.0), 20.0, False, 1.0),
    Problem("b3", b3, (1.0, 0.0, 0.0), 20.0, False, 1.0),
    Problem("b4", b4, (3.0, 0.0, 0.0), 20.0, False, 1.0),
    Problem("b5", b5, (0.0, 1.0, 1.0), 20.0, False, 1.0),
    Problem("c1", c1, _first(10), 20.0, False, 1.0),
    Problem("c2", c2, _first(10), 20.0, False, 1.0),
    Problem("c3", c3, _first(10), 20.0, False, 1.0),
    Problem("c4", c4, _first(51), 20.0, False, 1.0),
    Problem("c5", c5, _C5_START, 20.0, False, 1.0),
    Problem("d1", orbit, _orbit_start(1), 20.0, False, 1.0),
    Problem("d2", orbit, _orbit_start(3), 20.0, False, 1.0),
    Problem("d3", orbit, _orbit_start(5), 20.0, False, 1.0),
    Problem("d4", orbit, _orbit_start(7), 20.0, False, 1.0),
    Problem("d5", orbit, _orbit_start(9), 20.0, False, 1.0),
    Problem("e1", e1, (0.6713967071418031, 0.09540051444747446), 20.0, False, 1.0),
    Problem("e2", e2, (2.0, 0.0), 20.0, False, 1.0),
    Problem("e3", e3, (0.0, 0.0), 20.0, False, 1.0),
    Problem("e4", e4, (30.0, 0.0), 20.0, False, 1.0),
    Problem("e5", e5, (0.0, 0.0), 20.0, False, 1.0),
    Problem("robertson", robertson, (1.0, 0.0, 0.0), 1e4, True, 1e-6),
    Problem("van_der_pol_mu1e3", van_der_pol_mu, (2.0, 0.0), 2000.0, True, 1e-3),
    Problem("van_der_pol_eps1e-6", van_der_pol_eps, (2.0, -0.66), 2.0, True, 1.0),
    Problem("hires", hires, (*_first(7), 0.0057), 321.8122, True, 1e-4),
    Problem("orego", orego, (1.0, 2.0, 3.0), 360.0, True, 1e-6),
    Problem("pollution", pollution, tuple(_POLLUTION_START.get(i, 0.0) for i in range(1, 21)), 60.0, True, 1.0),
    Problem("e5_stiff", e5_stiff, (1.76e-3, 0.0, 0.0, 0.0), 1e3, True, 1e-14),
)
