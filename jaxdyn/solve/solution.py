"""The one result type of everything that runs in time: flows and procedures, one trial or many."""

from typing import Any, NamedTuple

import jax
import numpy as np

from ..arrays import is_traced
from ..status import Status


class Solution(NamedTuple):
    """States along time, the end, and how it was reached. One trial; of an ensemble, or under `jax.vmap`, every
    array but `times` has a leading [trials] axis.

    `times` [time]: where `states` are, in flow units (flows) or numbers of steps (procedures).
    `states`: the state's pytree, or what `save` returned, with a [time] axis; after `stopped_at` the last one again.
    `final`: the state at the end, the last finite one of a trial that diverged.
    `status`: a `Status`. `n_steps`: steps taken, of adaptive solvers accepted and rejected ones.
    `stopped_at`: the time reached, earlier than asked for unless the status is `COMPLETED`.
    `events`: those that an ensemble was asked for, see `Events`.
    """

    times: Any
    states: Any
    final: Any
    status: Any
    n_steps: Any
    stopped_at: Any
    events: Any = None

    def __repr__(self) -> str:
        if is_traced(self):
            return f"Solution(traced, final: {_shapes(self.final, 0)})"
        status = np.atleast_1d(np.asarray(self.status))
        times = np.asarray(self.times)
        span = f"{times.size} times" if times.ndim == 1 else f"times {list(times.shape)}"
        span += f", {times.min():g} … {times.max():g}" if times.size else ""
        counts = {each.name.lower().replace("_", " "): int((status == each).sum()) for each in Status}
        if np.ndim(self.status) == 0:
            how = f"{next(name for name, count in counts.items() if count)} at {float(self.stopped_at):g}"
            steps = f"{int(self.n_steps):,} steps"
        else:
            how = f"{status.size:,} trials: " + ", ".join(
                f"{count:,} {name}" for name, count in counts.items() if count
            )
            each = np.asarray(self.n_steps)
            steps = f"steps {each.min():,} … {each.max():,}, {each.sum():,} in all" if each.size else "no steps"
        if self.events is not None:
            each = np.asarray(self.events.count)
            span += f"\n  events: {each.sum():,} in all, {each.min():,} … {each.max():,} of a trial"
        return f"Solution: {how}; {steps}\n  {span}\n  final: {_shapes(self.final, np.ndim(self.status))}"

    __str__ = __repr__


def _shapes(tree: Any, batch: int) -> str:
    """Names and shapes of the parts of a state, and the size of each."""
    parts = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path).lstrip(".") or "state"
        text = f"{name} {list(np.shape(leaf))}"
        if batch == 0 and not is_traced(leaf):
            with np.errstate(all="ignore"):
                text += f" of norm {np.linalg.norm(np.ravel(np.asarray(leaf))):.4g}"
        parts.append(text)
    return ", ".join(parts)
