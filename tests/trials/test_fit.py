"""Settings behind a published pair: planted ones are found again, and what cannot be is said."""

import numpy as np
import pytest

from jaxdyn.cli.trials import Settings
from jaxdyn.trials.fit import _refined, fit_pair
from jaxdyn.trials.run import run_trials
from jaxdyn.trials.scalar import Outcome
from jaxdyn.trials.scalar_laws import ScalarLaws
from jaxdyn.trials.shares import outcome_shares
from jaxdyn.trials.starts import Starts, Stopping

STOPPING = Stopping(max_steps=20_000)


def share(problem, half, n_trials, seed):
    law = f"uniform({-half}, {half})"
    starts = Starts(encoder=law, predictor=law)
    data = run_trials(problem, n_trials, starts=starts, stopping=STOPPING, seed=seed)
    return outcome_shares(data, resolved=True)[Outcome.OUTER].fraction


def test_planted_settings_are_found_again():
    """Shares of other trials than those that the fit draws; half-width 0.3 lies where SG's share rises with it."""
    sg = share(ScalarLaws("sg"), 0.3, 3000, seed=5)
    ema = share(ScalarLaws("ema", ema_decay=0.98), 0.3, 3000, seed=5)
    (fit,) = fit_pair(sg, ema, 500, published_trials=3000, stopping=STOPPING, seed=1)
    assert fit.half_width.low is not None
    assert fit.half_width.high is not None
    assert fit.half_width.low < 0.3 < fit.half_width.high
    assert fit.half_width.high < 2 * fit.half_width.low
    # The decay goes with the fitted half-width, so the pair is compared, not the decay alone.
    (decay, *_) = fit.decays
    again = share(ScalarLaws("ema", ema_decay=decay.value), fit.half_width.value, 3000, seed=5)
    assert again == pytest.approx(ema, abs=3 * (ema * (1 - ema) * (1 / 3000 + 1 / 500)) ** 0.5)


def test_a_pass_that_is_noise_is_none():
    """A share that jumps over the one looked for and never settles there; and one that does, with its interval."""
    grid = np.geomspace(0.1, 10, 25)
    noise = lambda x: np.where(np.arange(x.size) % 2, 0.9, 0.5)  # noqa: E731
    assert _refined(noise, grid, 12, 0.85, 2e-3) is None
    slope = lambda x: 0.5 + 0.1 * np.log(x)  # noqa: E731
    found = _refined(slope, grid, 12, 0.5 + 0.1 * np.log(1.05), 1e-5)
    assert found is not None
    assert found.value == pytest.approx(1.05, rel=1e-2)
    half = 1.96 * np.sqrt(0.25 * 1e-5) / 0.1
    assert (found.low, found.high) == pytest.approx(tuple(1.05 * np.exp([-half, half])), rel=2e-3)


def test_what_cannot_be_reached_is_said():
    with pytest.raises(ValueError, match=r"sg: no starting law of half-width 0.1 to 10 gives 99.9 %, there are shares"):
        fit_pair(0.999, 0.9, 100, published_trials=1000, stopping=STOPPING)
    with pytest.raises(ValueError, match="ema: expected a share between 0 and 1"):
        fit_pair(0.8, 1.0, 100, published_trials=1000)


@pytest.mark.parametrize(("changes", "word"), [
    ({"fit": (82.0, 100.0)}, "fit: expected percentages"), ({"fit_trials": 5}, "fit_trials: it belongs to --fit"),
    ({"fit": (82.0, 92.0), "systems": ("sg",)}, "fit: it is a pair"),
    ({"fit": (82.0, 92.0), "encoder": "normal(0, 1)"}, "encoder: --fit chooses it"),
    ({"fit": (82.0, 92.0), "ema_decay": 0.9}, "ema_decay: --fit chooses it"),
])  # fmt: skip
def test_options_that_fight_a_fit_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        Settings(**changes)
