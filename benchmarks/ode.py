"""Integrating an ensemble of small flows: the peers, each doing the same work to the same tolerance.

A problem's field is written once for numbers, `field(t, y, p)` with sequences y and p, so that the same text drives
JAX, PyTorch, heyoka's symbols and SciPy.
"""

import ctypes
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from measuring import Absent, c_library, needs, pointer

from jaxdyn.solve.ensemble import flow_ensemble


class Problem(NamedTuple):
    """`start` [dim, trials], `params` [numbers, trials]; `c` are the C file's options, None if it has no C."""

    field: Any
    start: np.ndarray
    params: np.ndarray
    t1: float
    rtol: float
    atol: float
    c: tuple[str, ...] | None = ()
    ours: Any = None  # our field, states and parameters, where it is not `field`
    max_steps: int = 1_000_000

    @property
    def n(self) -> int:
        return self.start.shape[1]


def peers(problem: Problem) -> dict[str, Any]:
    """name → prepare() of every peer; a result is the first component of every trial's end."""
    named = {
        "C, Tsit5, one trial after the other": c_kernel,
        "numba, the same": numba_kernel,
        "diffrax, vmap": diffrax_vmap,
        "heyoka, batches": heyoka_batches,
        "gradsolve, its own compiled Lorenz": partial(gradsolve_engine, engine="cuda_tsit5"),
        "gradsolve, Warp on the CPU": partial(gradsolve_engine, engine="warp_ode"),
        "gradsolve, replay": partial(gradsolve_engine, engine="tsit5_replay"),
        "torchdiffeq": torchdiffeq_batch,
        "SciPy, one after the other": scipy_loop,
    }
    return {name: partial(make, problem) for name, make in named.items()}


def ours(problem: Problem, engine: str = "fused", solver: str = "tsit5"):
    if problem.ours is None:
        field, states, params = problem.field, tuple(problem.start), tuple(problem.params)
    else:
        field, states, params = problem.ours

    def work():
        with jax.enable_x64(True):
            end = flow_ensemble(
                field, states, params, in_axes=(None, 0, 0), solver=solver, t1=problem.t1, rtol=problem.rtol,
                atol=problem.atol, engine=engine, max_steps=problem.max_steps,
            )  # fmt: skip
            return np.reshape(jax.tree.leaves(end.final)[0], (problem.n, -1))[:, 0]

    return work


def exact(problem: Problem, some: np.ndarray, method: str = "DOP853") -> np.ndarray:
    """The first component of some trials' ends by SciPy at tight tolerances."""
    from scipy.integrate import solve_ivp

    options = {"method": method, "rtol": 1e-10 if method == "Radau" else 1e-12, "atol": 1e-13}
    ends = []
    for k in some:
        p = problem.params[:, k]
        field = lambda t, y, p=p: np.array(problem.field(t, y, p))  # noqa: E731
        ends.append(solve_ivp(field, (0, problem.t1), problem.start[:, k], **options).y[0, -1])
    return np.array(ends)


def c_kernel(problem: Problem):
    if problem.c is None:
        raise Absent("not written for this system")
    solve = c_library("ode.c", *problem.c).solve
    start, params = (np.ascontiguousarray(array.T) for array in (problem.start, problem.params))
    real, whole = ctypes.c_double, ctypes.c_long

    def work():
        y = start.copy()
        solve(whole(problem.n), pointer(y), pointer(params), real(problem.t1), real(problem.rtol), real(problem.atol),
              whole(problem.max_steps))  # fmt: skip
        return y[:, 0]

    return work


def numba_kernel(problem: Problem):
    needs("numba")
    import numba_kernels

    solve = numba_kernels.tsit5(problem.field, problem.start.shape[0])
    start, params = (np.ascontiguousarray(array.T) for array in (problem.start, problem.params))
    return lambda: solve(start, params, problem.t1, problem.rtol, problem.atol, problem.max_steps)[:, 0]


def diffrax_vmap(problem: Problem, stiff: bool = False):
    import diffrax

    field = lambda t, y, p: jnp.stack(problem.field(t, y, p))  # noqa: E731

    def one(y, p):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Kvaerno5() if stiff else diffrax.Tsit5(), 0.0, problem.t1,
            None if stiff else 0.01, y, p, max_steps=problem.max_steps,
            stepsize_controller=diffrax.PIDController(rtol=problem.rtol, atol=problem.atol), throw=False,
            saveat=diffrax.SaveAt(t1=True),
        )  # fmt: skip
        assert solution.ys is not None
        return solution.ys[0, 0]

    solve = jax.jit(jax.vmap(one, in_axes=1))

    def work():
        with jax.enable_x64(True):
            return np.asarray(solve(problem.start, problem.params))

    return work


def heyoka_batches(problem: Problem):
    """Taylor's method, its SIMD batches, two threads that each reuse one integrator."""
    heyoka = needs("heyoka")
    import os
    from concurrent.futures import ThreadPoolExecutor

    dim, n = problem.start.shape
    names = heyoka.make_vars(*[f"y{k}" for k in range(dim)])
    rates = problem.field(None, names, [heyoka.par[k] for k in range(problem.params.shape[0])])
    width = heyoka.recommended_simd_size()
    padded = np.minimum(np.arange(-(-n // width) * width), n - 1).reshape(-1, width)
    threads = os.cpu_count() or 1
    solvers = [
        heyoka.taylor_adaptive_batch(
            list(zip(names, rates, strict=True)), problem.start[:, padded[0]], pars=problem.params[:, padded[0]],
            tol=problem.rtol, compact_mode=False,
        )
        for _ in range(threads)
    ]  # fmt: skip

    def part(k):
        solver, ends = solvers[k], []
        for lanes in padded[k::threads]:
            solver.set_time(0.0)
            solver.state[:] = problem.start[:, lanes]
            solver.pars[:] = problem.params[:, lanes]
            solver.propagate_until(problem.t1)
            ends.append(solver.state[0].copy())
        return ends

    def work():
        out = np.empty(padded.shape)
        with ThreadPoolExecutor(threads) as pool:
            for k, ends in enumerate(pool.map(part, range(threads))):
                out[k::threads] = ends
        return out.ravel()[:n]

    return work


def gradsolve_engine(problem: Problem, engine: str):
    gradsolve = needs("gradsolve", *(["warp"] if engine == "warp_ode" else []))
    lorenz = problem.start.shape[0] == 3
    if engine != "tsit5_replay" and not lorenz:
        raise Absent("its own compiled fields have no such system")
    rate = lambda t, y, p: jnp.stack(problem.field(t, y, p[2:] if lorenz else p))  # noqa: E731
    name = "lorenz" if lorenz else "jaxdyn"
    dim = problem.start.shape[0]
    described = SimpleNamespace(name=name, dim=dim, t0=0.0, t1=problem.t1, is_stiff=False, f_jax=rate)
    params = problem.params
    if lorenz:  # its compiled field takes σ, β and ρ, and no other σ and β
        params = np.stack([np.full(problem.n, 10.0), np.full(problem.n, 8 / 3), params[0]])
    start, params = (np.ascontiguousarray(array.T) for array in (problem.start, params))

    def work():
        with jax.enable_x64(True):
            try:
                result = gradsolve.solve(described, start, params, engine=engine, rtol=problem.rtol,
                                         atol=problem.atol, device="cpu")  # fmt: skip
            except Exception as error:
                raise Absent(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
            return np.asarray(result.y_final)[:, 0]

    return work


def torchdiffeq_batch(problem: Problem):
    torch, odeint = needs("torch"), needs("torchdiffeq").odeint
    start, params = torch.tensor(problem.start), torch.tensor(problem.params)
    times = torch.tensor([0.0, problem.t1], dtype=torch.float64)
    rate = lambda t, y: torch.stack(problem.field(t, y, params))  # noqa: E731

    def work():
        with torch.no_grad():
            return odeint(rate, start, times, rtol=problem.rtol, atol=problem.atol, method="dopri5")[-1, 0].numpy()

    return work


def scipy_loop(problem: Problem):
    from scipy.integrate import solve_ivp

    if problem.n > 1_000:
        raise Absent("too slow for this size")

    def work():
        options: Any = {"rtol": problem.rtol, "atol": problem.atol}
        return np.array([
            solve_ivp(problem.field, (0, problem.t1), y, args=(p,), **options).y[0, -1]
            for y, p in zip(problem.start.T, problem.params.T, strict=True)
        ])  # fmt: skip

    return work


def compared_at(prepare, some):
    """The same work, its result at some trials only."""
    work = prepare()
    return lambda: work()[some]
