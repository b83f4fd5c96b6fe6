"""Steps that a compiler may get wrong or take for ever over: special numbers, effects, long ones, keys in the state."""

import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import digamma

import jaxdyn as jd
from jaxdyn.engines import choose, xla
from jaxdyn.engines.fused import derived
from jaxdyn.engines.fused import engine as fused
from jaxdyn.engines.fused.expressions import Unsupported
from jaxdyn.status import Status

SPECIAL = np.array([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, np.nan])
FUNCTIONS = {
    "0 − x": lambda xp, x: 0 - x, "x + 0": lambda xp, x: x + 0.0, "x + −0": lambda xp, x: x + -0.0,
    "x − 0": lambda xp, x: x - 0.0, "x − −0": lambda xp, x: x - -0.0, "−0 − x": lambda xp, x: -0.0 - x,
    "0·x": lambda xp, x: 0.0 * x, "−0·x": lambda xp, x: x * -0.0, "1·x": lambda xp, x: x * 1.0,
    "−1·x": lambda xp, x: -1.0 * x, "x/1": lambda xp, x: x / 1.0, "x/4": lambda xp, x: x / 4.0,
    "0/x": lambda xp, x: 0.0 / x, "atan2": lambda xp, x: xp.arctan2(0 - x, -1.0), "x·0 + 1": lambda xp, x: x * 0 + 1,
    "x − x": lambda xp, x: x - x, "mask": lambda xp, x: x * xp.array([0.0, 1.0])[0],
    "max": lambda xp, x: xp.maximum(x, -1.0), "dot": lambda xp, x: 1 + xp.stack([x, x], -1) @ xp.array([0.0, 1.0]),
    "min": lambda xp, x: xp.minimum(1.0, x),
}  # fmt: skip


def seen(xp, value):
    """Which number it is, as a finite one: NaN, the infinities, and −0 have numbers of their own."""
    angle = xp.where(xp.arctan2(value, -xp.ones_like(value)) < 0, -1.0, 1.0)
    named = xp.where(value == 0, angle * 1e6, value)
    named = xp.where(xp.isinf(value), xp.where(value > 0, 2e6, -2e6), named)
    return xp.where(xp.isnan(value), 3e6, named)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_numbers_are_as_in_numpy(name):
    """As IEEE 754 has them; XLA itself takes x + 0 for x."""
    function = FUNCTIONS[name]
    have = jd.descend_ensemble(lambda s, x, lr: 0 * s + seen(jnp, function(jnp, x)), np.zeros(SPECIAL.size), SPECIAL,
                               steps=1, lr=1.0, in_axes=(None, 0, 0), engine="fused")  # fmt: skip
    with np.errstate(all="ignore"):
        want = seen(np, function(np, SPECIAL))
    np.testing.assert_allclose(have.final, want, rtol=3e-16)


@pytest.mark.parametrize(("dtype", "power"), [(np.float32, -140), (np.float64, -1060)])
def test_division_by_a_power_of_two_without_an_inverse(dtype, power):
    divide = lambda s, x, lr: x / np.ldexp(dtype(1), power)  # noqa: E731
    small = np.ldexp(np.ones(3, dtype), power // 4)
    final = jd.descend_ensemble(divide, small, small, steps=1, lr=1.0, in_axes=(None, 0, 0), engine="fused").final
    assert final.dtype == dtype
    assert final.tolist() == [2.0 ** (power // 4 - power)] * 3


def test_effects_are_refused_by_name_and_happen_once_a_step():
    calls = []

    def step(s, data, lr):
        jax.debug.callback(lambda value: calls.append(float(value)), s[0])
        return s * 0.5

    start = np.array([[1.0], [3.0], [5.0]])
    with pytest.raises(NotImplementedError, match=r"an effect \(.*[Dd]ebug.*\) is not supported by the fused engine"):
        jd.descend_ensemble(step, start, None, steps=4, lr=1.0, engine="fused")
    calls.clear()
    jd.descend_ensemble(step, start, None, steps=4, lr=1.0)
    jax.effects_barrier()
    assert sorted(calls) == sorted(x * 0.5**k for x in (1.0, 3.0, 5.0) for k in range(4))


def test_effects_of_rules_are_seen_as_well():
    """Those of `until` and `save`, not of the step alone."""
    seen_by = []

    def until(t, s, data):
        jax.debug.callback(lambda value: seen_by.append(float(value)), s[0])
        return s[0] > 100

    start = np.array([[1.0], [3.0]])
    double = lambda s, data, lr: 2 * s  # noqa: E731
    with pytest.raises(NotImplementedError, match="an effect"):
        jd.descend_ensemble(double, start, None, steps=3, lr=1.0, until=until, engine="fused")
    seen_by.clear()
    jd.descend_ensemble(double, start, None, steps=3, lr=1.0, until=until)
    jax.effects_barrier()
    assert sorted(seen_by) == [2.0, 4.0, 6.0, 8.0, 12.0, 24.0]


def test_zeros_of_a_mask_leave_out_numbers_that_come_later_alone():
    """jnp.eye's zeros times what a trial brings are nothing; with a constant that is no number they are NaN."""

    def of_trial(function, value):
        step = lambda s, x, lr: 0 * s + seen(jnp, function(x))  # noqa: E731
        data = np.full(3, value)
        return jd.descend_ensemble(
            step, np.zeros(3), data, steps=1, lr=1.0, in_axes=(None, 0, 0), engine="fused"
        ).final.tolist()

    assert of_trial(lambda x: (jnp.eye(2) * x)[0, 1], np.inf) == [1e6] * 3
    assert of_trial(lambda x: (jnp.eye(2) / x)[0, 1], 0.0) == [1e6] * 3
    assert of_trial(lambda x: (jnp.eye(2) / jnp.eye(2))[0, 1] + 0 * x, 1.0) == [3e6] * 3
    assert of_trial(lambda x: (jnp.eye(2) * jnp.inf)[0, 1] + 0 * x, 1.0) == [3e6] * 3
    assert of_trial(lambda x: (jnp.eye(2) * jnp.nan)[0, 1] + 0 * x, 1.0) == [3e6] * 3


def coupled_phases(size):
    return lambda s, data, lr: s + lr * (1 + jnp.mean(jnp.sin(s[None] - s[:, None]), 1))


RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(128, 128)) / 12
LONG = {
    "matrix·vector": (lambda s, data, lr: jnp.tanh(jnp.asarray(WEIGHTS) @ s), (128,)),
    "vector·matrix": (lambda s, data, lr: jnp.tanh(s @ jnp.asarray(WEIGHTS)), (128,)),
    "100 phases": (coupled_phases(100), (100,)),
    "solve": (lambda s, data, lr: 0.1 * jnp.linalg.solve(s + 3 * jnp.eye(5), s.T) + jnp.eye(5), (5, 5)),
    "swap": (lambda s, data, lr: s[::-1], (2, 30, 30)),
    "dot": (lambda s, data, lr: s / (1 + jnp.dot(s, s)), (300,)),
}


@pytest.mark.parametrize("name", LONG)
def test_long_steps_are_short_code_and_right(name):
    step, shape = LONG[name]
    start = RNG.normal(size=(5, *shape)) * 0.3
    have = jd.descend_ensemble(step, start, None, steps=3, lr=0.1, engine="fused").final
    want = start
    for _ in range(3):
        want = jax.vmap(lambda s: step(s, None, 0.1))(want)
    np.testing.assert_allclose(have, want, rtol=1e-11, atol=1e-13)
    one = jax.ShapeDtypeStruct(shape, np.float64)
    plain = lambda s, p: step(s, None, p)  # noqa: E731
    arguments = (plain, None, None, fused._Example(one), fused._Example(jax.ShapeDtypeStruct((), np.float64)))
    _, kernel = fused._kernel_of(*arguments, None, fused.tracing())
    assert kernel.lines < fused.PROMPT


def test_what_would_take_long_to_compile_is_not_for_auto(monkeypatch):
    step = lambda s, p: jnp.tanh(jnp.cumsum(jnp.sin(s)))  # noqa: E731
    start = np.ones((2, 20))
    assert choose(step, None, start, np.zeros(2)) == "fused"
    monkeypatch.setattr(fused, "PROMPT", 100)
    assert choose(step, None, start, np.zeros(2)) == "xla"


def test_a_solve_with_several_right_sides_eliminates_once():
    closed, _ = fused.trace(lambda a, b: jnp.linalg.solve(a, b), np.zeros((4, 4)), np.zeros((4, 6)))
    from jaxdyn.engines.fused.expressions import Graph
    from jaxdyn.engines.fused.scalarise import scalarise

    def divisions(columns):
        graph = Graph()
        shapes = ((4, 4), (4, columns))
        inputs = [np.array([graph.input((k, i), "float64") for i in range(np.prod(shape))]).reshape(shape)
                  for k, shape in enumerate(shapes)]  # fmt: skip
        closed, _ = fused.trace(jnp.linalg.solve, *(np.zeros(shape) for shape in shapes))
        (out,) = scalarise(closed, graph, inputs)
        return [graph.nodes[k].op for k in graph.live(out.ravel().tolist())].count("div")

    assert divisions(6) - divisions(1) == 5 * 4  # each row of the right side once
    assert closed is not None


def test_typed_keys_are_refused_in_words():
    with pytest.raises(ValueError, match=r"typed random keys are no numbers; hold jax.random.key_data"):
        jd.descend_ensemble(lambda s, d, lr: s, jax.random.split(jax.random.key(0), 3), None, steps=1, lr=1.0)


def test_unsupported_is_still_said():
    with pytest.raises(Unsupported, match="the primitive digamma"):
        jd.descend_ensemble(lambda s, d, lr: digamma(s), np.ones((2, 4)), None, steps=1, lr=1.0, engine="fused")


@pytest.mark.parametrize("reduce", ["sum", "max", "min", "prod"])
@pytest.mark.parametrize(
    ("shape", "axis"), [((4097,), 0), ((9000,), 0), ((100, 70), None), ((2, 5000), 1), ((5000, 2), 0)]
)
def test_long_sums_are_loops(reduce, shape, axis):
    """Over more terms than are written out: blocks of an axis, and one axis after another."""
    table = 1 + 1e-3 * np.random.default_rng(0).normal(size=shape)
    start, factors = np.zeros((3, *np.sum(table, axis).shape)), np.array([1.0, 1.0005, 0.9995])
    step = lambda s, x, lr: 0 * s + getattr(jnp, reduce)(x * jnp.asarray(table), axis=axis)  # noqa: E731
    have = jd.descend_ensemble(step, start, factors, steps=1, lr=1.0, in_axes=(None, 0, 0), engine="fused").final
    want = np.stack([getattr(np, reduce)(x * table, axis=axis) for x in factors])
    np.testing.assert_allclose(have, want, rtol=1e-11)


def test_what_cannot_be_compiled_is_found_out_once(monkeypatch):
    """And "auto" runs it under xla, with as many lanes as its largest array lets fit into memory."""
    tried, build = [], fused.build
    monkeypatch.setattr(fused, "build", lambda *inputs: tried.append(1) or build(*inputs))
    table = np.random.default_rng(0).normal(size=20_000)
    step = lambda s, x, lr: s + jnp.sort(s[0] * jnp.asarray(table))[:2]  # noqa: E731
    for _ in range(3):
        end = jd.descend_ensemble(step, np.ones((2, 2)), None, steps=1, lr=1.0).final
        np.testing.assert_allclose(end, 1 + np.sort(table)[[[0, 1]] * 2], rtol=1e-12)
    assert len(tried) == 1


WHOLE = {
    "//": lambda x, y: x // y, "%": lambda x, y: x % y, "div": jax.lax.div, "rem": jax.lax.rem,
    "<<": jax.lax.shift_left, ">>": jax.lax.shift_right_arithmetic, ">>>": jax.lax.shift_right_logical,
    "divmod": lambda x, y: jnp.add(*jnp.divmod(x, y)),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint32", "uint64"])
def test_whole_numbers_are_divided_and_shifted_as_by_xla(name, dtype):
    """By zero, by −1 and by more bits than there are as well, where hardware traps or languages say nothing."""
    ends = np.iinfo(dtype)
    special = np.array([0, 1, 2, 3, 7, 8, 31, 64, 100, ends.max, ends.max - 1, ends.min, ends.min + 1], dtype)
    special = np.concatenate([special, -special]) if ends.min else special
    x, y = (part.ravel() for part in np.meshgrid(special, special))
    function = lambda x, y: WHOLE[name](x, y)  # noqa: E731
    step = lambda s, xy, lr: 0 * s + function(*xy).astype(jnp.float64)  # noqa: E731
    have = jd.descend_ensemble(step, np.zeros(x.size), (x, y), steps=1, lr=1.0, in_axes=(None, 0, 0), engine="fused")
    want = np.asarray(jax.jit(jax.vmap(function))(x, y))
    np.testing.assert_array_equal(have.final, want.astype(np.float64))


@pytest.mark.parametrize("name", ["copysign", "signbit", "frexp", "bits"])
def test_bits_of_numbers_are_looked_at(name):
    """What reads a number's bits: signs of zeros, exponents."""
    functions = {
        "copysign": lambda x: jnp.copysign(2.5, x),
        "signbit": lambda x: jnp.signbit(x) * 1.0, "frexp": lambda x: jnp.frexp(x)[0] + jnp.frexp(x)[1],
        "bits": lambda x: (jax.lax.bitcast_convert_type(x, jnp.int64) >> 40).astype(jnp.float64),
    }  # fmt: skip
    values = np.array([0.0, -0.0, 1.5, -3.25e-5, 7e300, -1e-300])
    step = lambda s, x, lr: 0 * s + functions[name](x)  # noqa: E731
    have = jd.descend_ensemble(step, np.zeros(6), values, steps=1, lr=1.0, in_axes=(None, 0, 0), engine="fused").final
    np.testing.assert_array_equal(have, np.asarray(jax.jit(jax.vmap(functions[name]))(values)))


def test_zeros_of_masks_are_numbers_once_they_are_whole():
    step = lambda s, x, lr: 0 * s + (jnp.eye(2).astype(jnp.int32)[0] // x).astype(float)  # noqa: E731
    x = np.array([[0, 0], [2, -3]], np.int32)
    have = jd.descend_ensemble(step, np.zeros((2, 2)), x, steps=1, lr=1.0, in_axes=(None, 0, 0), engine="fused").final
    assert have.tolist() == [[-2.0, -1.0], [0.0, 0.0]]  # as under XLA


def test_refusals_keep_nothing_of_the_runs_they_refused():
    step = lambda s, x: digamma(s)  # noqa: E731
    seen_by = []
    for _ in range(3):
        with pytest.raises(Unsupported, match="digamma") as refused:
            fused.run(step, None, np.ones((2, 3)), np.zeros(2), 1)
        seen_by.append(refused.value)
    assert len({id(each) for each in seen_by}) == 3
    assert len({len(list(traceback.walk_tb(each.__traceback__))) for each in seen_by[1:]}) == 1


def test_what_trials_share_takes_no_lanes():
    """A trial's own largest array says how many lanes fit, not a constant matrix."""
    matrix, states = np.ones((300, 300)), np.zeros((4, 300))
    shared = lambda s, x: jnp.tanh(jnp.asarray(matrix) @ s)  # noqa: E731
    own = lambda s, x: jnp.sum(jnp.sin(s[:, None] * s), 1)  # noqa: E731
    late = lambda s, x, new: jnp.sum(s[:, None] * s) > 1  # noqa: E731
    assert xla._traits((shared, None, None), states, np.zeros(4)) == (False, False, 300)
    assert xla._traits((own, None, None), states, np.zeros(4)).largest == 90_000
    assert xla._traits((shared, late, None), states, np.zeros(4)).largest == 90_000
    assert [stage.width for stage in xla._stages("cpu", 300)] == [512, 128, 32]
    assert [stage.width for stage in xla._stages("cpu", 90_000)] == [11, 11, 11]


def test_large_constants_are_xlas_at_once(monkeypatch):
    """Written as text they would take seconds, before anything is decided."""
    table = np.linspace(0, 1, 200_000)
    step = lambda s, p: 0.9 * s + jnp.sum(jnp.asarray(table) * s)  # noqa: E731
    monkeypatch.setattr(fused, "build", lambda *_: pytest.fail("nothing is to be written"))
    assert choose(step, None, np.ones(3), np.zeros(3)) == "xla"
    with pytest.raises(Unsupported, match=r"constants of 200,000 numbers \(more than 65,536\)"):
        fused.run(step, None, np.ones(3), np.zeros(3), 1)
    inner = jax.jit(lambda s: s * jnp.asarray(table)[s.astype(int)])
    assert choose(lambda s, p: inner(s), None, np.ones(3), np.zeros(3)) == "xla"


@pytest.mark.parametrize("n", [5, 9, 12])
def test_a_solve_needs_none_of_the_factors_jax_prepares(n):
    """Nor takes it time for them; beyond eight rows the engine has no factors."""
    rng = np.random.default_rng(n)
    matrices, right = rng.normal(size=(4, n, n)) + 3 * np.eye(n), rng.normal(size=(4, n))
    seen = []
    make = derived.DERIVED["lu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(derived.DERIVED, "lu", lambda **options: seen.append(1) or make(**options))
        have = fused.run(lambda s, a: jnp.linalg.solve(a, s), None, right, matrices, 1).states
    np.testing.assert_allclose(have, np.linalg.solve(matrices, right[..., None])[..., 0], rtol=1e-11)
    assert not seen
    assert choose(lambda s, a: jnp.linalg.solve(a, s), None, right, matrices) == "fused"


def test_what_is_not_used_need_not_be_compiled():
    """A factorisation that is too large, of whose outputs nothing is used."""
    both = jax.jit(lambda a: (jax.scipy.linalg.lu(a)[0], 2 * a[0]))
    start = np.random.default_rng(0).normal(size=(2, 12, 12))
    have = fused.run(lambda s, p: s + both(s)[1], None, start, np.zeros(2), 1).states
    np.testing.assert_array_equal(have, start + 2 * start[:, :1])


def test_a_loop_of_a_trial_that_has_diverged_is_not_begun_again():
    """Of a fixed number of steps most are not looked at one by one; halving infinity has no end."""
    halved = lambda z: jax.lax.while_loop(lambda z: z > 1, lambda z: z / 2, z)  # noqa: E731
    step = lambda s, x, lr: jnp.exp(1000 * halved(s))  # noqa: E731
    for plain, blocks in (((lambda s, p: 0.5 * s), True), ((lambda s, p: step(s, p, 1.0)), False)):
        one = fused._Example(jax.ShapeDtypeStruct((), np.float64))
        _, kernel = fused._kernel_of(plain, None, None, one, one, None, fused.tracing())
        assert ("\nquick:" in kernel.text) == blocks
    for engine in ("xla", "fused"):
        end = jd.descend_ensemble(step, np.array([1.0, -1.0]), None, steps=40, lr=1.0, engine=engine)
        assert end.status.tolist() == [Status.DIVERGED, Status.DIVERGED]
        assert end.n_steps.tolist() == [0, 2]
