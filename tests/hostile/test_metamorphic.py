"""Problems whose answers are known from one another: turned, scaled and put together, on moments drawn at random.

Scaling: with X → eX, Y → dY the systems are themselves again for A, C → (d/e) A, C, B → (d/e) B, time → time·d²/e: from
R = B A X − C Y by hand. Weight decays and the teacher's rate go with 1/time; S = AᵀA with (d/e)². Powers of two are
exact in floating point. Answers are right, undetermined (said to be) or wrong, and wrong ones must not be.
"""

import jax
import numpy as np
import pytest

import jaxdyn as jd

TURNED, SCALED = "turned", "scaled"
FACTORS = [(1.0, 4.0), (2.0, 1.0), (0.5, 2.0)]  # (d, e)


def draws(count, m):
    """Random realisable moments without symmetry."""
    return [jd.Moments.random(jax.random.key(100 * m + k), m) for k in range(count)]


def turned(moments, seed):
    """The same problem in other coordinates of the inputs; and the rotation."""
    m = moments.xx.shape[0]
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(m, m)))[0]
    return jd.Moments(q @ moments.xx @ q.T, q @ moments.yx @ q.T), q


def scaled(moments, d, e):
    return jd.Moments(e * np.asarray(moments.xx), d * np.asarray(moments.yx))


@pytest.mark.parametrize(("m", "count"), [(1, 8), (2, 20)])
def test_thresholds_follow_turns_and_scales(m, count):
    """A hundred problems related to `count`, in one call; and two separate problems put side by side."""
    plain, related = draws(count, m), []
    for k, moments in enumerate(plain):
        related += [(turned(moments, k)[0], 1.0), *((scaled(moments, d, e), d**2 / e) for d, e in FACTORS)]
    found = jd.collapse_threshold(jd.StopGradient(0.0), [*plain, *(moments for moments, _ in related)])
    right = undetermined = wrong = 0
    for k, (_, rate) in enumerate(related):
        want, have = ({each.rank: each.weight_decay for each in found[place]} for place in (k // 4, count + k))
        for rank in want.keys() | have.keys():
            if rank not in want or rank not in have:
                undetermined += 1
            elif have[rank] == pytest.approx(rate * want[rank], rel=1e-6):
                right += 1
            else:
                wrong += 1
    assert wrong == 0
    assert undetermined <= 0.02 * right
    assert right >= 4 * count


def test_thresholds_of_problems_side_by_side():
    """Block-diagonal moments: the largest thresholds of rank one are those of the blocks, τ²/(4ρ)."""
    rng = np.random.default_rng(0)
    rho, tau = rng.uniform(0.5, 2, (20, 2)), rng.uniform(0.3, 1, (20, 2)) * rng.choice([-1, 1], (20, 2))
    many = [turned(jd.Moments(np.diag(r), np.diag(t)), k)[0] for k, (r, t) in enumerate(zip(rho, tau, strict=True))]
    for found, r, t in zip(jd.collapse_threshold(jd.StopGradient(0.0), many), rho, tau, strict=True):
        bounds = sorted(t**2 / (4 * r))
        by_rank = {each.rank: each.weight_decay for each in found}
        assert by_rank[1] == pytest.approx(bounds[1], rel=1e-6)
        if 2 in by_rank:
            assert by_rank[2] == pytest.approx(bounds[0], rel=1e-6)


@pytest.mark.parametrize("system", ["sg", "ema"])
def test_equilibria_follow_turns_and_scales(system):
    """S, rank, number of growing directions and verdict of every equilibrium; m = 2, 15 draws, 60 relatives."""
    plain, related = draws(15, 2), []
    for k, moments in enumerate(plain):
        other, q = turned(moments, k)
        related += [(other, 1.0, 1.0, q), *((scaled(moments, d, e), d**2 / e, d / e, np.eye(2)) for d, e in FACTORS)]

    def made(moments, share, rate):
        decay = share * float(jd.decay_bound(moments))
        return jd.StopGradient(decay) if system == "sg" else jd.MovingAverage(decay, ema_rate=0.1 * rate)

    found = jd.census([made(moments, 0.3, 1.0) for moments in plain], plain, n=3)
    again = jd.census([made(moments, 0.3, rate) for moments, rate, _, _ in related], [each[0] for each in related], n=3)
    right = undetermined = wrong = 0
    for k, (_, _, size, q) in enumerate(related):
        want, have = found[k // 4], again[k]
        if not (want.complete and have.complete):
            undetermined += 1
            continue
        told = [{(item.rank, int(item.n_unstable), int(item.verdict)): np.asarray(item.gram) for item in each}
                for each in (want, have)]  # fmt: skip
        same = told[0].keys() == told[1].keys() and all(
            np.allclose(told[1][key], size**2 * q @ gram @ q.T, rtol=1e-6, atol=1e-9) for key, gram in told[0].items()
        )
        right, wrong = right + same, wrong + (not same)
    assert wrong == 0
    assert undetermined <= 2
    assert right >= 58


@pytest.mark.parametrize("system", ["sg", "ema"])
def test_basins_follow_scales_trial_by_trial(system):
    """The same random numbers, scaled by powers of two, end at the scaled equilibrium; 6 problems × 3 scales × 64."""
    right = undetermined = wrong = 0
    for moments in draws(6, 2):
        ends = []
        for d, e in [(1.0, 1.0), *FACTORS]:
            rate, size = d**2 / e, d / e
            decay = rate * 0.3 * float(jd.decay_bound(moments))
            made = jd.StopGradient(decay) if system == "sg" else jd.MovingAverage(decay, ema_rate=0.1 * rate)
            problem = jd.Given(made, scaled(moments, d, e), lr=0.05 / rate)
            law = f"uniform({-1.5 * size}, {1.5 * size})"
            found = jd.run_trials(problem, 64, starts=jd.Starts(encoder=law, predictor=law),
                                  stopping=jd.Stopping(max_steps=100_000))  # fmt: skip
            names = found["outcome"].attrs["flag_meanings"].split()
            ends.append(([names[k] for k in found["outcome"].values], names))
        (want, classes), *others = ends
        for have, names in others:
            assert len(names) == len(classes)
            for one, other in zip(want, have, strict=True):
                unsettled = {one, other} & {"undecided", "out_of_steps", "diverged"}
                same = names.index(other) == classes.index(one)
                right, undetermined, wrong = (right + same, undetermined + (not same and bool(unsettled)),
                                              wrong + (not same and not unsettled))  # fmt: skip
    assert wrong == 0
    assert undetermined <= 0.02 * right
