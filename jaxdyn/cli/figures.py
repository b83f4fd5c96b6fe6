"""`jaxdyn figures`: compute and draw the papers' figures."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..storage import check_folder
from .assignments import read_assignments
from .settings import read_settings


@dataclass(frozen=True)
class Settings:
    """Compute and draw figures: each writes its data (NetCDF), a PDF and a PNG, named by its id."""

    ids: Annotated[tuple[str, ...], tyro.conf.Positional] = ("all",)
    """Ids such as T-3 or P-trajectories, or all."""
    out: Path = Path("results/figures")
    """Folder to write to."""
    set: tuple[str, ...] = ()
    """Change parameters of one figure: NAME=VALUE …, such as eta=0,0.02; the caption says so."""
    fast: bool = False
    """Small sizes, for a quick look."""
    list: bool = False
    """Print ids, parameters and their defaults, and make nothing."""
    config: Path | None = None
    """A TOML file with any of these settings; the command line overrides it."""


def main(arguments: list[str]) -> int:
    settings = read_settings(Settings, "figures", arguments)
    changes = read_assignments(settings.set)
    if not settings.list:
        check_folder(settings.out, whole=False)
    if changes and (len(set(settings.ids)) != 1 or "all" in settings.ids):
        raise ValueError("set: it changes one figure; give one id")

    from ..papers.figures.gallery import PICTURES
    from ..papers.figures.making import make_figure

    if settings.list:
        for picture in PICTURES.values():
            print(
                f"{picture.id:15} {', '.join(f'{name}={_text(value)}' for name, value in picture.parameters.items())}"
            )
        return 0
    names = {name.lower(): name for name in PICTURES}
    wanted = [*names] if "all" in settings.ids else [name.lower() for name in settings.ids]
    for name in wanted:
        if name not in names:
            raise ValueError(_unknown(name, list(PICTURES)))
    for name in dict.fromkeys(wanted):
        began = time.perf_counter()
        written = make_figure(name, settings.out, fast=settings.fast, **changes)
        files = ", ".join(path.name for path in written)
        print(f"{names[name]:15} {files}  ({time.perf_counter() - began:.1f} s)", flush=True)
    print(f"in {settings.out}")
    return 0


def _unknown(name: str, known: list[str]) -> str:
    from ..papers.tables.ablations import TABLES

    if name in map(str.lower, TABLES):
        return f"ids: {name!r} is a table of trained networks: jaxdyn ablate {name}"
    return f"ids: unknown figure {name!r}; there are {', '.join(known)}, or all; jaxdyn ablate has {', '.join(TABLES)}"


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
