"""The documentation's list of primitives is the compiler's."""

import re
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import primitives

from jaxdyn.engines.fused.derived import DERIVED
from jaxdyn.engines.fused.elementwise import ELEMENTWISE
from jaxdyn.engines.fused.engine import supports
from jaxdyn.engines.fused.scalarise import CALLS
from jaxdyn.engines.fused.translations import RULES

PAGE = Path(__file__).parents[2] / "docs" / "engine.md"
OWN = ELEMENTWISE | set(RULES) | set(DERIVED) | CALLS


def listed():
    """The two lists as the page has them."""
    known = {getattr(primitives, name).name for name in dir(primitives) if name.endswith("_p")}
    wrap = lambda names: "\n".join(textwrap.wrap(", ".join(f"`{name}`" for name in sorted(names)), 118))  # noqa: E731
    return f"\n**Fused**: {wrap(OWN)}.\n\n**xla alone**: {wrap(known - OWN)}.\n"


def test_the_page_lists_what_the_compiler_has():
    (found,) = re.findall(r"<!-- primitives -->(.*)<!-- end of primitives -->", PAGE.read_text(), re.DOTALL)
    assert found == listed()


EXAMPLES = {
    "fft": lambda x: jnp.fft.fft(x).real, "digamma": jax.scipy.special.digamma,
    "conv_general_dilated": lambda x: jnp.convolve(x[0], x[1]), "cumlogsumexp": lambda x: jax.lax.cumlogsumexp(x),
    "random_gamma": lambda x: x + jax.random.gamma(jax.random.wrap_key_data(jnp.zeros(2, jnp.uint32)), 2.0),
}  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_listed_as_xla_alone_is(name):
    assert f"`{name}`" in listed().split("**xla alone**")[1]
    function = EXAMPLES[name]
    out = jax.eval_shape(function, np.ones((3, 3)))
    step = lambda state, _: (state[0], function(state[0]))  # noqa: E731
    assert not supports(step, None, (np.ones((2, 3, 3)), np.zeros((2, *out.shape), out.dtype)), np.zeros(2))
