"""Settings of a command: a dataclass, filled from its defaults, a TOML file and the command line, in that order."""

import contextlib
import dataclasses
import difflib
import io
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tyro

from ..trials.laws import Law, LawLike

Settings = TypeVar("Settings")

_REGISTRY = tyro.constructors.ConstructorRegistry()


@_REGISTRY.primitive_rule
def _law_rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """A law is one word on the command line, such as "uniform(-1, 1)" or 0.05."""
    if info.type != LawLike:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="LAW",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, Law | str | float | int),
        str_from_instance=lambda value: [str(value)],
    )


def read_settings(kind: type[Settings], command: str, arguments: list[str]) -> Settings:
    """The settings of `jaxdyn COMMAND`; exits with help, or with ValueError on anything it cannot read."""
    for before, word in zip(["", *arguments], arguments, strict=False):
        if not word or (word.startswith("--") and word.endswith("=")):
            raise ValueError(f"{before if not word else word[:-1]}: expected a value, got nothing")
    location = _config_file(arguments)
    default = kind()
    if location is not None:
        default = _parse(kind, command, default, _words_of(kind, location), prefix=f"{location}: ")
    return _parse(kind, command, default, arguments, suffix=f" (see jaxdyn {command} --help)")


def _parse(
    kind: type[Settings], command: str, default: Settings, words: list[str], prefix: str = "", suffix: str = ""
) -> Settings:
    """Settings from words of the command line; tyro's error boxes become one line."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, prog=f"jaxdyn {command}", default=default, args=words, registry=_REGISTRY)
    except SystemExit as end:
        if not end.code:
            raise
        message = _plainly(_one_line(errors.getvalue()).removeprefix(f"Error parsing {kind.__name__}: "))
        raise ValueError(f"{prefix}{message}{suffix}") from None


def as_toml(settings: Any) -> dict[str, Any]:
    """The settings as flat plain values; a file of them, given with --config, repeats the run."""
    return {name: _plain(getattr(settings, name)) for name in _names(type(settings))}


_HIDDEN = tyro.conf.Suppress[None].__metadata__[0]  # type: ignore[attr-defined]


def _names(kind: type) -> list[str]:
    """The settings that a file may have: not the file itself, nor leave to replace results, nor what parts have."""
    hints = get_type_hints(kind, include_extras=True)
    hidden = {name for name, hint in hints.items() if _HIDDEN in getattr(hint, "__metadata__", ())}
    return [field.name for field in dataclasses.fields(kind) if field.name not in hidden | {"config", "force"}]


def _plain(value: Any) -> Any:
    if isinstance(value, Law):
        return value.parameters[0] if value.kind == "constant" else str(value)
    return str(value) if isinstance(value, Path) else value


def _config_file(arguments: list[str]) -> str | None:
    if sum(word == "--config" or word.startswith("--config=") for word in arguments) > 1:
        raise ValueError("--config: expected one TOML file, got several")
    for position, word in enumerate(arguments):
        if word == "--config":
            if position + 1 == len(arguments):
                raise ValueError("--config: expected a TOML file")
            return arguments[position + 1]
        if word.startswith("--config="):
            return word.partition("=")[2]
    return None


def _words_of(kind: type, location: str) -> list[str]:
    """A TOML file's settings as the words that would give them on the command line."""
    try:
        values = tomllib.loads(Path(location).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{location}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, ValueError) as error:  # not text, or a name that no file can have
        raise ValueError(f"{location!r}: not a TOML file: {error}") from None
    known = _names(kind)
    hints = get_type_hints(kind, include_extras=True)
    words, places = [], []
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ValueError(f"{location}: unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        if tyro.conf.Positional in getattr(hints[name], "__metadata__", ()):
            places += [str(part) for part in (value if isinstance(value, list) else [value])]
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            words += [f"--{flag}", *map(str, value)]
        else:
            words += [f"--{flag}", str(value)]
    return places + words


_NOT_A_NUMBER = re.compile(
    r"Error parsing (?P<option>--\S+): (no type matching \{None\}\|(?P<kind>INT|FLOAT) could be instantiated from \['|"
    r"(?P<whole>invalid literal for int\(\) with base 10: ')|could not convert string to float: ')(?P<word>[^']*)'.*"
)


def _plainly(message: str) -> str:
    """Python's words for what is no number, and tyro's for what is neither a number nor None, in a user's words."""
    found = _NOT_A_NUMBER.fullmatch(message)
    if found is None:
        return message
    kind = "a whole number" if found["kind"] == "INT" or found["whole"] else "a number"
    return f"{found['option']}: expected {kind}{' or None' if found['kind'] else ''}, got {found['word']!r}"


def _one_line(box: str) -> str:
    """The message of tyro's error box, up to its first rule, as one line.

    Where a terminal has no lines to draw, the box is plain text: a title, a rule of dashes, the message, a rule.
    """
    words, is_plain = [], False
    for line in box.splitlines():
        text = line.strip(" │")
        if text and not text.strip("-") and not is_plain:
            words, is_plain = [], True  # what came before is the title
            continue
        if text.startswith("─") or (text and not text.strip("-")):
            break
        if text and not text.startswith("╭"):
            words.append(text)
    return " ".join(words) or "cannot read the command line"
