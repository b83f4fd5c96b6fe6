"""The papers' claims as computations: clauses with outcomes of their own, and one rule from them to the verdict.

A statement is taken apart into clauses. Each has rows of numbers, and what the numbers must satisfy; its outcome is
that comparison's. A clause that is not tested is listed as such. Where what is printed does not hold, the form that
does stands beside it, as a clause of its own: every claim has a verdict as printed, and one as it holds.

A claim that cannot fail is a defect: breaking a formula of the library must turn the claims that rest on it.
"""

import enum
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...intervals import proportion


class Result(enum.StrEnum):
    """What the numbers say of one clause."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "not decided"  # the numbers do not decide, or a computation failed
    UNTESTED = "not tested"


class Judgement(enum.StrEnum):
    """What the clauses together say of a claim: see `verdict_of`."""

    REPRODUCED = "reproduced"
    IN_PART = "reproduced in part"
    PARTLY_CONTRADICTED = "contradicted in part"
    CONTRADICTED = "contradicted"
    OPEN = "not decided"
    NOT_TESTABLE = "not testable here"


@dataclass(frozen=True)
class Row:
    """A number of the evidence, and, where it decides something, what it must satisfy and whether it does.

    `interval`: the 95 % interval. `at`: the values of what is varied, by name. `outcome`: None where nothing rests on
    it.
    """

    label: str
    value: Any
    interval: tuple[float, float] | None = None
    unit: str = ""
    at: Mapping[str, Any] = field(default_factory=dict)
    rule: str = ""
    outcome: Result | None = None

    def __post_init__(self):
        for name in ("value", "interval", "at"):
            plain = _plain(getattr(self, name))
            object.__setattr__(self, name, tuple(plain) if name == "interval" and plain else plain)


@dataclass(frozen=True)
class Clause:
    """One part of a statement. `instead`: where it is printed wrongly, the form that holds, tested by itself."""

    text: str
    rows: tuple[Row, ...]
    printed: Result
    instead: "Clause | None" = None

    @property
    def corrected(self) -> Result:
        return self.printed if self.instead is None else self.instead.printed


@dataclass(frozen=True)
class Evidence:
    """In words what was computed, the clauses with their numbers, and numbers that nothing rests on."""

    method: str
    clauses: tuple[Clause, ...]
    rows: tuple[Row, ...] = ()
    has_failed: bool = False  # the computation itself: it is not kept, and tried again

    @property
    def as_printed(self) -> Judgement:
        return verdict_of(each.printed for each in self.clauses)

    @property
    def as_it_holds(self) -> Judgement:
        """With the slips of the print mended."""
        return verdict_of(each.corrected for each in self.clauses)

    def all_rows(self) -> Iterable[Row]:
        """Of the clauses, of the forms that hold instead, and those beside them."""
        for each in self.clauses:
            yield from each.rows
            yield from each.instead.rows if each.instead else ()
        yield from self.rows


@dataclass(frozen=True)
class Claim:
    """A statement of a paper in our words, where it stands there, and how its evidence is computed.

    `compute(fast)` returns the evidence; `fast` takes fewer draws. `null(rng)` is what the claim's own judge says of
    made-up data in which there is no effect: None where no clause is statistical.
    """

    id: str
    source: str
    statement: str
    compute: Callable[[bool], Evidence]
    null: Callable[[np.random.Generator], Sequence[Clause]] | None = None


CLAIMS: dict[str, Claim] = {}


def claim(
    id: str, *, source: str, statement: str, null: Callable[[np.random.Generator], Sequence[Clause]] | None = None
) -> Callable[[Callable[[bool], Evidence]], Claim]:
    """Register the decorated function as the computation of a claim."""

    def register(compute: Callable[[bool], Evidence]) -> Claim:
        if id in CLAIMS:
            raise ValueError(f"id: claim {id} is registered already")
        CLAIMS[id] = Claim(id, source, statement, attempted(compute), null)
        return CLAIMS[id]

    return register


def attempted(compute: Callable[[bool], Evidence]) -> Callable[[bool], Evidence]:
    """The computation; if it fails, evidence that decides nothing and says why."""

    @functools.wraps(compute)
    def evidence(fast: bool) -> Evidence:
        try:
            return compute(fast)
        except Exception as error:
            words = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            why = Clause("all of it", (Row("why", words),), Result.OPEN)
            return Evidence("the computation failed", (why,), has_failed=True)

    return evidence


def finite(*arrays: Any) -> None:
    """ArithmeticError unless every entry is a finite number and there is one: nothing is counted of what failed."""
    for array in arrays:
        entries = np.asarray(array, float)
        if not entries.size or not np.isfinite(entries).all():
            raise ArithmeticError(f"{int((~np.isfinite(entries)).sum())} of {entries.size} numbers are not finite")


def verdict_of(outcomes: Iterable[Result]) -> Judgement:
    """The one rule: all clauses hold, some, or none; those that fail weigh more than those that are not decided."""
    found = list(outcomes)
    if not found:
        raise ValueError("outcomes: expected at least one clause")
    holds, fails = Result.HOLDS in found, Result.FAILS in found
    if fails:
        return Judgement.PARTLY_CONTRADICTED if holds else Judgement.CONTRADICTED
    if holds:
        return Judgement.REPRODUCED if set(found) == {Result.HOLDS} else Judgement.IN_PART
    return Judgement.OPEN if Result.OPEN in found else Judgement.NOT_TESTABLE


def outcome_of(rows: Iterable[Row]) -> Result:
    """Of a clause: it holds if all that its rows must satisfy is satisfied, and fails if one of them fails.

    It is not decided if one is not: what a failed computation leaves behind decides nothing.
    """
    found = [row.outcome for row in rows if row.outcome is not None]
    if not found:
        raise ValueError("rows: nothing is compared; a clause without a test is `untested`")
    return next((each for each in (Result.OPEN, Result.FAILS, Result.UNTESTED) if each in found), Result.HOLDS)


def clause(text: str, *rows: Row, instead: Clause | None = None) -> Clause:
    """A clause whose outcome follows from its rows."""
    return Clause(text, rows, outcome_of(rows), instead)


def untested(text: str, why: str, *rows: Row, instead: Clause | None = None) -> Clause:
    """A clause that is not tested, and why."""
    return Clause(text, (Row("why", why), *rows), Result.UNTESTED, instead)


def limit(
    label: str, value: Any, *, below: float | None = None, above: float | None = None, equals: Any = None,
    at: Mapping[str, Any] | None = None,
) -> Row:  # fmt: skip
    """A row with a comparison, fixed beforehand. What is not finite decides nothing."""
    value = _plain(value)
    parts, met = [], True
    if equals is not None:
        parts, met = [f"= {equals}"], value == _plain(equals)
    if above is not None:
        parts, met = [*parts, f"> {above:g}"], met and value > above
    if below is not None:
        parts, met = [*parts, f"< {below:g}"], met and value < below
    if not parts:
        raise ValueError("limit: expected below, above or equals")
    outcome = Result.OPEN if not _is_finite(value) else Result.HOLDS if met else Result.FAILS
    return Row(label, value, at=at or {}, rule=" and ".join(parts), outcome=outcome)


def shown(
    label: str, value: Any, interval: tuple[float, float] | None = None, unit: str = "", **at: Any
) -> Row:  # fmt: skip
    """A row that nothing rests on."""
    return Row(label, value, interval, unit, at)


def share(label: str, mask: Any, **at: Any) -> Row:
    """A percentage of True and its 95 % interval (Wilson)."""
    hits = np.asarray(mask)
    low, high = proportion(int(hits.sum()), hits.size)
    return Row(label, 100 * float(hits.mean()), (100 * low, 100 * high), "%", at)


def trend(label: str, rows: Sequence[Row], sign: int) -> Row:
    """Whether shares rise (sign 1) or fall (-1) at every step, and from first to last beyond their intervals."""
    values = [sign * row.value for row in rows]
    ends = [sorted((sign * row.interval[0], sign * row.interval[1])) for row in rows if row.interval is not None]
    steps = all(later >= earlier for earlier, later in itertools.pairwise(values))
    outcome = Result.OPEN
    if steps and ends[0][1] < ends[-1][0]:
        outcome = Result.HOLDS
    elif any(later[1] < earlier[0] for earlier, later in itertools.pairwise(ends)) or ends[-1][1] < ends[0][0]:
        outcome = Result.FAILS
    rule = f"{'rises' if sign > 0 else 'falls'} at every step, and from first to last beyond the intervals"
    return Row(label, [round(row.value, 2) for row in rows], None, rows[0].unit, {}, rule, outcome)


def exceeds(label: str, higher: Row, lower: Row) -> Row:
    """Whether a share is larger than another beyond both 95 % intervals (of the same trials: they are not narrower)."""
    assert higher.interval is not None
    assert lower.interval is not None
    outcome = Result.OPEN
    if higher.interval[0] > lower.interval[1]:
        outcome = Result.HOLDS
    elif higher.interval[1] < lower.interval[0]:
        outcome = Result.FAILS
    return Row(label, round(higher.value - lower.value, 2), None, "points", {}, "beyond both intervals", outcome)


def worst(values: Iterable[Any]) -> float:
    """The largest of all entries; infinite if any is not finite or there is none: no failed computation passes."""
    entries = [np.ravel(np.asarray(value)) for value in values]
    together = np.concatenate(entries) if entries else np.array([])
    return float(together.max()) if together.size and np.isfinite(together).all() else np.inf


def _is_finite(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _plain(value: Any) -> Any:
    """Numbers, truth values, texts and lists of them, as JSON has them."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else float(value)
