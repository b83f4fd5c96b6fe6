"""`jaxdyn trials`: the table of the random m = 1 experiment, its data and its figures."""

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro

from ..checks import one_of, whole_number
from ..names import DTYPES, ENGINES, SYSTEMS
from ..progress import progress_bar
from ..storage import check_folder, save_dataset, save_figure, save_settings, staged
from ..trials.scalar_laws import ScalarLaws
from ..trials.starts import Starts, Stopping
from .settings import as_toml, read_settings

Part = TypeVar("Part")


@dataclass(frozen=True)
class Settings(ScalarLaws, Starts, Stopping):
    """Random trials at m = 1: draw ρ, τ, λ and starting weights, train, and say where each trial ends.

    Prints the table of outcomes beside the published percentages (P §5), and writes the data, the
    settings and figures. The default settings are ours: the paper states the laws of ρ, τ and λ alone.
    """

    system: tyro.conf.Suppress[Literal["sg", "ema", "objective"]] = "ema"  # the one that has every setting
    systems: tuple[Literal["sg", "ema", "objective"], ...] = ("sg", "ema")
    """Which procedures to run."""
    ema_decay: float = ScalarLaws.ema_decay  # type: ignore[assignment]
    """Decay α in [0, 1] of the moving-average teacher, per step: C ← αC + (1 − α)A. C(0) = A(0)."""
    ema_rises_over: int | None = None
    """If given, α rises to 1 over so many steps, as BYOL's does: α(k) = 1 − (1 − α)(1 + cos(πk/K))/2."""
    n_trials: int = 10_000
    """Number of trials of each system."""
    seed: int = 0
    """Seed of the experiment; trial i depends on (seed, i) alone."""
    engine: Literal[ENGINES] = "auto"  # type: ignore[valid-type]
    """What runs the trials."""
    dtype: Literal["float64", "float32"] = "float64"
    """Precision of the runs."""
    batch_size: int | None = None
    """Trials drawn and held at once; bounds memory, changes no result."""
    sensitivity: bool = False
    """Also vary the initial law, n and ema_decay of SG and EMA: a figure of the family around the published pair."""
    sensitivity_trials: int = 2000
    """Trials of each setting in --sensitivity."""
    out: Path = Path("results/trials")
    """Folder for the data, the settings and the figures."""
    force: bool = False
    """Replace the results that are in the folder."""
    config: Path | None = None
    """A TOML file with any of these settings; the command line overrides it."""

    def __post_init__(self):
        for kind in (ScalarLaws, Starts, Stopping):
            kind.__post_init__(self)
        whole_number("n_trials", self.n_trials)
        whole_number("seed", self.seed, low=0, high=2**32 - 1)
        whole_number("sensitivity_trials", self.sensitivity_trials)
        if not self.systems or len(set(self.systems)) < len(self.systems):
            raise ValueError(f"systems: expected different names, got {' '.join(self.systems) or 'none'}")
        for name in self.systems:
            one_of("systems", name, tuple(SYSTEMS))
        one_of("engine", self.engine, ENGINES)
        one_of("dtype", self.dtype, DTYPES)
        if self.dtype == "float32" and self.tolerance < 1e-6:
            raise ValueError(f"tolerance: float32 cannot resolve {self.tolerance:g}; use at least 1e-6, or float64")
        if self.batch_size is not None:
            whole_number("batch_size", self.batch_size)
        if self.sensitivity_trials != Settings.sensitivity_trials and not self.sensitivity:
            raise ValueError("sensitivity_trials: it belongs to --sensitivity")
        if self.ema_decay != ScalarLaws.ema_decay and "ema" not in self.systems and not self.sensitivity:
            raise ValueError(f"ema_decay: it belongs to system ema, got {self.ema_decay!r} for {self.systems}")
        if self.ema_rises_over is not None:
            whole_number("ema_rises_over", self.ema_rises_over)
            if "ema" not in self.systems:
                raise ValueError("ema_rises_over: it belongs to system ema")
            if self.sensitivity:
                raise ValueError("ema_rises_over: --sensitivity varies constant decays")

    def part(self, kind: type[Part], **changes: Any) -> Part:
        """The settings that are of one kind: `ScalarLaws`, `Starts` or `Stopping`."""
        return kind(**({field.name: getattr(self, field.name) for field in dataclasses.fields(kind)} | changes))  # type: ignore[arg-type]


def main(arguments: list[str]) -> int:
    settings = read_settings(Settings, "trials", arguments)
    folder = check_folder(settings.out, force=settings.force)
    began = time.perf_counter()

    from ..papers.figures.portrait import portrait
    from ..papers.published import PUBLISHED
    from ..schedules import byol_decay
    from ..trials.run import run_trials
    from ..trials.shares import table

    starts, stopping, results = settings.part(Starts), settings.part(Stopping), {}
    for system in settings.systems:
        changes: dict[str, Any] = {"system": system}
        if system != "ema":
            changes["ema_decay"] = ScalarLaws.ema_decay
        if system == "ema" and settings.ema_rises_over is not None:
            changes["ema_decay"] = byol_decay(settings.ema_decay, settings.ema_rises_over)
        with progress_bar(settings.n_trials, system.upper()) as progress:
            results[system] = run_trials(
                settings.part(ScalarLaws, **changes), settings.n_trials, starts=starts, stopping=stopping,
                seed=settings.seed, engine=settings.engine, dtype=settings.dtype, batch_size=settings.batch_size,
                progress=progress,
            )  # fmt: skip
    files = {"trials.nc": _together(results), "trajectories.nc": portrait()}
    if settings.sensitivity:
        files["sensitivity.nc"] = _sensitivity(settings)
    with staged(folder, force=settings.force) as stage:
        written = [save_dataset(dataset, stage / name) for name, dataset in files.items()]
        written.append(save_settings(as_toml(settings), stage / "settings.toml"))
        written += _draw(stage, files, results)
    ours = (
        " (default settings: ours, chosen inside\nthe family that gives the published pair)"
        if (settings.part(ScalarLaws), settings.part(Starts), settings.part(Stopping))
        == (ScalarLaws("ema"), Starts(), Stopping())
        and settings.ema_rises_over is None
        else ""
    )
    print(f"m = 1, n = {settings.n or 2}, {settings.n_trials:,} trials of each system, seed {settings.seed}{ours}\n")
    print(table(results, published=PUBLISHED))
    seconds = time.perf_counter() - began
    print(f"\nwrote {', '.join(path.name for path in written)}\nto {settings.out} in {seconds:.1f} s")
    return 0


def _together(results: Any):
    """One dataset of all systems, the draws they share without the system axis."""
    import xarray as xr

    shared = ["rho", "tau", "weight_decay", "lr", "discriminant", "epsilon", "start_radius"]
    first = next(iter(results.values()))
    parts = [dataset.drop_vars(shared) for dataset in results.values()]
    joined = xr.concat(parts, xr.Variable("system", list(results)), combine_attrs="drop")
    together = xr.merge([first[shared], joined], combine_attrs="drop")
    for name, variable in together.data_vars.items():
        variable.attrs.update(first[name].attrs)
    own = json.loads(first.attrs["settings"]) | {"system": list(results)}
    return together.assign_attrs(
        first.attrs | {"title": "m = 1 trials", "system": ", ".join(results), "settings": json.dumps(own)}
    )


def _sensitivity(settings: Settings):
    from ..papers.figures.sensitivity import n_sensitivity_trials, sensitivity

    laws, starts = settings.part(ScalarLaws), settings.part(Starts)
    with progress_bar(n_sensitivity_trials(laws, starts, settings.sensitivity_trials), "sensitivity") as progress:
        return sensitivity(
            laws, settings.sensitivity_trials, starts=starts, stopping=settings.part(Stopping), seed=settings.seed,
            engine=settings.engine, dtype=settings.dtype, batch_size=settings.batch_size, progress=progress,
        )  # fmt: skip


def _draw(folder: Path, files: Any, results: Any) -> list[Path]:
    from ..papers.published import PUBLISHED
    from ..plotting.style import figure
    from ..plotting.trials import outcome_map, sensitivity_panels, trajectory_panels

    written = []
    with figure(1, 3, height=2.7) as (fig, axes):
        trajectory_panels(axes, files["trajectories.nc"])
        written += save_figure(fig, folder / "trajectories")
    with figure(1, len(results), height=3.2) as (fig, axes):
        for ax, (system, dataset) in zip(axes, results.items(), strict=True):
            outcome_map(ax, dataset, system)
        written += save_figure(fig, folder / "outcomes")
    if "sensitivity.nc" in files:
        outer = {name: numbers["outer"] for name, numbers in PUBLISHED.items()}
        with figure(2, 2, height=6.0) as (fig, axes):
            sensitivity_panels(axes, files["sensitivity.nc"], outer)
            written += save_figure(fig, folder / "sensitivity")
    return written
