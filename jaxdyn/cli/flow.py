"""`jaxdyn flow`: the flow of a system on real second moments, and the spectrum it learns."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..checks import number, one_of, whole_number
from ..names import SOLVERS, SYSTEMS
from ..storage import check_folder, save_dataset, save_figure, save_settings, staged
from .settings import as_toml, read_settings


@dataclass(frozen=True)
class Settings:
    """Integrate a linear Siamese system on the second moments of paired views.

    Follows the spectrum of S = Aᵀ A, the balance A Aᵀ − Bᵀ B/α_p and the energies E and F; prints
    where they end, and writes the data, the settings and a figure.
    """

    views: str = "digits"
    """A data set ("digits", "patches", …), an .npz file with images or with views x and y, or "x.npy,y.npy"."""
    m: int = 6
    """Input dimension: the views' principal components that are kept."""
    system: Literal["sg", "ema", "objective"] = "sg"
    """Stop gradient, moving average, or the plain objective."""
    n: int | None = None
    """Embedding dimension; default: m + 2."""
    weight_decay: float = 0.001
    """λ of encoder and predictor, per unit of time."""
    predictor_lr_ratio: float = 1.0
    """α_p, learning rate of the predictor over that of the encoder."""
    ema_rate: float = 0.05
    """β of the moving-average teacher, per unit of time (system ema)."""
    t1: float = 5000.0
    """Length of the flow, in flow units (steps times learning rate)."""
    scale: float = 0.7
    """Size of the Gaussian starting weights: entries have standard deviation scale/√n."""
    seed: int = 0
    """Seed of the augmentations and of the starting weights."""
    solver: Literal["tsit5", "dopri8", "kvaerno5"] = "tsit5"
    """diffrax solver; kvaerno5 is for stiff flows."""
    out: Path = Path("results/flow")
    """Folder for the data, the settings and the figure."""
    force: bool = False
    """Replace the results that are in the folder."""
    config: Path | None = None
    """A TOML file with any of these settings; the command line overrides it."""

    def __post_init__(self):
        whole_number("m", self.m, high=10_000)
        whole_number("seed", self.seed, low=0, high=2**32 - 1)
        if self.n is not None:
            whole_number("n", self.n, high=10_000)
        one_of("system", self.system, tuple(SYSTEMS))
        one_of("solver", self.solver, SOLVERS)
        for name in ("weight_decay", "ema_rate"):
            number(name, getattr(self, name), low=0)
        for name in ("predictor_lr_ratio", "t1", "scale"):
            number(name, getattr(self, name), above=0)
        if self.system != "ema" and self.ema_rate != Settings.ema_rate:
            raise ValueError(f"ema_rate: it belongs to system ema, got system {self.system}")


def main(arguments: list[str]) -> int:
    settings = read_settings(Settings, "flow", arguments)
    folder = check_folder(settings.out, force=settings.force)
    began = time.perf_counter()

    import jax

    from ..data.loading import load_moments
    from ..papers.figures.spectrum import spectrum
    from ..plotting.flow import spectrum_panels
    from ..plotting.style import figure
    from ..systems.siamese import MovingAverage, Objective, StopGradient

    ratio = settings.predictor_lr_ratio
    systems = {
        "sg": lambda: StopGradient(settings.weight_decay, ratio),
        "ema": lambda: MovingAverage(settings.weight_decay, ratio, ema_rate=settings.ema_rate),
        "objective": lambda: Objective(settings.weight_decay, ratio),
    }
    with jax.enable_x64(True):
        dataset = spectrum(
            systems[settings.system](),
            load_moments(settings.views, settings.m, seed=settings.seed),
            n=settings.n or settings.m + 2,
            t1=settings.t1,
            scale=settings.scale,
            seed=settings.seed,
            solver=settings.solver,
            settings=as_toml(settings),
        )
    with staged(folder, force=settings.force) as stage:
        written = [
            save_dataset(dataset, stage / "flow.nc"),
            save_settings(as_toml(settings), stage / "settings.toml"),
        ]
        with figure(1, 3, height=2.6) as (fig, axes):
            spectrum_panels(axes, dataset)
            written += save_figure(fig, stage / "flow")
    print(_summary(settings, dataset))
    seconds = time.perf_counter() - began
    print(f"wrote {', '.join(path.name for path in written)} to {settings.out} in {seconds:.1f} s")
    return 0


def _summary(settings: Settings, dataset: Any) -> str:
    first, last = dataset.isel(time=0), dataset.isel(time=-1)
    values = lambda at: "  ".join(f"{value:8.2e}" for value in at["eigenvalue"].values)  # noqa: E731
    alive = int((last["eigenvalue"] > 1e-3 * dataset["eigenvalue"].max()).sum())
    names = {"balance": "balance", "balance_residual": "its residual", "objective": "E", "surrogate": "F"}
    lines = [
        f"{settings.system} on {settings.views}, m = {settings.m}, λ = {settings.weight_decay:g}: "
        f"{dataset.attrs['status'].replace('_', ' ')} at t = {dataset.attrs['stopped_at']:g}",
        f"  spectrum of S, t = 0   {values(first)}",
        f"  spectrum of S, end     {values(last)}",
        f"  modes alive at the end {alive} of {settings.m}" + ("  (collapsed)" if alive == 0 or _gone(dataset) else ""),
        *(
            f"  {label:22} {float(first[name]):.3e} at t = 0, {float(last[name]):.3e} at the end"
            for name, label in names.items()
        ),
    ]
    if dataset.attrs["stopped_at"] < settings.t1:
        lines.append(f"  stopped before t = {settings.t1:g}: later times repeat the last state; try --solver kvaerno5")
    return "\n".join(lines)


def _gone(dataset: Any) -> bool:
    return bool(dataset["eigenvalue"].isel(time=-1).max() < 1e-3 * dataset["eigenvalue"].isel(time=0).max())
