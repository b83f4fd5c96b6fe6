"""Tests run in float64, on four virtual CPU devices (only tests that ask for them use more than one).

What XLA compiles is kept in `.cache/jax`, where all workers, the processes that tests start and the next run find it.
"""

import os
from pathlib import Path

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parent.parent / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import pytest

from jaxdyn.cli.memory import forget_programs

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
