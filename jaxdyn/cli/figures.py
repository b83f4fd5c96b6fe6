"""`jaxdyn figures`: compute and draw the papers' figures."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..storage import check_folder, staged
from .settings import read_settings


@dataclass(frozen=True)
class Settings:
    """Compute and draw figures: each writes its data (NetCDF), a PDF and a PNG, named by its id."""

    ids: Annotated[tuple[str, ...], tyro.conf.Positional] = ("all",)
    """Ids such as T-3 or P-trajectories, or all."""
    out: Path = Path("results/figures")
    """Folder to write to."""
    fast: bool = False
    """Small sizes, for a quick look."""
    config: Path | None = None
    """A TOML file with any of these settings; the command line overrides it."""


def main(arguments: list[str]) -> int:
    settings = read_settings(Settings, "figures", arguments)
    folder = check_folder(settings.out)

    from ..gallery import PICTURES, make

    names = {name.lower(): name for name in PICTURES}
    wanted = list(names) if "all" in settings.ids else [name.lower() for name in settings.ids]
    for name in wanted:
        if name not in names:
            raise ValueError(f"ids: unknown figure {name!r}; there are {', '.join(PICTURES)}, or all")
    for name in dict.fromkeys(wanted):
        began = time.perf_counter()
        with staged(folder) as stage:
            written = make(PICTURES[names[name]], stage, fast=settings.fast)
        files = ", ".join(path.name for path in written)
        print(f"{names[name]:15} {files}  ({time.perf_counter() - began:.1f} s)", flush=True)
    print(f"in {folder}")
    return 0
