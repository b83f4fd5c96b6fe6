"""The flow of stop gradient, m = 1, n = 2, over random draws: mild ones, and all of them, stiff ones among them."""

from functools import partial

import jax
import numpy as np
from measuring import Case
from ode import Problem, compared_at, exact, ours, peers

import jaxdyn as jd
from jaxdyn.trials.scalar import draw_scalars


def field(t, y, p):
    a1, a2, b11, b12, b21, b22 = y
    rho, tau, decay = p
    r1 = (b11 * a1 + b12 * a2) * rho - tau * a1
    r2 = (b21 * a1 + b22 * a2) * rho - tau * a2
    return (
        -(b11 * r1 + b21 * r2) - decay * a1,
        -(b12 * r1 + b22 * r2) - decay * a2,
        -r1 * a1 - decay * b11,
        -r1 * a2 - decay * b12,
        -r2 * a1 - decay * b21,
        -r2 * a2 - decay * b22,
    )


def _our_field(t, state, params):
    return params[0].field(t, state, params[1])


def drawn(n: int, smallest: float, t1: float, max_steps: int = 1_000_000) -> Problem:
    with jax.enable_x64(True):
        draw = draw_scalars(jd.ScalarLaws(), jd.Starts(n=2), 0, np.arange(2 * n))
        kept = np.flatnonzero(np.asarray(draw.rho) >= smallest)[:n]
        draw = jax.tree.map(lambda leaf: np.asarray(leaf)[kept], draw)
        states = jd.StopGradient(0.1).state(encoder=np.zeros((2, 1)), predictor=np.eye(2))
        states = states._replace(encoder=draw.encoder, predictor=draw.predictor)
        system = jax.vmap(jd.StopGradient)(draw.weight_decay)
        moments = jax.vmap(jd.Moments.scalar)(draw.rho, draw.tau)
    start = np.concatenate([draw.encoder.reshape(-1, 2), draw.predictor.reshape(-1, 4)], 1).T
    params = np.stack([draw.rho, draw.tau, draw.weight_decay])
    own = (_our_field, states, (system, moments))
    return Problem(field, start, params, t1, 1e-6, 1e-9, ("-DSTOP_GRADIENT",), own, max_steps)


def cases(quick: bool) -> list[Case]:
    out = []
    for n in (1_000,) if quick else (100, 1_000, 10_000, 100_000):
        problem = drawn(n, 0.1, 50.0)
        some = np.linspace(0, problem.n - 1, 50).astype(int)
        methods = {"jaxdyn fused": partial(ours, problem), "jaxdyn xla": partial(ours, problem, "xla")}
        methods |= {"jaxdyn fused, Rodas5P": partial(ours, problem, solver="rodas5p")} | peers(problem)
        out.append(_case(f"SG flow, mild draws (ρ ≥ 0.1), {n:,} trials, t in [0, 50]", problem, methods, some, "DOP853",
                         "SG flow, adaptive, to 1e-6"))  # fmt: skip
    n = 1_000 if quick else 10_000
    problem = drawn(n, 0.0, 2000.0, 10_000_000)
    stiffest = np.argsort(problem.params[0])[:10]
    some = np.concatenate([stiffest, np.linspace(0, n - 1, 40).astype(int)])
    methods = {
        "jaxdyn fused, Rodas5P": partial(ours, problem, solver="rodas5p"),
        "jaxdyn fused, Tsit5": partial(ours, problem),
    }
    # diffrax under vmap did not finish this in nine minutes; the C program and ours show what explicit steps cost.
    methods |= {name: make for name, make in peers(problem).items() if name.startswith("C,")}
    out.append(_case(f"SG flow, all draws, {n:,} trials, t in [0, 2000]", problem, methods, some, "Radau", ""))
    return out


def _case(title, problem, methods, some, reference, family) -> Case:
    chosen = {name: partial(compared_at, prepare, some) for name, prepare in methods.items()}
    # The flow forgets its start on the way to a sphere of equilibria, but not its direction on it.
    return Case(title, chosen, problem.n, "trials", problem.n, exact(problem, some, reference), 1e-3, family)
