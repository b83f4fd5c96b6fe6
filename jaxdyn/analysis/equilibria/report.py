"""A census as a table for the terminal and as a dataset."""

from typing import Any

import jax
import numpy as np
import xarray as xr

from ...provenance import provenance
from ..stability import Verdict
from .listing import Equilibria, Linearisation


def table(found: Equilibria) -> str:
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
    lines += ["-" * len(lines[1]), "complete" if found.complete else "NOT complete"]
    for rank, paths in found.paths.items():
        lines.append(
            f"  rank {rank}: {paths.started} paths: {paths.finite} finite, {paths.infinite} at infinity, "
            f"{paths.singular} singular, {paths.failed} failed"
        )
        lines.append(f"          start: {paths.check}")
    lines += [f"  note: {note}" for note in found.notes]
    return "\n".join(lines)


def _of_step(step: Linearisation | None) -> str:
    return "–" if step is None else step.verdict.name.lower()


def dataset(found: Equilibria) -> xr.Dataset:
    """Everything but the certificates, along `equilibrium`; states as encoder, predictor[, teacher]."""
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
    evidence = "; ".join(f"rank {rank}: {paths._asdict()}" for rank, paths in found.paths.items())
    attributes = {"title": "equilibria", "complete": int(found.complete), "paths": evidence,
                  "notes": "; ".join(found.notes)}  # fmt: skip
    return xr.Dataset(variables, attrs=attributes | provenance(
        settings=settings, precision="float64", devices=jax.local_devices()[:1]))  # fmt: skip
