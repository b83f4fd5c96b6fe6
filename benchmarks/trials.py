"""The main job to verdicts: the xla engine, which retires finished trials, against plain vmap(while_loop)."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn.ensemble.engines import ENGINES
from jaxdyn.ensemble.protocol import Protocol
from jaxdyn.ensemble.trials import run_trials
from jaxdyn.names import ALGORITHMS
from jaxdyn.status import Status

NAME = "m = 1 trials, default protocol, draws to verdicts"
CASES = ("sg", "ema")
METHODS = ("vmap(while_loop)", "xla engine")


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

    return jax.tree.map(np.asarray, _jitted(one)(states, params))


_CACHE = {}


def _jitted(one):
    # The program is the same for every call of a case: keep its compilation.
    return _CACHE.setdefault("program", jax.jit(jax.vmap(one)))


def case(algorithm):
    """The workload of one algorithm; its result is the number of trials in every class."""
    assert algorithm in ALGORITHMS

    def prepare(method, quick):
        _CACHE.clear()
        ENGINES["plain"] = plain
        engine = {"vmap(while_loop)": "plain", "xla engine": "xla"}[method]
        n_trials = 1000 if quick else 10_000

        def work():
            data = run_trials(algorithm, Protocol(), n_trials, seed=0, engine=engine)
            return np.bincount(data["outcome"], minlength=6).tolist()

        return work

    return SimpleNamespace(prepare=prepare)
