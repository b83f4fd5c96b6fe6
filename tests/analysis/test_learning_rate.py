"""Stability of procedures under optimizers: by linearisation against runs, closed forms and doubts in words."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd

with jax.enable_x64(True):
    MOMENTS = jd.Moments([[1.0, 0.1], [0.1, 1.5]], [[0.8, 0.05], [-0.02, 0.9]])

OPTIMIZERS = {
    "plain": None,
    "momentum": lambda lr: optax.sgd(lr, momentum=0.8),
    "nesterov": lambda lr: optax.sgd(lr, momentum=0.8, nesterov=True),
}


def stable_states(count):
    """Stable equilibria of SG and EMA on random moments, full rank and partial ones."""
    found = []
    for seed in range(count):
        moments = jd.Moments.random(jax.random.key(seed), 1 + seed % 2)
        decay = 0.1 * float(jd.decay_bound(moments))
        system = jd.StopGradient(decay) if seed % 3 else jd.MovingAverage(decay, ema_rate=0.05)
        stable = [item for item in jd.equilibria(system, moments).stable if item.rank]
        found += [(system, item.state, moments) for item in stable[-1:]]
    return found


def runs_return(system, state, moments, lr, optimizer, steps=4000):
    """Whether the procedure comes back to the equilibrium's orbit from a small nudge."""
    keys = iter(jax.random.split(jax.random.key(1), 3))
    nudged = jax.tree.map(lambda leaf: leaf + 1e-7 * jax.random.normal(next(keys), leaf.shape), state)
    end = jd.descend(system, nudged, moments, lr=lr, steps=steps, optimizer=optimizer)
    gram = np.asarray(jd.gram(state))
    off = np.linalg.norm(np.asarray(jd.gram(end.final)) - gram) / np.linalg.norm(gram)
    return int(end.status) == jd.Status.COMPLETED and off < 1e-6


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_largest_learning_rates_agree_with_runs(name):
    for system, state, moments in stable_states(4):
        limit = jd.largest_lr(system, state, moments, optimizer=OPTIMIZERS[name])
        assert runs_return(system, state, moments, 0.99 * limit, OPTIMIZERS[name])
        assert not runs_return(system, state, moments, 1.01 * limit, OPTIMIZERS[name])


def test_heavy_ball_bears_the_textbooks_factor():
    """For real eigenvalues −μ: plain 2/μ, heavy ball 2(1 + β)/μ (Polyak 1964)."""
    system = jd.StopGradient(0.05)
    state = jd.equilibria(system, MOMENTS).stable[-1].state
    plain = jd.largest_lr(system, state, MOMENTS)
    heavy = jd.largest_lr(system, state, MOMENTS, optimizer=OPTIMIZERS["momentum"])
    assert heavy / plain == pytest.approx(1.8, rel=1e-9)
    top = -np.linalg.eigvals(np.asarray(jd.jacobian(system, state, MOMENTS))).real.min()
    assert plain == pytest.approx(2 / top, rel=1e-9)


def test_multipliers_with_momentum_solve_their_quadratic():
    """Each rate μ of the flow gives z² − (1 + β + lr·μ) z + β = 0; the orbit's zeros give 1 and β."""
    system, lr, momentum = jd.StopGradient(0.05), 0.3, 0.8
    state = jd.equilibria(system, MOMENTS).stable[-1].state
    rates = np.linalg.eigvals(np.asarray(jd.jacobian(system, state, MOMENTS)))
    want = np.concatenate([np.roots([1, -(1 + momentum + lr * rate), momentum]) for rate in rates])
    found = jd.linearise(system, state, MOMENTS, lr=lr, optimizer=OPTIMIZERS["momentum"])
    assert int(found.verdict) == jd.Verdict.STABLE
    assert int(found.orbit_dim) == 3
    have = np.asarray(found.eigenvalues)
    distance = np.abs(have[:, None] - want[None])
    assert distance.min(0).max() < 1e-6
    assert distance.min(1).max() < 1e-6


def test_a_census_gives_the_procedures_verdicts():
    found = jd.equilibria(jd.StopGradient(0.05), MOMENTS, lr=4.0, optimizer=OPTIMIZERS["momentum"])
    assert found[-1].procedure is not None
    assert int(found[-1].procedure.verdict) == jd.Verdict.STABLE  # plain steps of that size are not
    plain = jd.equilibria(jd.StopGradient(0.05), MOMENTS, lr=4.0)
    assert plain[-1].procedure is not None
    assert int(plain[-1].procedure.verdict) == jd.Verdict.SADDLE
    with pytest.raises(ValueError, match="lr: an optimizer trains in steps"):
        jd.equilibria(jd.StopGradient(0.05), MOMENTS, optimizer=OPTIMIZERS["momentum"])
    for lr in (0.0, -0.05, float("nan")):
        with pytest.raises(ValueError, match="lr: expected a number > 0"):
            jd.equilibria(jd.StopGradient(0.05), MOMENTS, lr=lr)
    with pytest.raises(ValueError, match="ema_rate: expected ema_rate"):
        jd.equilibria(jd.MovingAverage(0.05, ema_rate=5.0), MOMENTS, lr=1.0)


def test_adam_at_rest_is_said_in_words():
    system = jd.StopGradient(0.05)
    state = jd.equilibria(system, MOMENTS).stable[-1].state
    found = jd.linearise(system, state, MOMENTS, lr=0.01, optimizer=optax.adam)
    assert int(found.verdict) == jd.Verdict.UNDETERMINED
    assert "no finite derivative" in str(found)
    with pytest.raises(ValueError, match=r"no learning rate can be said: .*no finite derivative"):
        jd.largest_lr(system, state, MOMENTS, optimizer=optax.adam)


def test_an_optimizer_deaf_to_its_learning_rate_is_refused():
    system = jd.MovingAverage(0.05, ema_rate=0.05)
    state = jd.equilibria(system, MOMENTS).stable[-1].state
    with pytest.raises(ValueError, match="optimizer: its steps do not depend on the learning rate"):
        jd.largest_lr(system, state, MOMENTS, optimizer=lambda lr: optax.sgd(0.1))
    warm = lambda lr: optax.sgd(optax.linear_schedule(0.0, lr, 100))  # noqa: E731  (its first step is zero)
    plain = jd.largest_lr(system, state, MOMENTS)
    assert jd.largest_lr(system, state, MOMENTS, optimizer=warm) == pytest.approx(plain, rel=1e-6)


def test_a_traced_rate_beyond_the_teachers_is_no_procedure():
    """ema_rate·lr > 1 is refused where it is seen, and NaN where it is traced."""
    system = jd.MovingAverage(0.05, ema_rate=2.0)
    state = jd.equilibria(system, MOMENTS).stable[-1].state
    rates = jnp.array([0.1, 0.5, 0.6])
    found = jax.vmap(lambda lr: jd.linearise(system, state, MOMENTS, lr=lr))(rates)
    assert np.asarray(found.doubt).tolist() == [jd.Doubt.NONE] * 2 + [jd.Doubt.NOT_FINITE]
    ended = jax.vmap(lambda lr: jd.descend(system, state, MOMENTS, lr=lr, steps=3).status)(rates)
    assert np.asarray(ended).tolist() == [jd.Status.COMPLETED] * 2 + [jd.Status.DIVERGED]


def test_what_is_no_equilibrium_gets_no_verdict():
    system = jd.StopGradient(0.05)
    state = jd.equilibria(system, MOMENTS).stable[-1].state
    cases = {
        jd.Doubt.NO_EQUILIBRIUM: jax.tree.map(lambda leaf: 1.01 * leaf, state),
        jd.Doubt.NOT_FINITE: jax.tree.map(lambda leaf: leaf.at[0, 0].set(jnp.nan), state),
    }
    for doubt, wrong in cases.items():
        found = jd.linearise(system, wrong, MOMENTS)
        assert (int(found.verdict), int(found.doubt)) == (jd.Verdict.UNDETERMINED, doubt)
    lost = jax.jit(lambda lr: jd.linearise(system, state, MOMENTS, lr=lr))(float("nan"))
    assert (int(lost.verdict), int(lost.doubt)) == (jd.Verdict.UNDETERMINED, jd.Doubt.NOT_FINITE)
    with pytest.raises(ValueError, match="lr: expected a number > 0, got nan"):
        jd.linearise(system, state, MOMENTS, lr=float("nan"))
    with pytest.raises(ValueError, match="zero_tolerance"):
        jd.linearise(system, state, MOMENTS, zero_tolerance=float("nan"))


def test_a_broken_symmetry_is_not_divided_out():
    """SG plus 0.05·(0, a₂) on the encoder is not equivariant: an eigenvalue grows along the former orbit."""
    plain, moments = jd.StopGradient(0.09), jd.Moments.scalar(1.0, 1.0)

    class Pulled(jd.StopGradient):
        def field(self, t, state, moments):
            rate = super().field(t, state, moments)
            return rate._replace(encoder=rate.encoder + 0.05 * jnp.array([[0.0], [1.0]]) * state.encoder)

    a = jnp.array([[0.9], [0.0]])
    state = plain.state(encoder=a, predictor=jnp.outer(a, a) / (0.81 + 0.09))
    assert int(jd.linearise(plain, state, moments).verdict) == jd.Verdict.STABLE
    found = jd.linearise(Pulled(0.09), state, moments)
    assert int(found.verdict) == jd.Verdict.UNDETERMINED
    assert int(found.doubt) == jd.Doubt.NO_SYMMETRY
    bare = jd.linearise(Pulled(0.09).field, state, moments)
    assert int(bare.verdict) == jd.Verdict.SADDLE
