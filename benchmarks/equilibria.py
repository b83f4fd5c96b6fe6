"""Equilibria: path tracking cold and warm, moments by parameter homotopy, certificates."""

import time
from functools import partial

import jax
import numpy as np
from measuring import Case

from jaxdyn.equilibria.census import census
from jaxdyn.equilibria.certificates import certify
from jaxdyn.equilibria.equations import decay_bound, reduce
from jaxdyn.equilibria.generic import compute_generic
from jaxdyn.equilibria.search import search
from jaxdyn.equilibria.strata import solve_rank
from jaxdyn.moments import Moments
from jaxdyn.systems.siamese import StopGradient


def cases(quick):
    return [case(m, (8 if m == 2 else 4) if quick else (100 if m == 2 else 40)) for m in (2, 3)]


def problems(m, count):
    moments = [Moments.random(jax.random.key(seed), m) for seed in range(count)]
    return moments, [StopGradient(0.1 * float(decay_bound(each))) for each in moments]


def case(m, count):
    """Every equilibrium of every rank; the result is the number of problems (Newton misses some, see the tests)."""
    methods = {name: partial(prepare, m, count, name) for name in ("parameter homotopy", "Newton from 500 starts")}
    return Case(
        f"equilibria of SG, {count} random moments, m = {m}, λ = 0.1 of the bound", methods, count, "problems", m
    )


def prepare(m, count, method):
    def work():
        with jax.enable_x64(True):
            moments, systems = problems(m, count)
            reduced = [reduce(*pair) for pair in zip(systems, moments, strict=True)]
            xx, yx = (np.stack([np.asarray(getattr(each, part)) for each in reduced]) for part in ("xx", "yx"))
            if method == "parameter homotopy":
                _ = [solve_rank(xx, yx, rank) for rank in range(1, m + 1)]
            else:
                _ = [search(xx, yx, rank, starts=500) for rank in range(1, m + 1)]
        return [count]

    return work


def rates(quick):
    """Lines of rates: each with the first call (compilation included) and later ones."""
    lines = []
    with jax.enable_x64(True):
        for m in (2, 3) if quick else (2, 3, 4):
            times, paths = [], 2 * 2 ** (m * (m + 1) // 2)
            for _ in range(2):
                began = time.perf_counter()
                compute_generic(m, m)
                times.append(time.perf_counter() - began)
            lines.append(
                (f"total-degree paths, m = {m} ({paths} paths)", paths / times[0], paths / times[1], "paths/s")
            )
        for m, count in ((2, 100), (3, 20)) if quick else ((2, 1000), (3, 200)):
            moments, systems = problems(m, count)
            times, paths = [], 0
            for _ in range(2):
                began = time.perf_counter()
                answers = census(systems, moments, stability_too=False)
                times.append(time.perf_counter() - began)
                paths = sum(part.started for answer in answers for part in answer.paths.values())
            lines.append((f"census, m = {m} ({count} moments)", count / times[0], count / times[1], "moments/s"))
            lines.append((f"… its paths ({paths})", paths / times[0], paths / times[1], "paths/s"))
            began, proved, tried = time.perf_counter(), 0, 0
            for answer in census(systems[: min(count, 100)], moments[: min(count, 100)]):
                for item in answer:
                    if tried == 0:
                        began = time.perf_counter()
                    proved += certify(item.gram, item.rank, answer.n, answer.system, answer.moments).proved
                    tried += 1
            rate = tried / (time.perf_counter() - began)
            lines.append((f"certificates, m = {m} ({proved} of {tried} proved)", rate, rate, "certificates/s"))
    return lines
