"""`jaxdyn claims`: what it prints, keeps, goes on from and compares."""

import dataclasses
import json

import pytest

from jaxdyn.cli import main


def test_claims_as_json_and_as_text(capsys):
    assert main(["claims", "--json", "--only", "T-15"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert {"id", "statement", "as_printed", "as_it_holds", "clauses", "rows"} <= set(entry)
    assert entry["as_printed"] == entry["as_it_holds"] == "reproduced"
    assert main(["claims", "--only", "T-15"]) == 0
    printed = capsys.readouterr().out
    assert "T-15  REPRODUCED" in printed
    assert "HOLDS: τ(t) is the stated integral" in printed
    assert printed.splitlines()[-1].startswith("T-15            reproduced            reproduced")


def test_claims_are_kept_and_a_stopped_run_goes_on(capsys, tmp_path, monkeypatch):
    from jaxdyn.papers import released
    from jaxdyn.papers.claims import CLAIMS

    out = ["claims", "--only", "T-15", "T-17", "--out", str(tmp_path)]
    assert main(out) == 0
    content = json.loads((tmp_path / "claims.json").read_text(encoding="utf-8"))
    assert [each["id"] for each in content["claims"]] == ["T-15", "T-17"]
    assert content["sources"] == released.sources()
    assert content["full"] is False
    # What is there is not computed again, unless the code is another or the file is damaged.
    seen = []
    for id in ("T-15", "T-17"):
        compute = CLAIMS[id].compute
        counting = lambda fast, id=id, compute=compute: seen.append(id) or compute(fast)  # noqa: E731
        monkeypatch.setitem(CLAIMS, id, dataclasses.replace(CLAIMS[id], compute=counting))
    part = tmp_path / "claims" / "T-17.json"
    for count, damaged in enumerate(("{", "[]", "3", (tmp_path / "claims" / "T-15.json").read_text(encoding="utf-8"))):
        part.write_text(damaged, encoding="utf-8")
        assert main(out) == 0
        assert seen == ["T-17"] * (count + 1)
    # A later run of one claim keeps the others in the file.
    assert main(["claims", "--only", "T-15", "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "claims.json").read_text(encoding="utf-8"))
    assert sorted(each["id"] for each in content["claims"]) == ["T-15", "T-17"]
    seen.clear()
    monkeypatch.setattr(released, "sources", lambda: "other code")
    assert main(out) == 0
    assert seen == ["T-15", "T-17"]
    capsys.readouterr()
    blocked = tmp_path / "blocked"
    (blocked / "claims.json").mkdir(parents=True)
    assert main(["claims", "--only", "T-15", "--out", str(blocked)]) == 2
    assert "claims.json in it is something else" in capsys.readouterr().err


def test_claims_are_verified_against_the_released_ones(capsys, tmp_path, monkeypatch):
    from jaxdyn.papers import released

    assert main(["claims", "--only", "T-15", "T-D3", "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "claims.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(released, "read", lambda: content)
    assert main(["claims", "--verify", "--only", "T-15", "T-D3"]) == 0
    assert "2 of 2 claims as released" in capsys.readouterr().out
    by_id = {each["id"]: each for each in content["claims"]}
    by_id["T-15"]["clauses"][0]["rows"][0]["value"] += 1e-3
    by_id["T-D3"]["as_printed"] = "contradicted"
    assert main(["claims", "--verify", "--only", "T-15", "T-D3"]) == 1
    printed = capsys.readouterr().out
    assert "T-15: clauses[0] (τ(t) is the stated integral).rows[0] (largest error).value: " in printed
    assert "T-D3: as_printed: 'contradicted' in the file, now 'reproduced'" in printed
    assert "0 of 2 claims as released" in printed
    assert main(["claims", "--verify", "--full"]) == 2
    assert "verify: it has the size of the released results" in capsys.readouterr().err
    assert main(["claims", "--verify", "--only", "T-16"]) == 2
    assert "only: the released results have no T-16" in capsys.readouterr().err


def test_a_claim_that_failed_is_not_kept(capsys, tmp_path, monkeypatch):
    from jaxdyn.papers.claims import CLAIMS
    from jaxdyn.papers.claims.base import attempted

    def failing(fast):
        raise MemoryError("too much")

    with monkeypatch.context() as patch:
        patch.setitem(CLAIMS, "T-15", dataclasses.replace(CLAIMS["T-15"], compute=attempted(failing)))
        assert main(["claims", "--only", "T-15", "T-17", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "T-15  NOT DECIDED" in printed
    assert "MemoryError: too much" in printed
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["T-17.json"]
    assert main(["claims", "--only", "T-15", "--out", str(tmp_path)]) == 0
    assert "T-15  REPRODUCED" in capsys.readouterr().out


@pytest.mark.parametrize("columns", ["40", "20"])
def test_claims_in_a_narrow_terminal(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["claims", "--only", "T-15"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 40
