"""Every citation of a docstring, a comment or a page is of something that the papers have (docs/theory.md §7)."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"eq": "eq", "eqs": "eq", "Table": "Table", "Tables": "Table", "Fig": "Figure", "Figure": "Figure",
         "Figures": "Figure", "Thm": "Thm", "Thms": "Thm", "Lemma": "Lemma", "Prop": "Prop", "Props": "Prop",
         "Cor": "Cor", "Obs.": "Obs.", "Assumption": "Assumption", "Assumptions": "Assumption", "§": "§", "§§": "§",
         "App.": "App."}  # fmt: skip
SEVERAL = r"{one}(?:(?:[-–]| and |, ){one}\b)*"
NUMBER, LETTER = r"[0-9]+(?:\.[0-9]+)?", r"[A-D](?:\.[0-9]+)?"
NAMES = "|".join(re.escape(kind) for kind in sorted(KINDS, key=len, reverse=True))
CITED = re.compile(rf"\b([PT]) (?:({NAMES}) ?({SEVERAL.format(one=NUMBER)})|(App\.) ({SEVERAL.format(one=LETTER)}))")


def resolvable():
    """(paper, kind) -> names, from the page's list."""
    section = (ROOT / "docs" / "theory.md").read_text().split("## 7. What is cited")[1]
    found = {}
    for paper, kind, names in re.findall(r"^- ([PT]) (\S+): (.+)$", section, re.MULTILINE):
        found[paper, kind] = [name for part in names.rstrip(".").split(", ") for name in spread(part)]
    return found


def spread(words):
    """ "2-4" -> 2, 3, 4; "D.1-D.3" -> D.1, D.2, D.3."""
    ends = re.split("[-–]", words)
    if len(ends) == 1:
        return ends
    stem, first = ends[0].rpartition(".")[::2]
    last = ends[1].rpartition(".")[2]
    if not first.isdigit():
        return [chr(letter) for letter in range(ord(first), ord(last) + 1)]
    return [f"{stem}.{number}" if stem else str(number) for number in range(int(first), int(last) + 1)]


def texts():
    folders = ("jaxdyn", "docs", "figures", "tests", "benchmarks")
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(p for f in folders for p in (ROOT / f).rglob("*.*"))]:
        if path.suffix in (".py", ".md") and path != Path(__file__):
            yield path, path.read_text(encoding="utf-8")


def citations(text):
    for paper, numbered, numbers, lettered, letters in CITED.findall(text):
        kind, names = numbered or lettered, numbers or letters
        for part in re.split(r", | and ", names):
            for name in spread(part):
                yield paper, KINDS[kind], name


def test_citations_resolve():
    known, seen, wrong = resolvable(), 0, []
    for path, text in texts():
        for paper, kind, name in citations(text):
            seen += 1
            if name not in known.get((paper, kind), []):
                wrong.append(f"{path.relative_to(ROOT)}: {paper} {kind} {name}")
    assert seen > 200
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("T §5", [("T", "§", "5")]),
        ("P Props 4.5-4.11", [("P", "Prop", f"4.{k}") for k in range(5, 12)]),
        ("T eqs 11-12, 70-74", [("T", "eq", str(k)) for k in (11, 12, 70, 71, 72, 73, 74)]),
        ("T App. D.1-D.2, and", [("T", "App.", "D.1"), ("T", "App.", "D.2")]),
        ("P §4, the lemma", [("P", "§", "4")]),
        ("the plot of T and P", []),
    ],
)
def test_citations_are_read(text, found):
    assert list(citations(text)) == found
