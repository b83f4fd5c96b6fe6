"""Train: every setting from every seed as one program, measured every few steps, with checkpoints to go on from."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..arrays import refuse_traced
from ..checks import checked_arguments, expected, whole_number
from ..data.base import Dataset, Split, to_device
from ..provenance import provenance
from .checkpoint import Checkpoints
from .instruments import Measured, Probe, Probed, measure
from .probes import few_labels
from .recipe import Knobs, Recipe, stacked
from .training import Batch, State, Trainer, advance, draw_many, program_of, start

Progress = Callable[[int, int], None]

_PAIRS = 512  # held-out pairs of views that the instruments see
_PROBED = 2000  # labelled samples that the probes see, at most


@checked_arguments
def train(
    dataset: Dataset,
    recipe: Recipe,
    settings: Knobs | Sequence[Knobs],
    *,
    seeds: int = 5,
    first_seed: int = 0,
    every: int = 100,
    probe_every: int | None = None,
    shots: int = 5,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Train networks with every one of `settings` from each of `seeds` random starts.

    Everything random is a function of the seed and the step: all settings of a seed share start, batches and
    augmentations, and a run that is killed goes on from its checkpoint to the same numbers.

    Args:
        dataset: see `jaxdyn.data`.
        recipe: what is trained, and for how many steps.
        settings: numbers of the runs.
        every: steps between two measurements; the start and the end are measured, too.
        probe_every: steps between two probes of the frozen features (a multiple of `every`); default: only at the
            start and at the end. Needs labels.
        shots: labels a class of the few-label probe.
        checkpoint: folder to keep the last state in; if it holds one of the same run, training goes on from there.
        progress: called with steps done and steps in all.

    Returns:
        Dataset over (time, seed, setting): see `instruments.Measured`; `increment_*` are means over the steps since
        the last measurement of ‖θ_t − θ_{t−1}‖ and so on.

    Raises:
        ValueError: where recipe, settings and data do not fit together.
    """
    settings = [settings] if isinstance(settings, Knobs) else settings
    for each in settings if isinstance(settings, Sequence) else (settings,):
        expected("settings", each, Knobs)
    refuse_traced("settings, dataset", settings, dataset)
    if checkpoint is not None and not str(checkpoint):
        raise ValueError("checkpoint: expected the name of a folder, got nothing")
    if recipe.batch > len(dataset.train):
        raise ValueError(f"batch: expected at most the {len(dataset.train)} training samples, got {recipe.batch}")
    if recipe.masked and dataset.is_paired:
        raise ValueError("masked: masked prediction makes its own pairs, of samples; the data set has given pairs")
    runs = _Runs(dataset, recipe, list(settings), seeds, first_seed, shots)
    every = min(whole_number("every", every), recipe.steps)
    times = [*range(0, recipe.steps, every), recipe.steps]
    probed = _probe_times(times, probe_every, runs.probe is not None)
    keeper = None if checkpoint is None else Checkpoints(Path(checkpoint), runs.fingerprint(times, sorted(probed)))
    states, history = runs.begin(), []
    if keeper is not None and (found := keeper.load(states)) is not None:
        states, history = found
    while len(history) < len(times):
        at = len(history)
        moved = None
        if at:
            states, moved = runs.advance(states, times[at] - times[at - 1])
        history.append(runs.measure(states, moved, times[at] in probed))
        if keeper is not None:
            keeper.save(states, history)
        if progress is not None:
            progress(times[at], recipe.steps)
    return runs.dataset(times, history)


def _probe_times(times: list[int], probe_every: int | None, has_labels: bool) -> set[int]:
    if not has_labels:
        if probe_every is not None:
            raise ValueError("probe_every: the data set has no labels to probe with")
        return set()
    ends = {times[0], times[-1]}
    if probe_every is None:
        return ends
    if whole_number("probe_every", probe_every) % (times[1] - times[0]):
        raise ValueError(f"probe_every: expected a multiple of {times[1] - times[0]}, the steps between measurements")
    return ends | {time for time in times if time % probe_every == 0}


def _probe_rows(split: Split) -> np.ndarray:
    """Rows that the probes see: all, or a random choice where there are too many (sorted data have all classes)."""
    if len(split) <= _PROBED:
        return np.arange(len(split))
    return np.sort(np.random.default_rng(0).choice(len(split), _PROBED, replace=False))


def _digest(dataset: Dataset) -> str:
    """A fingerprint of all that a training sees of the data."""
    total = hashlib.blake2b(digest_size=16)
    for part in (*dataset.train, *dataset.held_out):
        if part is not None:
            array = np.ascontiguousarray(part)
            total.update(f"{array.dtype}{array.shape}".encode())
            total.update(array.tobytes())
    return total.hexdigest()


class _Runs:
    """The runs of one call: fixed data and keys, jitted functions over [seeds, settings]."""

    def __init__(
        self, dataset: Dataset, recipe: Recipe, settings: list[Knobs], seeds: int, first_seed: int, shots: int
    ):
        if not settings:
            raise ValueError("settings: expected at least one")
        self.program: Trainer = program_of(recipe, dataset.shape)
        self.settings = [each.checked(recipe) for each in settings]
        self.knobs = stacked(self.settings)
        whole_number("first_seed", first_seed, low=0, high=2**31)
        self.seeds = range(first_seed, first_seed + whole_number("seeds", seeds, high=10**6))
        self.keys = jax.vmap(jax.random.key)(jnp.asarray(self.seeds))
        self.source, self.shots = dataset, shots
        self.data, held_out = to_device(dataset.train), to_device(dataset.held_out)
        keys = jax.vmap(lambda key: jax.random.fold_in(key, 2**31 - 1))(self.keys)
        count = min(_PAIRS, 2 * len(held_out))
        self.pairs = draw_many(self.program, held_out, keys, count)
        self.probe = None
        if dataset.n_classes:
            rows, test = _probe_rows(dataset.train), _probe_rows(dataset.held_out)
            labels = np.asarray(dataset.train.labels)[rows]
            few = jnp.asarray(few_labels(labels, whole_number("shots", shots), 5))
            self.probe = Probe(self.data.source[rows], jnp.asarray(labels), held_out.source[test],
                               held_out.labels[test], few, dataset.n_classes)  # fmt: skip

    def begin(self) -> State:
        return start(self.program, self.knobs, self.keys, self.data)

    def advance(self, states: State, count: int) -> tuple[State, Any]:
        return advance(self.program, states, self.knobs, self.keys, self.data, count)

    def measure(self, states: State, moved: Any, probed: bool) -> dict[str, np.ndarray]:
        found = _measure(self.program, states, self.knobs, self.pairs, self.probe if probed else None)
        values = _flat(found, self.probe is not None)
        for name in ("loss", "encoder", "predictor", "teacher"):
            key = "loss" if name == "loss" else f"increment_{name}"
            values[key] = np.full(self._shape, np.nan) if moved is None else np.asarray(getattr(moved, name))
        return values

    @property
    def _shape(self) -> tuple[int, int]:
        return len(self.seeds), len(self.settings)

    def fingerprint(self, times: list[int], probed: list[int]) -> dict[str, Any]:
        """What must agree for a checkpoint to be of this run."""
        return {"data": self.source.name, "digest": _digest(self.source), "precision": str(jnp.zeros(()).dtype),
                "recipe": repr(self.program.recipe),
                "settings": [repr(each) for each in self.settings], "seeds": [self.seeds[0], len(self.seeds)],
                "times": times, "probed": probed, "shots": self.shots}  # fmt: skip

    def dataset(self, times: list[int], history: list[dict[str, Any]]) -> xr.Dataset:
        """The measurements, with names and units."""
        variables: dict[str, Any] = {}
        for name in history[-1]:
            values = np.stack([each[name] for each in history])
            extra = ("mode",) if values.ndim == 4 else ()
            variables[name] = (("time", "seed", "setting", *extra), values, {"long_name": LONG_NAMES[name]})
        for name in self.settings[0].named():
            values = np.array([float(getattr(each, name)) for each in self.settings])
            variables[f"knob_{name}"] = ("setting", values, {"long_name": name.replace("_", " ")})
        coordinates = {"time": ("time", np.array(times), {"units": "step"}), "seed": list(self.seeds)}
        recipe = {key: value for key, value in asdict(self.program.recipe).items() if key != "augmentation"}
        origin = provenance(settings={"data": self.source.name, **recipe, **asdict(self.program.recipe.augmentation)},
                            precision=str(jnp.zeros(()).dtype), devices=jax.local_devices()[:1])  # fmt: skip
        return xr.Dataset(variables, coordinates, {"title": "training", "data": self.source.name} | origin)


@eqx.filter_jit
def _measure(program: Trainer, states: State, knobs: Knobs, pairs: Batch, probe: Probe | None) -> Measured:
    """Measurements [seeds, settings, …]; runs one by one, to keep the probes' memory small."""

    def one(each: Any):
        state, knob, batch = each
        return measure(program, state, knob, batch, probe)

    seeds, settings = states.step.shape
    flat = jax.tree.map(lambda leaf: leaf.reshape(seeds * settings, *leaf.shape[2:]), states)
    repeat = lambda leaf: jnp.tile(leaf, seeds)  # noqa: E731
    again = jax.tree.map(lambda leaf: jnp.repeat(leaf, settings, 0), pairs)
    found = jax.lax.map(one, (flat, jax.tree.map(repeat, knobs), again))
    return jax.tree.map(lambda leaf: leaf.reshape(seeds, settings, *leaf.shape[1:]), found)


def _flat(found: Measured, has_probe: bool) -> dict[str, np.ndarray]:
    values = {"energy": found.energy, "surrogate": found.surrogate}
    values |= found.spectrum._asdict() | found.alignment._asdict()
    values |= {f"size_{name}": part for name, part in found.sizes._asdict().items()}
    if has_probe:
        nan = jnp.full(found.energy.shape, jnp.nan)
        parts = found.accuracy
        for name in Probed._fields:
            values[f"accuracy_{name}"] = nan if parts is None else getattr(parts, name)
    return {name: np.asarray(part) for name, part in values.items()}


LONG_NAMES = {
    "energy": "E on held-out pairs",
    "surrogate": "F on held-out pairs",
    "eigenvalue": "eigenvalues of the embeddings' covariance",
    "rank": "effective rank of the embeddings (RankMe)",
    "participation": "participation ratio of the covariance",
    "unit_std": "standard deviation of unit embeddings × √n",
    "spread": "total variance of unit embeddings",
    "collapsed": "1 if collapsed",
    "f_eigenvalue": "eigenvalues of F = E[f fᵀ]",
    "p_eigenvalue": "eigenvalues of the symmetric part of W_p",
    "cosine": "mean |cos(u, W_p u)| over eigenvectors u of F",
    "cosine_weighted": "the same, weighted by eigenvalues of F",
    "asymmetry": "‖W_p − W_pᵀ‖/‖W_p‖",
    "negative": "share of W_p's squared eigenvalues that are negative",
    "balance": "balance residual of encoder and predictor",
    "size_encoder": "‖θ‖",
    "size_predictor": "‖ψ‖",
    "size_teacher": "‖ξ‖",
    "accuracy_linear": "held-out accuracy, logistic regression",
    "accuracy_few": "held-out accuracy, logistic regression, few labels",
    "accuracy_neighbours": "held-out accuracy, 10 nearest neighbours",
    "accuracy_embedding": "held-out accuracy of the embedding, few labels",
    "accuracy_attentive": "held-out accuracy, attentive probe",
    "loss": "training loss, mean since the last time",
    "increment_encoder": "‖θ_t − θ_{t−1}‖, mean since the last time",
    "increment_predictor": "‖ψ_t − ψ_{t−1}‖, mean since the last time",
    "increment_teacher": "‖ξ_t − ξ_{t−1}‖, mean since the last time",
}


def summary(found: xr.Dataset) -> str:
    """One line a setting: where training ended, mean ± standard deviation over seeds."""
    last = found.isel(time=-1)
    columns = {"E": "energy", "F": "surrogate", "rank": "rank", "spread": "spread", "few labels": "accuracy_few",
               "embedding": "accuracy_embedding", "all labels": "accuracy_linear",
               "attentive": "accuracy_attentive"}  # fmt: skip
    shown = {title: name for title, name in columns.items() if name in last and np.isfinite(last[name]).any()}
    labels = [str(label) for label in found["label" if "label" in found.coords else "setting"].values]
    width = max(12, *map(len, labels))
    lines = [f"{'':{width}}" + "".join(f"{title:>17}" for title in shown) + "   collapsed"]
    lines.append("-" * len(lines[0]))
    for place, label in enumerate(labels):
        row = last.isel(setting=place)
        cells = []
        for title, name in shown.items():
            scale, digits = (100, 1) if name.startswith("accuracy") else (1, 1 if title == "rank" else 3)
            values = scale * row[name].values
            spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.{digits}f}{spread}".rjust(17))
        gone = int((row["collapsed"] > 0).sum())
        lines.append(f"{label:{width}}{''.join(cells)}   {gone} of {row.sizes['seed']}")
    start = found.isel(time=0, setting=0)
    if "few labels" in shown:
        lines.append(f"untrained features: few labels {100 * float(start['accuracy_few'].mean()):.1f}, "
                     f"all labels {100 * float(start['accuracy_linear'].mean()):.1f}")  # fmt: skip
    return "\n".join(lines)
