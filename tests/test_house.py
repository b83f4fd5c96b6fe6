"""The house: imports only point down, no cycles, one name for one thing."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "jaxdyn"
# Ground floor first; a room may import itself and what stands before it.
FLOORS = [
    ["checks", "names", "status", "intervals", "storage", "caching", "provenance", "progress", "proofs"],
    ["arrays", "linear", "schedules"],
    ["moments"],
    ["data"],
    ["systems"],
    ["engines"],
    ["solve"],
    ["analysis"],
    ["equilibria"],
    ["trials"],
    ["networks"],
    ["diagnosis"],
    ["plotting"],
    ["papers"],
    ["cli"],
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
MAY_REPEAT = ("cli", "plotting", "papers")  # they mirror the rooms on purpose; base.py is a room's contract


def modules():
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def imported(name, path):
    """Modules of the package that a module imports, wherever it does so; packages as their `__init__`."""
    known, parts = modules(), name.split(".")
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        stem = [*parts[: len(parts) - node.level], *(node.module or "").split(".")]
        for alias in node.names:
            for candidate in ([*stem, alias.name], stem, [*stem, "__init__"]):
                text = ".".join(part for part in candidate if part)
                if text in known:
                    found.add(text)
                    break
    return found - {name}


def test_every_room_is_on_the_map():
    rooms = {name.split(".")[0] for name in modules()} - {"__init__", "__main__"}
    assert rooms == set(LEVEL)


def test_imports_only_point_down():
    for name, path in modules().items():
        here = name.split(".")[0]
        for other in imported(name, path):
            there = other.split(".")[0]
            if here in LEVEL and there in LEVEL:
                assert LEVEL[there] <= LEVEL[here], f"{name} imports {other}"


def test_no_module_imports_itself_by_a_detour():
    graph = {name: imported(name, path) for name, path in modules().items()}
    done: set[str] = set()

    def visit(name, trail):
        assert name not in trail, " → ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, [*trail, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def test_a_name_stands_for_one_thing():
    stems, classes = defaultdict(set), defaultdict(set)
    for name, path in modules().items():
        room = name.split(".")[0]
        if path.stem not in ("__init__", "__main__", "base") and room not in MAY_REPEAT:
            stems[path.stem].add(name)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and room != "cli":
                classes[node.name].add(name)
    assert {stem: found for stem, found in stems.items() if len(found) > 1} == {}
    assert {name: found for name, found in classes.items() if len(found) > 1} == {}


RETIRED = ("algorithm", "basin_fractions", "run_ensemble", "Protocol", "Trajectory", "Descent", "dim")


@pytest.mark.parametrize("word", RETIRED)
def test_retired_words_are_in_no_public_signature(word):
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert node.name != word, name
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                assert word not in [argument.arg for argument in arguments], f"{name}.{node.name}"


def test_files_and_functions_are_short():
    for name, path in modules().items():
        source = path.read_text(encoding="utf-8")
        assert source.count("\n") <= 410, name
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                text = ast.get_docstring(node, clean=False) or ""
                assert (node.end_lineno or 0) - node.lineno - text.count("\n") <= 75, f"{name}.{node.name}"
