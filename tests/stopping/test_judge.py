from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.builders import early_policy, goal, mirrored, mirrored_trial, others_at, props, snapshot, trial
from kit.doubles import NormalAroundBest, scripted

from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Forecasts, Query
from lcsearch.host.registry import forecaster
from lcsearch.stopping.decision import Decision
from lcsearch.stopping.gates import Ask, Event, GateHold, ask, held_decision, target_of
from lcsearch.stopping.judge import Judgement, judge, stored_records
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.risk import LEVELS, StopRecord, risk_of
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Snapshot, Status, Trial

NAN = math.nan
POLICY = early_policy()
SEEN = snapshot(goal(horizon=20), [trial(str(i), [1.0 + i] * 20) for i in range(5)])
LOSER = trial("9", [8.0] * 12, Status.RUNNING)


def asked(own: Trial = LOSER, seen: Snapshot = SEEN, policy: Policy = POLICY) -> Ask:
    question = ask(policy, seen, Event(own, own.curve.last_step))
    assert isinstance(question, Ask)
    return question


def verdict(answers: dict[str, Sequence[float | Absent]], own: Trial = LOSER, **policy: Any) -> Decision:
    knobs = replace(POLICY, **policy)
    return judge(knobs, SEEN, asked(own, policy=knobs), scripted(answers)).decision


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (0.01, 0.01, Reason.BELOW),
        (0.0, 0.0, Reason.BELOW),
        (0.0499, 0.0499, Reason.BELOW),
        (0.05, 0.01, Reason.ABOVE),  # strictly below
        (0.01, 0.05, Reason.ABOVE_BEFORE),
        (0.5, 0.5, Reason.ABOVE),
        (Absent.LATE, 0.01, Reason.ABSENT),
        (0.01, Absent.LATE, Reason.ABSENT),
        (Absent.FAILED, Absent.FAILED, Reason.ABSENT),
        (0.01, Absent.UNSUPPORTED, Reason.ABSENT),
        (NAN, 0.01, Reason.ABSENT),
        (0.01, NAN, Reason.ABSENT),
        (0.5, Absent.FAILED, Reason.ABOVE),
    ],
)
def test_both_looks_must_lie_below(now: Any, before: Any, expected: Reason) -> None:
    decision = verdict({"one": (now, before)})
    assert decision.reason is expected
    assert decision.verdict is (Verdict.STOP if expected is Reason.BELOW else Verdict.CONTINUE)


def test_a_decision_names_every_end_it_asked_about() -> None:
    """It named the last one, which weighs a quarter where the final value is judged."""
    finished = [trial(str(i), [1.0 + i] * (16 if i < 4 else 20)) for i in range(5)]
    own = replace(LOSER, curve=LOSER.curve.cut(9))
    for judged, ends in (("final", (15, 15, 15, 19)), ("best", ())):
        seen = snapshot(goal(horizon=20, judged=judged), finished, (own,))  # type: ignore[arg-type]
        question = asked(own, seen)
        answers = {"one": NormalAroundBest().forecast(seen, question.queries)}
        forecasts = {name: [of.row(i) for i in range(len(question.queries))] for name, of in answers.items()}
        decision = judge(POLICY, seen, question, forecasts).decision
        assert (decision.ends, decision.horizon) == (ends, 19)
        assert tuple(query.step for query in question.queries[: len(ends)]) == ends


def test_a_stop_whose_record_does_not_read_back_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing could explain it afterwards, and the risk would not count it."""
    monkeypatch.setattr(StopRecord, "read_back", lambda mark: None)
    found = judge(POLICY, SEEN, asked(), scripted({"one": (0.01, 0.01)}))
    assert (found.decision.verdict, found.decision.reason, found.record) == (Verdict.CONTINUE, Reason.UNRECORDED, None)
    assert found.decision.reason.fails_open
    gone = trial("9", [8.0, *[NAN] * 9], Status.RUNNING)
    found = judge(POLICY, SEEN, asked(gone), {})
    assert (found.decision.verdict, found.decision.reason, found.record) == (Verdict.CONTINUE, Reason.UNRECORDED, None)


def test_few_observations_need_a_smaller_p_at_the_look_that_had_them() -> None:
    eight, seven = trial("9", [8.0] * 8, Status.RUNNING), trial("9", [8.0] * 7, Status.RUNNING)
    assert verdict({"one": (0.02, 0.005)}, eight).reason is Reason.BELOW
    assert verdict({"one": (0.02, 0.02)}, eight).reason is Reason.ABOVE_BEFORE  # the previous look had seven
    assert verdict({"one": (0.02, 0.005)}, seven).reason is Reason.ABOVE
    assert verdict({"one": (0.005, 0.005)}, seven).reason is Reason.BELOW
    looks = verdict({"one": (0.02, 0.005)}, eight)
    assert looks.now is not None
    assert looks.before is not None
    assert (looks.now.n_observations, looks.now.threshold) == (8, 0.05)
    assert looks.before.n_observations == 7
    assert looks.before.threshold == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"one": (0.01, 0.01), "two": (0.02, 0.02)}, Reason.BELOW),
        ({"one": (0.01, 0.01), "two": (0.2, 0.01)}, Reason.ABOVE),
        ({"one": (0.01, 0.2), "two": (0.01, 0.01)}, Reason.ABOVE_BEFORE),
        ({"one": (0.01, 0.01), "two": (Absent.FAILED, 0.01)}, Reason.ABSENT),
        ({"one": (0.01, Absent.LATE), "two": (0.01, 0.01)}, Reason.ABSENT),
    ],
)
def test_several_must_agree(answers: dict[str, Sequence[float | Absent]], expected: Reason) -> None:
    assert verdict(answers).reason is expected
    assert verdict(dict(reversed(answers.items()))).reason is expected


def test_at_the_metrics_bound_a_tie_is_what_counts() -> None:
    """`to beat it counts from 1.00053`, of an accuracy: nothing can, and every look was a stop."""
    share = [[0.2, 0.9, 1.0, 1.0], [0.1, 0.8, 0.9, 1.0], *[[0.1, 0.2 + i / 10, 0.3, 0.5] for i in range(8)]]
    of = goal("maximize", horizon=20)
    seen = snapshot(of, [trial(str(i), [*row, *row[-1:] * 16]) for i, row in enumerate(share)])
    assert seen.robust_range > 0
    own = trial("9", [0.1, 0.15, 0.2, 0.2, 0.2], Status.RUNNING)
    question = asked(own, seen)
    assert question.target == math.nextafter(-1.0, math.inf)
    for p, reason, said in ((0.001, Reason.BOUND, Verdict.STOP), (0.5, Reason.ABOVE, Verdict.CONTINUE)):
        decision, mark = judge(POLICY, seen, question, scripted({"one": (p, p)}))
        assert (decision.verdict, decision.reason, decision.bound) == (said, reason, True)
        assert "incumbent: 1, trial 0 at step 2; nothing is better, to tie it counts" in decision.text
        assert "P(tie): one" in decision.text
        assert decision.line.startswith("step 4: P(tie) ")
        assert decision.to_record()["bound"] is True
        assert (mark is None) == (said is Verdict.CONTINUE)
    tied = trial("9", [0.1, 0.15, 0.9, 1.0, 1.0], Status.RUNNING)
    held = ask(POLICY, seen, Event(tied, 4))
    assert isinstance(held, GateHold)
    assert held.reason is Reason.GUARD
    assert "bound" not in verdict({"one": (0.01, 0.01)}).to_record()


@pytest.mark.parametrize("forecast", ["parametric", "rank-gap"])
def test_the_probability_of_a_tie(forecast: str) -> None:
    """Of a trial that goes where seven of eight ended, and of one that is stuck."""
    rows = [np.minimum(1.0, 1.3 * (1.0 - np.exp(-np.arange(20) / (3.0 + i / 5)))) for i in range(8)]
    rows.append(np.linspace(0.0, 0.3, 20))
    seen = snapshot(goal("maximize", horizon=20), [trial(str(i), row) for i, row in enumerate(rows)])
    own = [trial("9", row, Status.RUNNING) for row in (rows[3][:6] - 0.01, rows[8][:6])]
    target = target_of(POLICY, seen)
    queries = [Query(one, "best_by", 19.0) for one in own]
    p = forecaster(forecast).forecast(seen, queries).p_beat(-target)
    assert p[0] > 0.4
    assert p[1] < 0.1


def test_the_highest_p_counts_and_everyone_is_heard() -> None:
    decision = verdict({"one": (0.01, 0.03), "two": (0.02, 0.001), "three": (0.015, 0.001)})
    assert decision.now is not None
    assert decision.before is not None
    assert (decision.now.p, decision.before.p) == (0.02, 0.03)
    assert decision.now.heard == (("one", 0.01), ("two", 0.02), ("three", 0.015))
    absent = verdict({"one": (0.01, 0.03), "two": (Absent.LATE, 0.0)})
    assert absent.now is not None
    assert absent.now.p is None
    assert absent.now.heard == (("one", 0.01), ("two", "LATE"))


@pytest.mark.parametrize("lie", [-3.0, -0.01, 1.5, math.inf])
def test_what_is_no_probability_stops_nothing(lie: float) -> None:
    rows = np.array([[lie] * 2])
    unchecked = Forecasts(np.array([[-1e9, 1e9]]), rows, np.zeros((1, 2)), 1.0, (None,), "liar")
    decision = judge(POLICY, SEEN, asked(), {"liar": [unchecked, unchecked]}).decision
    assert (decision.verdict, decision.reason) == (Verdict.CONTINUE, Reason.ABSENT)
    assert decision.now is not None
    assert decision.now.heard == (("liar", "NONFINITE"),)


def test_a_stop_leaves_a_mark_and_nothing_else_does() -> None:
    for answers, marked in (((0.01, 0.01), True), ((0.5, 0.01), False), ((Absent.FAILED, 0.0), False)):
        judgement = judge(POLICY, SEEN, asked(), scripted({"one": answers}))
        assert (judgement.record is not None) is marked
    mark = judge(POLICY, SEEN, asked(), scripted({"one": (0.01, 0.01)})).record
    assert mark is not None
    assert (mark.step, mark.reason, mark.p) == (11, "BELOW", 0.01)
    assert mark.text.startswith("trial 9, step 11: STOP (BELOW)")


def test_a_diverged_trial_is_stopped_without_a_forecast() -> None:
    gone = trial("9", [8.0, NAN, math.inf, -math.inf], Status.RUNNING)
    decision, mark = judge(POLICY, SEEN, asked(gone), {})
    assert (decision.verdict, decision.reason) == (Verdict.STOP, Reason.DIVERGED)
    assert decision.detail == "the last 3 reports were not finite (latest -inf)"
    assert mark is not None
    assert (mark.p, mark.losses) == (None, ())
    assert risk_of([mark], 1e9) == 0.0


def test_answers_must_fit_the_questions() -> None:
    with pytest.raises(InvalidValue) as error:
        judge(POLICY, SEEN, asked(), scripted({"one": (0.01,)}))
    assert str(error.value) == "judge(forecasts='one'): expected 2 forecasts, got 1."
    with pytest.raises(InvalidValue) as error:
        judge(POLICY, SEEN, asked(), {})
    assert str(error.value) == "judge(forecasts=): expected what at least one forecaster said, got {}."


# Risk


def flat(p: float) -> StopRecord:
    """A mark that gives about p against every incumbent within reach."""
    at = [-1e9 if level < p else 1e9 for level in LEVELS]
    return StopRecord(3.0, "BELOW", p, "", tuple(sorted(at)))


def with_marks(*marks: StopRecord) -> Snapshot:
    stopped = [trial(f"m{i}", [9.0] * 3, Status.STOPPED, stop_records={"stop": m}) for i, m in enumerate(marks)]
    return snapshot(SEEN.goal, [*SEEN.bank, *stopped])


def sloped(p: float) -> StopRecord:
    """A mark that gives p against the incumbent of SEEN, linearly less against a better one."""
    target = asked().target
    return StopRecord(3.0, "BELOW", p, "", tuple(target + 10 * (level - p) for level in LEVELS))


def test_the_risk_is_shown_without_a_limit_and_binds_with_one() -> None:
    seen = with_marks(sloped(0.1), sloped(0.2))
    forecasts = scripted({"one": (0.0, 0.0)})
    free = judge(POLICY, seen, asked(seen=seen), forecasts).decision
    assert free.verdict is Verdict.STOP
    assert free.risk is not None
    own = free.risk - (0.1 + 0.2)
    assert -1e-12 <= own < 1e-3  # a scripted zero is stored as "below the smallest level"
    assert free.independent == pytest.approx(1 - 0.9 * 0.8, abs=1e-3)  # what the limit does not go by: .29 would pass
    for limit, expected in ((0.31, Verdict.STOP), (0.29, Verdict.CONTINUE), (0.0, Verdict.CONTINUE)):
        policy = replace(POLICY, risk=limit)
        judgement = judge(policy, seen, asked(seen=seen, policy=policy), forecasts)
        assert judgement.decision.verdict is expected
        assert judgement.decision.risk is not None
        if expected is Verdict.STOP:
            assert judgement.decision.risk == free.risk
        if expected is Verdict.CONTINUE:
            assert judgement.decision.risk > limit
            assert judgement.decision.reason is Reason.RISK_LIMIT
            assert judgement.record is None


def test_the_limit_holds_for_any_margin_to_come() -> None:
    """The margin narrows as the spread does, and the target comes nearer, without a stop."""
    seen, target = with_marks(sloped(0.1)), asked().target
    incumbent = seen.goal.sign * asked().incumbent.value  # type: ignore[union-attr]
    assert incumbent > target
    low = risk_of([sloped(0.1)], target)
    high = risk_of([sloped(0.1)], incumbent)
    assert low < high
    forecasts = scripted({"one": (0.0, 0.0)})
    for limit, expected in ((high + 1e-3, Verdict.STOP), ((low + high) / 2, Verdict.CONTINUE)):
        policy = replace(POLICY, risk=limit)
        assert judge(policy, seen, asked(seen=seen, policy=policy), forecasts).decision.verdict is expected


def test_only_marks_of_trials_that_were_stopped_count() -> None:
    ran_on = trial("a", [9.0] * 20, Status.COMPLETE, stop_records={"stop": flat(0.5)})
    failed = trial("b", [9.0] * 2, Status.FAILED, stop_records={"stop": flat(0.5)})
    foreign = trial("c", [9.0] * 2, Status.STOPPED, stop_records={"stop": "not ours", "other": flat(0.5)})
    stopped = trial("d", [9.0] * 2, Status.STOPPED, stop_records={"stop": sloped(0.1)})
    about_to = trial("e", [9.0] * 2, Status.RUNNING, stop_records={"stop": sloped(0.3)})
    seen = snapshot(goal(), [ran_on, failed, foreign, stopped], [about_to])
    assert stored_records(seen) == [stopped.stop_records["stop"], about_to.stop_records["stop"]]
    assert stored_records(seen, "e") == [stopped.stop_records["stop"]]


def test_the_risk_is_valued_against_the_present_incumbent() -> None:
    seen = with_marks(sloped(0.2))
    better = snapshot(seen.goal, [*seen.bank, trial("5", [0.5] * 20)])
    risks = []
    for each in (seen, better):
        risk = judge(POLICY, each, asked(seen=each), scripted({"one": (0.0, 0.0)})).decision.risk
        assert risk is not None
        risks.append(risk)
    assert risks[1] < risks[0]


# Properties, over random studies


def study(seed: int, *, judged: Any = "best") -> tuple[Snapshot, Trial]:
    """A random study with a running trial at its end; short integer-valued curves, so that ties occur."""
    rng = np.random.default_rng(seed)
    of = goal(horizon=20, judged=judged)

    def curve(n: int) -> list[float]:
        start, slope = rng.integers(2, 12), rng.choice([0.0, 0.5, 1.0])
        return [float(max(start - slope * i, 0) + rng.integers(0, 3)) for i in range(n)]

    finished = [trial(str(i), curve(20)) for i in range(rng.integers(2, 10))]
    for i in range(rng.integers(0, 4)):
        mark = StopRecord(3.0, "BELOW", 0.01, "", tuple(float(rng.integers(0, 4)) + level for level in LEVELS))
        finished.append(trial(f"s{i}", curve(int(rng.integers(1, 15))), Status.STOPPED, stop_records={"stop": mark}))
    live = [trial(f"l{i}", curve(int(rng.integers(0, 18))), Status.RUNNING) for i in range(rng.integers(0, 4))]
    own = trial("own", curve(int(rng.integers(2, 18))), Status.RUNNING)
    return snapshot(of, finished, [*live, own]), own


def decide(policy: Policy, seen: Snapshot, own: Trial, forecaster: Any = None) -> Judgement:
    event = Event(own, own.curve.last_step)
    question = ask(policy, seen, event)
    if isinstance(question, GateHold):
        return Judgement(held_decision(seen, event, question))
    said = (forecaster or NormalAroundBest(1.0)).forecast(seen, question.queries)
    return judge(policy, seen, question, {"fake": [said.row(i) for i in range(len(question.queries))]})


policies = st.builds(
    early_policy,
    threshold=st.sampled_from([0.05, 0.2, 0.5]),
    guard=st.sampled_from([0.0, 0.1, 0.3]),
    risk=st.sampled_from([None, 0.01, 0.2]),
    interval_steps=st.sampled_from([1, 3]),
    few=st.sampled_from([0, 8]),
)
seeds = st.integers(0, 10**6)


def test_the_random_studies_meet_every_outcome() -> None:
    policy = early_policy(risk=0.02, threshold=0.2)
    met = {decide(policy, *study(seed)).decision.reason for seed in range(400)}
    assert {
        Reason.BELOW,
        Reason.ABOVE,
        Reason.ABOVE_BEFORE,
        Reason.RISK_LIMIT,
        Reason.GUARD,
        Reason.INCUMBENT,
        Reason.COMPARISONS,
    } <= met


@props
@given(seeds, policies, st.sampled_from(["best", "final"]))
def test_a_mirrored_study_gets_the_same_verdict(seed: int, policy: Policy, judged: Any) -> None:
    seen, own = study(seed, judged=judged)
    one = decide(policy, seen, own).decision
    two = decide(policy, mirrored(seen), mirrored_trial(own)).decision
    assert (one.verdict, one.reason, one.standing) == (two.verdict, two.reason, two.standing)
    if one.now is not None and two.now is not None:
        assert one.now.p == two.now.p
        assert one.risk == (None if two.risk is None else pytest.approx(two.risk, rel=1e-9))


@props
@given(seeds, policies, st.integers(0, 100))
def test_the_order_of_trials_means_nothing(seed: int, policy: Policy, order: int) -> None:
    seen, own = study(seed)
    rng = np.random.default_rng(order)
    finished, live = list(seen.bank), list(seen.live)
    rng.shuffle(finished)
    rng.shuffle(live)
    one, two = decide(policy, seen, own).decision, decide(policy, snapshot(seen.goal, finished, live), own).decision
    assert replace(one, risk=None) == replace(two, risk=None)
    assert one.risk == (None if two.risk is None else pytest.approx(two.risk, rel=1e-12))


@props
@given(seeds, policies, st.floats(0, 1), st.floats(0, 1))
def test_raising_the_threshold_never_takes_a_stop_back(seed: int, policy: Policy, a: float, b: float) -> None:
    low, high = sorted((a, b))
    seen, own = study(seed)
    if decide(replace(policy, threshold=low), seen, own).decision.verdict is Verdict.STOP:
        assert decide(replace(policy, threshold=high), seen, own).decision.verdict is Verdict.STOP


@props
@given(seeds, policies)
def test_the_incumbent_and_the_guarded_are_never_stopped(seed: int, policy: Policy) -> None:
    policy = replace(policy, threshold=1.0)
    seen, _ = study(seed)
    for own in seen.live:
        decision = decide(policy, seen, own).decision
        if decision.verdict is not Verdict.STOP:
            continue
        assert seen.incumbent is not None
        assert own.uid != seen.incumbent.uid
        step = own.curve.last_step
        others = others_at(seen, step, own.uid)
        better = int((others < own.curve.values.min()).sum())
        assert others.size >= policy.min_comparisons
        assert better >= policy.guard * (1 + others.size)


@props
@given(seeds, policies)
def test_the_same_history_gets_the_same_decision(seed: int, policy: Policy) -> None:
    one, two = decide(policy, *study(seed)), decide(policy, *study(seed))
    assert one == two


@props
@given(seeds, st.sampled_from([0.0, 0.01, 0.05, 0.3]))
def test_no_stop_takes_the_risk_above_its_limit(seed: int, limit: float) -> None:
    policy = early_policy(threshold=0.5, risk=limit)
    decision = decide(policy, *study(seed)).decision
    if decision.verdict is Verdict.STOP:
        assert decision.risk is not None
        assert decision.risk <= limit


def test_the_better_twin_of_an_incumbent_that_outlived_all_others_goes_on() -> None:
    """20 of 21 trials ended at step 39 and the incumbent at 499: by step 39 its better twin is hopeless."""
    t = np.arange(500.0)
    finished = [trial(str(i), 0.4 + 0.01 * i + 0.6 * np.exp(-t[:40] / 6)) for i in range(20)]
    finished.append(trial("20", 0.10 + 0.9 * np.exp(-t / 150)))
    for n in (30, 36, 39):
        twin = trial("21", 0.05 + 0.9 * np.exp(-t[:n] / 150), Status.RUNNING)
        seen = snapshot(goal(horizon=500), finished, (twin,))
        question = ask(Policy(look_growth=1), seen, Event(twin, n - 1))
        assert isinstance(question, Ask)
        assert {query.step for query in question.queries} == {499}
        said = forecaster("parametric").forecast(seen, question.queries)
        forecasts = {"parametric": [said.row(i) for i in range(2)]}
        assert judge(Policy(), seen, question, forecasts).decision.verdict is Verdict.CONTINUE


hostile = st.builds(
    lambda some, n: some * n, st.text(st.characters(exclude_categories=()), max_size=5), st.integers(1, 3000)
)


@settings(props, max_examples=200)
@given(hostile, hostile, st.sampled_from([5e-324, 0.012345678901234567, 0.0]), st.sampled_from([1.0, 1e-301, 1e6]))
def test_every_stop_has_the_record_that_is_read_back(uid: str, who: str, p: float, scale: float) -> None:
    """A text that is too long is cut short where it is written: beside Optuna's record Ray's had the whole of it."""
    own = trial(f"9{uid}", [8.0 * scale] * 12, Status.RUNNING)
    seen = snapshot(goal(horizon=20), [trial(str(i), [(1.0 + i) * scale] * 20) for i in range(5)])
    found = judge(POLICY, seen, asked(own, seen), scripted({who: (p, p)}))
    assert found.decision.verdict is Verdict.STOP
    assert found.record is not None
    assert found.record.read_back() == found.record
