"""Hostile calls meet the package as users have it, without the tests' run-time type checker in front of it."""

import jaxtyping
import pytest


@pytest.fixture(autouse=True)
def _without_the_type_checker():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
