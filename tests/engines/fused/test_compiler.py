"""The compiled function against the plain JAX function: every registered system, random programs, both code shapes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from registry import EXAMPLES, moments, reduced

from jaxdyn.engines import ENGINES, choose
from jaxdyn.engines.fused import kernel
from jaxdyn.engines.fused.engine import _compiled_program, run
from jaxdyn.engines.fused.expressions import Unsupported
from jaxdyn.systems.base import field_of

BACKENDS = ("native", "loops", "xla")


def compiled(function, *arguments, backend="native", **options):
    """function(*arguments) for arguments with a leading trial axis, by one step of the fused engine."""
    shapes = jax.eval_shape(jax.vmap(function), *arguments)
    out = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    start = (arguments, out)
    n = jax.tree.leaves(arguments)[0].shape[0]
    step = lambda state, _: (state[0], function(*state[0]))  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        if backend == "loops":  # the code shape of large steps, for small ones
            patch.setattr(kernel, "_STRAIGHT", 0)
            patch.setattr(kernel, "_STRAIGHT_IF_SMALL", 0)
        native = "native" if backend == "loops" else backend
        return run(step, None, start, np.zeros(n), 1, backend=native, **options).states[1]


def assert_same(have, want, scale=1e-12):
    for a, b in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=scale, atol=scale)
        assert np.asarray(a).dtype == np.asarray(b).dtype


def systems() -> dict[str, Any]:
    with jax.enable_x64(True):
        return {name: (e.system, e.state(3, 2), moments(2)) for name, e in EXAMPLES.items()} | reduced()


NAMES = list(systems())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", ["native", "loops"])
def test_every_systems_field(name, backend):
    system, state, data = systems()[name]
    rng = np.random.default_rng(0)
    batch = jax.tree.map(lambda leaf: np.stack([leaf * f for f in 1 + 0.3 * rng.normal(size=11)]), state)
    field = lambda s: system.field(0.3, s, data)  # noqa: E731
    assert_same(compiled(field, batch, backend=backend), jax.vmap(field)(batch))


# The exception's field solves a linear system, whose derivative, written out, is 20,000 operations long.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "SelfPredictive"])
def test_every_systems_jacobian(name):
    """`jacfwd` of a field is itself a JAX function, and compiles like one."""
    system, state, data = systems()[name]
    flat, back = ravel_pytree(state)
    jacobian = jax.jacfwd(lambda y: ravel_pytree(system.field(0.3, back(y), data))[0])
    batch = np.stack([np.asarray(flat) * f for f in (1.0, 0.7, 1.3)])
    assert_same(compiled(jacobian, batch), jax.vmap(jacobian)(batch))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", EXAMPLES)
@settings(max_examples=3, deadline=None)
@given(n=st.integers(1, 6), m=st.integers(1, 5), seed=st.integers(0, 2**16))
def test_procedures_of_any_shape(name, backend, n, m, seed):
    example, data = EXAMPLES[name], moments(m)
    rng = np.random.default_rng(seed)
    state = jax.tree.map(lambda leaf: rng.normal(size=(3, *leaf.shape)), example.state(n, m))
    step = lambda s, lr: example.system.step(s, data, lr)  # noqa: E731
    lr = rng.uniform(0.001, 0.3, 3)
    assert_same(compiled(step, state, lr, backend=backend), jax.vmap(step)(state, lr), 1e-11)


def _scanned(x):
    def body(carry, row):
        return carry * 0.5 + row, jnp.sum(carry)

    return jax.lax.scan(body, x[0], x, reverse=True)


PROGRAMS = {
    "arithmetic": lambda x: (
        x / (1 + x**2), -x, x**-3, x**0, jnp.abs(x), jnp.sign(x), x % 0.7, jax.lax.rsqrt(x**2 + 1),
        1 - x * x.T, x * x.T - 1, x * x.T + x, x - x.T * 3 - x * x,
    ),
    "elementary": lambda x: (
        jnp.exp(x), jnp.log(jnp.abs(x) + 0.1), jnp.sin(x), jnp.cos(x), jnp.tan(x), jnp.tanh(x), jnp.expm1(x),
        jnp.log1p(jnp.abs(x)), jnp.sinh(x), jnp.arctan2(x, 2.0), jnp.cbrt(x), jax.nn.sigmoid(x), jnp.exp2(x),
        jnp.abs(x) ** 1.7, jnp.arcsinh(x), jax.scipy.special.erf(x), jnp.sqrt(jnp.abs(x)),
    ),
    "choices": lambda x: (
        jnp.where(x > 0, x, 0.0), jnp.clip(x, -0.5, 0.5), jnp.maximum(x, x.T), jnp.minimum(x, 0.1), x >= 0.2,
        jnp.isfinite(x) & ~(x < 0), jax.lax.cond(x[0, 0] > 0, lambda: x, lambda: 2 * x), jnp.floor(x), jnp.round(3 * x),
        jax.lax.select_n(jnp.int32(1) * (x[0, 1] > 0), x[0], x[1]),
    ),
    "moves": lambda x: (
        x.T, x.reshape(-1), x[1], x[:, 1:], x[::-1], x[:, ::2], jnp.concatenate([x, x[:1]]), jnp.pad(x, 1),
        jnp.broadcast_to(x[0], (2, 3)), x.at[1].set(0.5), x.at[0, 1].set(x[1, 1]), jnp.stack([x, x.T]), jnp.diag(x),
        jnp.roll(x, 1, 0), x[jnp.array([2, 0])], jnp.split(x, 3, 1), jnp.tril(x), x.reshape(1, 9, 1)[0, 3:5],
    ),
    "sums": lambda x: (
        x.sum(), x.sum(0), x.max(1), x.min(), x.prod(0), jnp.linalg.norm(x), jnp.trace(x), jnp.cumsum(x, 1),
        jnp.argmax(x, 1), jnp.argmin(x), (x > 0).all(0), (x > 1).any(), x.mean(), jnp.var(x, 0), jnp.cumsum(x[::-1], 0),
    ),
    "products": lambda x: (
        x @ x, x @ x[0], x[0] @ x, jnp.outer(x[0], x[1]), jnp.einsum("ij,kj->ik", x, x), jnp.vdot(x, x),
        jnp.einsum("ij,jk,kl->il", x, x.T, x), jax.vmap(jnp.matmul)(jnp.stack([x, x]), jnp.stack([x.T, x])),
        jnp.tensordot(x, x, 2),
    ),
    "loops": lambda x: (jax.lax.fori_loop(0, 4, lambda i, c: c @ x * 0.5 + i, x), _scanned(x),
                        jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 2), (0, x))),
    "calls": lambda x: (jax.nn.relu(x), jax.jit(lambda y: y + 1)(x), jax.checkpoint(jnp.sin)(x), jax.nn.softplus(x),
                        jax.grad(lambda y: jnp.sum(jnp.tanh(y @ y)))(x), jax.nn.softmax(x)),
    "whole numbers": lambda x: (
        (10 * x).astype(jnp.int32), jnp.arange(3) + x.astype(jnp.int64), (x > 0).astype(float), (x > 0).astype(int) * 3,
        jnp.maximum((5 * x).astype(int), 1), -(5 * x).astype(jnp.int8), x.astype(jnp.float32),
        jnp.abs((9 * x).astype(int)),
    ),
    "traced indices": lambda x: (x[(x[0, 0] > 0).astype(int)], jax.lax.dynamic_slice(x, (1, 0), (2, 2)),
                                 jax.lax.dynamic_update_slice(x, x[:1], (2, 0))),
}  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_primitives(name, backend):
    x = np.random.default_rng(3).normal(size=(5, 3, 3))
    want = jax.vmap(PROGRAMS[name])(x)
    assert_same(compiled(PROGRAMS[name], x, backend=backend), want, 4e-15 if backend == "native" else 1e-13)


EDGES = {
    "constant conversions": lambda x: (
        (0 * x - 1.5).astype(jnp.uint8), (0 * x + 300).astype(jnp.int8), (0 * x + 1e20).astype(jnp.int32),
        (0 * x - jnp.inf).astype(jnp.int64), (x * 1e20).astype(jnp.int32),
    ),
    "truth values multiplied": lambda x: (x > 0) @ (x > 0).T,
    "whole numbers multiplied": lambda x: (3 * x).astype(int) @ (2 * x).astype(int),
    "nothing multiplied": lambda x: (x[None, :0] @ x, jnp.einsum("bij,bkj->bik", x[None][:0], x[None][:0])),
    "the first NaN is the largest": lambda x: (jnp.argmax(jnp.sqrt(x), 1), jnp.argmin(jnp.sqrt(x))),
    "barriers": lambda x: jax.lax.optimization_barrier((x + 1, x.T)),
    "whole exponents": lambda x: jnp.abs(x) ** (x > 0).astype(int),
    "places that count": lambda x: jax.lax.fori_loop(1, 3, lambda i, c: c.at[i].set(c[i - 1] + x[0]), x),
    "signed zeros": lambda x: jnp.arctan2(jnp.array([0.0, -0.0, 0.0]), -jnp.abs(x) - 1),
}  # fmt: skip


@pytest.mark.parametrize("backend", ["native", "loops"])
@pytest.mark.parametrize("name", EDGES)
def test_edges(name, backend):
    """Found by differential testing against JAX."""
    x = np.random.default_rng(5).normal(size=(5, 3, 3))
    assert_same(compiled(EDGES[name], x, backend=backend), jax.vmap(EDGES[name])(x))


@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_stays_float32(backend):
    x = np.random.default_rng(3).normal(size=(5, 3, 3)).astype(np.float32)
    function = lambda x: (x @ x, jnp.exp(x), jnp.tanh(x), jnp.sum(x), jnp.log(jnp.abs(x)))  # noqa: E731
    with jax.enable_x64(False):
        want = jax.vmap(function)(x)
        assert_same(compiled(function, x, backend=backend), want, 3e-6)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: jnp.abs(jnp.fft.fft(x)), "fft"),
        (lambda x: jnp.linalg.svd(x)[0], "svd"),
        (lambda x: jax.lax.reduce_precision(x, 5, 10), "reduce_precision"),
        (lambda x: x * 1j, "complex"),
    ],
)
def test_what_cannot_be_compiled_is_named_with_the_engine_to_use(function, named):
    x = np.ones((2, 3, 3))
    with pytest.raises(Unsupported, match=rf'{named}.*is not supported.*use engine="xla"'):
        compiled(function, x)
    step = lambda state, _: (state[0], function(state[0]))  # noqa: E731
    out = jax.eval_shape(jax.vmap(function), x)
    start = (x, np.zeros(out.shape, out.dtype))
    assert choose(step, None, start, np.zeros(2)) == "xla"


def test_a_step_must_return_a_state_like_its_own():
    with pytest.raises(ValueError, match="step: expected a state like its argument's"):
        run(lambda x, p: x[:1], None, np.ones((3, 2)), np.ones(3), 5)


def test_constants_fold_and_common_expressions_are_computed_once():
    from jaxdyn.engines.fused.expressions import Graph
    from jaxdyn.engines.fused.scalarise import scalarise, trace

    def nodes(function):
        closed, _ = trace(function, jax.ShapeDtypeStruct((2, 2), np.float64))
        graph = Graph()
        x = np.array([[graph.input((i, j), "float64") for j in range(2)] for i in range(2)])
        out = scalarise(closed, graph, [x])
        return [graph.nodes[place].op for place in graph.live([int(place) for place in np.ravel(out)])]

    assert nodes(lambda x: x * 1 - 0) == ["input"] * 4
    assert nodes(lambda x: x + -0.0) == ["input"] * 4
    assert nodes(lambda x: x + 0.0).count("add") == 4  # of −0 it is +0
    assert nodes(lambda x: jnp.eye(2) @ x) == ["input"] * 4
    assert nodes(lambda x: jnp.sin(x[0, 0]) + jnp.sin(x[0, 0])).count("sin") == 1
    assert nodes(lambda x: x[0, 0] * (jnp.sqrt(jnp.pi) * 2)).count("mul") == 1
    sparse = nodes(jax.jacfwd(lambda x: x[0] * x[1]))  # four products of a row with ones and zeros
    assert sparse.count("mul") == 0


def test_programs_are_compiled_once():
    step = lambda x, p: x * p  # noqa: E731
    x = np.ones(3)
    run(step, None, x, x, 5)
    before = _compiled_program.cache_info()
    run(step, None, x, x, 7)
    run(step, None, np.ones(9), np.ones(9), 5)  # nor does the number of trials matter
    after = _compiled_program.cache_info()
    assert (after.misses, after.hits) == (before.misses, before.hits + 2)
    with jax.enable_x64(False):
        run(step, None, x, x, 5)
    assert _compiled_program.cache_info().misses == after.misses + 1


def test_a_field_is_all_that_is_needed():
    assert set(ENGINES) == {"xla", "fused"}
    for name, (system, state, data) in systems().items():
        batch = jax.tree.map(lambda leaf: np.stack([leaf]), state)
        step = lambda s, _, system=system, data=data: field_of(system)(0.0, s, data)  # noqa: E731
        assert choose(step, None, batch, np.zeros(1)) == "fused", name


def test_other_backends_compile_once_too():
    from jaxdyn.engines import xla

    step, done, x = (lambda x, p: x * p), (lambda old, new, p: new < 0.1), np.ones(3)
    run(step, done, x, x / 2, 50, backend="xla")
    before = xla._compiled_chunk.cache_info().misses
    run(step, done, x, x / 2, 50, backend="xla")
    assert xla._compiled_chunk.cache_info().misses == before
