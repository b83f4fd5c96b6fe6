"""The generic solutions and the path tracker behind the census."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.equilibria import generic as module
from jaxdyn.equilibria.equations import Chart, chart_gram, pack, rank_one, unpack
from jaxdyn.equilibria.generic import (
    compute_generic,
    distinct,
    generic_solutions,
    parameter_track,
    regular,
    residuals,
    same_set,
)
from jaxdyn.equilibria.homotopies import Diagonal, Linearised, Parameters, TotalDegree
from jaxdyn.equilibria.paths import End, track
from jaxdyn.equilibria.result import Completeness
from jaxdyn.linear import solve_linear

COUNTS = {(2, 2): 6, (3, 2): 30, (3, 3): 24, (4, 2): 84, (4, 3): 288, (4, 4): 124}


@pytest.mark.parametrize(("m", "rank"), COUNTS)
def test_kept_solutions_solve_their_equations_and_are_distinct(m, rank):
    kept = generic_solutions(m, rank)
    assert len(kept.solutions) == COUNTS[m, rank] == kept.paths.finite
    assert kept.paths.starts is Completeness.PROVED
    assert kept.paths.failed == kept.paths.singular == 0
    assert residuals(kept, rank).max() < 1e-9
    assert len(distinct(kept.solutions)) == len(kept.solutions)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_total_degree_finds_the_kept_solutions_again(m):
    anew = compute_generic(m, m)
    assert anew.paths.started == 2 ** (m * (m + 1) // 2)
    assert anew.paths.failed == anew.paths.singular == 0
    if m > 1:
        kept = generic_solutions(m, m)
        np.testing.assert_array_equal(anew.moments.yx, kept.moments.yx)
        assert same_set(anew.solutions, kept.solutions)


def test_monodromy_finds_what_the_pencil_finds():
    """Rank one has a closed form: 2m eigenpairs. Monodromy, which knows nothing of it, must find the same S."""
    anew = compute_generic(2, 1)
    kappa, p = rank_one(np.diag(np.exp(anew.moments.logs)), anew.moments.yx)
    # S = p pᵀ/(κ²·pᵀp): the pencil scales p to Hermitian length one, the equation wants the bilinear one.
    grams = np.array([np.outer(v, v) / (v @ v) / k**2 for k, v in zip(kappa, p, strict=True)])
    assert same_set(anew.solutions, pack(grams))


def test_monodromy_finds_the_kept_solutions_of_rank_two_again():
    anew, kept = compute_generic(3, 2), generic_solutions(3, 2)
    assert anew.paths.starts is Completeness.PROVED
    assert same_set(anew.solutions, kept.solutions)


def test_a_damaged_file_is_noticed(tmp_path, monkeypatch):
    with np.load(module._FILE) as kept:
        parts = dict(kept)
    parts["m2_rank2"] = parts["m2_rank2"] + 1e-3
    np.savez(tmp_path / "generic.npz", **parts)
    monkeypatch.setattr(module, "_FILE", tmp_path / "generic.npz")
    with pytest.raises(RuntimeError, match="do not solve"):
        module._read(2, 2)


@pytest.mark.parametrize(("m", "rank"), [(2, 1), (2, 2), (3, 2)])
def test_there_and_back_again(m, rank):
    kept, rng = compute_generic(m, rank) if rank == 1 else generic_solutions(m, rank), np.random.default_rng(0)
    end = module._random_moments(rng, m)
    there = regular(parameter_track(kept.solutions, kept.moments, end, rank))
    back = regular(parameter_track(there, end, kept.moments, rank))
    assert same_set(kept.solutions, back)
    assert not same_set(kept.solutions, there)


@dataclass(frozen=True)
class Quadratic:
    """z₁² = (t·c + (1 − t)·d) z₀², whose paths are ± a square root; d = 0 makes them meet."""

    c: complex
    d: complex
    homogeneous = 2

    def take(self, index):
        return self

    def linear(self, z, t):
        level = t * self.c + (1 - t) * self.d
        return Linearised((z[:, 1] ** 2 - level * z[:, 0] ** 2)[:, None],
                      np.stack([-2 * level * z[:, 0], 2 * z[:, 1]], 1)[:, None],
                      -((self.c - self.d) * z[:, 0] ** 2)[:, None])  # fmt: skip

    def recentre(self, z, rates):
        return self, z, rates

    def solutions(self, z):
        with np.errstate(all="ignore"):
            return z[:, 1:] / z[:, :1]


class Escaping(Quadratic):
    """t z₁² = c z₀²: both roots go to infinity as t → 0."""

    def linear(self, z, t):
        slopes = np.stack([-2 * self.c * z[:, 0], 2 * t * z[:, 1]], 1)
        return Linearised((t * z[:, 1] ** 2 - self.c * z[:, 0] ** 2)[:, None], slopes[:, None], (z[:, 1] ** 2)[:, None])


def run(homotopy):
    root = np.sqrt(homotopy.c)
    return track(homotopy, np.array([[1, root], [1, -root]]))


def test_ends_of_paths_are_told_apart():
    fine = run(Quadratic(1 + 1j, 2.0))
    assert fine.ends.tolist() == [End.FINITE] * 2
    np.testing.assert_allclose(fine.solutions[:, 0] ** 2, 2.0, rtol=1e-14)
    assert fine.solutions[0] == -fine.solutions[1]
    assert run(Quadratic(1 + 1j, 0j)).ends.tolist() == [End.SINGULAR] * 2
    assert run(Escaping(1 + 1j, 0j)).ends.tolist() == [End.INFINITE] * 2


@dataclass(frozen=True)
class NearlyDependent:
    """(z₁ + z₂)² = L z₀² and (z₁ + (1 + ε)z₂)² = (1 + ε)² L z₀², L = t·c + (1 − t)·d: z₁ = 0, z₂ = ±√L z₀."""

    c: np.ndarray
    d: np.ndarray
    small: float = 1e-6
    homogeneous = 3

    def take(self, index):
        return NearlyDependent(self.c[index], self.d[index], self.small)

    def linear(self, z, t):
        values, slopes, rates = [], [], []
        for more in (0.0, self.small):
            level = (t * self.c + (1 - t) * self.d) * (1 + more) ** 2
            total = z[:, 1] + (1 + more) * z[:, 2]
            values.append(total**2 - level * z[:, 0] ** 2)
            slopes.append(np.stack([-2 * level * z[:, 0], 2 * total, 2 * (1 + more) * total], 1))
            rates.append(-((self.c - self.d) * (1 + more) ** 2 * z[:, 0] ** 2))
        return Linearised(*(np.stack(part, 1) for part in (values, slopes, rates)))

    recentre, solutions = Quadratic.recentre, Quadratic.solutions


def test_rounding_is_not_taken_for_a_double_solution():
    """The last Newton steps are rounding, 1e-10 long here; by chance two of a thousand halve three times in a row."""
    levels = np.exp(1j * np.linspace(0.1, 3, 3000))
    starts = np.stack([np.ones(3000), np.zeros(3000), np.sqrt(levels)], 1)
    ends = 1.7 * np.exp(1j * np.linspace(3, 0.2, 3000))
    found = track(NearlyDependent(levels, ends), starts, tolerance=1e-3)
    assert (found.ends == End.FINITE).all()
    np.testing.assert_allclose(found.solutions[:, 1] ** 2, ends, rtol=1e-8)


def test_many_paths_are_their_own():
    """More than one block of them, on threads, with some that end early."""
    angles = np.linspace(0.1, 3, 1300)
    one = Quadratic(1 + 1j, 2.0)
    together = track(one, np.tile([[1, np.sqrt(one.c)]], (angles.size, 1)))
    alone = track(one, np.array([[1, np.sqrt(one.c)]]))
    assert (together.ends == End.FINITE).all()
    np.testing.assert_allclose(together.solutions[:, 0], alone.solutions[0, 0], rtol=1e-13)
    assert (together.steps == alone.steps[0]).all()
    assert track(one, np.zeros((0, 2))).ends.size == 0


def homogeneous(s, xx, yx, h):
    """M(S, h), as the module says it."""
    eye = jnp.eye(s.shape[0])
    return (xx @ s + h * eye) @ (s @ xx + h * eye) - h * yx.T @ s @ yx


def complex_normal(rng, *shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


@pytest.mark.parametrize(("m", "rank"), [(2, 1), (2, 2), (3, 1), (3, 2), (4, 3), (4, 4)])
def test_equations_of_a_rank_match_jax(m, rank):
    """The equations and both derivatives, against the equations as printed, in JAX, and automatic derivatives."""
    rng = np.random.default_rng([m, rank])
    count, size = 3, 1 + rank * (rank + 1) // 2 + (m - rank) * rank
    frames = np.linalg.qr(complex_normal(rng, count, m, m))[0]
    if rank == m:  # where the equations are of S itself
        frames = np.broadcast_to(np.eye(m, dtype=complex), frames.shape)
    start, end = (Diagonal(complex_normal(rng, count, m), complex_normal(rng, count, m, m)) for _ in range(2))
    z, t = complex_normal(rng, count, size), rng.uniform(size=count)

    def equations(z, t, start, end, frame):
        xx = jnp.diag(jnp.exp(t * start.logs + (1 - t) * end.logs))
        yx = t * start.yx + (1 - t) * end.yx
        if rank == m:
            return pack(homogeneous(unpack(z[1:], m), xx, yx, z[0]))
        chart = Chart(frame[:, :rank], frame[:, rank:])
        s, p = chart_gram(z[1:], chart)
        rows = p.T @ homogeneous(s, xx, yx, z[0])
        return jnp.concatenate([pack(rows @ p), (rows @ chart.complement).ravel()])

    have = Parameters(rank, start, end, frames).linear(z, t)
    arguments = (z, t + 0j, start, end, frames)
    np.testing.assert_allclose(have.value, jax.vmap(equations)(*arguments), rtol=1e-10)
    for part, index in ((have.jacobian, 0), (have.rate, 1)):
        wanted = jax.vmap(jax.jacfwd(equations, argnums=index, holomorphic=True))(*arguments)
        np.testing.assert_allclose(part, wanted, rtol=1e-10, atol=1e-10 * np.abs(wanted).max())


def test_total_degree_matches_jax():
    rng = np.random.default_rng(1)
    homotopy = TotalDegree(complex_normal(rng, 3), complex_normal(rng, 3, 3), complex_normal(rng, 6), 0.3 + 1j)
    z, t = complex_normal(rng, 4, 7), rng.uniform(size=4)

    def equations(z, t):
        simple = homotopy.gamma * t * (z[1:] ** 2 - homotopy.constants * z[0] ** 2)
        full = homogeneous(unpack(z[1:], 3), jnp.diag(homotopy.values), jnp.asarray(homotopy.yx), z[0])
        return simple + (1 - t) * pack(full)

    have = homotopy.linear(z, t)
    np.testing.assert_allclose(have.value, jax.vmap(equations)(z, t), rtol=1e-10)
    for part, index in ((have.jacobian, 0), (have.rate, 1)):
        wanted = jax.vmap(jax.jacfwd(equations, argnums=index, holomorphic=True))(z, t + 0j)
        np.testing.assert_allclose(part, wanted, rtol=1e-10, atol=1e-10 * np.abs(wanted).max())


def test_a_moved_frame_has_the_same_points_and_tangents():
    rng = np.random.default_rng(2)
    m, rank, size = 4, 2, 1 + 3 + 4
    side = Diagonal(complex_normal(rng, 3, m), complex_normal(rng, 3, m, m))
    before = Parameters(rank, side, side, np.linalg.qr(complex_normal(rng, 3, m, m))[0])
    z, rates = complex_normal(rng, 3, 2, size), complex_normal(rng, 3, 2, size)
    z[0, 0, 4:] *= 1e-3  # this one may stay where it is
    after, moved, turned = before.recentre(z, rates)
    np.testing.assert_array_equal(after.frames[0], before.frames[0])
    np.testing.assert_allclose(moved[1:, 0, 4:], 0, atol=1e-14)

    def values(family, base, slope):
        return np.stack([family.solutions(base[:, i] + 1e-6 * slope[:, i]) for i in range(2)])

    np.testing.assert_allclose(values(before, z, 0 * z), values(after, moved, 0 * z), rtol=1e-12)
    change = values(before, z, rates) - values(before, z, -rates)
    np.testing.assert_allclose(values(after, moved, turned) - values(after, moved, -turned), change, rtol=1e-6)


def test_linear_solver_matches_numpy():
    rng = np.random.default_rng(1)
    matrices = rng.normal(size=(50, 5, 5)) + 1j * rng.normal(size=(50, 5, 5))
    matrices[:, 0, 0] = 0  # no solution without pivoting
    right = rng.normal(size=(50, 5)) + 0j
    have = jax.vmap(solve_linear)(jnp.asarray(matrices), jnp.asarray(right))
    np.testing.assert_allclose(have, np.linalg.solve(matrices, right[..., None])[..., 0], rtol=1e-9)
