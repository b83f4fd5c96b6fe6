"""`jaxdyn equilibria`: every equilibrium on given second moments, its stability, proofs, and who reaches it."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ..checks import number, whole_number
from ..storage import check_folder, save_dataset, save_figure, save_settings, staged
from .problem import Problem, load, system_of
from .settings import as_toml, read_settings


@dataclass(frozen=True)
class Settings(Problem):
    """Find every equilibrium of SG or EMA on second moments, and say which are stable.

    Prints a line for each O(n)-orbit with its rank, unstable directions and verdict, and whether the list is
    complete; writes the data, the settings and a figure of the Jacobians' eigenvalues.
    """

    weight_decay: float | None = None
    """λ of encoder and predictor, per unit of time; default: a tenth of ¼‖YX^(−½)‖², above which all collapses."""
    lr: float | None = None
    """Also linearise the discrete procedure with this learning rate."""
    certify: bool = False
    """Prove each equilibrium and its unstable count in ball arithmetic (needs python-flint)."""
    n_trials: int = 0
    """Also run so many random trials of the procedure (at lr, or 0.05) and say where they end."""
    out: Path = Path("results/equilibria")
    """Folder for the data, the settings and the figure."""
    force: bool = False
    """Replace the results that are in the folder."""
    config: Path | None = None
    """A TOML file with any of these settings; the command line overrides it."""

    def __post_init__(self):
        super().__post_init__()
        if self.weight_decay is not None:
            number("weight_decay", self.weight_decay, above=0)
        whole_number("n_trials", self.n_trials, low=0, high=2**32)
        if self.lr is not None:
            number("lr", self.lr, above=0)


def main(arguments: list[str]) -> int:
    settings = read_settings(Settings, "equilibria", arguments)
    folder = check_folder(settings.out, force=settings.force)
    began = time.perf_counter()

    import jax

    from ..equilibria.census import equilibria
    from ..equilibria.equations import decay_bound
    from ..equilibria.strata import COMPLETE_UP_TO
    from ..plotting.equilibria import eigenvalue_panel
    from ..plotting.style import figure
    from ..trials.problems import Given
    from ..trials.run import run_trials
    from ..trials.shares import table
    from ..trials.starts import Starts

    with jax.enable_x64(True):
        moments = load(settings)
        bound = float(decay_bound(moments))
        if settings.weight_decay is None and bound == 0:
            raise ValueError("weight_decay: yx is zero, so there is no default; give one")
        decay = bound / 10 if settings.weight_decay is None else settings.weight_decay
        system = system_of(settings, decay)
        if moments.m > COMPLETE_UP_TO - 1:
            print(_what_to_expect(moments.m), file=sys.stderr, flush=True)
        found = equilibria(
            system, moments, n=settings.n, lr=settings.lr, certify=settings.certify, progress=sys.stderr.isatty()
        )
        dataset = found.to_dataset()
        print(f"{settings.system} on {settings.moments}, m = {moments.m}, n = {found.n}, "
              f"λ = {decay:.6g}\n\n{found}")  # fmt: skip
        trials = None
        if settings.n_trials:
            problem, starts = Given(system, moments, settings.lr or 0.05, found), Starts(n=found.n)
            trials = run_trials(problem, settings.n_trials, starts=starts, seed=settings.seed)
            print(f"\n{settings.n_trials:,} random trials, weights {starts.encoder}, lr {problem.lr}\n{table(trials)}")
    with staged(folder, force=settings.force) as stage:
        written = [
            save_dataset(dataset, stage / "equilibria.nc"),
            save_settings(as_toml(settings), stage / "settings.toml"),
        ]
        if trials is not None:
            written.append(save_dataset(trials, stage / "trials.nc"))
        with figure(1, 1, width=3.6, height=2.8) as (fig, axes):
            eigenvalue_panel(axes[0], dataset)
            written += save_figure(fig, stage / "equilibria")
    seconds = time.perf_counter() - began
    print(f"wrote {', '.join(path.name for path in written)} to {settings.out} in {seconds:.1f} s")
    return 0


def _what_to_expect(m: int) -> str:
    """Said before a long computation begins."""
    from ..equilibria.search import STARTS
    from ..equilibria.strata import COMPLETE_UP_TO, paths_of

    if m <= COMPLETE_UP_TO:
        count = sum(paths_of(m, rank) for rank in range(2, m + 1))
        return f"m = {m}: following {count:,} paths to find every equilibrium; some seconds"
    return (
        f"m = {m}: the origin and rank one are complete; ranks 2 to {m} are a search from {STARTS} random starts each, "
        "which may miss some; a minute or more"
    )
