"""The lowering as one Pallas kernel: whole trials inside a GPU kernel, a block of lanes until its last one is done.

A GPU schedules the next block of trials where one has ended, so a straggler holds up its own few lanes alone. On a
machine without a GPU it runs in Pallas' interpreter: for tests, not for speed.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from ...status import Status
from .lanes import Elementwise, evaluate

_RUNNING = -1
_WIDTH = 64  # lanes of a block


@functools.lru_cache(maxsize=64)
def _solver(program: Elementwise, n_state: int, n_params: int, width: int, interpret: bool) -> Any:
    """The compiled solve of a batch whose size is a multiple of `width`."""

    def kernel(limit_ref: Any, *refs: Any):
        state = tuple(ref[...] for ref in refs[:n_state])
        params = tuple(ref[...] for ref in refs[n_state : n_state + n_params])
        outputs = refs[n_state + n_params :]
        limit = limit_ref[0]
        graph, parts = program.graph, program.parts

        def body(carry: Any):
            state, steps, status = carry
            named = {("state", k): value for k, value in enumerate(state)}
            named |= {("params", k): value for k, value in enumerate(params)}
            results = evaluate(graph, [*parts.new, *parts.done], named.__getitem__)
            new = [jnp.broadcast_to(value, (width,)) for value in results[:n_state]]
            finite = jnp.ones((width,), bool)
            for value in new:
                if jnp.issubdtype(value.dtype, jnp.floating):
                    finite &= jnp.isfinite(value)
            running = status == _RUNNING
            moved = running & finite
            steps = steps + moved.astype(jnp.int32)
            ended = jnp.where(steps >= limit, int(Status.OUT_OF_STEPS), _RUNNING)
            if parts.done:
                ended = jnp.where(results[-1], int(Status.CONVERGED), ended)
            ended = jnp.where(finite, ended, int(Status.DIVERGED))
            state = tuple(jnp.where(moved, fresh, old) for fresh, old in zip(new, state, strict=True))
            return state, steps, jnp.where(running, ended, status).astype(jnp.int32)

        start = (state, jnp.zeros((width,), jnp.int32), jnp.full((width,), _RUNNING, jnp.int32))
        state, steps, status = jax.lax.while_loop(lambda carry: jnp.any(carry[2] == _RUNNING), body, start)
        for ref, value in zip(outputs, (*state, steps, status), strict=True):
            ref[...] = value

    def solve(limit: Any, state: Any, params: Any):
        size = state[0].shape[0]
        block = pl.BlockSpec((width,), lambda k: (k,))
        whole = pl.BlockSpec((1,), lambda k: (0,))
        shapes = [jax.ShapeDtypeStruct((size,), value.dtype) for value in state]
        shapes += [jax.ShapeDtypeStruct((size,), jnp.int32)] * 2
        call = pl.pallas_call(
            kernel,
            grid=(size // width,),
            in_specs=[whole] + [block] * (n_state + n_params),
            out_specs=[block] * (n_state + 2),
            out_shape=shapes,
            interpret=interpret,
        )
        return call(limit, *state, *params)

    return jax.jit(solve)


def run(program: Elementwise, state: Any, params: Any, max_steps: int, *, device: Any, width: int = _WIDTH) -> Any:
    """Tuples of elements [trials] to (final elements, steps, status), on the host."""
    n = state[0].shape[0]
    padded = np.minimum(np.arange(-(-n // width) * width), n - 1)  # the last trial again, where a block is not full
    pad = lambda values: tuple(value[padded] for value in values)  # noqa: E731
    solve = _solver(program, len(state), len(params), width, device.platform == "cpu")
    arguments = jax.device_put((np.full(1, max_steps, np.int32), pad(state), pad(params)), device)
    *end, steps, status = (np.asarray(value)[:n] for value in solve(*arguments))
    return tuple(end), steps, status.astype(np.int8)
