"""Every command, every option, words that make no sense: one line that names the option, before anything is computed.

Commands and options are read off their tables, so that a new one is tried by existing.
"""

import importlib
import os
from typing import get_type_hints

import pytest
import tyro

from jaxdyn.cli import COMMANDS, main
from jaxdyn.cli.settings import _names, read_settings

NONSENSE = ["nan", "inf", "-inf", "-1", "0", "1.5", "words", "99999999999999999999", "1e400", "None", "", "[]", "1,2",
            "uniform(1, 0)", "--", "\x00", "é"]  # fmt: skip


def settings_of(command):
    return importlib.import_module(f"jaxdyn.cli.{command}").Settings


def options_of(command):
    """Names of options, and whether a word follows the name."""
    kind = settings_of(command)
    hints = get_type_hints(kind, include_extras=True)
    for name in [*_names(kind), "config"]:
        if tyro.conf.Positional not in getattr(hints[name], "__metadata__", ()):
            yield name, hints[name] is not bool


def tries():
    for command in COMMANDS:
        for name, takes_word in options_of(command):
            for word in NONSENSE if takes_word else ["words"]:
                yield command, name, word


# Words that mean something: where a number may be zero or negative, and what is looked up only later.
ZERO = {"encoder", "predictor", "tau", "weight_decay", "predictor_weight_decay", "ema_decay", "ema_rate", "seed",
        "n_trials", "shift", "contrast", "brightness", "noise", "cutout", "momentum", "warmup", "objective_share",
        "symmetrise", "epsilon", "offset", "memory", "partitions"}  # fmt: skip
NEGATIVE = {"encoder", "predictor", "tau", "offset"}
NAMES = {"out", "views", "moments", "data", "checkpoint", "only", "set"}


def is_meant(name, word, value):
    several = value if isinstance(value, tuple) else (value,)
    if name in NAMES or (word == "None" and value is None) or (word == "--" and value == ()):
        return True
    if any(isinstance(each, int) and abs(each) > 2**32 for each in several):
        return False
    return word in {"1.5", "99999999999999999999"} or (word == "0" and name in ZERO) or (
        word == "-1" and name in NEGATIVE
    )  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_nonsense_is_one_line_that_names_the_option(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    refused = 0
    for _, name, word in filter(lambda each: each[0] == command, TRIES):
        flag = f"--{name.replace('_', '-')}"
        try:
            settings = read_settings(settings_of(command), command, [flag, word])
        except ValueError as error:
            told = str(error)
            refused += 1
            assert "\n" not in told
            assert len(told) < 400
            # A file is named itself, and so is a word that no option takes.
            assert name in told.replace("-", "_") or word in told or repr(word) in told, (flag, word, told)
        else:
            takes_word = word != "words" or not isinstance(getattr(settings, name), bool)
            assert not takes_word or is_meant(name, word, getattr(settings, name)), (flag, word)
    assert refused > 10
    assert not os.listdir(tmp_path)


TRIES = [*tries()]
LOOKED_UP = [(command, name) for command in COMMANDS for name, _ in options_of(command) if name in NAMES - {"out"}]


@pytest.mark.parametrize(("command", "name"), LOOKED_UP)
@pytest.mark.parametrize("word", ["words", "nan", "-1", "\x00", "a" * 300, "/", "/dev/null"])
def test_what_is_not_there_is_one_line(command, name, word, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if name == "checkpoint" and word in ("words", "nan", "-1", "/"):
        return  # a folder that can be made
    assert main([command, f"--{name}", word]) == 2
    told = capsys.readouterr().err
    assert told.startswith("jaxdyn: error: ")
    assert told.count("\n") == 1
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "claims"])
def test_a_name_that_no_folder_can_have(command, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main([command, "--out", "\x00"]) == 2
    assert "out" in capsys.readouterr().err
