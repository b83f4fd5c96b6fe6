"""Claims about trained networks: the papers' tables at small scale on real images, judged by directions of effect.

What is compared is the accuracy of frozen features with five labels a class, between cells that share seeds: see
`judging`. Read-out times and margins were fixed before the data were seen; the seeds are none of the pilot's, which
decided how many there are (`tables/pilot.py`).
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from ...data.bundled import photographs
from ..tables.ablations import TABLES, at_cells, seeds_text
from ..tables.pilot import FIRST_SEED
from ..tables.running import run_tables
from .base import Claim, Clause, Evidence, Row, claim, share, untested
from .judging import Question, answered
from .made_up import at_null, made_up

ACCURACY = "accuracy_few"
NEAR = 3.0  # percentage points: what "about as good", "little difference" and "no harm" mean here
_LITTLE, _NEARLY = 0.05, 0.3  # T-Fig2: shares of W_p that count as none, fixed with the other margins
_GONE = 0.01  # total variance of unit embeddings: collapsed below it
KEPT: list[Path | None] = [None]  # the folder where finished trainings are kept, if any

Questions = Callable[["Cells"], list[Question]]


@functools.lru_cache(maxsize=32)
def _table(id: str, fast: bool) -> xr.Dataset:
    return run_tables(
        [TABLES[id]], seeds=None, first_seed=FIRST_SEED, fast=fast, keep=KEPT[0], between=jax.clear_caches
    )[id]


class Cells:
    """A table's values by (row, column), each an array over the cell's seeds, in per cent for accuracies."""

    def __init__(self, dataset: xr.Dataset):
        self.dataset = dataset
        self._read: dict[str, np.ndarray] = {}
        labels = zip(dataset["row"].values, dataset["column"].values, strict=True)
        self.names = [(str(row), str(column)) for row, column in labels]
        self._seeds = dict(zip(self.names, (int(each) for each in dataset["seeds"].values), strict=True))

    def __call__(self, row: str, column: str, name: str = ACCURACY) -> np.ndarray:
        if name not in self._read:
            self._read[name] = at_cells(self.dataset, name)
        values = self._read[name][self.names.index((row, column)), : self._seeds[row, column]]
        return 100 * values if name.startswith("accuracy") else values

    def at(self, row: str, column: str, name: str, where: float) -> np.ndarray:
        """Values over seeds at this share of the training."""
        place = int(np.argmin(np.abs(self.dataset["share"].values - where)))
        cell, count = self.names.index((row, column)), self._seeds[row, column]
        values = self.dataset[name].transpose("cell", "seed", "share", ...).values[cell, :count, place]
        return 100 * values if name.startswith("accuracy") else values

    def above(self, text: str, left: tuple[str, ...], right: tuple[str, ...], **options: Any) -> Question:
        """Whether one cell's accuracy is above another's, over the seeds that both have."""
        higher, lower = self(*left), self(*right)
        count = min(higher.size, lower.size)
        return Question(text, higher[:count], lower[:count], **options)

    def rows(self) -> tuple[Row, ...]:
        """Each cell: mean, standard deviation, outcomes in ten bins, and who collapsed, where that is known."""
        found: list[Row] = []
        for row, column in self.names:
            at = {"row": row, "column": column}
            values = self(row, column) if ACCURACY in self.dataset else np.array([])
            if values.size:
                spread = at | {"std": round(float(values.std(ddof=1)), 2)}
                found.append(Row("accuracy, mean", values.mean(), unit="%", at=spread))
                found.append(Row("outcomes by ten points", np.histogram(values, bins=10, range=(0, 100))[0], at=at))
            if "collapsed" in self.dataset:
                gone = self(row, column, "collapsed") > 0
                found.append(share("seeds that collapsed", gone, row=row, column=column))
                if values.size and gone.any() and not gone.all():
                    found.append(Row("… accuracy of the others, mean", values[~gone].mean(), unit="%", at=at))
        return tuple(found)


def trained(
    id: str, *, source: str, statement: str, table: str | None = None, beyond: Sequence[Clause] = ()
) -> Callable[[Questions], Claim]:
    """Register the questions that a claim asks of a table; `beyond`: what the table cannot answer."""

    def register(questions: Questions) -> Claim:
        def compute(fast: bool) -> Evidence:
            cells = Cells(_table(table or id, fast))
            about = cells.dataset.attrs
            method = (
                f"{about['data']}, {about['steps']} steps, {seeds_text(cells.dataset)} seeds from {FIRST_SEED} on: "
                "paired differences with Student's t, corrected by Holm over the clauses"
            )
            return Evidence(method, (*answered(questions(cells)), *beyond), cells.rows())

        def null(rng: np.random.Generator) -> Sequence[Clause]:
            return answered([at_null(each) for each in questions(Cells(made_up(TABLES[table or id], rng)))])

        return claim(id, source=source, statement=statement, null=null)(compute)

    return register


@trained("T-Tbl1", source="T Table 1", statement="Setting the predictor to the least-squares optimum fails, with or "
         "without EMA, however often it is done.")  # fmt: skip
def least_squares(cells: Cells) -> list[Question]:
    return [cells.above(f"{row}: gradient above least squares every {every} steps", (row, "gradient"),
                        (row, f"every {every}"))
            for row in ("EMA", "no EMA") for every in (1, 2, 3, 5)]  # fmt: skip


@trained("T-Tbl2", source="T Table 2", statement="Without weight decay features are worse.")
def no_decay(cells: Cells) -> list[Question]:
    rows = ("EMA, no bias", "EMA, bias", "no EMA, no bias", "no EMA, bias")
    return [cells.above(f"{row}: with weight decay above without", (row, "η > 0"), (row, "η = 0")) for row in rows]


@trained("T-Tbl3", source="T Table 3", statement="Without EMA a symmetric predictor crashes, of one layer or two, with "
         "bias or without; with EMA a symmetric linear one is slightly better than a regular one.")  # fmt: skip
def symmetric(cells: Cells) -> list[Question]:
    found = []
    for layers in ("one layer", "two layers"):
        row = f"{layers}, no EMA"
        found += [cells.above(f"{row}, {bias}: regular above symmetric", (row, f"regular, {bias}"),
                              (row, f"sym, {bias}")) for bias in ("no bias", "bias")]  # fmt: skip
    row = "one layer, EMA"
    for bias in ("no bias", "bias"):
        one, other = (row, f"sym, {bias}"), (row, f"regular, {bias}")
        found += [cells.above(f"{row}, {bias}: symmetric above regular", one, other),
                  cells.above(f"{row}, {bias}: … slightly", one, other, margin=NEAR, alike=True)]  # fmt: skip
    return found


@trained("T-Tbl5-networks", table="T-Tbl5", source="T Table 5", statement="Without EMA a symmetric predictor works if "
         "the predictor decays and the encoder does not; not if neither or both do.")  # fmt: skip
def unequal_decays(cells: Cells) -> list[Question]:
    row, works = "sym, no EMA", "η_p > 0, η_s = 0"
    return [cells.above(f"decay of the predictor alone above {other}", (row, works), (row, other))
            for other in ("η_p = η_s = 0", "η_p = η_s > 0")]  # fmt: skip


def _fast_predictor(cells: Cells) -> list[Question]:
    row = "sym, no EMA"
    return [cells.above(f"α_p = {ratio} above 1", (row, f"α_p = {ratio}"), (row, "α_p = 1")) for ratio in (2, 5, 10)]


trained("T-Fig6", source="T Figure 6", statement="Without EMA a symmetric predictor works if it learns faster, α_p > 1 "
        "(digits).")(_fast_predictor)  # fmt: skip
trained("T-Fig6-patches", source="T Figure 6", statement="Without EMA a symmetric predictor works if it learns faster, "
        "α_p > 1 (patches of photographs).")(_fast_predictor)  # fmt: skip


@trained("T-Tbl6", source="T Table 6", statement="DirectPred is better than gradients on a linear predictor, ρ and "
         "moving or simple averages make little difference, ε = 0.1 is better than 0.5.")  # fmt: skip
def boosts(cells: Cells) -> list[Question]:
    found = []
    for row in ("ρ = 0.3", "ρ = 0.5"):
        found += [cells.above(f"{row}, ε = {epsilon}: above gradient", (row, f"ε = {epsilon}"), ("gradient", "EMA"))
                  for epsilon in ("0", "0.01", "0.1")]  # fmt: skip
        found.append(cells.above(f"{row}: ε = 0.1 above 0.5", (row, "ε = 0.1"), (row, "ε = 0.5")))
    for epsilon in ("ε = 0", "ε = 0.01", "ε = 0.1"):
        found.append(cells.above(f"{epsilon}: ρ = 0.3 and 0.5 alike", ("ρ = 0.3", epsilon), ("ρ = 0.5", epsilon),
                                 margin=NEAR, alike=True))  # fmt: skip
    return found + [cells.above(f"{epsilon}: ρ = 0.3 and the simple average alike", ("ρ = 0.3", epsilon),
                                ("simple average", epsilon), margin=NEAR, alike=True)
                    for epsilon in ("ε = 0", "ε = 0.1")]  # fmt: skip


@trained("T-Tbl7", source="T Table 7", statement="With p = √max(s − c, 0) small negative c does no harm, whatever its "
         "magnitude; positive c is worse, most of all when the predictor is set in every step.")  # fmt: skip
def offsets(cells: Cells) -> list[Question]:
    found = []
    for row in ("freq = 1", "freq = 2"):
        found += [cells.above(f"{row}: c = 0 above {c}", (row, "c = 0"), (row, f"c = {c}")) for c in ("0.05", "0.1")]
        found += [cells.above(f"{row}: c = −{c} does no harm", (row, f"c = -{c}"), (row, "c = 0"), margin=-NEAR)
                  for c in ("0.05", "0.1")]  # fmt: skip
        found.append(cells.above(f"{row}: c = −0.05 and −0.1 alike", (row, "c = -0.05"), (row, "c = -0.1"), margin=NEAR,
                                 alike=True))  # fmt: skip
    lost = [cells(row, "c = 0") - cells(row, "c = 0.1") for row in ("freq = 1", "freq = 2")]
    return [*found, Question("c = 0.1 does more harm if the predictor is set in every step", lost[0], lost[1])]


@trained("T-Tbl8", source="T Table 8", statement="DirectPred stays better than gradients in longer training, with and "
         "without gradient steps in between, which help in the long run; on two data sets.",
         beyond=(untested("the same on CIFAR-10", "its images are not in this repository; `jaxdyn ablate T-Tbl8 --data "
                          "cifar10:FOLDER` trains it where they are"),))  # fmt: skip
def longer(cells: Cells) -> list[Question]:
    found = [cells.above(f"{row}, {length}×: above gradient", (row, f"{length}×"), ("gradient", f"{length}×"))
             for row in ("DirectPred", "DirectPred, freq 5") for length in (1, 3, 5)]  # fmt: skip
    return [*found, cells.above("5×: freq 5 above 1", ("DirectPred, freq 5", "5×"), ("DirectPred", "5×"))]


@trained("T-Tbl9", source="T Table 9", statement="DirectPred is about as good as the two-layer predictor, and both are "
         "better than a learnt linear one; in top-1 and top-5.",
         beyond=(untested("the same in top-5 accuracy", "of ten classes five are no distinction"),))  # fmt: skip
def predictors(cells: Cells) -> list[Question]:
    two, one, direct = (("EMA", name) for name in ("two layers", "linear", "DirectPred"))
    return [
        cells.above("two layers above linear", two, one),
        cells.above("DirectPred above linear", direct, one),
        cells.above("DirectPred about as good as two layers", direct, two, margin=NEAR, alike=True),
    ]


@trained("T-partitions", source="T §4, below Table 7", statement="Feature-dependent DirectPred, with 6 random "
         "partitions, is better than DirectPred and closes the gap to a predictor of two layers.")  # fmt: skip
def partitions(cells: Cells) -> list[Question]:
    direct, cut, two = (("EMA", name) for name in ("DirectPred", "6 partitions", "two layers"))
    return [
        cells.above("two layers above DirectPred: there is a gap", two, direct),
        cells.above("6 partitions above DirectPred", cut, direct),
        cells.above("6 partitions about as good as two layers", cut, two, margin=NEAR, alike=True),
    ]


@trained("T-more-steps", source="T §1, on BYOL and SimSiam", statement="Without EMA training works if the predictor is "
         "updated more often than the encoder, slightly less well than with EMA; updated too often it is "
         "worse.")  # fmt: skip
def more_steps(cells: Cells) -> list[Question]:
    row, ema = "regular, no EMA", ("regular, EMA", "1 a step")
    return [
        cells.above("regular: 2 steps of the predictor above 1", (row, "2 a step"), (row, "1 a step")),
        cells.above("regular: 5 above 1", (row, "5 a step"), (row, "1 a step")),
        cells.above("symmetric: 5 above 1", ("sym, no EMA", "5 a step"), ("sym, no EMA", "1 a step")),
        cells.above("regular: with EMA above 5 steps without", ema, (row, "5 a step")),
        cells.above("… slightly", ema, (row, "5 a step"), margin=NEAR, alike=True),
        cells.above("too often: 5 above 20", (row, "5 a step"), (row, "20 a step")),
    ]


@trained("T-Fig2", source="T Figure 2", statement="In training with EMA, eigenvectors of F and W_p align, W_p becomes "
         "symmetric and positive semidefinite, leading eigenvalues of F grow and others shrink.")  # fmt: skip
def alignment(cells: Cells) -> list[Question]:
    found = []
    for column in ("regular", "sym"):
        first, last = ({name: cells.at("EMA", column, name, where) for name in
                        ("cosine", "negative", "asymmetry", "f_eigenvalue")} for where in (0.0, 1.0))  # fmt: skip
        log = [np.log(np.maximum(each["f_eigenvalue"], 1e-12)) for each in (first, last)]
        quarter, half = max(1, log[0].shape[1] // 4), log[0].shape[1] // 2
        count = last["negative"].size
        found += [
            Question(f"{column}: eigenvectors align", last["cosine"], first["cosine"], unit="mean |cos|"),
            Question(f"{column}: W_p becomes positive semidefinite, negative part below {_LITTLE:g}",
                     np.full(count, _LITTLE), last["negative"], unit="share"),
            Question(f"{column}: F's leading quarter grows", *(each[:, :quarter].mean(1) for each in log[::-1]),
                     unit="mean log"),
            Question(f"{column}: F's lower half shrinks", *(each[:, half:].mean(1) for each in log), unit="mean log"),
        ]  # fmt: skip
        if column == "regular":
            found += [
                Question("regular: asymmetry shrinks", first["asymmetry"], last["asymmetry"], unit="share"),
                Question(f"regular: W_p becomes symmetric, asymmetry below {_NEARLY:g}", np.full(count, _NEARLY),
                         last["asymmetry"], unit="share"),
            ]  # fmt: skip
    return found


EARLY, MIDDLE, END = 0.2, 0.5, 1.0  # of the training; at its start E is that of random weights, of no meaning


@trained("P-Fig2", source="P §5, Figure 2", statement="Masked prediction on clips: neither SG nor EMA minimises E (nor "
         "F), whose minimum comes early; increments do not vanish; accuracy rises, then falls for SG and stays for "
         "EMA, which is better.")  # fmt: skip
def video(cells: Cells) -> list[Question]:
    at = lambda name, what, where: cells.at("ViT", name, what, where)  # noqa: E731
    accuracy, found = "accuracy_attentive", []
    for name in ("SG", "EMA"):
        # The minimum is early: E has risen by the middle, and is above it at the end.
        for what, letter in (("energy", "E"), ("surrogate", "F"))[: 1 + (name == "EMA")]:
            found.append(Question(f"{name}: {letter} is higher in the middle than early", at(name, what, MIDDLE),
                                  at(name, what, EARLY), unit=letter))  # fmt: skip
            found.append(Question(f"{name}: {letter} is higher at the end than early", at(name, what, END),
                                  at(name, what, EARLY), unit=letter))  # fmt: skip
        for part in ("encoder", "predictor", *(["teacher"] if name == "EMA" else [])):
            # Vanishing would be to a small fraction of the early ones; a tenth is far above any plateau of rounding.
            steps = [at(name, f"increment_{part}", where) for where in (END, 0.1)]
            found.append(Question(f"{name}: increments of the {part} do not vanish", steps[0], 0.1 * steps[1],
                                  unit="‖Δ‖"))  # fmt: skip
        start, middle, end = (at(name, accuracy, where) for where in (0.0, MIDDLE, END))
        found.append(Question(f"{name}: accuracy rises, above that of a frozen encoder", middle, start))
        if name == "SG":
            found.append(Question("SG: accuracy then falls", middle, end))
        else:
            # A plateau: what is lost in the second half is less than half of what was gained in the first.
            found.append(Question("EMA: accuracy keeps a plateau", (middle - start) / 2, middle - end))
    found.append(Question("EMA better than SG at the end", at("EMA", accuracy, END), at("SG", accuracy, END)))
    found.append(Question("EMA better than the objective (control)", at("EMA", accuracy, END),
                          at("objective", accuracy, END)))  # fmt: skip
    chance = np.full(at("EMA, random labels", accuracy, END).size, 100 / len(photographs()))
    found.append(Question("with random labels the probe finds nothing (control)",
                          at("EMA, random labels", accuracy, END), chance, margin=NEAR, alike=True))  # fmt: skip
    return found


@trained("P-3.1", table="P-collapse", source="P Prop 3.1", statement="SG and EMA do not minimise E and do not end at "
         "its collapsed minimum (networks on digits): gradient descent on E goes lower, and collapses.")  # fmt: skip
def not_minimised(cells: Cells) -> list[Question]:
    row, found = "linear predictor", []
    for name in ("SG", "EMA"):
        energy, spread = cells(row, name, "energy"), cells(row, name, "spread")
        count = min(energy.size, cells(row, "objective").size)
        found += [
            Question(f"{name}: E above the objective's", energy[:count], cells(row, "objective", "energy")[:count],
                     unit="E"),
            Question(f"{name}: spread above {_GONE:g}", spread, np.full(spread.size, _GONE), unit="spread"),
        ]  # fmt: skip
    gone = cells(row, "objective", "spread")
    limit_of = np.full(gone.size, _GONE)
    return [*found, Question(f"the objective collapses: spread below {_GONE:g}", limit_of, gone, unit="spread")]


@trained("P-4.3-networks", table="P-collapse", source="P Lemma 4.3; T Thm 2, App. D.3", statement="Training without "
         "stop gradient collapses, and so does training without a predictor (networks on digits).")  # fmt: skip
def objective_collapses(cells: Cells) -> list[Question]:
    found = []
    for row, name in (("linear predictor", "objective"), ("no predictor", "SG"), ("no predictor", "EMA")):
        spread = cells(row, name, "spread")
        found.append(Question(f"{row}, {name}: spread below {_GONE:g}", np.full(spread.size, _GONE), spread,
                              unit="spread"))  # fmt: skip
    row = "linear predictor"
    return found + [cells.above(f"features of {name} better than the objective's", (row, name), (row, "objective"))
                    for name in ("SG", "EMA")]  # fmt: skip
