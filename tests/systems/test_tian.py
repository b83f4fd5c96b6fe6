"""Tian's reduced systems: against NumPy and SciPy, against the matrix systems they reduce, and against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.linalg import expm, sqrtm

import jaxdyn as jd
from jaxdyn.analysis.linearise import jacobian
from jaxdyn.systems.eigenspace import AsymmetricEigenspace, SymmetricEigenspace, alignment_matrix, commutator
from jaxdyn.systems.modes import (
    ModeData,
    Modes,
    ModeState,
    PairState,
    Parabola,
    ParabolaState,
    PredictorFreeScalar,
    ScalarNetwork,
    ScalarState,
    TiedScalar,
    mode_integral,
    parabola_points,
)
from jaxdyn.systems.predictor_free import PredictorFree, growth_operator
from jaxdyn.systems.reductions import (
    from_eigenspace,
    from_modes,
    mode_to_scalar,
    scalar_to_mode,
    to_eigenspace,
    to_modes,
)

SIGMA = 0.6
DATA = ModeData.isotropic(SIGMA)
LS, LD = 1 + SIGMA**2, 1.0


def random(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


def close(have, want, atol=1e-10):
    for left, right in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=atol)


def test_modes_match_the_printed_equations():
    p, s, tau = np.array([0.3, -0.2]), np.array([0.5, 0.1]), np.array([0.4, 0.9])
    alpha, eta_s, eta_p, beta = 1.7, 0.03, 0.08, 0.2
    have = Modes((eta_s, eta_p), alpha, ema_rate=beta).field(0.0, ModeState(*map(jnp.asarray, (p, s, tau))), DATA)
    dp = alpha * s * (tau - LS * p) - eta_p * p
    ds = 2 * p * s * (tau - LS * p) - 2 * eta_s * s
    dtau = beta * (1 - tau) - tau * ds / (2 * s)
    close(have, (dp, ds, dtau))
    fixed = Modes((eta_s, eta_p), alpha, teacher_ratio=0.7).field(0.0, ModeState(jnp.asarray(p), jnp.asarray(s)), DATA)
    assert fixed.teacher_ratio is None
    close(fixed.predictor, alpha * s * (0.7 - LS * p) - eta_p * p)


@pytest.mark.parametrize("symmetric", [True, False])
def test_eigenspace_matches_the_printed_equations(symmetric):
    w, g = random(0, (3, 3), (3, 3))
    f = g @ g.T
    alpha, eta_s, eta_p, tau = 1.3, 0.05, 0.02, 0.8
    w = (w + w.T) / 2 if symmetric else w
    system = (SymmetricEigenspace if symmetric else AsymmetricEigenspace)((eta_s, eta_p), alpha, teacher_ratio=tau)
    have = system.field(0.0, system.state(predictor=w, correlation=f), DATA)
    if symmetric:
        dw = -alpha / 2 * LS * (w @ f + f @ w) + alpha * tau * f - eta_p * w
        df = -LS * (w @ w @ f + f @ w @ w) + tau * (w @ f + f @ w) - 2 * eta_s * f
    else:
        dw = -alpha * LS * w @ f + alpha * tau * f - eta_p * w
        df = -LS * (w.T @ w @ f + f @ w.T @ w) + tau * (w.T @ f + f @ w) - 2 * eta_s * f
    close((have.predictor, have.correlation), (dw, df))
    # Tied, with F = W_pᵀ W_p/α_p put in by hand.
    tied = system.field(0.0, system.state(predictor=w), DATA)
    free = system.field(0.0, system.state(predictor=w, correlation=w.T @ w / alpha), DATA)
    close(tied.predictor, free.predictor)
    assert tied.correlation is None


@pytest.mark.parametrize("eta", [(0.1, 0.1), (0.02, 0.3)])
def test_the_commutator_obeys_theorem_3(eta):
    w, g = random(1, (4, 4), (4, 4))
    system = SymmetricEigenspace(eta, 1.6, teacher_ratio=0.7)
    state = system.state(predictor=w + w.T, correlation=g @ g.T)
    pair = lambda s: commutator(s.correlation, s.predictor)  # noqa: E731
    bracket, rate = jax.jvp(pair, (state,), (system.field(0.0, state, DATA),))
    k = alignment_matrix(system, state, DATA)
    close(rate, -(bracket @ k + k @ bracket))


def test_flows_match_scipy():
    system = Modes(0.05, 1.4, ema_rate=0.3)
    start = np.array([0.2, 0.4, 0.1])

    def rate(_, y):
        p, s, tau = y
        ds = 2 * p * s * (tau - LS * p) - 0.1 * s
        return [1.4 * s * (tau - LS * p) - 0.05 * p, ds, 0.3 * (1 - tau) - tau * ds / (2 * s)]

    want = solve_ivp(rate, (0, 20), start, rtol=1e-11, atol=1e-13, method="DOP853").y[:, -1]
    have = jd.flow(system, ModeState(*map(jnp.asarray, start)), DATA, t1=20.0).final
    np.testing.assert_allclose(have, want, atol=1e-6)


def test_full_network_reduces_to_the_eigenspace_flow():
    """T eqs 2-3 with isotropic data and W_a = τW, τ fixed, reduce to the asymmetric flow exactly."""
    w, w_p = (0.5 * part for part in random(2, (3, 4), (3, 3)))
    tau, eta = 0.8, 0.05

    def full_field(t, state, data):  # stop gradient with the teacher held at τW
        held = jd.MovingAverage(eta, 1.3, ema_rate=0.0)
        rate = held.field(
            t, held.state(encoder=state.encoder, predictor=state.predictor, teacher=tau * state.encoder), data
        )
        return type(state)(rate.encoder, rate.predictor)

    moments = jd.Moments(LS * np.eye(4), np.eye(4), LS * np.eye(4))
    start = jd.StopGradient(eta).state(encoder=w, predictor=w_p)
    reduced = AsymmetricEigenspace(eta, 1.3, teacher_ratio=tau)
    late = to_eigenspace(jd.flow(full_field, start, moments, t1=5.0).final)
    begin = to_eigenspace(start)
    direct = jd.flow(reduced, begin, DATA, t1=5.0).final
    close((late.predictor, late.correlation), (direct.predictor, direct.correlation), atol=1e-6)


def test_the_teachers_ratio_is_exact_in_one_dimension():
    """n = m = 1: W_a = τW always, so EMA, (F, W_p, τ), modes and scalars are one system."""
    eta, alpha, beta = 0.03, 1.5, 0.4
    full = jd.MovingAverage(eta, alpha, ema_rate=beta)
    start = full.state(encoder=[[0.6]], predictor=[[0.4]], teacher=[[0.1]])
    moments = jd.Moments([[LS]], [[1.0]], [[LS]])
    end = jd.flow(full, start, moments, t1=10.0).final
    f_end = jd.flow(AsymmetricEigenspace(eta, alpha, ema_rate=beta), to_eigenspace(start), DATA, t1=10.0).final
    modes, basis = to_modes(to_eigenspace(start))
    m_end = jd.flow(Modes(eta, alpha, ema_rate=beta), modes, DATA, t1=10.0).final
    s_end = jd.flow(ScalarNetwork(eta, alpha, ema_rate=beta), mode_to_scalar(modes), DATA, t1=10.0).final
    close(to_eigenspace(end), f_end, atol=1e-6)
    close(to_modes(f_end)[0], m_end, atol=1e-6)
    close(scalar_to_mode(s_end), m_end, atol=1e-6)
    close(from_modes(m_end, basis), f_end, atol=1e-6)
    close(
        tuple(jnp.abs(part[0, 0]) for part in end),
        tuple(jnp.abs(part[0]) for part in (s_end[1], s_end[0], s_end[2])),
        atol=1e-6,
    )


def test_aligned_states_decouple_into_modes():
    (g,) = random(3, (4, 4))
    basis = np.linalg.qr(g)[0]
    modes = ModeState(jnp.array([0.1, 0.5, -0.2, 0.3]), jnp.array([0.4, 0.2, 0.3, 0.05]))
    system, reduced = SymmetricEigenspace(0.04, 1.2, teacher_ratio=0.9), Modes(0.04, 1.2, teacher_ratio=0.9)
    start = from_modes(modes, jnp.asarray(basis))
    end = jd.flow(system, start, DATA, t1=8.0).final
    want = from_modes(jd.flow(reduced, modes, DATA, t1=8.0).final, jnp.asarray(basis))
    close((end.predictor, end.correlation), (want.predictor, want.correlation), atol=1e-6)
    # And the modes can be read off again, in some order.
    have, _ = to_modes(start)
    order, wanted = np.argsort(have.predictor), np.argsort(modes.predictor)
    close(have.correlation[order], modes.correlation[wanted])


def test_states_that_do_not_decouple_are_refused():
    w, g = random(4, (3, 3), (3, 3))
    system = SymmetricEigenspace(0.1)
    with pytest.raises(ValueError, match="predictor: expected a symmetric"):
        to_modes(system.state(predictor=w, correlation=g @ g.T))
    with pytest.raises(ValueError, match="correlation: expected F and W_p to commute"):
        to_modes(system.state(predictor=w + w.T, correlation=g @ g.T))
    with pytest.raises(ValueError, match="teacher_ratio: expected the same"):
        from_modes(ModeState(jnp.ones(2), jnp.ones(2), jnp.array([0.1, 0.2])), jnp.eye(2))


def test_a_network_is_rebuilt_from_its_correlation():
    w, w_p = random(5, (3, 3), (3, 3))
    f = w @ w.T
    state = from_eigenspace(
        AsymmetricEigenspace(0.1, ema_rate=0.2).state(predictor=w_p, correlation=f, teacher_ratio=0.3)
    )
    np.testing.assert_allclose(state.encoder, sqrtm(f), atol=1e-9)
    close(to_eigenspace(state), (w_p, f, 0.3))


@pytest.mark.parametrize("eta", [0.0, 0.1])
def test_exact_integral_of_the_modes(eta):
    system = Modes(eta, 1.8)
    start = ModeState(jnp.array([0.2, 0.9]), jnp.array([0.7, 0.1]))
    times = [0.0, 1.0, 5.0]
    path = jd.flow(system, start, DATA, t1=5.0, ts=times)
    c = jax.vmap(lambda s: mode_integral(system, s))(path.states)
    close(c, np.exp(-2 * eta * np.array(times))[:, None] * np.asarray(c[0]), atol=1e-7)
    # The paper's text gives c_j the other sign; then its eq 14 would not even hold at t = 0.
    printed = start.predictor**2 / 1.8 - start.correlation
    assert np.abs(start.correlation - (start.predictor**2 / 1.8 + printed)).min() > 0.1


def test_parabola_is_the_modes_with_c_zero():
    p0, alpha, eta, beta = jnp.array([0.4, 0.7]), 1.6, 0.05, 0.3
    modes = ModeState(p0, p0**2 / alpha, jnp.array([0.2, 0.3]))
    end = jd.flow(Modes(eta, alpha, ema_rate=beta), modes, DATA, t1=6.0).final
    line = jd.flow(Parabola(eta, alpha, ema_rate=beta), ParabolaState(p0, modes.teacher_ratio), DATA, t1=6.0).final
    close((end.predictor, end.teacher_ratio), (line.predictor, line.teacher_ratio), atol=1e-6)
    close(end.correlation, line.predictor**2 / alpha, atol=1e-6)


def test_equation_15_by_quadrature():
    """τ(t) = β e^{−βt} ∫ p(t′) e^{βt′} dt′ / p(t), from τ(0) = 0, along a solution of the parabola."""
    eta, beta, t1 = 0.02, 0.4, 7.0
    system = Parabola(eta, ema_rate=beta)

    def rate(_, y):
        growth = y[0] * (y[1] - LS * y[0]) - eta
        return [y[0] * growth, beta * (1 - y[1]) - y[1] * growth]

    path = solve_ivp(rate, (0, t1), [0.5, 0.0], dense_output=True, rtol=1e-11, atol=1e-13)
    integral = quad(lambda t: path.sol(t)[0] * np.exp(beta * t), 0, t1, epsabs=1e-11)[0]
    want = beta * np.exp(-beta * t1) * integral / path.y[0, -1]
    have = jd.flow(system, ParabolaState(jnp.array(0.5), jnp.array(0.0)), DATA, t1=t1).final
    np.testing.assert_allclose(have.teacher_ratio, want, atol=1e-7)


@pytest.mark.parametrize(("eta", "tau"), [(0.05, 1.0), (0.02, 0.5), (0.15, 0.95)])
def test_parabola_points_are_roots_with_the_stated_stability(eta, tau):
    points = parabola_points(eta, tau, DATA)
    roots = np.sort(np.roots([-LS, tau, -eta]).real)
    np.testing.assert_allclose(np.array(points), roots, rtol=1e-9)
    system = Parabola(eta, teacher_ratio=tau)
    slopes = [float(jacobian(system, ParabolaState(jnp.array(p)), DATA)[0, 0]) for p in (0.0, *points)]
    assert slopes[0] == pytest.approx(-eta)
    assert slopes[1] > 0 > slopes[2]
    above = parabola_points(1.01 * tau**2 / (4 * LS), tau, DATA)
    assert np.isnan(np.array(above)).all()


def test_scalar_network_matches_one_by_one_matrices():
    data = ModeData(1.3, 0.7)
    system = ScalarNetwork((0.02, 0.05), 1.4, ema_rate=0.6)
    full = jd.MovingAverage((0.02, 0.05), 1.4, ema_rate=0.6)
    state = full.state(encoder=[[0.6]], predictor=[[0.4]], teacher=[[0.1]])
    want = full.field(0.0, state, jd.Moments([[1.3]], [[0.7]]))
    have = system.field(0.0, ScalarState(jnp.array(0.4), jnp.array(0.6), jnp.array(0.1)), data)
    close(have, (want.predictor[0, 0], want.encoder[0, 0], want.teacher[0, 0]))


def test_tied_and_predictor_free_restrictions():
    data, w, w_a = ModeData(1.0, 0.5), jnp.array(0.4), jnp.array(0.2)
    tied = TiedScalar(0.03, ema_rate=0.7).field(0.0, PairState(w, w_a), data)
    full = ScalarNetwork(0.03, ema_rate=0.7).field(0.0, ScalarState(w, w, w_a), data)
    close(full, (tied.encoder, tied.encoder, tied.teacher))  # w_p = w stays
    free = PredictorFreeScalar(0.03, ema_rate=0.7).field(0.0, PairState(w, w_a), data)
    matrix = PredictorFree(0.03, 0.7)
    state = matrix.state(encoder=[[0.4]], teacher=[[0.2]])
    want = matrix.field(0.0, state, jd.Moments([[1.0]], [[0.5]]))
    close(free, (want.encoder[0, 0], want.teacher[0, 0]))


@pytest.mark.parametrize("rate", [None, 0.5])
def test_predictor_free_flow_is_linear(rate):
    moments = jd.Moments.random(jax.random.key(0), 3)
    system = PredictorFree(0.05, rate)
    a, c = random(6, (2, 3), (2, 3))
    start = system.state(encoder=a, teacher=None if rate is None else c)
    end = jd.flow(system, start, moments, t1=2.0).final
    row = a if rate is None else np.concatenate([a, c], 1)
    want = row @ expm(2.0 * np.asarray(growth_operator(system, moments)))
    have = end.encoder if rate is None else jnp.concatenate([end.encoder, end.teacher], 1)
    np.testing.assert_allclose(have, want, atol=1e-7)
    small = jd.descend(system, start, moments, lr=1e-4, steps=20_000).final
    np.testing.assert_allclose(small.encoder, end.encoder, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Modes(-0.1), "weight_decay"),
        (lambda: Modes(0.1, teacher_ratio=-1.0), "teacher_ratio"),
        (lambda: Modes(0.1, ema_rate=-1.0), "ema_rate"),
        (lambda: Parabola((0.1, 0.2)), "weight_decay: the parabola"),
        (lambda: Modes(0.1).field(0.0, ModeState(*jnp.ones((3, 1))), DATA), "teacher_ratio: expected in the state"),
        (lambda: SymmetricEigenspace(0.1, ema_rate=0.1).state(predictor=np.eye(2)), "teacher_ratio"),
        (
            lambda: SymmetricEigenspace(0.1).state(predictor=np.eye(2), correlation=np.eye(3)),
            "correlation: expected shape",
        ),
        (lambda: PredictorFree(0.1).state(encoder=np.eye(2), teacher=np.eye(3)), "teacher: expected shape"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
