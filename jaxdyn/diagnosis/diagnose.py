"""Will this set-up collapse, and why: moments of real views, each mode's predicted fate, and what training does."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from ..analysis.invariants import gram
from ..analysis.linearise import Verdict, linearise
from ..analysis.modal import mode_fates, modes_of, settled_spectrum
from ..arrays import in_float64
from ..checks import checked_arguments
from ..data import Augmentation, Dataset
from ..data.views import VIEW, Views, views_of
from ..engines.blocks import blockwise
from ..equilibria.equations import decay_bound
from ..intervals import proportion
from ..moments import Moments
from ..provenance import provenance
from ..solve.ensemble import flow_ensemble
from ..solve.methods.rest import Rest
from ..status import Status
from ..systems.siamese import MovingAverage, Siamese, StopGradient
from .setup import Setup

_AT_REST = 0.01  # rate relative to the state in units of λ, at which dying modes die: they are below 0.01 then
ALIVE = 0.05  # share of a mode's predicted eigenvalue above which a run counts as having it


def system_of(setup: Setup) -> Siamese:
    """The linear system of a set-up."""
    if setup.system == "sg":
        return StopGradient(setup.weight_decay, setup.predictor_lr_ratio)
    return MovingAverage(setup.weight_decay, setup.predictor_lr_ratio, ema_rate=setup.ema_rate)


@checked_arguments
@in_float64
def diagnose(
    dataset: Dataset,
    setup: Setup,
    augmentation: Augmentation = VIEW,
    *,
    progress: Callable[[str], None] | None = None,
) -> xr.Dataset:
    """Predict what a linear set-up learns from these views, mode by mode, and compare with training on minibatches.

    Computed in float64, whatever the setting outside.

    Returns:
        Dataset over `mode` (descending threshold), `seed` and `step`: bootstrapped ρ, τ and thresholds; the
        uncoupled prediction `predicted_alone` and the coupled `predicted`, eigenvalues of S; `trained` [seed, mode];
        `followed` [seed, mode], the procedure on exact moments from the same starts; `survivors`, random starts by the
        number of modes that stay alive, `unresolved` those not at rest by t1. See `errors` and `report`.
    """
    tell = progress or (lambda words: None)
    tell("moments")
    pairs = views_of(dataset, setup.m, augmentation, key=jax.random.key(setup.seed))
    parts = _parts(pairs)
    moments = _moments(parts.mean(0))
    modes = modes_of(moments)
    variables: dict[str, Any] = _bootstrap(parts, modes, setup)
    fates = mode_fates(modes.rho, modes.tau, setup.weight_decay, setup.predictor_lr_ratio)
    for name, value in (("rho", modes.rho), ("tau", modes.tau), ("threshold", fates.threshold), ("rate", fates.rate),
                        ("predicted_alone", fates.eigenvalue), ("inner", fates.inner)):  # fmt: skip
        variables[name] = ("mode", np.asarray(value))
    tell("equilibrium")
    system = system_of(setup)
    predicted, end = settled_spectrum(system, moments, fates, modes.axes, n=setup.embedding, t1=50 / setup.weight_decay)
    full = system.state(encoder=end.encoder, predictor=end.predictor)
    verdict = linearise(system, full, moments)
    variables["predicted"] = ("mode", np.asarray(predicted))
    tell("random starts")
    alive_at_end = _survivors(setup, moments, predicted)
    settled = alive_at_end[alive_at_end >= 0]
    tell("training")
    trained, followed, series, energies, last = _trained(setup, pairs, moments)
    variables |= {
        "trained": (("seed", "mode"), trained), "followed": (("seed", "mode"), followed),
        "trained_series": (("step", "seed", "mode"), series),
        "survivors": ("alive", np.bincount(settled, minlength=setup.m + 1), {"units": "trials"}),
        "unresolved": ((), int(np.sum(alive_at_end < 0)), {"units": "trials", "long_name": "not at rest by t1"}),
        "energy": (("step", "seed"), energies),
    }  # fmt: skip
    coordinates = {"mode": np.arange(1, setup.m + 1), "step": ("step", last, {"units": "step"}),
                   "seed": np.arange(setup.seed, setup.seed + setup.seeds)}  # fmt: skip
    margin = float(verdict.margin)
    attributes = {
        "title": "diagnosis", "data": dataset.name, "coupling": modes.coupling, "skew": modes.skew,
        "verdict": Verdict(int(verdict.verdict)).name.lower(), "threshold": float(fates.threshold[0]),
        "decay_bound": float(decay_bound(moments)), "slowest_time": 1 / margin if margin > 0 else float("inf"),
    }  # fmt: skip
    settings = {name: asdict(setup)[name] for name in Setup.__dataclass_fields__} | asdict(augmentation)
    settings["data"] = dataset.name
    origin = provenance(settings=settings, precision="float64", devices=jax.local_devices()[:1])
    return xr.Dataset(variables, coordinates, attributes | origin)


def _parts(pairs: Views) -> np.ndarray:
    """Every sample's contribution to (X, Y, Z), [samples, 3, m, m]."""
    outer = lambda a, b: np.einsum("nci,ncj->nij", a, b) / a.shape[1]  # noqa: E731
    return np.stack(
        [outer(pairs.source, pairs.source), outer(pairs.target, pairs.source), outer(pairs.target, pairs.target)], 1
    )


def _moments(mean: np.ndarray) -> Moments:
    xx, yx, yy = mean
    return Moments((xx + xx.T) / 2, yx, (yy + yy.T) / 2)


def _bootstrap(parts: np.ndarray, modes: Any, setup: Setup) -> dict[str, Any]:
    """95 % intervals (percentiles over resampled samples) of ρ, τ and the threshold in fixed axes."""
    rng, axes = np.random.default_rng(setup.seed), np.asarray(modes.axes)
    along = np.einsum("ij,nkil,lj->nkj", axes, parts[:, :2], axes)
    weights = rng.multinomial(len(parts), np.full(len(parts), 1 / len(parts)), setup.resamples) / len(parts)
    rho, tau = np.moveaxis(np.einsum("bn,nkj->bkj", weights, along), 1, 0)
    threshold = tau**2 / (4 * np.maximum(rho, 1e-300))
    ends = lambda values: (("mode", "end"), np.percentile(values, [2.5, 97.5], axis=0).T)  # noqa: E731
    survives = ("mode", np.mean(threshold > setup.weight_decay, 0), {"long_name": "share of resamples that survive"})
    return {"rho_interval": ends(rho), "tau_interval": ends(tau), "threshold_interval": ends(threshold),
            "survives": survives}  # fmt: skip


def _starts(setup: Setup, seed: int, count: int) -> tuple[Array, Array]:
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(jax.random.key(seed), i)))(jnp.arange(count))
    n, entries = setup.embedding, setup.scale / np.sqrt(setup.embedding)
    encoder = jax.vmap(lambda k: jax.random.normal(k, (n, setup.m), jnp.float64))(keys[:, 0])
    predictor = jax.vmap(lambda k: jax.random.normal(k, (n, n), jnp.float64))(keys[:, 1])
    return entries * encoder, entries * predictor


def _states(setup: Setup, seed: int, count: int) -> Any:
    system = system_of(setup)
    return jax.vmap(lambda a, b: system.state(encoder=a, predictor=b))(*_starts(setup, seed, count))


def _survivors(setup: Setup, moments: Moments, predicted: Array) -> np.ndarray:
    """How many modes are alive where the flow on exact moments has come to rest by t1, from random starts; −1 where it
    has not."""
    system, rest = system_of(setup), Rest(_AT_REST * setup.weight_decay)
    states = jax.tree.map(np.asarray, _states(setup, setup.seed + 10**6, setup.n_trials))
    ends = flow_ensemble(system, states, moments, t1=setup.t1, rtol=1e-6, atol=1e-8)
    rests = jax.jit(jax.vmap(lambda state: rest.of_rate(system.field(setup.t1, state, moments), state)))
    resolved = blockwise(rests, ends.final) & (ends.status == Status.COMPLETED)
    grams = np.einsum("tni,tnj->tij", ends.final.encoder, ends.final.encoder)
    values = np.linalg.eigvalsh(np.where(np.isfinite(grams), grams, 0))
    living = np.asarray(predicted)[np.asarray(predicted) > 1e-9]
    least = ALIVE * (living.min() if living.size else 1.0)
    return np.where(resolved, np.sum(values > least, 1), -1)


def _trained(setup: Setup, pairs: Views, moments: Moments) -> tuple[np.ndarray, ...]:
    """Spectra [seed, mode] trained on minibatches (mean over the last fifth) and followed on exact moments; the
    spectra and E along the way, and the steps."""
    steps = max(100, round(setup.t1 / setup.lr))
    block, system, lr = max(1, steps // 100), system_of(setup), setup.lr
    states = _states(setup, setup.seed, setup.seeds)
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(setup.seed + 1), i))(jnp.arange(setup.seeds))
    pool = [jnp.asarray(side.reshape(-1, setup.m)) for side in pairs]

    def one(state: Any, key: Any, step: Any):
        rows = jax.random.randint(jax.random.fold_in(key, step), (setup.batch,), 0, pool[0].shape[0])
        x, y = pool[0][rows], pool[1][rows]
        batch = Moments(*(part / setup.batch for part in (x.T @ x, y.T @ x, y.T @ y)))
        return system.step(state, batch, lr)

    @jax.jit
    def advance(states: Any, exact: Any, start: Any) -> tuple[Any, Any, Any, Any, Any]:
        def body(i: Any, pair: Any):
            states, exact = pair
            return (jax.vmap(lambda s, k: one(s, k, start + i))(states, keys),
                    jax.vmap(lambda s: system.step(s, moments, lr))(exact))  # fmt: skip

        states, exact = jax.lax.fori_loop(0, block, body, (states, exact))
        look = jax.vmap(lambda s: jnp.linalg.eigvalsh(gram(s))[::-1])
        return states, exact, look(states), look(exact), jax.vmap(lambda s: system.objective(s, moments))(states)

    exact, series, energies, follow = states, [], [], None
    for at in range(0, steps, block):
        states, exact, now, follow, energy = advance(states, exact, at)
        series.append(np.asarray(now))
        energies.append(np.asarray(energy))
    last = block * np.arange(1, len(series) + 1)
    tail = np.stack(series)[-max(1, len(series) // 5) :]
    return tail.mean(0), np.asarray(follow), np.stack(series), np.stack(energies), last


def errors(dataset: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Trained over predicted eigenvalue, less one, of the modes predicted to live [k]: mean over seeds, and its
    standard error."""
    living = dataset["predicted"].values > 1e-9
    ratio = dataset["trained"].values[:, living] / dataset["predicted"].values[living] - 1
    return ratio.mean(0), ratio.std(0, ddof=1) / np.sqrt(ratio.shape[0])


def report(dataset: xr.Dataset, setup: Setup) -> str:
    """The diagnosis in words and numbers."""
    d, decay = dataset, setup.weight_decay
    living = d["predicted"].values > 1e-9
    head = (
        f"{'mode':>4} {'ρ':>8} {'τ':>8} {'threshold':>11} {'95 % interval':>19} {'survives*':>9} {'alone':>9}     time"
    )
    lines = [f"{setup.system} on {d.attrs['data']}: m = {setup.m}, n = {setup.embedding}, λ = {decay:g}, "
             f"α_p = {setup.predictor_lr_ratio:g}" + (f", β = {setup.ema_rate:g}" if setup.system == "ema" else ""),
             "", head, "-" * len(head)]  # fmt: skip
    for i in range(setup.m):
        low, high = d["threshold_interval"].values[i]
        lines.append(
            f"{i + 1:4} {float(d['rho'][i]):8.4f} {float(d['tau'][i]):8.4f} {float(d['threshold'][i]):11.5f} "
            f"{low:8.5f} – {high:8.5f} {100 * float(d['survives'][i]):7.0f} % {float(d['predicted_alone'][i]):9.4f} "
            f"{1 / float(d['rate'][i]):8.1f}"
        )
    lines += [
        "",
        "* share of resamples in which the mode by itself survives; coupled, see the prediction below",
        f"each mode alone lives below its threshold τ²/4ρ; the modes are {100 * d.attrs['coupling']:.1f} % coupled, "
        f"Y is {100 * d.attrs['skew']:.1f} % skew",
        f"collapse above λ = {d.attrs['threshold']:.5f} (modes alone); nothing but the origin above "
        f"{d.attrs['decay_bound']:.5f} (bound)",
        f"slowest time scale {d.attrs['slowest_time']:.0f} flow units = "
        f"{d.attrs['slowest_time'] / setup.lr:.0f} steps; the equilibrium is {d.attrs['verdict']}",
        "from random starts, on exact moments:",
        *survival_text(d),
        "",
        f"{'eigenvalue of S':>16} {'alone':>9} {'predicted':>10} {'trained':>9} {'± std':>8} {'error':>8}",
    ]
    alone, trained = np.sort(d["predicted_alone"].values)[::-1], d["trained"].values
    for i in range(setup.m):
        error = f"{100 * (trained[:, i].mean() / float(d['predicted'][i]) - 1):6.1f} %" if living[i] else "       –"
        lines.append(f"{i + 1:16} {alone[i]:9.4f} {max(float(d['predicted'][i]), 0):10.4f} {trained[:, i].mean():9.4f} "
                     f"{trained[:, i].std(ddof=1):8.4f} {error}")  # fmt: skip
    lines += ["", _conclusion(d, living)]
    if setup.t1 < 8 * d.attrs["slowest_time"]:
        lines.append(f"t1 = {setup.t1:g} is short beside the slowest time scale: training may not have come to rest")
    return "\n".join(lines)


def _conclusion(d: xr.Dataset, living: np.ndarray) -> str:
    least = ALIVE * (d["predicted"].values[living].min() if living.any() else 1.0)
    alive = np.sum(d["trained"].values > least, 1)
    expected, seen = int(living.sum()), sorted(set(alive.tolist()))
    if not living.any():
        outcome = "as predicted" if seen == [0] else f"but {seen} modes were alive after training"
        return f"prediction: complete collapse, {outcome}"
    words = f"prediction: {expected} of {len(living)} modes live"
    if seen != [expected]:
        return f"{words}; trained runs ended with {', '.join(map(str, seen))} (starts matter: see the shares above)"
    mean, error = errors(d)
    worst = int(np.argmax(np.abs(mean)))
    return (f"{words}, and did in every run; largest error {100 * mean[worst]:+.1f} ± {100 * error[worst]:.1f} % "
            f"(eigenvalue {worst + 1})")  # fmt: skip


def survival_text(dataset: xr.Dataset) -> list[str]:
    """Shares of random starts by the number of modes alive at the end, with 95 % Wilson intervals."""
    counts, unresolved = dataset["survivors"].values, int(dataset["unresolved"])
    named = {f"{alive} of {len(counts) - 1} modes alive": int(count) for alive, count in enumerate(counts)}
    named["not at rest by t1"] = unresolved
    total, lines = int(counts.sum()) + unresolved, []
    for name, count in named.items():
        if count:
            low, high = proportion(count, total)
            lines.append(f"  {name} {100 * count / total:6.1f} %  ({100 * low:.1f} – {100 * high:.1f} %)")
    return lines
