"""The field's common case: Lorenz' system, ρ over [0, 21], t ∈ [0, 1], float64, error 1e-6."""

from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
from measuring import Absent, Case, c_library, needs, pointer

from jaxdyn.ensemble.solve import run_ensemble

RTOL = ATOL = 1e-6


def field(t, y, rho):
    """For any module's arrays or numbers."""
    a, b, c = y
    return (10.0 * (b - a), rho * a - b - a * c, a * b - 8.0 / 3.0 * c)


def cases(quick: bool) -> list[Case]:
    sizes = (100, 10_000) if quick else (100, 1_000, 10_000, 100_000, 1_000_000)
    return [case(n) for n in sizes]


def case(n: int) -> Case:
    rho = np.linspace(0.0, 21.0, n)
    some = np.linspace(0, n - 1, min(n, 100)).astype(int)
    methods = {
        "jaxdyn fused": partial(ours, n, rho, "fused"),
        "jaxdyn xla": partial(ours, n, rho, "xla"),
        "C, Tsit5, one trial after the other": partial(c_kernel, n, rho),
        "numba, the same": partial(numba_loop, n, rho),
        "diffrax, vmap": partial(diffrax_vmap, n, rho),
        "heyoka, batches": partial(heyoka_batches, n, rho),
        "gradsolve, compiled Tsit5": partial(gradsolve_engine, n, rho, "cuda_tsit5"),
        "gradsolve, Warp on the CPU": partial(gradsolve_engine, n, rho, "warp_ode"),
        "gradsolve, replay": partial(gradsolve_engine, n, rho, "tsit5_replay"),
        "torchdiffeq": partial(torchdiffeq_batch, n, rho),
        "SciPy, one after the other": partial(scipy_loop, n, rho),
    }
    if n > 100_000:
        del methods["jaxdyn xla"]
    chosen = {name: partial(_ends_of, prepare, some) for name, prepare in methods.items()}
    return Case(
        f"Lorenz, {n:,} trials, t in [0, 1], rtol 1e-6", chosen, n, "trials", n, _exact(rho[some]), 1e-4, "lorenz"
    )


def _ends_of(prepare, some):
    """Compare the x of some trials."""
    work = prepare()
    return lambda: work()[some]


def _exact(rho):
    from scipy.integrate import solve_ivp

    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-12}
    return [solve_ivp(field, (0, 1), (1.0, 0.0, 0.0), args=(each,), **options).y[0, -1] for each in rho]


def ours(n, rho, engine):
    start = tuple(np.full(n, value) for value in (1.0, 0.0, 0.0))

    def work():
        with jax.enable_x64(True):
            return run_ensemble(field, start, rho, t1=1.0, rtol=RTOL, atol=ATOL, engine=engine).states[0]

    return work


def c_kernel(n, rho):
    library = c_library("lorenz.c")

    def work():
        end = np.empty((n, 3))
        library.lorenz(n, pointer(rho), pointer(end))
        return end[:, 0]

    return work


def numba_loop(n, rho):
    numba = needs("numba")
    import peers_numba

    solve = peers_numba.lorenz(numba, RTOL, ATOL)
    return lambda: solve(rho)[:, 0]


def diffrax_vmap(n, rho):
    import diffrax

    def one(value):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, 0.01, tuple(map(np.float64, (1, 0, 0))), value,
            stepsize_controller=diffrax.PIDController(rtol=RTOL, atol=ATOL), saveat=diffrax.SaveAt(t1=True),
        )  # fmt: skip
        return solution.ys[0][0]

    solve = jax.jit(jax.vmap(one))

    def work():
        with jax.enable_x64(True):
            return np.asarray(solve(rho))

    return work


def heyoka_batches(n, rho):
    heyoka = needs("heyoka")
    a, b, c = heyoka.make_vars("a", "b", "c")
    rates = field(None, (a, b, c), heyoka.par[0])
    width = heyoka.recommended_simd_size()
    batches = -(-n // width)
    padded = np.resize(rho, batches * width).reshape(batches, width)
    start = np.repeat([[1.0], [0.0], [0.0]], width, 1)
    template = heyoka.taylor_adaptive_batch(list(zip((a, b, c), rates, strict=True)), start, pars=padded[:1] * 0 + 1.0,
                                            tol=RTOL)  # fmt: skip

    def work():
        def begin(solver, k):
            solver.set_time(0.0)
            solver.state[:] = start
            solver.pars[0, :] = padded[k]
            return solver

        found = heyoka.ensemble_propagate_until_batch(template, 1.0, batches, begin)
        return np.concatenate([each[0].state[0] for each in found])[:n]

    return work


def gradsolve_engine(n, rho, engine):
    gradsolve = needs("gradsolve", *(["warp"] if engine == "warp_ode" else []))
    import jax.numpy as jnp

    def rate(t, y, p):
        return jnp.stack(field(t, (y[0], y[1], y[2]), p[0]))

    # "lorenz" is a field of gradsolve's own, the only way to its hand-written kernel.
    problem = SimpleNamespace(name="lorenz", dim=3, t0=0.0, t1=1.0, is_stiff=False, f_jax=rate)
    start, params = np.tile([1.0, 0.0, 0.0], (n, 1)), rho[:, None]

    def work():
        with jax.enable_x64(True):
            try:
                result = gradsolve.solve(problem, start, params, engine=engine, rtol=RTOL, atol=ATOL, device="cpu")
            except Exception as error:
                raise Absent(f"{type(error).__name__}: {error}") from error
            return np.asarray(result.y_final)[:, 0]

    return work


def torchdiffeq_batch(n, rho):
    torch, odeint = needs("torch"), needs("torchdiffeq").odeint
    values = torch.tensor(rho)
    start = torch.tensor(np.tile([[1.0], [0.0], [0.0]], (1, n)))
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def work():
        with torch.no_grad():
            rate = lambda t, y: torch.stack(field(t, (y[0], y[1], y[2]), values))  # noqa: E731
            return odeint(rate, start, times, rtol=RTOL, atol=ATOL, method="dopri5")[-1, 0].numpy()

    return work


def scipy_loop(n, rho):
    from scipy.integrate import solve_ivp

    if n > 1_000:
        raise Absent("too slow for this size")

    def work():
        ends = [solve_ivp(field, (0, 1), (1.0, 0.0, 0.0), args=(each,), rtol=RTOL, atol=ATOL).y[0, -1] for each in rho]
        return np.array(ends)

    return work
