"""Problems of any m: trials on given moments, and on moments drawn anew for each trial."""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ..arrays import in_float64, refuse_traced, traceable
from ..checks import number, one_of, whole_number, yes_or_no
from ..engines.blocks import blockwise
from ..engines.kept import Kept
from ..equilibria.census import census, equilibria
from ..equilibria.equations import decay_bound
from ..equilibria.result import Equilibria
from ..moments import Moments
from ..schedules import is_scheduled
from ..systems.siamese import MovingAverage, Siamese, StopGradient
from .base import UNSETTLED, Classified, Drawn, Ended, settled
from .draws import draw_blocks, sample
from .match import match
from .starts import Starts

_AXES = {"encoder": ("embedding", "input"), "predictor": ("embedding", "embedding_in"),
         "teacher": ("embedding", "input")}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Given:
    """Random starts of one system on given moments: which share ends at which equilibrium.

    Args:
        system: `StopGradient`, `MovingAverage` or `Objective`; its numbers may be schedules of the steps taken, and
            then `census` must say which equilibria are meant.
        moments: in float64.
        lr: learning rate of the procedure, a number.
        census: an answer of `equilibria` for this system and these moments to match against; default: computed.

    Raises:
        ValueError: for a census of another system, moments or n, and what `equilibria` refuses.
    """

    system: Siamese
    moments: Moments
    lr: float = 0.05
    census: Equilibria | None = None

    def __post_init__(self):
        if not isinstance(self.system, Siamese):
            raise ValueError(
                f"system: expected StopGradient, MovingAverage or Objective, got {type(self.system).__name__}"
            )
        if not isinstance(self.moments, Moments):
            raise ValueError(f"moments: expected Moments, got {type(self.moments).__name__}")
        refuse_traced("system, moments", self.system, self.moments)
        number("lr", self.lr, above=0)
        self.system.check_lr(self.lr)
        if self.census is None:
            return
        if not isinstance(self.census, Equilibria):
            raise ValueError(f"census: expected an answer of equilibria, got {type(self.census).__name__}")
        pairs: list[tuple[Any, Any]] = [(self.census.moments, self.moments)]
        if type(self.census.system) is not type(self.system):
            raise ValueError(
                f"census: expected one of {type(self.system).__name__}, got {type(self.census.system).__name__}"
            )
        if not is_scheduled(self.system):  # where numbers change, the census says which equilibria are meant
            pairs.append((self.census.system, self.system))
        for have, want in pairs:
            leaves = [jax.tree.leaves(tree) for tree in (have, want)]
            if len(leaves[0]) != len(leaves[1]) or not all(map(_same, *leaves)):
                raise ValueError(f"census: expected one of these {type(want).__name__} numbers, got {have} for {want}")

    @property
    def m(self) -> int:
        """Input dimension."""
        return self.moments.m

    def equilibria(self, n: int) -> Equilibria:
        """The census that trials are matched against."""
        if self.census is None:
            return equilibria(self.system, self.moments, n=n, lr=self.lr)
        if self.census.n != n:
            raise ValueError(f"census: expected one for n = {n}, got n = {self.census.n}")
        return self.census


def _same(a: Any, b: Any) -> bool:
    return np.shape(a) == np.shape(b) and bool(np.all(np.asarray(a) == np.asarray(b)))


def _one_start(key: Any, parameters: Any, *, kinds: tuple[str, ...], n: int, m: int) -> tuple[Any, ...]:
    keys = jax.random.split(key, 2)
    several = zip(kinds, keys, parameters, ((n, m), (n, n)), strict=True)
    return tuple(sample(kind, k, p, shape) for kind, k, p, shape in several)


@functools.lru_cache(maxsize=16)
def _initial(kind: type) -> Any:
    return Kept(jax.vmap(lambda a, b, system: system.state(encoder=a, predictor=b)))


def _spread(tree: Any, count: int, dtype: Any) -> Any:
    tree = traceable(tree, dtype)
    return jax.tree.map(lambda leaf: np.broadcast_to(leaf, (count, *np.shape(leaf))), tree)


@in_float64
def draw_given(given: Given, starts: Starts, seed: int, indices: np.ndarray, dtype: np.dtype) -> Drawn:
    """See `trials.base`."""
    if given.moments.xx.dtype != jnp.float64:
        raise ValueError(f"moments: expected float64, got {given.moments.xx.dtype}")
    laws = starts.laws
    one = functools.partial(_one_start, kinds=tuple(law.kind for law in laws), n=starts.size, m=given.m)
    a, b = (part.astype(dtype) for part in draw_blocks(one, laws, seed, indices))
    systems, moments = _spread(given.system, indices.size, dtype), _spread(given.moments, indices.size, dtype)
    states = blockwise(_initial(type(given.system)), a, b, systems)
    return Drawn(systems, moments, np.full(indices.size, given.lr, dtype), states, {}, False)


@in_float64
def classify_given(given: Given, ended: Ended) -> Classified:
    """See `trials.base`."""
    found = given.equilibria(ended.n)
    matched = match(ended.states, [found], ended.stopping.match_tolerance)
    names = tuple(f"{index}:_rank_{item.rank},_{item.verdict.name.lower()}" for index, item in enumerate(found))
    attributes = {"complete": int(found.complete), "notes": "; ".join(found.notes), "census": str(found)}
    outcome = settled(matched.which, ended.status, len(found))
    return Classified(outcome, (*names, *UNSETTLED), _columns(ended, matched), attributes)


def _columns(ended: Ended, matched: Any) -> dict[str, Any]:
    with np.errstate(over="ignore"):
        size = np.sqrt((ended.states.encoder**2).sum((1, 2)))
    columns: dict[str, Any] = {
        "gram_distance": (matched.gram_distance, {"long_name": "relative distance of S to the nearest"}),
        "orbit_distance": (matched.orbit_distance, {"long_name": "relative distance of the state to its orbit"}),
        "size": (size, {"symbol": "‖A‖", "long_name": "norm of the encoder at the end"}),
    }
    for name, part in ended.states._asdict().items():
        columns[name] = (np.asarray(part), {"long_name": f"{name} at the end", "axes": _AXES[name]})
    return columns


@dataclass(frozen=True)
class RandomMoments:
    """A learning problem drawn anew for each trial, and a random start on it: how often does training collapse in part?

    Moments are `Moments.random`'s. A trial's class is the rank of the equilibrium at which it ends, matched against a
    census of its own problem; m <= 4, and a census a trial is what takes the time.

    Args:
        system: "sg" or "ema".
        m: input dimension.
        decay_share: the weight decay as a share of each draw's bound ¼‖YX^(−½)‖², above which only the origin is left.
        correlation, symmetric: see `Moments.random`.
        predictor_lr_ratio: α_p > 0.
        ema_rate: β of the moving-average teacher, per unit of time.
        lr: learning rate of the procedure.

    Raises:
        ValueError: naming the setting, what was expected and what came.
    """

    system: Literal["sg", "ema"] = "sg"
    m: int = 2
    decay_share: float = 0.1
    correlation: float = 0.7
    symmetric: bool = False
    predictor_lr_ratio: float = 1.0
    ema_rate: float = 0.05
    lr: float = 0.05

    def __post_init__(self):
        one_of("system", self.system, ("sg", "ema"))
        whole_number("m", self.m, high=4)
        yes_or_no("symmetric", self.symmetric)
        number("decay_share", self.decay_share, above=0, high=1)
        number("correlation", self.correlation, above=0, high=1)
        for name in ("predictor_lr_ratio", "lr"):
            number(name, getattr(self, name), above=0)
        if self.system == "ema":
            number("ema_rate", self.ema_rate, above=0, high=1 / self.lr)
        elif self.ema_rate != RandomMoments.ema_rate:
            raise ValueError("ema_rate: it belongs to system ema")


def _one_problem(key: Any, parameters: Any, *, kinds: tuple[str, ...], n: int, laws: RandomMoments) -> tuple[Any, ...]:
    key_moments, key_start = jax.random.split(key, 2)
    moments = Moments.random(
        key_moments, laws.m, correlation=laws.correlation, symmetric=laws.symmetric, dtype=jnp.float64
    )
    decay = laws.decay_share * decay_bound(moments)
    if laws.system == "sg":
        system: Siamese = StopGradient(decay, laws.predictor_lr_ratio)
    else:
        system = MovingAverage(decay, laws.predictor_lr_ratio, ema_rate=laws.ema_rate)
    a, b = _one_start(key_start, parameters, kinds=kinds, n=n, m=laws.m)
    return traceable(system, jnp.float64), moments, system.state(encoder=a, predictor=b)


@in_float64
def draw_moments(laws: RandomMoments, starts: Starts, seed: int, indices: np.ndarray, dtype: np.dtype) -> Drawn:
    """See `trials.base`."""
    several = starts.laws
    one = functools.partial(_one_problem, kinds=tuple(law.kind for law in several), n=starts.size, laws=laws)
    systems, moments, states = (
        jax.tree.map(lambda leaf: leaf.astype(dtype), part) for part in draw_blocks(one, several, seed, indices)
    )
    columns = {"weight_decay": systems.weight_decay.encoder}
    return Drawn(systems, moments, np.full(indices.size, laws.lr, dtype), states, columns, True)


@in_float64
def classify_moments(laws: RandomMoments, ended: Ended) -> Classified:
    """See `trials.base`."""
    count = ended.status.size
    pick = lambda tree, i: jax.tree.map(lambda leaf: np.asarray(leaf[i], np.float64), tree)  # noqa: E731
    problems = [(pick(ended.drawn.systems, i), pick(ended.drawn.moments, i)) for i in range(count)]
    answers = census([system for system, _ in problems], [moments for _, moments in problems], n=ended.n)
    matched = match(ended.states, answers, ended.stopping.match_tolerance)
    ends = [answer[index] if index >= 0 else None for answer, index in zip(answers, matched.which, strict=True)]
    rank = np.array([-1 if item is None else item.rank for item in ends])
    unstable = np.array([-1 if item is None else item.n_unstable for item in ends])
    columns = {
        "weight_decay": (ended.drawn.columns["weight_decay"], {"symbol": "λ", "units": "1/time"}),
        "n_equilibria": (np.array([len(answer) for answer in answers]), {"long_name": "equilibria of the problem"}),
        "complete": (np.array([answer.complete for answer in answers]), {"long_name": "whether that census is"}),
        "n_unstable": (unstable, {"long_name": "unstable directions where the trial ended, −1: nowhere"}),
        "gram_distance": (matched.gram_distance, {"long_name": "relative distance of S to the nearest"}),
        "orbit_distance": (matched.orbit_distance, {"long_name": "relative distance of the state to its orbit"}),
    }
    names = tuple(f"rank_{each}" for each in range(laws.m + 1))
    return Classified(settled(rank, ended.status, laws.m + 1), (*names, *UNSETTLED), columns, {})
