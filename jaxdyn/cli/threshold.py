"""`jaxdyn threshold`: the weight decay at which the last stable equilibrium of each rank vanishes."""

import time
from dataclasses import dataclass
from pathlib import Path

from ..checks import whole_number
from ..storage import check_folder, save_dataset, save_figure, save_settings, staged
from .problem import Problem, load, system_of
from .settings import as_toml, read_settings


@dataclass(frozen=True)
class Settings(Problem):
    """Find the collapse threshold: the largest weight decay with a stable nonzero equilibrium, rank by rank.

    Prints the thresholds and how stability ends there, and the bound above which only the origin is left;
    writes the branches of equilibria over the weight decay, with a figure, where there are any.
    """

    points: int = 24
    """Weight decays of the first search."""
    out: Path = Path("results/threshold")
    """Folder for the data, the settings and the figure."""
    force: bool = False
    """Replace the results that are in the folder."""
    config: Path | None = None
    """A TOML file with any of these settings; the command line overrides it."""

    def __post_init__(self):
        super().__post_init__()
        whole_number("points", self.points, low=4)


def main(arguments: list[str]) -> int:
    settings = read_settings(Settings, "threshold", arguments)
    folder = check_folder(settings.out, force=settings.force)
    began = time.perf_counter()

    import jax
    import numpy as np

    from ..equilibria.branches import branches
    from ..equilibria.equations import decay_bound
    from ..equilibria.threshold import collapse_threshold
    from ..plotting.equilibria import branch_panel
    from ..plotting.style import figure

    with jax.enable_x64(True):
        moments = load(settings)
        bound = float(decay_bound(moments))
        thresholds = collapse_threshold(system_of(settings, 1.0), moments, n=settings.n, points=settings.points)
        print(f"{settings.system} on {settings.moments}, m = {moments.m}, n = {settings.n or moments.m + 1}\n")
        print(f"{'rank':>4}  {'threshold λ*':>14}  {'share of bound':>14}  how it ends")
        for each in thresholds:
            doubt = "" if each.complete else "  (NOT complete: a census of the search missed paths)"
            print(f"{each.rank:4d}  {each.weight_decay:14.8g}  {each.weight_decay / bound:14.6f}  {each.kind}{doubt}")
        if not thresholds:
            print("  no stable nonzero equilibrium at any weight decay that was looked at")
        print(f"\nbound ¼‖YX^(−½)‖² = {bound:.8g}: above it the origin is the only equilibrium")
        dataset = None
        singular = np.linalg.matrix_rank(np.asarray(moments.xx)) < moments.m
        if thresholds and singular:
            print("no branches: they need a nonsingular xx")
        elif thresholds:
            lowest = min(each.weight_decay for each in thresholds)
            dataset = branches(lambda decay: (system_of(settings, decay), moments), lowest / 20, bound,
                               start=lowest / 2, n=settings.n)  # fmt: skip
    if dataset is None:
        print("nothing was written")
        return 0
    dataset = dataset.assign_attrs(thresholds=[each.weight_decay for each in thresholds])
    with staged(folder, force=settings.force) as stage:
        written = [
            save_dataset(dataset, stage / "threshold.nc"),
            save_settings(as_toml(settings), stage / "settings.toml"),
        ]
        with figure(1, 1, width=4.2, height=3.0) as (fig, axes):
            branch_panel(axes[0], dataset, "weight decay λ")
            written += save_figure(fig, stage / "threshold")
    seconds = time.perf_counter() - began
    print(f"wrote {', '.join(path.name for path in written)} to {settings.out} in {seconds:.1f} s")
    return 0
