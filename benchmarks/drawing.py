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
    methods = list(
        dict.fromkeys(row["method"] for cases in families.values() for case in cases for row in case["rows"])
    )
    palette = plt.get_cmap("tab20")
    colours = {method: palette((2 * k) % 20 + (2 * k) // 20) for k, method in enumerate(methods)}
    columns = min(2, len(families))
    rows = -(-len(families) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(6.4 * columns, 5.4 * rows), squeeze=False)
    for axis in axes.ravel()[len(families) :]:
        axis.set_visible(False)
    for axis, (name, cases) in zip(axes.ravel(), families.items(), strict=False):
        _panel(axis, name, cases, colours)
    figure.suptitle(report["machine"], fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _panel(axis: Any, name: str, cases: list[dict], colours: dict[str, Any]) -> None:
    lines: dict[str, list[tuple[float, float]]] = {}
    reached = name.startswith("Work and precision")
    for case in sorted(cases, key=lambda case: case["size"]):
        for row in case["rows"]:
            x = max(row["error"], 1e-16) if reached else case["size"]
            lines.setdefault(row["method"], []).append((x, row["median_s"] / row["units"] * 1e9))
    for method, points in lines.items():
        ours = method.startswith("jaxdyn")
        axis.loglog(
            *zip(*points, strict=True), marker="o" if ours else ".", linewidth=2.2 if ours else 1, label=method,
            linestyle="-" if ours else "--", color=colours[method],
        )  # fmt: skip
    axis.set_title(name)
    if reached:
        axis.invert_xaxis()
    size = next((label for key, label in AXES.items() if name.startswith(key)), "trials")
    axis.set_xlabel("largest error reached" if reached else size)
    axis.set_ylabel(f"nanoseconds a {cases[0]['unit'].rstrip('s')}, all cores")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
