"""Trajectories at m = 1 in the plane of the encoder, over the circles of equilibria (P Prop 4.11)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ...moments import Moments
from ...provenance import provenance
from ...solve.descent import descend
from ...status import Status
from ...systems.siamese import MovingAverage, Objective, StopGradient
from ...systems.spheres import ScalarData, radii

_FRAMES = 3000


def portrait(
    *,
    rho: float = 1.0,
    tau: float = 1.0,
    weight_decay: float = 0.15,
    ema_rate: float = 0.3,
    t1: float = 100.0,
    lr: float = 0.02,
    starts: int = 16,
    seed: int = 0,
) -> xr.Dataset:
    """Procedures SG, EMA and objective in short steps from the same starts (n = 2, m = 1).

    Starts lie evenly on two circles inside and outside S₁, each with a predictor of its own, drawn
    around ½I. Returns `encoder` [system, start, time, axis], with the radii of S₁ and S₂ as attributes.

    Args:
        rho, tau, weight_decay: ρ, τ, λ with Δ = τ² − 4ρλ > 0.
        ema_rate: β of the teacher, per unit of time.
        t1: length, in flow units (steps times lr).
        lr: learning rate, short enough for paths to look like the flow's.
        starts, seed: number of starts and the seed of their predictors.
    """
    data = ScalarData(rho, tau, weight_decay)
    with jax.enable_x64(True):
        inner, outer = (float(radius) for radius in radii(data))
        moments = Moments.scalar(rho, tau)
        angles = 2 * np.pi * np.arange(starts) / starts
        lengths = np.where(np.arange(starts) % 2 == 0, 1.35 * outer, 0.75 * outer)
        encoders = (lengths * np.stack([np.cos(angles), np.sin(angles)])).T[:, :, None]
        predictors = np.eye(2) / 2 + np.random.default_rng(seed).normal(0, 0.5, (starts, 2, 2))
        steps = max(round(t1 / lr), 1)
        every = max(steps // _FRAMES, 1)
        times = lr * np.array(sorted({*range(0, steps + 1, every), steps}))
        systems = {
            "stop gradient": StopGradient(weight_decay),
            "moving average": MovingAverage(weight_decay, ema_rate=ema_rate),
            "objective": Objective(weight_decay),
        }
        paths, ends = [], []
        for system in systems.values():

            def run(a: Any, b: Any, system: Any = system):
                return descend(
                    system, system.state(encoder=a, predictor=b), moments, lr=lr, steps=steps, save_every=every
                )

            trajectory = jax.vmap(run)(jnp.asarray(encoders), jnp.asarray(predictors))
            paths.append(np.asarray(trajectory.states.encoder)[..., 0])
            ends.append(np.asarray(trajectory.status))
    settings = {
        "rho": rho, "tau": tau, "weight_decay": weight_decay, "ema_rate": ema_rate, "t1": t1, "lr": lr,
        "starts": starts, "seed": seed,
    }  # fmt: skip
    return xr.Dataset(
        {
            "encoder": (("system", "start", "time", "axis"), np.stack(paths), {"symbol": "a"}),
            "status": (("system", "start"), np.stack(ends).astype(np.int8), _flags()),
        },
        coords={"system": list(systems), "time": ("time", times, {"units": "flow units"})},
        attrs={"title": "m = 1 trajectories", "inner_radius": inner, "outer_radius": outer}
        | provenance(settings=settings, precision="float64", devices=jax.local_devices()[:1]),
    )


def _flags() -> dict[str, Any]:
    return {
        "flag_values": np.array([int(status) for status in Status], np.int8),
        "flag_meanings": " ".join(status.name.lower() for status in Status),
    }
