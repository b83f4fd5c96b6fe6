"""Whole trainings: what is measured, and that a killed one goes on to the same numbers."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxdyn.data import Augmentation, Dataset, digits, from_images, from_views
from jaxdyn.data.base import Split
from jaxdyn.networks.recipe import Knobs, Recipe
from jaxdyn.networks.train import LONG_NAMES, train

SMALL = Recipe(encoder="mlp", width=8, depth=1, hidden=8, embedding=4, batch=8, steps=6,
               augmentation=Augmentation(shift=1, noise=0.1))  # fmt: skip
SETTINGS = [Knobs(lr=0.1), Knobs(lr=0.1, ema_decay=0.0)]


def few_digits():
    data = digits()
    cut = lambda split: Split(split.source[:200], None, split.labels[:200])  # noqa: E731
    return Dataset("few digits", cut(data.train), cut(data.held_out), 10)


def same(a, b):
    for name in a.data_vars:
        np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=name)


def test_measurements_and_their_names():
    found = train(few_digits(), SMALL, SETTINGS, seeds=2, every=4, probe_every=4)
    assert found["time"].values.tolist() == [0, 4, 6]
    assert dict(found.sizes) == {"time": 3, "seed": 2, "setting": 2, "mode": 4}
    assert {name for name in found.data_vars if not str(name).startswith("knob_")} == set(LONG_NAMES)
    np.testing.assert_array_equal(found["energy"].isel(time=0, setting=0), found["energy"].isel(time=0, setting=1))
    # The teacher of stop gradient is the student; its own running statistics, of the other view, differ a little.
    sg = found.isel(setting=1, time=-1)
    np.testing.assert_allclose(sg["size_teacher"], sg["size_encoder"], rtol=1e-6)
    assert (
        found["increment_teacher"].isel(setting=0, time=-1) < found["increment_encoder"].isel(setting=0, time=-1)
    ).all()
    assert np.isfinite(found["accuracy_few"]).all()
    np.testing.assert_allclose(found["knob_ema_decay"], [0.99, 0.0])


def test_a_run_goes_on_from_its_checkpoint_to_the_same_numbers(tmp_path):
    data = few_digits()
    whole = train(data, SMALL, SETTINGS, seeds=2, every=2)
    folder = tmp_path / "state"

    class Killed(Exception):
        pass

    def kill(at, of):
        if at == 4:
            raise Killed

    with pytest.raises(Killed):
        train(data, SMALL, SETTINGS, seeds=2, every=2, checkpoint=folder, progress=kill)
    seen = []
    again = train(data, SMALL, SETTINGS, seeds=2, every=2, checkpoint=folder, progress=lambda at, of: seen.append(at))
    assert seen == [6]
    same(whole, again)
    same(whole, train(data, SMALL, SETTINGS, seeds=2, every=2, checkpoint=folder))
    with pytest.raises(ValueError, match=r"checkpoint: .* holds another run \(other settings\)"):
        train(data, SMALL, [Knobs(lr=0.2)] * 2, seeds=2, every=2, checkpoint=folder)
    with pytest.raises(ValueError, match=r"another run \(other recipe\)"):
        train(data, SMALL.with_(batch=4), SETTINGS, seeds=2, every=2, checkpoint=folder)
    for part in (folder / "4").rglob("*"):
        if part.is_file():
            part.write_bytes(b"")
    with pytest.raises(ValueError, match=r"checkpoint: cannot read .*4"):
        train(data, SMALL, SETTINGS, seeds=2, every=2, checkpoint=folder)


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from networks.test_train import SETTINGS, SMALL, few_digits
from jaxdyn.networks.train import train
train(few_digits(), SMALL.with_(steps=4000), SETTINGS, seeds=2, every=2, checkpoint=sys.argv[2])
"""


@pytest.mark.slow  # a process of its own, killed at no particular moment
def test_a_killed_process_leaves_a_whole_state(tmp_path):
    tests = os.path.dirname(os.path.dirname(__file__))
    arguments = [sys.executable, "-c", SCRIPT, tests, str(tmp_path / "state")]
    process = subprocess.Popen(arguments, env=os.environ | {"JAX_ENABLE_X64": "true"})
    for _ in range(600):
        time.sleep(0.2)
        kept = [place.name for place in (tmp_path / "state").glob("*") if place.name.isdigit()]
        if any(int(name) >= 2 for name in kept) or process.poll() is not None:
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    data, recipe = few_digits(), SMALL.with_(steps=4000)
    reached = []

    class Enough(Exception):
        pass

    def stop(at, of):
        reached.append(at)
        raise Enough

    with pytest.raises(Enough):
        train(data, recipe, SETTINGS, seeds=2, every=2, checkpoint=tmp_path / "state", progress=stop)
    kept = max(int(place.name) for place in (tmp_path / "state").iterdir() if place.name.isdigit())
    assert reached[0] == 2 * (kept - 1)
    assert reached[0] >= 2


def test_data_without_labels_and_given_pairs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 7))
    pairs = from_views(x, x + 0.1 * rng.normal(size=x.shape))
    found = train(pairs, SMALL.with_(augmentation=Augmentation()), SETTINGS[:1], seeds=1, every=6)
    assert "accuracy_few" not in found
    images = from_images(rng.random((40, 4, 4)))
    with pytest.raises(ValueError, match="probe_every: the data set has no labels"):
        train(images, SMALL, SETTINGS, probe_every=2)
    with pytest.raises(ValueError, match="settings: expected at least one"):
        train(images, SMALL, [])
