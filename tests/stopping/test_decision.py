from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lcsearch.stopping.decision import Decision, Look, Receipt, percent
from lcsearch.stopping.rules import Rank
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Incumbent

STOP = Decision(
    "s",
    "12",
    9.0,
    Verdict.STOP,
    Reason.BELOW,
    now=Look(9.0, 10, 0.05, 0.0042, (0.31, 0.42, 0.6), (("parametric", 0.0042), ("rank-gap", 0.001))),
    before=Look(8.0, 9, 0.05, 0.012, (0.3, 0.4, 0.6), (("parametric", 0.012), ("rank-gap", 0.002))),
    incumbent=Incumbent(0.123456, "3", 49.0),
    target=0.12,
    horizon=49.0,
    standing=Rank(17, 20),
    risk=0.031,
)


def test_the_line() -> None:
    assert STOP.line == (
        "step 9: P(beat) 0.42 % (was 1.2 % at step 8), threshold 5 %, incumbent 0.1235 of trial 3, "
        "rank 17 of 20 at this step"
    )


def test_the_text() -> None:
    assert STOP.text.splitlines() == [
        "trial 12, step 9: STOP (BELOW)",
        "P(beat) is below the threshold at this report and at the one before.",
        "incumbent: 0.123456, trial 3 at step 49; to beat it counts from 0.12",
        "this look: step 9, 10 observations, P(beat): parametric 0.42 %, rank-gap 0.1 %; threshold 5 %",
        "  forecast by step 49: 0.42, 90 % in [0.31, 0.6]",
        "report before: step 8, 9 observations, P(beat): parametric 1.2 %, rank-gap 0.2 %; threshold 5 %",
        "  forecast by step 49: 0.4, 90 % in [0.3, 0.6]",
        "rank 17 of 20 at this step",
        "risk that some stop by P(beat) so far lost the winner: 3.1 % (uncalibrated)",
    ]


def test_where_trials_may_end_is_said_with_its_weights() -> None:
    """One end was named where the forecast is a mixture of four."""
    several = replace(STOP, ends=(20.0, 49.0, 49.0, 49.0))
    where = "where trials end: step 20 (1 in 4), 49 (3 in 4)"
    assert f"  forecast by {where}: 0.42, 90 % in [0.31, 0.6]" in several.text.splitlines()
    assert json.loads(json.dumps(several.to_record()))["ends"] == [20, 49, 49, 49]
    assert Decision.from_record(json.loads(json.dumps(several.to_record()))) == several
    assert "ends" not in STOP.to_record()


def test_a_hold_and_a_divergence() -> None:
    hold = Decision("s", "12", 3.0, Verdict.CONTINUE, Reason.COMPARISONS, "rank 1 of 3")
    assert hold.line == "step 3: rank 1 of 3"
    assert replace(hold, detail="").line == f"step 3: {Reason.COMPARISONS.advice}"
    gone = Decision("s", "12", 3.0, Verdict.STOP, Reason.DIVERGED, "the last 3 reports were not finite (latest nan)")
    assert gone.line == "step 3: diverged, the last 3 reports were not finite (latest nan)"


def test_an_absent_opinion_is_named() -> None:
    absent = replace(STOP, verdict=Verdict.CONTINUE, reason=Reason.ABSENT)
    absent = replace(absent, now=Look(9.0, 10, 0.05, None, None, (("parametric", "LATE"),)), risk=None)
    assert absent.line == f"step 9: {Reason.ABSENT.advice}"
    assert "this look: step 9, 10 observations, P(beat): parametric LATE; threshold 5 %" in absent.text


def test_records_are_plain_json_and_leave_out_what_is_not_known() -> None:
    record = json.loads(json.dumps(STOP.to_record()))
    assert record["verdict"] == "STOP"
    assert record["reason"] == "BELOW"
    assert record["incumbent"] == {"value": 0.123456, "uid": "3", "step": 49.0}
    assert record["now"]["heard"] == {"parametric": 0.0042, "rank-gap": 0.001}
    hold = Decision("s", "12", 0.0, Verdict.CONTINUE, Reason.STARTUP).to_record()
    assert hold == {"study": "s", "trial": "12", "step": 0.0, "verdict": "CONTINUE", "reason": "STARTUP"}
    receipt = Receipt(STOP, 1.0, 0.5, "box", 7).to_record()
    assert {k: receipt[k] for k in ("time", "latency", "host", "pid")} == {
        "time": 1.0,
        "latency": 0.5,
        "host": "box",
        "pid": 7,
    }
    assert replace(STOP, risk=0.0).to_record()["risk"] == 0.0


def test_percent() -> None:
    assert [percent(p) for p in (0.0, -0.0, 1e-5, 1e-4, 0.0123, 0.05, 0.1, 0.456, 1.0)] == [
        "0 %",
        "0 %",
        "< 0.01 %",
        "0.01 %",
        "1.2 %",
        "5 %",
        "10 %",
        "46 %",
        "100 %",
    ]


@pytest.mark.parametrize("threshold", [0.05, 0.01, 0.07, 0.5, 0.0125, 1e-5])
def test_the_text_never_contradicts_the_verdict(threshold: float) -> None:
    """Both numbers as they are printed stand in the order that decided."""
    near = [threshold * (1 + sign * 10.0**-k) for k in range(1, 12) for sign in (-1, 1)]
    for p in (threshold, *near, 0.049999, 1e-9):
        if not 0 < p < 1:
            continue
        said = replace(STOP, now=Look(9.0, 10, threshold, p)).line.split("P(beat) ")[1]
        shown, limit = said.split(" (was ")[0], said.split("threshold ")[1].split(" %")[0]
        below = shown.startswith("<") or float(shown.removesuffix(" %")) < float(limit)
        assert below == (p < threshold), said
