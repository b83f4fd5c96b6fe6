"""`jaxdyn trials`: the table of the random m = 1 experiment, its data and its figures."""

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro

from ..checks import number, one_of, whole_number
from ..names import DTYPES, ENGINES, SYSTEMS
from ..progress import progress_bar
from ..storage import check_folder, save_dataset, save_figure, save_settings, staged
from ..trials.laws import Law
from ..trials.scalar_laws import ScalarLaws
from ..trials.starts import Starts, Stopping
from .settings import as_toml, read_settings

Part = TypeVar("Part")
_PORTRAIT_STEPS = 400_000


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
    fit: tuple[float, float] | None = None
    """Percentages of SG and EMA on the outer sphere, such as 82.0 92.8: first find the half-width of a uniform starting
    law and the teacher's decay that give them, say so, and run with these."""
    fit_trials: int = 4000
    """Trials of each setting that --fit tries."""
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
        self._check_fit()
        if self.ema_decay != ScalarLaws.ema_decay and "ema" not in self.systems and not self.sensitivity:
            raise ValueError(f"ema_decay: it belongs to system ema, got {self.ema_decay!r} for {self.systems}")
        if self.ema_rises_over is not None:
            whole_number("ema_rises_over", self.ema_rises_over)
            if "ema" not in self.systems:
                raise ValueError("ema_rises_over: it belongs to system ema")
            if self.sensitivity:
                raise ValueError("ema_rises_over: --sensitivity varies constant decays")

    def _check_fit(self) -> None:
        whole_number("fit_trials", self.fit_trials)
        if self.fit is None:
            if self.fit_trials != Settings.fit_trials:
                raise ValueError("fit_trials: it belongs to --fit")
            return
        for each in self.fit:
            if not 0 < number("fit", each) < 100:
                raise ValueError(f"fit: expected percentages between 0 and 100, got {each:g}")
        if {"sg", "ema"} - {*self.systems}:
            raise ValueError("fit: it is a pair of systems sg and ema, which --systems leaves out")
        for name in ("encoder", "predictor"):
            if getattr(self, name) != Law.parse(getattr(Starts, name)):
                raise ValueError(f"{name}: --fit chooses it")
        if self.ema_decay != ScalarLaws.ema_decay or self.ema_rises_over is not None:
            raise ValueError("ema_decay: --fit chooses it, a constant")

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

    if settings.fit is not None:
        settings = _fitted(settings, settings.fit)
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
    files = {"trials.nc": _together(results)}
    results = {system: files["trials.nc"].sel(system=system) for system in results}  # views of what is held once
    if (problem := _typical(results, settings)) is not None:
        files["trajectories.nc"] = portrait(**problem)
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


def _fitted(settings: Settings, pair: tuple[float, float]) -> Settings:
    """The settings with the starting law and the decay that give the pair, which are told."""
    from ..papers.published import PUBLISHED_TRIALS
    from ..trials.fit import Fitted, fit_pair

    def told(found: Fitted) -> str:
        low, high = (f"{end:.4g}" if end is not None else "beyond what was tried" for end in (found.low, found.high))
        return f"{found.value:.4g} ({low} – {high})"

    with progress_bar(None, "fit") as progress:
        fits = fit_pair(
            pair[0] / 100, pair[1] / 100, settings.fit_trials, published_trials=PUBLISHED_TRIALS,
            problem=settings.part(ScalarLaws), starts=settings.part(Starts), stopping=settings.part(Stopping),
            seed=settings.seed, engine=settings.engine, dtype=settings.dtype, batch_size=settings.batch_size,
            progress=progress,
        )  # fmt: skip
    print(f"settings that give SG {pair[0]:g} % and EMA {pair[1]:g} %, with 95 % intervals "
          f"(of {PUBLISHED_TRIALS:,} and {settings.fit_trials:,} trials):")  # fmt: skip
    for each in fits:
        decays = " or ".join(f"α = {told(decay)}" for decay in each.decays)
        none = f"EMA cannot: {100 * each.ema_low:.1f} – {100 * each.ema_high:.1f} % over all α"
        print(f"  A(0), B(0) from uniform(-h, h), h = {told(each.half_width)}; {decays or none}")
    usable = [each for each in fits if each.decays]
    if not usable:
        raise ValueError(f"fit: no α gives EMA {pair[1]:g} % where SG has {pair[0]:g} %")
    half, decay = (float(f"{each.value:.4g}") for each in (usable[0].half_width, usable[0].decays[0]))
    law = Law("uniform", (-half, half))
    print(f"the run below has h = {half:g}, α = {decay:g}\n")
    return dataclasses.replace(settings, encoder=law, predictor=law, ema_decay=decay, fit=None,
                               fit_trials=Settings.fit_trials)  # fmt: skip


def _together(results: dict[str, Any]):
    """One dataset of all systems, draws that they share without the system axis; takes the columns out of `results`."""
    import numpy as np
    import xarray as xr

    shared = ["rho", "tau", "weight_decay", "lr", "discriminant", "epsilon", "start_radius"]
    first = next(iter(results.values()))
    columns: dict[str, Any] = {}
    for name in [*first.data_vars]:
        about, values = first[name].attrs, [dataset[name].values for dataset in results.values()]
        columns[name] = (
            ("trial", values[0], about) if name in shared else (("system", "trial"), np.stack(values), about)
        )
        for system in results:
            results[system] = results[system].drop_vars(name)
    settings = json.loads(first.attrs["settings"]) | {"system": list(results)}
    attributes = {"title": "m = 1 trials", "system": ", ".join(results), "settings": json.dumps(settings)}
    coordinates = {"system": list(results), "trial": first["trial"]}
    return xr.Dataset(columns, coordinates, first.attrs | attributes)


def _sensitivity(settings: Settings):
    from ..papers.figures.sensitivity import n_sensitivity_trials, sensitivity

    laws, starts = settings.part(ScalarLaws), settings.part(Starts)
    with progress_bar(n_sensitivity_trials(laws, starts, settings.sensitivity_trials), "sensitivity") as progress:
        return sensitivity(
            laws, settings.sensitivity_trials, starts=starts, stopping=settings.part(Stopping), seed=settings.seed,
            engine=settings.engine, dtype=settings.dtype, batch_size=settings.batch_size, progress=progress,
        )  # fmt: skip


def _typical(results: Any, settings: Settings) -> dict[str, Any] | None:
    """The problem of the run's trial of median ε, among those with spheres, for `portrait`; None if there is none."""
    import numpy as np

    drawn = next(iter(results.values()))
    fine = np.flatnonzero((drawn["discriminant"].values > 0) & (drawn["weight_decay"].values > 0))
    if not fine.size:
        return None
    trial = fine[np.argsort(drawn["epsilon"].values[fine])[fine.size // 2]]
    problem = {name: float(drawn[name].values[trial]) for name in ("rho", "tau", "weight_decay")}
    rho, tau, weight_decay = problem.values()
    rate = (1 - settings.ema_decay) / float(drawn["lr"].values[trial])
    lr = min(0.02, 0.1 * rho / tau**2)  # short steps, whose paths look like the flow's
    slowest = min(weight_decay, rate) if rate > 0 else weight_decay
    return problem | {"ema_rate": rate, "lr": lr, "t1": min(30 / slowest, 2000.0, _PORTRAIT_STEPS * lr)}


def _draw(folder: Path, files: Any, results: Any) -> list[Path]:
    from ..papers.published import PUBLISHED
    from ..plotting.style import figure
    from ..plotting.trials import outcome_map, sensitivity_panels, trajectory_panels

    written = []
    if "trajectories.nc" in files:
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
