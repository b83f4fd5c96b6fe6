"""Pictures of trained networks: along a training, of the papers' tables, and of a diagnosis."""

import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from .style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY

_COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK, GREY)


def training_panels(axes: Sequence[Axes], found: xr.Dataset) -> None:
    """Six panels over steps: E and F, increments, rank, spectrum, alignment, accuracy; bands: ± std over seeds."""
    labels = [str(label) for label in found["label"].values]
    time = found["time"].values
    energies(axes[0], found, time, labels)
    increments(axes[1], found, time, labels)
    lines_with_bands(axes[2], found, time, "rank", labels, named=False)
    axes[2].set(title="effective rank (RankMe)", ylim=(1, None))
    spectrum_lines(axes[3], found.isel(setting=0), time, "eigenvalue")
    axes[3].set_title("embedding covariance" + (f", {labels[0]}" if len(labels) > 1 else ""))
    if np.isfinite(found["cosine"]).any():
        lines_with_bands(axes[4], found, time, "cosine", labels, named=False)
        axes[4].set(title="alignment, mean |cos(u, $W_p$u)|", ylim=(0, 1.02))
    else:
        lines_with_bands(axes[4], found, time, "spread", labels, named=False)
        axes[4].set(title="spread of unit embeddings", ylim=(0, 1.02))
    accuracies(axes[5], found, time, labels)
    for ax in axes:
        ax.set_xlabel("step")


def energies(ax: Axes, found: xr.Dataset, time: np.ndarray, labels: Sequence[str]) -> None:
    """E (solid) and F (dashed) on held-out pairs."""
    log = bool((found["energy"] > 0).all())
    lines_with_bands(ax, found, time, "energy", labels, log=log)
    lines_with_bands(ax, found, time, "surrogate", labels, style="--", named=False, log=log)
    ax.set_title("objective E, and F with the\nteacher held (dashed), held out")


def increments(ax: Axes, found: xr.Dataset, time: np.ndarray, labels: Sequence[str]) -> None:
    """Norms of a step of the encoder θ (solid), the predictor ψ (dashed) and the teacher ξ (dotted)."""
    for name, style in (("encoder", "-"), ("predictor", "--"), ("teacher", ":")):
        part = found[f"increment_{name}"].isel(time=slice(1, None))
        if float(part.max()) > 0:
            subset = found.isel(time=slice(1, None))
            lines_with_bands(ax, subset, time[1:], f"increment_{name}", labels, style=style, named=False, log=True)
    ax.set_title("size of a step: encoder,\npredictor (dashed), teacher (dotted)")


def accuracies(ax: Axes, found: xr.Dataset, time: np.ndarray, labels: Sequence[str], name: str = "") -> None:
    """Held-out accuracy of frozen features where it was probed."""
    name = name or (
        "accuracy_attentive" if np.isfinite(found.get("accuracy_attentive", np.nan)).any() else "accuracy_few"
    )
    if name not in found:
        ax.text(0.5, 0.5, "no labels", ha="center", transform=ax.transAxes, color=GREY)
        ax.set_title("frozen accuracy")
        return
    seen = np.isfinite(found[name].transpose("time", "seed", "setting").values).all((1, 2))
    lines_with_bands(ax, found.isel(time=seen), time[seen], name, labels, marker="o", named=False)
    kind = {"accuracy_few": "few labels", "accuracy_attentive": "attentive probe"}.get(name, "all labels")
    ax.set_title(f"frozen accuracy, {kind}")


def lines_with_bands(
    ax: Axes, found: xr.Dataset, time: np.ndarray, name: str, labels: Sequence[str], *, style: str = "-",
    marker: str | None = None, named: bool = True, log: bool = False,
) -> None:  # fmt: skip
    """Mean over seeds, one line a setting, with a band of one standard deviation; geometric ones if `log`."""
    values = found[name].transpose("setting", "seed", "time").values
    if log:
        values = np.log(np.maximum(values, 1e-12))
    back = np.exp if log else np.asarray
    for each, label, colour in zip(values, labels, _cycle(len(labels)), strict=True):
        mean, spread = each.mean(0), each.std(0)
        mark = marker or ("o" if time.size == 1 else None)  # a line of one point would not be seen
        ax.plot(time, back(mean), style, color=colour, marker=mark, ms=2.5, label=label if named else None)
        ax.fill_between(time, back(mean - spread), back(mean + spread), color=colour, alpha=0.15, lw=0)
    if log:
        ax.set_yscale("log")
    if named and len(labels) > 1:
        ax.legend(title="mean ± std of the seeds" if values.shape[1] > 1 else None, title_fontsize="small")


def _cycle(count: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]


def spectrum_lines(ax: Axes, run: xr.Dataset, time: np.ndarray, name: str, *, log: bool = True) -> None:
    """Eigenvalues over time, mean over seeds (geometric on a logarithmic axis), from largest to smallest."""
    values = run[name].transpose("time", "seed", "mode").values
    if log:
        top = float(np.nanmax(values))
        shown = np.exp(np.log(np.maximum(values, 1e-9 * top)).mean(1))
    else:
        shown = values.mean(1)
    for mode, colour in enumerate(matplotlib.colormaps["viridis"](np.linspace(0, 0.9, shown.shape[1]))):
        ax.plot(time, shown[:, mode], color=colour, lw=0.7)
    if log:
        ax.set_yscale("log")


def ablation_points(ax: Axes, dataset: xr.Dataset, values: np.ndarray, embedding: np.ndarray | None) -> None:
    """A table's cells, one a line: every seed and the mean, features (filled) above and embedding (open) below it."""
    count = dataset.sizes["cell"]
    kinds = [(values, BLUE, BLUE, "features", -0.15)]
    kinds += [] if embedding is None else [(embedding, ORANGE, "none", "embedding", 0.15)]
    for shown, colour, fill, name, shift in kinds:
        for cell in range(count):
            style: dict[str, Any] = {
                "ms": 2.5,
                "mec": colour,
                "mfc": fill,
                "mew": 0.6,
                "label": name if cell == 0 else None,
            }
            ax.plot(100 * shown[cell], np.full(shown.shape[1], cell + shift), "o", **style)
            ax.plot(100 * shown[cell].mean(), cell + shift, "|", ms=6, mew=1.4, color=colour)
    ax.plot([], [], "|", ms=6, mew=1.4, color=GREY, label="mean of the seeds")
    labels = [f"{row}: {column}" for row, column in zip(dataset["row"].values, dataset["column"].values, strict=True)]
    ax.set_yticks(range(count), [re.sub(r"([αη])_(\w)", r"$\1_\2$", label) for label in labels])
    ax.set_ylim(count - 0.5, -0.5)
    ax.set_xlabel(f"held-out accuracy, 5 labels a class, %\n(published: {dataset.attrs['published_for']})")
    for cell, published in enumerate(dataset["published"].values):
        ax.annotate(str(published) or "–", (1.02, cell), xycoords=("axes fraction", "data"), va="center", fontsize=6.5)
    ax.annotate("published", (1.02, -0.8), xycoords=("axes fraction", "data"), fontsize=6.5, annotation_clip=False)
    ax.grid(axis="y", lw=0.3, color="#dddddd")
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3)  # left of the header


def spectra_over_training(axes: Sequence[Axes], dataset: xr.Dataset) -> None:
    """T Figure 2, a row a cell: log eigenvalues of F, eigenvalues of W_p, alignment, asymmetry and negative part."""
    steps = dataset["share"].values * dataset.attrs["steps"]
    for row in range(dataset.sizes["cell"]):
        run = dataset.isel(cell=row).rename(share="time")
        panels = axes[4 * row : 4 * row + 4]
        spectrum_lines(panels[0], run, steps, "f_eigenvalue")
        spectrum_lines(panels[1], run, steps, "p_eigenvalue", log=False)
        panels[1].axhline(0, color=GREY, lw=0.5)
        for name, colour, label in (("cosine", BLUE, "mean"), ("cosine_weighted", ORANGE, "weighted by s")):
            panels[2].plot(steps, run[name].mean("seed"), color=colour, label=label)
        panels[2].set_ylim(0, 1.02)
        panels[2].legend()
        for name, colour, label in (
            ("asymmetry", BLUE, "$\\|W_p-W_p^\\top\\|/\\|W_p\\|$"),
            ("negative", RED, "negative part"),
        ):
            panels[3].plot(steps, run[name].mean("seed"), color=colour, label=label)
        panels[3].legend()
        panels[0].set_ylabel(str(run["column"].values))
        if row == 0:
            for ax, title in zip(
                panels,
                (
                    "eigenvalues of F,\nabove $10^{-9}$ of the largest",
                    "eigenvalues of $W_p$",
                    "|cos(u, $W_p$u)|",
                    "symmetry",
                ),
                strict=True,
            ):
                ax.set_title(title)
    for ax in axes[-4:]:
        ax.set_xlabel("step")


def video_panels(axes: Sequence[Axes], dataset: xr.Dataset) -> None:
    """P Figure 2: E and F, increments, accuracy over training, for stop gradient and moving average."""
    found = dataset.rename(share="time", cell="setting")
    time, labels = dataset["share"].values * dataset.attrs["steps"], [str(c) for c in dataset["column"].values]
    energies(axes[0], found, time, labels)
    increments(axes[1], found, time, labels)
    accuracies(axes[2], found, time, labels, "accuracy_attentive")
    for ax in axes:
        ax.set_xlabel("step")


def diagnosis_panels(axes: Sequence[Axes], dataset: xr.Dataset, weight_decay: float) -> None:
    """Thresholds of the modes against λ, predicted and trained spectra, and the spectra along the training."""
    mode = dataset["mode"].values
    low, high = dataset["threshold_interval"].values.T
    threshold = dataset["threshold"].values
    bars = np.maximum([threshold - low, high - threshold], 0)
    axes[0].errorbar(mode, threshold, yerr=bars, fmt="o", ms=3, color=BLUE, capsize=2, label="threshold τ²/4ρ, 95 %")
    axes[0].axhline(weight_decay, color=RED, lw=0.8, label="weight decay λ")
    axes[0].set(title="which modes survive", xlabel="mode", ylabel="weight decay, 1/time", yscale="log", xticks=mode)
    axes[0].legend()
    trained = np.sort(dataset["trained"].values, 1)[:, ::-1]
    axes[1].plot(mode - 0.15, np.sort(dataset["predicted_alone"])[::-1], "x", ms=4, color=GREY, label="each mode alone")
    axes[1].plot(mode, dataset["predicted"], "_", ms=12, mew=1.5, color=BLACK, label="predicted")
    axes[1].errorbar(
        mode + 0.15, trained.mean(0), yerr=trained.std(0), fmt="o", ms=3, color=ORANGE, capsize=2, label="trained"
    )
    axes[1].set(title="eigenvalues of $S=A^\\top A$", xlabel="rank order", ylabel="eigenvalue", xticks=mode)
    axes[1].legend()
    series = dataset["trained_series"].values
    steps = dataset["step"].values
    for place, colour in enumerate(matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(mode)))):
        axes[2].plot(steps, np.maximum(series[:, :, place], 1e-12), color=colour, lw=0.7)
        predicted = float(dataset["predicted"][place])
        if predicted > 1e-9:
            axes[2].axhline(predicted, color=colour, ls=":", lw=1)
    axes[2].set(title="training (dotted: predicted)", xlabel="step", ylabel="eigenvalue of $S$", yscale="log",
                ylim=(1e-6 * float(series.max()), 3 * float(series.max())))  # fmt: skip
