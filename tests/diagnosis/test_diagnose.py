"""The diagnosis: right on digits, mode by mode, and on pairs whose moments are known."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from jaxdyn.analysis.modal import modes_of
from jaxdyn.data import Augmentation, digits, from_views
from jaxdyn.data.views import Views, views_of
from jaxdyn.diagnosis.diagnose import _bootstrap, _moments, _parts, diagnose, errors, report
from jaxdyn.diagnosis.setup import Setup

QUICK: dict[str, Any] = {"n_trials": 200, "resamples": 50, "seeds": 3}


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


def gaussian_pairs(count=4000, seed=0):
    """Pairs with X = diag(1.3, 1.1, 1.0), Y = diag(1, 0.6, 0.1) in expectation."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(count, 3)) * np.sqrt([1.0, 0.6, 0.1])
    noise = rng.normal(size=(2, count, 3)) * np.sqrt([0.3, 0.5, 0.9])
    return shared + noise[0], shared + noise[1]


@pytest.mark.slow  # ten thousand steps from each of three starts, and a stiff flow to rest
@pytest.mark.parametrize("system", ["sg", "ema"])
def test_prediction_and_training_agree_on_digits_mode_by_mode(system):
    setup = Setup(system=system, weight_decay=0.01, t1=700.0, **QUICK)
    found = diagnose(digits(), setup, Augmentation(shift=1, noise=0.1))
    living = found["predicted"].values > 1e-9
    assert living.sum() == 2
    mean, error = errors(found)
    # Minibatches of 128 at lr 0.05: fluctuations shift an equilibrium by a percent or so.
    assert (np.abs(mean) < 0.02 + 3 * error).all(), (mean, error)
    followed = found["followed"].values[:, living]
    np.testing.assert_allclose(followed / found["predicted"].values[living], 1, atol=0.01)
    assert (found["trained"].values[:, ~living] < 0.05 * found["predicted"].values[living].min()).all()
    assert found.attrs["verdict"] == "stable"
    assert int(found["survivors"].sum()) + int(found["unresolved"]) == 200
    text = report(found, setup)
    assert "prediction: 2 of 4 modes live, and did in every run" in text


def test_thresholds_of_known_pairs_lie_in_their_intervals():
    x, y = gaussian_pairs()
    setup = Setup(m=3, weight_decay=0.08, t1=150.0, **QUICK)
    found = diagnose(from_views(x, y), setup)
    kept = x[: 4000 - 800], y[: 4000 - 800]
    scale = np.sqrt(np.concatenate(kept).var(0).mean())
    truth = np.array([1.0, 0.6, 0.1]) ** 2 / (4 * np.array([1.3, 1.1, 1.0])) / scale**2
    low, high = found["threshold_interval"].values.T
    assert ((low - 0.02 < truth) & (truth < high + 0.02)).all()
    assert (found["threshold"].values > low).all()
    # Starts that have not come to rest are no survivors: all of them early, some here, hardly any late.
    assert 0 < int(found["unresolved"]) < setup.n_trials
    late = diagnose(from_views(x, y), dataclasses.replace(setup, t1=1000.0))
    assert int(late["unresolved"]) <= 0.02 * setup.n_trials
    early = diagnose(from_views(x, y), dataclasses.replace(setup, t1=10.0))
    assert (int(early["unresolved"]), int(early["survivors"].sum())) == (setup.n_trials, 0)
    assert "not at rest by t1  100.0 %" in report(early, setup)
    assert (found["threshold"].values < high).all()
    assert (found["predicted"].values > 1e-9).sum() == 1
    collapse = diagnose(from_views(x, y), Setup(m=3, weight_decay=0.9, t1=50.0, **QUICK))
    assert collapse.attrs["decay_bound"] < 0.9
    assert "prediction: complete collapse, as predicted" in report(collapse, Setup(m=3, weight_decay=0.9))


def test_bootstrap_intervals_have_the_width_of_the_sampling_error():
    widths, values = [], []
    setup = Setup(m=3, n_trials=1, resamples=100, seeds=2)
    for seed in range(12):
        pairs = Views(*(side[:, None] for side in gaussian_pairs(1000, seed)))
        parts = _parts(pairs)
        modes = modes_of(_moments(parts.mean(0)))
        found = _bootstrap(parts, modes, setup)
        widths.append(np.diff(found["rho_interval"][1][0])[0])
        values.append(float(modes.rho[0]))
    # ρ̂ of a thousand Gaussians has relative standard deviation √(2/1000).
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.mean(values) * np.sqrt(2 / 1000), rel=0.2)


def test_pairs_are_centred_and_scaled():
    pairs = views_of(digits(), 5, Augmentation())
    flat = pairs.source.reshape(-1, 5)
    np.testing.assert_allclose(flat.mean(0), 0, atol=1e-6)
    assert np.mean(flat.var(0)) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(pairs.source, pairs.target)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"m": 0}, "m: "), ({"weight_decay": 0.0}, "weight_decay"), ({"n": 2, "m": 3}, "n: expected"),
     ({"system": "ema", "ema_rate": 30.0}, "ema_rate"), ({"seeds": 1}, "seeds")],
)  # fmt: skip
def test_impossible_setups_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Setup(**change)


def test_more_dimensions_than_the_data_have():
    x, y = gaussian_pairs(100)
    with pytest.raises(ValueError, match="m: expected at most 3"):
        diagnose(from_views(x, y), Setup(m=4))
