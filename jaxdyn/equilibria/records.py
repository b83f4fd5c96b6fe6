"""Certificates as files that a program without jaxdyn verifies, `proofs/check.py`; its docstring says what they claim.

What is written is found with floating-point numbers; the checker takes them as exact and proves the claim from them.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..analysis.linearise import jacobian
from ..arrays import in_float64
from ..moments import Moments
from ..proofs import check
from ..systems.siamese import MovingAverage, Siamese, StudentState, TeacherState
from .equations import Chart, chart_gram, pack, product


@in_float64
def write(items: Any, path: Path, system: Siamese, moments: Moments, n: int) -> Path:
    """Write `record` as JSON, once the checker has verified it; see `Equilibria.save`."""
    for name in ("predictor_lr_ratio", "ema_rate"):
        if not float(getattr(system, name, 1.0)) > 0:
            raise ValueError(f"save: certificates are of systems with {name} > 0")
    told = record(items, system, moments, n)
    unverified = [index for index in range(len(items)) if not proved(told, index)]
    if unverified:
        raise ValueError(f"save: proofs/check.py does not verify those at {unverified}; nothing was written")
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return path


def proved(told: dict[str, Any], index: int = 0) -> bool:
    """Whether the separate checker verifies an equilibrium of a certificate."""
    try:
        check.Statement(told, told["equilibria"][index]).check()
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
        return False
    return True


@in_float64
def record(
    items: Any, system: Siamese, moments: Moments, n: int, radius: float = 0.0, spread: float = 2.0
) -> dict[str, Any]:
    """The file's content for (S, rank, number of unstable directions) each; `radius` of the entries of X and Y.

    `spread`: by how much the boxes are wider than the roots move: intervals make of a dependence more than it is.
    """
    claims = [
        _claim(np.asarray(gram), rank, unstable, system, moments, n, spread * radius) for gram, rank, unstable in items
    ]
    rate = float(system.ema_rate).hex() if isinstance(system, MovingAverage) else None
    return {
        "X": _hex(moments.xx), "Y": _hex(moments.yx), "radius": float(radius).hex(),
        "weight_decay": _hex(system.weight_decay), "predictor_lr_ratio": float(system.predictor_lr_ratio).hex(),
        "ema_rate": rate, "n": n, "equilibria": claims,
    }  # fmt: skip


def _claim(
    gram: np.ndarray, rank: int, unstable: int, system: Siamese, moments: Moments, n: int, reached: float
) -> dict[str, Any]:
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1], vectors[:, ::-1]
    chart = Chart(vectors[:, :rank], vectors[:, rank:])
    centre = np.concatenate([np.asarray(pack(np.diag(values[:rank]))), np.zeros((moments.m - rank) * rank)])
    inverse, half = np.zeros((0, 0)), np.zeros(0)
    if rank:
        centre, inverse, half = _box(centre, chart, system, moments, reached)
    rest, form = _quotient(centre, chart, rank, system, moments, n)
    return {
        "rank": rank, "unstable": unstable, "range": _hex(chart.range), "complement": _hex(chart.complement),
        "centre": _hex(centre), "half": _hex(half), "inverse": _hex(inverse), "quotient": _hex(rest),
        "form": _hex(form),
    }  # fmt: skip


def _box(centre: np.ndarray, chart: Chart, system: Siamese, moments: Moments, reached: float) -> tuple[np.ndarray, ...]:
    """The root to rounding, an inverse of the derivative there, and half-widths for Krawczyk's test."""
    level = system.weight_decay.predictor / system.predictor_lr_ratio
    balance, size = system.weight_decay.encoder / level, moments.m

    def equations(u: Any, xx: Any, yx: Any) -> Any:
        s, p = chart_gram(u, chart)
        left = xx @ s + level * jnp.eye(size)
        side = p.T @ (balance * left @ left.T - yx.T @ s @ yx)
        return jnp.concatenate([pack(product(side, p)), (side @ chart.complement).ravel()])

    xx, yx = np.asarray(moments.xx), np.asarray(moments.yx)
    for _ in range(2):
        derivative = np.asarray(jax.jacfwd(equations)(centre, xx, yx))
        centre = centre - np.linalg.solve(derivative, np.asarray(equations(centre, xx, yx)))
    inverse = np.linalg.inv(np.asarray(jax.jacfwd(equations)(centre, xx, yx)))
    reach = np.abs(inverse @ np.asarray(equations(centre, xx, yx)))
    by_data = jax.jacfwd(equations, argnums=(1, 2))(centre, xx, yx)
    moved = sum(np.abs(np.tensordot(inverse, np.asarray(part), 1)).sum((1, 2)) for part in by_data)
    scale = np.linalg.norm(np.asarray(chart_gram(centre, chart)[0]))
    packed = chart.range.shape[1] * (chart.range.shape[1] + 1) // 2
    units = np.where(np.arange(centre.size) < packed, scale, 1.0)
    return centre, inverse, 4 * reach + 1e-14 * units + reached * moved


def _quotient(
    centre: np.ndarray, chart: Chart, rank: int, system: Siamese, moments: Moments, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """In the checker's coordinates A = T Â, B = T B̂ T⁻¹: a basis beside the rotations' tangents, and Lyapunov's H."""
    from scipy.linalg import null_space, solve_continuous_lyapunov  # slow to import, and needed here alone

    m, turn = moments.m, np.eye(n)
    thin = np.zeros((n, m))
    if rank:
        packed = rank * (rank + 1) // 2
        hat, tilt = np.zeros((rank, rank)), centre[packed:].reshape(m - rank, rank)
        hat[np.triu_indices(rank)] = centre[:packed]
        hat = hat + np.triu(hat, 1).T
        turn[:rank, :rank] = np.linalg.cholesky(hat).T
        thin[:rank] = (chart.range + chart.complement @ tilt).T
    encoder, back = turn @ thin, np.linalg.inv(turn)
    level = float(system.weight_decay.predictor / system.predictor_lr_ratio)
    xx, yx = np.asarray(moments.xx), np.asarray(moments.yx)
    predictor = np.linalg.solve(encoder @ xx @ encoder.T + level * np.eye(n), encoder @ yx.T @ encoder.T).T
    has_teacher = isinstance(system, MovingAverage)
    a, b = jnp.asarray(encoder), jnp.asarray(predictor)
    state = TeacherState(a, b, a) if has_teacher else StudentState(a, b)
    changes = [np.kron(turn, np.eye(m)), np.kron(turn, back.T)] + [np.kron(turn, np.eye(m))] * has_teacher
    size = sum(len(change) for change in changes)
    coordinates, at = np.zeros((size, size)), 0
    for change in changes:
        coordinates[at : at + len(change), at : at + len(change)] = change
        at += len(change)
    tangents = []
    for i in range(rank):
        for j in range(i + 1, n):
            omega = np.zeros((n, n))
            omega[i, j], omega[j, i] = 1, -1
            moved = (omega @ encoder).ravel()
            turned = (omega @ predictor - predictor @ omega).ravel()
            tangents.append([*moved, *turned, *(moved if has_teacher else [])])
    inverse = np.linalg.inv(coordinates)
    rest = null_space((inverse @ np.reshape(tangents, (-1, size)).T).T) if tangents else np.eye(size)
    growth = rest.T @ inverse @ np.asarray(jacobian(system, state, moments)) @ coordinates @ rest
    form = solve_continuous_lyapunov(growth.T, np.eye(len(growth)))
    return rest, (form + form.T) / 2


def _hex(values: Any) -> Any:
    array = np.asarray(values, np.float64)
    return float(array).hex() if not array.ndim else [_hex(each) for each in array]
