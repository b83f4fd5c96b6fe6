"""Work against precision: what each method takes to reach an error, over a ladder of tolerances.

At equal tolerances methods do not reach equal errors; so each is run at every tolerance, and the times are compared
where the achieved errors are the same (between two tolerances on the straight line of the logarithms). The error is
the largest over some trials, of the first component, relative to its largest value among them.
"""

import itertools
import math
from functools import partial
from typing import Any

import lorenz
import numpy as np
import sg_flow
import stragglers
from measuring import Case
from ode import Problem, c_kernel, compared_at, diffrax_vmap, exact, heyoka_batches, ours

_LOOKED = 10  # trials of which the error is taken, and those that SciPy solves: its time is of these
_TOLERANCES = (1e-4, 1e-6, 1e-8, 1e-10)
_ERRORS = (1e-4, 1e-6, 1e-8)


def hires(t, y, p):
    """A photomorphogenesis of plants, 8 substances, its last rate 280 times p (Hairer & Wanner II, IV.10)."""
    a, b, c, d, e, f, g, h = y
    both = 280 * p[0] * f * h
    return (
        -1.71 * a + 0.43 * b + 8.32 * c + 0.0007, 1.71 * a - 8.75 * b, -10.03 * c + 0.43 * d + 0.035 * e,
        8.32 * b + 1.71 * c - 1.12 * d, -1.745 * e + 0.43 * f + 0.43 * g,
        -both + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g, both - 1.81 * g, -both + 1.81 * g,
    )  # fmt: skip


def pleiades(t, y, p):
    """Seven stars in a plane, 28 numbers, the mass of the last 7 times p (Hairer, Nørsett & Wanner I, II.10)."""
    x, z, masses = y[:7], y[7:14], [*range(1, 7), 7 * p[0]]
    pull_x, pull_z = [0.0] * 7, [0.0] * 7
    for i, j in itertools.permutations(range(7), 2):
        gap = (x[j] - x[i], z[j] - z[i])
        cube = (gap[0] * gap[0] + gap[1] * gap[1]) ** -1.5
        pull_x[i], pull_z[i] = pull_x[i] + masses[j] * gap[0] * cube, pull_z[i] + masses[j] * gap[1] * cube
    return (*y[14:], *pull_x, *pull_z)


_STARS = np.array([3, 3, -1, -3, 2, -2, 2, 3, -3, 2, 0, 0, -4, 4, *[0] * 5, 1.75, -1.5, *[0] * 3, -1.25, 1, 0, 0.0])


def problems(n: int) -> dict[str, tuple[Problem, bool]]:
    """Each with whether it is stiff; what differs from trial to trial is a parameter."""
    rho, share = np.linspace(0.0, 21.0, n)[None], np.linspace(0.95, 1.05, n)[None]  # stars of 1.09 times 7 collide
    lorenz_start = np.repeat([[1.0], [0.0], [0.0]], n, 1)
    stars = np.repeat(_STARS[:, None], n, 1)
    hires_start = np.repeat([[1.0], *[[0.0]] * 6, [0.0057]], n, 1)
    return {
        "Lorenz, t in [0, 10]": (Problem(lorenz.field, lorenz_start, rho, 10.0, 0.0, 0.0), False),
        "SG flow, mild draws, t in [0, 50]": (sg_flow.drawn(n, 0.1, 50.0), False),
        "Pleiades, t in [0, 3]": (Problem(pleiades, stars, share, 3.0, 0.0, 0.0, None), False),
        "Robertson, t in [0, 1e4]": (stragglers.robertson(n), True),
        "HIRES, t in [0, 321.8]": (Problem(hires, hires_start, share, 321.8122, 0.0, 0.0, None), True),
    }


def cases(quick: bool) -> list[Case]:
    n = 1_000
    chosen = problems(n)
    if quick:
        chosen = {name: chosen[name] for name in ("Lorenz, t in [0, 10]", "HIRES, t in [0, 321.8]")}
    return [case for name, each in chosen.items() for case in ladder(name, *each)]


def ladder(name: str, problem: Problem, stiff: bool) -> list[Case]:
    some = np.linspace(0, problem.n - 1, _LOOKED).astype(int)
    reference = exact(problem, some, "Radau" if stiff else "DOP853")
    unit = np.abs(reference).max()  # errors are relative to what is there
    out = []
    for tolerance in _TOLERANCES:
        now = problem._replace(rtol=tolerance, atol=tolerance * 1e-2)
        if "Robertson" in name:
            now = now._replace(atol=tolerance * 1e-6)  # its second substance is 1e-5
        solver = "rodas5p" if stiff else "tsit5"
        methods: dict[str, Any] = {f"jaxdyn fused, {solver}": partial(ours, now, "fused", solver)}
        methods["diffrax, vmap, " + ("Kvaerno5" if stiff else "Tsit5")] = partial(diffrax_vmap, now, stiff)
        if not stiff:
            methods |= {"C, Tsit5": partial(c_kernel, now), "heyoka": partial(heyoka_batches, now)}
        looked: dict[str, Any] = {method: partial(compared_at, make, some) for method, make in methods.items()}
        theirs = ("Radau", "LSODA") if stiff else ("RK45", "DOP853")
        looked |= {f"SciPy {method}, {_LOOKED} trials": partial(scipy_of, now, some, method) for method in theirs}
        looked = {method: partial(measured_in, unit, prepare) for method, prepare in looked.items()}
        counts = {method: float(_LOOKED) for method in looked if method.startswith("SciPy")}
        family = f"Work and precision: {name}, {problem.n:,} trials"
        title = f"{name}, {problem.n:,} trials, tolerance {tolerance:g}"
        out.append(Case(title, looked, problem.n, "trials", tolerance, reference / unit, math.inf, family, counts))
    return out


def measured_in(unit: float, prepare: Any):
    work = prepare()
    return lambda: np.asarray(work()) / unit


def scipy_of(problem: Problem, some: np.ndarray, method: str):
    from scipy.integrate import solve_ivp

    def work():
        ends = []
        for k in some:
            rate = lambda t, y, p=problem.params[:, k]: np.array(problem.field(t, y, p))  # noqa: E731
            options: Any = {"method": method, "rtol": problem.rtol, "atol": problem.atol}
            ends.append(solve_ivp(rate, (0, problem.t1), problem.start[:, k], **options).y[0, -1])
        return np.array(ends)

    return work


def summary(measured: list[tuple[Case, list[dict]]]) -> str:
    """Microseconds a trial at equal achieved errors; — where a method's ladder does not reach."""
    families: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for case, rows in measured:
        for row in rows:
            point = (max(row["error"], 1e-16), row["median_s"] / row["units"] * 1e6)
            families.setdefault(case.family, {}).setdefault(row["method"], []).append(point)
    lines = ["### Work at equal precision: microseconds a trial to reach a largest error\n"]
    for family, methods in families.items():
        lines += [f"{family}\n", "| method | " + " | ".join(f"{error:g}" for error in _ERRORS) + " |"]
        lines.append("|---" * (len(_ERRORS) + 1) + "|")
        for method, points in methods.items():
            told = [at_error(points, error) for error in _ERRORS]
            lines.append(f"| {method} | " + " | ".join("—" if t is None else f"{t:.3g}" for t in told) + " |")
        lines.append("")
    return "\n".join(lines)


def at_error(points: list[tuple[float, float]], error: float) -> float | None:
    """The time at an achieved error, between the two neighbours on the ladder."""
    for (e0, t0), (e1, t1) in itertools.pairwise(points):
        if e1 <= error <= e0 and e1 < e0:
            share = math.log(e0 / error) / math.log(e0 / e1)
            return math.exp((1 - share) * math.log(t0) + share * math.log(t1))
    return None
