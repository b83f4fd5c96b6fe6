"""The bootstrap: it works without the package, says one line when it cannot, and starts at once when set up."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def bootstrap(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "BIN", tmp_path / ".venv" / "bin")
    monkeypatch.setattr(module, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    return module


def test_it_needs_only_the_standard_library():
    imports = set(re.findall(r"^\s*(?:import|from) (\w+)", (ROOT / "run.py").read_text(), re.MULTILINE))
    assert imports <= set(sys.stdlib_module_names)
    done = subprocess.run([sys.executable, "-I", str(ROOT / "run.py")], capture_output=True, text=True)
    assert done.returncode == 0
    assert "python3 run.py trials" in done.stdout


def test_requirements_are_pinned_by_hash_and_name_no_host():
    for name in ("requirements.txt", "requirements-lint.txt"):
        text = (ROOT / name).read_text()
        assert "http" not in text
        pins = re.findall(r"^([a-z0-9-]+)==\S+(?: ;[^\\]*)? \\$", text, re.MULTILINE)
        assert {"jax", "diffrax", "optax", "chex"} <= set(pins)
        blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
        assert len(blocks) == len(pins)
        assert all("--hash=sha256:" in block for block in blocks)


def test_no_index_gets_one_line(bootstrap, capsys, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    assert bootstrap.main(["trials"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 2  # that it sets up, and why it cannot
    assert error[1].startswith("run.py: error: no package index within reach")


def test_a_missing_venv_module_gets_one_line(bootstrap, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)  # importing it fails, as on Debian without python3-venv
    assert bootstrap.main(["trials"]) == 2
    assert "lacks the modules venv and pip" in capsys.readouterr().err.splitlines()[-1]
    assert not bootstrap.VENV.exists()


def test_a_second_call_starts_at_once(bootstrap, monkeypatch):
    bootstrap.BIN.mkdir(parents=True)
    bootstrap.PYTHON.touch()
    (bootstrap.VENV / "jaxdyn-run.stamp").write_text(bootstrap.fingerprint("run"))
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("nothing should be installed"))
    seen = []
    monkeypatch.setattr(bootstrap, "run", lambda command, cwd=None: seen.append([*map(str, command)]) or 0)
    assert bootstrap.main(["claims", "--json"]) == 0
    assert bootstrap.main(["test", "-x"]) == 0
    assert seen[0][1:] == ["-m", "jaxdyn_command", "claims", "--json"]
    assert seen[1][1:] == ["-m", "pytest", "-x"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_command(number):
    """What ends the bootstrap ends what it runs, and its status says which signal it was."""
    child = f"import signal, time; signal.signal({int(number)}, signal.SIG_DFL); print(1, flush=True); time.sleep(60)"
    script = f"import sys, run; sys.exit(run.run([sys.executable, '-c', {child!r}]))"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        assert process.wait(timeout=30) == 128 + number


def test_new_requirements_mean_a_new_set_up(bootstrap, tmp_path, monkeypatch):
    before = bootstrap.fingerprint("run")
    changed = tmp_path / "requirements.txt"
    changed.write_text("something==1\n")
    monkeypatch.setitem(bootstrap.REQUIREMENTS, "run", changed)
    assert bootstrap.fingerprint("run") != before
