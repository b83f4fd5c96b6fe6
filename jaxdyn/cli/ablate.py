"""`jaxdyn ablate`: the papers' tables of trained networks, at small scale, with the published numbers beside them."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..checks import whole_number
from ..progress import progress_to
from ..storage import check_folder, save_dataset, save_figure, save_settings, staged
from .memory import forget_programs
from .settings import as_toml, read_settings


@dataclass(frozen=True)
class Settings:
    """Train every cell of tables of the papers, from several seeds, and print them beside the published numbers.

    Directions of effect are what can be compared: data and networks are small. Writes data, settings and figures.
    """

    tables: Annotated[tuple[str, ...], tyro.conf.Positional] = ("all",)
    """Ids such as T-Tbl3 or P-Fig2, or all."""
    seeds: int = 5
    """Random starts of each cell."""
    fast: bool = False
    """40 steps and two seeds: shows that everything runs, no more."""
    data: str | None = None
    """Another data set for all of them (see `jaxdyn train --help`); default: each table's own."""
    out: Path = Path("results/ablate")
    """Folder for the data, the settings and the figures."""
    force: bool = False
    """Replace the results that are in the folder."""
    config: Path | None = None
    """A TOML file with any of these settings; the command line overrides it."""

    def __post_init__(self):
        whole_number("seeds", self.seeds, low=2)


def main(arguments: list[str]) -> int:
    settings = read_settings(Settings, "ablate", arguments)
    folder = check_folder(settings.out, force=settings.force)
    began = time.perf_counter()

    from ..papers.tables.ablations import TABLES, table_text
    from ..papers.tables.running import run_tables

    names = {name.lower(): name for name in TABLES}
    wanted = list(names) if "all" in settings.tables else [name.lower() for name in settings.tables]
    for name in wanted:
        if name not in names:
            raise ValueError(f"tables: unknown table {name!r}; there are {', '.join(TABLES)}, or all")
    chosen = [TABLES[names[name]] for name in dict.fromkeys(wanted)]
    with progress_to(1000, "training", "‰") as report:
        found = run_tables(
            chosen, seeds=settings.seeds, fast=settings.fast, data=settings.data,
            progress=lambda done, whole: report(1000 * done // whole), between=forget_programs,
        )  # fmt: skip
    with staged(folder, force=settings.force) as stage:
        save_settings(as_toml(settings), stage / "settings.toml")
        for name, dataset in found.items():
            save_dataset(dataset, stage / f"{name.lower()}.nc")
            _draw(stage, name, dataset)
    for dataset in found.values():
        print(f"{table_text(dataset)}\n")
    seconds = time.perf_counter() - began
    print(f"wrote data (.nc) and figures of {len(found)} tables to {settings.out} in {seconds:.1f} s")
    return 0


def _draw(folder: Path, name: str, dataset: Any) -> None:
    from ..papers.tables.ablations import at_cells
    from ..plotting.style import figure
    from ..plotting.training import ablation_points, spectra_over_training, video_panels

    if name == "T-Fig2":
        with figure(2, 4, height=3.8) as (fig, axes):
            spectra_over_training(axes, dataset)
            save_figure(fig, folder / name.lower())
    elif name == "P-Fig2" and "accuracy_attentive" in dataset:
        with figure(1, 3, height=2.6) as (fig, axes):
            video_panels(axes, dataset)
            save_figure(fig, folder / name.lower())
    elif "accuracy_few" in dataset:
        with figure(1, 1, width=5.0, height=1.1 + 0.22 * dataset.sizes["cell"]) as (fig, axes):
            ablation_points(
                axes[0], dataset, at_cells(dataset, "accuracy_few"), at_cells(dataset, "accuracy_embedding")
            )
            save_figure(fig, folder / name.lower())
