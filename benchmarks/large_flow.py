"""One large flow, n = m = 512: against the time of its matrix products alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from measuring import Case

import jaxdyn as jd

SIZE, DT = 512, 0.01
PRODUCTS = 5  # of two 512 × 512 matrices in one evaluation of the field: BA, (BA)X, AY, Bᵀ R, R Aᵀ


def cases(quick: bool) -> list[Case]:
    return [case(6 if quick else 30, dtype) for dtype in (np.float64, np.float32)]


def case(steps: int, dtype) -> Case:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(SIZE, SIZE)).astype(dtype) / SIZE for _ in range(2))
    x = np.eye(SIZE, dtype=dtype) + 0.1 * rng.normal(size=(SIZE, SIZE)).astype(dtype) / SIZE
    x = (x + x.T) / 2
    # Tsit5 takes two thirds of the steps: as many evaluations of the field.
    methods = {
        "jaxdyn flow_ensemble, RK4, a batch of one": partial(ours, a, b, x, steps),
        "jaxdyn flow, Tsit5, as many evaluations": partial(flow, a, b, x, steps * 2 // 3),
        "the matrix products alone": partial(limit, a, b, steps),
    }
    name = np.dtype(dtype).name
    return Case(f"SG flow, n = m = {SIZE}, {steps} fixed RK4 steps, {name}", methods, 4 * PRODUCTS * steps,
                "products", SIZE, None, np.inf)  # fmt: skip


def ours(a, b, x, steps: int):
    system = jd.StopGradient(0.05)

    def work():
        with jax.enable_x64(a.dtype == np.float64):
            states = jax.tree.map(lambda leaf: leaf[None], system.state(encoder=a, predictor=b))
            end = jd.flow_ensemble(system, states, jd.Moments(x, 0.8 * x), solver="rk4", dt=DT, t1=steps * DT)
            return end.final.encoder[0, 0]

    return work


def flow(a, b, x, steps: int):
    def work():
        with jax.enable_x64(a.dtype == np.float64):
            system = jd.StopGradient(0.05)
            path = jd.flow(system, system.state(encoder=a, predictor=b), jd.Moments(x, 0.8 * x), t1=steps * DT, dt=DT)
            return np.asarray(path.final.encoder)[0]

    return work


def limit(a, b, steps: int):
    @jax.jit
    def products(a, b):
        return jax.lax.fori_loop(0, 4 * PRODUCTS * steps, lambda _, y: b @ y, a)

    def work():
        with jax.enable_x64(a.dtype == np.float64):
            return np.asarray(products(jnp.asarray(a), jnp.asarray(b)))[0]

    return work
