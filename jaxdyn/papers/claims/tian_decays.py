"""Table 5 of Tian, Chen & Ganguli 2021: why a predictor that decays more than the encoder may work without EMA."""

import jax
import jax.numpy as jnp
import numpy as np

from ...arrays import traceable
from ...systems.eigenspace import EigenspaceState, SymmetricEigenspace, alignment_matrix, commutator
from ...systems.modes import ModeData
from .base import Clause, Evidence, Row, claim, clause, exceeds, share, shown
from .made_up import alike_shares
from .settling import settled

COLLAPSED = 1e-4  # eigenvalues of F below this at rest


def _beyond(text: str, none: Row, both: Row, alone: Row) -> Clause:
    """Whether the predictor's decay alone gives more than none and than both."""
    return clause(text, none, both, alone, exceeds("beyond none", alone, none), exceeds("beyond both", alone, both))


def _null(rng: np.random.Generator) -> list[Clause]:
    return [_beyond("more often", *alike_shares(rng, 3, 2000)) for _ in range(2)]


@claim(
    "T-Tbl5",
    source="T §3.3, Table 5",
    statement="Without EMA a symmetric predictor works if it decays more than the encoder (η_p > η_s): the eigenspaces "
    "align and no mode collapses.",
    null=_null,
)
def table_5(fast: bool) -> Evidence:
    n, starts, horizon, dt = 3, (200 if fast else 2000), 100.0, 0.05
    rng = np.random.default_rng(11)
    w = 0.3 * rng.normal(size=(starts, n, n))
    g = 0.4 * rng.normal(size=(starts, n, n))
    predictor = w @ w.transpose(0, 2, 1) + (w + w.transpose(0, 2, 1)) / 4
    found: dict[str, tuple[Row, Row]] = {}
    beside: list[Row] = []
    with jax.enable_x64(True):
        state = EigenspaceState(jnp.asarray(predictor), jnp.asarray(g @ g.transpose(0, 2, 1)))
        for name, decay in (("none", (0.0, 0.0)), ("both", (0.04, 0.04)), ("predictor only", (0.0, 0.04))):
            several = jax.vmap(lambda _, decay=decay: traceable(SymmetricEigenspace(decay), float))(np.arange(starts))
            data = jax.tree.map(lambda leaf: np.full(starts, leaf), ModeData.isotropic(0.3))
            end = settled(
                state, several, data, dt=dt, tolerance=1e-13, steps=round(horizon / dt), watch=smallest_alignment
            )
            lowest, final = end.states.min(1), end.final
            bracket = jax.vmap(commutator)(final.correlation, final.predictor)
            with np.errstate(over="ignore", invalid="ignore"):  # of flows that blow up, as broken ones do
                size = np.linalg.norm(final.correlation, axis=(1, 2)) * np.linalg.norm(final.predictor, axis=(1, 2))
                off = np.linalg.norm(bracket, axis=(1, 2)) / size
            alive = np.linalg.eigvalsh(final.correlation)[:, 0] > COLLAPSED
            found[name] = (
                share("K > 0 throughout", lowest > 0, decay=name),
                share("every mode alive, and aligned to 1e-3", alive & (off < 1e-3), decay=name),
            )
            beside += [
                share("every mode alive", alive, decay=name),
                shown("median ‖[F, W_p]‖/(‖F‖‖W_p‖)", float(np.median(off)), decay=name),
            ]
    texts = (
        "by the mechanism of T §3.3, K > 0 throughout: more often than with decay of none or of both",
        "by the outcome: F and W_p align and every mode lives, more often than with decay of none or of both",
    )
    clauses = [_beyond(text, *rows) for text, rows in zip(texts, zip(*found.values(), strict=True), strict=True)]
    return Evidence(
        f"symmetrised flows of {starts} random small W_p and F to t = {horizon:g} (n = 3, τ ≡ 1, α_p = 1, σ = 0.3) "
        "with η = 0.04 on nothing, on both, or on the predictor alone",
        tuple(clauses),
        tuple(beside),
    )


def smallest_alignment(system: SymmetricEigenspace, state: EigenspaceState, data: ModeData) -> jax.Array:
    """λ_min of K (T eq 9)."""
    return jnp.linalg.eigvalsh(alignment_matrix(system, state, data))[0]
