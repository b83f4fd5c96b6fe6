"""Branches and collapse thresholds against closed forms and finite differences."""

import jax
import numpy as np
import pytest

import jaxdyn as jd
from jaxdyn.analysis.linearise import Verdict
from jaxdyn.equilibria.census import equilibria
from jaxdyn.equilibria.equations import decay_bound

MOMENTS = ([[1.0, 0.1], [0.1, 1.5]], [[0.8, 0.05], [-0.02, 0.9]])

SG = jd.StopGradient(0.0)


def test_scalar_branch_is_the_closed_form():
    moments = jd.Moments.scalar(1.0, 0.8)
    found = jd.branches(lambda decay: (jd.StopGradient(decay), moments), 0.01, 0.2, start=0.05)
    assert found.sizes["branch"] == 1
    decay, s = found["parameter"].values[0], found["gram"].values[0, :, 0, 0]
    alive = ~np.isnan(decay)
    decay, radius = decay[alive], np.sqrt(s[alive])
    # ρr² − |τ|r + λ = 0 along the whole branch, on both sides of the fold at τ²/(4ρ).
    np.testing.assert_allclose(radius**2 - 0.8 * radius + decay, 0, atol=1e-10)
    assert found["fold"].values[0, alive].sum() == 1
    assert decay.max() == pytest.approx(0.16, rel=1e-3)
    assert {0.0, 1.0} == set(found["n_unstable"].values[0, alive])
    np.testing.assert_array_equal(found["n_unstable"].values[0, alive][radius > 0.41], 0)
    np.testing.assert_array_equal(found["n_unstable"].values[0, alive][radius < 0.39], 1)


def test_branches_go_through_every_census():
    moments = jd.Moments(*MOMENTS)
    found = jd.branches(lambda decay: (jd.StopGradient(decay), moments), 0.01, 0.16, start=0.06)
    assert found.attrs["complete"] == 1
    for decay in (0.02, 0.1, 0.13):
        for item in equilibria(jd.StopGradient(decay), moments):
            if not item.rank:
                continue
            distances = []
            for branch in range(found.sizes["branch"]):
                p, grams = found["parameter"].values[branch], found["gram"].values[branch]
                for i in np.flatnonzero((p[:-1] - decay) * (p[1:] - decay) <= 0):
                    share = (decay - p[i]) / (p[i + 1] - p[i])
                    distances.append(np.linalg.norm(grams[i] + share * (grams[i + 1] - grams[i]) - item.gram))
            assert min(distances) < 1e-3 * (1 + np.trace(item.gram))


def test_any_parameter_can_be_followed():
    """Augmentation strength: isotropic noise of variance σ² moves the fold to σ² = τ²/(4λ) − 1 for unit data."""
    found = jd.branches(lambda sigma: (jd.StopGradient(0.1), jd.Moments.isotropic(1, sigma)), 0.2, 2.0, start=0.5)
    assert np.nanmax(found["parameter"].values) == pytest.approx(np.sqrt(1 / 0.4 - 1), rel=1e-3)


def test_a_hopf_point_over_the_teacher_rate():
    """β changes no equilibrium but its stability: a pair crosses where the census at both ends says so."""
    rng = np.random.default_rng(7)
    for _ in range(14):
        g, r = rng.normal(size=(2, 4)), rng.normal(size=(2, 2))
        xx = g @ g.T / 4
        moments = jd.Moments(xx, 0.7 * r @ xx / np.linalg.norm(r, 2))
        decay = 0.1 * float(decay_bound(moments))
        low, high = (
            [item.n_unstable for item in equilibria(jd.MovingAverage(decay, ema_rate=beta), moments, n=2)]
            for beta in (0.003, 0.3)
        )
        if low != high:
            break
    else:
        pytest.fail("no draw with a Hopf point")
    found = jd.branches(lambda beta: (jd.MovingAverage(decay, ema_rate=beta), moments), 0.003, 0.3, n=2, steps=200)
    crossing = np.flatnonzero(np.nansum(found["hopf"].values, axis=1) > 0)
    assert crossing.size == sum(a != b for a, b in zip(low, high, strict=True))
    grams = found["gram"].values[crossing[0]]
    assert np.nanmax(np.ptp(grams[~np.isnan(grams[:, 0, 0])], axis=0)) < 1e-9


def test_scalar_threshold_and_its_derivative():
    rng = np.random.default_rng(0)
    draws = [(rng.uniform(0.2, 3), rng.uniform(-1, 1)) for _ in range(5)]
    thresholds = jd.collapse_threshold(SG, [jd.Moments.scalar(rho, tau) for rho, tau in draws])
    for (rho, tau), found in zip(draws, thresholds, strict=True):
        assert len(found) == 1
        assert found[0].kind == "fold"
        assert found[0].weight_decay == pytest.approx(tau**2 / (4 * rho), rel=1e-10)
        assert found[0].gradient[0][0, 0] == pytest.approx(-(tau**2) / (4 * rho**2), rel=1e-6)
        assert found[0].gradient[1][0, 0] == pytest.approx(tau / (2 * rho), rel=1e-6)


def test_threshold_of_coupled_modes():
    x, y = (np.array(part) for part in MOMENTS)
    found = jd.collapse_threshold(SG, jd.Moments(x, y))
    assert [each.rank for each in found] == [1, 2]
    assert found[0].weight_decay < float(decay_bound(jd.Moments(x, y)))
    # Stable just below, gone (or not stable) just above.
    for each in found:
        for factor, expected in ((0.999, True), (1.001, False)):
            answer = equilibria(jd.StopGradient(factor * each.weight_decay), jd.Moments(x, y))
            assert any(item.rank == each.rank and item.verdict == Verdict.STABLE for item in answer) == expected
    # Finite differences along a random direction, X symmetric.
    dx, dy, h = np.array([[0.3, 0.2], [0.2, -0.1]]), np.array([[0.1, -0.3], [0.2, 0.4]]), 1e-5
    moved = jd.collapse_threshold(SG, [jd.Moments(x + s * h * dx, y + s * h * dy) for s in (1, -1)])
    for index, each in enumerate(found):
        slope = (moved[0][index].weight_decay - moved[1][index].weight_decay) / (2 * h)
        assert slope == pytest.approx((each.gradient[0] * dx).sum() + (each.gradient[1] * dy).sum(), rel=1e-5)


def test_thresholds_that_do_not_exist():
    assert jd.collapse_threshold(SG, jd.Moments(np.eye(2), np.zeros((2, 2)))) == []
    with pytest.raises(ValueError, match="objective collapses"):
        jd.collapse_threshold(jd.Objective(0.1), jd.Moments.scalar(1.0, 1.0))


@pytest.mark.parametrize("m", [1, 2, 3])
def test_no_equilibrium_above_the_bound(m):
    for seed in range(5):
        moments = jd.Moments.random(jax.random.key(seed), m)
        bound = float(decay_bound(moments))
        x, y = np.asarray(moments.xx), np.asarray(moments.yx)
        values, vectors = np.linalg.eigh(x)
        assert bound == pytest.approx(np.linalg.norm(y @ vectors / np.sqrt(values), 2) ** 2 / 4, rel=1e-12)
        # The pencil alone, which does not know the bound: no real rank-one solution above it.
        from jaxdyn.equilibria.equations import rank_one, reduce

        reduced = reduce(jd.StopGradient(1.0001 * bound), moments)
        kappa, _ = rank_one(np.asarray(reduced.xx), np.asarray(reduced.yx))
        assert (np.abs(np.imag(kappa)) > 1e-9).all()


def test_a_branch_that_is_cut_short_says_so():
    settings = lambda decay: (jd.StopGradient(decay), jd.Moments.scalar(1.0, 0.8))  # noqa: E731
    few, many = (jd.branches(settings, 0.01, 0.2, start=0.05, steps=steps) for steps in (20, 400))
    assert np.nanmax(few["cut_short"].values) == 1
    assert np.nanmax(many["cut_short"].values) == 0


def test_a_frozen_teacher_has_no_threshold():
    with pytest.raises(ValueError, match="ema_rate"):
        jd.collapse_threshold(jd.MovingAverage(0.1, ema_rate=0.0), jd.Moments.scalar(1.0, 0.8))


def test_wrong_ranges():
    settings = lambda decay: (jd.StopGradient(decay), jd.Moments.scalar(1.0, 0.8))  # noqa: E731
    with pytest.raises(ValueError, match="high: expected more"):
        jd.branches(settings, 0.2, 0.1)
    with pytest.raises(ValueError, match="start"):
        jd.branches(settings, 0.1, 0.2, start=0.3)


def test_a_threshold_that_newtons_method_reaches_by_detours():
    """Of these moments some weight decays far ahead are reached and nearer ones are not: that is not the end."""
    found = jd.collapse_threshold(SG, [jd.Moments.random(jax.random.key(seed), 2) for seed in (4, 22, 24)])
    for seed, ends in zip((4, 22, 24), found, strict=True):
        moments = jd.Moments.random(jax.random.key(seed), 2)
        end = next(each for each in ends if each.rank == 2)
        assert end.kind == "fold"
        below, above = (
            equilibria(jd.StopGradient(end.weight_decay * factor), moments).stable for factor in (1 - 1e-6, 1 + 1e-6)
        )
        assert [item.rank for item in below].count(2) > [item.rank for item in above].count(2)


def test_what_could_not_be_followed_is_said(monkeypatch):
    from jaxdyn.equilibria import threshold

    monkeypatch.setattr(threshold, "_FOLLOWED", 2)
    found = jd.collapse_threshold(SG, jd.Moments(*MOMENTS))
    assert {(each.kind, each.complete) for each in found} == {("lost", False)}
