"""Proofs: they hold for true equilibria, and fail for anything else."""

import dataclasses

import jax
import numpy as np
import pytest

import jaxdyn as jd
from jaxdyn.analysis.linearise import Verdict
from jaxdyn.equilibria import certificates
from jaxdyn.equilibria.census import census, equilibria
from jaxdyn.equilibria.certificates import certify
from jaxdyn.equilibria.equations import decay_bound


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
            proof = certify(item.gram, item.rank, answer.n, answer.system, answer.moments)
            assert proof.proved, proof
            assert proof.n_unstable == item.n_unstable
            seen += 1
            if item.rank:
                moved = dataclasses.replace(item, gram=item.gram * (1 + 1e-6))
                assert certify(moved.gram, moved.rank, answer.n, answer.system, answer.moments).step == "root"
    assert seen > 10


def test_rates_and_unequal_decays_are_certified():
    found = equilibria(jd.StopGradient((0.03, 0.07), 1.5), jd.Moments(np.diag([1.0, 1.5]), np.diag([0.8, 0.9])), n=4)
    assert len(found) == 9
    for item in found:
        proof = certify(item.gram, item.rank, found.n, found.system, found.moments)
        assert proof.proved, proof
        assert proof.n_unstable == item.n_unstable


def test_a_wrong_rank_or_place_fails():
    found = equilibria(jd.StopGradient(0.05), jd.Moments(np.diag([1.0, 1.5]), np.diag([0.8, 0.9])))
    full = next(item for item in found if item.rank == 2)
    arguments = (found.n, found.system, found.moments)
    assert certify(full.gram, 1, *arguments).step == "root"
    assert certify(-full.gram, full.rank, *arguments).step in ("root", "positive")
    assert certify(full.gram, 0, *arguments).step == "root"
    assert not certify(full.gram, full.rank, found.n, jd.StopGradient(0.0501), found.moments).proved


def test_a_double_root_is_not_proved():
    moments, system = jd.Moments.scalar(1.0, 0.8), jd.StopGradient(0.16)
    found = equilibria(jd.StopGradient(0.15), moments)
    double = dataclasses.replace(found[-1], gram=np.array([[0.16]]))
    assert not certify(double.gram, double.rank, found.n, system, moments).proved


def test_certificates_appear_in_the_table():
    found = equilibria(jd.StopGradient(0.1), jd.Moments.scalar(1.0, 0.8), certify=True)
    assert all(item.certificate is not None and item.certificate.proved for item in found)
    assert str(found).count("proved, ") == 3


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(certificates, "balls", None)
    with pytest.raises(ValueError, match=r"jaxdyn\[certify\]"):
        equilibria(jd.StopGradient(0.1), jd.Moments.scalar(1.0, 0.8), certify=True)
