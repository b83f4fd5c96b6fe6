"""`jaxdyn train`: train small self-supervised networks on real images, several settings and seeds at once."""

import dataclasses
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..checks import whole_number
from ..data.augment import Augmentation
from ..networks.recipe import VIEW, Knobs, Recipe
from ..progress import progress_to
from ..storage import check_folder, save_dataset, save_figure, save_settings, staged
from .settings import as_toml, read_settings

_KNOBS = ("lr", "predictor_lr_ratio", "weight_decay", "predictor_weight_decay", "ema_decay", "objective_share",
          "symmetrise", "epsilon", "offset", "memory", "every")  # fmt: skip


@dataclass(frozen=True)
class Settings(Recipe, Augmentation):
    """Train encoder and predictor on pairs of views, measured along the way.

    Options that take several values are combined: each combination is a setting, and all settings and seeds train
    as one program. Prints where they end, and writes the measurements, the settings and a figure.
    """

    data: Annotated[str, tyro.conf.Positional] = "digits"
    """"digits", "patches", "clips", "cifar10:FOLDER", "stl10:FOLDER", or an .npz file with images (and labels) or
    views x and y."""
    augmentation: tyro.conf.Suppress[Augmentation] = VIEW
    lr: tuple[float, ...] = (0.3,)
    """Learning rates of the encoder."""
    predictor_lr_ratio: tuple[float, ...] = (1.0,)
    """α_p, learning rate of the predictor over that of the encoder."""
    weight_decay: tuple[float, ...] = (0.002,)
    """η_s; of the predictor, too, unless that is given."""
    predictor_weight_decay: tuple[float, ...] = ()
    """η_p, per unit of the encoder's learning rate."""
    ema_decay: tuple[float, ...] = (0.99,)
    """α of the teacher, per step."""
    objective_share: tuple[float, ...] = (0.0,)
    """Of system mixed: the weight of the plain objective."""
    symmetrise: tuple[int, ...] = (0,)
    """1: make the predictor symmetric after each step."""
    epsilon: tuple[float, ...] = (0.0,)
    """ε of DirectPred and DirectCopy."""
    offset: tuple[float, ...] = (0.0,)
    """c of DirectPred's offset."""
    memory: tuple[float, ...] = (0.3,)
    """ρ, memory of a rule's correlations."""
    every: tuple[int, ...] = (1,)
    """Steps between two settings of the predictor by a rule."""
    shift: int = VIEW.shift
    """Views: largest shift each way, in pixels."""
    contrast: float = VIEW.contrast
    """Views: contrast factors are uniform on [1 − contrast, 1 + contrast]."""
    noise: float = VIEW.noise
    """Views: standard deviation of the pixels' noise."""
    cutout: int = VIEW.cutout
    """Views: side of a square hole, in pixels."""
    seeds: int = 2
    """Random starts of each setting."""
    seed: int = 0
    """The first seed."""
    measure_every: int = 100
    """Steps between two measurements."""
    probe_every: int | None = None
    """Steps between two probes of the frozen features; default: at the start and the end."""
    shots: int = 5
    """Labels a class for the few-label probe."""
    checkpoint: Path | None = None
    """Folder to keep the last state in; the same command goes on from there after a kill."""
    out: Path = Path("results/train")
    """Folder for the data, the settings and the figure."""
    force: bool = False
    """Replace the results that are in the folder."""
    config: Path | None = None
    """A TOML file with any of these settings; the command line overrides it."""

    def __post_init__(self):
        Recipe.__post_init__(self)
        Augmentation.__post_init__(self)
        whole_number("seeds", self.seeds)
        whole_number("seed", self.seed, low=0, high=2**31)
        for name in ("measure_every", "shots"):
            whole_number(name, getattr(self, name))
        if self.probe_every is not None:
            whole_number("probe_every", self.probe_every)
        for name in _KNOBS:
            if name != "predictor_weight_decay" and not getattr(self, name):
                raise ValueError(f"{name}: expected at least one value")
        recipe, knobs, _ = _recipe(self)
        for each in knobs:
            each.checked(recipe)


def main(arguments: list[str]) -> int:
    settings = read_settings(Settings, "train", arguments)
    folder = check_folder(settings.out, force=settings.force)
    if settings.checkpoint is not None:
        check_folder(settings.checkpoint, whole=False)
    began = time.perf_counter()

    from ..data import load_dataset
    from ..networks.train import summary, train
    from ..plotting.style import figure
    from ..plotting.training import training_panels

    recipe, knobs, names = _recipe(settings)
    dataset = load_dataset(settings.data)
    with progress_to(recipe.steps, "training") as report:
        found = train(
            dataset, recipe, knobs, seeds=settings.seeds, first_seed=settings.seed, every=settings.measure_every,
            probe_every=settings.probe_every, shots=settings.shots, checkpoint=settings.checkpoint,
            progress=lambda at, of: report(at),
        )  # fmt: skip
    found = found.assign_coords(label=("setting", names))
    with staged(folder, force=settings.force) as stage:
        written = [save_dataset(found, stage / "train.nc"), save_settings(as_toml(settings), stage / "settings.toml")]
        with figure(2, 3, height=4.6) as (fig, axes):
            training_panels(axes, found)
            written += save_figure(fig, stage / "train")
    print(f"{settings.system} on {settings.data}: {settings.encoder} encoder, {settings.predictor} predictor, "
          f"{recipe.steps} steps, {settings.seeds} seeds, mean ± std\n")  # fmt: skip
    print(summary(found))
    seconds = time.perf_counter() - began
    print(f"\nwrote {', '.join(path.name for path in written)} to {settings.out} in {seconds:.1f} s")
    return 0


def _recipe(settings: Settings) -> tuple[Recipe, list[Knobs], list[str]]:
    """The recipe, the knobs of every setting, and what tells the settings apart."""
    view = Augmentation(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(Augmentation)})
    named = {field.name for field in dataclasses.fields(Recipe)} - {"augmentation"}
    recipe = Recipe(**{name: getattr(settings, name) for name in named}, augmentation=view)
    values = [getattr(settings, name) or (None,) for name in _KNOBS]
    knobs = [Knobs(**dict(zip(_KNOBS, each, strict=True))) for each in itertools.product(*values)]
    several = [name for name, each in zip(_KNOBS, values, strict=True) if len(each) > 1]
    labels = [", ".join(f"{name} {getattr(each, name):g}" for name in several) or settings.system for each in knobs]
    return recipe, knobs, labels
