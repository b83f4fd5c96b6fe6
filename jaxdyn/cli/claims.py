"""`jaxdyn claims`: compute the papers' claims and print verdicts with their numbers."""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..storage import check_folder
from .memory import forget_programs
from .settings import read_settings


@dataclass(frozen=True)
class Settings:
    """Compute the evidence for each registered claim of the papers, and print the verdicts."""

    only: tuple[str, ...] = ()
    """Ids of the claims to compute; default: all, or a random tenth for --verify."""
    full: bool = False
    """Full size, about two hours on two cores; without it few draws and, of networks, 40 steps: shows that it runs."""
    out: Path | None = None
    """A folder for claims.json and finished parts: a run that was stopped goes on from them."""
    verify: bool = False
    """Compute claims again, at the size of the released results, and compare every word and number."""
    json: bool = False
    """Print a JSON list of the claims with their clauses and numbers."""
    config: Path | None = None
    """A TOML file with any of these settings; the command line overrides it."""

    def __post_init__(self):
        if self.verify and (self.out is not None or self.full or self.json):
            raise ValueError("verify: it has the size of the released results and writes nothing; leave the others out")


def main(arguments: list[str]) -> int:
    settings = read_settings(Settings, "claims", arguments)
    folder = None if settings.out is None else _folder(settings.out)

    from ..papers import released
    from ..papers.claims import CLAIMS
    from ..papers.claims.telling import as_text

    unknown = [name for name in settings.only if name not in CLAIMS]
    if unknown:
        raise ValueError(f"only: unknown claim {unknown[0]!r}; the registry has {', '.join(CLAIMS)}")
    if settings.verify:
        return _verified(settings.only or released.a_tenth())
    chosen = [id for id in CLAIMS if not settings.only or id in settings.only]
    found = []
    try:
        for id in chosen:
            found += released.computed([id], full=settings.full, keep=folder, report=_report, between=forget_programs)
            _report("")
            if not settings.json:
                print(as_text(found[-1], _width(100)), flush=True)
    except KeyboardInterrupt:
        if folder is None:
            raise
        print(f"jaxdyn: interrupted; the same command goes on from what is in {settings.out}", file=sys.stderr)
        return 130
    if settings.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print(_table(found))
    if folder is not None:
        released.save(folder / "claims.json", released.results(released.all_kept(folder)))
        if not settings.json:
            print(f"wrote {settings.out}/claims.json")
    return 0


def _folder(out: Path) -> Path:
    """The output folder, made; ValueError where something else stands in the way."""
    folder = check_folder(out, whole=False)
    for name, is_right in (("claims.json", Path.is_file), ("claims", Path.is_dir), ("trainings", Path.is_dir)):
        if (folder / name).exists() and not is_right(folder / name):
            raise ValueError(f"out: cannot write to {out}: {name} in it is something else")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _verified(ids: Any) -> int:
    """Compute these claims and print what differs from the released results; 1 if anything does."""
    from ..papers import released

    kept = {each["id"]: each for each in released.read()["claims"]}
    differing = 0
    for id in ids:
        if id not in kept:
            raise ValueError(f"only: the released results have no {id}")
        (now,) = released.computed([id], full=kept[id]["full"], report=_report, between=forget_programs)
        _report("")
        found = released.differences(now, kept[id])
        differing += bool(found)
        print("\n".join(found) if found else f"{id}: as released", flush=True)
    print(f"{len(ids) - differing} of {len(ids)} claims as released (commit {released.read()['commit'][:10]})")
    return 1 if differing else 0


def _report(id: str) -> None:
    """The claim that is being computed, on a terminal."""
    if sys.stderr.isatty():
        print(f"computing {id} …" if id else " " * 40, end="\r", file=sys.stderr, flush=True)


def _width(most: int) -> int:
    return max(40, min(most, shutil.get_terminal_size((most, 24)).columns))


def _table(found: list[dict[str, Any]]) -> str:
    """One line a claim: id, verdicts, and as much of the statement as the terminal is wide."""
    width = max(20, min(160, shutil.get_terminal_size((120, 24)).columns))
    rows = [f"{each['id']:15} {each['as_printed']:21} {each['as_it_holds']:21} {each['statement']}" for each in found]
    rows = [f"{'claim':15} {'as printed':21} {'as it holds':21} statement", "-" * width, *rows]
    return "\n".join(row if len(row) <= width else f"{row[: width - 1]}…" for row in rows)
