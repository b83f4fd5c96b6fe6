"""A traced program, and its functions as scalar expressions."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .expressions import Graph
from .layout import Layout
from .scalarise import scalarise


class Program(NamedTuple):
    """What a kernel runs, traced: `done` and `record` may be None. `record` returns (due, *values)."""

    step: Any
    done: Any
    record: Any
    state: Layout
    params: Layout
    saved: Layout
    value: Any = None  # the shapes of what `record` returns


class Parts(NamedTuple):
    new: list[int]  # the new state's elements
    done: list[int]  # empty, or one
    due: list[int]

    @property
    def judged(self) -> list[int]:
        return [*self.done, *self.due]


def inputs_of(graph: Graph, kind: str, layout: Layout) -> list[np.ndarray]:
    """The elements of every leaf as inputs of the graph, named (kind, number)."""
    return [
        np.array([graph.input((kind, leaf.first + k), leaf.dtype) for k in range(leaf.size)], np.int64).reshape(
            leaf.shape
        )
        for leaf in layout.leaves
    ]


def flat(arrays: Sequence[Any]) -> list[int]:
    return [int(place) for array in arrays for place in array.ravel()]


def scalarised(program: Program, graph: Graph) -> Parts:
    state, params = inputs_of(graph, "state", program.state), inputs_of(graph, "params", program.params)
    new = scalarise(program.step, graph, [*state, *params])
    done = scalarise(program.done, graph, [*state, *new, *params]) if program.done else []
    due = []
    if program.record:
        due = scalarise(program.record, graph, [*state, *new, *params, awaited(program, graph)])[:1]
    return Parts(flat(new), flat(done), flat(due))


def awaited(program: Program, graph: Graph) -> np.ndarray:
    """The time that is awaited, a float64, in the type that `record` was traced with."""
    dtype = str(program.record.in_avals[-1].dtype)
    return np.array(graph.apply("convert", graph.input(("when", 0), "float64"), dtype=dtype))
