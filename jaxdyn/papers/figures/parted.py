"""n = m = 1: the curve between starts that collapse and starts that do not."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ...analysis.separatrix import separatrix
from ...moments import Moments
from ...plotting.trials import parted_panel
from ...solve.ensemble import flow_ensemble
from ...systems.siamese import StopGradient
from ...systems.spheres import ScalarData, radii, sphere_state
from .base import Picture

_REACH, _LONG = 4.0, 1000.0


def compute_parted(
    *, share: tuple[float, ...] = (0.2, 0.6, 0.9), starts: int = 400, predictor_lr_ratio: float = 1.0, seed: int = 3
) -> xr.Dataset:
    """The saddle's stable manifold at each share of the bound λ <= ¼ (ρ = τ = 1), and the ends of random starts."""
    curves, lives, sizes = [], [], []
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0, 1.5, starts), rng.uniform(-1.0, 1.0, starts)
    with jax.enable_x64(True):
        moments = Moments.scalar(1.0, 1.0)
        for part in share:
            decay = part / 4
            data, system = ScalarData(1.0, 1.0, decay, predictor_lr_ratio), StopGradient(decay, predictor_lr_ratio)
            inner, outer = (sphere_state(jnp.ones(1), radius, data) for radius in radii(data))
            saddle = system.state(encoder=inner.encoder, predictor=inner.predictor)
            curves.append(separatrix(system, saddle, moments, reach=_REACH))
            at = jax.vmap(lambda a, b, s=system: s.state(encoder=a[None, None], predictor=b[None, None]))(a, b)
            ends = flow_ensemble(system, at, moments, t1=_LONG).final.encoder[:, 0, 0]
            lives.append(np.asarray(ends) > float(radii(data).inner))
            sizes.append([[float(each.encoder[0, 0]), float(each.predictor[0, 0])] for each in (inner, outer)])
    axis = {"units": "flow units", "long_name": "encoder a, predictor b"}
    return xr.Dataset(
        {
            "curve": (("share", "point", "axis"), np.array(curves), axis),
            "start": (("trial", "axis"), np.stack([a, b], 1), axis),
            "lives": (
                ("share", "trial"),
                np.array(lives).astype(np.int8),
                {"long_name": "1: on the outer sphere"},
            ),
            "sphere": (("share", "which", "axis"), np.array(sizes), axis),
        },
        {"share": list(share), "which": ["inner", "outer"], "axis": ["encoder", "predictor"]},
        {"title": "the separatrix at n = m = 1"},
    )


def on_the_wrong_side(data: xr.Dataset) -> np.ndarray:
    """Starts [share, trial] whose end is another than the side of the curve says."""
    a, b = data["start"].values.T
    wrong = []
    for curve, lives in zip(data["curve"].values, data["lives"].values, strict=True):
        curve = curve[np.argsort(curve[:, 1])]  # a graph over the predictor
        wrong.append((a > np.interp(b, curve[:, 1], curve[:, 0])) != (lives == 1))
    return np.array(wrong)


def draw_parted(axes: list[Axes], data: xr.Dataset) -> None:
    for ax, share in zip(axes, data["share"].values, strict=True):
        parted_panel(ax, data.sel(share=share))
    axes[0].set_ylabel("predictor b")
    axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


PICTURES = (
    Picture("P-separatrix", "n = m = 1, SG: the stable manifold of the inner sphere parts starts that collapse "
            "(squares) from those that end on the outer sphere (dots); open circle: the saddle, full circle: the outer "
            "sphere. Ours: ρ = τ = 1, λ as a share of the bound ¼, starts a ~ U[0, 1.5], b ~ U[−1, 1].",
            compute_parted, draw_parted, 1, "share", 3.0, {"starts": 60}),
)  # fmt: skip
