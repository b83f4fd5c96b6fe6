"""Programs that nobody wrote: what the fused engine makes of them is what JAX makes of them, or it says no."""

import fuzzing
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rounding import evaluated


@pytest.mark.parametrize("first", range(0, 200, 10))
def test_random_programs_are_right_or_rejected(first):
    outcomes = [fuzzing.judge(fuzzing.draw(seed)) for seed in range(first, first + 10)]
    assert not [each.text for each in outcomes if each.kind == "wrong"]
    assert {each.kind for each in outcomes} <= {"right", "rejected", "undecided", "slow"}
    assert sum(each.kind == "right" for each in outcomes) >= 5


def test_a_wrong_compiler_is_found(monkeypatch):
    """One that takes cosines for sines."""
    from jaxdyn.engines.fused import elementwise

    seeds = [seed for seed in range(60) if "sin" in {each.name for each in fuzzing.draw(seed).instructions}][:3]
    kinds = lambda: [fuzzing.judge(fuzzing.draw(seed)).kind for seed in seeds]  # noqa: E731
    assert "wrong" not in kinds()
    monkeypatch.setitem(elementwise.SAME, "sin", "cos")
    assert "wrong" in kinds()


def test_a_tie_inside_an_instruction_is_nobodys_fault():
    """It asks whether a row less its mean adds up to more than 0; it adds up to 0."""
    assert fuzzing.judge(fuzzing.draw(300034)).kind == "undecided"


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_without_roundings_the_second_evaluation_is_the_first(seed):
    with jax.enable_x64(True):
        program = fuzzing.draw(seed)
        state, data = (array[0] for array in fuzzing.inputs(program))
        with jax.disable_jit():
            want = program(jnp.asarray(state), jnp.asarray(data))
        have = evaluated(program, lambda value: value, state, data)
        np.testing.assert_allclose(have, want, rtol=1e-12 if program.dtype == jnp.float64 else 1e-5)
