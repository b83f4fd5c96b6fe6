"""Trials of very different lengths: Lorenz' system from far out, and Robertson's reaction with 100,000 sets of rates.

What waits for the slowest trial of its batch pays for its longest; the `rates` say what a step costs on average where
all trials are alike, and where they are not.
"""

import time
from functools import partial
from typing import Any

import jax
import numpy as np
from lorenz import field
from measuring import Case
from ode import Problem, compared_at, exact, ours, peers

from jaxdyn.solve.ensemble import flow_ensemble


def lorenz(n: int, alike: bool = False) -> Problem:
    """All as the slowest, or from starts and with parameters of very different sizes."""
    rng = np.random.default_rng(0)
    size, rho = (np.ones(n), np.full(n, 28.0)) if alike else (10 ** rng.uniform(-6, 0, n), rng.uniform(0, 28, n))
    start = np.array([[1000.0], [-500.0], [500.0]]) * size
    return Problem(field, start, rho[None], 5.0, 1e-6, 1e-8)


def robertson_field(t, y, p):
    a, b, c = y
    slow, fast, middle = p[0] * a, p[1] * b * b, p[2] * b * c
    return middle - slow, slow - middle - fast, fast


def robertson(n: int) -> Problem:
    rng = np.random.default_rng(0)
    rates = np.array([[0.04], [3e7], [1e4]]) * 10 ** rng.uniform(-0.5, 0.5, (3, n))
    return Problem(robertson_field, np.repeat([[1.0], [0.0], [0.0]], n, 1), rates, 1e4, 1e-6, 1e-10, None)


def cases(quick: bool) -> list[Case]:
    n = 2_000 if quick else 100_000
    return [far_out(n), stiff(n)]


def far_out(n: int) -> Case:
    problem = lorenz(n)
    some = np.arange(0, n, max(1, n // 50))
    slow = {"gradsolve, replay", "torchdiffeq", "numba, the same"}
    methods = {"jaxdyn fused": partial(ours, problem), "jaxdyn xla": partial(ours, problem, "xla")}
    methods |= {name: prepare for name, prepare in peers(problem).items() if name not in slow}
    chosen = {name: partial(compared_at, prepare, some) for name, prepare in methods.items()}
    # Chaos for large rho: the ends agree to digits that the tolerance no longer decides.
    return Case(f"Lorenz from far out, {n:,} trials, t in [0, 5]", chosen, n, "trials", n, exact(problem, some), 1.0)


def stiff(n: int) -> Case:
    problem = robertson(n)
    some = np.arange(0, n, max(1, n // 20))
    methods = {f"jaxdyn {engine}": partial(ours, problem, engine, "rodas5p") for engine in ("fused", "xla")}
    methods["SciPy Radau, one after the other"] = partial(radau, problem, some)
    chosen = {name: prepare if "SciPy" in name else partial(compared_at, prepare, some)
              for name, prepare in methods.items()}  # fmt: skip
    title, counts = f"Robertson, {n:,} trials, t in [0, 1e4]", {"SciPy Radau, one after the other": float(some.size)}
    return Case(title, chosen, n, "trials", n, exact(problem, some, "Radau"), 1e-4, counts=counts)


def radau(problem: Problem, some: np.ndarray):
    """Of some trials only."""
    from scipy.integrate import solve_ivp

    def work():
        options = {"method": "Radau", "rtol": problem.rtol, "atol": problem.atol}
        return np.array([
            solve_ivp(problem.field, (0, problem.t1), problem.start[:, k], args=(problem.params[:, k],), **options)
            .y[0, -1] for k in some
        ])  # fmt: skip

    return work


def rates(quick: bool) -> list[tuple]:
    """Nanoseconds per trial and mean step: trials that are alike, very different ones, and these the longest first."""
    n = 2_000 if quick else 100_000
    lines = []
    for what, alike, ordered in (
        ("alike", True, False), ("different lengths", False, False), ("different, longest first", False, True),
    ):  # fmt: skip
        problem = lorenz(n, alike)
        options: dict[str, Any] = {
            "t1": problem.t1,
            "in_axes": (None, 0, 0),
            "rtol": problem.rtol,
            "atol": problem.atol,
        }
        times: list[float] = []
        steps: Any = None
        for _ in range(4):
            first: dict[str, Any] = {} if not ordered or steps is None else {"longest_first": steps}
            begin = time.perf_counter()
            with jax.enable_x64(True):
                ends = flow_ensemble(problem.field, tuple(problem.start), tuple(problem.params), **options, **first)
            times.append(time.perf_counter() - begin)
            steps = np.asarray(ends.n_steps)
        assert steps is not None
        told = f"Lorenz from far out, {what}: {steps.min()} to {steps.max()} steps, mean {steps.mean():.0f}"
        per = 1e9 / (n * steps.mean())
        lines.append((told, times[0] * per, min(times[1:]) * per, "ns per trial and mean step"))
    return lines
