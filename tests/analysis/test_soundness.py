"""Verdicts on systems that the analysis has not seen: planted equilibria, symmetries, kinks; right or undetermined."""

import importlib
from collections import Counter
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdyn as jd
from jaxdyn.analysis.linearise import linearise

SIZE = 5


def planted(seed, kind):
    """A polynomial field's numbers with an equilibrium at y*, whose Jacobian has chosen eigenvalues; and the truth."""
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.05, 2, SIZE) * rng.choice([-1, 1], SIZE) if kind == "any" else -rng.uniform(0.05, 2, SIZE)
    a = np.diag(rates)
    if kind != "any" or seed % 2:
        a[:2, :2] = [[rates[0], 1.5], [-1.5, rates[0]]]  # a pair
    if kind == "jordan":
        a = rng.choice([0.0, -1e-6, -0.5]) * np.eye(SIZE) + np.eye(SIZE, k=1)
    frame = rng.normal(size=(SIZE, SIZE))
    if kind == "ill":
        frame = np.linalg.qr(frame)[0] @ np.diag(10.0 ** np.linspace(0, 12, SIZE)) @ np.linalg.qr(frame.T)[0]
    a = frame @ a @ np.linalg.inv(frame)
    if kind == "scaled":
        scales = 10.0 ** rng.uniform(-2, 2, SIZE)
        a = scales[:, None] * a / scales
    bend = 0.3 * rng.normal(size=(SIZE, SIZE, SIZE))
    place = rng.normal(size=SIZE)
    return jnp.array(a), jnp.array(bend), jnp.array(place)


def field(t, y, data):
    a, bend, place = data
    off = y - place
    return a @ off + jnp.einsum("ijk,j,k->i", bend, off, off)


def step(y, data, lr):
    return y + lr * field(0.0, y, data)


def exact_count(a, lr=None):
    """Growing eigenvalues in long arithmetic."""
    import flint

    matrix = flint.acb_mat([[float(x) for x in row] for row in np.asarray(a)])
    with flint.ctx.workprec(600):
        values = matrix.eig(algorithm="approx")
        sizes = [float((1 + lr * z).abs_lower().mid()) - 1 if lr else float(z.real.mid()) for z in values]
    return sum(size > 0 for size in sizes)


@pytest.mark.parametrize("kind", ["any", "stable", "scaled", "ill", "jordan"])
def test_planted_equilibria_are_never_judged_wrongly(kind):
    """100 each of a flow and its procedure, against eigenvalues in 600 bits."""
    cases = [planted(seed, kind) for seed in range(100)]
    data = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)
    flows = jax.jit(jax.vmap(lambda d: linearise(field, d[2], d)))(data)
    steps = jax.jit(jax.vmap(lambda d: linearise(step, d[2], d, lr=0.1)))(data)
    tally = Counter()
    for found, lr in ((flows, None), (steps, 0.1)):
        for case, count, verdict in zip(cases, found.n_unstable, found.verdict, strict=True):
            if int(verdict) == jd.Verdict.UNDETERMINED:
                tally["undetermined"] += 1
            else:
                tally["right" if int(count) == exact_count(case[0], lr) else "wrong"] += 1
    assert tally["wrong"] == 0, tally
    assert tally["right"] >= {"ill": 0, "jordan": 50}.get(kind, 200), tally


@pytest.mark.parametrize("shift", [1e-3, 1e-2, 0.3])
def test_a_place_beside_the_equilibrium_is_none(shift):
    data = planted(3, "any")
    found = linearise(field, data[2] + shift, data)
    assert (int(found.verdict), int(found.doubt)) == (jd.Verdict.UNDETERMINED, jd.Doubt.NO_EQUILIBRIUM)


@pytest.mark.parametrize(
    "rate",
    [
        lambda t, y, p: jnp.array([-1e6 * y[0], -y[1] + 0.1]),  # rests a tenth away; the other direction is stiff
        lambda t, y, p: jnp.array([-1e6 * y[0], -((y[1] - 1e-3) ** 2) - 1e-7]),  # a ghost: no equilibrium at all
    ],
)
def test_a_stiff_direction_hides_no_residual(rate):
    assert int(linearise(rate, jnp.zeros(2), None).doubt) == jd.Doubt.NO_EQUILIBRIUM


def test_a_stiff_direction_hides_no_kink():
    bent = lambda t, y, p: jnp.array([-1e4 * y[0], jnp.abs(y[1]) - 0.5 * y[1]])  # noqa: E731
    assert int(linearise(bent, jnp.zeros(2), None).doubt) == jd.Doubt.NOT_SMOOTH
    curved = lambda t, y, p: jnp.array([-1e4 * y[0], -y[1] + 1e6 * y[1] ** 2])  # noqa: E731  (smooth, strongly bent)
    assert int(linearise(curved, jnp.zeros(2), None).verdict) == jd.Verdict.STABLE


@pytest.mark.parametrize("rate", [lambda t, y, p: -y + t, lambda t, y, p: -y * jnp.cos(t)])
def test_fields_that_change_with_time_have_no_verdict(rate):
    found = linearise(rate, jnp.zeros(2), None)
    assert (int(found.verdict), int(found.doubt)) == (jd.Verdict.UNDETERMINED, jd.Doubt.NOT_AUTONOMOUS)


def turned(t, y, extra):
    """A ring of equilibria |y| = 1, plus `extra` along it where y ≠ (1, 0)."""
    radius, angle = jnp.linalg.norm(y), jnp.arctan2(y[1], y[0])
    return (1 - radius) * y / radius + extra(angle) * jnp.array([-y[1], y[0]])


around = lambda y: jnp.array([[-y[1], y[0]]])  # noqa: E731


@pytest.mark.parametrize("extra", [lambda a: 5 * a**3, lambda a: 1e-7 * a, lambda a: -0.01 * a])
def test_symmetries_that_break_beyond_first_order_are_not_divided_out(extra):
    place = jnp.array([1.0, 0.0])
    whole = linearise(lambda t, y, p: turned(t, y, lambda a: 0 * a), place, None, directions=around)
    assert (int(whole.verdict), int(whole.orbit_dim)) == (jd.Verdict.STABLE, 1)
    broken = linearise(lambda t, y, p: turned(t, y, extra), place, None, directions=around)
    assert (int(broken.verdict), int(broken.doubt)) == (jd.Verdict.UNDETERMINED, jd.Doubt.NO_SYMMETRY)
    step = lambda y, data, lr: y + lr * turned(0.0, y, extra)  # noqa: E731
    stepped = linearise(step, place, None, lr=0.1, directions=around)
    assert int(stepped.doubt) == jd.Doubt.NO_SYMMETRY


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: linearise(lambda t, y, p: -y.T, jnp.zeros((2, 3)), None), "rate like the state"),
        (lambda: linearise(lambda t, y, p: jnp.sum(y), jnp.zeros(2), None), "rate like the state"),
        (lambda: jd.jacobian(lambda t, y, p: -y.T, jnp.zeros((2, 3)), None), "rate like the state"),
        (lambda: linearise(lambda y, p, lr: y[:1], jnp.zeros(2), None, lr=0.1), "state like its argument"),
        (lambda: linearise(lambda t, y, p: -y, np.array([1j]), None), "expected floating"),
        (lambda: linearise(lambda t, y, p: -y, jnp.zeros(0), None), "state"),
        (lambda: linearise(lambda t, y, p: -y, jnp.zeros(2), None, directions="rotations"), "directions"),  # type: ignore[arg-type]
        (lambda: linearise(lambda t, y, p: -y, jnp.zeros(2), None, directions=lambda y: y), "directions"),
        (lambda: linearise(jd.StopGradient, jnp.zeros(2), None), "system"),  # type: ignore[arg-type]
    ],
)
def test_what_does_not_fit_is_refused_by_name(call, word):
    with pytest.raises(ValueError, match=word):
        call()


@pytest.mark.parametrize("numbers", [{"lr": -0.1}, {"zero_tolerance": np.nan}, {"zero_tolerance": -1.0}])
def test_traced_numbers_that_make_no_sense_decide_nothing(numbers):
    name, value = numbers.popitem()
    rate = (lambda y, p, lr: 0.5 * y) if name == "lr" else (lambda t, y, p: -y)
    found = jax.vmap(lambda number: linearise(rate, jnp.zeros(2), None, **{name: number}))(jnp.array([value]))  # type: ignore[arg-type]
    assert int(np.asarray(found.doubt)[0]) == jd.Doubt.NOT_FINITE


class Slope(eqx.Module):
    """A user's module whose field refers to what may change."""

    table: dict = eqx.field(static=True)

    def field(self, t, y, data):
        return self.table["rate"] * y

    def __hash__(self):
        return id(self)


def test_a_users_module_is_judged_by_what_it_means_now():
    table = {"rate": -1.0}
    system = Slope(table)
    for rate, verdict in ((-1.0, jd.Verdict.STABLE), (1.0, jd.Verdict.REPELLER), (-1.0, jd.Verdict.STABLE)):
        table["rate"] = rate
        assert int(linearise(system, jnp.zeros(2), None).verdict) == verdict


def test_other_learning_rates_are_not_compiled_anew():
    system, data = jd.StopGradient(0.05), jd.Moments.scalar(1.0, 0.9)
    state = system.state(encoder=np.zeros((2, 1)), predictor=np.zeros((2, 2)))
    assert int(linearise(system, state, data, lr=0.1).verdict) == jd.Verdict.STABLE
    compiled: Any = importlib.import_module("jaxdyn.analysis.linearise")._compiled
    before = compiled._cached._cache_size()
    for lr in (0.2, 0.3):
        assert int(linearise(system, state, data, lr=lr).verdict) == jd.Verdict.STABLE
    assert int(linearise(system, state, data, lr=50.0).verdict) == jd.Verdict.REPELLER
    assert compiled._cached._cache_size() == before
