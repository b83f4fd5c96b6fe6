"""The separate checker verifies what the library certifies, and nothing that was tampered with."""

import ast
import copy
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxdyn as jd
from jaxdyn.equilibria.records import record, write
from jaxdyn.proofs import check

CHECKER = Path(check.__file__)

MOMENTS = jd.Moments([[1.0, 0.1], [0.1, 1.5]], [[0.8, 0.05], [-0.02, 0.9]])
SYSTEMS = [jd.StopGradient(0.05, predictor_lr_ratio=1.5), jd.MovingAverage(0.05, ema_rate=0.3)]


def told_of(system, moments, n=None, radius=0.0):
    found = jd.equilibria(system, moments, n=n)
    return record([(item.gram, item.rank, item.n_unstable) for item in found], system, moments, found.n, radius)


def refused(told, index):
    try:
        check.Statement(told, told["equilibria"][index]).check()
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
        return True
    return False


def test_it_is_independent_and_short():
    text = CHECKER.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    names = {alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"json", "sys"}
    assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("system", SYSTEMS, ids=["SG", "EMA"])
def test_certificates_of_a_census_are_verified(system, n):
    told = told_of(system, MOMENTS, n)
    assert {claim["rank"] for claim in told["equilibria"]} == set(range(min(n, 2) + 1))
    assert not [k for k in range(len(told["equilibria"])) if refused(told, k)]


@pytest.mark.parametrize("m", [1, 2, 3])
def test_random_censuses_are_verified(m):
    count = {1: 6, 2: 6, 3: 2}[m]
    for seed in range(count):
        told = told_of(jd.StopGradient(0.02), jd.Moments.random(jax.random.key(seed), m))
        assert not [k for k in range(len(told["equilibria"])) if refused(told, k)]


def shifted(text, by):
    return (float.fromhex(text) * (1 + by)).hex()


def moved_root(told, claim, rng):
    place = rng.integers(len(claim["centre"]))
    claim["centre"][place] = (float.fromhex(claim["centre"][place]) + 1e-6 * rng.choice([-1, 1])).hex()


def changed_decay(told, claim, rng):
    told["weight_decay"] = [shifted(told["weight_decay"][0], 1e-6 * rng.choice([-1, 1])), told["weight_decay"][1]]


def changed_moments(told, claim, rng):
    i, j = rng.integers(2, size=2)
    told["Y"][i][j] = shifted(told["Y"][i][j], 1e-6)


def wrong_count(told, claim, rng):
    claim["unstable"] += int(rng.choice([-1, 1]))


def wrong_rank(told, claim, rng):
    claim["rank"] = int(rng.choice([k for k in (0, 1, 2, 3) if k != claim["rank"]]))


def swapped_pair(told, claim, rng):
    """The box of another equilibrium of the same rank, whose count is another one."""
    others = [each for each in told["equilibria"]
              if each["rank"] == claim["rank"] and each["unstable"] != claim["unstable"]]  # fmt: skip
    other = others[rng.integers(len(others))]
    for name in ("range", "complement", "centre", "half", "inverse"):
        claim[name] = other[name]


def negative_box(told, claim, rng):
    claim["half"] = ["-" + value for value in claim["half"]]


def another_system(told, claim, rng):
    told["predictor_lr_ratio"] = shifted(told["predictor_lr_ratio"], 1e-6)


MUTATIONS = [moved_root, changed_decay, changed_moments, wrong_count, wrong_rank, swapped_pair, negative_box,
             another_system]  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_what_was_tampered_with_is_rejected(mutation):
    rng, tried = np.random.default_rng(0), 0
    for system in SYSTEMS:
        told = told_of(system, MOMENTS)
        for index, claim in enumerate(told["equilibria"]):
            alike = [each for each in told["equilibria"] if each["rank"] == claim["rank"]]
            if claim["rank"] and (mutation is not swapped_pair or len({each["unstable"] for each in alike}) > 1):
                broken = copy.deepcopy(told)
                mutation(broken, broken["equilibria"][index], rng)
                assert refused(broken, index), f"{mutation.__name__} of {index}"
                tried += 1
    assert tried >= 4


def wide_complement(told, claim):
    """Krawczyk's test of more equations than unknowns would prove a root of some of them alone."""
    for row, more in zip(claim["complement"], ("0x0.0p+0", "0x1.0000000000000p+0"), strict=True):
        row.append(more)
    claim["inverse"] = [[*row, "0x0.0p+0"] for row in claim["inverse"]]


def long_range(told, claim):
    claim["range"].append(["-0x1.4000000000000p+2"] * claim["rank"])


def more_digits(told, claim):
    """A λ whose value is another than the double it is rounded to."""
    told["weight_decay"][0] = told["weight_decay"][0].replace("p", "00001p")


def plain_decimal(told, claim):
    told["predictor_lr_ratio"] = "1.5"


def frozen_teacher(told, claim):
    told["ema_rate"] = 0


def false_for_no_teacher(told, claim):
    told["ema_rate"] = False


def fraction_of_a_rank(told, claim):
    claim["rank"] += 0.5


def truth_for_a_count(told, claim):
    claim["unstable"] = bool(claim["unstable"])


def fractional_dimension(told, claim):
    told["n"] += 0.5


def huge_dimension(told, claim):
    told["n"] = 10**18


def text_for_a_row(told, claim):
    claim["centre"] = "".join(claim["centre"])


SHAPES = [wide_complement, long_range, more_digits, plain_decimal, frozen_teacher, false_for_no_teacher,
          fraction_of_a_rank, truth_for_a_count, fractional_dimension, huge_dimension, text_for_a_row]  # fmt: skip


@pytest.mark.parametrize("change", SHAPES)
def test_nothing_is_read_as_something_else(change):
    """Each of these was once taken for a certificate, some of false claims."""
    for system in SYSTEMS:
        told = told_of(system, MOMENTS)
        index = next(k for k, claim in enumerate(told["equilibria"]) if claim["rank"] == 1)
        assert not refused(told, index)
        change(told, told["equilibria"][index])
        assert refused(told, index)


@pytest.mark.parametrize("field", ["form", "quotient", "inverse", "range", "complement", "X", "weight_decay"])
@pytest.mark.parametrize("value", ["nan", "inf", "0x0p+0", "text", None, [], 1, True])
def test_nonsense_is_refused_without_an_error(field, value):
    told = told_of(SYSTEMS[0], MOMENTS)
    claim = told["equilibria"][1]
    owner = told if field in told else claim
    if isinstance(owner[field][0], list):
        owner[field][0][0] = value
    else:
        owner[field][0] = value
    assert refused(told, 1)


def test_intervals_hold_the_exact_results():
    rng = np.random.default_rng(0)
    for a, b in rng.normal(size=(300, 2)) * 10.0 ** rng.integers(-9, 9, (300, 2)):
        x, y = check.number(a.hex()), check.number(b.hex())
        exact = Fraction(a), Fraction(b)
        results: Any = (x + y, x * y, x / y)
        for have, want in zip(results, (exact[0] + exact[1], exact[0] * exact[1], exact[0] / exact[1]), strict=True):
            assert Fraction(have.low, check.ONE) <= want <= Fraction(have.high, check.ONE)
            assert have.high - have.low <= 2 + abs(want) * 2**60


def test_a_slope_is_a_derivative():
    def function(values):
        x, y = values
        return [x * x * y + y, x * y * y]

    found = check.slopes(function, [check.number((3.0).hex()), check.number((5.0).hex())])
    have = [[value.low / check.ONE for value in row] for row in found.rows]
    assert have == [[30.0, 10.0], [25.0, 30.0]]


def test_a_ball_of_data_is_proved_and_holds_in_samples():
    """Every problem within the radius has the equilibrium, with the same count."""
    rng, radius = np.random.default_rng(1), 1e-7
    told = told_of(SYSTEMS[0], MOMENTS, radius=radius)
    proved = [k for k, claim in enumerate(told["equilibria"]) if claim["rank"] and not refused(told, k)]
    assert len(proved) >= 3
    xx, yx = np.asarray(MOMENTS.xx), np.asarray(MOMENTS.yx)
    for _ in range(3):
        change = rng.uniform(-radius, radius, (2, 2))
        near = jd.Moments(xx + (change + change.T) / 2, yx + rng.uniform(-radius, radius, (2, 2)))
        found = jd.equilibria(SYSTEMS[0], near)
        for k in proved:
            claim = told["equilibria"][k]
            p, hat = check.Statement(told, claim).root()
            bounds = (p @ hat @ p.T).rows
            inside = [
                item
                for item in found
                if item.rank == claim["rank"]
                and all(
                    bounds[i][j].low <= item.gram[i, j] * check.ONE <= bounds[i][j].high
                    for i in range(2)
                    for j in range(2)
                )
            ]
            assert [item.n_unstable for item in inside] == [claim["unstable"]]
    assert refused(told_of(SYSTEMS[0], MOMENTS, radius=0.3), proved[-1])


def test_saved_certificates_are_checked_by_a_program(tmp_path):
    pytest.importorskip("flint")
    found = jd.equilibria(jd.StopGradient(0.1), jd.Moments.scalar(1.0, 0.8), certify=True)
    path = found.save(tmp_path / "cert.json")
    run = lambda: subprocess.run([sys.executable, str(CHECKER), str(path)], capture_output=True, text=True)  # noqa: E731
    done = run()
    assert done.returncode == 0
    assert [line.split(": ", 1)[1] for line in done.stdout.splitlines()] == [
        "rank 0, 0 growing: verified", "rank 1, 1 growing: verified", "rank 1, 0 growing: verified"
    ]  # fmt: skip
    told = json.loads(path.read_text())
    told["equilibria"][1]["unstable"] = 0
    path.write_text(json.dumps(told))
    done = run()
    assert done.returncode == 1
    assert "NOT verified" in done.stdout.splitlines()[1]
    assert "1 directions grow, not 0" in done.stdout


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"equilibria": null}', '{"equilibria": []}', "[" * 10_000, "null"]
)
def test_a_file_that_is_no_certificate_is_refused(content, tmp_path, capsys):
    path = tmp_path / "cert.json"
    path.write_text(content)
    assert check.main([str(path)]) == 1
    assert check.main([str(tmp_path / "nowhere.json")]) == 1
    assert capsys.readouterr().out.count("NOT verified") == 2
    assert check.main([]) == 1


def test_what_cannot_be_saved():
    with pytest.raises(ValueError, match="certify=True"):
        jd.equilibria(jd.StopGradient(0.1), jd.Moments.scalar(1.0, 0.8)).save("nowhere.json")
    moments = jd.Moments.scalar(1.0, 0.8)
    for system, name in (
        (jd.StopGradient(0.1, predictor_lr_ratio=0.0), "predictor_lr_ratio"),
        (jd.MovingAverage(0.1, ema_rate=0.0), "ema_rate"),
    ):
        with pytest.raises(ValueError, match=name):
            write([(np.zeros((1, 1)), 0, 0)], Path("nowhere.json"), system, moments, 2)
    with pytest.raises(ValueError, match="does not verify those at"):
        write([(np.zeros((1, 1)), 0, 1)], Path("nowhere.json"), jd.StopGradient(0.1), moments, 2)
    assert not Path("nowhere.json").exists()
