"""A picture: what it computes, and how that is drawn. The command line and the figure scripts make the same ones."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import xarray as xr
from matplotlib.axes import Axes

from ..plotting.style import figure
from ..provenance import provenance
from ..storage import save_dataset, save_figure


@dataclass(frozen=True)
class Picture:
    """One figure: `compute(fast)` gives its data, `draw(axes, data)` puts it on rows × columns axes.

    `caption` says what is shown, which settings are stated by the source, and which are ours.
    """

    id: str
    caption: str
    compute: Callable[[bool], xr.Dataset]
    draw: Callable[[list[Axes], xr.Dataset], None]
    rows: int = 1
    columns: int = 1
    height: float = 3.0

    @property
    def stem(self) -> str:
        """File name without ending."""
        return self.id.lower()


def make(picture: Picture, folder: Path, *, fast: bool) -> list[Path]:
    """Compute, draw and write data, PDF and PNG into an existing folder."""
    dataset = picture.compute(fast)
    origin = provenance(settings={"id": picture.id, "fast": fast}, precision="float64", devices=jax.local_devices()[:1])
    dataset = dataset.assign_attrs(origin | dataset.attrs | {"caption": picture.caption})
    written = [save_dataset(dataset, folder / f"{picture.stem}.nc")]
    with figure(picture.rows, picture.columns, height=picture.height) as (fig, axes):
        picture.draw(axes, dataset)
        written += save_figure(fig, folder / picture.stem)
    return written
