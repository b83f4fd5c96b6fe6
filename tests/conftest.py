"""Tests run in float64, on four virtual CPU devices (only tests that ask for them use more than one)."""

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield
