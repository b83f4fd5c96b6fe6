"""How many seeds a cell needs, decided on a pilot of five other seeds: twenty where outcomes fall into two groups.

A mean of 50 ± 25 hides that some runs collapse and some do not; five seeds say nothing of how many. The pilot's
accuracies are kept in `pilot.json`; `python -m jaxdyn.papers.tables.running` trains it anew (an hour on two cores).
"""

import functools
import itertools
import json
from pathlib import Path

from .ablations import Cell, Table

PILOT_SEEDS = range(5)
FIRST_SEED = 5  # of what is judged: none of the pilot's
FEW, MANY = 5, 20
GAP = 0.15  # two neighbouring outcomes further apart than this are two groups
FILE = Path(__file__).with_name("pilot.json")


def planned_seeds(table: Table, cell: Cell) -> int:
    """Twenty where the pilot saw two groups in the cell, or in one that is compared with it; else five."""
    near = [each for each in table.cells if not table.by_row or each.row == cell.row]
    return MANY if any(is_bimodal(_outcomes(table.id, each)) for each in near) else FEW


def is_bimodal(accuracies: list[float]) -> bool:
    """Whether neighbouring outcomes are further apart than `GAP`."""
    ordered = sorted(accuracies)
    return any(later - earlier > GAP for earlier, later in itertools.pairwise(ordered))


def _outcomes(id: str, cell: Cell) -> list[float]:
    return _pilot().get(id, {}).get(f"{cell.row}: {cell.column}", [])


@functools.cache
def _pilot() -> dict[str, dict[str, list[float]]]:
    return json.loads(FILE.read_text(encoding="utf-8"))
