"""What every figure script shares: two options, and writing data, PDF and PNG side by side."""

import argparse
from pathlib import Path

from jaxdyn.storage import prepare_folder, save_dataset, save_figure


def options(description: str | None) -> argparse.Namespace:
    """`--out DIR` and `--fast` (small sizes, for tests)."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/figures"), help="folder to write to")
    parser.add_argument("--fast", action="store_true", help="small sizes")
    return parser.parse_args()


def save(name: str, dataset, fig, out: Path) -> None:
    """Write NAME.nc, NAME.pdf and NAME.png."""
    folder = prepare_folder(out)
    for path in (save_dataset(dataset, folder / f"{name}.nc"), *save_figure(fig, folder / name)):
        print(path)
