"""Figure scripts run in fast mode and write data, PDF and PNG; pictures are not blank."""

import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import xarray as xr

from jaxdyn.ensemble.protocol import Protocol
from jaxdyn.ensemble.trials import Outcome, run_trials
from jaxdyn.experiments.portrait import portrait
from jaxdyn.plotting.style import figure
from jaxdyn.plotting.trials import outcome_map, trajectory_panels

FIGURES = Path(__file__).resolve().parent.parent / "figures"
SCRIPTS = sorted(path.stem for path in FIGURES.glob("*.py") if path.stem != "common")


@pytest.mark.slow  # each script starts Python and compiles: about 10 s each
@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_write_data_and_pictures(name, tmp_path):
    command = [sys.executable, "-W", "error", str(FIGURES / f"{name}.py"), "--fast", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.suffix for path in tmp_path.iterdir()} == {".nc", ".pdf", ".png"}
    with xr.open_dataset(tmp_path / f"{name}.nc", engine="scipy") as data:
        assert data.attrs["title"]
    picture = matplotlib.image.imread(tmp_path / f"{name}.png")
    ink = (picture[..., :3] < 0.9).any(-1).mean()
    assert 0.01 < ink < 0.7


def test_portrait_shows_what_it_claims():
    data = portrait(n_starts=8)
    ends = np.linalg.norm(data["encoder"].isel(time=-1), axis=-1)
    near_outer = np.isclose(ends, data.attrs["outer_radius"], rtol=1e-3)
    at_origin = ends < 1e-3
    assert (near_outer | at_origin).all()
    assert near_outer[:2].sum() > 8
    assert at_origin[2].all()  # the objective


def test_outcome_map_shows_every_trial_once():
    data = run_trials("sg", Protocol(max_steps=5000), 100, seed=0)
    with figure(1, 2) as (_, axes):
        outcome_map(axes[0], data, "sg")
        shown = sum(np.asarray(points.get_offsets()).shape[0] for points in axes[0].collections)
        legend = axes[0].get_legend()
        assert legend is not None
        labels = [text.get_text() for text in legend.get_texts()]
    assert shown == 100
    assert len(labels) == len(Outcome)


def test_panels_share_their_scale():
    with figure(1, 3) as (_, axes):
        trajectory_panels(axes, portrait(n_starts=2))
        assert len({ax.get_xlim() for ax in axes}) == 1
