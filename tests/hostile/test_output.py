"""Results appear whole or not at all: folders that cannot be written, results that are there already, kills."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from jaxdyn.cli import main
from jaxdyn.storage import check_folder, staged

WRITING = ["trials", "flow", "equilibria", "threshold", "train", "diagnose", "ablate"]
QUICK = ["flow", "--t1", "1", "--m", "2"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder of results."""
    folder = tmp_path_factory.mktemp("whole") / "flow"
    assert main([*QUICK, "--out", str(folder)]) == 0
    return folder


def refused(capsys, *arguments):
    """The one line of a command that is refused."""
    began = time.perf_counter()
    assert main([*map(str, arguments)]) == 2
    assert time.perf_counter() - began < 20
    err = capsys.readouterr().err
    assert err.startswith("jaxdyn: error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    "command", ["trials", "flow", "equilibria", "threshold", "train", "diagnose", "ablate", "figures"]
)
def test_places_that_cannot_be_written_are_refused_before_computing(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for place in ("", "file", "file/inside", "dangling", "dangling/inside", "~nosuchuser/x", "x" * 300):
        told = refused(capsys, command, "--out", place)
        assert "out" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", WRITING)
def test_results_are_not_replaced_without_a_word(command, results, capsys):
    before = {path.name: path.read_bytes() for path in results.iterdir()}
    assert "--force" in refused(capsys, command, "--out", results)
    assert before == {path.name: path.read_bytes() for path in results.iterdir()}


def test_forced_results_are_whole_and_leave_nothing_old(tmp_path, capsys):
    folder = tmp_path / "out"
    assert main([*QUICK, "--out", str(folder)]) == 0
    (folder / "sensitivity.nc").write_text("of an earlier run")
    assert main([*QUICK, "--out", str(folder), "--force", "--weight-decay", "0.02"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["flow.nc", "flow.pdf", "flow.png", "settings.toml"]
    assert "weight_decay = 0.02" in (folder / "settings.toml").read_text()
    assert "force =" not in (folder / "settings.toml").read_text()
    (folder / "notes.txt").write_text("mine")
    capsys.readouterr()
    assert "notes.txt" in refused(capsys, *QUICK, "--out", folder, "--force")
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_where_a_file_would_be_is_seen_before_computing(tmp_path, capsys):
    (tmp_path / "out" / "settings.toml").mkdir(parents=True)
    assert "settings.toml" in refused(capsys, *QUICK, "--out", tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["settings.toml"]


def test_a_full_disk_leaves_what_was_there(tmp_path):
    """The n-th file cannot be written, for every n."""
    folder = tmp_path / "out"
    with staged(folder) as stage:
        (stage / "settings.toml").write_text("old")
    for n in range(3):
        with pytest.raises(OSError, match="No space"):
            write_until_full(folder, n)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        assert [path.read_text() for path in folder.iterdir()] == ["old"]


def write_until_full(folder, n):
    with staged(folder, force=True) as stage:
        for k in range(3):
            if k == n:
                raise OSError(28, "No space left on device")
            (stage / f"{k}.nc").write_text("new")


WRITER = """
    import signal, sys
    from pathlib import Path
    from jaxdyn.storage import staged
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell started in the background
    print("ready", flush=True)
    for version in range(10**6):
        with staged(Path(sys.argv[1]), force=True) as stage:
            for name in ("settings.toml", "a.nc", "b.nc"):
                (stage / name).write_text(str(version))
"""


@pytest.mark.slow  # starts Python sixty times
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["int", "term", "kill"])
def test_after_a_kill_the_folder_is_as_before_or_whole(number, tmp_path):
    folder, rng = tmp_path / "out", random.Random(int(number))
    with staged(folder) as stage:
        for name in ("settings.toml", "a.nc", "b.nc"):
            (stage / name).write_text("first")
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(folder)],
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(number)
        try:
            process.wait(timeout=30)
        finally:
            process.kill()
            process.stdout.close()
        # A kill between two renames leaves the old results aside; the next run puts them back first.
        if not folder.exists():
            assert number == signal.SIGKILL
            with pytest.raises(RuntimeError), staged(folder, force=True):
                raise RuntimeError
        versions = {path.read_text() for path in folder.iterdir()}
        assert len(versions) == 1
        assert len(list(folder.iterdir())) == 3
        if number != signal.SIGKILL:
            assert os.listdir(tmp_path) == ["out"]
    with staged(folder, force=True) as stage:
        (stage / "settings.toml").write_text("last")
    assert os.listdir(tmp_path) == ["out"]


def test_two_runs_into_one_folder(tmp_path):
    """The first to finish has it; the second is told, and nothing is mixed."""
    folder = check_folder(tmp_path / "out")
    with pytest.raises(ValueError, match="--force"):
        write_both(folder)
    assert [path.read_text() for path in folder.iterdir()] == ["other"]
    assert os.listdir(tmp_path) == ["out"]


def write_both(folder):
    with staged(folder) as one:
        (one / "settings.toml").write_text("one")
        with staged(folder) as other:
            (other / "settings.toml").write_text("other")


def run(*arguments, **environment):
    command = [sys.executable, "-m", "jaxdyn", *map(str, arguments)]
    root = Path(__file__).parents[2]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=root, env=os.environ | environment)


def test_an_unknown_platform_is_one_line(tmp_path):
    done = run(*QUICK, "--out", tmp_path / "out", JAX_PLATFORMS="bogus")
    assert done.returncode == 2
    assert done.stderr.startswith("jaxdyn: error: JAX_PLATFORMS")
    assert done.stderr.count("\n") == 1


def test_a_terminal_without_greek_letters(tmp_path):
    done = run(*QUICK, "--out", tmp_path / "out", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "flow.nc").exists()


@pytest.mark.parametrize("arguments", [
    ("trials", "--n", "99999999999999999999"), ("trials", "--sensitivity-trials", "7"),
    ("flow", "--system", "sg", "--ema-rate", "0.5"), ("diagnose", "digits", "--ema-rate", "0.5"),
    ("flow", "--config", ""), ("figures", "T-Tbl3"), ("figures", "T-1"),
])  # fmt: skip
def test_options_that_do_not_apply_are_refused(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(capsys, *arguments)
    assert not any(tmp_path.iterdir())
