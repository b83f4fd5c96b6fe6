"""The tables' cells trained: what several cells share once, how many seeds each needs, finished parts kept on disk."""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ...checks import whole_number
from ...data import load_dataset
from ...data.base import Dataset, Split
from ...networks.recipe import Knobs, Recipe
from ...networks.train import train
from ...provenance import sources_of
from ...storage import write_text
from .ablations import TABLES, Cell, Table, at_cells
from .pilot import FILE, PILOT_SEEDS, planned_seeds

Progress = Callable[[int, int], None]
_POINTS = 10  # measurements along a training
_TOGETHER = 5  # settings of one program: more do not run faster, and compile anew
FAST_STEPS, FAST_SEEDS = 40, 2  # in place of the base's steps and of the seeds


class _Job(NamedTuple):
    """What cells may share: they differ in knobs alone."""

    data: str
    random_labels: bool
    recipe: Recipe
    probes: int


def run_tables(
    tables: Sequence[Table],
    *,
    seeds: int | None = 5,
    first_seed: int = 0,
    fast: bool = False,
    data: str | None = None,
    keep: Path | None = None,
    progress: Progress | None = None,
    between: Callable[[], Any] | None = None,
) -> dict[str, xr.Dataset]:
    """Train every cell of these tables from its seeds; what several cells share is trained once.

    Args:
        tables: of `TABLES`.
        seeds: random starts a cell, at least 2; all cells of a seed share start (where shapes agree) and batches.
            None: as many as the pilot asks for, see `pilot.planned_seeds`.
        first_seed: the first of them; the pilot's are 0 to 4.
        fast: a few steps and two seeds: shows that it runs, no more.
        data: another data set, by name; default: each table's own.
        keep: a folder for finished parts: a run that was stopped goes on from them. What another version of the
            networks' or the data's code wrote is not used.
        progress: called with network steps done and network steps in all.
        between: called after each program's trainings, as to forget what was compiled.

    Returns:
        A dataset by table's id, over (cell, seed, share), `share` of the training; coordinates row, column, published,
        and `seeds`, how many each cell has: values of the others are NaN.
        Measurements as `networks.run.train` gives them, accuracies NaN where they were not probed.
    """
    if seeds is not None:
        seeds = FAST_SEEDS if fast else whole_number("seeds", seeds, low=2)
    count_of = lambda table, cell: FAST_SEEDS if fast else seeds or planned_seeds(table, cell)  # noqa: E731
    wanted: dict[_Job, dict[Knobs, int]] = {}
    for table in tables:
        for cell in table.cells:
            knobs = wanted.setdefault(_job(table, cell, fast, data), {})
            setting = table.knobs.with_(**cell.knobs)
            knobs[setting] = max(knobs.get(setting, 0), count_of(table, cell))
    parts = [(job, chunk, count) for job, knobs in wanted.items() for chunk, count in _parts(knobs)]
    whole = sum(job.recipe.steps * len(chunk) * count for job, chunk, count in parts)
    done = 0
    runs: dict[tuple[_Job, Knobs], xr.Dataset] = {}
    for place, (job, chunk, count) in enumerate(parts):
        report = None
        if progress is not None:
            weight = len(chunk) * count
            report = lambda at, _, w=weight, d=done: progress(d + w * at, whole)  # noqa: E731
        found = _kept(keep, job, chunk, range(first_seed, first_seed + count), fast, report)
        for index, setting in enumerate(chunk):
            runs[job, setting] = found.isel(setting=index)
        done += len(chunk) * count * job.recipe.steps
        is_last = place + 1 == len(parts) or parts[place + 1][0] != job
        if between is not None and is_last:
            between()
    return {table.id: _joined(table, runs, fast, data, count_of) for table in tables}


def _job(table: Table, cell: Cell, fast: bool, data: str | None) -> _Job:
    steps = (FAST_STEPS if fast else table.base.steps) * table.length
    probes = min(table.probes, 2) if fast and table.length == 1 else table.probes
    return _Job(data or table.data, cell.random_labels, table.base.with_(**cell.recipe, steps=steps), probes)


def _parts(knobs: dict[Knobs, int]) -> list[tuple[list[Knobs], int]]:
    """Settings that need as many seeds, in chunks of one size each."""
    found = []
    for count in sorted(set(knobs.values())):
        found += [(chunk, count) for chunk in _chunks([each for each, seeds in knobs.items() if seeds == count])]
    return found


def _padded(count: int) -> int:
    chunks = -(-count // _TOGETHER)
    return chunks * -(-count // chunks)


def _chunks(settings: list[Knobs]) -> list[list[Knobs]]:
    """Settings in chunks of one size, the last one filled up with its last setting, so that one program serves all."""
    size = _padded(len(settings)) // -(-len(settings) // _TOGETHER)
    parts = [settings[at : at + size] for at in range(0, len(settings), size)]
    return [part + part[-1:] * (size - len(part)) for part in parts]


def _kept(
    keep: Path | None, job: _Job, chunk: list[Knobs], seeds: range, fast: bool, report: Progress | None
) -> xr.Dataset:
    """The trainings of a part, read where they were kept."""
    if keep is None:
        return _trained(job, chunk, seeds, fast, report)
    settings = (job, chunk, seeds, fast, _POINTS, _sources(), jax.__version__, str(jnp.zeros(()).dtype))
    path = keep / f"{hashlib.sha256(repr(settings).encode()).hexdigest()[:24]}.nc"
    found = _read(path)
    if found is None:
        found = _trained(job, chunk, seeds, fast, report)
        content = bytes(found.to_netcdf(engine="scipy", format="NETCDF3_64BIT"))
        keep.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(hashlib.sha256(content).digest() + content)
        part.replace(path)
    return found


def _read(path: Path) -> xr.Dataset | None:
    """A kept part; None where there is none, or it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        return None
    return xr.load_dataset(io.BytesIO(content[32:]), engine="scipy")


def _sources() -> str:
    """A digest of the code that decides what a training gives; what a table asks for is part of the settings."""
    return sources_of("networks.train", "data")


def _trained(job: _Job, chunk: list[Knobs], seeds: range, fast: bool, report: Progress | None) -> xr.Dataset:
    # A short run is measured only when it is probed: that spares a program to compile.
    points = job.probes if fast else _POINTS
    dataset, every = load_dataset(job.data), max(1, job.recipe.steps // points)
    if job.random_labels:
        dataset = _with_random_labels(dataset)
    probe_every = every * (points // job.probes) if dataset.n_classes else None
    return train(dataset, job.recipe, chunk, seeds=len(seeds), first_seed=seeds[0], every=every,
                 probe_every=probe_every, progress=report)  # fmt: skip


def _with_random_labels(dataset: Dataset) -> Dataset:
    """The same samples, whose labels are shuffled among them."""
    rng = np.random.default_rng(0)
    shuffled = lambda part: Split(part.source, part.target, rng.permutation(part.labels))  # noqa: E731
    return Dataset(f"{dataset.name}, random labels", shuffled(dataset.train), shuffled(dataset.held_out),
                   dataset.n_classes)  # fmt: skip


def _joined(table: Table, runs: Any, fast: bool, data: str | None, count_of: Any) -> xr.Dataset:
    """The table's cells side by side."""
    counts = [count_of(table, cell) for cell in table.cells]
    parts = []
    for cell, count in zip(table.cells, counts, strict=True):
        run = runs[_job(table, cell, fast, data), table.knobs.with_(**cell.knobs)]
        parts.append(run.isel(seed=slice(0, count)))
    joined: Any = xr.concat(parts, "cell", join="outer", combine_attrs="override")
    joined = joined.assign_coords(time=joined["time"] / joined["time"][-1]).rename(time="share")
    joined = joined.assign_coords({
        name: ("cell", [getattr(cell, name) for cell in table.cells]) for name in ("row", "column", "published", "at")
    })  # fmt: skip
    joined = joined.assign_coords(seeds=("cell", counts))
    steps = (FAST_STEPS if fast else table.base.steps) * table.length
    return joined.transpose("cell", "seed", "share", ...).assign_attrs(
        table=table.id, title=table.title, source=table.source, steps=steps, published_for=table.published,
        fast=int(fast),
    )  # fmt: skip


def train_pilot(keep: Path | None = None) -> None:
    """Train the pilot's seeds of every table that probes few labels, and write their accuracies."""
    tables = [table for table in TABLES.values() if table.data != "clips"]
    found = run_tables(tables, seeds=len(PILOT_SEEDS), first_seed=PILOT_SEEDS[0], keep=keep, between=jax.clear_caches)
    told = {}
    for id, dataset in found.items():
        labels = zip(dataset["row"].values, dataset["column"].values, strict=True)
        values = [[round(float(each), 4) for each in row] for row in at_cells(dataset, "accuracy_few")]
        told[id] = dict(zip((f"{row}: {column}" for row, column in labels), values, strict=True))
    write_text(FILE, json.dumps(told, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    train_pilot()
