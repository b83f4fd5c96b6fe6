"""The command line as a user meets it: what it prints, writes, refuses, and how it ends."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import tomllib

import numpy as np
import pytest
import xarray as xr
from processes import hearing

import jaxdyn
from jaxdyn.cli import main

FEW = ["trials", "--n-trials", "40", "--max-steps", "3000"]


def lines(text):
    return [line for line in text.splitlines() if line]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trails"], "unknown command 'trails', did you mean 'trials'?"),
        (["xyz"], "unknown command 'xyz'; see jaxdyn --help"),
        (["trials", "--nosuch", "1"], "Unrecognized options: --nosuch"),
        (["trials", "--n", "two"], "--n: expected a whole number or None, got 'two'"),
        (["trials", "--seed", "1.5"], "--seed: expected a whole number, got '1.5'"),
        (["flow", "--t1", "late"], "--t1: expected a number, got 'late'"),
        (["equilibria", "--lr", "fast"], "--lr: expected a number or None, got 'fast'"),
        (["train", "--lr", "fast"], "Error parsing --lr: Could not find valid parse for arguments: ['fast']"),
        (["trials", "--n"], "--n"),
        (["trials", "--n", "0"], "n: expected a whole number from 1 to 10000, got 0"),
        (["trials", "--n-trials", "0"], "n_trials: expected a whole number >= 1, got 0"),
        (["trials", "--n-trials", "-5"], "n_trials: expected a whole number >= 1, got -5"),
        (["trials", "--lr", "0"], "lr: expected a law of positive numbers"),
        (["trials", "--lr", "-0.1"], "lr: expected a law of positive numbers"),
        (["trials", "--systems", "sg", "--ema-decay", "0.9"], "ema_decay: it belongs to system ema"),
        (["trials", "--ema-decay", "1.2"], "ema_decay: expected a number in [0, 1], got 1.2"),
        (["trials", "--weight-decay", "uniform(-1, 0.1)"], "weight_decay: expected a law of numbers >= 0"),
        (["trials", "--rho", "gauss(0, 1)"], "rho: expected one of constant"),
        (["trials", "--rho", "uniform(0, nan)"], "rho: expected finite"),
        (["trials", "--systems", "sg", "sg"], "systems: expected different names"),
        (["trials", "--systems", "byol"], "byol"),
        (["trials", "--seed", "-1"], "seed: expected a whole number"),
        (["trials", "--config"], "--config: expected a TOML file"),
        (["trials", "--config", "missing.toml"], "missing.toml: No such file"),
        (["flow", "--weight-decay", "-1"], "weight_decay: expected a number >= 0, got -1.0"),
        (["flow", "--views", "missing.npz"], "missing.npz: no such file"),
        (["flow", "--m", "0"], "m: expected a whole number from 1 to 10000, got 0"),
        (["flow", "--m", "70"], "m: expected at most 61"),
        (["flow", "--system", "byol"], "byol"),
        (["flow", "--t1", "inf"], "t1"),
        (["equilibria", "--weight-decay", "0"], "weight_decay: expected a number > 0, got 0.0"),
        (["equilibria", "--tau", "0"], "weight_decay: yx is zero"),
        (["equilibria", "--moments", "missing.npz"], "missing.npz: no such file"),
        (["equilibria", "--m", "3"], "m: scalar moments have one dimension, got 3"),
        (["equilibria", "--moments", "digits", "--tau", "0.5"], "rho, tau: they belong to --moments scalar"),
        (["threshold", "--ema-rate", "0.5"], "ema_rate: it belongs to --system ema"),
        (["equilibria", "--rho", "0"], "rho: expected a number > 0"),
        (["equilibria", "--system", "objective"], "objective"),
        (["equilibria", "--n-trials", "-1"], "n_trials: expected a whole number from 0 to 4294967296, got -1"),
        (["threshold", "--points", "2"], "points: expected a whole number >= 4, got 2"),
        (["threshold", "--n", "0"], "n: expected a whole number from 1 to 10000, got 0"),
        (["figures", "T-3", "--set", "theta=1"], "theta: T-3 has no such parameter; there are eta"),
        (["figures", "T-3", "--set", "eta"], "set: expected NAME=VALUE, got 'eta'"),
        (["figures", "--set", "eta=1"], "set: it changes one figure; give one id"),
        (["trials", "--systems", "sg", "--ema-rises-over", "9"], "ema_rises_over: it belongs to system ema"),
        (["figures", "T-99"], "ids: unknown figure 't-99'; there are P-trajectories"),
        (["trials", "--dtype", "float32"], "tolerance: float32 cannot resolve 1e-07"),
        (["train", "nowhere.npz"], "nowhere.npz: no such file"),
        (["train", "digit"], "data: unknown data set 'digit'"),
        (["train", "cifar10:nowhere"], "nowhere: no such folder"),
        (["train", "--seeds", "0"], "seeds: expected a whole number >= 1, got 0"),
        (["train", "--lr", "0"], "lr: expected a number > 0, got 0"),
        (["train", "--ema-decay", "0.9", "1.5"], "ema_decay: expected a number in [0, 1], got 1.5"),
        (["train", "--rule", "directpred", "--predictor", "mlp"], "rule: directpred sets a linear predictor"),
        (["train", "--cutout", "9"], "cutout: expected less than the image's side 8, got 9"),
        (["train", "--encoder", "resnet"], "resnet"),
        (["ablate", "T-Tbl99"], "tables: unknown table 't-tbl99'; there are T-Tbl1"),
        (["ablate", "--seeds", "1"], "seeds: expected a whole number >= 2, got 1"),
        (["diagnose", "--m", "0"], "m: expected a whole number from 1 to 10000, got 0"),
        (["diagnose", "--m", "65"], "m: expected at most 61"),
        (["diagnose", "digits", "--weight-decay", "0"], "weight_decay: expected a number > 0, got 0"),
        (["claims", "--only", "P-9.9"], "only: unknown claim 'P-9.9'; the registry has P-"),
    ],
)
def test_mistakes_get_one_line_and_exit_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(lines(captured.err)) == 1
    assert message in captured.err
    assert captured.err.startswith("jaxdyn: error: ")
    assert not list(tmp_path.rglob("*"))  # nothing was written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n_trials = 5\nn_trails = 6", "unknown key 'n_trails', did you mean 'n_trials'?"),
        ("zzz = 5", "unknown key 'zzz'"),
        ("config = 'a.toml'", "unknown key 'config'"),
        ("n_trials = ", "not a TOML file"),
        ("n_trials = 'many'", "--n-trials"),
        ("n_trials = 1.5", "--n-trials"),
        ("n_trials = 0", "n_trials: expected a whole number >= 1, got 0"),
        ("sensitivity = 3", "3"),
        ("ema_decay = true", "--ema-decay"),
        ("systems = ['byol']", "--systems"),
        ("[trials]\nn_trials = 3", "unknown key 'trials'"),
        ("rho = [1, 2]", "2"),
        ("rho = 'uniform(2, 1)'", "rho: expected low < high"),
        ("batch_size = 'x'", "--batch-size"),
        ("engine = 'warp'", "--engine"),
    ],
)
def test_bad_settings_files_get_one_line(text, message, capsys, tmp_path):
    (tmp_path / "s.toml").write_text(text)
    assert main(["trials", "--config", str(tmp_path / "s.toml"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert len(lines(error)) == 1
    assert message in error
    assert "s.toml" in error
    assert not (tmp_path / "out").exists()


def test_an_unwritable_folder_gets_one_line(capsys, tmp_path):
    (tmp_path / "file").touch()
    for command in (FEW, ["flow"]):
        assert main([*command, "--out", str(tmp_path / "file")]) == 2
        error = capsys.readouterr().err
        assert len(lines(error)) == 1
        assert "out: cannot write to" in error


def test_help_and_version_come_without_jax():
    code = (
        "import sys; from jaxdyn.cli import main; main(sys.argv[1:]); "
        "heavy = {'jax', 'numpy', 'xarray', 'matplotlib', 'diffrax'} & set(sys.modules); assert not heavy, heavy"
    )
    for words in (["--help"], ["--version"], []):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert ("trials" in done.stdout) != (words == ["--version"])
    assert (
        jaxdyn.__version__
        in subprocess.run([sys.executable, "-m", "jaxdyn", "--version"], capture_output=True, text=True).stdout
    )


@pytest.mark.parametrize("command", ["trials", "flow", "claims", "figures", "train", "ablate", "diagnose"])
def test_every_command_explains_its_options(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert not end.value.code
    text = capsys.readouterr().out
    assert "--config" in text
    if command == "trials":
        for option in ("--rho", "--ema-decay", "--sensitivity", "--n-trials", "--out", "--lr-cap"):
            assert option in text


def test_trials_writes_a_table_data_settings_and_figures(capsys, tmp_path):
    out = tmp_path / "deep" / "out"
    assert main([*FEW, "--seed", "4", "--encoder", "normal(0, 1)", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "SG" in printed
    assert "92.8 %" in printed
    assert "ours" not in printed  # not the default settings
    names = {path.name for path in out.iterdir()}
    figures = {f"{name}.{end}" for name in ("trajectories", "outcomes") for end in ("png", "pdf")}
    assert names == {"trials.nc", "trajectories.nc", "settings.toml"} | figures
    with xr.open_dataset(out / "trials.nc", engine="scipy") as data:
        assert data.sizes == {"system": 2, "trial": 40}
        assert data["rho"].dims == ("trial",)
        assert data["outcome"].attrs["flag_meanings"].startswith("outer origin inner")
        first = data["final_radius"].values.copy()
        assert data.attrs["system"] == "sg, ema"
        assert json.loads(data.attrs["settings"])["system"] == ["sg", "ema"]
    settings = tomllib.loads((out / "settings.toml").read_text())
    assert settings["encoder"] == "normal(0, 1)"
    # The settings file repeats the run.
    again = tmp_path / "again"
    assert main(["trials", "--config", str(out / "settings.toml"), "--out", str(again)]) == 0
    with xr.open_dataset(again / "trials.nc", engine="scipy") as data:
        np.testing.assert_array_equal(data["final_radius"].values, first)


def test_the_command_line_overrides_the_file(capsys, tmp_path):
    (tmp_path / "s.toml").write_text(
        'n-trials = 30\nmax_steps = 500\nsystems = ["objective"]\nlr = "loguniform(0.01, 0.1)"\n'
    )
    assert main(["trials", "--config", str(tmp_path / "s.toml"), "--n-trials", "20", "--out", str(tmp_path)]) == 0
    assert "20 trials" in capsys.readouterr().out
    assert tomllib.loads((tmp_path / "settings.toml").read_text())["lr"] == "loguniform(0.01, 0.1)"


@pytest.mark.slow  # many small ensembles, each compiled for its n: about 15 s
def test_sensitivity_draws_the_family(capsys, tmp_path):
    assert main([*FEW, "--sensitivity", "--sensitivity-trials", "10", "--out", str(tmp_path)]) == 0
    assert {"sensitivity.nc", "sensitivity.png", "sensitivity.pdf"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow  # three flows on real data, each compiled: about 20 s
def test_flow_on_digits_collapses_for_the_objective_alone(capsys, tmp_path):
    for system in ("sg", "ema", "objective"):
        assert main(["flow", "--views", "digits", "--m", "6", "--system", system, "--out", str(tmp_path / system)]) == 0
        collapsed = "(collapsed)" in capsys.readouterr().out
        assert collapsed == (system == "objective")
        with xr.open_dataset(tmp_path / system / "flow.nc", engine="scipy") as data:
            assert data.attrs["status"] == "completed"
            if system != "objective":
                assert float(data["balance_residual"].max()) < 1e-6
            else:
                assert float(data["objective"].diff("time").max()) <= 1e-9
        assert (tmp_path / system / "flow.png").stat().st_size > 10_000


def test_flow_on_the_users_arrays(capsys, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4))
    np.savez(tmp_path / "views.npz", x=x, y=x + 0.3 * rng.normal(size=x.shape))
    base = ["flow", "--views", str(tmp_path / "views.npz"), "--t1", "50", "--out"]
    assert main([*base, str(tmp_path), "--m", "2", "--solver", "kvaerno5"]) == 0
    assert "modes alive at the end 2 of 2" in capsys.readouterr().out
    assert (tmp_path / "views.npz").exists()
    assert main([*base, str(tmp_path / "other"), "--m", "5"]) == 2
    np.savez(tmp_path / "views.npz", x=x, y=np.ones_like(x))
    assert main([*base, str(tmp_path / "other"), "--m", "2"]) == 2
    assert "y: the view is constant" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_interrupt_leaves_nothing_behind(tmp_path):
    process = subprocess.Popen(
        hearing(signal.SIGINT, "-m", "jaxdyn", "trials", "--n-trials", "200000", "--out", str(tmp_path)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(6)  # well inside the run, which takes minutes
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert lines(error) == ["jaxdyn: interrupted; no result was written"]
    assert not list(tmp_path.iterdir())


def test_a_closed_pipe_is_no_traceback():
    command = f"{sys.executable} -m jaxdyn claims --json --only T-15 | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_failure_while_drawing_leaves_nothing(tmp_path, capsys, monkeypatch):
    from jaxdyn.plotting import trials

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(trials, "outcome_map", stop)
    assert main([*FEW, "--out", str(tmp_path / "a" / "b")]) == 130
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("change", [["--weight-decay", "0"], ["--tau", "0", "--discriminant", "any"]])
def test_degenerate_draws_are_drawn(change, tmp_path, capsys):
    assert main([*FEW, *change, "--systems", "sg", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "outcomes.png").exists()


def test_figures_by_id(tmp_path, capsys):
    assert main(["figures", "t-4", "--fast", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"t-4.nc", "t-4.pdf", "t-4.png"}


def test_equilibria_of_a_users_moments(tmp_path, capsys):
    np.savez(tmp_path / "moments.npz", xx=np.diag([1.0, 1.5]), yx=np.diag([0.8, 0.9]))
    arguments = ["equilibria", "--moments", str(tmp_path / "moments.npz"), "--weight-decay", "0.05", "--certify"]
    assert main([*arguments, "--n-trials", "20", "--lr", "0.1", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("proved, ") == 9
    assert "\ncomplete: proved\n" in printed
    assert "NOT" not in printed
    with xr.open_dataset(tmp_path / "out" / "equilibria.nc", engine="scipy") as data:
        assert data.sizes["equilibrium"] == 9
        assert data["n_unstable"].values[0] == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"equilibria.nc", "equilibria.pdf", "equilibria.png", "settings.toml", "trials.nc"}
    np.savez(tmp_path / "wrong.npz", xx=np.diag([1.0, -1.0]), yx=np.eye(2))
    assert main(["equilibria", "--moments", str(tmp_path / "wrong.npz")]) == 2
    assert "wrong.npz: xx: expected a positive semidefinite matrix" in capsys.readouterr().err


def test_threshold_at_m_1_is_the_closed_form(tmp_path, capsys):
    assert main(["threshold", "--rho", "2", "--tau", "0.6", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    row = next(line.split() for line in printed.splitlines() if "fold" in line)
    assert float(row[1]) == pytest.approx(0.6**2 / 8, rel=1e-7)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"settings.toml", "threshold.nc", "threshold.pdf", "threshold.png"}


@pytest.mark.slow  # compiles a training, twice: the second time from the first one's settings file
def test_train_writes_and_its_settings_repeat_it(tmp_path, capsys):
    few = ["--steps", "12", "--measure-every", "6", "--encoder", "mlp", "--width", "8", "--depth", "1", "--seeds", "2"]
    arguments = ["train", "digits", *few, "--ema-decay", "0", "0.9", "--epsilon", "0.1", "--rule", "directpred"]
    assert main([*arguments, "--out", str(tmp_path / "a"), "--checkpoint", str(tmp_path / "state")]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for words in ("ema_decay 0 ", "ema_decay 0.9", "few labels", "untrained features", "0 of 2"):
        assert words in captured.out
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"train.nc", "settings.toml", "train.pdf", "train.png"}
    with xr.open_dataset(tmp_path / "a" / "train.nc") as first:
        assert first.sizes["setting"] == 2
        assert first["label"].values.tolist() == ["ema_decay 0", "ema_decay 0.9"]
        assert main(["train", "--config", str(tmp_path / "a" / "settings.toml"), "--out", str(tmp_path / "b")]) == 0
        with xr.open_dataset(tmp_path / "b" / "train.nc") as second:
            np.testing.assert_array_equal(first["energy"], second["energy"])


def test_diagnose_on_the_users_views(tmp_path, capsys):
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(2000, 3)) * [1.0, 0.7, 0.2]
    np.savez(
        tmp_path / "views.npz", x=shared + 0.3 * rng.normal(size=(2000, 3)), y=shared + 0.3 * rng.normal(size=(2000, 3))
    )
    arguments = ["diagnose", str(tmp_path / "views.npz"), "--m", "2", "--t1", "60", "--weight-decay", "0.05"]
    assert (
        main([*arguments, "--n-trials", "50", "--resamples", "20", "--seeds", "2", "--out", str(tmp_path / "out")]) == 0
    )
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "prediction: 2 of 2 modes live" in captured.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "diagnose.nc", "settings.toml", "diagnose.pdf", "diagnose.png"
    }  # fmt: skip


def test_train_and_the_library_have_the_same_defaults():
    from jaxdyn.cli.train import Settings
    from jaxdyn.data import Augmentation
    from jaxdyn.networks.recipe import Knobs, Recipe

    recipe, knobs, settings = Recipe(), Knobs(), Settings()
    for field in dataclasses.fields(Recipe):
        if field.name != "augmentation":
            assert getattr(settings, field.name) == getattr(recipe, field.name), field.name
    for field in dataclasses.fields(Augmentation):
        assert getattr(settings, field.name) == getattr(recipe.augmentation, field.name), field.name
    for name, value in knobs.named().items():
        assert getattr(settings, name) == (() if value is None else (value,)), name
