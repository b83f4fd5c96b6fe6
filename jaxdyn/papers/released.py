"""The claims' results at one commit: computed part by part, kept in one file, verified, and shown in the documents.

`results.json` beside this module is that file. `jaxdyn claims --full --out DIR` makes a new one, and
`python -m jaxdyn.papers.released DIR/claims.json` puts it here and writes the documents' tables anew.
"""

import functools
import hashlib
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..provenance import provenance
from ..storage import write_text
from .claims import CLAIMS, trained
from .claims.made_up import false_positives
from .claims.telling import as_json, verdicts

FILE = Path(__file__).with_name("results.json")
_ROOT = Path(__file__).resolve().parents[2]
_TABLES = {_ROOT / "docs" / "claims.md": "claims", _ROOT / "README.md": "verdicts"}
_FEW = " (few draws)"
_NULLS = 2000  # made-up data sets a claim
Report = Callable[[str], None]


@functools.cache
def sources() -> str:
    """A digest of the code and the data that the results come from."""
    import jax

    total = hashlib.sha256(jax.__version__.encode())
    for path in sorted((_ROOT / "jaxdyn").rglob("*")):
        inside = set(path.relative_to(_ROOT).parts)
        if path.suffix in (".py", ".json", ".npz") and path != FILE and not {"cli", "plotting", "figures"} & inside:
            total.update(path.read_bytes())
    return total.hexdigest()


def computed(ids: Iterable[str], *, full: bool, keep: Path | None = None, report: Report = lambda _: None,
             between: Callable[[], Any] = lambda: None) -> list[dict[str, Any]]:  # fmt: skip
    """These claims' evidence as plain data; with `keep`, finished claims and trainings are read from that folder."""
    found = []
    for id in ids:
        part = None if keep is None else keep / "claims" / f"{id}.json"
        told = _kept(part, full)
        if told is None:
            report(id)
            begin, trained.KEPT[0] = time.perf_counter(), None if keep is None else keep / "trainings"
            try:
                evidence = CLAIMS[id].compute(not full)
            finally:
                trained.KEPT[0] = None
            told = as_json(CLAIMS[id], evidence)
            if full and CLAIMS[id].null is not None:
                told["false_positives"] = false_positives(CLAIMS[id], _NULLS)
            told |= {"seconds": round(time.perf_counter() - begin, 1), "full": full, "sources": sources()}
            if part is not None and not evidence.has_failed:
                part.parent.mkdir(parents=True, exist_ok=True)
                write_text(part, _json(told))
            between()
        found.append(told)
    return found


def _kept(part: Path | None, full: bool) -> dict[str, Any] | None:
    """What was finished before, if the same code wrote it, at this size or at the full one."""
    if part is None or not part.exists():
        return None
    try:
        told = json.loads(part.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict) or (told.get("id"), told.get("sources")) != (part.stem, sources()):
        return None
    return told if told.get("full") in (True, full) and "clauses" in told else None


def all_kept(keep: Path) -> list[dict[str, Any]]:
    """All claims of the folder that the same code wrote, in the registry's order."""
    parts = (_kept(keep / "claims" / f"{id}.json", False) for id in CLAIMS)
    return [told for told in parts if told is not None]


def results(claims: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The file's content: claims, and what they were made with."""
    import jax

    full = all(each["full"] for each in claims)
    origin = provenance(settings={"full": full}, precision="float64", devices=jax.local_devices()[:1])
    seconds = round(sum(each["seconds"] for each in claims), 1)
    told = [{name: value for name, value in each.items() if name != "sources"} for each in claims]
    return origin | {"full": full, "sources": sources(), "seconds": seconds, "claims": told}


def save(path: Path, content: dict[str, Any]) -> None:
    """Write the file."""
    write_text(path, _json(content))


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@functools.cache
def read(path: Path = FILE) -> dict[str, Any]:
    """The file's content.

    Raises:
        ValueError: if it is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if {"commit", "full", "sources", "claims"} <= content.keys():
            return content
    except (OSError, ValueError, AttributeError):
        pass
    raise ValueError(f"{path}: expected a file that `jaxdyn claims --out` wrote")


def a_tenth(seed: int | None = None) -> list[str]:
    """A random tenth of the released claims."""
    ids = [each["id"] for each in read()["claims"]]
    return sorted(random.Random(seed).sample(ids, -(-len(ids) // 10)), key=ids.index)


def differences(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    """Where two computations of a claim differ: in words at all, in numbers by more than a millionth."""
    left, right = ({name: value for name, value in each.items() if name not in _OF_A_RUN} for each in (new, old))
    return [f"{new['id']}: {place}: {then!r} in the file, now {now!r}" for place, now, then in _differing(left, right)]


_OF_A_RUN = ("seconds", "sources", "full", "false_positives")


def _differing(now: Any, then: Any, place: str = "") -> Iterable[tuple[str, Any, Any]]:
    """Place, value now and value then of all that differs in two trees of plain data."""
    if isinstance(now, dict) and isinstance(then, dict) and now.keys() == then.keys():
        name = now.get("text") or now.get("label")
        for key in now:
            yield from _differing(now[key], then[key], f"{place}{f' ({name})' if name else ''}.{key}".lstrip("."))
    elif isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        for index, pair in enumerate(zip(now, then, strict=True)):
            yield from _differing(*pair, f"{place}[{index}]")
    elif not _same(now, then):
        yield place, now, then


def _same(now: Any, then: Any) -> bool:
    if isinstance(now, float | int) and isinstance(then, float | int):
        # Residuals are rounding: what is below 1e-9 is as good as nothing.
        return abs(now - then) <= 1e-6 * abs(then) + 1e-9
    return now == then


def claims_table(content: dict[str, Any]) -> str:
    """Every claim with its verdicts, as Markdown."""
    lines = [_origin(content), "", "| id | statement | verdict |", "|---|---|---|"]
    for each in content["claims"]:
        text = f"{each['statement']} [{each['source']}]".replace("|", "\\|")
        lines.append(f"| {each['id']} | {text} | {verdicts(each)}{'' if each['full'] else _FEW} |")
    return "\n".join(lines)


def verdicts_table(content: dict[str, Any]) -> str:
    """How many claims have which verdict, as Markdown."""
    printed, holds = (Counter(each[name] for each in content["claims"]) for name in ("as_printed", "as_it_holds"))
    lines = [_origin(content), "", "| verdict | as printed | with slips of the print mended |", "|---|---|---|"]
    names = sorted(printed | holds, key=lambda name: (-holds[name], name))
    return "\n".join([*lines, *(f"| {name} | {printed[name]} | {holds[name]} |" for name in names)])


def _origin(content: dict[str, Any]) -> str:
    few, count = sum(not each["full"] for each in content["claims"]), len(content["claims"])
    size = "at full size" if not few else "with few draws" if few == count else f"at full size but for {few} claims"
    commit = content["commit"]
    told = commit[:10] + (" with changes" if commit.endswith("+changes") else "")
    text = f"Computed {size} at commit {told} in {content['seconds'] / 60:.0f} minutes"
    return f"{text}." if content["sources"] == sources() else f"{text}; the code has changed since."


def with_tables(text: str, name: str, content: dict[str, Any]) -> str:
    """A document's text with its table made anew, between the marks."""
    table = {"claims": claims_table, "verdicts": verdicts_table}[name](content)
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the document has no place for the table {name}")
    return pattern.sub(lambda _: f"{begin}\n{table}\n{end}", text)


def main(arguments: Sequence[str]) -> None:
    """Put a file of results here, if one is named, and write the documents' tables anew."""
    if arguments:
        content = read(Path(arguments[0]))
        missing = [id for id in CLAIMS if id not in {each["id"] for each in content["claims"]}]
        if missing:
            raise ValueError(f"{arguments[0]}: it lacks {len(missing)} claims, such as {missing[0]}")
        save(FILE, content)
        read.cache_clear()
    for path, name in _TABLES.items():
        write_text(path, with_tables(path.read_text(encoding="utf-8"), name, read()))


if __name__ == "__main__":
    main(sys.argv[1:])
