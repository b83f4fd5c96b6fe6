"""Equilibria as they are found: what each is, what was proved of it, and the evidence that none is missing."""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import lazy_loader
import numpy as np

from ..analysis.linearise import Linearisation, Verdict
from ..moments import Moments
from ..provenance import provenance
from ..systems.siamese import Objective, Siamese

if TYPE_CHECKING:
    import xarray as xr
else:
    xr = lazy_loader.load("xarray")  # a quarter of a second, which most censuses need not wait for


class Completeness(IntEnum):
    """How sure it is that no equilibrium is missing, the surest first.

    PROVED: there are as many starts as the equations have solutions, which is known from elsewhere (rank one from a
    pencil of matrices; else by Gröbner bases over a prime field, or all paths of a total degree), and every path was
    followed to an end of its own, though in floating point. MONODROMY: as many as many random loops of the moments
    found. SEARCH: what random starts found. MISSED: paths were lost or are undecided, see the notes.
    """

    PROVED = 0
    MONODROMY = 1
    SEARCH = 2
    MISSED = 3

    def __str__(self) -> str:
        return ("complete: proved", "complete: stable under monodromy", "a search, which may have missed some",
                "NOT complete")[self]  # fmt: skip


class Paths(NamedTuple):
    """Completeness evidence: paths started, and how many ended at a regular solution, at infinity, singular, failed.

    `check` says what confirms that the starts were complete, and `starts` how sure they are.
    """

    started: int
    finite: int
    infinite: int
    singular: int
    failed: int
    check: str
    starts: Completeness

    @property
    def completeness(self) -> Completeness:
        """That of the starts, if every path has an end of its own."""
        # For most X no solution is at infinity: a path that seems to end there may be one that was lost.
        lost = self.starts < Completeness.SEARCH and (self.failed or self.singular or self.infinite)
        return Completeness.MISSED if lost else self.starts

    def __str__(self) -> str:
        return (f"{self.started} paths: {self.finite} finite, {self.infinite} at infinity, {self.singular} singular, "
                f"{self.failed} failed; start: {self.check}")  # fmt: skip


@dataclass(frozen=True)
class Certificate:
    """What was proved: `proved`, or the first `step` that failed (root, positive, stability) and why.

    `radius` half-width of the box that holds the one root, in the entries of Ŝ, relative to ‖S‖;
    `n_unstable` proven number of unstable directions of the flow, None if that step failed.
    """

    proved: bool
    step: str
    reason: str
    radius: float
    n_unstable: int | None

    def __str__(self) -> str:
        return f"proved, {self.n_unstable} unstable" if self.proved else f"{self.step}: {self.reason}"


@dataclass(frozen=True)
class Equilibrium:
    """One O(n)-orbit of equilibria.

    `gram` S = AᵀA [m, m] of this `rank`, the same all over the orbit; `state` one point of it;
    `residual` the largest component of the field there, relative to 1 + the state's largest;
    `orbit_dim` the orbit's dimension; `flow` and, if a learning rate was given, `procedure` the
    linearisations. `certificate` is filled by `certify`.
    """

    rank: int
    gram: np.ndarray
    state: Any
    residual: float
    orbit_dim: int
    flow: Linearisation
    procedure: Linearisation | None = None
    certificate: Certificate | None = None

    @property
    def verdict(self) -> Verdict:
        """Of the flow: stable orbit, saddle, repeller or undetermined."""
        return Verdict(int(self.flow.verdict))

    @property
    def n_unstable(self) -> int:
        """Unstable directions of the flow."""
        return int(self.flow.n_unstable)

    @property
    def nullity(self) -> int:
        """Zero eigenvalues of the flow's Jacobian; more than `orbit_dim` leave the verdict undetermined."""
        return int(self.flow.nullity)

    @property
    def margin(self) -> float:
        """−max Re of the flow's transversal eigenvalues."""
        return float(self.flow.margin)

    def __str__(self) -> str:
        proof = "" if self.certificate is None else f"; {self.certificate}"
        return f"rank {self.rank}, {self.flow}{proof}"


@dataclass(frozen=True)
class Equilibria(Sequence[Equilibrium]):
    """All equilibria that were found, the origin first, then by rank and size; and how complete they are.

    `completeness` says how sure it is that none is missing, the least of all ranks'; `notes` say why it is
    less than proved; `paths` is the evidence for each rank.
    """

    items: tuple[Equilibrium, ...]
    paths: dict[int, Paths]
    notes: tuple[str, ...]
    system: Siamese
    moments: Moments
    n: int
    lr: float | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __iter__(self) -> Iterator[Equilibrium]:
        return iter(self.items)

    @property
    def completeness(self) -> Completeness:
        """The weakest of all ranks; the origin always is one."""
        return max((paths.completeness for paths in self.paths.values()), default=Completeness.PROVED)

    @property
    def complete(self) -> bool:
        """Whether none is missing, proved or stable under monodromy."""
        return self.completeness <= Completeness.MONODROMY

    @property
    def stable(self) -> tuple[Equilibrium, ...]:
        """Those that are stable orbits of the flow."""
        return tuple(item for item in self.items if item.verdict == Verdict.STABLE)

    def __str__(self) -> str:
        return _table(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def save(self, path: str | Path) -> Path:
        """Write what was certified to a JSON file, from which `jaxdyn/proofs/check.py`, a program of 250 lines that
        needs no package, proves it again: that each equilibrium exists, alone, its rank and its unstable count.

        Raises:
            ValueError: if nothing was certified, for the plain objective, α_p = 0 or β = 0, or where the checker does
                not verify what would be written.
        """
        from .records import write

        items = [(item.gram, item.rank, item.certificate.n_unstable) for item in self
                 if item.certificate is not None and item.certificate.proved]  # fmt: skip
        if not items:
            raise ValueError("save: nothing was certified; find the equilibria with certify=True")
        if isinstance(self.system, Objective):
            raise ValueError("save: certificates are of SG and EMA")
        return write(items, Path(path), self.system, self.moments, self.n)

    def to_dataset(self) -> "xr.Dataset":
        """Everything but the certificates, along `equilibrium`; states as encoder, predictor[, teacher]."""
        return _dataset(self)


def _table(found: Equilibria) -> str:
    """One line an equilibrium, then the evidence for completeness; at most 80 columns."""
    steps, proofs = found.lr is not None, any(item.certificate is not None for item in found)
    head = f"{'':>3} {'rank':>4} {'trace S':>10} {'orbit':>5} {'unstable':>8} {'margin':>10}  {'verdict':12}"
    head += f" {'procedure':12}" if steps else ""
    head += " certified" if proofs else ""
    lines = [head.rstrip(), "-" * len(head.rstrip())]
    for index, item in enumerate(found):
        line = (
            f"{index:3d} {item.rank:4d} {np.trace(item.gram):10.4g} {item.orbit_dim:5d} {item.n_unstable:8d} "
            f"{item.margin:10.3g}  {item.verdict.name.lower():12}"
        )
        line += f" {_of_step(item.procedure):12}" if steps else ""
        line += f" {item.certificate}" if proofs else ""
        lines.append(line.rstrip())
    lines += ["-" * len(lines[1]), str(found.completeness)]
    for rank, paths in found.paths.items():
        ends, check = str(paths).split("; ", 1)
        lines += [f"  rank {rank}: {ends}", f"          {check}"]
    lines += [f"  note: {note}" for note in found.notes]
    return "\n".join(lines)


def _of_step(step: Linearisation | None) -> str:
    return "–" if step is None else Verdict(int(step.verdict)).name.lower()


def _dataset(found: Equilibria) -> "xr.Dataset":
    m, n = found.moments.m, found.n
    item_values = {
        "rank": ("rank of S", [item.rank for item in found]),
        "residual": ("largest component of the field, relative", [item.residual for item in found]),
        "orbit_dim": ("dimension of the O(n) orbit", [item.orbit_dim for item in found]),
        "nullity": ("zero eigenvalues of the flow's Jacobian", [item.nullity for item in found]),
        "n_unstable": ("unstable directions of the flow", [item.n_unstable for item in found]),
        "margin": ("−max Re of the transversal eigenvalues", [item.margin for item in found]),
    }
    variables: dict[str, Any] = {name: ("equilibrium", np.array(values), {"long_name": text})
                 for name, (text, values) in item_values.items()}  # fmt: skip
    flags = {"flag_values": np.arange(len(Verdict), dtype=np.int8),
             "flag_meanings": " ".join(verdict.name.lower() for verdict in Verdict)}  # fmt: skip
    kinds = {"verdict": "flow", "procedure_verdict": "procedure"}
    for name, kind in kinds.items():
        parts = [getattr(item, kind) for item in found]
        if parts[0] is not None:
            values = np.array([int(part.verdict) for part in parts], np.int8)
            variables[name] = ("equilibrium", values, flags | {"long_name": f"linear stability of the {kind}"})
    eigenvalues = np.array([item.flow.eigenvalues for item in found])
    for name, part in (("real", np.real(eigenvalues)), ("imag", np.imag(eigenvalues))):
        variables[f"eigenvalue_{name}"] = (
            ("equilibrium", "eigenvalue"), part, {"units": "1/time", "long_name": f"{name} part of eigenvalues"},
        )  # fmt: skip
    variables["gram"] = (("equilibrium", "row", "column"), np.array([item.gram for item in found]), {"symbol": "S"})
    axes = {"encoder": ("embedding", "input"), "predictor": ("embedding", "embedding_in"),
            "teacher": ("embedding", "input")}  # fmt: skip
    for name in found[0].state._fields:
        values = np.array([np.asarray(getattr(item.state, name)) for item in found])
        variables[name] = (("equilibrium", *axes[name]), values, {"long_name": f"{name} at one point of the orbit"})
    decay = [float(part) for part in found.system.weight_decay]
    settings = {"system": type(found.system).__name__, "weight_decay": decay, "n": n, "m": m, "lr": found.lr,
                "predictor_lr_ratio": float(found.system.predictor_lr_ratio)}  # fmt: skip
    evidence = "; ".join(f"rank {rank}: {paths}" for rank, paths in found.paths.items())
    attributes = {"title": "equilibria", "complete": int(found.complete),
                  "completeness": found.completeness.name.lower(), "paths": evidence,
                  "notes": "; ".join(found.notes)}  # fmt: skip
    return xr.Dataset(variables, attrs=attributes | provenance(
        settings=settings, precision="float64", devices=jax.local_devices()[:1]))  # fmt: skip
