import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

import jaxdyn as jd
from jaxdyn.ensemble.draws import BLOCK, blockwise, draw_trials
from jaxdyn.ensemble.intervals import wilson
from jaxdyn.ensemble.laws import Law
from jaxdyn.ensemble.protocol import Protocol


@pytest.mark.parametrize("text", ["uniform(-1, 2.5)", "loguniform(0.001, 10)", "normal(1, 0.3)", "0.05"])
def test_laws_read_what_they_print(text):
    assert str(Law.parse(text)) == text
    assert Law.parse(str(Law.parse(text))) == Law.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "unif(0, 1)",
        "uniform(1, 0)",
        "uniform(0)",
        "normal(0, 0)",
        "loguniform(0, 1)",
        "",
        "uniform(0, nan)",
        "inf",
        True,
    ],
)
def test_bad_laws_are_refused(text):
    with pytest.raises(ValueError, match="rho: expected"):
        Protocol(rho=text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rho": "uniform(-1, 1)"}, "rho: expected a law of positive"),
        ({"rho": "normal(1, 1)"}, "rho: expected a law of positive"),
        ({"weight_decay": "uniform(-1, 1)"}, "weight_decay: expected a law of numbers >= 0"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"lr": 0.0}, "lr"),
        ({"lr": -1}, "lr"),
        ({"discriminant": "maybe"}, "discriminant: expected one of"),
        ({"rho": 3.0, "tau": 0.1, "weight_decay": 1.0}, "discriminant: these laws"),
        ({"n": 0}, "n: expected"),
        ({"ema_decay": 1.1}, "ema_decay"),
        ({"ema_decay": float("nan")}, "ema_decay"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_steps": 0}, "max_steps"),
        ({"predictor_lr_ratio": 0.0}, "predictor_lr_ratio"),
        ({"lr_cap": 0.0}, "lr_cap"),
        ({"match_tolerance": 0.0}, "match_tolerance"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**change)


def test_settings_make_the_protocol_again():
    protocol = Protocol(n=3, encoder="normal(0, 2)", lr="loguniform(0.01, 0.1)", lr_cap=0.5)
    assert Protocol(**protocol.settings()) == protocol
    assert protocol.replace(n=4).n == 4


def test_the_protocol_needs_no_jax():
    code = "import sys; from jaxdyn.ensemble.protocol import Protocol; Protocol(); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_trial_is_a_function_of_seed_and_index():
    protocol = Protocol(n=3)
    all_of_them = draw_trials(protocol, 7, np.arange(3000))
    some = draw_trials(protocol, 7, np.array([2999, 5, 1024]))
    for have, want in zip(some, all_of_them, strict=True):
        np.testing.assert_array_equal(have, want[[2999, 5, 1024]])
    assert not np.array_equal(draw_trials(protocol, 8, np.arange(10)).rho, all_of_them.rho[:10])


def test_draws_follow_their_laws():
    protocol = Protocol(
        rho="loguniform(0.1, 10)", tau="normal(0.3, 0.5)", weight_decay="uniform(0.01, 0.1)", discriminant="any",
        encoder="normal(-1, 2)", predictor="uniform(-2, 1)", lr="uniform(0.01, 0.02)",
    )  # fmt: skip
    draw = draw_trials(protocol, 0, np.arange(5000))
    for values, law in [
        (draw.rho, stats.loguniform(0.1, 10)),
        (draw.tau, stats.norm(0.3, 0.5)),
        (draw.weight_decay, stats.uniform(0.01, 0.09)),
        (draw.lr, stats.uniform(0.01, 0.01)),
        (draw.encoder.ravel(), stats.norm(-1, 2)),
        (draw.predictor.ravel(), stats.uniform(-2, 3)),
    ]:
        # Kolmogorov-Smirnov, one in 10⁴ by chance with seeds fixed.
        assert stats.kstest(values, law.cdf).pvalue > 1e-4


def test_the_discriminant_policy_conditions_the_draws():
    free = draw_trials(Protocol(discriminant="any"), 0, np.arange(20_000))
    positive = free.tau**2 - 4 * free.rho * free.weight_decay >= 0
    # THEORY §3: P(Δ >= 0) = 0.476 under the published laws.
    assert abs(positive.mean() - 0.476) < 4 * np.sqrt(0.476 * 0.524 / 20_000)
    kept = draw_trials(Protocol(), 1, np.arange(20_000))
    assert (kept.tau**2 - 4 * kept.rho * kept.weight_decay >= 0).all()
    _, pvalue = stats.ks_2samp(kept.rho, free.rho[positive])
    assert pvalue > 1e-4  # type: ignore[operator]


def test_capped_learning_rates():
    draw = draw_trials(Protocol(lr_cap=0.5), 0, np.arange(2000))
    np.testing.assert_allclose(draw.lr, np.minimum(0.05, 0.5 * draw.rho / draw.tau**2), rtol=1e-14)


def test_hopeless_laws_are_told():
    with pytest.raises(ValueError, match="discriminant: no draw"):
        draw_trials(Protocol(rho=3.0, tau="uniform(-1, 1)", weight_decay=0.08333333), 0, np.arange(3))


def test_blockwise_pads_and_concatenates():
    seen = []

    def double(x):
        seen.append(x.shape)
        return 2 * x

    x = np.arange(2 * BLOCK + 3)
    np.testing.assert_array_equal(blockwise(double, x), 2 * x)
    assert set(seen) == {(BLOCK,)}


def test_wilson_matches_scipy():
    for count, total in [(0, 10), (3, 10), (820, 1000), (10, 10)]:
        want = stats.binomtest(count, total).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose(wilson(count, total), (want.low, want.high), atol=1e-12)
    with pytest.raises(ValueError, match="count"):
        wilson(3, 2)


def test_public_names():
    assert jd.Protocol is Protocol
    assert set(jd.__all__) <= set(dir(jd))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = jd.nothing  # type: ignore[attr-defined]
