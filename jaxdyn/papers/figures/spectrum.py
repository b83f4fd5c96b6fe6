"""The flow of a Siamese system on given second moments: the spectrum of S = Aᵀ A over time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ...analysis.invariants import balance, gram
from ...moments import Moments
from ...provenance import provenance
from ...solve.flow import flow
from ...status import Status
from ...systems.siamese import Siamese


def spectrum(
    system: Siamese,
    moments: Moments,
    *,
    n: int,
    t1: float,
    scale: float = 0.5,
    seed: int = 0,
    n_times: int = 200,
    solver: str = "tsit5",
    settings: dict[str, Any] | None = None,
) -> xr.Dataset:
    """Run the flow from Gaussian weights and follow S = Aᵀ A, the balance, and the energies E and F.

    Returns, along `time`: `eigenvalue` [time, mode] of S, largest first; `balance` ‖K(t)‖_F of
    K = A Aᵀ − Bᵀ B/α_p, `balance_residual` ‖K(t) − e^{−2λt} K(0)‖_F (SG and EMA; equal decays),
    `objective` E and `surrogate` F; as attributes `status` and
    `stopped_at`, after which the last state is repeated.

    Args:
        system, moments: in float64.
        n: embedding dimension.
        t1: length of the flow, in flow units.
        scale: standard deviation of √n times an entry of A(0) and B(0).
        seed: of the start.
        n_times: number of output times, 0 and then spaced logarithmically up to t1.
        settings: recorded in the dataset's provenance, beside the arguments.
    """
    key_a, key_b = jax.random.split(jax.random.key(seed))
    entries = scale / np.sqrt(n)
    state = system.state(
        encoder=entries * jax.random.normal(key_a, (n, moments.m), jnp.float64),
        predictor=entries * jax.random.normal(key_b, (n, n), jnp.float64),
    )
    times = np.concatenate([[0.0], t1 * np.geomspace(2e-5, 1, n_times - 1)])
    trajectory = flow(system, state, moments, t1=t1, ts=times, solver=solver)
    eigenvalues = jax.vmap(lambda s: jnp.linalg.eigvalsh(gram(s))[::-1])(trajectory.states)
    k = jax.vmap(lambda s: balance(system, s))(trajectory.states)
    decay = jnp.exp(-2 * system.weight_decay.encoder * trajectory.times)
    norm = jax.vmap(jnp.linalg.norm)
    along_time = {
        "balance": (norm(k), "‖A Aᵀ − Bᵀ B/α_p‖"),
        "balance_residual": (norm(k - decay[:, None, None] * k[0]), "‖K(t) − e^(−2λt) K(0)‖"),
        "objective": (jax.vmap(lambda s: system.objective(s, moments))(trajectory.states), "E"),
        "surrogate": (jax.vmap(lambda s: system.surrogate(s, moments))(trajectory.states), "F"),
    }
    variables: dict[str, Any] = {
        name: ("time", np.asarray(value), {"symbol": symbol}) for name, (value, symbol) in along_time.items()
    }
    variables["eigenvalue"] = (("time", "mode"), np.asarray(eigenvalues), {"symbol": "eigenvalues of S = Aᵀ A"})
    arguments = (settings or {}) | {"n": n, "t1": t1, "scale": scale, "seed": seed, "solver": solver}
    return xr.Dataset(
        variables,
        coords={"time": ("time", times, {"units": "flow units"}), "mode": np.arange(1, moments.m + 1)},
        attrs={"title": f"{type(system).__name__} flow", "status": Status(int(trajectory.status)).name.lower()}
        | {"stopped_at": float(trajectory.stopped_at)}
        | provenance(settings=arguments, precision="float64", devices=jax.local_devices()[:1]),
    )
