"""The trials of an ensemble: what differs from one to the next and what all share, as `in_axes` says it."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import jax
import numpy as np

from ..arrays import is_traced, real_numbers, traceable
from ..engines.base import in_jax_dtype
from ..systems.base import check_with
from .methods.base import Held, Skeleton

Axes: TypeAlias = Any


Function = TypeVar("Function", bound=Callable[..., Any])


def in_states_precision(function: Function) -> Function:
    """The function, run in float64 where the states (its second argument) are, whatever JAX's own setting is."""

    @functools.wraps(function)
    def wrapped(system: Any, states: Any, *arguments: Any, **options: Any) -> Any:
        if is_traced(system, states, arguments, options):
            raise ValueError(
                "states: an ensemble runs on the host; inside jit, vmap or grad take jax.vmap of the one trial"
            )
        double = any(getattr(leaf, "dtype", None) in (None, np.float64) for leaf in jax.tree.leaves(states))
        with jax.enable_x64(double or bool(jax.config.read("jax_enable_x64"))):
            return function(system, states, *arguments, **options)

    return wrapped  # type: ignore[return-value]


@dataclass(frozen=True)
class Members:
    """Trials with everything that is each one's own: numbers of the system, starts and data, [trials, …]."""

    parts: Skeleton
    system: Any
    states: Any
    data: Any
    n: int
    dtype: np.dtype
    axes: Any  # of system, states and data: 0 for a leaf with an axis of trials, −1 for what all share

    @classmethod
    def of(cls, system: Any, states: Any, data: Any, in_axes: Axes) -> "Members":
        """The batch that `in_axes` says; ValueError where arrays do not have the axis they are said to have."""
        if not (isinstance(in_axes, tuple | list) and len(in_axes) == 3):
            raise ValueError(f"in_axes: expected three entries, of system, state and data, got {in_axes!r}")
        leaves = [in_jax_dtype(leaf) for leaf in jax.tree.leaves(states)]
        if not leaves:
            raise ValueError("states: expected a pytree with at least one number")
        dtype = np.result_type(*leaves)
        if not np.issubdtype(dtype, np.floating):
            raise ValueError(f"states: expected floating arrays, got {dtype}")
        states = jax.tree.unflatten(jax.tree.structure(states), [leaf.astype(dtype, copy=False) for leaf in leaves])
        parts, numbers = Skeleton.of(system)
        trees = {"system": traceable(numbers, dtype, np), "states": states, "data": traceable(data, dtype, np)}
        axes = [_leaf_axes(name, axis, tree) for (name, tree), axis in zip(trees.items(), in_axes, strict=True)]
        if not jax.tree.leaves(axes[0]) and any(axis == 0 for axis in jax.tree.leaves(in_axes[0])):
            raise ValueError("in_axes: it says that the system differs from trial to trial, but it has no arrays")
        n = _trials(trees, axes)
        spread = [_spread(tree, axis, n) for tree, axis in zip(trees.values(), axes, strict=True)]
        one = jax.tree.map(lambda leaf: leaf[0], (spread[1], spread[2]))
        whole = parts.whole(jax.tree.map(lambda leaf: leaf[0], spread[0]))
        check_with(whole, *one)
        return cls(parts, spread[0], spread[1], spread[2], n, dtype, axes)

    def others(self, states: Any, data: Any) -> "Members":
        """The same with other states and data (None: these), alike but for the number of trials."""
        trees = {"system": self.system, "states": self.states, "data": self.data}
        for (name, new), axes in zip((("states", states), ("data", data)), self.axes[1:], strict=True):
            if new is not None:
                trees[name] = _alike(name, new, trees[name], axes)
        n = _trials(trees, self.axes)
        # What all share is spread anew; what is each one's own has been found to be for as many.
        spread = [tree if n == self.n and tree is old else jax.tree.map(lambda leaf: spread_over(n, leaf), tree)
                  for tree, old in zip(trees.values(), (self.system, self.states, self.data), strict=True)]  # fmt: skip
        return Members(self.parts, spread[0], spread[1], spread[2], n, self.dtype, self.axes)

    def numbers(self, name: str, value: Any, above: float | None = None) -> np.ndarray:
        """One number, or one a trial, as [trials] in the batch's dtype; ValueError for anything else."""
        return np.broadcast_to(self.checked(name, value, above).astype(self.dtype), (self.n,))

    def checked(self, name: str, value: Any, above: float | None = None) -> np.ndarray:
        """One number [] or one a trial [trials], in float64; ValueError for anything else."""
        array = real_numbers(name, value)
        if array.shape not in ((), (self.n,)):
            raise ValueError(f"{name}: expected one number or one for each of {self.n} trials, got shape {array.shape}")
        if not np.isfinite(array).all() or (above is not None and (array <= above).any()):
            raise ValueError(f"{name}: expected finite numbers{'' if above is None else f' above {above:g}'}")
        return array

    def held(self, span: np.ndarray, *, tolerance: float | None = None, **numbers: Any) -> Held:
        """What every trial keeps."""
        rest = {} if tolerance is None else {"tolerance": np.full(self.n, tolerance, self.dtype)}
        return Held(self.system, self.data, span, **numbers, **rest)


def spread_over(n: int, leaf: np.ndarray) -> np.ndarray:
    """The first row for so many trials, unless there are as many rows."""
    return leaf if len(leaf) == n else np.broadcast_to(leaf[:1], (n, *leaf.shape[1:]))


def _alike(name: str, new: Any, old: Any, axes: Any) -> Any:
    """The tree, in the dtypes of the `old` one; [trials, …], or [1, …] of all; ValueError if it is not like it."""
    leaves, structure = jax.tree.flatten(new)
    if structure != jax.tree.structure(old):
        raise ValueError(f"{name}: expected what was prepared, {jax.tree.structure(old)}, got {structure}")
    out = []
    for leaf, like, axis in zip(leaves, jax.tree.leaves(old), jax.tree.leaves(axes), strict=True):
        array = np.asarray(leaf)
        alike = array.dtype == like.dtype or (array.dtype.kind in "fiu" and like.dtype.kind == "f")
        if array.ndim != like.ndim + axis or array.shape[axis + 1 :] != like.shape[1:] or not alike:
            of_each = "of each trial" if axis == 0 else "of all trials"
            raise ValueError(
                f"{name}: expected {like.dtype}{list(like.shape[1:])} {of_each} as prepared, "
                f"got {array.dtype}{list(array.shape)}"
            )
        array = array.astype(like.dtype, copy=False)
        out.append(array if axis == 0 else array[None])
    return jax.tree.unflatten(structure, out)


def _leaf_axes(name: str, axes: Any, tree: Any) -> Any:
    """0 or −1 (shared) for every leaf, from a prefix of the tree as `jax.vmap` takes it."""
    mark = lambda axis: -1 if axis is None else axis  # noqa: E731
    marked = jax.tree.map(mark, axes, is_leaf=lambda axis: axis is None)
    if any(axis not in (0, -1) or isinstance(axis, bool) for axis in jax.tree.leaves(marked)):
        raise ValueError(f"in_axes: expected 0 or None for {name}, got {axes!r}")
    try:
        return jax.tree.map(lambda axis, part: jax.tree.map(lambda _: axis, part), marked, tree)
    except ValueError:
        raise ValueError(f"in_axes: {axes!r} is not a prefix of {name}") from None


def _trials(trees: dict[str, Any], axes: list[Any]) -> int:
    sizes: dict[int, str] = {}
    for (name, tree), each in zip(trees.items(), axes, strict=True):
        for leaf, axis in zip(jax.tree.leaves(tree), jax.tree.leaves(each), strict=True):
            if axis != 0:
                continue
            if np.ndim(leaf) == 0:
                raise ValueError(f"{name}: in_axes says that it has a leading axis of trials, but a part is one number")
            sizes.setdefault(np.shape(leaf)[0], name)
    if not sizes:
        raise ValueError("in_axes: expected a leading axis of trials on states, system or data")
    if len(sizes) > 1:
        told = ", ".join(f"{size} in {name}" for size, name in sizes.items())
        raise ValueError(
            f"states, system, data: expected one number of trials on the axes that in_axes names, got {told}"
        )
    (n,) = sizes
    if not n:
        raise ValueError("states: expected at least one trial")
    return n


def _spread(tree: Any, axes: Any, n: int) -> Any:
    """Every leaf with a leading axis of trials; shared ones are not copied."""

    def leaf(value: Any, axis: Any):
        return value if axis == 0 else np.broadcast_to(np.asarray(value), (n, *np.shape(value)))

    return jax.tree.map(leaf, tree, axes)
