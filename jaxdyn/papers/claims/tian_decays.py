"""Table 5 of Tian, Chen & Ganguli 2021: why a predictor that decays more than the encoder may work without EMA."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ...solve.ensemble import flow_ensemble
from ...systems.modes import ModeData, Modes, ModeState
from ..figures.decays import COLLAPSED, DECAYS, Ends, Setting, ends_of
from .base import Clause, Evidence, Row, claim, clause, exceeds, finite, limit, share, shown
from .made_up import alike_shares

_HORIZON = 100.0


def _beyond(text: str, shares: Sequence[Row], instead: Clause | None = None) -> Clause:
    """Whether the predictor's decay alone gives more than none and than both, of these three shares."""
    none, both, alone = shares
    return clause(text, *shares, exceeds("beyond none", alone, none), exceeds("beyond both", alone, both),
                  instead=instead)  # fmt: skip


def _null(rng: np.random.Generator) -> list[Clause]:
    return [_beyond("more often", alike_shares(rng, 3, 2000)) for _ in range(2)]


@claim(
    "T-Tbl5",
    source="T §3.3, Table 5",
    statement="Without EMA a symmetric predictor works if it decays more than the encoder (η_p > η_s): the eigenspaces "
    "align and no mode collapses.",
    null=_null,
)
def table_5(fast: bool) -> Evidence:
    starts = 200 if fast else 2000
    found = {name: ends_of("(F, W_p)", Setting(*decay), starts, _HORIZON) for name, decay in DECAYS.items()}
    positive, alive = ([share(label, getattr(ends, part), decay=name) for name, ends in found.items()]
                       for label, part in (("K > 0 throughout", "positive"),
                                           ("every mode alive, and aligned to 1e-3", "alive")))  # fmt: skip
    beside = [row for name, ends in found.items() for row in (
        share("every mode alive", ends.smallest > COLLAPSED, decay=name),
        shown("median of the least eigenvalue of F at the end", float(np.median(ends.smallest)), decay=name),
    )]  # fmt: skip
    return Evidence(
        f"symmetrised flows of {starts} random small W_p and F to t = {_HORIZON:g} (n = 3, τ ≡ 1, α_p = 1, σ = 0.3) "
        "with η = 0.04 on nothing, on both, or on the predictor alone; and the decoupled modes without decay",
        (
            _beyond(
                "by the mechanism of T §3.3, K > 0 throughout: more often than with decay of none or of both",
                positive,
                instead=_by_survival(found, fast),
            ),
            _beyond(
                "by the outcome: F and W_p align and every mode lives, more often than with decay of none or of both",
                alive,
            ),
        ),
        tuple(beside),
    )


def _by_survival(found: dict[str, Ends], fast: bool) -> Clause:
    """They align whatever decays, K > 0 throughout or not; what decides is which modes live."""
    apart = [limit("largest ‖[F, W_p]‖/(‖F‖‖W_p‖) at the end", ends.apart.max(), below=1e-3, at={"decay": name})
             for name, ends in found.items()]  # fmt: skip
    late = [limit("starts with K > 0 at the end, %", 100 * float(np.mean(ends.last > 0)), above=95, at={"decay": name})
            for name, ends in found.items()]  # fmt: skip
    wrong, grown = _modes_without_decay(2000 if fast else 20_000), _growth()
    return clause(
        "it is by survival, not by K: all starts align, whatever decays, and K > 0 in the end; without decay a mode "
        "dies iff p(0) < 0 and s(0) < p(0)²/α_p; with the predictor's alone none stays dead, and F grows without bound",
        *apart,
        *late,
        limit("modes without decay whose end is another", wrong, equals=0),
        limit("ṡ at late times over 2η_p p²/α_p, η_p alone: largest distance from 1", grown, below=0.01),
    )


def _modes_without_decay(count: int) -> int:
    """Modes with η = 0 that end otherwise than the integral s − p²/α_p says."""
    rng = np.random.default_rng(5)
    ratio = 2.0
    p, s = rng.uniform(-0.6, 0.6, count), rng.uniform(1e-3, 0.4, count)
    edge = s - p**2 / ratio
    with jax.enable_x64(True):
        ends = flow_ensemble(Modes(0.0, ratio), ModeState(jnp.asarray(p), jnp.asarray(s)), ModeData.isotropic(0.3),
                             t1=1e4).final.correlation  # fmt: skip
    finite(ends)
    near = np.abs(edge) < 1e-3  # these take longer than any time
    return int((((p < 0) & (edge < 0)) != (np.asarray(ends) < COLLAPSED))[~near].sum())


def _growth() -> float:
    """With η_p alone a living mode has p → τ/λ_s and s growing at 2η_p p²/α_p for ever."""
    decay, ratio, sigma = 0.04, 2.0, 0.3
    starts = ModeState(jnp.array([0.3, -0.3, 0.05, -0.05]), jnp.array([0.2, 0.05, 0.01, 0.3]))
    system, data = Modes((0.0, decay), ratio), ModeData.isotropic(sigma)
    with jax.enable_x64(True):
        starts = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), starts)
        end = flow_ensemble(system, starts, data, t1=2e4).final
        rate = system.field(0.0, end, data).correlation
        expected = 2 * decay * end.predictor**2 / ratio
    finite(rate, expected)
    return float(jnp.abs(rate / expected - 1).max())
