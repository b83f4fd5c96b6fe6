"""The main job to verdicts, SG and EMA: our engines, a C program with per-trial exit, and vmap(while_loop)."""

import ctypes
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import Case, c_library, pointer

from jaxdyn.engines import ENGINES, Finished
from jaxdyn.status import Status
from jaxdyn.systems.spheres import ScalarData, radii
from jaxdyn.trials.run import run_trials
from jaxdyn.trials.scalar import draw_scalars
from jaxdyn.trials.scalar_laws import ScalarLaws
from jaxdyn.trials.starts import Starts, Stopping


def cases(quick: bool) -> list[Case]:
    return [case(system, n, quick) for system in ("sg", "ema") for n in ((1_000,) if quick else (1_000, 10_000))]


def case(system: Any, n: int, quick: bool) -> Case:
    methods = {
        "jaxdyn fused": partial(ours, system, n, "fused"),
        "jaxdyn xla": partial(ours, system, n, "xla"),
        "C, one trial after the other": partial(c_program, system, n),
    }
    if not quick and n <= 1_000:  # five minutes for 10,000 of SG, more for EMA
        methods["vmap(while_loop)"] = partial(ours, system, n, "plain")
    # Counts of classes; a handful of trials are chaotic and end where rounding takes them.
    return Case(f"m = 1 trials to verdicts, {system}, {n:,}", methods, n, "trials", n, None, 6.0,
                f"m = 1 trials, {system}")  # fmt: skip


def ours(system: Any, n: int, engine: str):
    ENGINES["plain"] = plain
    _CACHE.clear()

    def work():
        data = run_trials(ScalarLaws(system), n, engine=engine)
        return [int(np.sum(data["outcome"] == k)) for k in (0, 1)]

    return work


def c_program(system: Any, n: int):
    """From the same draws; the classes by the distance of ‖a‖ to the outer radius."""
    trials = c_library("trials.c").trials
    laws, stopping = ScalarLaws(), Stopping()

    def work():
        with jax.enable_x64(True):
            draw = draw_scalars(laws, Starts(n=2), 0, np.arange(n))
        numbers = np.ascontiguousarray(np.stack([draw.rho, draw.tau, draw.weight_decay, draw.lr], 1))
        state = np.zeros((n, 8))
        state[:, :2], state[:, 2:6] = draw.encoder[:, :, 0], draw.predictor.reshape(n, 4)
        steps, status = np.zeros(n, np.int64), np.zeros(n, np.int8)
        real, whole = ctypes.c_double, ctypes.c_long
        trials(
            whole(n), ctypes.c_int(system == "ema"), pointer(numbers), real(laws.predictor_lr_ratio),
            real(laws.ema_decay), real(stopping.tolerance), whole(stopping.max_steps), pointer(state),
            pointer(steps), pointer(status),
        )  # fmt: skip
        size = np.linalg.norm(state[:, :2], axis=1)
        with jax.enable_x64(True):
            outer = np.asarray(radii(ScalarData(draw.rho, draw.tau, draw.weight_decay, laws.predictor_lr_ratio))[1])
        ended = status == Status.CONVERGED
        return [int(np.sum(ended & (np.abs(size - outer) < 0.02 * (1 + outer)) & (size > 1e-3))),
                int(np.sum(ended & (size < 1e-2)))]  # fmt: skip

    return work


def plain(step, done, states, params, max_steps, **_):
    """What one would write first: every lane waits for the slowest. Same contract as an engine."""

    def one(state, param):
        def body(carry):
            count, old, _, _ = carry
            new = step(old, param)
            finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(new)]).all()
            kept = jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
            return count + finite, kept, done(old, new, param), finite

        carry = (jnp.int32(0), state, jnp.array(False), jnp.array(True))
        count, state, converged, finite = jax.lax.while_loop(lambda c: ~c[2] & c[3] & (c[0] < max_steps), body, carry)
        status = jnp.where(~finite, Status.DIVERGED, jnp.where(converged, Status.CONVERGED, Status.OUT_OF_STEPS))
        return state, count, status

    return Finished(*jax.tree.map(np.asarray, _jitted(one)(states, params)))


_CACHE = {}


def _jitted(one):
    # The program is the same for every call of a case: keep its compilation.
    return _CACHE.setdefault("program", jax.jit(jax.vmap(one)))
