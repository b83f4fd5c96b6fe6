"""How many solutions there are, counted by a program that knows nothing of paths, and what a census says of itself."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from counting import count

import jaxdyn as jd
from jaxdyn.equilibria import generic
from jaxdyn.equilibria.census import equilibria
from jaxdyn.equilibria.equations import rank_one
from jaxdyn.equilibria.result import Completeness, Paths

SINGULAR = pytest.mark.skipif(
    shutil.which("Singular") is None, reason="needs the program Singular (Debian: apt-get install singular-ui)"
)


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


@SINGULAR
@pytest.mark.parametrize(("m", "rank"), [(2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 1), (4, 4)])
def test_a_groebner_basis_counts_as_many_solutions_as_there_are_paths(m, rank):
    expected = 2 * m if rank == 1 else generic.COUNTED[m, rank]
    assert count(m, rank) == expected
    if rank == 1:
        kappa, _ = rank_one(np.eye(m) + 0.1 * np.ones((m, m)), np.arange(1.0, 1 + m * m).reshape(m, m))
        assert kappa.size == expected
    else:
        assert generic.generic_solutions(m, rank).solutions.shape[0] == expected


@SINGULAR
def test_another_prime_and_other_draws_count_the_same():
    assert {count(3, 2, prime, seed) for prime in (32003, 65521) for seed in (2, 3)} == {30}


def moments(m, seed=0):
    with jax.enable_x64(True):
        return jd.Moments.random(jax.random.key(seed), m)


def test_a_census_says_how_sure_it_is():
    system = jd.StopGradient(0.02)
    found = equilibria(system, moments(3))
    assert found.completeness is Completeness.PROVED
    assert "complete: proved" in str(found)
    assert "a Gröbner basis counts as many" in str(found)
    assert found.to_dataset().attrs["completeness"] == "proved"
    large = equilibria(system, moments(5))
    assert large.completeness is Completeness.SEARCH
    assert not large.complete
    assert large.paths[1].completeness is Completeness.PROVED
    assert "a search, which may have missed some" in str(large)
    lost = found.paths | {2: found.paths[2]._replace(finite=29, failed=1)}
    assert dataclasses.replace(found, paths=lost).completeness is Completeness.MISSED
    assert "NOT complete" in str(dataclasses.replace(found, paths=lost))


@pytest.mark.parametrize(
    ("counted", "starts"),
    [({(3, 2): 30}, Completeness.PROVED), ({}, Completeness.MONODROMY), ({(3, 2): 31}, Completeness.MISSED)],
)
def test_only_an_independent_count_proves(counted, starts, monkeypatch):
    monkeypatch.setattr(generic, "COUNTED", counted)
    kept = generic._read(3, 2)
    assert kept is not None
    assert kept.paths.starts is starts
    check, sure = generic._told(3, 2, kept.solutions, "closed", Completeness.MONODROMY, agreed=True)
    assert sure is starts
    assert check.startswith("closed")
    _, sure = generic._told(3, 2, kept.solutions, "closed", Completeness.MONODROMY, agreed=False)
    assert sure is (Completeness.PROVED if starts is Completeness.PROVED else Completeness.MISSED)


def test_paths_that_were_lost_are_missing_whatever_the_starts():
    for part in ("infinite", "singular", "failed"):
        paths = Paths(4, 3, 0, 0, 0, "", Completeness.PROVED)._replace(**{part: 1})
        assert paths.completeness is Completeness.MISSED
    assert Paths(4, 3, 0, 0, 1, "", Completeness.SEARCH).completeness is Completeness.SEARCH
