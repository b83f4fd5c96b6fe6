"""The figure of a benchmark run: time against size, one panel a family of cases."""

from pathlib import Path
from typing import Any

AXES = {"SG map": "numbers of the state, n(n + m)"}


def draw(report: dict[str, Any], path: Path) -> None:
    """Panels of all families with at least two sizes; writes nothing if there are none."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    families: dict[str, list[dict]] = {}
    for workload in report["workloads"].values():
        if isinstance(workload, dict) and workload.get("family"):
            families.setdefault(workload["family"], []).append(workload)
    families = {name: cases for name, cases in families.items() if len({case["size"] for case in cases}) > 1}
    if not families:
        return
    figure, axes = plt.subplots(1, len(families), figsize=(5.2 * len(families), 5.6), squeeze=False)
    for axis, (name, cases) in zip(axes[0], families.items(), strict=True):
        _panel(axis, name, cases)
    figure.suptitle(report["machine"], fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _panel(axis: Any, name: str, cases: list[dict]) -> None:
    lines: dict[str, list[tuple[float, float]]] = {}
    for case in sorted(cases, key=lambda case: case["size"]):
        for row in case["rows"]:
            lines.setdefault(row["method"], []).append((case["size"], row["median_s"] / case["units"] * 1e9))
    for method, points in lines.items():
        ours = method.startswith("jaxdyn")
        axis.loglog(
            *zip(*points, strict=True), marker="o" if ours else ".", linewidth=2.2 if ours else 1, label=method,
            linestyle="-" if ours else "--",
        )  # fmt: skip
    axis.set_title(name)
    axis.set_xlabel(next((label for key, label in AXES.items() if name.startswith(key)), "trials"))
    axis.set_ylabel(f"nanoseconds for one of the {cases[0]['unit']}, all cores")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
