"""`jaxdyn diagnose`: will this linear set-up collapse on these views, and why."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..checks import number, one_of, whole_number
from ..storage import check_folder, save_dataset, save_figure, save_settings, staged
from .settings import as_toml, read_settings


@dataclass(frozen=True)
class Settings:
    """Predict which modes of real views survive training, then train on minibatches and compare.

    Estimates the views' second moments (with bootstrap intervals), predicts each mode's fate, the spectrum of
    S = Aᵀ A, time scales and the share of random starts that keep their modes; then runs the linear procedure.
    """

    views: Annotated[str, tyro.conf.Positional] = "digits"
    """"digits", "patches", "clips", "cifar10:FOLDER", "stl10:FOLDER", or an .npz file with views x and y, or images."""
    method: Literal["sg", "ema"] = "sg"
    """Stop gradient or moving average."""
    dim: int = 4
    """Principal components m that are kept."""
    n: int | None = None
    """Embedding dimension; default: dim + 2."""
    weight_decay: float = 0.005
    """λ of encoder and predictor, per unit of time."""
    predictor_lr_ratio: float = 1.0
    """α_p, learning rate of the predictor over that of the encoder."""
    ema_rate: float = 0.2
    """β of the moving-average teacher, per unit of time (method ema)."""
    scale: float = 1.5
    """Size of the Gaussian starting weights: entries have standard deviation scale/√n."""
    lr: float = 0.05
    """Learning rate of the procedure on minibatches."""
    batch: int = 128
    """Pairs in a minibatch."""
    t1: float = 2000.0
    """Length of the training, in flow units (steps times learning rate)."""
    trials: int = 1000
    """Random starts whose fate is followed on exact moments."""
    resamples: int = 200
    """Bootstrap resamples of the data."""
    seeds: int = 5
    """Trainings on minibatches."""
    seed: int = 0
    """Seed of everything random."""
    crop: float = 1.0
    """Views of images: smallest side of the random crop, as a share of the image's."""
    shift: int = 1
    """Views of images: largest shift, in pixels."""
    flip: bool = False
    """Views of images: mirror left and right."""
    contrast: float = 0.0
    """Views of images: contrast factors from 1 − contrast to 1 + contrast."""
    noise: float = 0.1
    """Views of images: standard deviation of pixel noise."""
    cutout: int = 0
    """Views of images: side of a square hole, in pixels."""
    out: Path = Path("results/diagnose")
    """Folder for the data, the settings and the figure."""
    config: Path | None = None
    """A TOML file with any of these settings; the command line overrides it."""

    def __post_init__(self):
        one_of("method", self.method, ("sg", "ema"))
        whole_number("dim", self.dim)
        number("weight_decay", self.weight_decay, above=0)


def main(arguments: list[str]) -> int:
    settings = read_settings(Settings, "diagnose", arguments)
    folder = check_folder(settings.out)
    began = time.perf_counter()

    import dataclasses
    import sys

    import jax

    from ..datasets import Augmentation, load_dataset
    from ..experiments.diagnose import Setup, diagnose, report
    from ..plotting.style import figure
    from ..plotting.training import diagnosis_panels

    setup = Setup(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(Setup)})
    view = Augmentation(crop=settings.crop, shift=settings.shift, flip=settings.flip, contrast=settings.contrast,
                        noise=settings.noise, cutout=settings.cutout)  # fmt: skip
    dataset = load_dataset(settings.views)
    tell = lambda words: print(f"{words} …".ljust(40), end="\r", file=sys.stderr, flush=True)  # noqa: E731
    with jax.enable_x64(True):
        found = diagnose(dataset, setup, view, progress=tell if sys.stderr.isatty() else None)
    with staged(folder) as stage:
        written = [
            save_dataset(found, stage / "diagnose.nc"),
            save_settings(as_toml(settings), stage / "settings.toml"),
        ]
        with figure(1, 3, height=2.7) as (fig, axes):
            diagnosis_panels(axes, found, settings.weight_decay)
            written += save_figure(fig, stage / "diagnose")
    print(report(found, setup))
    print(f"\nwrote {', '.join(path.name for path in written)} to {folder} in {time.perf_counter() - began:.1f} s")
    return 0
