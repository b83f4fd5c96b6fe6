"""Kill every command that writes, at random moments: `python tests/hostile/kills.py [KILLS] [COMMAND …]`.

Each command runs into a folder that has whole results of an earlier run, and is ended by SIGINT, SIGTERM and SIGKILL in
turn, half of the time evenly over its length and half of the time near its end, where it writes. Afterwards the folder
must have the earlier results or the new ones, whole; what a SIGKILL left beside it must be gone after the next run.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import xarray as xr

COMMANDS = {
    "trials": ["trials", "--n-trials", "50", "--max-steps", "2000"],
    "flow": ["flow", "--t1", "20", "--m", "2"],
    "equilibria": ["equilibria"],
    "threshold": ["threshold", "--points", "8"],
    "train": ["train", "digits", "--encoder", "linear", "--projector", "linear", "--steps", "20", "--seeds", "1"],
    "diagnose": ["diagnose", "--m", "2", "--t1", "20", "--n-trials", "20", "--resamples", "20", "--seeds", "2"],
    "ablate": ["ablate", "T-Fig6", "--fast"],
    "figures": ["figures", "T-4", "--fast"],
}  # fmt: skip
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]


def start(command, folder, seed):
    words = [sys.executable, "-m", "jaxdyn", *COMMANDS[command], "--out", str(folder)]
    if command not in ("figures",):
        words.append("--force")
    if command not in ("figures", "ablate"):
        words += ["--seed", str(seed)]
    # A handler of its own: what a shell started in the background ignores SIGINT.
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))  # fmt: skip


def seen(folder):
    """Names of the files, after reading what can be read; fails on a damaged one."""
    for path in folder.iterdir():
        if path.suffix == ".nc":
            with xr.open_dataset(path) as data:
                data.load()
        if path.suffix == ".toml":
            tomllib.loads(path.read_text())
        if path.suffix == ".png":
            assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), path
        if path.suffix == ".pdf":
            assert path.read_bytes().rstrip().endswith(b"%%EOF"), path
    return sorted(path.name for path in folder.iterdir())


def seed_in(folder):
    settings = folder / "settings.toml"
    return tomllib.loads(settings.read_text()).get("seed") if settings.exists() else None


def kill_often(command, kills, rng):
    """(ended whole before, whole after, finished first) counts; AssertionError for anything else."""
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "out"
        length = 0.0
        for _ in range(2):  # the second is as fast as the later ones
            began = time.perf_counter()
            assert start(command, folder, 0).wait() == 0
            length = time.perf_counter() - began
        whole, counts = seen(folder), {"as before": 0, "replaced": 0, "finished first": 0}
        for k in range(kills):
            number = SIGNALS[k % 3]
            before = seed_in(folder)
            process = start(command, folder, k + 1)
            time.sleep(length * (rng.uniform(0, 1.05) if k % 2 else rng.uniform(0.8, 1.05)))
            finished = process.poll() is not None
            process.send_signal(number)
            process.wait(timeout=60)
            left = [path.name for path in Path(top).iterdir() if path != folder]
            if number != signal.SIGKILL:
                own = [name for name in left if f"-{process.pid}-" in name]  # others a SIGKILL left, before a next run
                assert not own, (command, number, own)
            if not folder.exists():  # killed between two renames: the next run puts the old results back first
                assert number == signal.SIGKILL
                assert left
                assert start(command, folder, before).wait() == 0
            if command == "figures":  # its files are each by themselves
                assert {*seen(folder)} >= {*whole}
            else:
                assert seen(folder) == whole, (command, number, seen(folder))
            after = seed_in(folder)
            assert after in (before, k + 1), (command, number, before, after)
            counts["finished first" if finished else "as before" if after == before else "replaced"] += 1
        assert start(command, folder, 0).wait() == 0
        assert os.listdir(top) == ["out"], (command, os.listdir(top))
        return counts


if __name__ == "__main__":
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    for command in sys.argv[2:] or COMMANDS:
        print(f"{command:12} {kills} kills: {kill_often(command, kills, random.Random(0))}", flush=True)
