"""The ten observations of T Table 4, as statements about ensembles of modes.

Each compares proportions or medians over the same random starts at several values of one parameter.
Starts: p(0), s(0) of one mode, the paper's small initial conditions, wide enough to meet both basins.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...systems.modes import ModeData, Modes, ModeState, alignment_margin, parabola_points
from .base import Clause, Evidence, Row, claim, clause, limit, share, shown, trend, worst
from .made_up import one_sided, trends
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


def middle(values: np.ndarray) -> float:
    """The median; NaN of none, which fails every comparison."""
    return float(np.median(values)) if values.size else np.nan


def _collapsed(finished: Any) -> np.ndarray:
    return finished.final.correlation < COLLAPSED


def _collapses(ensemble: Ensemble, settings: Any) -> list[Row]:
    """The share of starts that collapse, for each (what is varied, finished flows)."""
    return [share("collapsed", _collapsed(finished), **at) for at, finished in settings]


@claim(
    "T-Obs1",
    source="T §3.2, Obs. 1",
    statement="A fast predictor (large α_p) shrinks the basin of collapse.",
    null=trends((5, -1), (5, -1)),
)
def observation_1(fast: bool) -> Evidence:
    ensemble, alphas = Ensemble(fast, 1, p=(-1.0, 1.0)), (0.25, 0.5, 1.0, 2.0, 4.0)
    tables: dict[float, list[Row]] = {0.0: [], 0.01: []}
    wrong = 0
    for eta, rows in tables.items():
        for alpha in alphas:
            gone = _collapsed(ensemble.run(eta, alpha, tolerance=1e-7 if eta == 0 else 1e-8))
            rows.append(share("collapsed", gone, η=eta, α_p=alpha))
            if eta == 0:
                # The paper's sufficient condition for escape without weight decay.
                wrong += int((gone & (ensemble.s > ensemble.p**2 / alpha + 1e-3)).sum())
    return Evidence(
        "share of random starts that collapse at η = 0 and 0.01, τ = 1, over α_p",
        (
            *(clause(f"the basin of collapse shrinks with α_p, η = {eta:g}", *rows, trend("over α_p", rows, -1))
              for eta, rows in tables.items()),
            clause("without weight decay s(0) > p(0)²/α_p escapes", limit("starts that collapse although", wrong,
                                                                        equals=0)),
        ),
        (shown("starts", ensemble.n),),
    )  # fmt: skip


@claim(
    "T-Obs2",
    source="T §3.2, Obs. 2",
    statement="A very fast predictor stops the encoder from growing: s(∞) − s(0) = (p(∞)² − p(0)²)/α_p at η = 0.",
)
def observation_2(fast: bool) -> Evidence:
    ensemble, alphas = Ensemble(fast, 2, p=(0.0, 0.5)), (1.0, 4.0, 16.0, 64.0)
    growths, errors = [], []
    for alpha in alphas:
        finished = ensemble.run(0.0, alpha, dt=0.2 / alpha, tolerance=1e-8, s=np.maximum(ensemble.s, 0.02))
        p, s = finished.final.predictor, finished.final.correlation
        begin = np.maximum(ensemble.s, 0.02)
        errors.append(np.abs(s - begin - (p**2 - ensemble.p**2) / alpha))
        alive = ~_collapsed(finished)
        growths.append(middle((s - begin)[alive]))
    slope = float(np.polyfit(np.log(alphas), np.log(growths), 1)[0])
    return Evidence(
        "random small starts at η = 0: the formula (RK4 error, < 1e-4) and the median growth over α_p",
        (
            clause("s(∞) − s(0) = (p(∞)² − p(0)²)/α_p at η = 0", limit("largest error", worst(errors), below=1e-4)),
            clause("a very fast predictor stops the encoder from growing: as 1/α_p",
                   limit("log-log slope of the growth in α_p", slope, above=-1.1, below=-0.8)),
        ),
        (shown("starts", ensemble.n),
         *(shown("median growth of s", each, α_p=alpha) for alpha, each in zip(alphas, growths, strict=True))),
    )  # fmt: skip


@claim(
    "T-Obs3",
    source="T §3.2, Obs. 3",
    statement="Weight decay ties the encoder to the predictor: s forgets its start and ends at p²/α_p.",
)
def observation_3(fast: bool) -> Evidence:
    ensemble = Ensemble(fast, 3, p=(0.3, 1.0))
    ensemble.data = ModeData(np.full(ensemble.n, 1.25), np.ones(ensemble.n))
    etas, spreads, ties = (0.0, 0.01, 0.05), [], []
    for eta in etas:
        finished = ensemble.run(eta, 2.0)
        p, s = finished.final.predictor, finished.final.correlation
        alive = ~_collapsed(finished)
        spreads.append(float(np.std(s[alive])) if alive.any() else np.inf)
        ties.append(worst([np.abs(s - p**2 / 2)[alive]]))
    return Evidence(
        "random starts at one σ = 0.5, α_p = 2: without weight decay the surviving modes end with different s, with it "
        "all at the same one, on the parabola",
        (
            clause("with weight decay s forgets its start",
                   *(limit("spread (std) of final s", each, below=1e-4, at={"η": eta})
                     for eta, each in zip(etas[1:], spreads[1:], strict=True))),
            clause("without it, it does not (control)",
                   limit("spread (std) of final s", spreads[0], above=0.05, at={"η": etas[0]})),
            clause("it ends at p²/α_p",
                   *(limit("largest |s − p²/α_p|", each, below=1e-4, at={"η": eta})
                     for eta, each in zip(etas[1:], ties[1:], strict=True))),
        ),
        (shown("starts", ensemble.n),),
    )  # fmt: skip


@claim(
    "T-Obs4",
    source="T §3.2, Obs. 4",
    statement="More weight decay widens the basin of collapse; p*₋ rises with η and falls with τ.",
    null=trends((4, 1)),
)
def observation_4(fast: bool) -> Evidence:
    ensemble, etas = Ensemble(fast, 4, p=(0.0, 0.4), near=True), (0.005, 0.03, 0.08, 0.14)
    shares = _collapses(ensemble, [({"η": eta}, ensemble.run(eta)) for eta in etas])
    with jax.enable_x64(True):
        edge = lambda eta, tau: parabola_points(eta, tau, ModeData(1.25)).lower  # noqa: E731
        grid = np.linspace(0.001, 0.999, 200)
        by_eta = jax.vmap(jax.grad(edge, 0), (0, None))(grid * 0.2, 1.0)
        by_tau = jax.vmap(jax.grad(edge, 1), (None, 0))(0.01, np.sqrt(0.05) + (1 - np.sqrt(0.05)) * grid)
        steepest, shallowest = float(by_tau.max()), float(by_eta.min())
    return Evidence(
        "share of random starts that collapse over η (τ = 1, α_p = 1, random σ), and the exact derivatives of p*₋ "
        "at σ = 0.5 over their whole range",
        (
            clause("more weight decay widens the basin of collapse", *shares, trend("over η", shares, 1)),
            clause("p*₋ rises with η", limit("smallest ∂p*₋/∂η", shallowest, above=0)),
            clause("p*₋ falls with τ", limit("largest ∂p*₋/∂τ", steepest, below=0)),
        ),
        (shown("starts", ensemble.n),),
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
    over = share("collapsed", _collapsed(above), η="2 % above")
    under = share("collapsed", _collapsed(below), η="2 % below")
    return Evidence(
        "random σ, τ and starts at η 2 % above the threshold (all must collapse), and from p*₊ 2 % below it (none)",
        (
            clause("above η = τ²/4(1+σ²) all collapse", over,
                   limit("that do not", int((~_collapsed(above)).sum()), equals=0)),
            clause("below it p*₊ survives", under, limit("that do not", int(_collapsed(below).sum()), equals=0)),
        ),
        (shown("starts", ensemble.n),),
    )  # fmt: skip


def _aligned(name: str, values: Sequence[Any], run: Any) -> list[Row]:
    """Share of starts whose K stays positive along the whole trajectory, over values of a parameter."""
    return [share("K > 0 throughout", run(value).states.min(1) > 0, **{name: value}) for value in values]


@claim(
    "T-Obs6",
    source="T §3.2, Obs. 6",
    statement="A fast predictor keeps K positive, so that the eigenspaces stay aligned.",
    null=trends((5, 1)),
)
def observation_6(fast: bool) -> Evidence:
    ensemble = Ensemble(fast, 6)
    run = lambda a: ensemble.run(0.02, a, dt=0.1 / max(a, 1), watch=alignment_margin)  # noqa: E731
    shares = _aligned("α_p", (0.5, 1.0, 2.0, 4.0, 8.0), run)
    return Evidence(
        "share of random starts along whose whole trajectory the mode's eigenvalue of K is positive, τ = 1, η = 0.02",
        (clause("K stays positive more often, the faster the predictor", *shares, trend("over α_p", shares, 1)),),
        (shown("starts", ensemble.n),),
    )


@claim("T-Obs7", source="T §3.2, Obs. 7", statement="Weight decay keeps K positive.", null=trends((4, 1)))
def observation_7(fast: bool) -> Evidence:
    ensemble = Ensemble(fast, 7)
    shares = _aligned("η", (0.005, 0.02, 0.06, 0.12), lambda eta: ensemble.run(eta, watch=alignment_margin))
    return Evidence(
        "as T-Obs6, over η at α_p = 1",
        (clause("K stays positive more often, the more weight decay", *shares, trend("over η", shares, 1)),),
        (shown("starts", ensemble.n),),
    )


@claim(
    "T-Obs8",
    source="T §3.2, Obs. 8",
    statement="EMA is an automatic curriculum: a small goal τ at first keeps K positive, and the goal rises to τ = 1.",
    null=trends((2, 1)),
)
def observation_8(fast: bool) -> Evidence:
    ensemble = Ensemble(fast, 8, p=(0.1, 0.6))
    ensemble.s = np.maximum(ensemble.s, 0.02)
    plain = ensemble.run(0.01, watch=alignment_margin)
    taught = ensemble.run(0.01, beta=0.05, tolerance=1e-9, watch=_margin_and_goal)
    both = ~_collapsed(plain) & ~_collapsed(taught)
    goal = taught.states[both, :, 1]
    same = np.abs(plain.final.predictor - taught.final.predictor)[both]
    shares = [
        share("K > 0 throughout", plain.states.min(1) > 0, τ="1 always"),
        share("K > 0 throughout", taught.states[..., 0].min(1) > 0, τ="from 0, EMA"),
    ]
    return Evidence(
        "the same random small starts with τ ≡ 1 and with τ(0) = 0, β = 0.05 (η = 0.01)",
        (
            clause("a small goal τ at first keeps K positive more often", *shares, trend("with EMA", shares, 1)),
            clause(
                "the goal rises from 0 to τ = 1",
                limit("median share of τ's movements that is upward", _upward(goal), above=0.9),
                limit("largest |τ(∞) − 1|", worst([np.abs(taught.final.teacher_ratio[both] - 1)]), below=1e-4),
                limit("largest |τ(0)|", worst([np.abs(goal[:, 0])]), below=1e-12),
            ),
            clause("training ends at the same place", limit("largest difference of p(∞)", worst([same]), below=1e-4)),
        ),
        (
            shown("starts", ensemble.n),
            shown("… of these, neither collapsed", int(both.sum())),
            share("… whose goal is above 1 by a hundredth on the way", goal.max(1, initial=0) > 1.01),
        ),
    )


def _upward(paths: np.ndarray) -> float:
    """Of paths [path, time]: the median share of movement that is upward; NaN of none."""
    steps = np.diff(paths, axis=1)
    return middle(np.maximum(steps, 0).sum(1) / np.abs(steps).sum(1))


def _margin_and_goal(system: Modes, state: ModeState, data: ModeData) -> jax.Array:
    """The eigenvalue of K, and τ."""
    return jnp.stack([alignment_margin(system, state, data), jnp.asarray(state.teacher_ratio)])


def _slower(medians: Sequence[float]) -> Clause:
    """Of median times to rest at falling β."""
    steps = float(np.min([later / earlier for earlier, later in itertools.pairwise(medians)]))
    return clause(
        "the slower EMA, the slower training",
        limit("smallest factor from a β to the next smaller one", steps, above=1),
        limit("factor from the largest β to the smallest", medians[-1] / medians[0], above=1.2),
    )


def _null_times(rng: np.random.Generator) -> list[Clause]:
    """Times that do not depend on β."""
    return one_sided([_slower([float(np.median(rng.lognormal(3, 1, 400))) for _ in range(4)])])


@claim(
    "T-Obs9",
    source="T §3.2, Obs. 9",
    statement="A slow EMA (small β) makes training slow.",
    null=_null_times,
)
def observation_9(fast: bool) -> Evidence:
    ensemble = Ensemble(fast, 9, p=(0.4, 1.0))
    ensemble.s = ensemble.p**2  # on the parabola, so that no memory of the start is left to fade
    betas, medians = (1.0, 0.3, 0.1, 0.03), []
    for beta in betas:
        finished = ensemble.run(0.005, beta=beta, tolerance=1e-7)
        alive = ~_collapsed(finished)
        medians.append(middle(finished.stopped_at[alive]))
    return Evidence(
        "starts on the parabola, η = 0.005: median time until the field is below 1e-7, over surviving modes",
        (_slower(medians),),
        (shown("starts", ensemble.n),
         *(shown("median time to rest of surviving modes", each, β=beta)
           for beta, each in zip(betas, medians, strict=True))),
    )  # fmt: skip


@claim(
    "T-Obs10",
    source="T §3.2, Obs. 10",
    statement="A small τ enlarges the basin of collapse, and with it a slow EMA.",
    null=trends((4, -1), (4, -1)),
)
def observation_10(fast: bool) -> Evidence:
    ensemble = Ensemble(fast, 10, p=(0.0, 0.4), near=True)
    fixed = _collapses(ensemble, [({"τ": tau}, ensemble.run(0.03, tau=tau)) for tau in (0.45, 0.6, 0.8, 1.0)])
    slow = _collapses(ensemble, [({"β": beta}, ensemble.run(0.03, beta=beta)) for beta in (0.03, 0.1, 0.3, 1.0)])
    return Evidence(
        "share of random starts that collapse at η = 0.03, over fixed τ, and over β from τ(0) = 0",
        (
            clause("a small τ enlarges the basin of collapse", *fixed, trend("over τ", fixed, -1)),
            clause("and so does a slow EMA", *slow, trend("over β", slow, -1)),
        ),
        (shown("starts", ensemble.n),),
    )
