"""Tests run in float64, on four virtual CPU devices (only tests that ask for them use more than one)."""

import jax
import pytest

from jaxdyn.memory import forget_programs

jax.config.update("jax_num_cpu_devices", 4)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def _few_compiled_programs():
    """A worker runs hundreds of tests, each with programs of its own."""
    yield
    forget_programs()
