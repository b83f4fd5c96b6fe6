"""Random numbers, sorting, indices, loops, factorisations and complex numbers in a compiled step, against JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from test_compiler import compiled

from jaxdyn.engines import run
from jaxdyn.engines.fused.engine import supports
from jaxdyn.engines.fused.expressions import Unsupported
from jaxdyn.status import Status


def key_of(x):
    """Some key, another for each trial."""
    return jax.random.wrap_key_data(jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32).ravel()[:2])


def whole(x, scale=2.0):
    return (jnp.abs(x) * scale).astype(int)


def told(x):
    """NaN as a number of its own, so that where it stands is compared."""
    return jnp.where(jnp.isnan(x), 777.0, x)


def positive(x):
    return x @ x.T + jnp.eye(x.shape[0])


# Functions of a matrix [3, 3], and how far apart in rounding they may be; None: not a bit.
OF_MATRIX = {
    "uniform": (lambda x: jax.random.uniform(key_of(x), (3,)), None),
    "uniform, single": (lambda x: jax.random.uniform(key_of(x), (3,), np.float32), None),
    "bits": (lambda x: jax.random.bits(key_of(x), (3, 2)), None),
    "bits of 64": (lambda x: jax.random.bits(key_of(x), (2,), np.uint64), None),
    "bits of 8": (lambda x: jax.random.bits(key_of(x), (5,), np.uint8).astype(int), None),
    "normal": (lambda x: jax.random.normal(key_of(x), (3,)), 2e-15),
    "split": (lambda x: jax.random.key_data(jax.random.split(key_of(x), 3)), None),
    "split in rows": (lambda x: jax.random.key_data(jax.random.split(key_of(x), (2, 2))[1]), None),
    "fold in": (lambda x: jax.random.key_data(jax.random.fold_in(key_of(x), 7)), None),
    "fold in many": (lambda x: jax.random.key_data(jax.vmap(lambda k: jax.random.fold_in(key_of(x), k))(whole(x[0]))),
                     None),
    "seed": (lambda x: jax.random.key_data(jax.random.key(whole(x[0, 0], 1e6))), None),
    "keys chosen": (lambda x: jax.random.uniform(jax.lax.cond(
        x[0, 0] > 0, lambda: key_of(x), lambda: jax.random.fold_in(key_of(x), 1))), None),
    "randint": (lambda x: jax.random.randint(key_of(x), (4,), -3, 9), None),
    "bernoulli": (lambda x: jax.random.bernoulli(key_of(x), 0.3, (4,)), None),
    "categorical": (lambda x: jax.random.categorical(key_of(x), x, axis=-1), None),
    "permutation": (lambda x: jax.random.permutation(key_of(x), 5), None),
    "choice": (lambda x: jax.random.choice(key_of(x), x.ravel()), None),
    "exponential": (lambda x: jax.random.exponential(key_of(x), (2,)), 1e-15),
    "many keys": (lambda x: jax.vmap(jax.random.normal)(jax.random.split(key_of(x), 4)), 2e-15),
    "a walk": (lambda x: jax.lax.fori_loop(
        0, 40, lambda _, c: (jax.random.split(c[0])[0], c[1] + jax.random.uniform(c[0])), (key_of(x), 0.0))[1], None),
    "row by index": (lambda x: x[whole(x[0, 0]), 1:], None),
    "column kept": (lambda x: x.at[whole(x[0, 0]), 1:].max(x[1, 1:]), None),
    "along an axis": (lambda x: jnp.take_along_axis(x, jnp.argsort(x, 0), 0), None),
    "sort of rows": (lambda x: jax.lax.sort((x, x.T, -x), num_keys=2)[2], None),
    "sort by columns": (lambda x: jnp.sort(jnp.round(x), 0, descending=True), None),
    "cholesky": (lambda x: jnp.linalg.cholesky(positive(x)), 1e-13),
    "NaN in the last row": (lambda x: told(jnp.linalg.cholesky(positive(x).at[2].set(jnp.nan))), 1e-13),
    "NaN in the first pivot": (lambda x: told(jnp.linalg.cholesky(positive(x).at[0, 0].set(jnp.nan))), 1e-13),
    "not positive": (lambda x: jnp.isnan(jnp.linalg.cholesky(x @ x.T - jnp.eye(3))), None),
    "upper": (lambda x: jax.scipy.linalg.solve_triangular(x, x[:, 0]), 1e-12),
    "lower, transposed": (lambda x: jax.scipy.linalg.solve_triangular(x, x, lower=True, trans=1), 1e-12),
    "unit": (lambda x: jax.scipy.linalg.solve_triangular(x, x, lower=True, unit_diagonal=True), 1e-12),
    "from the right": (lambda x: jax.lax.linalg.triangular_solve(x, x.T, lower=True), 1e-12),
    "by cholesky": (lambda x: jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(positive(x)), x), 1e-11),
    "eigenvalues": (jnp.linalg.eigvalsh, 1e-12),
    "of a matrix of rank one": (lambda x: jnp.linalg.eigvalsh(jnp.outer(x[0], x[0])), 1e-12),
    "of a diagonal": (lambda x: jnp.linalg.eigvalsh(jnp.diag(x[0])), 1e-12),
    "of nothing": (lambda x: jnp.linalg.eigvalsh(0 * x), 1e-12),
    "function of a matrix": (lambda x: (lambda w, v: v @ jnp.diag(jnp.sin(w)) @ v.T)(*jnp.linalg.eigh(x)), 1e-12),
    "slogdet": (lambda x: jnp.stack(jnp.linalg.slogdet(x)), 1e-12),
    "lu": (lambda x: jnp.concatenate([part.ravel() for part in jax.scipy.linalg.lu(x)]), 1e-12),
    "infinite beside a mask": (lambda x: jnp.isnan(jnp.eye(3) @ jnp.full((3, 3), jnp.inf) + x), None),
    "infinite before a mask": (lambda x: jnp.isnan(jnp.full((3, 3), jnp.inf) @ jnp.eye(3) + x), None),
    "solve of an arrow": (lambda x: jnp.linalg.solve(jnp.eye(3) * (3 + x) + x[:, :1] * jnp.eye(3)[:1], x[0]), 1e-12),
    "solve of blocks": (lambda x: jnp.linalg.solve(
        x * (jnp.arange(3)[:, None] // 2 == jnp.arange(3) // 2).astype(float), x[0]), 1e-12),
    "singular": (lambda x: jax.scipy.linalg.lu(jnp.stack([x[0], 2 * x[0], x[1]]))[2], 1e-14),
    "singular values": (lambda x: jnp.linalg.svdvals(x[:2]), 1e-12),
    "norm": (lambda x: jnp.linalg.norm(x, 2), 1e-12),
    "qr": (lambda x: jnp.concatenate([part.ravel() for part in jnp.linalg.qr(x)]), 1e-12),
    "qr, wide": (lambda x: jnp.concatenate([part.ravel() for part in jnp.linalg.qr(x[:2])]), 1e-12),
    "qr, all of it": (lambda x: jnp.linalg.qr(x[:, :2], mode="complete")[0], 1e-12),
    "qr of a triangle": (lambda x: jnp.linalg.qr(jnp.triu(x))[1], 1e-12),
    "complex": (lambda x: jnp.real(jnp.exp(1j * x) * (1 + 2j * x) / (x - 1j)), 1e-12),
    "complex parts": (lambda x: jnp.imag((x + 2j * x.T).conj()), None),
    "complex root": (lambda x: jnp.imag(jnp.sqrt(x + 1j * x[::-1])), 1e-12),
    "complex log": (lambda x: jnp.abs(jnp.log(x + 1j * x[::-1])) + jnp.angle(x - 2j), 1e-11),
    "complex powers": (lambda x: jnp.real((x + 1j) ** (0.3 + 0.2j)) + jnp.imag((x + 1j) ** 3), 1e-12),
    "complex product": (lambda x: jnp.abs((x + 1j * x.T) @ (x * 1j)), 1e-12),
    "complex solve": (lambda x: jnp.abs(jnp.linalg.solve(x + 1j * x.T, x[:, 0] * 1j)), 1e-11),
    "complex chosen": (lambda x: jnp.where(x > 0, x + 1j, 2 * x - 3j).imag, None),
    "complex equal": (lambda x: (x + 1j == x.T + 1j) | (x + 1j != x + 2j), None),
    "complex waves": (lambda x: jnp.real(jnp.tanh(x + 0.3j)) + jnp.imag(jnp.sinh(x + 1j)) + jnp.real(jnp.cos(x + 2j))
                      + jnp.imag(jnp.sin(x - 1j) + jnp.cosh(1j * x)), 1e-12),
    "next number": (lambda x: jnp.nextafter(x, x.T), None),
    "inverse of erf": (lambda x: jax.scipy.special.erfinv(x / 5), 2e-15),
    "bits that are set": (lambda x: jax.lax.population_count(whole(x, 1e5)) + jax.lax.clz(whole(x, 1e5)), None),
    "mantissa": (lambda x: jnp.frexp(x)[0], None),
}  # fmt: skip
# Of a vector [6].
OF_VECTOR = {
    "sort": (jnp.sort, None),
    "argsort of ties": (lambda x: jnp.argsort(jnp.round(x)), None),
    "argsort, descending": (lambda x: jnp.argsort(jnp.round(x), descending=True), None),
    "sort of odd numbers": (lambda x: jnp.signbit(jnp.sort(jnp.concatenate([0 * x, x[:4], jnp.log(x)]))), None),
    "median": (jnp.median, 1e-15),
    "quantile": (lambda x: jnp.quantile(x, 0.3), 1e-14),
    "rank": (lambda x: jnp.searchsorted(jnp.sort(x), 0.2), None),
    "interp": (lambda x: jnp.interp(x, jnp.sort(x[:4]), x[2:]), 1e-14),
    "largest": (lambda x: jnp.concatenate(jax.lax.top_k(jnp.round(x), 3)), None),
    "by index": (lambda x: x[whole(x[:3])], None),
    "outside, of truth values": (lambda x: (x < 9).at[whole(x[:4], 9)].get(mode="fill") & (
        x > 9).at[whole(x[:4], 9)].get(mode="fill"), None),
    "outside": (lambda x: jnp.isnan(jnp.take(x, whole(x[:3], 9) - 3, mode="fill")), None),
    "clipped": (lambda x: jnp.take(x, whole(x[:3], 9) - 3, mode="clip"), None),
    "wrapped": (lambda x: jnp.take(x, whole(x[:3], 9) - 3, mode="wrap"), None),
    "small index": (lambda x: x[whole(x[:2]).astype(np.int8)], None),
    "set": (lambda x: x.at[whole(x[0], 9)].set(2.0), None),
    "added to one twice": (lambda x: x.at[jnp.array([0, 0, 1])].add(x[:3]), 1e-15),
    "added": (lambda x: x.at[whole(x[:3], 3)].add(x[3:]), 1e-15),
    "multiplied": (lambda x: x.at[whole(x[:3], 3)].multiply(x[3:]), 1e-15),
    "dropped": (lambda x: x.at[whole(x[:3], 9)].set(x[3:], mode="drop"), None),
    "slice put": (lambda x: jax.lax.dynamic_update_slice(x, x[:2], (whole(x[0], 3),)), None),
    "slices": (lambda x: jax.vmap(lambda k: jax.lax.dynamic_slice_in_dim(x, k, 2))(whole(x[:3], 3)), None),
    "bincount": (lambda x: jnp.bincount(whole(x, 3), length=5), None),
    "histogram": (lambda x: jnp.histogram(x, bins=4, range=(-2, 2))[0], None),
    "while": (lambda x: jax.lax.while_loop(lambda z: jnp.sum(jnp.abs(z)) > 1, lambda z: z / 2, x), None),
    "collatz": (lambda x: jax.lax.while_loop(
        lambda c: c[0] > 1, lambda c: (jnp.where(c[0] % 2 == 0, c[0] // 2, 3 * c[0] + 1), c[1] + 1),
        (whole(x[0], 40) + 1, 0))[1], None),
    "while of several": (lambda x: jax.lax.while_loop(
        lambda c: (c[0] < 50) & (c[1].sum() < 9),
        lambda c: (c[0] + 1, c[1] + jnp.abs(x[:2]) * c[2], ~c[2]), (0, x[2:4], True))[1], 1e-15),
    "while in while": (lambda x: jax.lax.while_loop(
        lambda c: c[0] < 3 * jnp.abs(x[0]),
        lambda c: (c[0] + 1, jax.lax.while_loop(lambda z: z > 1, lambda z: z / 3, c[1] * 5)), (0.0, 7 + x[1]))[1],
        1e-15),
    "to a number": (lambda x: jax.lax.fori_loop(0, whole(x[0], 20), lambda i, z: jnp.tanh(z) + 0.1 * i, x), 1e-13),
    "3,000 passes": (lambda x: jax.lax.fori_loop(0, 3000, lambda i, z: jnp.cos(z) + 0.1 * jnp.roll(z, 1), x), 1e-11),
    "complex passes": (lambda x: jnp.abs(jax.lax.while_loop(
        lambda z: jnp.abs(z) < 2, lambda z: z * (1.1 + 0.3j) + 0.01, x[0] / 9 + 0.1j)), 1e-13),
    "rows of a scan": (lambda x: jax.lax.scan(lambda c, r: (0.5 * c + r, c * r), 0.0, jnp.tile(x, 5))[1], 1e-14),
    "backwards": (lambda x: jax.lax.scan(
        lambda c, r: (0.5 * c + r, (c * r, c)), 0.0, jnp.tile(x, 5), reverse=True)[1][0], 1e-14),
    "fibonacci": (lambda x: jnp.stack(jax.lax.fori_loop(0, 20, lambda _, c: (c[1], c[0] + c[1]), (x[0], x[1]))), 1e-13),
}  # fmt: skip
CASES = [(name, "matrix") for name in OF_MATRIX] + [(name, "vector") for name in OF_VECTOR]


@pytest.mark.parametrize(("name", "of"), CASES)
def test_as_jax_itself(name, of):
    function, tolerance = (OF_MATRIX if of == "matrix" else OF_VECTOR)[name]
    x = np.random.default_rng(0).normal(size=(7, 3, 3) if of == "matrix" else (7, 6))
    want = np.asarray(jax.jit(jax.vmap(function))(x))
    for backend in ("native", "loops"):
        have = compiled(function, x, backend=backend)
        assert have.dtype == want.dtype
        if tolerance is None:
            np.testing.assert_array_equal(have, want)
        else:
            np.testing.assert_allclose(have, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", range(2, 10))
def test_every_network_sorts(size):
    """All arrangements of zeros and ones: a network that sorts these sorts anything (Knuth's principle)."""
    rows = np.array(np.meshgrid(*[[0.0, 1.0]] * size)).reshape(size, -1).T
    np.testing.assert_array_equal(compiled(jnp.sort, np.ascontiguousarray(rows)), np.sort(rows))


def test_eigenvectors_are_numpys_but_for_the_sign():
    x = np.random.default_rng(1).normal(size=(9, 4, 4))
    x = x + x.transpose(0, 2, 1)
    values, vectors = compiled(lambda x: tuple(jnp.linalg.eigh(x)), x)
    want = np.linalg.eigh(x)
    np.testing.assert_allclose(values, want.eigenvalues, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(abs(vectors), abs(want.eigenvectors), atol=1e-12)
    np.testing.assert_allclose(x @ vectors, vectors * values[:, None], atol=1e-12)


def test_the_inverse_of_erf_is_scipys_into_the_tails():
    """JAX's own is off by 1e-10 there."""
    x = np.concatenate([1 - 10.0 ** -np.arange(1.0, 16), np.geomspace(1e-300, 0.9, 40), [0.0]])
    x = np.concatenate([x, -x])
    np.testing.assert_allclose(compiled(jax.scipy.special.erfinv, x), scipy.special.erfinv(x), rtol=2e-15)
    assert compiled(lambda x: jax.scipy.special.erfinv(x) == jnp.inf, np.array([1.0, -1.0, 0.5])).tolist() == [1, 0, 0]


def test_a_loops_length_is_each_trials_own():
    """Trials of 0 to 2,000 passes side by side, again and again, do not change one another's bits."""
    start = np.array([0.0, 2000.0, 3.0, 17.0, 1.0, 900.0, 5.0] * 5)
    step = lambda y, n: jax.lax.fori_loop(0, n, lambda i, z: jnp.sin(z) + 1e-3 * i, y)  # noqa: E731
    lengths = start.astype(np.int32)
    done = lambda old, new, n: new > 1.5  # noqa: E731
    together = run("fused", step, done, start / 999, lengths, 5)
    for k in range(7):
        alone = run("fused", step, done, start[k : k + 1] / 999, lengths[k : k + 1], 5)
        assert alone.states[0] == together.states[k]
        assert alone.status[0] == together.status[k]
    np.testing.assert_array_equal(together.states, np.tile(together.states[:7], 5))


def test_a_trial_that_has_ended_loops_no_more():
    """Its state would keep the loop from ending: y falls by one a step and must not be asked below zero."""
    step = lambda y, _: jax.lax.while_loop(lambda z: z != jnp.round(z), lambda z: z, y - 1)  # noqa: E731
    done = lambda old, new, _: new == 0  # noqa: E731
    halves = lambda y: jnp.where(y < 0, y + 0.5, y)  # noqa: E731  # below zero the loop has no end
    ends = run("fused", lambda y, p: step(halves(y), p), done, np.arange(1.0, 40.0), np.zeros(39), 100)
    assert (ends.status == Status.CONVERGED).all()
    np.testing.assert_array_equal(ends.steps, np.arange(1, 40))


@pytest.mark.parametrize("backend", ["native", "loops"])
def test_numbers_that_are_none_end_no_loop_for_others(backend):
    f = lambda x: jax.lax.while_loop(lambda z: jnp.abs(z) > 1, lambda z: z / 2, 1 / x)  # noqa: E731
    x = np.array([0.3, 1e-300, -0.001, 5.0])
    np.testing.assert_array_equal(compiled(f, x, backend=backend), np.asarray(jax.vmap(f)(x)))


REFUSED = {
    "a generator": lambda x: jax.random.uniform(jax.random.key(0, impl="rbg")) + x,
    "random_gamma": lambda x: jax.random.gamma(key_of(x), 2.0) + x,
    "svd with": lambda x: jnp.linalg.svd(x)[0],
    "a factorisation": lambda x: jnp.linalg.cholesky(jnp.eye(20) + x[0, 0])[0, 0] + x,
    "complex": lambda x: jnp.linalg.eigvalsh(x + 1j * x),
    "expm1": lambda x: jnp.expm1(1j * x).real,
    "sort": lambda x: jnp.sort(jnp.tile(x.ravel(), 9)),
    "keys found": lambda x: jax.random.uniform(jax.random.split(key_of(x), 3).at[whole(x[0, 0])].get(mode="fill")) + x,
    "pivoting": lambda x: jax.scipy.linalg.qr(x, pivoting=True)[0],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compiled_is_named_and_left_to_xla(name):
    function, x = REFUSED[name], np.random.default_rng(0).normal(size=(3, 3, 3))
    what = {"a generator": "key<rbg>|rbg"}.get(name, name)
    with pytest.raises(Unsupported, match=what):
        compiled(function, x)
    out = jax.eval_shape(function, x[0])
    start = (x, np.zeros((3, *out.shape), out.dtype))
    assert not supports(lambda s, _: (s[0], function(s[0])), None, start, np.zeros(3))


def test_no_state_is_complex_or_a_key():
    with pytest.raises(Unsupported, match="a state of complex128"):
        run("fused", lambda y, _: y * 1j, None, np.ones(3, complex), np.zeros(3), 1)


def test_loops_that_do_nothing_are_not_walked_through():
    """Their passes add nothing to the code; a hundred million of them are not for the compiler to count."""
    still = lambda x: jax.lax.scan(lambda c, _: (c, None), x, length=100_000_000)[0]  # noqa: E731
    long = lambda x: jax.lax.fori_loop(0, 3_000_000, lambda _, c: c, x)  # noqa: E731
    for function in (still, long):
        state = (np.ones(2), np.zeros(2))
        assert supports(lambda s, _, f=function: (s[0], f(s[0])), None, state, np.zeros(2))
    np.testing.assert_array_equal(compiled(long, np.array([1.0, 2.0])), [1.0, 2.0])


BY_ROWS = {
    "while of each row": lambda x: jax.vmap(
        lambda r: jax.lax.while_loop(lambda z: jnp.abs(z) > 0.3, lambda z: z * 0.6, r))(x),
    "to a number of each row": lambda x: jax.vmap(
        lambda r: jax.lax.fori_loop(0, whole(r, 9), lambda i, z: jnp.sin(z) + i, r))(x),
    "known in part": lambda x: x[:3] + jax.vmap(
        lambda n: jax.lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * 2), (0, 1.0))[1])(jnp.arange(3)),
    "poisson of keys": lambda x: jax.vmap(lambda k: jax.random.poisson(k, 3.0))(
        jax.random.split(key_of(x), 2)).astype(float),
    "eigenvalues of a stack": lambda x: jnp.linalg.eigvalsh(jnp.stack([jnp.outer(x[:2], x[2:4]), jnp.diag(x[:2])])),
    "singular values of a stack": lambda x: jnp.linalg.svdvals(jnp.stack([jnp.outer(x[:2], x[2:4]), jnp.diag(x[:2])])),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_ROWS)
@pytest.mark.parametrize("backend", ["native", "loops"])
def test_loops_under_vmap_end_for_each_row(name, backend):
    x = np.random.default_rng(3).normal(size=(6, 6))
    want = np.asarray(jax.jit(jax.vmap(BY_ROWS[name]))(x))
    np.testing.assert_allclose(compiled(BY_ROWS[name], x, backend=backend), want, rtol=1e-12, atol=1e-12)


def test_a_loop_of_a_choice_not_taken_need_not_end():
    """Alone it would end for each trial; the other trials' branch has a loop without an end."""
    endless = lambda x: jax.lax.while_loop(lambda z: z < 5, lambda z: z + x, 0.0)  # noqa: E731
    deep = lambda x: jax.lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, endless(x)), (0, 0.0))[1]  # noqa: E731
    for loop in (endless, deep):
        f = lambda x, loop=loop: jax.lax.cond(x > 0, lambda: loop(x), lambda: x)  # noqa: E731
        ends = run("fused", lambda _, x, f=f: f(x), None, np.zeros(3), np.array([1.0, -1.0, 2.0]), 1)
        np.testing.assert_array_equal(ends.states, [5.0, -1.0, 6.0])


def test_a_loop_inside_a_loop_ends_for_trials_whose_outer_one_has():
    def f(x):
        inner = lambda z: jax.lax.while_loop(lambda w: w < 3, lambda w: w + z, 0.0)  # noqa: E731  # without end at z = 0
        return jax.lax.while_loop(lambda z: z > 0.5, lambda z: jnp.floor(inner(z) / 4), x)

    x = np.array([4.0, 1.0, 0.0, 2.0, 7.0])
    np.testing.assert_array_equal(compiled(f, x), [float(f(value)) for value in x])
    np.testing.assert_array_equal(compiled(f, x, backend="loops"), [float(f(value)) for value in x])


def test_what_is_promised_inside_and_is_not_is_dropped_or_clipped_as_xla_does():
    at = np.array([9, -7, 2], np.int32)
    value = lambda i: jax.grad(lambda y: jnp.sum(y[i[None]] ** 2))(jnp.arange(4.0)) + i * 0.0  # noqa: E731
    put = lambda i: jnp.arange(4.0).at[i].set(7.0, mode="promise_in_bounds")  # noqa: E731
    read = lambda i: jnp.arange(4.0).at[i].get(mode="promise_in_bounds")  # noqa: E731
    for function in (value, put, read):
        np.testing.assert_array_equal(compiled(function, at), np.asarray(jax.jit(jax.vmap(function))(at)))


def test_complex_functions_where_a_part_overflows():
    def f(x):
        far = jnp.log((x + 1j * x) * 1.5e308).real, jnp.sin(1j * x * 1e3).real, jnp.cosh(x * 1e3 + 0j).imag
        return jnp.stack([*far, jnp.log((x - 1j) * 1e-30).real])

    x = np.array([1.0, 0.3, 2.0**-3])
    np.testing.assert_allclose(compiled(f, x), np.asarray(jax.vmap(f)(x)), rtol=1e-14)


LONG = {
    "solve": lambda x: jnp.linalg.solve(jnp.tile(x, (2, 2)), jnp.tile(x, (2, 2)))[:16],
    "qr": lambda x: jnp.linalg.qr(x)[0],
    "permutation": lambda x: jax.random.permutation(key_of(x), 60),
}


@pytest.mark.parametrize("name", LONG)
def test_what_would_be_long_is_left_to_xla_by_its_size(name):
    function, x = LONG[name], np.ones((2, 16, 16))
    out = jax.eval_shape(function, x[0])
    assert not supports(lambda s, x: s + function(x), None, np.zeros((2, *out.shape), out.dtype), x)
