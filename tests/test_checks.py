import numpy as np
import pytest

from jaxdyn import checks
from jaxdyn.arrays import matrix, scalar


@pytest.mark.parametrize("value", [0, 1.5, "2", None, True, float("nan")])
def test_whole_numbers(value):
    with pytest.raises(ValueError, match="n: expected a whole number >= 1, got"):
        checks.whole_number("n", value)
    assert checks.whole_number("n", np.int32(3)) == 3


@pytest.mark.parametrize("value", ["1", None, True, float("inf"), float("nan"), -1, 2.5])
def test_numbers(value):
    with pytest.raises(ValueError, match=r"x: expected a number in \[0, 2\], got"):
        checks.number("x", value, low=0, high=2)
    assert checks.number("x", np.float32(0.5), low=0, high=2) == 0.5


def test_arrays():
    with pytest.raises(ValueError, match="x: expected a number >= 0, got -1"):
        scalar("x", np.array(-1.0), low=0)
    with pytest.raises(ValueError, match="x: expected one real number"):
        scalar("x", np.array([0.5, 1.0]), low=0)
    with pytest.raises(ValueError, match="A: expected finite"):
        matrix("A", [[1.0, np.inf]])
    assert matrix("A", [[1, 2]]).dtype == np.float64
