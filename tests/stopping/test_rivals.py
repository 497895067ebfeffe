"""More workers than first trials: a trial compared with what running ones are forecast to reach."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kit.builders import goal, snapshot, trial

from lcsearch.forecast.contract import Absent, Answers, Forecasts
from lcsearch.stopping.decision import Decision
from lcsearch.stopping.gates import Ask, Event, GateHold, ask
from lcsearch.stopping.judge import Judgement, beats, judge, limited, stop_invalidated_by
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.risk import StopRecord
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Snapshot, Status, Trial

N = 9
POLICY = Policy(rivals=2, look_growth=1)


def normal(mean: float, sd: float = 0.1, sign: float = 1.0) -> Forecasts:
    """One row, about normal, in loss units `sign * value`."""
    z = np.linspace(-4.0, 4.0, 161)
    levels = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in z])
    return Forecasts(sign * mean + sd * z[None], levels[None], np.zeros((1, 2)), sign, (None,), "normal")


def running(uid: int, end: float, n: int = N, sign: float = 1.0, **fields: Any) -> Trial:
    return trial(str(uid), [sign * (end + 0.7**i) for i in range(n)], Status.RUNNING, **fields)


def study(*done: Trial, sign: float = 1.0) -> tuple[Snapshot, Trial]:
    """Ten running trials side by side, the one under the look the last but one of them."""
    live = [running(i, 0.1 * i, sign=sign) for i in range(10)]
    return snapshot(goal("minimize" if sign > 0 else "maximize", horizon=50), list(done), live), live[8]


def looked(policy: Policy, seen: Snapshot, own: Trial) -> Ask | GateHold:
    return ask(policy, seen, Event(own, own.curve.last_step))


def decide(policy: Policy, seen: Snapshot, own: Trial, mine: Forecasts, theirs: list[Any]) -> Judgement:
    asked = looked(policy, seen, own)
    assert isinstance(asked, Ask)
    answers: Answers = {"fake": [mine] * (2 * asked.n_ends) + theirs}
    return judge(policy, seen, asked, answers)


def test_off_unless_asked_for() -> None:
    held = looked(Policy(look_growth=1), *study())
    assert isinstance(held, GateHold)
    assert held.reason is Reason.STARTUP


def test_the_best_of_the_running_ones_stand_for_the_incumbent() -> None:
    seen, own = study()
    asked = looked(POLICY, seen, own)
    assert isinstance(asked, Ask)
    assert (asked.rivals, asked.incumbent) == (("0", "1"), None)
    assert [query.trial.uid for query in asked.queries] == ["8", "8", "0", "1"]
    assert asked.n_ends == 1


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_trial_that_no_rival_loses_to_is_stopped_and_says_against_whom(sign: float) -> None:
    seen, own = study(sign=sign)
    mine, theirs = normal(sign * 0.8, sign=sign), [normal(0.0, sign=sign), normal(sign * 0.9, sign=sign)]
    decision, record = decide(POLICY, seen, own, mine, theirs)
    assert (decision.verdict, decision.reason) == (Verdict.STOP, Reason.RIVALS)
    assert decision.now is not None
    assert decision.now.p == pytest.approx(0.0, abs=1e-6)  # the least of both: to beat the best is to beat each
    assert "against running trials 0, 1, by what they are forecast to reach" in decision.line
    assert decision.line.startswith("step 8: P(beat) ")
    assert record is not None
    assert record.target is None
    assert decision.risk == decision.now.p  # nobody leads yet: as it was when it was stopped
    audited, _ = decide(replace(POLICY, audit=0.99), seen, own, mine, theirs)  # nothing could come of an audit of it
    assert (audited.verdict, audited.propensity) == (Verdict.STOP, None)


def test_what_it_was_compared_with_hangs_on_no_wording() -> None:
    """It was known by how the detail's sentence begins, which is for people."""
    seen, own = study()
    decision, _ = decide(POLICY, seen, own, normal(0.8), [normal(0.0), normal(0.9)])
    assert decision.rivals == ("0", "1")
    assert (replace(decision, detail="told otherwise").by_rivals, replace(decision, rivals=()).by_rivals) == (
        True,
        False,
    )
    stored = json.loads(json.dumps(decision.to_record()))
    assert Decision.from_record(stored) == decision
    told = "against running trials 0, 1, by what they are forecast to reach"
    earlier = {name: it for name, it in stored.items() if name != "rivals"} | {"detail": told}
    read = Decision.from_record(earlier)  # of a lcsearch that had the sentence alone
    assert (read, read.text, read.line) == (decision, decision.text, decision.line)
    assert told in decision.text.splitlines()


def test_a_look_without_a_forecast_says_so_rather_than_against_whom() -> None:
    seen, own = study()
    decision, _ = decide(POLICY, seen, own, normal(9.0), [Absent.UNSUPPORTED, Absent.NONFINITE])
    assert decision.line == f"step 8: {Reason.ABSENT.advice}"


def test_one_that_may_still_beat_them_goes_on() -> None:
    seen, own = study()
    decision, record = decide(POLICY, seen, own, normal(0.2), [normal(0.1), normal(0.1)])
    assert (decision.verdict, decision.reason, record) == (Verdict.CONTINUE, Reason.ABOVE, None)


def test_rivals_of_whom_nothing_is_known_stop_nothing() -> None:
    seen, own = study()
    absent = [Absent.UNSUPPORTED, Absent.NONFINITE]
    assert decide(POLICY, seen, own, normal(9.0), absent).decision.reason is Reason.ABSENT
    assert decide(POLICY, seen, own, normal(9.0), [normal(0.0), absent[0]]).decision.verdict is Verdict.STOP


def test_too_few_that_have_come_as_far_hold_the_look() -> None:
    live = [running(0, 0.0), running(1, 0.1, 4), running(2, 0.2, 4), running(3, 0.9)]
    held = looked(POLICY, snapshot(goal(horizon=50), [], live), live[3])
    assert isinstance(held, GateHold)
    assert held.reason is Reason.STARTUP
    assert "1 of the 2 rivals that it takes have come as far" in held.detail


def test_the_leaders_are_guarded() -> None:
    seen, _ = study()
    held = looked(POLICY, seen, seen.live[0])
    assert isinstance(held, GateHold)
    assert held.reason is Reason.GUARD


def test_an_incumbent_must_be_beaten_too_and_once_enough_have_ended_it_alone() -> None:
    done = [trial(str(20 + i), [-0.5 + 0.7**j for j in range(50)]) for i in range(6)]
    seen, own = study(done[0])
    decision, record = decide(POLICY, seen, own, normal(5.0), [normal(9.0), normal(9.0)])
    assert (decision.reason, decision.verdict) == (Reason.RIVALS, Verdict.STOP)
    assert decision.incumbent is not None
    assert record is not None
    seen, own = study(*done)
    asked = looked(POLICY, seen, own)
    assert isinstance(asked, Ask)
    assert asked.rivals == ()


def test_the_risk_of_such_a_stop_is_read_against_whoever_leads_later() -> None:
    seen, own = study()
    record = decide(POLICY, seen, own, normal(0.8), [normal(0.0), normal(0.1)]).record
    assert record is not None
    assert record.p_lost(math.nan) == record.p
    assert record.p_lost(0.8) == pytest.approx(0.5, abs=0.02)


def test_a_limit_holds_before_anybody_leads() -> None:
    seen, own = study()
    kept = {"stop": StopRecord(5.0, "RIVALS", 0.03, "why")}
    seen = snapshot(seen.goal, [trial("30", [3.0, 2.9], Status.STOPPED, stop_records=kept)], seen.live)
    policy = Policy(rivals=2, look_growth=1, risk=0.02)
    decision = decide(policy, seen, own, normal(0.8), [normal(0.0), normal(0.1)]).decision
    assert (decision.verdict, decision.reason) == (Verdict.CONTINUE, Reason.RISK_LIMIT)
    assert limited(Policy(), seen, Judgement(decision)).decision is decision


def test_beats_by_hand() -> None:
    assert beats(normal(0.0), normal(0.0)) == pytest.approx(0.5, abs=1e-3)
    apart = 0.5 * (1 + math.erf(-0.2 / (0.1 * math.sqrt(2)) / math.sqrt(2)))
    assert beats(normal(0.2), normal(0.0)) == pytest.approx(apart, abs=2e-3)
    atom = Forecasts(np.array([[1.0]]), np.array([[1.0]]), np.zeros((1, 2)), 1.0, (None,), "atom")
    assert beats(atom, atom) == 1.0  # as good as another is not behind it


@pytest.mark.parametrize("bounds", [None, (0.0, None)])
def test_such_a_stop_stands_where_few_have_ended(bounds: tuple[float, None] | None) -> None:
    """Also where the one that has ended is at the metric's bound, which is then the reason."""
    live = [running(i, 0.1 * i) for i in range(10)]
    done = trial("20", [1.0, 0.5, 0.0])
    seen, own = snapshot(replace(goal(horizon=50), bounds=bounds), [done], live), live[8]
    policy = replace(POLICY, n_min_trials=2)
    stop = decide(policy, seen, own, normal(5.0), [normal(0.0), normal(0.1)])
    assert stop.decision.verdict is Verdict.STOP
    assert stop.decision.reason is (Reason.RIVALS if bounds is None else Reason.BOUND)
    assert stop_invalidated_by(policy, seen, own, stop) is None
