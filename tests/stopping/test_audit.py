"""Audits: who is released, what is estimated, the e-processes, and a threshold that follows them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import early_policy, goal, props, snapshot, trial
from kit.doubles import scripted

from lcsearch.errors import InvalidValue
from lcsearch.stopping.audit import Audit, Audits, audits_of, released, tracked
from lcsearch.stopping.decision import Decision
from lcsearch.stopping.e_process import audits_needed, verdicts
from lcsearch.stopping.gates import Ask, Event, ask
from lcsearch.stopping.judge import Judgement, judge, with_threshold
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.risk import StopRecord
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Snapshot, Status, Trial

DONE = [trial(str(i), [1.0 - 0.01 * i] * 10) for i in range(6)]


# Who is released


def test_a_share_is_released_the_same_at_every_look_and_by_its_name_and_first_report() -> None:
    ones = [trial(str(i), [3.0, 2.0, 1.0]) for i in range(2000)]
    said = [released(0.05, "s", one) for one in ones]
    assert 60 <= sum(said) <= 140
    assert said == [released(0.05, "s", one.cut(1.0)) for one in ones]
    assert sum(a != b for a, b in zip(said, [released(0.05, "t", one) for one in ones], strict=True)) > 60
    other = [released(0.05, "s", trial(one.uid, [3.1, 2.0])) for one in ones]
    assert sum(a != b for a, b in zip(said, other, strict=True)) > 60
    assert not any(released(0.0, "s", one) for one in ones)
    # a larger share holds the smaller one
    assert all(released(0.2, "s", one) for one, yes in zip(ones, said, strict=True) if yes)


def looked(policy: Policy, uid: str, p: float = 0.001) -> tuple[Snapshot, Judgement]:
    seen = snapshot(goal(), DONE, [trial(uid, [5.0] * 7)])
    question = ask(policy, seen, Event(seen.live[0], seen.live[0].curve.last_step))
    assert isinstance(question, Ask)
    return seen, judge(policy, seen, question, scripted({"x": [p] * len(question.queries)}))


POLICY = early_policy(audit=0.3, threshold=0.05)


def test_an_audited_stop_goes_on_and_leaves_its_record_and_a_stop_says_its_propensity() -> None:
    reasons = {}
    for uid in map(str, range(10, 60)):
        _, (decision, record) = looked(POLICY, uid)
        assert decision.propensity == 0.3
        assert record is not None
        assert record.decision == replace(decision, study="")
        assert Decision.from_record(json.loads(json.dumps(decision.to_record()))) == decision
        reasons[uid] = decision.reason
        went_on = decision.verdict is Verdict.CONTINUE
        assert went_on == (decision.reason is Reason.AUDITED) == (decision.risk is None)
        assert ("one of such stops in 3.33 is not carried out (audit)" in decision.text) == went_on
    assert 5 < sum(reason is Reason.AUDITED for reason in reasons.values()) < 30
    _, (above, none) = looked(POLICY, "10", 0.5)
    assert (above.reason, above.propensity, none) == (Reason.ABOVE, None, None)
    _, (plain, _) = looked(replace(POLICY, audit=0.0), "10")
    assert (plain.reason, plain.propensity) == (Reason.BELOW, None)


def test_knobs() -> None:
    wrong: list[dict[str, Any]] = [{"audit": 1.0}, {"audit": -0.1}, {"max_wrong_stop": 0.05}]
    for knobs in [*wrong, {"audit": 0.1, "max_wrong_stop": 0.0}]:
        with pytest.raises(InvalidValue):
            Policy(**knobs)


# What is estimated


def audited(uid: str, values: list[float], status: Status = Status.COMPLETE, pi: float = 0.2, **fields: Any) -> Trial:
    made = Decision("s", uid, 3.0, Verdict.CONTINUE, Reason.AUDITED, propensity=pi)
    record = StopRecord(3.0, "AUDITED", 0.01, "", target=0.9, decision=made)
    return replace(trial(uid, values, status), stop_records={"audit": record, **fields})


def stopped(uid: str, pi: float | None = 0.2) -> Trial:
    made = Decision("s", uid, 3.0, Verdict.STOP, Reason.BELOW, propensity=pi)
    return replace(
        trial(uid, [2.0] * 3, Status.STOPPED),
        stop_records={"stop": StopRecord(3.0, "BELOW", 0.01, "", target=0.9, decision=made)},
    )


def test_what_became_of_audits() -> None:
    diverged = StopRecord(5.0, "DIVERGED", None, "")
    trials = [
        *DONE,
        audited("10", [2.0, 0.5]),
        *(audited(str(i), [2.0, 1.0]) for i in (11, 12)),
        audited("13", [2.0, 0.95], Status.STOPPED, stop=diverged),
        audited("14", [2.0], Status.FAILED),
        *(stopped(str(i)) for i in range(20, 36)),
        stopped("40", None),
    ]
    found = audits_of(snapshot(goal(), trials, [audited("15", [2.0], Status.RUNNING)]))
    assert [(one.trial, one.wrong) for one in found.ended] == [
        ("10", True),
        ("11", False),
        ("12", False),
        ("13", False),
    ]
    assert (found.n, found.under_way, found.lost, found.stops) == (6, 1, 1, {0.2: 22})
    assert found.rate == 0.25
    assert found.interval == pytest.approx((0.0063, 0.8059), abs=1e-4)
    assert found.lines == [
        "audited: 6 stops not carried out, 1 of 4 that ended wrong: an estimated 25 % of stops (0.63 % to 81 %), "
        "1 under way, 1 lost",
        "  4 audits, 1 of them wrong, prove that at most 75 % of stops are (95 %), and no more: that at most 5 % of "
        "stops are wrong takes 69 without a failure, more than one sweep has",
    ]
    assert Audits().lines == []


def test_the_estimate_weighs_propensities() -> None:
    """Half of the stops had .5, half .1, and only those of .1 are wrong; a plain share would say a sixth."""
    ended = [Audit("s", str(i), 0.0, 0.5, False) for i in range(50)] + [
        Audit("s", f"x{i}", 0.0, 0.1, True) for i in range(10)
    ]
    found = Audits(tuple(ended), stops={0.5: 100, 0.1: 100})
    assert found.rate == 0.5
    low, high = found.interval or (0, 0)
    assert low < 0.5 < high


def test_the_estimate_is_right_on_average_and_its_interval_in_nineteen_of_twenty() -> None:
    rng = np.random.default_rng(0)
    rates, inside = [], 0
    for _ in range(300):
        wrong = rng.uniform(size=60) < 0.3
        taken = rng.uniform(size=60) < 0.4
        ended = tuple(Audit("s", str(i), 0.0, 0.4, bool(wrong[i])) for i in np.flatnonzero(taken))
        found = Audits(ended, stops={0.4: 60})
        assert found.rate is not None
        assert found.interval is not None
        rates.append(found.rate)
        inside += found.interval[0] <= wrong.mean() <= found.interval[1]
    assert np.mean(rates) == pytest.approx(0.3, abs=0.02)
    assert inside >= 285


def test_an_audit_reads_back() -> None:
    one = Audit("s", "3", 0.01, 0.05, True)
    assert Audit.from_record(json.loads(json.dumps(one._asdict()))) == one
    for change in ({"wrong": 1}, {"p": 2.0}, {"propensity": 0.0}, {"p": None}):
        with pytest.raises(InvalidValue):
            Audit.from_record({**one._asdict(), **change})


# The e-processes


def expected(n: int, k: int, promised: float, rate: float) -> tuple[float, float]:
    """(alarm, certificate) one audit on, on average at a true rate, over those now: the running values themselves."""
    from lcsearch.stopping import e_process

    def alarm(n: int, k: int) -> float:
        return e_process._alarm(n, k, promised, 0.05, min(k, n))  # noqa: SLF001

    return rate * alarm(n + 1, k + 1) + (1 - rate) * alarm(n + 1, k), alarm(n, k)


@props
@given(st.integers(0, 38), st.floats(0, 1), st.floats(0.005, 0.3), st.floats(0, 1))
def test_the_alarm_falls_on_average_while_the_promise_is_kept(
    n: int, share: float, promised: float, less: float
) -> None:
    k = round(share * n)
    after, now = expected(n, k, promised, promised * less)
    assert after <= now * (1 + 1e-9)
    fair, now = expected(n, k, promised, promised)
    assert fair == pytest.approx(now, rel=1e-9)


def test_verdicts_on_known_rows() -> None:
    assert audits_needed(0.05) == 69
    assert not verdicts([False] * 68, 0.05).kept
    assert verdicts([False] * 69, 0.05).kept
    assert verdicts([False] * 35 + [True] * 5, 0.05).broken  # the exact test of forty audits rejects at five
    assert not verdicts([False] * 36 + [True] * 4, 0.05).broken
    found = verdicts([True] * 5 + [False] * 1000, 0.05)
    assert found.broken  # what was said once stays said
    assert (found.n, found.n_wrong) == (1005, 5)
    assert verdicts([], 0.05).alarm == 1.0
    most = verdicts([True] * 600, 0.05)  # its likelihood ratio is no float any more
    assert most.broken
    assert math.isfinite(most.alarm)


def test_audits_whose_order_is_not_known_count_together() -> None:
    """In this order the alarm was high at the fifth; in another one it never was."""
    row = [True] * 5 + [False] * 60
    assert verdicts(row, 0.05).alarm > verdicts(row, 0.05, n_ordered=0).alarm
    assert verdicts(row[::-1], 0.05, n_ordered=0).certificate == pytest.approx(
        verdicts(row, 0.05, n_ordered=0).certificate
    )


def test_earlier_audits_of_a_study_of_the_same_name_are_not_forgotten() -> None:
    earlier = tuple(Audit("digits", str(i), 0.01, 0.05, True) for i in range(3))
    again = tuple(Audit("digits", str(i), 0.02, 0.05, False) for i in range(3))
    found = Audits(again, earlier=(*earlier, again[0])).verdicts
    assert (found.n, found.n_wrong) == (6, 3)


def test_the_alarm_comes_within_forty_audits_and_seldom_wrongly() -> None:
    rng = np.random.default_rng(1)

    def broken(rate: float, n: int, rows: int = 400) -> float:
        return sum(verdicts([bool(w) for w in row], 0.05).broken for row in rng.uniform(size=(rows, n)) < rate) / rows

    assert broken(0.2, 40) >= 0.9
    assert broken(0.05, 120) <= 0.07
    assert broken(0.02, 120) <= 0.01


# A threshold that follows


FORECASTERS: dict[str, Callable[[float], float]] = {
    "calibrated": lambda p: p,
    "square": lambda p: p * p,
    "root": math.sqrt,
    "lying": lambda p: 0.0,
}


@pytest.mark.parametrize("name", FORECASTERS)
def test_the_threshold_settles_where_the_promise_is_kept(name: str) -> None:
    """Trials whose true P(beat) is even on [0, 1]; those whose forecast is below the threshold are audits."""
    rng = np.random.default_rng(3)
    says, now, wrong, path = FORECASTERS[name], 0.2, list[bool](), list[float]()
    while len(wrong) < 3000 and now > 0:
        p = float(rng.uniform())
        if says(p) < now:
            wrong.append(bool(rng.uniform() < p))
            now = tracked(now, 0.05, wrong[-1:], most=0.2)
            path.append(now)
    assert max(path) <= 0.2
    if name == "lying":
        assert (now, len(wrong) < 60) == (0.0, True)  # nothing is stopped any more
        return
    late = wrong[1000:]
    assert sum(late) / len(late) <= 0.06
    if name != "root":  # that one is stricter than it must be, and stays where its owner put it
        assert sum(late) / len(late) == pytest.approx(0.05, abs=0.012)
    assert np.median(path[1000:]) == pytest.approx({"calibrated": 0.1, "square": 0.01, "root": 0.2}[name], rel=0.5)


def test_audits_of_the_study_move_its_threshold_and_those_of_earlier_ones_where_it_starts() -> None:
    policy = replace(POLICY, max_wrong_stop=0.05)
    seen = snapshot(goal(), [*DONE, audited("10", [2.0, 0.5]), audited("11", [2.0, 1.0])])
    assert with_threshold(POLICY, seen) == POLICY
    assert with_threshold(policy, seen).threshold == pytest.approx(0.05 * math.exp(0.05 - 1) * math.exp(0.05), rel=1e-3)
    earlier = replace(policy, threshold_from=0.01)
    assert with_threshold(earlier, snapshot(goal(), DONE)).threshold == 0.01
    _, (decision, _) = looked(replace(policy, threshold_from=0.0005), "10", 0.001)
    assert decision.reason is Reason.ABOVE
    assert decision.now is not None
    assert decision.now.threshold == 0.0005 * 0.2 or decision.now.threshold == 0.0005
