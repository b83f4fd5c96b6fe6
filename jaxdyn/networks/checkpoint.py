"""The last state of a training run on disk (orbax), and the measurements up to it."""

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np


class Checkpoints:
    """A folder with the last state of one run.

    Every save writes a new numbered folder whole (orbax renames it when it is complete) and then drops the one before,
    so that a kill at any moment leaves the last complete state.

    Raises:
        ValueError: if the folder holds a state of another run.
    """

    def __init__(self, folder: Path, fingerprint: dict[str, Any]):
        self.folder = folder.expanduser().absolute()
        self.fingerprint = fingerprint
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / "run.json"
        if note.exists():
            try:
                other = dict(json.loads(note.read_text(encoding="utf-8")))
            except (ValueError, TypeError):
                raise ValueError(f"checkpoint: {note} is damaged; choose another folder or delete it") from None
            differing = [key for key in fingerprint if other.get(key) != json.loads(json.dumps(fingerprint))[key]]
            if differing:
                raise ValueError(f"checkpoint: {self.folder} holds another run (other {', '.join(differing)})")
        else:
            part = note.with_suffix(".part")
            part.write_text(json.dumps(fingerprint, indent=1), encoding="utf-8")
            os.replace(part, note)

    def save(self, states: Any, history: list[dict[str, np.ndarray]]) -> None:
        """Keep this state, and the measurements, in place of the last one."""
        content = {
            # orbax refuses empty arrays; they hold nothing that could be lost.
            "states": [np.asarray(leaf) for leaf in jax.tree.leaves(states) if leaf.size],
            "history": {name: np.stack([each[name] for each in history]) for name in history[0]},
        }
        with self._manager() as (manager, arguments):
            manager.save(len(history), args=arguments.PyTreeSave(content))

    def load(self, like: Any) -> tuple[Any, list[dict[str, np.ndarray]]] | None:
        """The last state, in the shape of `like`, and the measurements; None if there is none yet."""
        with self._manager() as (manager, arguments):
            count = manager.latest_step()
            if count is None:
                return None
            try:
                content = manager.restore(count, args=arguments.PyTreeRestore())
            except Exception as error:  # a damaged store raises almost anything
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise ValueError(f"checkpoint: cannot read {self.folder / str(count)}: {reason}") from None
        leaves, treedef = jax.tree.flatten(like)
        saved = iter(content["states"])
        states = [jax.numpy.asarray(next(saved), old.dtype) if old.size else old for old in leaves]
        history = [{name: np.asarray(part)[i] for name, part in content["history"].items()} for i in range(count)]
        return jax.tree.unflatten(treedef, states), history

    @contextmanager
    def _manager(self) -> Generator[tuple[Any, Any]]:
        """orbax's manager of the folder, which keeps one state, and its arguments."""
        import orbax.checkpoint as orbax  # slow to import, and needed here alone

        options = orbax.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        with orbax.CheckpointManager(self.folder, options=options) as manager:
            yield manager, orbax.args
