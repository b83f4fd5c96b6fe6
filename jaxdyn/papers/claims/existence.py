"""Full-rank equilibria, constructed: Brouwer's map of P Prop 4.7 at λ = 0, and its fixed point followed up in λ."""

from typing import NamedTuple

import jax
import numpy as np

from ...equilibria.census import equilibria
from ...equilibria.equations import decay_bound
from ...moments import Moments
from ...systems.siamese import StopGradient
from .base import Evidence, Row, claim, clause, limit, share

_PASSES = 200
_SHARES = (1e-6, 1e-4, 1e-2, 0.1, 0.5)


class Branch(NamedTuple):
    """Of one draw: passes until Brouwer's map rests (−1: it does not), by how much it shortened Thompson's distance at
    worst, the smallest singular value of the equations' derivative (relative), λ* where the branch ends over the bound,
    S halfway up, and that λ.
    """

    passes: int
    contraction: float
    regular: float
    end: float
    half: np.ndarray
    decay: float


@claim(
    "P-4.7",
    source="P Prop 4.7",
    statement="Full-rank equilibria exist for generic data, for small λ.",
)
def existence(fast: bool) -> Evidence:
    exists: list[Row] = []
    regular_there: list[Row] = []
    continues: list[Row] = []
    beside: list[Row] = []
    with jax.enable_x64(True):
        for m, count in {1: 20, 2: 24, 3: 8}.items() if fast else {1: 200, 2: 200, 3: 200, 4: 200}.items():
            keys = jax.random.split(jax.random.key(47 + m), count)
            moments = [Moments.random(key, m, symmetric=bool(index % 2)) for index, key in enumerate(keys)]
            found = [constructed(each) for each in moments]
            passes, contraction, regular, end = (np.array([each[part] for each in found]) for part in range(4))
            listed = [_is_listed(each, data) for each, data in zip(found, moments, strict=True)][: 4 if fast else 20]
            at = {"m": m, "draws": count}
            exists += [
                limit("draws where Brouwer's map does not rest", int((passes < 0).sum()), equals=0, at=at),
                limit("largest factor by which a pass changes Thompson's distance", contraction.max(), below=0.501,
                      at=at),
            ]  # fmt: skip
            label = "smallest singular value of the derivative at λ = 0, relative"
            regular_there.append(limit(label, regular.min(), above=1e-12, at=at))
            continues += [
                limit("smallest λ* where the branch ends, over the bound", end.min(), above=0, at=at),
                limit("halfway up, not found in the census", len(listed) - sum(listed), equals=0, at=at),
            ]
            beside += _how_far(moments, end, passes, at)
    return Evidence(
        "S ← (X⁻¹YᵀSYX⁻¹)^½ from a random start on random realisable moments, half with symmetric Y. With K = YX⁻¹ "
        "regular, S ← KᵀSK keeps Thompson's distance and the root halves it: so there is one fixed point, and the "
        "equations are regular there. It is followed by Newton's method upwards in λ to where it ends, and compared "
        "with the census halfway",
        (
            clause("at λ = 0 there is a full-rank equilibrium, and Brouwer's map finds it", *exists),
            clause("it is not degenerate", *regular_there),
            clause("so there is one for small λ > 0, too", *continues),
        ),
        tuple(beside),
    )


def _how_far(moments: list[Moments], end: np.ndarray, passes: np.ndarray, at: dict[str, int]) -> list[Row]:
    """How small a weight decay must be: where branches end, and what that goes with."""
    told = [
        Row("most passes of Brouwer's map", passes.max(), at=at),
        Row("λ* over the bound: smallest, median, largest", np.quantile(end, [0, 0.5, 1]), at=at),
    ]
    told += [share("branches that reach this λ over the bound", end >= each, **at, decay=each) for each in _SHARES]
    if at["m"] > 1 and (end > 0).all():
        spread = [np.linalg.svd(np.asarray(each.yx) @ _root(np.linalg.inv(each.xx)))[1] for each in moments]
        ratio = np.array([values[-1] / values[0] for values in spread]) ** 2
        correlation = np.corrcoef(np.log(end), np.log(ratio))[0, 1]
        told.append(Row("correlation of log λ* with log (σ_min/σ_max)² of YX^(−½)", correlation, at=at))
    return told


def constructed(moments: Moments) -> Branch:
    """Brouwer's fixed point of these moments, and its branch in λ."""
    xx, yx = np.asarray(moments.xx), np.asarray(moments.yx)
    bound = float(decay_bound(moments))
    k = yx @ np.linalg.inv(xx)
    mixed = np.random.default_rng(0).normal(size=xx.shape)
    s, worst, passes = mixed @ mixed.T + np.eye(len(xx)), 0.0, -1
    gap = np.inf
    for index in range(_PASSES):
        new = brouwer(s, k)
        if not np.isfinite(new).all():
            break
        last, gap = gap, _thompson(new, s)
        rounding = 1e-14 * max(np.linalg.cond(new), 100)  # of the logarithm of the smallest eigenvalue
        if 1e4 * rounding < gap < np.inf and last < np.inf:
            worst = max(worst, gap / last)
        s = new
        if gap < rounding < 1e-3:
            passes = index + 1
            break
    if passes < 0:
        return Branch(-1, np.inf, 0.0, 0.0, s, 0.0)
    derivative = _derivative(s, 0.0, xx, yx)
    regular = np.linalg.svd(derivative)[1][-1] / np.linalg.norm(derivative)
    end, half, decay = _followed(s, bound, xx, yx)
    return Branch(passes, worst, float(regular), end / bound, half, decay)


def brouwer(s: np.ndarray, k: np.ndarray) -> np.ndarray:
    """(Kᵀ S K)^½, whose fixed points are the full-rank solutions of XS²X = YᵀSY, K = YX⁻¹.

    With S = LLᵀ and LᵀK = UΣVᵀ it is VΣVᵀ, without the square of S's condition.
    """
    values, vectors = np.linalg.eigh(s)
    _, sizes, turned = np.linalg.svd((vectors * np.sqrt(np.maximum(values, 0))).T @ k)
    return turned.T * sizes @ turned


def _root(s: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh((s + s.T) / 2)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _thompson(a: np.ndarray, b: np.ndarray) -> float:
    """The largest |log| of an eigenvalue of A⁻¹B."""
    try:
        lower = np.linalg.inv(np.linalg.cholesky(a))
        values = np.linalg.eigvalsh(lower @ b @ lower.T)
    except np.linalg.LinAlgError:  # A is not positive definite
        return np.inf
    return float(np.abs(np.log(values)).max()) if values[0] > 0 else np.inf


def _equations(s: np.ndarray, decay: float, xx: np.ndarray, yx: np.ndarray) -> np.ndarray:
    left = xx @ s + decay * np.eye(len(s))
    return left @ left.T - yx.T @ s @ yx


def _derivative(s: np.ndarray, decay: float, xx: np.ndarray, yx: np.ndarray) -> np.ndarray:
    """Of the equations' upper triangle by that of S."""
    m, left = len(s), xx @ s + decay * np.eye(len(s))
    rows, columns = np.triu_indices(m)
    out = []
    for i, j in zip(rows, columns, strict=True):
        d = np.zeros((m, m))
        d[i, j] = d[j, i] = 1
        half = xx @ d @ left.T
        out.append((half + half.T - yx.T @ d @ yx)[rows, columns])
    return np.array(out).T


def _newton(s: np.ndarray, decay: float, xx: np.ndarray, yx: np.ndarray) -> np.ndarray | None:
    """The full-rank solution next to S, if Newton's method finds one."""
    start, (rows, columns) = s, np.triu_indices(len(s))
    for _ in range(8):
        derivative = _derivative(s, decay, xx, yx)
        condition = np.linalg.cond(derivative)
        if not condition < 1e13:
            return None
        step = np.linalg.solve(derivative, -_equations(s, decay, xx, yx)[rows, columns])
        change = np.zeros_like(s)
        change[rows, columns] = change[columns, rows] = step
        s = s + change
        if not np.isfinite(s).all() or np.linalg.norm(s - start) > 0.3 * np.linalg.norm(start):
            return None
        if np.linalg.norm(change) < max(1e-12, 1e-15 * condition) * np.linalg.norm(s):  # the rounding of a step
            return s if np.linalg.eigvalsh(s)[0] > 0 else None
    return None


def _followed(s: np.ndarray, bound: float, xx: np.ndarray, yx: np.ndarray) -> tuple[float, np.ndarray, float]:
    """λ* up to which the branch could be followed from λ = 0, and S about halfway with its λ."""
    decay, length, path = 0.0, 1e-9 * bound, [(0.0, s)]
    while length > 1e-6 * decay + 1e-14 * bound and decay < bound:
        new = _newton(s, decay + length, xx, yx)
        if new is None:
            length /= 2
            continue
        s, decay, length = new, decay + length, 1.5 * length
        path.append((decay, s))
    halfway = min(path[1:] or path, key=lambda each: abs(each[0] - decay / 2))
    return decay, halfway[1], halfway[0]


def _is_listed(found: Branch, moments: Moments) -> bool:
    """Whether the census at the λ halfway up has this S."""
    if found.decay <= 0:
        return False
    listed = [
        item.gram for item in equilibria(StopGradient(found.decay), moments, n=moments.m) if item.rank == moments.m
    ]
    size = np.linalg.norm(found.half)
    return any(np.linalg.norm(gram - found.half) < 1e-6 * size for gram in listed)
