"""The one runner: `python3 run.py bench [--quick] [--only NAME …] [--out DIR]`.

Every workload is a module of this folder with `cases(quick)`, a list of `Case`: a piece of work and the methods that
do it, ours and the peers'. The runner measures each in this one process, compilation apart, checks the results
against the case's reference, and prints ratios. It writes JSON, a Markdown table and a figure.
"""

import argparse
import json
import os
import platform
import sys
from importlib import import_module, metadata
from pathlib import Path

from measuring import measure, rate_table, table

WORKLOADS = (
    "sg_map", "trials", "sg_flow", "modes", "lorenz", "stragglers", "precision", "functions", "large_flow",
    "equilibria",
)  # fmt: skip
PACKAGES = ("jaxdyn", "jax", "diffrax", "numpy", "scipy", "llvmlite", "numba", "torch", "torchdiffeq", "heyoka",
            "gradsolve", "warp-lang")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="run.py bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller sizes, a few minutes")
    parser.add_argument("--only", nargs="*", choices=WORKLOADS, default=list(WORKLOADS), help="which workloads")
    parser.add_argument(
        "--out", type=Path, default=Path("results/benchmarks"), help="folder for the JSON, the table and the figure"
    )
    options = parser.parse_args()

    import jax

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    machine = f"{_processor()}, {os.cpu_count()} cores; JAX on {jax.device_count()} x {jax.devices()[0]}"
    report = {"machine": machine, "versions": versions, "quick": options.quick, "workloads": {}}
    text = []
    for name in options.only:
        workload, measured = import_module(name), []
        for case in workload.cases(options.quick):
            print(f"{case.title} …", file=sys.stderr, flush=True)
            rows, absent = measure(case, options.quick)
            report["workloads"][case.title] = {
                "size": case.size, "units": case.units, "unit": case.unit, "family": case.family, "rows": rows,
                "absent": absent,
            }  # fmt: skip
            text.append(table(case, rows, absent))
            print(text[-1], flush=True)
            measured.append((case, rows))
        if hasattr(workload, "summary"):
            text.append(workload.summary(measured))
            print(text[-1], flush=True)
        if hasattr(workload, "rates"):
            lines = workload.rates(options.quick)
            report["workloads"][f"{name}: rates"] = lines
            text.append(rate_table(name, lines))
            print(text[-1], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "benchmarks.json").write_text(json.dumps(report, indent=2))
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    (options.out / "benchmarks.md").write_text(f"{machine}\n\n{named}\n\n" + "\n".join(text))
    from drawing import draw

    draw(report, options.out / "benchmarks.png")
    return 0


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
