"""The field's common case: Lorenz' system, ρ over [0, 21], t ∈ [0, 1], float64, tolerance 1e-6."""

from functools import partial

import numpy as np
from measuring import Case
from ode import Problem, compared_at, exact, ours, peers


def field(t, y, p):
    a, b, c = y
    return 10.0 * (b - a), p[0] * a - b - a * c, a * b - 8.0 / 3.0 * c


def cases(quick: bool) -> list[Case]:
    return [case(n) for n in ((100, 10_000) if quick else (100, 1_000, 10_000, 100_000, 1_000_000))]


def case(n: int) -> Case:
    start = np.repeat([[1.0], [0.0], [0.0]], n, 1)
    problem = Problem(field, start, np.linspace(0.0, 21.0, n)[None], 1.0, 1e-6, 1e-6)
    some = np.linspace(0, n - 1, min(n, 100)).astype(int)
    methods = {"jaxdyn fused": partial(ours, problem)}
    if n <= 100_000:
        methods["jaxdyn xla"] = partial(ours, problem, "xla")
    methods |= peers(problem)
    if n > 100_000:  # minutes
        del methods["gradsolve, replay"]
    chosen = {name: partial(compared_at, prepare, some) for name, prepare in methods.items()}
    title = f"Lorenz, {n:,} trials, t in [0, 1], tolerance 1e-6"
    return Case(title, chosen, n, "trials", n, exact(problem, some), 1e-4, "Lorenz, adaptive, to 1e-6")
