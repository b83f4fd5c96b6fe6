"""`jaxdyn diagnose`: will this linear set-up collapse on these views, and why."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..data.augment import Augmentation
from ..data.views import VIEW
from ..diagnosis.setup import Setup
from ..storage import check_folder, save_dataset, save_figure, save_settings, staged
from .settings import as_toml, read_settings


@dataclass(frozen=True)
class Settings(Setup, Augmentation):
    """Predict which modes of real views survive training, then train on minibatches and compare.

    Estimates the views' second moments (with bootstrap intervals), predicts each mode's fate, the spectrum of
    S = Aᵀ A, time scales and the share of random starts that keep their modes; then runs the linear procedure.
    """

    views: Annotated[str, tyro.conf.Positional] = "digits"
    """"digits", "patches", "clips", "cifar10:FOLDER", "stl10:FOLDER", or an .npz file with views x and y, or images."""
    shift: int = VIEW.shift
    """Views: largest shift each way, in pixels."""
    noise: float = VIEW.noise
    """Views: standard deviation of the pixels' noise."""
    out: Path = Path("results/diagnose")
    """Folder for the data, the settings and the figure."""
    force: bool = False
    """Replace the results that are in the folder."""
    config: Path | None = None
    """A TOML file with any of these settings; the command line overrides it."""

    def __post_init__(self):
        Setup.__post_init__(self)
        Augmentation.__post_init__(self)


def main(arguments: list[str]) -> int:
    settings = read_settings(Settings, "diagnose", arguments)
    folder = check_folder(settings.out, force=settings.force)
    began = time.perf_counter()

    import sys

    import jax

    from ..data import load_dataset
    from ..diagnosis.diagnose import diagnose, report
    from ..plotting.style import figure
    from ..plotting.training import diagnosis_panels

    view = Augmentation(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(Augmentation)})
    dataset = load_dataset(settings.views)
    tell = lambda words: print(f"{words} …".ljust(40), end="\r", file=sys.stderr, flush=True)  # noqa: E731
    with jax.enable_x64(True):
        found = diagnose(dataset, settings, view, progress=tell if sys.stderr.isatty() else None)
    with staged(folder, force=settings.force) as stage:
        written = [
            save_dataset(found, stage / "diagnose.nc"),
            save_settings(as_toml(settings), stage / "settings.toml"),
        ]
        with figure(1, 3, height=2.7) as (fig, axes):
            diagnosis_panels(axes, found, settings.weight_decay)
            written += save_figure(fig, stage / "diagnose")
    print(report(found, settings))
    seconds = time.perf_counter() - began
    print(f"\nwrote {', '.join(path.name for path in written)} to {settings.out} in {seconds:.1f} s")
    return 0
