"""The stop-gradient map for a fixed number of steps: the engine's raw speed against the machine's limit in C."""

import ctypes
import time
from functools import partial

import jax
import numpy as np
from measuring import Case, c_library, needs, pointer

import jaxdyn as jd
from jaxdyn.solve.ensemble import descend_ensemble
from jaxdyn.systems.siamese import StudentState

TRIALS, LR, DECAY = 10_240, 0.05, 0.05
SHAPES = {(2, 1): 50_000, (3, 2): 10_000, (4, 2): 5_000, (6, 3): 2_000, (8, 4): 1_000, (12, 6): 300, (16, 8): 200}


def cases(quick: bool) -> list[Case]:
    shapes = [(2, 1), (8, 4)] if quick else list(SHAPES)
    out = [case(n, m, SHAPES[n, m] // (10 if quick else 1), np.float64) for n, m in shapes]
    return out if quick else [*out, case(2, 1, SHAPES[2, 1], np.float32)]


def case(n: int, m: int, steps: int, dtype) -> Case:
    rng = np.random.default_rng(0)
    a, b = 0.3 * rng.normal(size=(TRIALS, n, m)), 0.3 * rng.normal(size=(TRIALS, n, n))
    x = rng.normal(size=(TRIALS, m, m))
    x = x @ x.transpose(0, 2, 1) / m + np.eye(m)
    arrays = [np.ascontiguousarray(array, dtype) for array in (a, b, x, 0.8 * x)]
    methods = {
        "jaxdyn fused": partial(ours, arrays, steps, "fused"),
        "jaxdyn xla": partial(ours, arrays, steps, "xla"),
        "C, blocks of lanes": partial(c_kernel, arrays, steps),
        "numba, blocks of 32 lanes": partial(numba_kernel, arrays, steps),
        "vmap(fori_loop)": partial(plain, arrays, steps),
    }
    if steps * n * n * m > 400_000:
        del methods["jaxdyn xla"]  # no faster than plain vmap where nothing ends early
    name = np.dtype(dtype).name
    return Case(f"SG map, n, m = {n}, {m}, {steps:,} steps, {name}", methods, TRIALS * steps, "steps", n * n + n * m,
                None, 1e-2 if name == "float32" else 1e-8, f"SG map, {name}")  # fmt: skip


def ours(arrays, steps: int, engine: str):
    a, b, x, y = arrays
    double = a.dtype == np.float64

    def work():
        with jax.enable_x64(double):
            end = descend_ensemble(
                jd.StopGradient(DECAY), StudentState(a, b), jax.vmap(jd.Moments)(x, y), lr=LR, steps=steps,
                in_axes=(None, 0, 0), engine=engine,
            )  # fmt: skip
            return end.final.encoder[::97]

    return work


def plain(arrays, steps: int):
    a, b, x, y = arrays
    double = a.dtype == np.float64

    def one(state, moments):
        return jax.lax.fori_loop(0, steps, lambda _, s: jd.StopGradient(DECAY).step(s, moments, LR), state)

    run = jax.jit(jax.vmap(one))

    def work():
        with jax.enable_x64(double):
            return np.asarray(run(StudentState(a, b), jax.vmap(jd.Moments)(x, y)).encoder)[::97]

    return work


def c_kernel(arrays, steps: int):
    """The better of blocks of 8 and of 32 lanes, tried once."""
    a, b, x, y = arrays
    n, m = a.shape[1:]
    real = "double" if a.dtype == np.float64 else "float"
    number = ctypes.c_double if real == "double" else ctypes.c_float
    # Vector lengths that the compiler does not choose by itself are tried too.
    widths = [["-DLANES=32"], ["-DLANES=8"], ["-DLANES=32", "-mprefer-vector-width=512"]]
    libraries = [c_library("sg_map.c", f"-DN={n}", f"-DM={m}", f"-DREAL={real}", *width) for width in widths]

    def work(library, count=steps):
        own = a.copy(), b.copy()
        numbers = (ctypes.c_long(TRIALS), ctypes.c_long(count), number(LR), number(DECAY))
        library.sg_map(*numbers, *map(pointer, (x, y, *own)))
        return own[0][::97]

    def seconds(library):
        began = time.perf_counter()
        work(library, max(1, steps // 5))
        return time.perf_counter() - began

    best = min(libraries, key=lambda library: min(seconds(library) for _ in range(2)))
    return lambda: work(best)


def numba_kernel(arrays, steps: int):
    needs("numba")
    import numba_kernels

    a, b, x, y = arrays
    run = numba_kernels.sg_map(*a.shape[1:])

    def work():
        own = a.copy(), b.copy()
        run(*own, x, y, a.dtype.type(LR), a.dtype.type(DECAY), steps)
        return own[0][::97]

    return work
