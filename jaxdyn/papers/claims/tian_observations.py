"""The ten observations of T Table 4 and the mechanism of T Table 5, as statements about ensembles of modes.

Each compares proportions or medians over the same random starts at several values of one parameter.
Starts: p(0), s(0) of one mode, the paper's small initial conditions, wide enough to meet both basins.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...arrays import traceable
from ...intervals import proportion
from ...systems.eigenspace import EigenspaceState, SymmetricEigenspace, alignment_matrix, commutator
from ...systems.modes import ModeData, Modes, ModeState, alignment_margin, parabola_points
from .base import Evidence, claim, verdict_if, worst
from .settling import settled

COLLAPSED = 1e-4  # s below this at rest


class Ensemble:
    """Random modes of isotropic data: the same starts and σ for every value of the varied parameter."""

    def __init__(
        self, fast: bool, seed: int = 0, *, p: tuple[float, float] = (0.0, 1.0), s: float = 0.4, near: bool = False
    ):
        self.n = 400 if fast else 4000
        rng = np.random.default_rng(seed)
        self.data = ModeData(1 + rng.uniform(0, 1, self.n) ** 2, np.ones(self.n))
        self.p, self.s = rng.uniform(*p, self.n), rng.uniform(0, s, self.n)
        if near:  # around the parabola, on either side
            self.s = self.p**2 * rng.uniform(0, 2, self.n)

    def run(
        self, eta: Any, alpha: Any = 1.0, *, tau: Any = 1.0, beta: float | None = None, s: Any = None, **options: Any
    ):
        """Flows until rest at one parameter value. With `beta` the teacher starts at W_a = 0, so τ(0) = 0."""
        eta = eta if isinstance(eta, tuple) else (eta, eta)
        with jax.enable_x64(True):
            full = lambda value: np.broadcast_to(np.asarray(value, float), (self.n,))  # noqa: E731
            if beta is None:
                make = lambda es, ep, a, r: Modes((es, ep), a, teacher_ratio=r)  # noqa: E731
            else:
                make = lambda es, ep, a, r: Modes((es, ep), a, ema_rate=r)  # noqa: E731
            last = tau if beta is None else beta
            systems = jax.vmap(make)(*map(full, (*eta, alpha, last)))
            correlation = jnp.asarray(self.s if s is None else s)
            start = ModeState(jnp.asarray(self.p), correlation, None if beta is None else jnp.zeros(self.n))
            with np.errstate(all="ignore"):  # of flows that blow up, as broken ones do
                return settled(start, systems, self.data, **options)


def percent(mask: np.ndarray) -> list[float]:
    """Percentage of True and its 95 % interval."""
    low, high = proportion(int(mask.sum()), mask.size)
    return [round(100 * float(part), 2) for part in (mask.mean(), low, high)]


def middle(values: np.ndarray) -> float:
    """The median; NaN of none, which fails every comparison."""
    return float(np.median(values)) if values.size else np.nan


def _collapsed(finished: Any) -> np.ndarray:
    return finished.final.correlation < COLLAPSED


def _falling(shares: Sequence[Sequence[float]]) -> bool:
    """Whether percentages fall from each to the next, and from first to last beyond their intervals."""
    values = [share[0] for share in shares]
    steps = all(later <= earlier for earlier, later in itertools.pairwise(values))
    return steps and shares[-1][2] < shares[0][1]


def _rising(shares: Sequence[Sequence[float]]) -> bool:
    return _falling(list(reversed(shares)))


@claim(
    "T-Obs1",
    source="T §3.2, Obs. 1",
    statement="A fast predictor (large α_p) shrinks the basin of collapse.",
)
def observation_1(fast: bool) -> Evidence:
    ensemble, alphas = Ensemble(fast, 1, p=(-1.0, 1.0)), (0.25, 0.5, 1.0, 2.0, 4.0)
    numbers: dict[str, Any] = {"starts": ensemble.n}
    tables, wrong = {}, 0
    for eta in (0.0, 0.01):
        tables[eta] = []
        for alpha in alphas:
            finished = ensemble.run(eta, alpha, tolerance=1e-7 if eta == 0 else 1e-8)
            gone = _collapsed(finished)
            tables[eta].append(percent(gone))
            numbers[f"η = {eta:g}, α_p = {alpha:g}: collapsed, %"] = tables[eta][-1]
            if eta == 0:
                # The paper's sufficient condition for escape without weight decay.
                wrong += int((gone & (ensemble.s > ensemble.p**2 / alpha + 1e-3)).sum())
    numbers["η = 0: collapsed although s(0) > p(0)²/α_p"] = wrong
    return Evidence(
        verdict_if(all(_falling(table) for table in tables.values()) and wrong == 0),
        "share of random starts that collapse at η = 0 and 0.01, τ = 1, over α_p: must fall, and no start with "
        "s(0) > p(0)²/α_p may collapse without weight decay",
        numbers,
    )


@claim(
    "T-Obs2",
    source="T §3.2, Obs. 2",
    statement="A very fast predictor stops the encoder from growing: s(∞) − s(0) = (p(∞)² − p(0)²)/α_p at η = 0.",
)
def observation_2(fast: bool) -> Evidence:
    ensemble, alphas = Ensemble(fast, 2, p=(0.0, 0.5)), (1.0, 4.0, 16.0, 64.0)
    numbers: dict[str, Any] = {"starts": ensemble.n}
    growths, largest = [], 0.0
    for alpha in alphas:
        finished = ensemble.run(0.0, alpha, dt=0.2 / alpha, tolerance=1e-8, s=np.maximum(ensemble.s, 0.02))
        p, s = finished.final.predictor, finished.final.correlation
        begin = np.maximum(ensemble.s, 0.02)
        largest = max(largest, float(np.abs(s - begin - (p**2 - ensemble.p**2) / alpha).max()))
        alive = ~_collapsed(finished)
        growths.append(middle((s - begin)[alive]))
        numbers[f"α_p = {alpha:g}: median growth of s"] = growths[-1]
    slope = float(np.polyfit(np.log(alphas), np.log(growths), 1)[0])
    numbers |= {"log-log slope of the growth in α_p": slope, "largest error of the formula": largest}
    return Evidence(
        verdict_if(largest < 1e-4 and -1.1 < slope < -0.8),
        "random small starts at η = 0: the formula (RK4 error, < 1e-4) and the median growth, which must fall about as "
        "1/α_p",
        numbers,
    )


@claim(
    "T-Obs3",
    source="T §3.2, Obs. 3",
    statement="Weight decay ties the encoder to the predictor: s forgets its start and ends at p²/α_p.",
)
def observation_3(fast: bool) -> Evidence:
    ensemble = Ensemble(fast, 3, p=(0.3, 1.0))
    ensemble.data = ModeData(np.full(ensemble.n, 1.25), np.ones(ensemble.n))
    numbers: dict[str, Any] = {"starts": ensemble.n, "σ": 0.5}
    spreads, ties = [], []
    for eta in (0.0, 0.01, 0.05):
        finished = ensemble.run(eta, 2.0)
        p, s = finished.final.predictor, finished.final.correlation
        alive = ~_collapsed(finished)
        spreads.append(float(np.std(s[alive])) if alive.any() else np.inf)
        ties.append(worst([np.abs(s - p**2 / 2)[alive]]))
        numbers[f"η = {eta:g}: spread (std) of final s"] = spreads[-1]
        numbers[f"η = {eta:g}: largest |s − p²/α_p|"] = ties[-1]
    return Evidence(
        verdict_if(spreads[0] > 0.05 and max(spreads[1:]) < 1e-4 and max(ties[1:]) < 1e-4),
        "random starts at one σ = 0.5, α_p = 2: without weight decay the surviving modes end with different s, with it "
        "all at the same one, on the parabola",
        numbers,
    )


@claim(
    "T-Obs4",
    source="T §3.2, Obs. 4",
    statement="More weight decay widens the basin of collapse; p*₋ rises with η and falls with τ.",
)
def observation_4(fast: bool) -> Evidence:
    ensemble, etas = Ensemble(fast, 4, p=(0.0, 0.4), near=True), (0.005, 0.03, 0.08, 0.14)
    numbers: dict[str, Any] = {"starts": ensemble.n}
    shares = []
    for eta in etas:
        finished = ensemble.run(eta)
        shares.append(percent(_collapsed(finished)))
        numbers[f"η = {eta:g}: collapsed, %"] = shares[-1]
    with jax.enable_x64(True):
        edge = lambda eta, tau: parabola_points(eta, tau, ModeData(1.25)).lower  # noqa: E731
        grid = np.linspace(0.001, 0.999, 200)
        by_eta = jax.vmap(jax.grad(edge, 0), (0, None))(grid * 0.2, 1.0)
        by_tau = jax.vmap(jax.grad(edge, 1), (None, 0))(0.01, np.sqrt(0.05) + (1 - np.sqrt(0.05)) * grid)
        steepest, shallowest = float(by_tau.max()), float(by_eta.min())
    numbers |= {"smallest ∂p*₋/∂η": shallowest, "largest ∂p*₋/∂τ": steepest}
    return Evidence(
        verdict_if(_rising(shares) and shallowest > 0 > steepest),
        "share of random starts that collapse over η (τ = 1, α_p = 1, random σ), and the exact derivatives of p*₋ "
        "at σ = 0.5 over their whole range",
        numbers,
    )


@claim(
    "T-Obs5",
    source="T §3.2, Obs. 5",
    statement="Above η = τ²/4(1+σ²) collapse is unavoidable.",
)
def observation_5(fast: bool) -> Evidence:
    ensemble = Ensemble(fast, 5, p=(0.2, 1.5), s=2.0)
    tau = np.random.default_rng(50).uniform(0.3, 1.0, ensemble.n)
    threshold = tau**2 / (4 * ensemble.data.total)
    above = ensemble.run(1.02 * threshold, tau=tau, steps=2_000_000)
    with jax.enable_x64(True):
        upper = np.asarray(parabola_points(0.98 * threshold, tau, ensemble.data).upper)
    ensemble.p = upper
    below = ensemble.run(0.98 * threshold, tau=tau, s=upper**2)
    return Evidence(
        verdict_if(bool(_collapsed(above).all() and not _collapsed(below).any())),
        "random σ, τ and starts at η 2 % above the threshold (all must collapse), and from p*₊ 2 % below it (none)",
        {
            "starts": ensemble.n,
            "2 % above: collapsed, %": percent(_collapsed(above)),
            "2 % below, from p*₊: collapsed, %": percent(_collapsed(below)),
        },
    )


def _aligned(ensemble: Ensemble, key: str, values: Sequence[Any], run: Any) -> tuple[dict[str, Any], list[Any]]:
    """Share of starts whose K stays positive along the whole trajectory, over values of a parameter."""
    numbers, shares = {"starts": ensemble.n}, []
    for value in values:
        shares.append(percent(run(value).states.min(1) > 0))
        numbers[f"{key} = {value:g}: K > 0 throughout, %"] = shares[-1]
    return numbers, shares


@claim(
    "T-Obs6",
    source="T §3.2, Obs. 6",
    statement="A fast predictor keeps K positive, so that the eigenspaces stay aligned.",
)
def observation_6(fast: bool) -> Evidence:
    ensemble = Ensemble(fast, 6)
    numbers, shares = _aligned(
        ensemble,
        "α_p",
        (0.5, 1.0, 2.0, 4.0, 8.0),
        lambda a: ensemble.run(0.02, a, dt=0.1 / max(a, 1), watch=alignment_margin),
    )
    return Evidence(
        verdict_if(_rising(shares)),
        "share of random starts along whose whole trajectory the mode's eigenvalue of K is positive, τ = 1, η = 0.02, "
        "over α_p: must rise",
        numbers,
    )


@claim("T-Obs7", source="T §3.2, Obs. 7", statement="Weight decay keeps K positive.")
def observation_7(fast: bool) -> Evidence:
    ensemble = Ensemble(fast, 7)
    numbers, shares = _aligned(
        ensemble, "η", (0.005, 0.02, 0.06, 0.12), lambda eta: ensemble.run(eta, watch=alignment_margin)
    )
    return Evidence(
        verdict_if(_rising(shares)),
        "as T-Obs6, over η at α_p = 1: must rise",
        numbers,
    )


@claim(
    "T-Obs8",
    source="T §3.2, Obs. 8",
    statement="EMA is an automatic curriculum: a small goal τ at first keeps K positive, and the goal rises to τ = 1.",
)
def observation_8(fast: bool) -> Evidence:
    ensemble = Ensemble(fast, 8, p=(0.1, 0.6))
    ensemble.s = np.maximum(ensemble.s, 0.02)
    plain = ensemble.run(0.01, watch=alignment_margin)
    taught = ensemble.run(0.01, beta=0.05, tolerance=1e-9, watch=alignment_margin)
    without, with_ema = plain.states.min(1), taught.states.min(1)
    both = ~_collapsed(plain) & ~_collapsed(taught)
    tau_end = taught.final.teacher_ratio[both]
    same = np.abs(plain.final.predictor - taught.final.predictor)[both]
    shares = [percent(without > 0), percent(with_ema > 0)]
    return Evidence(
        verdict_if(_rising(shares) and worst([np.abs(tau_end - 1)]) < 1e-4 and worst([same]) < 1e-4),
        "the same random small starts with τ ≡ 1 and with τ(0) = 0, β = 0.05 (η = 0.01): K must stay positive "
        "more often with EMA, τ must end at 1 and p at the same place where neither collapses",
        {
            "starts": ensemble.n,
            "τ ≡ 1: K > 0 throughout, %": shares[0],
            "EMA: K > 0 throughout, %": shares[1],
            "neither collapsed, starts": int(both.sum()),
            "EMA: largest |τ(∞) − 1|": worst([np.abs(tau_end - 1)]),
            "largest difference of p(∞)": worst([same]),
        },
    )


@claim("T-Obs9", source="T §3.2, Obs. 9", statement="A slow EMA (small β) makes training slow.")
def observation_9(fast: bool) -> Evidence:
    ensemble = Ensemble(fast, 9, p=(0.4, 1.0))
    ensemble.s = ensemble.p**2  # on the parabola, so that no memory of the start is left to fade
    numbers: dict[str, Any] = {"starts": ensemble.n}
    betas, medians = (1.0, 0.3, 0.1, 0.03), []
    for beta in betas:
        finished = ensemble.run(0.005, beta=beta, tolerance=1e-7)
        alive = ~_collapsed(finished)
        medians.append(middle(finished.stopped_at[alive]))
        numbers[f"β = {beta:g}: median time to rest of surviving modes"] = medians[-1]
    slower = all(later > earlier for earlier, later in itertools.pairwise(medians))
    return Evidence(
        verdict_if(slower and medians[-1] > 1.2 * medians[0]),
        "starts on the parabola, η = 0.005: median time until the field is below 1e-7, over surviving modes; "
        "must rise as β falls",
        numbers,
    )


@claim(
    "T-Obs10",
    source="T §3.2, Obs. 10",
    statement="A small τ enlarges the basin of collapse, and with it a slow EMA.",
)
def observation_10(fast: bool) -> Evidence:
    ensemble = Ensemble(fast, 10, p=(0.0, 0.4), near=True)
    numbers: dict[str, Any] = {"starts": ensemble.n}
    fixed, slow = [], []
    for tau in (0.45, 0.6, 0.8, 1.0):
        fixed.append(percent(_collapsed(ensemble.run(0.03, tau=tau))))
        numbers[f"fixed τ = {tau:g}: collapsed, %"] = fixed[-1]
    for beta in (0.03, 0.1, 0.3, 1.0):
        slow.append(percent(_collapsed(ensemble.run(0.03, beta=beta))))
        numbers[f"τ(0) = 0, β = {beta:g}: collapsed, %"] = slow[-1]
    return Evidence(
        verdict_if(_falling(fixed) and _falling(slow)),
        "share of random starts that collapse at η = 0.03, over fixed τ and over β from τ(0) = 0: must fall in both",
        numbers,
    )


@claim(
    "T-Tbl5",
    source="T §3.3, Table 5",
    statement="Without EMA a symmetric predictor works if it decays more than the encoder (η_p > η_s): the eigenspaces "
    "align and no mode collapses.",
)
def table_5(fast: bool) -> Evidence:
    n, starts, horizon, dt = 3, (200 if fast else 2000), 100.0, 0.05
    rng = np.random.default_rng(11)
    w = 0.3 * rng.normal(size=(starts, n, n))
    g = 0.4 * rng.normal(size=(starts, n, n))
    predictor = w @ w.transpose(0, 2, 1) + (w + w.transpose(0, 2, 1)) / 4
    numbers: dict[str, Any] = {"starts": starts, "time": horizon}
    works, misaligned = {}, {}
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
            works[name], misaligned[name] = percent(alive & (off < 1e-3)), float(np.median(off))
            numbers[f"decay {name}: all modes alive, %"] = percent(alive)
            numbers[f"decay {name}: K > 0 throughout, %"] = percent(lowest > 0)
            numbers[f"decay {name}: median ‖[F, W_p]‖/(‖F‖‖W_p‖)"] = misaligned[name]
            numbers[f"decay {name}: alive and aligned to 1e-3, %"] = works[name]
    holds = works["predictor only"][1] > max(works["none"][2], works["both"][2])
    return Evidence(
        verdict_if(holds),
        "symmetrised flows of random small W_p and F (n = 3, τ ≡ 1, α_p = 1) with η = 0.04 on nothing, on both, or on "
        "the predictor alone: the share with every mode alive and F, W_p aligned to 1e-3 must be largest for the "
        "predictor alone, beyond the 95 % intervals",
        numbers,
    )


def smallest_alignment(system: SymmetricEigenspace, state: EigenspaceState, data: ModeData) -> jax.Array:
    """λ_min of K (T eq 9)."""
    return jnp.linalg.eigvalsh(alignment_matrix(system, state, data))[0]
