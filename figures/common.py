"""What every figure script shares: compute the picture of an id, draw it, write data, PDF and PNG."""

import argparse
from pathlib import Path

from jaxdyn.gallery import PICTURES, make
from jaxdyn.storage import check_folder, staged


def main(id: str, description: str | None) -> None:
    """Make one picture; `--out DIR` says where, `--fast` takes small sizes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/figures"), help="folder to write to")
    parser.add_argument("--fast", action="store_true", help="small sizes")
    options = parser.parse_args()
    folder = check_folder(options.out)
    with staged(folder) as stage:
        written = make(PICTURES[id], stage, fast=options.fast)
    print("\n".join(str(folder / path.name) for path in written))
