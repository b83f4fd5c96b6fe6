"""What every figure script shares: two options, and writing data, PDF and PNG side by side."""

import argparse
from pathlib import Path

from jaxdyn.storage import check_folder, save_dataset, save_figure, staged


def options(description: str | None) -> argparse.Namespace:
    """`--out DIR` and `--fast` (small sizes, for tests)."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/figures"), help="folder to write to")
    parser.add_argument("--fast", action="store_true", help="small sizes")
    return parser.parse_args()


def save(name: str, dataset, fig, out: Path) -> None:
    """Write NAME.nc, NAME.pdf and NAME.png."""
    folder = check_folder(out)
    with staged(folder) as stage:
        written = [save_dataset(dataset, stage / f"{name}.nc"), *save_figure(fig, stage / name)]
    for path in written:
        print(folder / path.name)
