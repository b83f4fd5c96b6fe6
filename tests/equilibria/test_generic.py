"""The generic solutions and the path tracker behind the census."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.equilibria import generic as module
from jaxdyn.equilibria.equations import pack, rank_one
from jaxdyn.equilibria.generic import (
    compute_generic,
    distinct,
    generic_solutions,
    parameter_track,
    regular,
    residuals,
    same_set,
)
from jaxdyn.equilibria.paths import End, track
from jaxdyn.linear import solve_linear

COUNTS = {(2, 2): 6, (3, 2): 30, (3, 3): 24, (4, 2): 84, (4, 3): 288, (4, 4): 124}


@pytest.mark.parametrize(("m", "rank"), COUNTS)
def test_kept_solutions_solve_their_equations_and_are_distinct(m, rank):
    kept = generic_solutions(m, rank)
    assert len(kept.solutions) == COUNTS[m, rank] == kept.paths.finite
    assert kept.paths.confirmed
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
        np.testing.assert_array_equal(anew.yx, kept.yx)
        assert same_set(anew.solutions, kept.solutions)


def test_monodromy_finds_what_the_pencil_finds():
    """Rank one has a closed form: 2m eigenpairs. Monodromy, which knows nothing of it, must find the same S."""
    anew = compute_generic(2, 1)
    kappa, p = rank_one(anew.xx, anew.yx)
    # S = p pᵀ/(κ²·pᵀp): the pencil scales p to Hermitian length one, the equation wants the bilinear one.
    grams = np.array([np.outer(v, v) / (v @ v) / k**2 for k, v in zip(kappa, p, strict=True)])
    assert same_set(anew.solutions, pack(grams))


@pytest.mark.slow  # the one start system that is found by monodromy alone and has no closed form; a minute
def test_monodromy_finds_the_kept_solutions_of_rank_two_again():
    anew, kept = compute_generic(3, 2), generic_solutions(3, 2)
    assert anew.paths.confirmed
    assert same_set(anew.solutions, kept.solutions)


def test_a_damaged_file_is_noticed(tmp_path, monkeypatch):
    with np.load(module._FILE) as kept:
        parts = dict(kept)
    parts["m2_rank2"] = parts["m2_rank2"] + 1e-3
    np.savez(tmp_path / "generic.npz", **parts)
    monkeypatch.setattr(module, "_FILE", tmp_path / "generic.npz")
    with pytest.raises(RuntimeError, match="do not solve"):
        module._read(2, 2)


def test_there_and_back_again():
    kept, rng = generic_solutions(2, 2), np.random.default_rng(0)
    start, end = (kept.xx, kept.yx), (module._symmetric(rng, 2), module._complex(rng, 2, 2))
    there = regular(parameter_track(kept.solutions, start, end, 2), 2, 2)
    back = regular(parameter_track(there, end, start, 2), 2, 2)
    assert same_set(kept.solutions, back)
    assert not same_set(kept.solutions, there)


class Quadratic:
    """z₁² = (t·c + (1 − t)·d) z₀², whose paths are ± a square root; d = 0 makes them meet."""

    def __call__(self, z, t, params, frame):
        c, d = params
        return jnp.stack([z[1] ** 2 - (t * c + (1 - t) * d) * z[0] ** 2])

    def recentre(self, z, frame):
        return z, frame


class Escaping(Quadratic):
    """t z₁² = c z₀²: both roots go to infinity as t → 0."""

    def __call__(self, z, t, params, frame):
        return jnp.stack([t * z[1] ** 2 - params[0] * z[0] ** 2])


def run(homotopy, c, d):
    root = np.sqrt(np.asarray(c, complex))
    starts = np.array([[1, root], [1, -root]])
    params = tuple(np.full(2, value, complex) for value in (c, d))
    return track(homotopy, starts, np.zeros((2, 1)), params)


def test_ends_of_paths_are_told_apart():
    fine = run(Quadratic(), 1 + 1j, 2.0)
    assert fine.ends.tolist() == [End.FINITE] * 2
    values = fine.points[:, 1] / fine.points[:, 0]
    np.testing.assert_allclose(values**2, 2.0, rtol=1e-7)
    assert run(Quadratic(), 1 + 1j, 0.0).ends.tolist() == [End.SINGULAR] * 2
    assert run(Escaping(), 1 + 1j, 0.0).ends.tolist() == [End.INFINITE] * 2


def test_linear_solver_matches_numpy():
    rng = np.random.default_rng(1)
    matrices = rng.normal(size=(50, 5, 5)) + 1j * rng.normal(size=(50, 5, 5))
    matrices[:, 0, 0] = 0  # no solution without pivoting
    right = rng.normal(size=(50, 5)) + 0j
    have = jax.vmap(solve_linear)(jnp.asarray(matrices), jnp.asarray(right))
    np.testing.assert_allclose(have, np.linalg.solve(matrices, right[..., None])[..., 0], rtol=1e-9)
