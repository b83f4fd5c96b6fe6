"""Compiled programs are forgotten only when there are too many."""

import jax
import jax.numpy as jnp

from jaxdyn.cli.memory import _MAPS, forget_programs


def test_programs_are_forgotten_above_the_limit():
    traced = []

    @jax.jit
    def double(x):
        traced.append(1)
        return 2 * x

    double(jnp.ones(3))
    assert not forget_programs(above=10**9)
    double(jnp.ones(3))
    assert len(traced) == 1
    assert forget_programs(above=0) == _MAPS.exists()
    double(jnp.ones(3))
    assert len(traced) == (2 if _MAPS.exists() else 1)
