"""Pictures of all equilibria: branches over the weight decay, spectra, and the cone of S."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ...equilibria.branches import branches
from ...equilibria.census import equilibria
from ...moments import Moments
from ...plotting.equilibria import branch_panel, cone_panels, eigenvalue_panel, trial_ends
from ...solve.flow import flow
from ...systems.siamese import MovingAverage, StopGradient
from ...trials.problems import Given
from ...trials.run import run_trials
from .base import Picture

# The example diag(1, 1.5) and diag(0.8, 0.9) with generic perturbations, and one far from symmetric.
_NEAR_DIAGONAL = ([[1.0, 0.1], [0.1, 1.5]], [[0.8, 0.05], [-0.02, 0.9]])
_TURNING = ([[0.9, 0.2], [0.2, 0.5]], [[0.5, -0.35], [0.35, 0.45]])


def compute_branches(
    *, low: float = 0.004, high: float = 0.165, start: float = 0.05, points: int = 9, n_trials: int = 60
) -> xr.Dataset:
    """All branches over the weight decay, and the ends of random trials at some of them."""
    with jax.enable_x64(True):
        moments = Moments(*_NEAR_DIAGONAL)
        dataset = branches(lambda decay: (StopGradient(decay), moments), low, high, start=start)
        decays = np.linspace(low + 0.1 * (high - low), low + 0.907 * (high - low), points)
        sizes = []
        for decay in decays:
            ends = run_trials(Given(StopGradient(float(decay)), moments), n_trials, seed=1)
            sizes.append(ends["size"].values)
    trials = (("decay", "trial"), np.array(sizes), {"long_name": "‖A‖ where random trials end"})
    return dataset.assign(trial_size=trials, decay=("decay", decays, {"units": "1/time"}))


def draw_branches(axes: list[Axes], data: xr.Dataset) -> None:
    branch_panel(axes[0], data, "weight decay λ")
    decays = np.repeat(data["decay"].values, data.sizes["trial"])
    trial_ends(axes[0], decays, data["trial_size"].values.ravel())


def compute_eigenvalues(*, weight_decay: float = 0.01, ema_rate: float = 0.05) -> xr.Dataset:
    """Eigenvalues of the flow's Jacobian at every equilibrium."""
    with jax.enable_x64(True):
        moments = Moments(*_TURNING)
        systems = {
            "stop gradient": StopGradient(weight_decay),
            "moving average": MovingAverage(weight_decay, ema_rate=ema_rate),
        }
        parts = [
            equilibria(system, moments).to_dataset()[
                ["eigenvalue_real", "eigenvalue_imag", "n_unstable", "orbit_dim", "rank", "verdict"]
            ]
            for system in systems.values()
        ]
    widest = max(part.sizes["eigenvalue"] for part in parts)
    parts = [part.pad(eigenvalue=(0, widest - part.sizes["eigenvalue"])) for part in parts]
    joined = xr.concat(parts, xr.Variable("system", list(systems)), combine_attrs="drop")
    return joined.assign_attrs(title="spectra at all equilibria")  # type: ignore[return-value]


def draw_eigenvalues(axes: list[Axes], data: xr.Dataset) -> None:
    for ax, name in zip(axes, data["system"].values, strict=True):
        eigenvalue_panel(ax, data.sel(system=name).dropna("eigenvalue"))
        ax.set_title(str(name))


def compute_cone(*, weight_decay: float = 0.05, flows: int = 60, t1: float = 400.0) -> xr.Dataset:
    """All equilibria in the cone of S, and flows to them."""
    with jax.enable_x64(True):
        moments, system = Moments(*_NEAR_DIAGONAL), StopGradient(weight_decay)
        found = equilibria(system, moments).to_dataset()[["gram", "n_unstable", "rank", "verdict"]]
        keys = jax.random.split(jax.random.key(3), flows)

        def line(key: Any):
            a, b = jax.random.split(key)
            encoder = 0.55 * jax.random.normal(a, (3, 2))
            # On the balanced manifold BᵀB = AAᵀ, to which every flow is drawn: B = Q (AAᵀ)^½.
            values, vectors = jnp.linalg.eigh(encoder @ encoder.T)
            root = (vectors * jnp.sqrt(jnp.maximum(values, 0))) @ vectors.T
            turn = 0.3 * jax.random.normal(b, (3, 3))
            predictor = jax.scipy.linalg.expm(turn - turn.T) @ root
            times = jnp.concatenate([jnp.zeros(1), jnp.geomspace(0.1, t1, 80)])
            states = flow(system, system.state(encoder=encoder, predictor=predictor), moments, t1=t1, ts=times).states
            return jnp.swapaxes(states.encoder, -1, -2) @ states.encoder

        lines = np.asarray(jax.vmap(line)(keys))
    found = found.assign_attrs(title="the cone of S")
    return found.assign(flow=(("line", "time", "row", "column"), lines, {"long_name": "S along flows"}))


PICTURES = (
    Picture("P-branches", "All equilibria of SG over the weight decay, m = 2, n = 3: thick blue is stable, dashed of "
            "rank one; open circles at folds; dots where 60 random trials at each of nine λ end. Ours: X = "
            "[[1, 0.1], [0.1, 1.5]], Y = [[0.8, 0.05], [−0.02, 0.9]].",
            compute_branches, draw_branches, 1, 1, 4.0, {"points": 3, "n_trials": 12}),
    Picture("P-eigenvalues", "Eigenvalues of the flow's Jacobian at every equilibrium, the orbit's zeros left out; "
            "shaded: growth. Ours: a Y far from symmetric, λ = 0.01, β = 0.05.",
            compute_eigenvalues, draw_eigenvalues, 1, 2, 3.2),
    Picture("P-cone", "m = 2: the cone S ⪰ 0 from two sides, all equilibria of SG, and flows from balanced starts. "
            "Ours: moments as in P-branches, λ = 0.05.", compute_cone, cone_panels, 1, 2, 3.2, {"flows": 12}),
)  # fmt: skip
