"""Pictures are made with data, PDF and PNG, are not blank, and show what they claim."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh

from jaxdyn.papers.figures import matrices
from jaxdyn.papers.figures import modes as tian
from jaxdyn.papers.figures.base import make
from jaxdyn.papers.figures.gallery import PICTURES
from jaxdyn.papers.figures.making import make_figure
from jaxdyn.papers.figures.portrait import portrait
from jaxdyn.plotting.style import figure
from jaxdyn.plotting.trials import outcome_map, trajectory_panels
from jaxdyn.trials.run import run_trials
from jaxdyn.trials.scalar import Outcome
from jaxdyn.trials.scalar_laws import ScalarLaws
from jaxdyn.trials.starts import Stopping

FIGURES = Path(__file__).resolve().parents[2] / "figures"
SCRIPTS = sorted(path.stem for path in FIGURES.glob("*.py") if path.stem != "common")


def test_every_picture_has_a_script():
    named = {re.search(r'main\("(\S+)"', (FIGURES / f"{name}.py").read_text()).group(1) for name in SCRIPTS}  # type: ignore[union-attr]
    assert named == set(PICTURES)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_show_the_parameters_of_their_picture(name):
    source = (FIGURES / f"{name}.py").read_text()
    id = re.search(r'main\("(\S+)"', source).group(1)  # type: ignore[union-attr]
    shown = ast.literal_eval(re.search(r"PARAMETERS = (\{.*?\})\n", source, re.DOTALL).group(1))  # type: ignore[union-attr]
    assert shown == PICTURES[id].parameters
    assert set(PICTURES[id].fast) <= set(shown)


def test_other_parameters_change_the_figure_and_its_caption(tmp_path):
    written = make_figure("t-4", tmp_path, sigma=0.3, share=[0.0, 2.0])
    with xr.open_dataset(written[0], engine="scipy") as data:
        assert data.attrs["sigma"] == 0.3
        assert data.sizes["eta"] == 2
        assert float(data["eta"][1]) == pytest.approx(2 / (4 * 1.09))
        assert "CHANGED" in data.attrs["caption"]
        assert "sigma = 0.3 (there: 0.5)" in data.attrs["caption"]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"theta": 1.0}, "theta: T-4 has no such parameter; there are share, sigma, tau"),
        ({"sigma": "small"}, "sigma: expected a value like 0.5, got 'small'"),
        ({"share": ()}, "share: expected at least one value"),
    ]
    for change, message in wrong:
        with pytest.raises(ValueError, match=message):
            make_figure("T-4", tmp_path, **change)
    with pytest.raises(ValueError, match="unknown figure"):
        make_figure("T-99", tmp_path)


@pytest.mark.slow  # every figure in small sizes: about a minute in all
@pytest.mark.parametrize("id", PICTURES)
def test_pictures_are_made(id, tmp_path):
    picture = PICTURES[id]
    written = make(picture, tmp_path, fast=True)
    assert {path.suffix for path in written} == {".nc", ".pdf", ".png"}
    with xr.open_dataset(tmp_path / f"{picture.stem}.nc", engine="scipy") as data:
        assert data.attrs["title"]
        assert data.attrs["caption"] == picture.caption
    image = matplotlib.image.imread(tmp_path / f"{picture.stem}.png")
    ink = (image[..., :3] < 0.9).any(-1).mean()
    assert 0.01 < ink < 0.7


@pytest.mark.slow  # starts Python anew: about 10 s
def test_a_script_runs_by_itself(tmp_path):
    command = [sys.executable, "-W", "error", str(FIGURES / "t_4.py"), "--fast", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"t-4.nc", "t-4.pdf", "t-4.png"}


def test_figure_3_and_4_equilibria():
    data = tian.compute_4()
    kinds = {
        float(eta): data["point_kind"].values[data["point_eta"].values == eta].tolist() for eta in data["eta"].values
    }
    assert list(kinds.values()) == [["saddle", "stable"], ["stable", "unstable", "stable"], ["stable"]]
    data = tian.compute_3(grid=26)
    at = lambda eta: data["point_kind"].values[data["point_eta"].values == eta].tolist()  # noqa: E731
    assert at(0.01) == ["stable", "saddle", "stable"]
    assert at(1.0) == ["stable"]
    free = data.isel(point=np.flatnonzero((data["point_eta"] == 0) & (data["point_s"] == 0)))
    inside = (free["point_p"] > 0) & (free["point_p"] < 1 / 1.25)
    assert (free["point_kind"].values[inside.values] == "unstable").all()
    assert (free["point_kind"].values[~inside.values] == "stable").all()


def test_figure_10_equilibria():
    data = tian.compute_10(grid=25)
    at = lambda name: data["point_kind"].values[data["point_panel"].values == name].tolist()  # noqa: E731
    assert at("teacher held at 1") == ["stable"] * 16 + ["saddle"]
    assert at("tied, w = w_p") == ["saddle", "stable"]  # half-stable: the paper says unstable
    assert at("no predictor") == ["stable"]


def test_figures_7_to_9_show_what_the_paper_says():
    seven = matrices.compute_7(steps=1000)["correlation"]
    assert float(seven.min()) > 0.9
    eight = matrices.compute_8(n=4)["norm"]
    assert (eight.sel(part="skew").isel(time=-1) < 0.2 * eight.sel(part="skew").isel(time=0)).all()
    nine = matrices.compute_9(n=3)["norm"]
    start = nine.isel(time=0)
    assert (nine.sel(eta=0.0, tau=1.0).max() > 1.2 * start.sel(eta=0.0, tau=1.0)).all()  # shoots up
    assert (nine.sel(eta=0.2).isel(time=-1) < 1e-2 * start.sel(eta=0.2)).all()


def test_portrait_shows_what_it_claims():
    data = portrait(starts=8)
    ends = np.linalg.norm(data["encoder"].isel(time=-1), axis=-1)
    near_outer = np.isclose(ends, data.attrs["outer_radius"], rtol=1e-3)
    at_origin = ends < 1e-3
    assert (near_outer | at_origin).all()
    assert near_outer[:2].sum() > 8
    assert at_origin[2].all()  # the objective


def test_outcome_map_shows_every_trial_once():
    """Resolved trials in bins, whose shares and strengths are counted here anew; the others marked."""
    data = run_trials(ScalarLaws(), 400, stopping=Stopping(max_steps=2000))
    epsilon, radius, outcome = (data[name].values for name in ("epsilon", "start_radius", "outcome"))
    with figure(1, 2) as (_, axes):
        outcome_map(axes[0], data, "sg")
        (mesh,) = [item for item in axes[0].collections if isinstance(item, QuadMesh)]
        marked = sum(np.ma.getdata(points.get_offsets()).shape[0] for points in axes[0].collections if points != mesh)
        corners, shares = np.asarray(mesh.get_coordinates()), mesh.get_array()
        legend = axes[0].get_legend()
        assert legend is not None
        labels = [text.get_text() for text in legend.get_texts()]
    assert marked == (outcome > Outcome.ORIGIN).sum() > 0
    assert len(labels) == len(Outcome)
    assert shares is not None
    columns = np.digitize(epsilon, corners[0, :, 0]) - 1
    rows = np.digitize(radius, corners[:, 0, 1]) - 1
    resolved = outcome <= Outcome.ORIGIN
    for row, column in {*zip(rows[resolved], columns[resolved], strict=True)}:
        inside = resolved & (rows == row) & (columns == column)
        assert np.ma.getdata(shares)[row, column] == pytest.approx((outcome[inside] == Outcome.OUTER).mean())
    assert (~np.ma.getmaskarray(shares)).sum() == len({*zip(rows[resolved], columns[resolved], strict=True)})


def test_panels_share_their_scale():
    with figure(1, 3) as (_, axes):
        trajectory_panels(axes, portrait(starts=2))
        assert len({ax.get_xlim() for ax in axes}) == 1
