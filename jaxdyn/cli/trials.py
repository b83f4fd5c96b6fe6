"""`jaxdyn trials`: the table of the random m = 1 experiment, its data and its figures."""

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..checks import one_of, whole_number
from ..ensemble.protocol import Protocol
from ..names import ALGORITHMS, DTYPES, ENGINES
from ..storage import check_folder, save_dataset, save_figure, save_settings, staged
from .progress import progress_bar
from .settings import as_toml, read_settings


@dataclass(frozen=True)
class Settings(Protocol):
    """Random trials at m = 1: draw ρ, τ, λ and starting weights, train, and say where each trial ends.

    Prints the table of outcomes beside the published percentages (P §5), and writes the data, the
    settings and figures. The default settings are ours: the paper states the laws of ρ, τ and λ alone.
    """

    n_trials: int = 10_000
    """Number of trials of each algorithm."""
    seed: int = 0
    """Seed of the experiment; trial i depends on (seed, i) alone."""
    algorithms: tuple[Literal["sg", "ema", "objective"], ...] = ("sg", "ema")
    """Which procedures to run."""
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
    config: Path | None = None
    """A TOML file with any of these settings; the command line overrides it."""

    def __post_init__(self):
        super().__post_init__()
        whole_number("n_trials", self.n_trials)
        whole_number("seed", self.seed, low=0, high=2**32 - 1)
        whole_number("sensitivity_trials", self.sensitivity_trials)
        if not self.algorithms or len(set(self.algorithms)) < len(self.algorithms):
            raise ValueError(f"algorithms: expected different names, got {' '.join(self.algorithms) or 'none'}")
        for name in self.algorithms:
            one_of("algorithms", name, tuple(ALGORITHMS))
        one_of("engine", self.engine, ENGINES)
        one_of("dtype", self.dtype, DTYPES)
        if self.dtype == "float32" and self.tolerance < 1e-6:
            raise ValueError(f"tolerance: float32 cannot resolve {self.tolerance:g}; use at least 1e-6, or float64")
        if self.batch_size is not None:
            whole_number("batch_size", self.batch_size)

    @property
    def protocol(self) -> Protocol:
        """The settings that are the protocol's."""
        return Protocol(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Protocol)})


def main(arguments: list[str]) -> int:
    settings = read_settings(Settings, "trials", arguments)
    folder = check_folder(settings.out)
    began = time.perf_counter()

    from ..ensemble.table import format_table
    from ..ensemble.trials import run_trials
    from ..experiments.portrait import portrait

    protocol, results = settings.protocol, {}
    for algorithm in settings.algorithms:
        with progress_bar(settings.n_trials, algorithm.upper()) as progress:
            results[algorithm] = run_trials(
                algorithm,
                protocol,
                settings.n_trials,
                settings.seed,
                engine=settings.engine,
                dtype=settings.dtype,
                batch_size=settings.batch_size,
                progress=progress,
            )
    files = {"trials.nc": _together(results), "trajectories.nc": portrait()}
    if settings.sensitivity:
        files["sensitivity.nc"] = _sensitivity(settings)
    with staged(folder) as stage:
        written = [save_dataset(dataset, stage / name) for name, dataset in files.items()]
        written.append(save_settings(as_toml(settings), stage / "settings.toml"))
        written += _draw(stage, files, results)
    ours = (
        " (default protocol: ours, chosen inside\nthe family that gives the published pair)"
        if protocol == Protocol()
        else ""
    )
    print(f"m = 1, n = {protocol.n}, {settings.n_trials:,} trials of each algorithm, seed {settings.seed}{ours}\n")
    print(format_table(results))
    print(f"\nwrote {', '.join(path.name for path in written)}\nto {folder} in {time.perf_counter() - began:.1f} s")
    return 0


def _together(results):
    """One dataset of all algorithms, the draws they share without the algorithm axis."""
    import xarray as xr

    shared = ["rho", "tau", "weight_decay", "lr", "discriminant", "epsilon", "start_radius"]
    first = next(iter(results.values()))
    parts = [dataset.drop_vars(shared) for dataset in results.values()]
    joined = xr.concat(parts, xr.Variable("algorithm", list(results)), combine_attrs="drop")
    together = xr.merge([first[shared], joined], combine_attrs="drop")
    for name, variable in together.data_vars.items():
        variable.attrs.update(first[name].attrs)
    own = json.loads(first.attrs["settings"]) | {"algorithm": list(results)}
    return together.assign_attrs(
        first.attrs | {"title": "m = 1 trials", "algorithm": ", ".join(results), "settings": json.dumps(own)}
    )


def _sensitivity(settings: Settings):
    from ..experiments.sensitivity import n_sensitivity_trials, sensitivity

    protocol = settings.protocol
    with progress_bar(n_sensitivity_trials(protocol, settings.sensitivity_trials), "sensitivity") as progress:
        return sensitivity(
            protocol,
            settings.sensitivity_trials,
            settings.seed,
            engine=settings.engine,
            dtype=settings.dtype,
            batch_size=settings.batch_size,
            progress=progress,
        )


def _draw(folder: Path, files, results) -> list[Path]:
    from ..plotting.style import figure
    from ..plotting.trials import outcome_map, sensitivity_panels, trajectory_panels

    written = []
    with figure(1, 3, height=2.7) as (fig, axes):
        trajectory_panels(axes, files["trajectories.nc"])
        written += save_figure(fig, folder / "trajectories")
    with figure(1, len(results), height=3.2) as (fig, axes):
        for ax, (algorithm, dataset) in zip(axes, results.items(), strict=True):
            outcome_map(ax, dataset, algorithm)
        written += save_figure(fig, folder / "outcomes")
    if "sensitivity.nc" in files:
        with figure(2, 2, height=6.0) as (fig, axes):
            sensitivity_panels(axes, files["sensitivity.nc"])
            written += save_figure(fig, folder / "sensitivity")
    return written
