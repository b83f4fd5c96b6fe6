"""Strange surroundings: other interpreters' flags, no home, forks, threads, little memory, narrow or closed output."""

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from processes import hearing

ROOT = Path(__file__).parents[2]
# What every surrounding computes: trials on the engine, a flow, all equilibria.
WORK = """
    import json, sys
    import numpy as np
    import jaxdyn as jd
    stopping = jd.Stopping(max_steps=500)

    def work(seed=0):
        trials = jd.run_trials(jd.ScalarLaws("ema"), 32, stopping=stopping, seed=seed)
        found = jd.equilibria(jd.StopGradient(0.05), jd.Moments.scalar(1.0, 0.9))
        end = jd.flow_ensemble(lambda t, y, rate: -rate * y, np.ones((3, 1)), 0.5, t1=1.0)
        return [trials["final_radius"].values.tolist(), [str(item.verdict) for item in found], end.final.tolist()]
"""


def child(script, *flags, cwd=ROOT, memory=None, **environment):
    """What a script prints as JSON in a process of its own; warnings are errors there, too."""
    limit = (lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory))) if memory else None
    settings = {name: value for name, value in (os.environ | environment).items() if value is not None}
    settings["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [sys.executable, "-W", "error", *flags, "-c", textwrap.dedent(WORK) + textwrap.dedent(script)],
        capture_output=True, text=True, timeout=300, cwd=cwd, env=settings, preexec_fn=limit, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain():
    done = child("print(json.dumps(work()))")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", ["optimised", "no home, elsewhere", "few threads"])
def test_surroundings_change_no_result(case, plain, tmp_path):
    """Bit for bit, without a warning, and with nothing left behind where Python was started."""
    closed = tmp_path / "closed"
    closed.mkdir()
    flags, options = {
        "optimised": (["-OO"], {}),
        "no home, elsewhere": ([], {"cwd": closed, "HOME": "/dev/null/home", "XDG_CACHE_HOME": None, "USER": None}),
        "few threads": ([], {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": "/dev/null/cache"}),
    }[case]
    done = child("print(json.dumps(work()))", *flags, **options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout) == plain
    assert not [*closed.iterdir()]


def test_threads_and_spawned_processes_agree(plain):
    done = child("""
        import threading
        found = {}
        threads = [threading.Thread(target=lambda k=k: found.update({k: work()})) for k in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        print(json.dumps([found[k] for k in range(4)]))
    """)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [plain] * 4


def test_a_fork_after_work_is_refused_not_hung():
    done = child("""
        import os, warnings
        work()
        warnings.simplefilter("ignore")  # JAX and Python warn of forks, too
        if (process := os.fork()) == 0:
            try:
                work()
            except RuntimeError as error:
                print(error, flush=True)
                os._exit(7)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    """)
    assert done.stdout.splitlines()[-1] == "7", done.stderr
    assert 'get_context("spawn")' in done.stdout


def test_a_fork_before_any_work_is_as_good_as_none(plain):
    done = child("""
        import os, warnings
        warnings.simplefilter("ignore")
        if (process := os.fork()) == 0:
            print(json.dumps(work()), flush=True)
            os._exit(0)
        os.waitpid(process, 0)
    """)
    assert json.loads(done.stdout) == plain


def test_a_spawned_pool(tmp_path):
    """A pool of fresh processes, from a program's file."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
        import multiprocessing
        import jaxdyn as jd

        def share(seed):
            return jd.run_trials(jd.ScalarLaws("sg"), 16, stopping=jd.Stopping(max_steps=200), seed=seed).sizes["trial"]

        if __name__ == "__main__":
            share(0)
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                print(pool.map(share, range(2)))
    """)
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=300, check=False,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.stdout.split() == ["[16,", "16]"], done.stderr


COMMAND = [sys.executable, "-m", "jaxdyn", "trials", "--n-trials", "20", "--max-steps", "500", "--systems", "sg"]


def shell(words, tmp_path, **environment):
    """A command line run by a shell; `$JAXDYN` is the command."""
    script = words.replace("$JAXDYN", f"{' '.join(map(str, COMMAND))} --out {tmp_path / 'out'}")
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=300, cwd=ROOT, check=False,
                          env=os.environ | environment)  # fmt: skip


@pytest.mark.parametrize(("words", "environment"), [
    ("$JAXDYN >&-", {}), ("$JAXDYN >&- 2>&- <&-", {}),
    ("$JAXDYN", {"COLUMNS": "40", "LINES": "5", "TERM": "dumb", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}),
])  # fmt: skip
def test_whatever_the_terminal_the_results_are_whole(words, environment, tmp_path):
    done = shell(words, tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"trials.nc", "settings.toml", "outcomes.png"} <= names


def test_a_reader_that_leaves_ends_it_quietly(tmp_path):
    done = shell("$JAXDYN | true", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "settings.toml").exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(("module", "imported"), [
    ("jaxdyn_command", "lazy_loader"), ("jaxdyn_command", "platform"), ("jaxdyn", "platform"), ("jaxdyn", "difflib"),
])  # fmt: skip
def test_an_interrupt_while_importing_is_quiet(module, imported, tmp_path):
    """Ctrl-C in the first milliseconds: it comes in the middle of an import of ours."""
    (tmp_path / f"{imported}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    command, surroundings = hearing(signal.SIGINT, "-m", module, "flw"), os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings)
    assert done.returncode in (-signal.SIGINT, 130), (module, imported)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.split("\n")) <= 3


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_what_the_caller_ignores_stays_ignored(tmp_path):
    """As `nohup` does: a command that hears hang-ups would end with its terminal."""
    source = "import os, signal\nfrom jaxdyn.cli.interrupt import listen\nlisten()\nos.kill(os.getpid(), signal.SIGHUP)"
    ended = [
        subprocess.run(hearing(signal.SIGHUP, "-c", source, handler=handler)).returncode
        for handler in (signal.SIG_IGN, signal.SIG_DFL)
    ]
    assert ended == [0, 128 + signal.SIGHUP]
