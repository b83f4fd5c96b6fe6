"""Evidence as JSON and as text: one function for each, and nothing reads the text back."""

import math
import textwrap
from collections.abc import Mapping
from typing import Any

from .base import Claim, Clause, Evidence, Row


def as_json(claim: Claim, evidence: Evidence) -> dict[str, Any]:
    """A claim with its verdicts, clauses and numbers, of plain lists, numbers and texts."""
    return {
        "id": claim.id,
        "source": claim.source,
        "statement": claim.statement,
        "as_printed": str(evidence.as_printed),
        "as_it_holds": str(evidence.as_it_holds),
        "method": evidence.method,
        "clauses": [_clause(each) for each in evidence.clauses],
        "rows": [_row(each) for each in evidence.rows],
    }


def _clause(each: Clause) -> dict[str, Any]:
    told: dict[str, Any] = {"text": each.text, "outcome": str(each.printed), "rows": [_row(row) for row in each.rows]}
    return told if each.instead is None else told | {"instead": _clause(each.instead)}


def _row(row: Row) -> dict[str, Any]:
    told = {"label": row.label, "value": _finite(row.value)}
    if row.interval is not None:
        told["interval"] = [_finite(each) for each in row.interval]
    rest = {"unit": row.unit, "at": {name: _finite(value) for name, value in row.at.items()}, "rule": row.rule}
    told |= {name: value for name, value in rest.items() if value}
    return told if row.outcome is None else told | {"outcome": str(row.outcome)}


def _finite(value: Any) -> Any:
    """JSON has no words for what is not finite."""
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def as_text(told: Mapping[str, Any], width: int = 100) -> str:
    """A claim as `as_json` tells it, in lines of this width."""

    def wrap(text: str, indent: str) -> str:
        return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=" " * (len(indent) + 2))

    lines = [wrap(f"{told['id']}  {verdicts(told).upper()}", ""), wrap(f"{told['statement']} [{told['source']}]", "  ")]
    lines.append(wrap(f"Computed: {told['method']}.", "  "))
    for each in told["clauses"]:
        lines.append(wrap(f"{each['outcome'].upper()}: {each['text']}", "  - "))
        lines += [wrap(row_text(row), "      ") for row in each["rows"]]
        if "instead" in each:
            other = each["instead"]
            lines.append(wrap(f"instead, {other['outcome'].upper()}: {other['text']}", "      "))
            lines += [wrap(row_text(row), "        ") for row in other["rows"]]
    lines += [wrap(row_text(row), "    ") for row in told["rows"]]
    if "false_positives" in told:
        lines.append(wrap(f"made-up data without effect, seen as one: {100 * told['false_positives']:.1f} %", "    "))
    return "\n".join(lines) + "\n"


def verdicts(told: Mapping[str, Any]) -> str:
    """As printed, and as it holds where that is another."""
    if told["as_printed"] == told["as_it_holds"]:
        return told["as_printed"]
    return f"as printed {told['as_printed']}, as it holds {told['as_it_holds']}"


def row_text(row: Mapping[str, Any]) -> str:
    """One number: what is varied, its name, value, interval, unit, what it must satisfy and whether it does."""
    where = ", ".join(f"{name} {_number(value)}" for name, value in row.get("at", {}).items())
    unit = f" {row['unit']}" if row.get("unit") else ""
    text = f"{row['label']}{f' ({where})' if where else ''}: {_number(row['value'])}{unit}"
    if "interval" in row:
        low, high = row["interval"]
        text += f" [{_number(low)}, {_number(high)}]"
    if "rule" in row:
        text += f"; {row['rule']}"
    return f"{text}: {row['outcome']}" if "outcome" in row else text


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + ", ".join(_number(each) for each in value) + "]"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_number(each)}" for name, each in value.items())
    return str(value)
