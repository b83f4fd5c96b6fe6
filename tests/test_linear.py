"""Library calls in turn: the value is kept bit for bit, and the order is in the program that is compiled."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdyn as jd
from jaxdyn.linear import after

CALL = re.compile(r"%(\S+) = .*custom-call\((.*?)\), custom_call_target=\"lapack_\w+\"")


def test_the_value_is_kept_bit_for_bit_and_can_be_differentiated():
    value = jnp.array([1.5, -0.0, jnp.inf, jnp.nan, 5e-324])
    for earlier in (jnp.zeros(3), jnp.array([jnp.nan]), jnp.array([1j])):
        kept = np.asarray(jax.jit(after)(value, earlier))
        np.testing.assert_array_equal(kept.view(np.int64), np.asarray(value).view(np.int64))
    slope = jax.grad(lambda x: after(x, x**2) ** 3)(2.0)
    assert float(slope) == 12.0


def depends(text, last, first):
    """Whether one instruction of a compiled program needs another, by its operands."""
    operands = {match[1]: re.findall(r"%([\w.\-]+)", match[2]) for match in re.finditer(r"%([\w.\-]+) = (.*)", text)}
    seen, open_ = set(), [last]
    while open_:
        name = open_.pop()
        if name == first:
            return True
        if name not in seen:
            seen.add(name)
            open_ += operands.get(name, [])
    return False


def test_a_batch_of_linearisations_calls_the_library_in_turn():
    """Two batched calls at once can each wait for the other's threads for ever: of any two, one needs the other."""
    system, moments = jd.StopGradient(0.05), jd.Moments.random(jax.random.key(0), 2)
    states = jax.vmap(lambda key: system.random_state(key, n=3, m=2))(jax.random.split(jax.random.key(1), 5))
    run = jax.jit(jax.vmap(lambda state: jd.linearise(system, state, moments)))
    text = str(run.lower(states).compile().as_text())
    entry = text[text.index("ENTRY") :]
    calls = [match[1] for match in CALL.finditer(entry)]
    assert len(calls) > 3
    for k, one in enumerate(calls):
        for other in calls[:k]:
            assert depends(entry, one, other) or depends(entry, other, one), (one, other)


@pytest.mark.slow  # a batch large enough for the library's threads, many times, in a process that may hang
def test_large_batches_end():
    script = """
import jax, jaxdyn as jd
with jax.enable_x64(True):
    system, moments = jd.MovingAverage(0.05, ema_rate=0.1), jd.Moments.random(jax.random.key(0), 2)
    states = jax.vmap(lambda key: system.random_state(key, n=4, m=2))(jax.random.split(jax.random.key(1), 300))
    run = jax.jit(jax.vmap(lambda state: jd.linearise(system, state, moments).margin))
    for k in range(40):
        run(jax.tree.map(lambda leaf: leaf + k, states)).block_until_ready()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
