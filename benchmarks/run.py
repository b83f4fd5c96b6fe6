"""The one runner: `python3 run.py bench [--quick] [--out DIR]`.

Every workload is a module of this folder with `NAME`, `METHODS` (the first is the reference) and
`prepare(method, quick)`, which returns a function that does the work once and returns what it did as
a comparable result; it may have `rates`, which returns lines (what, first, later, unit). The runner
separates the first call (compilation included) from the median of the later ones, checks that all
methods got the same result, and prints ratios within one process.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from importlib import import_module, metadata
from pathlib import Path

WORKLOADS = ("trials", "equilibria")


def measure(workload, method: str, quick: bool) -> dict:
    work = workload.prepare(method, quick)
    times = []
    budget = time.perf_counter() + (20 if quick else 180)
    result = None
    for _ in range(4):
        began = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - began)
        if time.perf_counter() + times[-1] > budget:
            break
    # A method too slow for a second run is reported by its first, compilation included.
    warm = times[1:] or times
    return {
        "method": method,
        "first_s": times[0],
        "median_s": statistics.median(warm),
        "runs": len(warm),
        "result": result,
    }


def table(rows: list[dict]) -> str:
    reference = rows[0]["median_s"]
    lines = ["| method | first call, s | median, s | runs | speed against the first row |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['method']} | {row['first_s']:.2f} | {row['median_s']:.2f} | {row['runs']} "
        f"| {reference / row['median_s']:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def rate_table(name: str, lines: list[tuple]) -> str:
    rows = [f"| {what} | {cold:,.0f} | {warm:,.0f} | {unit} |" for what, cold, warm, unit in lines]
    return "\n".join([f"### {name}: rates\n", "| what | first call | later | unit |", "|---|---|---|---|", *rows, ""])


def main() -> int:
    parser = argparse.ArgumentParser(prog="run.py bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller sizes, about a minute")
    parser.add_argument("--only", nargs="*", choices=WORKLOADS, default=list(WORKLOADS), help="which workloads")
    parser.add_argument(
        "--out", type=Path, default=Path("results/benchmarks"), help="folder for the JSON and the table"
    )
    options = parser.parse_args()

    import jax

    packages = ("jaxdyn", "jax", "numpy")
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores; JAX on {jax.device_count()} x {jax.devices()[0]}",
        "versions": {name: metadata.version(name) for name in packages},
        "quick": options.quick,
        "workloads": {},
    }
    text = []
    for name in options.only:
        workload = import_module(name)
        for case in workload.CASES:
            title = f"{workload.NAME}: {case}"
            print(f"{title} …", file=sys.stderr, flush=True)
            rows = [measure(workload.case(case), method, options.quick) for method in workload.METHODS]
            same = all(row["result"] == rows[0]["result"] for row in rows)
            report["workloads"][title] = {"rows": rows, "same_result": same}
            text.append(
                f"### {title}\n\n{table(rows)}\n\nResults {'equal' if same else 'DIFFER'}: {rows[0]['result']}\n"
            )
            print(text[-1], flush=True)
        if hasattr(workload, "rates"):
            lines = workload.rates(options.quick)
            report["workloads"][f"{workload.NAME}: rates"] = lines
            text.append(rate_table(workload.NAME, lines))
            print(text[-1], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "benchmarks.json").write_text(json.dumps(report, indent=2))
    (options.out / "benchmarks.md").write_text(f"{report['machine']}; {report['versions']}\n\n" + "\n".join(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
