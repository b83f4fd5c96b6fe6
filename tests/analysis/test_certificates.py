"""Proofs: they hold for true equilibria, and fail for anything else."""

import dataclasses
import sys

import jax
import numpy as np
import pytest

import jaxdyn as jd
from jaxdyn.analysis.equilibria import census, decay_bound, equilibria
from jaxdyn.analysis.equilibria.certificates import certify
from jaxdyn.analysis.stability import Verdict


@pytest.mark.parametrize("kind", ["sg", "ema"])
@pytest.mark.parametrize("m", [1, 2, 3])
def test_every_equilibrium_is_proved_and_a_moved_one_is_not(m, kind):
    moments = [jd.Moments.random(jax.random.key(seed), m) for seed in range(5)]
    decays = [0.05 * float(decay_bound(each)) for each in moments]
    systems = [jd.StopGradient(d) if kind == "sg" else jd.MovingAverage(d, ema_rate=0.1) for d in decays]
    seen = 0
    for answer in census(systems, moments):
        for item in answer:
            if item.verdict == Verdict.UNDETERMINED:
                continue
            proof = certify(item, answer.system, answer.moments)
            assert proof.proved, proof
            assert proof.n_unstable == item.n_unstable
            seen += 1
            if item.rank:
                moved = dataclasses.replace(item, gram=item.gram * (1 + 1e-6))
                assert certify(moved, answer.system, answer.moments).step == "root"
    assert seen > 10


def test_rates_and_unequal_decays_are_certified():
    found = equilibria(jd.StopGradient((0.03, 0.07), 1.5), jd.Moments(np.diag([1.0, 1.5]), np.diag([0.8, 0.9])), 4)
    assert len(found) == 9
    for item in found:
        proof = certify(item, found.system, found.moments)
        assert proof.proved, proof
        assert proof.n_unstable == item.n_unstable


def test_a_wrong_rank_or_place_fails():
    found = equilibria(jd.StopGradient(0.05), jd.Moments(np.diag([1.0, 1.5]), np.diag([0.8, 0.9])))
    full = next(item for item in found if item.rank == 2)
    arguments = (found.system, found.moments)
    assert certify(dataclasses.replace(full, rank=1), *arguments).step == "root"
    assert certify(dataclasses.replace(full, gram=-full.gram), *arguments).step in ("root", "positive")
    assert certify(dataclasses.replace(full, rank=0), *arguments).step == "root"
    assert not certify(full, jd.StopGradient(0.0501), found.moments).proved


def test_a_double_root_is_not_proved():
    moments, system = jd.Moments.scalar(1.0, 0.8), jd.StopGradient(0.16)
    found = equilibria(jd.StopGradient(0.15), moments)
    double = dataclasses.replace(found[-1], gram=np.array([[0.16]]))
    assert not certify(double, system, moments).proved


def test_certificates_appear_in_the_table():
    found = equilibria(jd.StopGradient(0.1), jd.Moments.scalar(1.0, 0.8), certify=True)
    assert all(item.certificate.proved for item in found)
    assert str(found).count("proved") == 3


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(ValueError, match=r"jaxdyn\[certify\]"):
        equilibria(jd.StopGradient(0.1), jd.Moments.scalar(1.0, 0.8), certify=True)
