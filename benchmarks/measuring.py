"""What a benchmark is made of: cases, methods, and a clock."""

import ctypes
import functools
import importlib
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

FOLDER = Path(__file__).parent


class Absent(Exception):
    """A peer that is not installed here, or cannot do this case."""


class Case(NamedTuple):
    """One piece of work.

    `methods`: name → prepare() → work() → result, an array; the first is the one that ratios are against. `units`
    of `unit` are done by one call. A result's error is its largest distance from `reference` relative to it, or
    to the first method's result; methods that are further than `tolerance` off are marked. `size` is the number
    on the figure's axis. `counts`: the units of methods that do fewer of them.
    """

    title: str
    methods: dict[str, Callable[[], Callable[[], Any]]]
    units: float
    unit: str
    size: float
    reference: Any = None
    tolerance: float = 1e-6
    family: str = ""
    counts: Mapping[str, float] = MappingProxyType({})


def measure(case: Case, quick: bool) -> tuple[list[dict], list[str]]:
    """The rows of a case, and who is absent and why.

    First calls one by one; then rounds over all methods, so that a machine that slows down slows all of them.
    """
    works, firsts, results, absent = {}, {}, {}, []
    for method, prepare in case.methods.items():
        try:
            work = prepare()
            began = time.perf_counter()
            results[method] = np.asarray(work(), float)
        except Absent as reason:
            absent.append(f"{method}: {reason}")
            continue
        works[method], firsts[method] = work, time.perf_counter() - began
    times: dict[str, list[float]] = {method: [] for method in works}
    left = dict.fromkeys(works, 3.0 if quick else 6.0)  # seconds for each
    for _ in range(7):
        for method, work in works.items():
            again = left[method] > times[method][-1] if times[method] else firsts[method] < 60
            if again:
                began = time.perf_counter()
                work()
                times[method].append(time.perf_counter() - began)
                left[method] -= times[method][-1]
    reference = next(iter(results.values())) if case.reference is None else np.asarray(case.reference, float)
    rows = []
    for method, result in results.items():
        if result.shape != reference.shape:
            raise ValueError(f"{case.title}, {method}: result of shape {result.shape}, expected {reference.shape}")
        error = float(np.max(np.abs(result - reference) / (1 + np.abs(reference)))) if reference.size else 0.0
        # A method too slow for a second run is reported by its first, compilation included.
        warm = times[method] or [firsts[method]]
        rows.append({
            "method": method, "first_s": firsts[method], "median_s": statistics.median(warm), "best_s": min(warm),
            "runs": len(times[method]), "error": error, "agrees": bool(error <= case.tolerance),
            "units": case.counts.get(method, case.units),
        })  # fmt: skip
    return rows, absent


def table(case: Case, rows: list[dict], absent: list[str]) -> str:
    first = rows[0]["median_s"] / rows[0]["units"]
    lines = [
        f"### {case.title}\n",
        f"| method | first call, s | median, s | best, s | runs | {case.unit}/s | first row is faster by | error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        mark = "" if row["agrees"] else " (!)"
        lines.append(
            f"| {row['method']} | {row['first_s']:.3g} | {row['median_s']:.3g} | {row['best_s']:.3g} | {row['runs']} "
            f"| {row['units'] / row['median_s']:.3g} | {row['median_s'] / row['units'] / first:.3g} "
            f"| {row['error']:.1e}{mark} |"
        )
    lines += [f"\n{line}" for line in absent]
    return "\n".join(lines) + "\n"


def rate_table(name: str, lines: list[tuple]) -> str:
    rows = [f"| {what} | {cold:,.0f} | {warm:,.0f} | {unit} |" for what, cold, warm, unit in lines]
    return "\n".join([f"### {name}: rates\n", "| what | first call | later | unit |", "|---|---|---|---|", *rows, ""])


def needs(*modules: str) -> Any:
    """The first of the modules, or `Absent`."""
    try:
        found = [importlib.import_module(module) for module in modules]
    except ImportError as error:
        raise Absent(f"{error.name} is not installed") from None
    return found[0]


@functools.cache
def c_library(source: str, *options: str) -> ctypes.CDLL:
    """A C file of this folder, compiled for this processor, or `Absent`."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Absent("no C compiler")
    folder = tempfile.mkdtemp(prefix="jaxdyn-bench-")
    library = Path(folder) / "kernel.so"
    flags = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC"]
    run = subprocess.run(
        [compiler, *flags, *options, str(FOLDER / source), "-o", str(library), "-lm"], capture_output=True, text=True
    )
    if run.returncode:
        raise Absent(f"the C compiler failed: {run.stderr.strip().splitlines()[-1]}")
    return ctypes.CDLL(str(library))


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
