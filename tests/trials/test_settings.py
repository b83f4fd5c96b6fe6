import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

import jaxdyn as jd
from jaxdyn.engines.blocks import BLOCK, blockwise
from jaxdyn.intervals import proportion
from jaxdyn.trials.laws import Law
from jaxdyn.trials.scalar import draw_scalars
from jaxdyn.trials.starts import plain_settings

PLAIN = jd.Starts(n=2)


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
        jd.ScalarLaws(rho=text)


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
        ({"ema_decay": 0.99}, "ema_decay: it belongs to system ema, got 0.99 for sg"),
        ({"system": "objective", "ema_decay": lambda step: 0.99}, "ema_decay: it belongs to system ema"),
        ({"ema_decay": float("nan")}, "ema_decay"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_steps": 0}, "max_steps"),
        ({"predictor_lr_ratio": 0.0}, "predictor_lr_ratio"),
        ({"lr_cap": 0.0}, "lr_cap"),
        ({"match_tolerance": 0.0}, "match_tolerance"),
    ],
)
def test_bad_settings_are_named(change, message):
    kinds = {"n": jd.Starts, **dict.fromkeys(("tolerance", "max_steps", "match_tolerance"), jd.Stopping)}
    with pytest.raises(ValueError, match=message):
        kinds.get(next(iter(change)), jd.ScalarLaws)(**change)


def test_plain_settings_make_the_settings_again():
    laws, starts = jd.ScalarLaws(lr="loguniform(0.01, 0.1)", lr_cap=0.5), jd.Starts(n=3, encoder="normal(0, 2)")
    assert jd.ScalarLaws(**plain_settings(laws, jd.ScalarLaws)) == laws
    assert jd.Starts(**plain_settings(starts, jd.Starts)) == starts


def test_settings_need_no_jax():
    code = (
        "import sys; from jaxdyn.trials.scalar_laws import ScalarLaws; "
        "from jaxdyn.trials.starts import Starts, Stopping; ScalarLaws(), Starts(), Stopping(); "
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_trial_is_a_function_of_seed_and_index():
    laws, starts = jd.ScalarLaws(), jd.Starts(n=3)
    all_of_them = draw_scalars(laws, starts, 7, np.arange(3000))
    some = draw_scalars(laws, starts, 7, np.array([2999, 5, 1024]))
    for have, want in zip(some, all_of_them, strict=True):
        np.testing.assert_array_equal(have, want[[2999, 5, 1024]])
    assert not np.array_equal(draw_scalars(laws, starts, 8, np.arange(10)).rho, all_of_them.rho[:10])


def test_draws_follow_their_laws():
    laws = jd.ScalarLaws(
        rho="loguniform(0.1, 10)", tau="normal(0.3, 0.5)", weight_decay="uniform(0.01, 0.1)", discriminant="any",
        lr="uniform(0.01, 0.02)",
    )  # fmt: skip
    draw = draw_scalars(laws, jd.Starts(2, "normal(-1, 2)", "uniform(-2, 1)"), 0, np.arange(5000))
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
    free = draw_scalars(jd.ScalarLaws(discriminant="any"), PLAIN, 0, np.arange(20_000))
    positive = free.tau**2 - 4 * free.rho * free.weight_decay >= 0
    # docs/theory.md §3: P(Δ >= 0) = 0.476 under the published laws.
    assert abs(positive.mean() - 0.476) < 4 * np.sqrt(0.476 * 0.524 / 20_000)
    kept = draw_scalars(jd.ScalarLaws(), PLAIN, 1, np.arange(20_000))
    assert (kept.tau**2 - 4 * kept.rho * kept.weight_decay >= 0).all()
    _, pvalue = stats.ks_2samp(kept.rho, free.rho[positive])
    assert pvalue > 1e-4  # type: ignore[operator]


def test_capped_learning_rates():
    draw = draw_scalars(jd.ScalarLaws(lr_cap=0.5), PLAIN, 0, np.arange(2000))
    np.testing.assert_allclose(draw.lr, np.minimum(0.05, 0.5 * draw.rho / draw.tau**2), rtol=1e-14)


def test_hopeless_laws_are_told():
    with pytest.raises(ValueError, match="discriminant: no draw"):
        draw_scalars(jd.ScalarLaws(rho=3.0, tau="uniform(-1, 1)", weight_decay=0.08333333), PLAIN, 0, np.arange(3))


def test_blockwise_pads_and_concatenates():
    seen = []

    def double(x):
        seen.append(x.shape)
        return 2 * x

    x = np.arange(2 * BLOCK + 3)
    np.testing.assert_array_equal(blockwise(double, x), 2 * x)
    assert set(seen) == {(BLOCK,)}


def test_wilsons_interval_solves_its_equation():
    """Both ends p satisfy (k/n − p)² = z² p(1 − p)/n, except at 0 and n."""
    for count, total in [(0, 10), (3, 10), (820, 1000), (10, 10)]:
        ends = proportion(count, total)
        for end, trivial in zip(ends, (count == 0, count == total), strict=True):
            gap = (count / total - end) ** 2 - stats.norm.ppf(0.975) ** 2 * end * (1 - end) / total
            assert abs(gap) < 1e-12 or trivial
        assert ends.low == 0 or count
        assert ends.high == 1 or count < total
    with pytest.raises(ValueError, match="count"):
        proportion(3, 2)


def test_public_names():
    from jaxdyn.trials.scalar_laws import ScalarLaws

    assert jd.ScalarLaws is ScalarLaws
    assert set(getattr(jd, "__all__")) <= set(dir(jd))  # noqa: B009
    with pytest.raises(AttributeError, match="No jaxdyn attribute nothing"):
        _ = jd.nothing  # type: ignore[attr-defined]
