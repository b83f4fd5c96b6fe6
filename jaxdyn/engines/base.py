"""The engine contract: many independent trials of one step function, each until it is done.

    run(step, done, states, params, max_steps, **options) -> Finished(states, steps, status)

`step(state, params) -> state` and `done(previous, state, params) -> bool` are pure JAX functions of a
single trial; `states` and `params` are pytrees with a leading trial axis. A trial is stepped until
`done` (status `CONVERGED`), until a component stops being finite (`DIVERGED`; its last finite state is
kept), or for `max_steps` steps (`OUT_OF_STEPS`). It is judged after every step of its own; `done` may be
None. A slow or diverging trial costs no other trial its result, and what happens to a trial depends on
nothing but its own state and parameters: not on the batch, the order, the devices or a restart.

What a trial passes on its way is kept by `record(previous, state, params, when) -> (due, value)`: after
every step, as long as it says `due`, `value` is stored as the trial's next one and `when` moves on along
`times` (a float64 each; infinite after the last). Rows that were never reached stay zero.

To add an engine: write `run` in a module of its own, register it in `engines/__init__.py` and add its name
to `jaxdyn.names`; the tests run every registered engine over the same trials.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Device: TypeAlias = Any  # jax.Device, which type checkers see as a variable
StepFunction = Callable[[Any, Any], Any]
DoneFunction = Callable[[Any, Any, Any], Any]
RecordFunction = Callable[[Any, Any, Any, Any], tuple[Any, Any]]
Progress = Callable[[int], Any]


class Finished(NamedTuple):
    """Results of a batch, on the host: final states, steps taken [trials] and `Status` [trials].

    With `record`: its values, a pytree of arrays [trials, times, …], and how many each trial has [trials].
    """

    states: Any
    steps: np.ndarray
    status: np.ndarray
    saved: Any = None
    n_saved: np.ndarray | None = None


class Engine(Protocol):
    """See the module's docstring. `progress` is called with the number of trials newly finished;
    `order`, a permutation of the trials, says which start first (the longest, if known)."""

    def __call__(
        self,
        step: StepFunction,
        done: DoneFunction | None,
        states: Any,
        params: Any,
        max_steps: int,
        *,
        devices: Sequence[Device] | None = None,
        progress: Progress | None = None,
        record: RecordFunction | None = None,
        times: np.ndarray | None = None,
        order: np.ndarray | None = None,
    ) -> Finished: ...


def batch_size(states: Any, params: Any) -> int:
    """The number of trials, the one leading axis of all leaves."""
    sizes = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves((states, params))}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"states, params: expected one leading axis of at least one trial, got sizes {sorted(sizes)}")
    return sizes.pop()


def in_jax_dtype(leaf: Any) -> np.ndarray:
    """The leaf on the host in the dtype JAX will compute in; not copied if it is so already."""
    if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise ValueError(
            "states, data: typed random keys are no numbers; hold jax.random.key_data(keys), and in the step take "
            "jax.random.wrap_key_data of it"
        )
    leaf = np.asarray(leaf)
    return np.asarray(leaf, jax.dtypes.canonicalize_dtype(leaf.dtype.newbyteorder("=")))


def on_host(leaf: Any) -> np.ndarray:
    """A copy of the leaf on the host, in the dtype JAX will compute in."""
    return np.array(in_jax_dtype(leaf), order="C")


def one_trial(tree: Any) -> Any:
    """The shapes and dtypes of a single trial of a batch."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tree)


def constants(part: Any) -> Iterator[Any]:
    """The arrays that a jaxpr refers to, and those of the jaxprs inside it, which its text does not show."""
    yield from getattr(part, "consts", ())
    for equation in getattr(getattr(part, "jaxpr", part), "eqns", ()):
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from constants(inner)


_SETTINGS: dict[str, Callable[[Any], contextlib.AbstractContextManager[None]]] = {
    "jax_enable_x64": jax.enable_x64, "jax_threefry_partitionable": jax.threefry_partitionable,
    "jax_default_prng_impl": jax.default_prng_impl, "jax_default_matmul_precision": jax.default_matmul_precision,
    "jax_numpy_dtype_promotion": jax.numpy_dtype_promotion, "jax_numpy_rank_promotion": jax.numpy_rank_promotion,
}  # fmt: skip


def tracing() -> tuple[Any, ...]:
    """JAX's settings on which it depends what a function is traced as: keys of caches have them beside the function."""
    return tuple(getattr(jax.config, name) for name in _SETTINGS)


@contextlib.contextmanager
def traced_as(settings: tuple[Any, ...]) -> Generator[None]:
    """With another thread's `tracing()`: threads begin with JAX's own."""
    with contextlib.ExitStack() as stack:
        for context, value in zip(_SETTINGS.values(), settings, strict=True):
            stack.enter_context(context(value))
        yield


def save_times(times: Any) -> np.ndarray:
    """The times of `record`, closed by an infinite one, which is never due."""
    return np.append(np.asarray(times, np.float64), np.inf)
