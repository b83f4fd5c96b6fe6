"""NAME=VALUE words of a command line, where an option for every name would be too many."""

import ast
from collections.abc import Iterable
from typing import Any


def read_assignments(words: Iterable[str]) -> dict[str, Any]:
    """Names and values: numbers, True or False, several values separated by commas, or text.

    Example:
        >>> read_assignments(["eta=0,0.02", "sigma=0.3", "data=digits"])
        {'eta': (0, 0.02), 'sigma': 0.3, 'data': 'digits'}
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier() or not text.strip():
            raise ValueError(f"set: expected NAME=VALUE, got {word!r}")
        if name in found:
            raise ValueError(f"set: {name} is given twice")
        try:
            found[name] = ast.literal_eval(text.strip().rstrip(","))
        except (ValueError, SyntaxError):
            found[name] = text.strip()
    return found
