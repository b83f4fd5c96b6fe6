"""The ablation tables: every cell runs, equal cells are trained once, and claims turn with the numbers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from jaxdyn.cli import main
from jaxdyn.cli.memory import forget_programs
from jaxdyn.data.bundled import photographs
from jaxdyn.papers.claims import CLAIMS, Judgement, Result, trained
from jaxdyn.papers.claims.telling import as_json
from jaxdyn.papers.tables import ablations, pilot, running
from jaxdyn.papers.tables.ablations import TABLES, at_cells, table_text
from jaxdyn.papers.tables.running import run_tables


@pytest.fixture(scope="module")
def fast():
    """Every cell of all tables, 40 steps and two seeds, with networks that compile sooner than the tables' own."""
    small = lambda base: base.with_(encoder="mlp", width=16, depth=1) if base.encoder == "conv" else base  # noqa: E731
    tables = [replace(table, base=small(table.base)) for table in TABLES.values()]
    return run_tables(tables, fast=True, between=forget_programs)


def is_answered(evidence):
    return evidence.as_printed in set(Judgement) - {Judgement.NOT_TESTABLE}


@pytest.mark.slow  # compiles a dozen training programs
def test_every_table_runs_fast_and_is_judged_and_drawn(fast, monkeypatch, tmp_path, capsys):
    assert set(fast) == set(TABLES)
    for id, dataset in fast.items():
        table = TABLES[id]
        assert dataset.sizes["cell"] == len(table.cells)
        assert dataset.sizes["seed"] == 2
        values = at_cells(dataset, "accuracy_few")
        assert np.isfinite(values).all(), id
        text = table_text(dataset)
        for cell in table.cells:
            assert cell.published in text
        assert str(dataset.attrs["steps"]) in text
    # The same setting in two tables is the same run.
    one, other = (at_cells(fast[id], "energy") for id in ("T-Tbl3", "T-Fig6"))
    np.testing.assert_array_equal(one[4], other[0])  # symmetric, no EMA, no bias; α_p = 1
    monkeypatch.setattr(trained, "_table", lambda id, quick: fast[id])
    for id in [*TABLES, "P-3.1", "P-4.3-networks"]:
        if id != "P-collapse":
            evidence = CLAIMS["T-Tbl5-networks" if id == "T-Tbl5" else id].compute(True)
            assert is_answered(evidence)
            assert "2 seeds from 5 on" in evidence.method
            json.dumps(as_json(CLAIMS["T-Tbl5-networks" if id == "T-Tbl5" else id], evidence), allow_nan=False)
    monkeypatch.setattr(running, "run_tables", lambda tables, **_: {table.id: fast[table.id] for table in tables})
    assert main(["ablate", "all", "--fast", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "T-Fig2: spectra, alignment and symmetry over training [T Figure 2]" in text
    assert "74.51 ± 0.47" in text
    want = {f"{id.lower()}.{end}" for id in TABLES for end in ("nc", "pdf", "png")} | {"settings.toml"}
    assert {path.name for path in tmp_path.iterdir()} == want


def test_cells_with_one_program_share_it():
    table = TABLES["T-Tbl3"]
    jobs = {running._job(table, cell, False, None) for cell in table.cells}
    assert len(table.cells) == 16
    assert len(jobs) == 4
    for count in range(1, 23):
        chunks = running._chunks([ablations.KNOBS.with_(epsilon=float(i)) for i in range(count)])
        assert len({len(chunk) for chunk in chunks}) == 1
        assert len(chunks[0]) <= 5
        assert list(dict.fromkeys(knob.epsilon for chunk in chunks for knob in chunk)) == list(range(count))
        assert sum(map(len, chunks)) == running._padded(count)


def _made_up(id, accuracy):
    """A table whose accuracies are given by a function of the cell, and a little noise."""
    return _series(id, accuracy_few=lambda cell, share: accuracy(cell))


@pytest.mark.parametrize(
    ("claim", "table", "accuracy"),
    [
        ("T-Tbl1", "T-Tbl1", lambda c: 0.8 if c.column == "gradient" else 0.4),
        ("T-Tbl2", "T-Tbl2", lambda c: 0.8 if c.column == "η > 0" else 0.7),
        ("T-Tbl3", "T-Tbl3", lambda c: (0.3 if "no EMA" in c.row else 0.77) if "sym" in c.column else 0.75),
        ("T-Tbl5-networks", "T-Tbl5", lambda c: 0.8 if "η_s = 0" in c.column and "η_p >" in c.column else 0.3),
        ("T-Tbl6", "T-Tbl6", lambda c: {"ε = 0.5": 0.76, "EMA": 0.7}.get(c.column, 0.78)),
        ("T-partitions", "T-partitions", lambda c: 0.75 if c.column == "DirectPred" else 0.78),
        ("T-more-steps", "T-more-steps", lambda c: 0.8 if c.row == "regular, EMA" else 0.78 if c.column[0] in "25" and
         "20" not in c.column else 0.7),
        ("T-Tbl7", "T-Tbl7", lambda c: (0.5 if "1" in c.row else 0.7) if "= 0." in c.column else 0.8),
        ("T-Tbl8", "T-Tbl8", lambda c: {"gradient": 0.7, "DirectPred": 0.8}.get(c.row, 0.82)),
        ("T-Tbl9", "T-Tbl9", lambda c: 0.6 if c.column == "linear" else 0.7),
        ("T-Fig6", "T-Fig6", lambda c: 0.3 if c.column == "α_p = 1" and "no" in c.row else 0.7),
    ],
)  # fmt: skip
def test_verdicts_follow_from_the_numbers(claim, table, accuracy, monkeypatch):
    holds, answers = lambda found: {each.printed for each in found.clauses}, {Result.HOLDS, Result.UNTESTED}
    monkeypatch.setattr(trained, "_table", lambda id, quick: _made_up(table, accuracy))
    evidence = CLAIMS[claim].compute(False)
    assert holds(evidence) <= answers, evidence
    assert evidence.as_printed in (Judgement.REPRODUCED, Judgement.IN_PART)
    monkeypatch.setattr(trained, "_table", lambda id, quick: _made_up(table, lambda cell: 1 - accuracy(cell)))
    assert Result.FAILS in holds(CLAIMS[claim].compute(False))
    monkeypatch.setattr(trained, "_table", lambda id, quick: _made_up(table, lambda cell: 0.5))
    evidence = CLAIMS[claim].compute(False)
    # Cells that are alike say nothing of directions; only what is claimed to be alike holds.
    for each in evidence.clauses:
        if any(words in each.text for words in ("alike", "no harm", "about as good", "slightly")):
            assert each.printed is Result.HOLDS, each
        else:
            assert each.printed in (Result.OPEN, Result.UNTESTED), each


def _series(id, **values):
    """A table over 11 shares whose measurements are given by functions of (cell, share) -> number or array [mode]."""
    table, rng = TABLES[id], np.random.default_rng(0)
    share = np.linspace(0, 1, 11)
    made = {}
    for name, value in values.items():
        numbers = np.array([[[value(cell, s) for s in share] for _ in range(5)] for cell in table.cells], float)
        axes = ("cell", "seed", "share", "mode")[: numbers.ndim]
        made[name] = (axes, numbers + 1e-6 * rng.normal(size=numbers.shape))
    labels = {
        name: ("cell", [getattr(cell, name) for cell in table.cells]) for name in ("row", "column", "published", "at")
    }
    labels["seeds"] = ("cell", [5] * len(table.cells))
    return xr.Dataset(made, {"share": share, **labels}, {"data": "digits", "steps": 1})


def _probed(cell, share):
    if cell.column == "objective":
        return 0.3
    if cell.random_labels:
        return 1 / len(photographs())
    return 0.3 + (0.2 * share if cell.column == "EMA" else 0.1 * min(share, 0.5) - 0.08 * max(share - 0.5, 0))


GOOD = {
    "P-Fig2": {
        "energy": lambda c, s: 1 + (s - 0.3) ** 2,
        "surrogate": lambda c, s: 1 + (s - 0.3) ** 2,
        "increment_encoder": lambda c, s: 1.0,
        "increment_predictor": lambda c, s: 1.0,
        "increment_teacher": lambda c, s: 1.0,
        "accuracy_attentive": _probed,
    },
    "T-Fig2": {
        "cosine": lambda c, s: s,
        "cosine_weighted": lambda c, s: s,
        "asymmetry": lambda c, s: 1.4 * (1 - s),
        "negative": lambda c, s: 0.5 * (1 - s),
        "f_eigenvalue": lambda c, s: [10 ** (3 * s), 10**-s, 0.1 * 10**-s],
    },
    "P-collapse": {
        "energy": lambda c, s: 0.0 if c.column == "objective" else 0.1,
        "spread": lambda c, s: 0.0 if c.column == "objective" or "no" in c.row else 0.4,
        "accuracy_few": lambda c, s: 0.3 if c.column == "objective" else 0.8,
    },
}
TURNED = [
    ("P-Fig2", "P-Fig2", {"energy": lambda c, s: 2 - s}),
    ("P-Fig2", "P-Fig2", {"surrogate": lambda c, s: 2 - s}),
    ("P-Fig2", "P-Fig2", {"increment_encoder": lambda c, s: 0.01**s}),
    ("P-Fig2", "P-Fig2", {"accuracy_attentive": lambda c, s: 0.3 + 0.1 * s}),
    ("T-Fig2", "T-Fig2", {"cosine": lambda c, s: 1 - s}),
    ("T-Fig2", "T-Fig2", {"asymmetry": lambda c, s: 1.0}),
    ("T-Fig2", "T-Fig2", {"negative": lambda c, s: s}),
    ("T-Fig2", "T-Fig2", {"f_eigenvalue": lambda c, s: [1.0, 1.0, 1.0]}),
    ("T-Fig2", "T-Fig2", {"f_eigenvalue": lambda c, s: [10 ** (3 * s), 1.0, 0.1]}),  # none shrinks
    ("P-3.1", "P-collapse", {"energy": lambda c, s: 0.1}),
    ("P-3.1", "P-collapse", {"spread": lambda c, s: 0.001}),
    ("P-4.3-networks", "P-collapse", {"spread": lambda c, s: 0.4}),
    ("P-4.3-networks", "P-collapse", {"accuracy_few": lambda c, s: 0.8}),
]


@pytest.mark.parametrize(("claim", "table", "change"), TURNED)
def test_verdicts_on_courses_of_training_turn(claim, table, change, monkeypatch):
    monkeypatch.setattr(trained, "_table", lambda id, quick: _series(table, **GOOD[table]))
    assert CLAIMS[claim].compute(False).as_printed == Judgement.REPRODUCED
    monkeypatch.setattr(trained, "_table", lambda id, quick: _series(table, **(GOOD[table] | change)))
    assert CLAIMS[claim].compute(False).as_printed != Judgement.REPRODUCED


def test_seeds_are_planned_by_a_pilot_on_other_seeds():
    assert not set(pilot.PILOT_SEEDS) & set(range(pilot.FIRST_SEED, pilot.FIRST_SEED + pilot.MANY))
    assert pilot.is_bimodal([0.1, 0.12, 0.8, 0.82, 0.79])
    assert not pilot.is_bimodal([0.7, 0.72, 0.8, 0.82, 0.79])
    assert not pilot.is_bimodal([])
    known = pilot._pilot()
    for id, table in TABLES.items():
        counts = {pilot.planned_seeds(table, cell) for cell in table.cells}
        assert counts <= {pilot.FEW, pilot.MANY}
        if id in known:
            assert set(known[id]) == {f"{cell.row}: {cell.column}" for cell in table.cells}
            assert all(len(values) == len(pilot.PILOT_SEEDS) for values in known[id].values())
            assert (pilot.MANY in counts) == any(map(pilot.is_bimodal, known[id].values()))


def test_finished_parts_are_read_and_cells_have_their_own_seeds(tmp_path, monkeypatch):
    cells = tuple(cell for cell in TABLES["T-Tbl3"].cells if cell.row == "one layer, no EMA")[:2]
    small = TABLES["T-Tbl3"].base.with_(encoder="linear", projector="linear", embedding=4, batch=8, steps=4)
    table = replace(TABLES["T-Tbl3"], cells=cells, base=small)
    trainings = []
    real = running.train
    monkeypatch.setattr(running, "train", lambda *a, **k: trainings.append(k["seeds"]) or real(*a, **k))
    monkeypatch.setattr(running, "planned_seeds", lambda table, cell: 2 + (cell is cells[1]))
    first = run_tables([table], seeds=None, first_seed=5, keep=tmp_path)["T-Tbl3"]
    assert sorted(trainings) == [2, 3]
    assert list(first["seed"].values) == [5, 6, 7]
    assert list(first["seeds"].values) == [2, 3]
    assert np.isnan(at_cells(first, "energy")[0]).tolist() == [False, False, True]
    assert "2 or 3 seeds" in table_text(first)
    again = run_tables([table], seeds=None, first_seed=5, keep=tmp_path)["T-Tbl3"]
    assert len(trainings) == 2
    np.testing.assert_array_equal(at_cells(first, "energy"), at_cells(again, "energy"))
    # Other code is another result.
    monkeypatch.setattr(running, "_sources", lambda: "changed")
    run_tables([table], seeds=None, first_seed=5, keep=tmp_path)
    assert len(trainings) == 4


def test_random_labels_are_the_same_labels_elsewhere():
    from jaxdyn.data import digits

    data = digits()
    other = running._with_random_labels(data)
    for part, shuffled in ((data.train, other.train), (data.held_out, other.held_out)):
        np.testing.assert_array_equal(part.source, shuffled.source)
        np.testing.assert_array_equal(np.sort(part.labels), np.sort(shuffled.labels))
        assert np.mean(part.labels == shuffled.labels) < 0.2
