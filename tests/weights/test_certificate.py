"""The certificate beside the weights: read whole or refused, quoted for the policy and the weights it is of alone."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from lcsearch.errors import EnvironmentProblem
from lcsearch.stopping.policy import Policy
from lcsearch.weights import certificate
from lcsearch.weights.certificate import Certificate, Line, certificate_for, quoted, read, record
from lcsearch.weights.shipped import INDEX, REINSTALL

SHA = "ab" * 32
GATES = {name: value for name, value in asdict(Policy()).items() if name != "threshold"}
LINES = (
    Line("", 0.01, 91, 0.011, 0.0512, 3, 0.083, 0.0218, 0.52, 0.6, 0.004, ((0.2, 0.0), (0.6, 0.01))),
    Line("", 0.05, 91, 0.023, 0.0681, 7, 0.141, 0.0337, 0.66, 0.5, 0.012, ((0.2, 0.002), (0.6, 0.02))),
    Line("lcbench", 0.05, 9, 0.02, 0.4, 1, 0.43, 0.12, 0.7, 0.4, 0.01),
    Line("training", 0.05, 26, 0.019, 0.16, 2, 0.22, 0.06, 0.7, 0.4, 0.01),
)
MADE = Certificate(f"network-{SHA[:12]}", GATES, 0.95, 40, 12, LINES)
QUOTED = (
    "certificate: at threshold 0.05, sweeps of 91 tasks kept aside lost their best trial in 2.3 %, with 95 % "
    "confidence in at most 6.9 % (66 % of all trials were stopped); of the 26 whose steps are training in 1.9 %, in at "
    "most 16 %. It is an average over such tasks, of sweeps up to 40 trials one after the other, not a bound for this "
    "one"
)


def folder(tmp_path: Path, **changed: Any) -> Path:
    (tmp_path / INDEX).write_text(json.dumps({"network": SHA}))
    (tmp_path / "network.certificate.json").write_text(json.dumps(record(MADE, SHA) | changed))
    return tmp_path


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "_shipped", {"network": MADE}.get)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read("network", tmp_path) is None
    assert read("network", folder(tmp_path)) == MADE
    assert MADE.line(0.05, "lcbench") == LINES[2]
    assert MADE.line(0.05) == LINES[1]
    assert MADE.line(0.03) is None


@pytest.mark.parametrize(
    ("changed", "got"),
    [
        ({"weights": "cd" * 32}, "that of other weights (cdcdcdcdcdcd...)"),
        ({"format": 2}, "format 2, not 1"),
        ({"lines": [{"threshold": 1}]}, "'early'"),
        ({"lines": [{"early": []}]}, "Line.__init__() missing "),
        ({"gates": None}, "'NoneType' object is not iterable"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, changed: dict[str, Any], got: str) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        read("network", folder(tmp_path, **changed))
    path = tmp_path / "network.certificate.json"
    assert str(caught.value).startswith(f"{path}: expected the certificate of weights, got {got}")
    assert str(caught.value).endswith(f". {REINSTALL}")


@pytest.mark.parametrize("text", ["", "[]", "{}", "\xff", "[" * 100_000])
def test_no_certificate_at_all_is_refused(tmp_path: Path, text: str) -> None:
    folder(tmp_path)
    (tmp_path / "network.certificate.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(EnvironmentProblem, match="expected the certificate of weights, got"):
        read("network", tmp_path)


@pytest.mark.usefixtures("shipped")
def test_it_is_quoted_for_its_own_policy_and_weights_alone() -> None:
    mine = {"network": MADE.version}
    assert quoted(mine, Policy()) == QUOTED
    alone = replace(MADE, lines=LINES[:2]).text(0.01)
    assert alone.startswith(
        "at threshold 0.01, sweeps of 91 tasks kept aside lost their best trial in 1.1 %, with 95 % "
    )
    assert "training" not in alone
    assert quoted(mine, Policy(n_warmup_steps=1)) == QUOTED  # as Ray Tune's schedulers have it
    assert certificate_for(mine, Policy()) is MADE
    for versions in ({}, {"network": "network-000000000000"}, {"mine": "1"}, mine | {"rank-gap": "rank-gap-1"}):
        assert quoted(versions, Policy()) == ""
        assert certificate_for(versions, Policy()) is None


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"threshold": 0.03}, "it is for thresholds of 0.01, 0.05, here it is 0.03"),
        ({"n_startup_trials": 1}, "it is for n_startup_trials=2, here it is 1"),
        ({"n_warmup_steps": 2}, "it is for n_warmup_steps=0, here it is 2"),
        ({"risk": 0.1}, "it is for risk=None, here it is 0.1"),
    ],
)
def test_it_says_why_it_says_nothing(changed: dict[str, Any], why: str) -> None:
    policy = replace(Policy(), **changed)
    assert quoted({"network": MADE.version}, policy) == f"certificate: says nothing of this policy, {why}"
    assert certificate_for({"network": MADE.version}, policy) is None


def test_a_knob_that_it_does_not_know_must_be_the_default() -> None:
    older = replace(MADE, gates={name: value for name, value in GATES.items() if name != "epsilon"})
    assert older.differs(Policy()) == ""
    assert older.differs(Policy(epsilon=0.5)) == "it is for epsilon=0.01, here it is 0.5"


@pytest.mark.parametrize(("bound", "told"), [(0.1646, "17 %"), (0.0493, "5 %"), (0.049, "4.9 %"), (1.0, "100 %")])
def test_no_bound_is_told_too_small(bound: float, told: str) -> None:
    assert f"in at most {told} (" in replace(MADE, lines=(replace(LINES[1], at_most=bound),)).text(0.05)
