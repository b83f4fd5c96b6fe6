"""`jaxdyn claims`: compute the papers' claims and print verdicts with their numbers."""

import json
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .memory import forget_programs
from .settings import read_settings


@dataclass(frozen=True)
class Settings:
    """Compute the evidence for each registered claim of the papers, and print the verdicts."""

    only: tuple[str, ...] = ()
    """Ids of the claims to compute; default: all."""
    fast: bool = False
    """Fewer draws, shorter trainings: wider error bars. In full, those on trained networks take over half an hour."""
    json: bool = False
    """Print a JSON list of objects with id, source, statement, verdict, computed and evidence."""
    config: Path | None = None
    """A TOML file with any of these settings; the command line overrides it."""


def main(arguments: list[str]) -> int:
    settings = read_settings(Settings, "claims", arguments)

    from ..papers.claims import CLAIMS

    unknown = [name for name in settings.only if name not in CLAIMS]
    if unknown:
        raise ValueError(f"only: unknown claim {unknown[0]!r}; the registry has {', '.join(CLAIMS)}")
    chosen = [claim for claim in CLAIMS.values() if not settings.only or claim.id in settings.only]
    results, verdicts = [], []
    for claim in chosen:
        if sys.stderr.isatty():
            print(f"computing {claim.id} …", end="\r", file=sys.stderr, flush=True)
        evidence = claim.compute(settings.fast)
        forget_programs()
        if sys.stderr.isatty():
            print(" " * 40, end="\r", file=sys.stderr, flush=True)
        verdicts.append((claim, evidence.verdict))
        if settings.json:
            results.append(
                {"id": claim.id, "source": claim.source, "statement": claim.statement}
                | {"verdict": str(evidence.verdict), "computed": evidence.computed, "evidence": evidence.numbers}
            )
        else:
            print(_paragraph(claim, evidence), flush=True)
    if settings.json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        print(_table(verdicts))
    return 0


def _table(verdicts: Any) -> str:
    """One line a claim: id, verdict, statement cut to the terminal's width."""
    width = max(60, min(160, shutil.get_terminal_size((120, 24)).columns))
    rows = [f"{claim.id:14} {verdict!s:34} {' '.join(claim.statement.split())}" for claim, verdict in verdicts]
    rows = [row if len(row) <= width else row[: width - 1] + "…" for row in rows]
    return "\n".join([f"{'claim':14} {'verdict':34} statement", "-" * width, *rows])


def _paragraph(claim: Any, evidence: Any) -> str:
    width = max(40, min(100, shutil.get_terminal_size((100, 24)).columns))
    wrap = lambda text, indent: textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)  # noqa: E731
    lines = [f"{claim.id}  {str(evidence.verdict).upper()}", wrap(f"{claim.statement} [{claim.source}]", "  ")]
    lines.append(wrap(f"Computed: {evidence.computed}.", "  "))
    for name, value in evidence.numbers.items():
        shown = f"{value:.3g}" if isinstance(value, float) and not 1 <= abs(value) < 1e4 else str(value)
        lines.append(wrap(f"{name}: {shown}", "    "))
    return "\n".join(lines) + "\n"
