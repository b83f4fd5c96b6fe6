"""Tian's decoupled modes with EMA, a million random ones in fixed RK4 steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from measuring import Case

from jaxdyn.solve.ensemble import flow_ensemble
from jaxdyn.systems.modes import ModeData, Modes, ModeState

STEPS, DT = 200, 0.05


def cases(quick: bool) -> list[Case]:
    return [case(n) for n in ((10_000,) if quick else (100, 10_000, 1_000_000))]


def case(n: int) -> Case:
    rng = np.random.default_rng(0)
    p, s, t = rng.uniform(0.1, 1, n), rng.uniform(0.1, 1, n), rng.uniform(0.2, 1, n)
    decay, ema = rng.uniform(0.01, 0.1, n), rng.uniform(0.1, 1, n)
    methods = {
        "jaxdyn fused": partial(ours, (p, s, t, decay, ema), "fused"),
        "jaxdyn xla": partial(ours, (p, s, t, decay, ema), "xla"),
        "vmap(fori_loop)": partial(plain, (p, s, t, decay, ema)),
        "NumPy, all modes at once": partial(in_numpy, (p, s, t, decay, ema)),
    }
    return Case(f"Modes with EMA, {n:,} trials, {STEPS} RK4 steps", methods, n * STEPS, "steps", n, None, 1e-9,
                "modes, RK4")  # fmt: skip


def _field(t, state, params):
    decay, ema = params
    return Modes(decay, ema_rate=ema).field(t, state, ModeData(1.0, 0.5))


def ours(numbers, engine: str):
    p, s, t, decay, ema = numbers

    def work():
        with jax.enable_x64(True):
            end = flow_ensemble(
                _field, ModeState(p, s, t), (decay, ema), in_axes=(None, 0, 0), solver="rk4", dt=DT, t1=STEPS * DT,
                engine=engine,
            )  # fmt: skip
            return end.final[0][::97]

    return work


def plain(numbers):
    p, s, t, decay, ema = numbers

    def one(state, decay, ema):
        rate = lambda y: _field(0.0, y, (decay, ema))  # noqa: E731
        ahead = lambda y, k, h: jax.tree.map(lambda a, b: a + h * b, y, k)  # noqa: E731

        def body(_, y):
            k1 = rate(y)
            k2 = rate(ahead(y, k1, DT / 2))
            k3 = rate(ahead(y, k2, DT / 2))
            k4 = rate(ahead(y, k3, DT))
            return jax.tree.map(lambda y, a, b, c, d: y + DT / 6 * (a + 2 * b + 2 * c + d), y, k1, k2, k3, k4)

        return jax.lax.fori_loop(0, STEPS, body, state)

    run = jax.jit(jax.vmap(one))

    def work():
        with jax.enable_x64(True):
            return np.asarray(run(ModeState(*map(jnp.asarray, (p, s, t))), decay, ema)[0])[::97]

    return work


def in_numpy(numbers):
    p, s, t, decay, ema = numbers

    def rate(y):
        p, s, tau = y
        gap = 0.5 * tau - p
        growth = p * gap - decay
        return np.stack([s * gap - decay * p, 2 * s * growth, ema * (1 - tau) - tau * growth])

    def work():
        y = np.stack([p, s, t])
        for _ in range(STEPS):
            k1 = rate(y)
            k2 = rate(y + DT / 2 * k1)
            k3 = rate(y + DT / 2 * k2)
            k4 = rate(y + DT * k3)
            y = y + DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y[0, ::97]

    return work
