"""Every public function, every parameter, values that make no sense: refused in one line that names the parameter.

Functions and parameters are read off the package, so that a new one is tried by existing; what a valid call looks like
is said below, and a function without one fails.
"""

import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdyn as jd
from jaxdyn.data import digits

SYSTEM, DECAY = jd.StopGradient(0.05), lambda t, y, rate: -rate * y
ONE = jd.Moments.scalar(1.0, 0.9)
STATE = SYSTEM.state(encoder=np.ones((2, 1)), predictor=np.eye(2))
HALVE = lambda state, data, lr: state * (1 - lr)  # noqa: E731
_TRIALS: list = []


def trials():
    """A small table of trials, computed once."""
    if not _TRIALS:
        _TRIALS.append(jd.run_trials(jd.ScalarLaws(), 8))
    return _TRIALS[0]


CALLS = {
    "at": lambda: {"tree": SYSTEM, "when": 1.0},
    "balance": lambda: {"system": SYSTEM, "state": STATE},
    "branches": lambda: {"settings": lambda x: (jd.StopGradient(x), ONE), "low": 0.01, "high": 0.1},
    "byol_decay": lambda: {"ema_decay": 0.9, "steps": 10},
    "census": lambda: {"systems": SYSTEM, "moments": ONE},
    "certify": lambda: {"gram": np.zeros((1, 1)), "rank": 0, "n": 2, "system": SYSTEM, "moments": ONE},
    "collapse_threshold": lambda: {"system": SYSTEM, "moments": ONE},
    "decay_bound": lambda: {"moments": ONE},
    "descend": lambda: {"system": HALVE, "state": np.ones(2), "data": None, "lr": 0.1, "steps": 3},
    "descend_ensemble": lambda: {"system": HALVE, "states": np.ones((2, 2)), "data": None, "lr": 0.1, "steps": 3},
    "diagnose": lambda: {"dataset": digits(), "setup": jd.Setup()},
    "equilibria": lambda: {"system": SYSTEM, "moments": ONE},
    "flow": lambda: {"system": DECAY, "state": np.ones(2), "data": 1.0, "t1": 1.0},
    "flow_ensemble": lambda: {"system": DECAY, "states": np.ones((2, 2)), "data": 1.0, "t1": 1.0},
    "gradient_defect": lambda: {"system": SYSTEM, "point": STATE, "data": ONE},
    "gram": lambda: {"state": STATE},
    "jacobian": lambda: {"system": SYSTEM, "state": STATE, "data": ONE},
    "largest_lr": lambda: {"system": HALVE, "state": np.zeros(1), "data": None},
    "linearise": lambda: {"system": DECAY, "state": np.zeros(2), "data": 1.0},
    "load_dataset": lambda: {"location": "digits"},
    "load_moments": lambda: {"location": "digits", "m": 2},
    "make_figure": lambda: {"id": "T-4", "folder": "unused"},
    "mode_fates": lambda: {"rho": np.ones(1), "tau": np.ones(1), "weight_decay": 0.1},
    "modes_of": lambda: {"moments": ONE},
    "outcome_shares": lambda: {"trials": trials()},
    "prepare": lambda: {
        "ensemble": jd.flow_ensemble,
        "system": DECAY,
        "states": np.ones((2, 2)),
        "data": 1.0,
        "t1": 1.0,
    },
    "radii": lambda: {"data": jd.ScalarData(1.0, 1.0, 0.09)},
    "rotate": lambda: {"u": np.eye(2), "state": STATE},
    "run_trials": lambda: {"problem": jd.ScalarLaws(), "n_trials": 8},
    "table": lambda: {"trials": trials()},
    "train": lambda: {"dataset": digits(), "recipe": jd.Recipe(steps=1), "settings": jd.Knobs()},
    "views_of": lambda: {"data": (np.ones((3, 2)), np.ones((3, 2)))},
}
NONSENSE = {
    "None": None, "text": "nonsense", "a class": jd.StopGradient, "an object": object(), "NaN": float("nan"),
    "infinity": float("inf"), "minus one": -1, "a complex array": np.array([1j]), "text in an array": np.array(["x"]),
    "NaNs": np.full((2, 2), np.nan), "empty": np.zeros((0, 0)), "a function": lambda: None, "a huge number": 10**30,
}  # fmt: skip
# What may be given: parameters that take anything (a user's own data, pytrees), or values that have a meaning there.
ANYTHING = {"data", "tree", "dtype", "in_axes", "point"}
MEANT = {
    ("progress", "a function"), ("save", "a function"), ("until", "a function"), ("optimizer", "a function"),
    ("lr", "a function"), ("directions", "a function"), ("settings", "a function"), ("system", "a function"),
    ("system", "a class"), ("when", "minus one"), ("when", "a huge number"), ("when", "infinity"), ("when", "NaN"),
    ("high", "a huge number"), ("ts", "None"), ("seed", "a huge number"), ("steps", "a huge number"),
    ("t0", "minus one"), ("t1", "a huge number"), ("tau", "minus one"), ("tau", "a huge number"),
    ("low", "minus one"), ("zero_tolerance", "a huge number"), ("max_steps", "a huge number"),
    ("when", "NaNs"), ("when", "empty"), ("probe_every", "a huge number"),
    ("lr", "a huge number"), ("checkpoint", "text"), ("folder", "text"), ("every", "a huge number"),
    ("save_every", "a huge number"), ("batch_size", "a huge number"), ("n", "a huge number"),
    *((name, words) for name in ("state", "states") for words in ("NaN", "NaNs", "infinity", "a huge number")),
    ("rtol", "a huge number"), ("atol", "a huge number"), ("dt", "a huge number"),
}  # fmt: skip


def public_functions():
    stub = (Path(jd.__file__).parent / "__init__.pyi").read_text()
    names = re.findall(r"import (\w+) as", stub)
    return [name for name in names if inspect.isroutine(getattr(jd, name))]


def test_every_public_function_has_a_valid_call():
    assert set(CALLS) == set(public_functions())


def tries():
    for name in public_functions():
        for parameter in inspect.signature(getattr(jd, name)).parameters.values():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD or parameter.name in ANYTHING:
                continue
            for words, value in NONSENSE.items():
                allowed = (parameter.name, words) in MEANT or (value is None and parameter.default is None)
                if not allowed:
                    yield pytest.param(name, parameter.name, value, id=f"{name}-{parameter.name}-{words}")


@pytest.mark.parametrize(("name", "parameter", "value"), [*tries()])
def test_nonsense_is_refused_by_name(name, parameter, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, NotImplementedError)) as refused:
        getattr(jd, name)(**(CALLS[name]() | {parameter: value}))
    message = str(refused.value)
    # A system's own check of its state names what it looks at; a file is named itself, or by the command's option.
    named = {parameter, parameter.rstrip("s"), {"location": "data", "t0": "t1", "low": "high"}.get(parameter)}
    assert any(name and name in message for name in named), message
    assert "\n" not in message
    assert len(message) < 400
    assert not any(tmp_path.iterdir())


def numbers_of(value):
    """The places of a value's floating numbers, and all its leaves."""
    leaves, structure = jax.tree.flatten(value)
    places = [k for k, leaf in enumerate(leaves) if isinstance(leaf, float | np.ndarray | jax.Array)]
    places = [k for k in places if jnp.issubdtype(getattr(leaves[k], "dtype", np.float64), np.floating)]
    return places, leaves, structure


def traceable():
    for name in public_functions():
        for parameter, value in CALLS[name]().items():
            if numbers_of(value)[0]:
                yield pytest.param(name, parameter, id=f"{name}-{parameter}")


@pytest.mark.parametrize(("name", "parameter"), [*traceable()])
def test_a_traced_argument_works_or_is_refused(name, parameter):
    arguments = CALLS[name]()
    places, leaves, structure = numbers_of(arguments[parameter])

    def call(numbers):
        traced = dict(zip(places, numbers, strict=True))
        value = jax.tree.unflatten(structure, [traced.get(k, leaf) for k, leaf in enumerate(leaves)])
        try:
            getattr(jd, name)(**(arguments | {parameter: value}))
        except ValueError as error:
            assert re.match(r"[a-z_0-9, ]+: ", str(error)), error  # noqa: PT017  (either is right)
            assert "\n" not in str(error)  # noqa: PT017

    jax.jit(call)([leaves[k] for k in places])


def test_traced_values_are_refused_or_judged():
    """A traced number that makes no sense gives no verdict and no result that looks right."""
    found = jax.vmap(lambda lr: jd.linearise(HALVE, jnp.zeros(1), None, lr=lr))(jnp.array([-1.0, jnp.nan, 0.5]))
    assert np.asarray(found.verdict).tolist() == [jd.Verdict.UNDETERMINED] * 2 + [jd.Verdict.STABLE]
    ended = jax.vmap(lambda t1: jd.flow(DECAY, jnp.ones(1), 1.0, t1=t1))(jnp.array([-1.0, jnp.nan, 1.0]))
    assert np.asarray(ended.status).tolist() == [jd.Status.DIVERGED] * 2 + [jd.Status.COMPLETED]


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: jd.StopGradient(0.1, None), "predictor_lr_ratio"),  # type: ignore[arg-type]
        (lambda: jd.StopGradient(None), "weight_decay"),
        (lambda: jd.MovingAverage(0.1, ema_rate=None), "ema_rate"),  # type: ignore[arg-type]
        (lambda: jd.Setup(system="sg", ema_rate=0.9), "ema_rate"),
        (lambda: jd.RandomMoments("sg", 2, symmetric="no"), "symmetric"),  # type: ignore[arg-type]
        (lambda: jd.Moments.random(jax.random.key(0), 2, symmetric="no"), "symmetric"),  # type: ignore[arg-type]
        (lambda: jd.Moments.random(0, 2), "key"),  # type: ignore[arg-type]
        (lambda: jd.Moments.random(jax.random.key(0), 10**9), "m"),
        (lambda: jd.Moments.random(jax.random.key(0), 2, dtype="foo"), "dtype"),
        (lambda: SYSTEM.random_state(0, n=2, m=1), "key"),  # type: ignore[arg-type]
        (lambda: jd.Recipe(projector=float("nan")), "projector"),  # type: ignore[arg-type]
        (lambda: jd.Recipe(both_sides="a"), "both_sides"),  # type: ignore[arg-type]
        (lambda: jd.Recipe(augmentation=None), "augmentation"),  # type: ignore[arg-type]
        (lambda: jd.Augmentation(flip=float("nan")), "flip"),  # type: ignore[arg-type]
        (lambda: jd.train(digits(), jd.Recipe(batch=20_000, steps=1), jd.Knobs()), "batch"),
        (lambda: jd.train(digits(), jd.Recipe(steps=1), jd.Knobs(lr=float("nan"))), "lr"),
        (lambda: jd.gradient_defect(SYSTEM, STATE, ONE, key=jax.random.key(0)), "key"),
    ],
)
def test_settings_that_make_no_sense_are_refused_where_they_are_made(make, word):
    with pytest.raises(ValueError, match=f"^{word}: "):
        make()
