"""The papers' tables and figures of trained networks, on real images at small scale: what is run, what was published.

One stage for all of Tian et al.'s tables: digits, a small convolutional network, the loss of unit vectors, SGD with
momentum. Its learning rate and weight decay were chosen once, as the best of lr ∈ {0.03, 0.1, 0.3}, η ∈ {5e-4, 2e-3}
by the few-label accuracy of the baseline (linear predictor, EMA); a cell changes what its table names, nothing else.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ...data import Augmentation
from ...networks.recipe import Knobs, Recipe

STAGE, KNOBS = Recipe(), Knobs()  # what both say by default
PATCHES = STAGE.with_(augmentation=Augmentation(crop=0.5, flip=True, contrast=0.4, brightness=0.2, noise=0.05))
CLIPS = Recipe(
    encoder="vit", width=32, depth=2, heads=4, patch=4, projector="none", embedding=32, predictor="vit", masked=True,
    loss="euclidean", optimizer="adamw", batch=32, steps=2000, augmentation=Augmentation(),
)  # fmt: skip
CLIP_KNOBS = Knobs(lr=1e-3, weight_decay=0.01, ema_decay=0.99)


class Cell(NamedTuple):
    """One setting of a table: where it stands, what it changes, at which share of the training it is read."""

    row: str
    column: str
    recipe: dict[str, Any]
    knobs: dict[str, Any]
    published: str = ""
    at: float = 1.0
    random_labels: bool = False  # a control: the probes learn labels that say nothing


@dataclass(frozen=True)
class Table:
    """A table or figure of a paper. `probes`: how many times along the training the frozen features are probed."""

    id: str
    title: str
    source: str
    cells: tuple[Cell, ...]
    base: Recipe = STAGE
    knobs: Knobs = KNOBS
    data: str = "digits"
    length: int = 1  # of the training, in units of the base's steps
    probes: int = 1
    by_row: bool = False  # nothing compares cells of different rows: each row has its own number of seeds
    published: str = "STL-10 top-1, ResNet-18, 100 epochs"


_EMA, _SG = {}, {"ema_decay": 0.0}
_SYM = {"symmetrise": 1}
_GRADIENT = Cell("gradient", "EMA", {}, _EMA, "74.51 ± 0.47")


def _plug_in() -> Iterable[Cell]:
    published = {"EMA": ("40.67 ± 0.50", "35.29 ± 2.49", "34.60 ± 0.98", "35.63 ± 2.66"),
                 "no EMA": ("39.45 ± 1.26", "34.01 ± 1.54", "34.58 ± 2.93", "32.22 ± 2.94")}  # fmt: skip
    for row, knobs in (("EMA", _EMA), ("no EMA", _SG)):
        for every, value in zip((1, 2, 3, 5), published[row], strict=True):
            yield Cell(row, f"every {every}", {"rule": "least_squares"}, knobs | {"every": every}, value)
        yield Cell(row, "gradient", {}, knobs, "74.51 ± 0.47" if row == "EMA" else "72.85 ± 0.16")


def _no_decay() -> Iterable[Cell]:
    published = {"EMA, no bias": "70.62 ± 1.05", "EMA, bias": "70.99 ± 1.01", "no EMA, no bias": "71.36 ± 0.44",
                 "no EMA, bias": "71.37 ± 0.77"}  # fmt: skip
    with_decay = ("74.51 ± 0.47", "74.16 ± 0.33", "72.85 ± 0.16", "72.13 ± 0.53")
    for (row, value), other in zip(published.items(), with_decay, strict=True):
        recipe = {} if "no bias" in row else {"predictor": "linear_bias"}
        knobs = _SG if "no EMA" in row else _EMA
        yield Cell(row, "η = 0", recipe, knobs | {"weight_decay": 0.0}, value)
        yield Cell(row, "η > 0", recipe, knobs, other)


def _symmetry() -> Iterable[Cell]:
    published = {
        ("linear", "EMA"): ("75.09 ± 0.48", "74.51 ± 0.47", "74.52 ± 0.29", "74.16 ± 0.33"),
        ("linear", "no EMA"): ("36.62 ± 1.85", "72.85 ± 0.16", "36.04 ± 2.74", "72.13 ± 0.53"),
        ("mlp", "EMA"): ("71.58 ± 6.46", "78.85 ± 0.25", "77.64 ± 0.41", "78.53 ± 0.34"),
        ("mlp", "no EMA"): ("35.59 ± 2.10", "65.98 ± 0.71", "41.92 ± 4.25", "65.59 ± 0.66"),
    }
    columns = (("sym, no bias", "", _SYM), ("regular, no bias", "", {}), ("sym, bias", "_bias", _SYM),
               ("regular, bias", "_bias", {}))  # fmt: skip
    for (kind, teacher), values in published.items():
        row = f"{'one layer' if kind == 'linear' else 'two layers'}, {teacher}"
        for (column, bias, knobs), value in zip(columns, values, strict=True):
            yield Cell(row, column, {"predictor": kind + bias}, (_EMA if teacher == "EMA" else _SG) | knobs, value)


def _decays() -> Iterable[Cell]:
    eta = KNOBS.weight_decay
    for column, knobs, words in (
        ("η_p > 0, η_s = 0", {"weight_decay": 0.0, "predictor_weight_decay": eta}, "works"),
        ("η_p = η_s = 0", {"weight_decay": 0.0, "predictor_weight_decay": 0.0}, "crashes"),
        ("η_p = η_s > 0", {}, "36.62 ± 1.85"),
    ):
        yield Cell("sym, no EMA", column, {}, _SYM | _SG | knobs, words)
    yield Cell("sym, EMA", "η_p = η_s > 0", {}, _SYM, "75.09 ± 0.48")


def _fast_predictor() -> Iterable[Cell]:
    for ratio in (1.0, 2.0, 5.0, 10.0):
        words = "36.62 ± 1.85" if ratio == 1 else "works"
        yield Cell("sym, no EMA", f"α_p = {ratio:g}", {}, _SYM | _SG | {"predictor_lr_ratio": ratio}, words)
    yield Cell("sym, EMA", "α_p = 1", {}, _SYM, "75.09 ± 0.48")


_DIRECT = {"rule": "directpred"}


def _boosts() -> Iterable[Cell]:
    published = {0.3: ("76.77 ± 0.24", "77.11 ± 0.35", "77.86 ± 0.16", "75.06 ± 1.10"),
                 0.5: ("76.65 ± 0.20", "76.76 ± 0.33", "77.56 ± 0.25", "75.22 ± 0.81")}  # fmt: skip
    for memory, values in published.items():
        for epsilon, value in zip((0.0, 0.01, 0.1, 0.5), values, strict=True):
            yield Cell(f"ρ = {memory}", f"ε = {epsilon:g}", _DIRECT, {"memory": memory, "epsilon": epsilon}, value)
    for epsilon in (0.0, 0.1):
        yield Cell("simple average", f"ε = {epsilon:g}", _DIRECT | {"average": "simple"}, {"epsilon": epsilon},
                   "small differences")  # fmt: skip
    yield _GRADIENT


def _offsets() -> Iterable[Cell]:
    published = {1: ("46.57 ± 18.43", "65.31 ± 18.22", "77.11 ± 0.66", "76.46 ± 0.55"),
                 2: ("75.01 ± 0.48", "75.10 ± 0.35", "76.83 ± 0.52", "76.31 ± 0.27")}  # fmt: skip
    for every, values in published.items():
        for offset, value in zip((0.1, 0.05, -0.05, -0.1), values, strict=True):
            yield Cell(f"freq = {every}", f"c = {offset:g}", _DIRECT, {"offset": offset, "every": every}, value)
        yield Cell(f"freq = {every}", "c = 0", _DIRECT, {"every": every})


def _epochs() -> Iterable[Cell]:
    published = {"DirectPred": ("77.86 ± 0.16", "78.77 ± 0.97", "78.86 ± 1.15"),
                 "DirectPred, freq 5": ("77.54 ± 0.11", "79.90 ± 0.66", "80.28 ± 0.62"),
                 "gradient": ("75.06 ± 0.52", "75.25 ± 0.74", "75.25 ± 0.74")}  # fmt: skip
    for row, values in published.items():
        knobs = {} if row == "gradient" else {"epsilon": 0.1, "every": 5 if "5" in row else 1}
        for length, value in zip((1, 3, 5), values, strict=True):
            yield Cell(row, f"{length}×", {} if row == "gradient" else _DIRECT, knobs, value, length / 5)


def _predictors() -> Iterable[Cell]:
    yield Cell("EMA", "two layers", {"predictor": "mlp_bias"}, {}, "64.7")
    yield Cell("EMA", "linear", {}, {}, "59.4")
    yield Cell("EMA", "DirectPred", _DIRECT, {"epsilon": 0.1}, "64.4")
    yield Cell("EMA", "DirectCopy", {"rule": "directcopy"}, {"epsilon": 0.1})


def _partitions() -> Iterable[Cell]:
    yield Cell("EMA", "DirectPred", _DIRECT, {"epsilon": 0.1}, "77.86 ± 0.16")
    yield Cell("EMA", "6 partitions", _DIRECT | {"partitions": 6}, {"epsilon": 0.1}, "78.20 ± 0.16")
    yield Cell("EMA", "two layers", {"predictor": "mlp"}, {}, "78.85 ± 0.25")


def _more_often() -> Iterable[Cell]:
    often = lambda count: {} if count == 1 else {"predictor_steps": count}  # noqa: E731
    for count, value in ((1, "72.85 ± 0.16"), (2, "–"), (5, "better"), (20, "worse")):
        yield Cell("regular, no EMA", f"{count} a step", often(count), _SG, value)
    for count, value in ((1, "36.62 ± 1.85"), (5, "–")):
        yield Cell("sym, no EMA", f"{count} a step", often(count), _SYM | _SG, value)
    yield Cell("regular, EMA", "1 a step", {}, _EMA, "74.51 ± 0.47")


def _collapse() -> Iterable[Cell]:
    yield Cell("linear predictor", "objective", {"system": "objective"}, {}, "collapses")
    yield Cell("linear predictor", "SG", {}, _SG, "does not")
    yield Cell("linear predictor", "EMA", {}, {}, "does not")
    yield Cell("no predictor", "SG", {"predictor": "none"}, _SG, "collapses")
    yield Cell("no predictor", "EMA", {"predictor": "none"}, {}, "collapses")


_VIDEO = "V-JEPA, Kinetics-710 and SSv2, ViT-S/B"

TABLES: dict[str, Table] = {
    table.id: table
    for table in (
        Table("T-Tbl1", "plugging in the least-squares predictor", "T Table 1", tuple(_plug_in())),
        Table("T-Tbl2", "no weight decay", "T Table 2", tuple(_no_decay())),
        Table("T-Tbl3", "symmetric predictor, with and without EMA", "T Table 3", tuple(_symmetry()), by_row=True),
        Table("T-Tbl5", "symmetric predictor without EMA: decays of predictor and encoder", "T Table 5",
              tuple(_decays())),
        Table("T-Tbl6", "DirectPred: ε and ρ", "T Table 6", tuple(_boosts())),
        Table("T-Tbl7", "DirectPred with an offset c: p = √max(s − c, 0)", "T Table 7", tuple(_offsets())),
        Table("T-Tbl8", "DirectPred, longer training", "T Table 8", tuple(_epochs()), length=5, probes=5),
        Table("T-Tbl9", "DirectPred against two layers and one", "T Table 9", tuple(_predictors()),
              published="ImageNet top-1, ResNet-50, 60 epochs"),
        Table("T-partitions", "feature-dependent DirectPred", "T §4, below Table 7", tuple(_partitions())),
        Table("T-more-steps", "several steps of the predictor to one of the encoder", "T §1", tuple(_more_often()),
              published="STL-10 where a number stands; words of T §1 on BYOL and SimSiam"),
        Table("T-Fig2", "spectra, alignment and symmetry over training", "T Figure 2",
              (Cell("EMA", "regular", {}, {}, "74.51 ± 0.47"), Cell("EMA", "sym", {}, _SYM, "75.09 ± 0.48"))),
        Table("T-Fig6", "symmetric predictor without EMA: α_p", "T Figure 6", tuple(_fast_predictor())),
        Table("T-Fig6-patches", "the same on patches of photographs", "T Figure 6", tuple(_fast_predictor()),
              PATCHES, data="patches"),
        Table("P-Fig2", "masked prediction on clips: energies, increments, accuracy", "P Figure 2",
              (Cell("ViT", "SG", {}, _SG, "rises, then falls"), Cell("ViT", "EMA", {}, {}, "rises to a plateau"),
               Cell("ViT", "objective", {"system": "objective"}, {}),
               Cell("ViT", "EMA, random labels", {}, {}, random_labels=True)),
              CLIPS, CLIP_KNOBS, "clips", probes=10, published=_VIDEO),
        Table("P-collapse", "with and without stop gradient, and predictor", "P Lemma 4.3; T Thm 2", tuple(_collapse()),
              published="P §4 and T §2, linear networks"),
    )
}  # fmt: skip


def at_cells(dataset: xr.Dataset, name: str) -> np.ndarray:
    """Values [cell, seed] of a measurement, each read at its cell's share of the training."""
    values = dataset[name].transpose("cell", "seed", "share").values
    places = [int(np.argmin(np.abs(dataset["share"].values - at))) for at in dataset["at"].values]
    return np.stack([values[cell, :, place] for cell, place in enumerate(places)])


def table_text(dataset: xr.Dataset) -> str:
    """The table as text: accuracies of frozen features and embedding, rank and spread, and what was published."""
    columns = {"few labels": "accuracy_few", "embedding": "accuracy_embedding", "all labels": "accuracy_linear"}
    about = dataset.attrs
    lines = [f"{about['table']}: {about['title']} [{about['source']}]; {about['data']}, "
             f"{about['steps']} steps, {seeds_text(dataset)} seeds, mean ± std"]  # fmt: skip
    head = "".join(f"{name:>16}" for name in [*columns, "rank", "spread"])
    lines.append(f"{'':38}{head}   published ({dataset.attrs['published_for']})")
    lines.append("-" * (38 + 16 * 5 + 3 + 12))
    values = {name: at_cells(dataset, variable) for name, variable in columns.items() if variable in dataset}
    rank, spread = at_cells(dataset, "rank"), at_cells(dataset, "spread")
    for cell in range(dataset.sizes["cell"]):
        label = f"{dataset['row'].values[cell]}: {dataset['column'].values[cell]}"
        seeds = slice(0, int(dataset["seeds"].values[cell]))
        parts = [_spread(100 * values[name][cell, seeds], 1) if name in values else f"{'–':>16}" for name in columns]
        parts += [_spread(rank[cell, seeds], 1), _spread(spread[cell, seeds], 2)]
        lines.append(f"{label:38}{''.join(parts)}   {dataset['published'].values[cell] or '–'}")
    return "\n".join(lines)


def seeds_text(dataset: xr.Dataset) -> str:
    """How many seeds the cells have."""
    return " or ".join(str(count) for count in sorted({int(each) for each in dataset["seeds"].values}))


def _spread(values: np.ndarray, digits: int) -> str:
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}".rjust(16)
