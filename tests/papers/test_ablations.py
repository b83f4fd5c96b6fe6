"""The ablation tables: every cell runs, equal cells are trained once, and claims turn with the numbers."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from jaxdyn.cli import main
from jaxdyn.cli.memory import forget_programs
from jaxdyn.papers.claims import CLAIMS, Judgement, trained
from jaxdyn.papers.tables import ablations
from jaxdyn.papers.tables.ablations import TABLES, at_cells, run_tables, table_text


@pytest.fixture(scope="module")
def fast():
    """Every cell of all tables, 40 steps and two seeds, with networks that compile sooner than the tables' own."""
    small = lambda base: base.with_(encoder="mlp", width=16, depth=1) if base.encoder == "conv" else base  # noqa: E731
    tables = [replace(table, base=small(table.base)) for table in TABLES.values()]
    return run_tables(tables, fast=True, between=forget_programs)


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
            assert evidence.verdict in (Judgement.REPRODUCED, Judgement.PARTLY_SEEN, Judgement.NOT_SEEN)
            assert "directions seen" in evidence.computed
    monkeypatch.setattr(ablations, "run_tables", lambda tables, **_: {table.id: fast[table.id] for table in tables})
    assert main(["ablate", "all", "--fast", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "T-Fig2: spectra, alignment and symmetry over training [T Figure 2]" in text
    assert "74.51 ± 0.47" in text
    want = {f"{id.lower()}.{end}" for id in TABLES for end in ("nc", "pdf", "png")} | {"settings.toml"}
    assert {path.name for path in tmp_path.iterdir()} == want


def test_cells_with_one_program_share_it():
    table = TABLES["T-Tbl3"]
    jobs = {ablations._job(table, cell, False, None) for cell in table.cells}
    assert len(table.cells) == 16
    assert len(jobs) == 4
    for count in range(1, 23):
        chunks = ablations._chunks([ablations.KNOBS.with_(epsilon=float(i)) for i in range(count)])
        assert len({len(chunk) for chunk in chunks}) == 1
        assert len(chunks[0]) <= 5
        assert list(dict.fromkeys(knob.epsilon for chunk in chunks for knob in chunk)) == list(range(count))
        assert sum(map(len, chunks)) == ablations._padded(count)


def _made_up(id, accuracy):
    """A table whose accuracies are given by a function of the cell; other measurements are zero."""
    table = TABLES[id]
    rng = np.random.default_rng(0)
    values = np.array([accuracy(cell) for cell in table.cells])[:, None, None] + 0.001 * rng.normal(size=(1, 5, 11))
    labels = {
        name: ("cell", [getattr(cell, name) for cell in table.cells]) for name in ("row", "column", "published", "at")
    }
    return xr.Dataset({"accuracy_few": (("cell", "seed", "share"), values + np.zeros((len(table.cells), 5, 11)))},
                      {"share": np.linspace(0, 1, 11), **labels}, {"data": "digits", "steps": 1})  # fmt: skip


@pytest.mark.parametrize(
    ("claim", "table", "accuracy"),
    [
        ("T-Tbl1", "T-Tbl1", lambda c: 0.8 if c.column == "gradient" else 0.4),
        ("T-Tbl2", "T-Tbl2", lambda c: 0.8 if c.column == "η > 0" else 0.7),
        ("T-Tbl3", "T-Tbl3", lambda c: (0.3 if "no EMA" in c.row else 0.8) if "sym" in c.column else 0.75),
        ("T-Tbl5-networks", "T-Tbl5", lambda c: 0.8 if "η_s = 0" in c.column and "η_p >" in c.column else 0.3),
        ("T-Tbl6", "T-Tbl6", lambda c: {"ε = 0.5": 0.76, "EMA": 0.7}.get(c.column, 0.78)),
        ("T-Tbl7", "T-Tbl7", lambda c: 0.8 if "-" in c.column else (0.5 if "1" in c.row else 0.7)),
        ("T-Tbl8", "T-Tbl8", lambda c: {"gradient": 0.7, "DirectPred": 0.8}.get(c.row, 0.82)),
        ("T-Tbl9", "T-Tbl9", lambda c: 0.6 if c.column == "linear" else 0.7),
        ("T-Fig6", "T-Fig6", lambda c: 0.3 if c.column == "α_p = 1" and "no" in c.row else 0.7),
    ],
)  # fmt: skip
def test_verdicts_follow_from_the_numbers(claim, table, accuracy, monkeypatch):
    monkeypatch.setattr(trained, "_table", lambda id, quick: _made_up(table, accuracy))
    evidence = CLAIMS[claim].compute(False)
    assert evidence.verdict == Judgement.REPRODUCED, evidence
    monkeypatch.setattr(trained, "_table", lambda id, quick: _made_up(table, lambda cell: 1 - accuracy(cell)))
    evidence = CLAIMS[claim].compute(False)
    assert evidence.verdict != Judgement.REPRODUCED
    assert "reversed" in str(evidence.numbers)
    monkeypatch.setattr(trained, "_table", lambda id, quick: _made_up(table, lambda cell: 0.5))
    assert CLAIMS[claim].compute(False).verdict == Judgement.NOT_SEEN


def _series(id, **values):
    """A table over 11 shares whose measurements are given by functions of (cell, share) -> number or array [mode]."""
    table, rng = TABLES[id], np.random.default_rng(0)
    share = np.linspace(0, 1, 11)
    made = {}
    for name, value in values.items():
        numbers = np.array([[[value(cell, s) for s in share] for _ in range(5)] for cell in table.cells], float)
        jitter = 1e-6 * rng.normal(size=(1, 5, 1))
        axes = ("cell", "seed", "share", "mode")[: numbers.ndim]
        made[name] = (axes, numbers + (jitter[..., None] if numbers.ndim == 4 else jitter))
    labels = {
        name: ("cell", [getattr(cell, name) for cell in table.cells]) for name in ("row", "column", "published", "at")
    }
    return xr.Dataset(made, {"share": share, **labels}, {"data": "digits", "steps": 1})


def _probed(cell, share):
    return 0.3 + (0.2 * share if cell.column == "EMA" else 0.1 * min(share, 0.5) - 0.08 * max(share - 0.5, 0))


GOOD = {
    "P-Fig2": {
        "energy": lambda c, s: 1 + (s - 0.3) ** 2,
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
        "f_eigenvalue": lambda c, s: [10 ** (3 * s), 1.0, 0.1],
    },
    "P-collapse": {
        "energy": lambda c, s: 0.0 if c.column == "objective" else 0.1,
        "spread": lambda c, s: 0.0 if c.column == "objective" or "no" in c.row else 0.4,
        "accuracy_few": lambda c, s: 0.3 if c.column == "objective" else 0.8,
    },
}
TURNED = [
    ("P-Fig2", "P-Fig2", {"energy": lambda c, s: 2 - s}),
    ("P-Fig2", "P-Fig2", {"increment_encoder": lambda c, s: 0.01**s}),
    ("P-Fig2", "P-Fig2", {"accuracy_attentive": lambda c, s: 0.3 + 0.1 * s}),
    ("T-Fig2", "T-Fig2", {"cosine": lambda c, s: 1 - s}),
    ("T-Fig2", "T-Fig2", {"asymmetry": lambda c, s: 1.0}),
    ("T-Fig2", "T-Fig2", {"negative": lambda c, s: s}),
    ("T-Fig2", "T-Fig2", {"f_eigenvalue": lambda c, s: [1.0, 1.0, 1.0]}),
    ("P-3.1", "P-collapse", {"energy": lambda c, s: 0.1}),
    ("P-3.1", "P-collapse", {"spread": lambda c, s: 0.001}),
    ("P-4.3-networks", "P-collapse", {"spread": lambda c, s: 0.4}),
    ("P-4.3-networks", "P-collapse", {"accuracy_few": lambda c, s: 0.8}),
]


@pytest.mark.parametrize(("claim", "table", "change"), TURNED)
def test_verdicts_on_courses_of_training_turn(claim, table, change, monkeypatch):
    monkeypatch.setattr(trained, "_table", lambda id, quick: _series(table, **GOOD[table]))
    assert CLAIMS[claim].compute(False).verdict == Judgement.REPRODUCED
    monkeypatch.setattr(trained, "_table", lambda id, quick: _series(table, **(GOOD[table] | change)))
    assert CLAIMS[claim].compute(False).verdict in (Judgement.PARTLY_SEEN, Judgement.NOT_SEEN)


def test_a_direction_needs_two_standard_errors():
    noise = np.array([-1.0, 1.0, -1.0, 1.0, 0.0])
    error = noise.std(ddof=1) / np.sqrt(5)
    assert trained.direction(noise + 2.1 * error, np.zeros(5))[0] == 1
    assert trained.direction(noise + 1.9 * error, np.zeros(5))[0] == 0
    assert trained.direction(noise - 2.1 * error, np.zeros(5))[0] == -1
    assert trained.direction(np.full(5, np.nan), np.zeros(5))[0] == 0
