"""Claims about trained networks: the papers' tables at small scale on real images, judged by directions of effect.

A direction is seen if the mean difference between two cells over seeds, which share starts and batches, is more than
two standard errors; reversed if it is less than minus two. A claim is reproduced if all its directions are seen, and
seen in part or not at all otherwise. What is compared is the accuracy of frozen features with five labels a class.
"""

import functools
from typing import Any

import jax
import numpy as np
import xarray as xr

from ...data import digits
from ...data.base import to_device
from ...networks.field import network_defect
from ...networks.recipe import stacked
from ...networks.training import advance, draw, program_of, start
from ..tables.ablations import KNOBS, STAGE, TABLES, at_cells, run_tables
from .base import Evidence, Judgement, claim

ACCURACY = "accuracy_few"
_WORDS = {1: "seen", 0: "not seen", -1: "reversed"}


@functools.lru_cache(maxsize=32)
def _table(id: str, fast: bool) -> xr.Dataset:
    return run_tables([TABLES[id]], fast=fast)[id]


class Cells:
    """A table's values by (row, column), each an array over seeds."""

    def __init__(self, dataset: xr.Dataset, name: str = ACCURACY, scale: float = 100.0):
        values = scale * at_cells(dataset, name)
        labels = zip(dataset["row"].values, dataset["column"].values, strict=True)
        self._cells = dict(zip(((str(r), str(c)) for r, c in labels), values, strict=True))

    def __call__(self, row: str, column: str) -> np.ndarray:
        return self._cells[row, column]

    def numbers(self) -> dict[str, str]:
        """Mean ± standard deviation of each cell."""
        return {f"{row}: {column}": f"{v.mean():.2f} ± {v.std(ddof=1):.2f}" for (row, column), v in self._cells.items()}


def direction(higher: np.ndarray, lower: np.ndarray) -> tuple[int, str]:
    """1, 0 or −1, and mean difference ± standard error."""
    difference = np.asarray(higher, float) - np.asarray(lower, float)
    mean, error = difference.mean(), difference.std(ddof=1) / np.sqrt(difference.size)
    if not np.isfinite(mean):
        return 0, "not finite"
    sign = int(np.sign(mean)) if abs(mean) > 2 * error else 0
    return sign, f"{_WORDS[sign]} ({mean:+.3g} ± {error:.2g})"


def judge(id: str, dataset: xr.Dataset, directions: dict[str, tuple[int, str]], numbers: dict[str, Any]) -> Evidence:
    """The verdict that follows from directions."""
    seen = sum(sign == 1 for sign, _ in directions.values())
    turned = sum(sign == -1 for sign, _ in directions.values())
    verdict = Judgement.NOT_SEEN if seen == 0 else Judgement.PARTLY_SEEN
    if seen == len(directions):
        verdict = Judgement.REPRODUCED
    about = dataset.attrs
    words = (
        f"table {id} on {about['data']}, {about['steps']} steps, {dataset.sizes['seed']} seeds: {seen} of "
        f"{len(directions)} directions seen, {turned} reversed (two standard errors of paired differences)"
    )
    return Evidence(verdict, words, numbers | {name: text for name, (_, text) in directions.items()})


@claim("T-Tbl1", source="T Table 1", statement="Setting the predictor to the least-squares optimum fails, with or "
       "without EMA, however often it is done.")  # fmt: skip
def least_squares(fast: bool) -> Evidence:
    data = _table("T-Tbl1", fast)
    cells = Cells(data)
    found = {f"{row}: gradient > every {every}": direction(cells(row, "gradient"), cells(row, f"every {every}"))
             for row in ("EMA", "no EMA") for every in (1, 2, 3, 5)}  # fmt: skip
    return judge("T-Tbl1", data, found, cells.numbers())


@claim("T-Tbl2", source="T Table 2", statement="Without weight decay features are worse.")
def no_decay(fast: bool) -> Evidence:
    data = _table("T-Tbl2", fast)
    cells = Cells(data)
    rows = ("EMA, no bias", "EMA, bias", "no EMA, no bias", "no EMA, bias")
    found = {f"{row}: η > 0 over η = 0": direction(cells(row, "η > 0"), cells(row, "η = 0")) for row in rows}
    return judge("T-Tbl2", data, found, cells.numbers())


@claim("T-Tbl3", source="T Table 3", statement="Without EMA a symmetric predictor crashes, of one layer or two, with "
       "bias or without; with EMA a symmetric linear one is slightly better than a regular one.")  # fmt: skip
def symmetric(fast: bool) -> Evidence:
    data = _table("T-Tbl3", fast)
    cells = Cells(data)
    found = {}
    for layers in ("one layer", "two layers"):
        for bias in ("no bias", "bias"):
            row = f"{layers}, no EMA"
            found[f"{row}, {bias}: regular > sym"] = direction(
                cells(row, f"regular, {bias}"), cells(row, f"sym, {bias}")
            )
    row = "one layer, EMA"
    for bias in ("no bias", "bias"):
        found[f"{row}, {bias}: sym > regular"] = direction(cells(row, f"sym, {bias}"), cells(row, f"regular, {bias}"))
    return judge("T-Tbl3", data, found, cells.numbers())


@claim("T-Tbl5-networks", source="T Table 5", statement="Without EMA a symmetric predictor works if the predictor "
       "decays and the encoder does not; not if neither or both do.")  # fmt: skip
def unequal_decays(fast: bool) -> Evidence:
    data = _table("T-Tbl5", fast)
    cells = Cells(data)
    row, works = "sym, no EMA", Cells(data)("sym, no EMA", "η_p > 0, η_s = 0")
    found = {
        f"η_p alone > {other}": direction(works, cells(row, other)) for other in ("η_p = η_s = 0", "η_p = η_s > 0")
    }
    return judge("T-Tbl5", data, found, cells.numbers())


@claim("T-Fig2", source="T Figure 2", statement="In training with EMA, eigenvectors of F and W_p align, W_p becomes "
       "symmetric and positive semidefinite, leading eigenvalues of F grow and others shrink.")  # fmt: skip
def alignment(fast: bool) -> Evidence:
    data = _table("T-Fig2", fast)
    ends = data.isel(share=[0, -1]).transpose("cell", "seed", "share", "mode")
    column = {"regular": 0, "sym": 1}
    value = lambda name, row, at: ends[name].values[column[row], :, at]  # noqa: E731
    found = {}
    for row in column:
        found[f"{row}: alignment rises"] = direction(value("cosine", row, 1), value("cosine", row, 0))
        found[f"{row}: negative part of W_p shrinks"] = direction(value("negative", row, 0), value("negative", row, 1))
        s = np.log(np.maximum(ends["f_eigenvalue"].values[column[row]], 1e-12))
        spread = s[:, :, 0] - np.median(s, -1)
        found[f"{row}: spectrum of F spreads"] = direction(spread[:, 1], spread[:, 0])
    found["regular: asymmetry shrinks"] = direction(value("asymmetry", "regular", 0), value("asymmetry", "regular", 1))
    numbers = {f"{row}: {name}, start and end": [round(float(value(name, row, at).mean()), 3) for at in (0, 1)]
               for row in column for name in ("cosine", "cosine_weighted", "asymmetry", "negative")}  # fmt: skip
    return judge("T-Fig2", data, found, numbers)


def _fast_predictor(id: str, fast: bool) -> Evidence:
    data = _table(id, fast)
    cells = Cells(data)
    row = "sym, no EMA"
    found = {
        f"α_p = {ratio} > 1": direction(cells(row, f"α_p = {ratio}"), cells(row, "α_p = 1")) for ratio in (2, 5, 10)
    }
    return judge(id, data, found, cells.numbers())


@claim("T-Fig6", source="T Figure 6", statement="Without EMA a symmetric predictor works if it learns faster, α_p > 1 "
       "(digits).")  # fmt: skip
def fast_predictor(fast: bool) -> Evidence:
    return _fast_predictor("T-Fig6", fast)


@claim("T-Fig6-patches", source="T Figure 6", statement="Without EMA a symmetric predictor works if it learns faster, "
       "α_p > 1 (patches of photographs).")  # fmt: skip
def fast_predictor_on_patches(fast: bool) -> Evidence:
    return _fast_predictor("T-Fig6-patches", fast)


@claim("T-Tbl6", source="T Table 6", statement="DirectPred is better than gradients on a linear predictor, ρ makes "
       "little difference, ε = 0.1 is better than 0.5.")  # fmt: skip
def boosts(fast: bool) -> Evidence:
    data = _table("T-Tbl6", fast)
    cells = Cells(data)
    found = {}
    for row in ("ρ = 0.3", "ρ = 0.5"):
        for epsilon in ("0", "0.01", "0.1"):
            found[f"{row}, ε = {epsilon} > gradient"] = direction(
                cells(row, f"ε = {epsilon}"), cells("gradient", "EMA")
            )
        found[f"{row}: ε = 0.1 > 0.5"] = direction(cells(row, "ε = 0.1"), cells(row, "ε = 0.5"))
    return judge("T-Tbl6", data, found, cells.numbers())


@claim("T-Tbl7", source="T Table 7", statement="With p = √max(s − c, 0) small negative c does no harm, positive c is "
       "worse, most of all when the predictor is set in every step.")  # fmt: skip
def offsets(fast: bool) -> Evidence:
    data = _table("T-Tbl7", fast)
    cells = Cells(data)
    found = {}
    for row in ("freq = 1", "freq = 2"):
        for c in ("0.05", "0.1"):
            found[f"{row}: c = −{c} > {c}"] = direction(cells(row, f"c = -{c}"), cells(row, f"c = {c}"))
    found["c = 0.1: freq = 2 > 1"] = direction(cells("freq = 2", "c = 0.1"), cells("freq = 1", "c = 0.1"))
    return judge("T-Tbl7", data, found, cells.numbers())


@claim("T-Tbl8", source="T Table 8", statement="DirectPred stays better than gradients in longer training, with and "
       "without gradient steps in between, which help in the long run.")  # fmt: skip
def longer(fast: bool) -> Evidence:
    data = _table("T-Tbl8", fast)
    cells = Cells(data)
    found = {f"{row}, {length}× > gradient": direction(cells(row, f"{length}×"), cells("gradient", f"{length}×"))
             for row in ("DirectPred", "DirectPred, freq 5") for length in (1, 3, 5)}  # fmt: skip
    found["5×: freq 5 > 1"] = direction(cells("DirectPred, freq 5", "5×"), cells("DirectPred", "5×"))
    return judge("T-Tbl8", data, found, cells.numbers())


@claim("T-Tbl9", source="T Table 9", statement="DirectPred is about as good as the two-layer predictor, and both are "
       "better than a learnt linear one.")  # fmt: skip
def predictors(fast: bool) -> Evidence:
    data = _table("T-Tbl9", fast)
    cells = Cells(data)
    two, one, direct = (cells("EMA", name) for name in ("two layers", "linear", "DirectPred"))
    found = {
        "two layers > linear": direction(two, one),
        "DirectPred > linear": direction(direct, one),
        "DirectPred nearer to two layers than to linear, or above": direction(direct, (one + two) / 2),
    }
    return judge("T-Tbl9", data, found, cells.numbers())


@claim("P-Fig2", source="P §5, Figure 2", statement="Masked prediction on clips: neither SG nor EMA minimises E, "
       "increments do not vanish, accuracy rises, then falls for SG and stays for EMA, which is better.")  # fmt: skip
def video(fast: bool) -> Evidence:
    data = _table("P-Fig2", fast)
    # E at time 0 is that of random weights, of no meaning.
    energy = data["energy"].transpose("cell", "seed", "share").values[:, :, 1:]
    accuracy = 100 * data["accuracy_attentive"].transpose("cell", "seed", "share").values
    found, numbers = {}, {}
    for cell, name in enumerate(("SG", "EMA")):
        lowest = int(energy[cell].mean(0).argmin())
        found[f"{name}: E ends above its minimum"] = direction(energy[cell, :, -1], energy[cell, :, lowest])
        numbers[f"{name}: E, minimum (at share) and end"] = [
            round(float(energy[cell, :, lowest].mean()), 4), round(float(data["share"][lowest + 1]), 2),
            round(float(energy[cell, :, -1].mean()), 4)]  # fmt: skip
        for part in ("encoder", "predictor", *(["teacher"] if name == "EMA" else [])):
            steps = data[f"increment_{part}"].transpose("cell", "seed", "share").values[cell]
            # Vanishing would be to a small fraction of the early ones; a tenth is far above any plateau of rounding.
            found[f"{name}: increments of the {part} do not vanish"] = direction(steps[:, -1], 0.1 * steps[:, 1])
        peak = int(accuracy[cell].mean(0).argmax())
        found[f"{name}: accuracy rises"] = direction(accuracy[cell, :, peak], accuracy[cell, :, 0])
        numbers[f"{name}: accuracy, start, peak (at share), end"] = [
            round(float(accuracy[cell, :, 0].mean()), 2), round(float(accuracy[cell, :, peak].mean()), 2),
            round(float(data["share"][peak]), 2), round(float(accuracy[cell, :, -1].mean()), 2)]  # fmt: skip
        if name == "SG":
            found["SG: accuracy then falls"] = direction(accuracy[cell, :, peak], accuracy[cell, :, -1])
        else:
            # A plateau: what is lost after the peak is less than half of what was gained.
            gained, lost = (
                accuracy[cell, :, peak] - accuracy[cell, :, 0],
                accuracy[cell, :, peak] - accuracy[cell, :, -1],
            )
            found["EMA: accuracy keeps a plateau"] = direction(gained / 2, lost)
    found["EMA better than SG at the end"] = direction(accuracy[1, :, -1], accuracy[0, :, -1])
    return judge("P-Fig2", data, found, numbers)


@claim("P-3.1", source="P Prop 3.1", statement="SG and EMA do not minimise E and do not end at its collapsed minimum "
       "(networks on digits): gradient descent on E goes lower, and collapses.")  # fmt: skip
def not_minimised(fast: bool) -> Evidence:
    data = _table("P-collapse", fast)
    energy, spread = Cells(data, "energy", 1.0), Cells(data, "spread", 1.0)
    row, found = "linear predictor", {}
    for name in ("SG", "EMA"):
        found[f"{name}: E above the objective's"] = direction(energy(row, name), energy(row, "objective"))
        found[f"{name}: spread above collapse (0.01)"] = direction(spread(row, name), np.full(data.sizes["seed"], 0.01))
    numbers = {f"E, {name}": text for name, text in energy.numbers().items()}
    return judge(
        "P-collapse", data, found, numbers | {f"spread, {name}": text for name, text in spread.numbers().items()}
    )


@claim("P-4.3-networks", source="P Lemma 4.3; T Thm 2, App. D.3", statement="Training without stop gradient collapses, "
       "and so does training without a predictor (networks on digits).")  # fmt: skip
def objective_collapses(fast: bool) -> Evidence:
    data = _table("P-collapse", fast)
    spread, few = Cells(data, "spread", 1.0), Cells(data)
    limit = np.full(data.sizes["seed"], 0.01)
    cells = (("linear predictor", "objective"), ("no predictor", "SG"), ("no predictor", "EMA"))
    found = {f"{row}, {column}: spread below 0.01": direction(limit, spread(row, column)) for row, column in cells}
    for name in ("SG", "EMA"):
        higher, lower = few("linear predictor", name), few("linear predictor", "objective")
        found[f"features of {name} better than the objective's"] = direction(higher, lower)
    return judge("P-collapse", data, found, spread.numbers())


@claim("P-3.2-networks", source="P Prop 3.2", statement="The update fields of SG and EMA are not gradients of any "
       "function (an MLP on digits); the objective's is.")  # fmt: skip
def not_a_gradient(fast: bool) -> Evidence:
    seeds, steps, probes = (2, 20, 24) if fast else (5, 300, 64)
    dataset = digits()
    train = to_device(dataset.train)
    knobs = stacked([KNOBS.checked(STAGE)])
    recipe = STAGE.with_(steps=steps, batch=32, encoder="mlp", width=64, depth=1)
    program = program_of(recipe, dataset.shape)
    keys = jax.vmap(jax.random.key)(jax.numpy.arange(seeds))
    states, _ = advance(program, start(program, knobs, keys, train), knobs, keys, train, steps)
    knob = jax.tree.map(lambda leaf: leaf[0], knobs)
    defects, numbers = {}, {}
    # All three fields at the same weights, those that EMA has reached.
    for method in ("sg", "ema", "objective"):
        other = program._replace(recipe=recipe.with_(system=method))

        def one(pair: Any, other: Any = other):
            state, key = pair
            batch = draw(other, train, jax.random.fold_in(key, 2**31 - 3), 32)
            return network_defect(other, state, knob, batch, probes=probes, key=key)

        single = jax.tree.map(lambda leaf: leaf[:, 0], states)
        defect = jax.jit(lambda pairs, one=one: jax.lax.map(one, pairs))((single, keys))
        defects[method] = np.asarray(defect.value)
        numbers[f"{method}: ‖J − Jᵀ‖/‖J‖"] = [float(f"{value:.3g}") for value in defect.value]
        numbers[f"{method}: largest standard error"] = float(f"{np.max(defect.standard_error):.2g}")
        numbers[f"{method}: ‖J‖"] = [float(f"{value:.3g}") for value in defect.norm]
    # A hundred times what rounding in single precision leaves of the objective's symmetric Jacobian.
    found = {
        f"{name}: far from a gradient": direction(defects[name], 100 * defects["objective"]) for name in ("sg", "ema")
    }
    found["objective: a gradient up to rounding"] = direction(np.full(seeds, 1e-3), defects["objective"])
    about = xr.Dataset(coords={"seed": np.arange(seeds)}, attrs={"data": "digits", "steps": steps})
    return judge("P-3.2-networks", about, found, numbers)
