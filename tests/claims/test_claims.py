"""Claims hold, and each turns when the formula it rests on is broken."""

import json

import jax
import pytest

from jaxdyn.analysis import invariants
from jaxdyn.claims import CLAIMS, Verdict, random_trials
from jaxdyn.claims.base import Claim, claim
from jaxdyn.systems import siamese

EXPECTED = {
    "P-balance": Verdict.REPRODUCED,
    "P-4.3": Verdict.REPRODUCED,
    "P-4.11": Verdict.REPRODUCED,
    "P-trials": Verdict.WITHIN_FAMILY,
    "P-nonmonotone": Verdict.REPRODUCED,
}


@pytest.mark.slow  # flows and trials of every claim, about a minute in all
@pytest.mark.parametrize("id", EXPECTED)
def test_claims_hold(id):
    evidence = CLAIMS[id].compute(True)
    assert evidence.verdict == EXPECTED[id], evidence
    json.dumps(evidence.numbers)  # plain numbers
    assert evidence.numbers


def test_the_registry_is_complete():
    assert set(EXPECTED) == set(CLAIMS)
    for id, entry in CLAIMS.items():
        assert isinstance(entry, Claim)
        assert entry.id == id
        assert entry.statement
        assert entry.source
    with pytest.raises(ValueError, match="id: claim P-trials is registered already"):
        claim("P-trials", source="", statement="")(lambda fast: None)  # type: ignore[arg-type, return-value]


@pytest.fixture
def fresh_compilations():
    """Compiled code does not see a patched formula: forget it before and after."""
    jax.clear_caches()
    random_trials._trials.cache_clear()
    yield
    jax.clear_caches()
    random_trials._trials.cache_clear()


@pytest.mark.slow  # everything is compiled anew for each broken formula, about 20 s each
@pytest.mark.parametrize("id", ["P-balance", "P-4.11", "P-trials"])
def test_a_flipped_sign_in_the_field_turns_the_claim(id, monkeypatch, fresh_compilations):
    def broken(self, state, teacher, moments):
        a, b = state.encoder, state.predictor
        r = siamese.residual(a, b, teacher, moments)
        return siamese.StudentState(
            b.T @ r + self.weight_decay.encoder * a,
            -self.predictor_lr_ratio * (r @ a.T) + self.weight_decay.predictor * b,
        )

    monkeypatch.setattr(siamese.Siamese, "_stopped_gradient", broken)
    assert CLAIMS[id].compute(True).verdict == Verdict.CONTRADICTED


@pytest.mark.slow  # as above
def test_a_wrong_objective_turns_its_claims(monkeypatch, fresh_compilations):
    monkeypatch.setattr(siamese.Objective, "gradient", siamese.StopGradient.gradient)
    assert CLAIMS["P-4.3"].compute(True).verdict == Verdict.CONTRADICTED
    assert random_trials._objective_flow_rise(8) > 1e-7


def test_a_wrong_decay_rate_is_seen(monkeypatch, fresh_compilations):
    from jaxdyn.claims import linear

    monkeypatch.setattr(linear, "encoder_decay_rate", lambda *a: 1.01 * invariants.encoder_decay_rate(*a))
    assert CLAIMS["P-4.3"].compute(True).verdict == Verdict.CONTRADICTED
