"""Programs that nobody wrote: what the fused engine makes of them is what JAX makes of them, or it says no."""

import fuzzing
import pytest


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
