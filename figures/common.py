"""What every figure script shares: compute the picture of an id, draw it, write data, PDF and PNG."""

import argparse
import sys
from pathlib import Path
from typing import Any

from jaxdyn.cli.assignments import read_assignments
from jaxdyn.papers.figures.making import make_figure


def main(id: str, description: str | None, parameters: dict[str, Any]) -> None:
    """Make one picture with these parameters; `--out DIR` says where, `--fast` takes small sizes, `--set` changes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/figures"), help="folder to write to")
    parser.add_argument("--fast", action="store_true", help="small sizes")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a parameter")
    options = parser.parse_args()
    from jaxdyn.papers.figures.gallery import PICTURES

    picture = PICTURES[id]
    changed = {name: value for name, value in parameters.items() if value != picture.parameters[name]}
    try:
        written = make_figure(id, options.out, fast=options.fast, **changed | read_assignments(options.set))
    except ValueError as error:
        sys.exit(f"{id}: error: {error}")
    print("\n".join(map(str, written)))
