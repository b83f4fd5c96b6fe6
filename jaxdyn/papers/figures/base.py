"""A picture: what it computes, and how that is drawn. The command line and the figure scripts make the same ones.

`compute` is a function whose keyword arguments are the figure's parameters, with the values of the published figure
(or ours, where the paper leaves them out) as defaults; any of them can be changed without touching source.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import xarray as xr
from matplotlib.axes import Axes

from ...plotting.style import figure
from ...provenance import provenance
from ...storage import save_dataset, save_figure


@dataclass(frozen=True)
class Picture:
    """One figure: `compute(**parameters)` gives its data, `draw(axes, data)` puts it on rows × columns axes.

    `caption` says what is shown, which settings are stated by the source, and which are ours; `fast` has the parameters
    of a quick look; `rows` and `columns` are numbers, or the dimension of the data that has a panel for each value.
    """

    id: str
    caption: str
    compute: Callable[..., xr.Dataset]
    draw: Callable[[list[Axes], xr.Dataset], None]
    rows: int = 1
    columns: int | str = 1
    height: float = 3.0
    fast: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """File name without ending."""
        return self.id.lower()

    @property
    def parameters(self) -> dict[str, Any]:
        """Names and defaults of what can be changed."""
        return {name: each.default for name, each in inspect.signature(self.compute).parameters.items()}

    def checked(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The changes, each like its default; ValueError for others."""
        known, checked = self.parameters, {}
        for name, value in changes.items():
            if name not in known:
                raise ValueError(f"{name}: {self.id} has no such parameter; there are {', '.join(known) or 'none'}")
            checked[name] = _like(name, value, known[name])
        return checked


def _like(name: str, value: Any, default: Any) -> Any:
    """A value of the default's kind: a tuple of numbers, a number, a whole number, or text."""
    if isinstance(default, tuple):
        several = tuple(value) if isinstance(value, list | tuple) else (value,)
        kinds = {type(part) for part in default}
        if not several:
            raise ValueError(f"{name}: expected at least one value")
        return tuple(_like(name, part, default[0] if len(kinds) == 1 else 0.0) for part in several)
    fits = {bool: bool, int: int, float: int | float, str: str}[type(default)]
    if not isinstance(value, fits) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise ValueError(f"{name}: expected a value like {default!r}, got {value!r}")
    return float(value) if isinstance(default, float) else value


def make(picture: Picture, folder: Path, *, fast: bool = False, **changes: Any) -> list[Path]:
    """Compute, draw and write data, PDF and PNG into an existing folder."""
    changes = picture.checked(changes)
    dataset = picture.compute(**{**(picture.fast if fast else {}), **changes})
    caption = picture.caption
    if changes:
        told = ", ".join(f"{name} = {value!r} (there: {picture.parameters[name]!r})" for name, value in changes.items())
        caption += f" CHANGED from the figure described: {told}."
    used = picture.parameters | (dict(picture.fast) if fast else {}) | changes
    settings = {"id": picture.id, "fast": fast, "parameters": used}
    origin = provenance(settings=settings, precision="float64", devices=jax.local_devices()[:1])
    dataset = dataset.assign_attrs(origin | dataset.attrs | {"caption": caption})
    written = [save_dataset(dataset, folder / f"{picture.stem}.nc")]
    columns = dataset.sizes[picture.columns] if isinstance(picture.columns, str) else picture.columns
    with figure(picture.rows, columns, height=picture.height) as (fig, axes):
        picture.draw(axes, dataset)
        written += save_figure(fig, folder / picture.stem)
    return written
