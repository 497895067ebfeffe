from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import INTERVALS, early_policy, goal, props, snapshot, trial

from lcsearch.goal import Judged
from lcsearch.stopping.gates import (
    Ask,
    Event,
    GateHold,
    ask,
    held_decision,
    interval_of,
    looks_at,
    report_before,
    spacing_gate,
    study_gates,
    target_of,
    trial_gates,
)
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.rules import Rank
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Incumbent, Snapshot, Status, Trial

NAN = math.nan
POLICY = early_policy()
FINISHED = [trial(str(i), [1.0 + i] * 10) for i in range(5)]
LOSER = trial("9", [8.0, 8.0, 8.0, 8.0], Status.RUNNING)


def look(
    own: Trial = LOSER,
    finished: list[Trial] = FINISHED,
    others: tuple[Trial, ...] = (),
    judged: Judged = "best",
    horizon: float = 10,
    **policy: Any,
) -> Ask | GateHold:
    seen = snapshot(goal(horizon=horizon, judged=judged), finished, (own, *others))
    return ask(replace(POLICY, **policy), seen, Event(own, own.curve.last_step))


def reason(*args: Any, **fields: Any) -> Reason:
    answer = look(*args, **fields)
    assert isinstance(answer, GateHold)
    return answer.reason


# Every gate, by a history that trips it and one beside it that does not


def test_a_look_that_passes_every_gate_asks_about_both_looks() -> None:
    answer = look()
    assert isinstance(answer, Ask)
    assert [(q.trial.curve.last_step, q.kind, q.step) for q in answer.queries] == [(3, "best_by", 9), (2, "best_by", 9)]
    assert answer.incumbent == Incumbent(1.0, "0", 0.0)
    assert answer.standing == Rank(6, 6)
    assert answer.target == pytest.approx(1.0 - 0.01 * 4.0)  # the spread is twice (3 - 1)
    assert not answer.diverged


def test_final_asks_for_the_value_and_compares_the_latest() -> None:
    answer = look(judged="final")
    assert isinstance(answer, Ask)
    assert [q.kind for q in answer.queries] == ["value", "value"]
    assert answer.incumbent == Incumbent(1.0, "0", 9.0)


def test_no_report() -> None:
    answer = ask(POLICY, snapshot(goal(), FINISHED), Event(trial("9", [], Status.RUNNING), -1))
    assert isinstance(answer, GateHold)
    assert answer.reason is Reason.NO_REPORT


def test_warmup_ends_at_its_step() -> None:
    assert reason(n_warmup_steps=4) is Reason.WARMUP
    assert isinstance(look(n_warmup_steps=3), Ask)


def test_the_horizon_of_the_goal_and_of_the_finished_trials() -> None:
    short = [trial(str(i), [1.0 + i] * 4) for i in range(5)]
    held = look(finished=short, horizon=4)
    assert isinstance(held, GateHold)
    assert (held.reason, held.detail) == (Reason.HORIZON, "trials end at step 3")
    assert isinstance(look(finished=[trial(str(i), [1.0 + i] * 5) for i in range(5)], horizon=4), Ask)


def ends_asked(answer: Ask | GateHold) -> list[float]:
    assert isinstance(answer, Ask)
    now, before = answer.queries[: len(answer.queries) // 2], answer.queries[len(answer.queries) // 2 :]
    assert [query.step for query in now] == [query.step for query in before]
    assert {query.trial.curve.last_step for query in now} == {3}
    assert {query.trial.curve.last_step for query in before} == {2}
    return [query.step for query in now]


def test_a_horizon_that_finished_trials_contradict_gives_way_to_where_they_ended() -> None:
    assert ends_asked(look(horizon=3)) == [9]  # beyond it: named too small
    five = [trial(str(i), [1.0 + i] * 5) for i in range(5)]
    # named too large; judged by step 4 alone, a slow starter would have no time left to win
    assert ends_asked(look(finished=five, horizon=100)) == [8]
    assert ends_asked(look(finished=five, horizon=100, judged="final")) == [4, 4, 4, 8]
    eight = [trial(str(i), [1.0 + i] * 5) for i in range(8)]
    assert ends_asked(look(finished=eight, horizon=100)) == [4]


def test_trials_of_many_lengths_are_asked_about_where_trials_end_that_came_as_far() -> None:
    lengths = (3, 10, 20, 30, 40, 50, 60, 70, 80)
    finished = [trial(str(i), [1.0 + i] * n) for i, n in enumerate(lengths)]
    assert ends_asked(look(finished=finished, horizon=79, judged="final")) == [9, 29, 49, 79]
    assert ends_asked(look(finished=finished, horizon=79)) == [79]
    assert ends_asked(look(finished=finished, horizon=1000)) == [158]  # none says that there is no longer one


def test_an_interval_has_one_look() -> None:
    assert reason(interval_steps=2) is Reason.INTERVAL
    assert isinstance(look(interval_steps=3), Ask)


def test_startup() -> None:
    held = look(n_startup_trials=6)
    assert isinstance(held, GateHold)
    assert (held.reason, held.detail) == (Reason.STARTUP, "5 of 6 trials have finished")
    assert isinstance(look(n_startup_trials=5), Ask)


def test_startup_counts_complete_trials_only() -> None:
    stopped = [trial(str(i), [1.0] * 3, s) for i, s in ((5, Status.STOPPED), (6, Status.FAILED))]
    assert reason(finished=FINISHED + stopped, n_startup_trials=6) is Reason.STARTUP


def test_a_first_look_cannot_stop() -> None:
    assert reason(trial("9", [8.0, 8.0], Status.RUNNING), interval_steps=2) is Reason.INTERVAL
    assert reason(trial("9", [8.0], Status.RUNNING), min_observations=1) is Reason.FIRST_LOOK
    assert isinstance(look(trial("9", [8.0, 8.0], Status.RUNNING), min_observations=2), Ask)


def test_a_short_curve() -> None:
    held = look(trial("9", [8.0, 8.0, NAN, 8.0], Status.RUNNING))
    assert isinstance(held, GateHold)
    assert (held.reason, held.detail) == (Reason.SHORT, "3 of 4 observations")
    assert isinstance(look(trial("9", [8.0, 8.0, NAN, 8.0, 8.0], Status.RUNNING)), Ask)


def test_nothing_to_beat() -> None:
    blank = [trial(str(i), []) for i in range(5)]
    assert reason(finished=blank, judged="final") is Reason.NO_INCUMBENT
    assert reason(finished=[], n_startup_trials=0) is Reason.NO_INCUMBENT
    # A running leader is no reason to stop anybody before one trial has reached the horizon.
    leader = trial("1", [0.1, 0.1, 0.1, 0.1], Status.RUNNING)
    assert reason(finished=[], others=(leader,), n_startup_trials=0) is Reason.NO_INCUMBENT


def test_the_incumbent() -> None:
    leader = trial("9", [8.0, 0.5, 8.0, 8.0], Status.RUNNING)
    assert reason(leader, guard=0.0) is Reason.INCUMBENT
    assert isinstance(look(leader, judged="final", guard=0.0), Ask)


def test_finished_trials_needed_at_the_step() -> None:
    far = [trial(str(i), [1.0 + i] * 5, first=5) for i in range(5)]  # nothing at step 3 yet
    held = look(finished=far)
    assert isinstance(held, GateHold)
    assert (held.reason, held.detail) == (Reason.MIN_TRIALS, "0 of 1")
    assert isinstance(look(n_min_trials=5), Ask)
    stopped = [trial("5", [1.0] * 10, Status.STOPPED)]
    assert reason(finished=FINISHED + stopped, n_min_trials=6) is Reason.MIN_TRIALS


def test_comparisons() -> None:
    held = look(finished=FINISHED[:3])
    assert isinstance(held, GateHold)
    assert (held.reason, held.detail) == (Reason.COMPARISONS, "rank 4 of 4 at this step")
    assert isinstance(look(finished=FINISHED[:4]), Ask)
    # Stopped and running trials that got as far count as comparisons.
    assert isinstance(look(finished=[*FINISHED[:3], trial("5", [1.5] * 4, Status.STOPPED)]), Ask)
    assert isinstance(look(finished=FINISHED[:3], others=(trial("5", [1.5] * 4, Status.RUNNING),)), Ask)
    assert reason(finished=FINISHED[:3], others=(trial("5", [1.5] * 3, Status.RUNNING),)) is Reason.COMPARISONS
    # One that begins later on the axis says nothing about this step.
    late = trial("5", [1.5] * 3, Status.RUNNING, first=5)
    assert reason(finished=FINISHED[:3], others=(late,)) is Reason.COMPARISONS


def test_the_guard() -> None:
    second = trial("9", [1.5] * 4, Status.RUNNING)
    assert isinstance(look(second), Ask)  # rank 2 of 6 at a tenth
    held = look(second, guard=0.2)
    assert isinstance(held, GateHold)
    assert (held.reason, held.detail, held.standing) == (Reason.GUARD, "rank 2 of 6 at this step", Rank(2, 6))


def test_the_guard_is_of_all_trials_not_of_the_survivors() -> None:
    """What a search has stopped before the step stood behind this trial there."""
    second = trial("9", [1.5] * 4, Status.RUNNING)
    stopped = [trial(str(i), [4.0, 4.0], Status.STOPPED) for i in range(10, 16)]
    held = look(second, finished=[*FINISHED, *stopped])
    assert isinstance(held, GateHold)
    assert (held.reason, held.standing) == (Reason.GUARD, Rank(2, 6, ended_ahead=0, ended=6))
    ahead = [trial(str(i), [1.2, 1.2], Status.STOPPED) for i in range(10, 16)]
    passed = look(second, finished=[*FINISHED, *ahead])
    assert isinstance(passed, Ask)
    assert passed.standing == Rank(2, 6, ended_ahead=6, ended=6)


def test_a_slow_starter_that_leads_is_held_whatever_was_ahead_of_it_once() -> None:
    leader = trial("9", [9.0, 9.0, 1.05, 1.05], Status.RUNNING)
    once_ahead = [trial(str(i), [4.0, 4.0], Status.STOPPED) for i in range(10, 40)]
    finished = [trial(str(i), [2.0] * 4 + [1.0 + i] * 6) for i in range(5)]
    held = look(leader, finished=[*finished, *once_ahead])
    assert isinstance(held, GateHold)
    assert (held.reason, held.standing) == (Reason.GUARD, Rank(1, 6, ended_ahead=30, ended=30))


def test_a_margin_ends_at_a_bound_that_is_given() -> None:
    """'To beat it counts from 1.00053', for an accuracy."""
    finished = [trial(str(i), [0.5, 0.999 - 0.1 * i]) for i in range(5)]

    def target(low: float | None = None, high: float | None = None) -> float:
        of = replace(goal("maximize"), bounds=(low, high))
        return -target_of(POLICY, snapshot(of, finished))

    assert target() == pytest.approx(0.999 + 0.01 * 0.4)
    assert target(0, 1) == math.nextafter(1.0, 0.0), "to reach it counts"
    assert target(0, None) == target(0, 2) == target()
    assert target(0, 0.999) == math.nextafter(0.999, 0.0), "no trial can beat it: to tie counts"
    assert target(0, 0.9) == target(), "a bound that is none is ignored"


def test_a_curve_that_has_not_moved_waits_for_a_finished_one_that_stood_as_long() -> None:
    """A dead trial and a slow starter look alike; stopped unseen, the second would never be known."""
    moving = [trial(str(i), [9.0, *[1.0 + i] * 9]) for i in range(5)]
    assert reason(finished=moving) is Reason.UNMOVED
    assert reason(finished=[*moving, trial("5", [8.0] * 3 + [7.0] * 7)]) is Reason.UNMOVED
    assert isinstance(look(finished=[*moving, trial("5", [7.5] * 4 + [7.0] * 6)]), Ask)
    assert reason(finished=[*moving, trial("5", [7.5] * 4, Status.STOPPED)]) is Reason.UNMOVED
    assert reason(finished=[*moving, trial("5", [NAN] * 10), trial("6", [9.0], first=4)]) is Reason.UNMOVED


def test_a_first_report_before_any_training_takes_no_precedent_away() -> None:
    """Dead trials that moved between their reports 0 and 1 alone were none, and one more ran to its end."""
    moving = [trial(str(i), [9.0, *[1.0 + i] * 9]) for i in range(5)]
    assert isinstance(look(finished=[*moving, trial("5", [9.0, *[8.0] * 9])]), Ask)
    assert isinstance(look(finished=[*moving, trial("5", [7.0, *[8.5] * 4, *[0.5] * 5])]), Ask), "whatever became of it"
    for none in (
        trial("5", [9.0, *[7.9] * 9]),  # better than this one at once
        trial("5", [9.0, *[8.0] * 9], Status.STOPPED),
        trial("5", [9.0, 8.0, 8.0, 7.0, 7.0, 7.0]),
        trial("5", [9.0, *[8.0] * 9], steps=[0.0, *range(2, 11)]),  # its second one came later
    ):
        assert reason(finished=[*moving, none]) is Reason.UNMOVED


@props
@given(
    st.lists(st.tuples(st.floats(0.1, 0.9), st.integers(0, 30)), min_size=5, max_size=12), st.booleans(), st.booleans()
)
def test_a_curve_that_stands_and_leads_is_held(made: list[tuple[float, int]], before: bool, mirrored: bool) -> None:
    """Whatever became of finished trials beside it: those that stand behind are no reason to stop what leads."""
    first = [0.3] if before else []
    sign = -1.0 if mirrored else 1.0
    curves = [[*first, *[1.0] * (1 + start), *[1.0 - gain] * (40 - start)] for gain, start in made]
    finished = [trial(str(i), [sign * value for value in values]) for i, values in enumerate(curves)]
    for value in (1.0, min(min(values) for values in curves) - 0.1):
        own = trial("99", [sign * value] * 20, Status.RUNNING)
        seen = snapshot(goal("maximize" if mirrored else "minimize", horizon=40), finished, (own,))
        answer = ask(POLICY, seen, Event(own, 19))
        late = any(1 + start + len(first) > 19 for _, start in made)  # of the others, one still stood here
        if value < 1.0:
            assert isinstance(answer, GateHold), "it leads"
        elif not late:
            assert isinstance(answer, GateHold)
            assert answer.reason in (Reason.UNMOVED, Reason.GUARD)


def test_a_curve_that_has_begun_to_move_is_as_short_as_what_it_has_shown_since() -> None:
    held = look(trial("9", [8.0, NAN, 8.0, 8.0, 8.0, 8.1, 8.0], Status.RUNNING))
    assert isinstance(held, GateHold)
    assert (held.reason, held.detail) == (Reason.SHORT, "3 of 4 observations since the curve began to move")
    assert isinstance(look(trial("9", [8.0, NAN, 8.0, 8.0, 8.1, 8.0, 8.0], Status.RUNNING)), Ask)


def test_divergence_is_asked_about_nothing() -> None:
    gone = trial("9", [8.0, NAN, NAN, NAN], Status.RUNNING)
    answer = look(gone)
    assert isinstance(answer, Ask)
    assert answer.diverged
    assert answer.queries == ()
    assert reason(trial("9", [8.0] * 4 + [NAN, NAN], Status.RUNNING)) is Reason.NO_VALUE


def test_divergence_comes_before_the_gates_of_first_trials_and_after_those_of_the_user() -> None:
    gone = trial("9", [NAN] * 8, Status.RUNNING)
    early = look(gone, n_startup_trials=50)
    assert isinstance(early, Ask)
    assert early.diverged
    assert reason(gone, n_warmup_steps=10) is Reason.WARMUP
    late = trial("9", [*[8.0] * 5, NAN, NAN, NAN], Status.RUNNING)
    assert reason(late, interval_steps=4) is Reason.INTERVAL
    assert isinstance(look(gone, interval_steps=4), Ask), "a report that is no value is no look of its interval"
    short = [trial(str(i), [1.0 + i] * 8) for i in range(5)]
    assert reason(gone, finished=short, horizon=7) is Reason.HORIZON
    assert isinstance(look(gone, divergence_reports=4), Ask)
    assert reason(gone, divergence_reports=5, n_startup_trials=50) is Reason.STARTUP


def test_a_metric_that_starts_late_has_not_diverged() -> None:
    """Six NaN first: a divergence only where finished trials had values by then, and never before one has ended."""
    gone = trial("9", [NAN] * 6, Status.RUNNING)
    assert reason(gone, finished=[], n_startup_trials=50) is Reason.STARTUP
    late = [trial(str(i), [*[NAN] * 6, *[1.0] * 14]) for i in range(5)]
    assert reason(gone, finished=late) is Reason.SHORT
    assert reason(gone, finished=[*late[1:], trial("5", [1.0] * 20)]) is Reason.SHORT
    regular = [trial(str(i), [1.0] * 20) for i in range(5)]
    assert reason(trial("9", [NAN] * 5, Status.RUNNING), finished=regular) is Reason.SHORT
    assert isinstance(look(gone, finished=regular), Ask)


def test_a_trial_that_passed_the_incumbent_is_not_stopped_even_when_it_diverges() -> None:
    """Stopped, its best value would be lost to the study."""
    leader = trial("9", [0.5, *[0.1] * 3, *[NAN] * 6], Status.RUNNING)
    assert reason(leader) is Reason.NO_VALUE
    other = look(leader, judged="final")
    assert isinstance(other, Ask)
    assert other.diverged


def test_gates_in_their_order() -> None:
    """From a history that trips every gate, mend one gate after the other and meet the next."""
    own, blank = trial("9", [1.5, 1.4], Status.RUNNING), trial("0", [])
    everything: dict[str, Any] = {
        "own": trial("9", [1.5, 1.5], Status.RUNNING),
        "finished": [blank],
        "judged": "final",
        "horizon": 1,
        "n_warmup_steps": 2,
        "interval_steps": 2,
        "n_startup_trials": 3,
        "n_min_trials": 4,
        "guard": 1.0,
    }
    met = []
    for mended in (
        {},
        {"n_warmup_steps": 0},
        {"horizon": 10},
        {"interval_steps": 1, "own": trial("9", [1.5], Status.RUNNING)},
        {"n_startup_trials": 1},
        {"min_observations": 1},
        {"own": own},
        {"judged": "best", "finished": [trial("0", [2.0] * 2)]},
        {"finished": [trial("0", [1.0, 1.0])], "horizon": 2},
        {"finished": [trial("0", [1.0, 1.0, 1.0])]},
        {"n_min_trials": 1},
        {"finished": FINISHED},
        {"guard": 0.1},
    ):
        everything |= mended
        answer = look(**everything)
        met.append(answer.reason if isinstance(answer, GateHold) else None)
    assert met == [
        Reason.WARMUP,
        Reason.HORIZON,
        Reason.INTERVAL,
        Reason.STARTUP,
        Reason.SHORT,
        Reason.FIRST_LOOK,
        Reason.NO_INCUMBENT,
        Reason.INCUMBENT,
        Reason.HORIZON,
        Reason.MIN_TRIALS,
        Reason.COMPARISONS,
        Reason.GUARD,
        None,
    ]


def test_a_hold_is_a_decision_to_go_on() -> None:
    seen = snapshot(goal(), FINISHED, (LOSER,))
    decision = held_decision(seen, Event(LOSER, 3), GateHold(Reason.GUARD, "rank 1 of 9", Rank(1, 9)))
    assert (decision.verdict, decision.reason, decision.detail) == (Verdict.CONTINUE, Reason.GUARD, "rank 1 of 9")
    assert (decision.trial, decision.step, decision.standing) == ("9", 3, Rank(1, 9))


def test_startup_by_itself_lets_a_non_finite_report_through() -> None:
    policy = Policy(n_startup_trials=3)
    assert study_gates(policy, 2, 9, NAN) is None
    assert study_gates(policy, 3, 9, 1.0) is None
    held = study_gates(policy, 2, 9, 1.0)
    assert held is not None
    assert held.detail == "2 of 3 trials have finished"


# Intervals


@pytest.mark.parametrize(("warmup", "interval", "every", "expected"), INTERVALS)
def test_intervals_mean_what_they_mean_in_optuna(warmup: int, interval: int, every: int, expected: list[int]) -> None:
    policy = Policy(n_warmup_steps=warmup, interval_steps=interval)
    reported: list[int] = []
    passed = []
    for step in range(max(expected) + 1):
        if step % every == 0:
            reported.append(step)
        if trial_gates(policy, reported, reported[-1], None) is None:
            passed.append(step)
    assert passed == expected


@props
@given(st.integers(0, 6), st.integers(1, 7), st.sets(st.integers(0, 30), min_size=1))
def test_intervals_against_optuna_itself(warmup: int, interval: int, steps: set[int]) -> None:
    from optuna.pruners._percentile import _is_first_in_interval_step

    policy = Policy(n_warmup_steps=warmup, interval_steps=interval)
    last = max(steps)
    theirs = last >= warmup and _is_first_in_interval_step(last, dict.fromkeys(steps).keys(), warmup, interval)
    assert (trial_gates(policy, steps, last, None) is None) == theirs


@pytest.mark.parametrize(
    ("warmup", "interval", "steps", "at", "before"),
    [
        (0, 1, [0], 0, None),
        (0, 1, [0, 1, 2], 2, 1),
        (0, 1, [0.5, 0.75, 2], 2, 0.75),
        (0, 10, [0, 3, 6, 9, 12], 12, 0),  # the look of [0, 10) was at its first report
        (0, 10, [0, 3, 12, 15, 30], 30, 12),  # [20, 30) had none
        (0, 10, [3, 5], 5, None),
        (2, 10, [0, 1, 2], 2, 0),  # below the warm-up, so that a stop at n_warmup_steps itself is possible
        (5, 2, [0, 1, 2, 3, 4, 5, 6], 5, 3),
        (5, 2, [4, 5], 5, 4),
        (3, 1, [0, 1, 2, 3], 3, 2),
        (0, 3, [0, 10, 20], 20, 10),
    ],
)
def test_the_report_before(warmup: int, interval: int, steps: list[float], at: float, before: float | None) -> None:
    assert report_before(Policy(n_warmup_steps=warmup, interval_steps=interval), steps, at) == before


@props
@given(st.integers(0, 6), st.integers(1, 7), st.lists(st.integers(0, 40), unique=True, min_size=1, max_size=12))
def test_the_report_before_was_a_look_or_lies_below_the_warmup(warmup: int, interval: int, steps: list[int]) -> None:
    policy = Policy(n_warmup_steps=warmup, interval_steps=interval)
    steps.sort()
    looks = [
        s
        for i, s in enumerate(steps)
        if trial_gates(replace(policy, n_warmup_steps=0), steps[: i + 1], s, None) is None
    ]
    for i, step in enumerate(steps):
        before = report_before(policy, steps, step)
        assert before is None or before in steps[:i]
        if warmup == 0 and step in looks:
            assert before == max((s for s in looks if s < step), default=None)
        if before is not None:
            assert interval == 1 or interval_of(before, policy) < interval_of(step, policy)


def test_asking_changes_nothing() -> None:
    seen = snapshot(goal(), FINISHED, (LOSER,))
    assert isinstance(seen, Snapshot)
    one, two = (ask(POLICY, seen, Event(LOSER, 3)) for _ in range(2))
    assert isinstance(one, Ask)
    assert isinstance(two, Ask)
    assert replace(one, queries=()) == replace(two, queries=())
    assert [q.trial.curve for q in one.queries] == [q.trial.curve for q in two.queries]


# Looks are spaced by what a trial has reported, never by a clock


def due(n: int, **policy: float) -> list[float]:
    """Steps of a trial that reports at 0, 1, ..., n - 1 at which a look is due, from the first observation on."""
    of = Policy(**{"min_observations": 6, "look_growth": 1.25, **policy})  # type: ignore[arg-type]
    steps = [float(step) for step in range(n)]
    looks = [steps[: i + 1] for i in range(n)]
    passed = [seen for seen in looks if trial_gates(of, seen, seen[-1], None) is None]
    return [seen[-1] for seen in passed if spacing_gate(of, seen, seen[-1]) is None and len(seen) >= 6]


def test_looks_come_at_growing_distances() -> None:
    assert due(60) == [5, 7, 9, 12, 16, 21, 27, 34, 43, 54]  # at 6, 8, 10, 13, 17, 22, 28, 35, 44, 55
    assert due(60, look_growth=1) == list(range(5, 60))
    assert len(due(5000, look_growth=1.1)) < 80


def test_the_first_look_comes_as_soon_as_the_warm_up_is_over() -> None:
    assert due(60, n_warmup_steps=17) == [17, 21, 27, 34, 43, 54]


def test_intervals_are_spaced_too() -> None:
    """A look is due when a number of observations was passed since the interval before."""
    assert due(60, interval_steps=10) == [10, 20, 30, 40, 50]
    assert due(200, interval_steps=20, look_growth=2) == [20, 40, 60, 100]


def test_a_placeholder_is_no_observation() -> None:
    values = [float(8) if i % 5 == 0 else NAN for i in range(45)]
    own = trial("9", values[:41], Status.RUNNING)  # nine values, the last at step 40
    finished = [trial(str(i), [1.0 + i] * 50) for i in range(5)]
    held = look(own, finished, horizon=50, look_growth=1.5)  # 4, 6, 9
    assert isinstance(held, Ask)
    held = look(trial("9", values[:36], Status.RUNNING), finished, horizon=50, look_growth=1.5)
    assert isinstance(held, GateHold)
    assert (held.reason, held.detail) == (Reason.SPACED, "8 observations, the next look comes at 9")


@given(st.integers(1, 12), st.floats(1.001, 3), st.integers(1, 400))
@props
def test_which_looks_are_made_does_not_depend_on_how_far_one_counts(first: int, growth: float, most: int) -> None:
    numbers = looks_at(first, growth, most)
    assert numbers == looks_at(first, growth, 2 * most)[: len(numbers)]
    for before, after in pairwise(numbers):
        assert before < after <= max(before + 1, math.ceil(before * growth))


def stopped_at(values: list[float], finished: list[list[float]], **knobs: Any) -> int | None:
    """The report at which a trial is asked about as diverged."""
    done = [trial(str(i), row) for i, row in enumerate(finished)]
    for n in range(1, len(values) + 1):
        own = trial("9", values[:n], Status.RUNNING)
        asked = ask(early_policy(**knobs), snapshot(goal(horizon=30), done, [own]), Event(own, n - 1))
        if isinstance(asked, Ask) and asked.diverged:
            return n
    return None


def test_placeholders_are_borne_longer_by_a_trial_that_ranks_among_the_best() -> None:
    """A quarter of the validations gave NaN: the trial that would have won was stopped at three in a row."""
    finished = [[0.5 + i - 0.01 * step for step in range(30)] for i in range(6)]
    best = [0.45, 0.4, 0.35, 0.3]
    assert stopped_at([*best, *[math.nan] * 3, 0.2, *[math.nan] * 3, 0.1], finished) is None
    assert stopped_at([*best, *[math.nan] * 20], finished, guard=0.2) == 10
    assert stopped_at([*[9.0] * 4, *[math.nan] * 20], finished) == 7
    assert stopped_at([9.0, math.nan, 9.0, 9.0, *[math.nan] * 20], finished) == 10, "one that comes back has gaps"


def test_a_run_of_placeholders_that_a_finished_trial_came_back_from_anywhere_is_borne() -> None:
    finished = [[0.5 + i - 0.01 * step for step in range(30)] for i in range(6)]
    finished[3][20:24] = [math.nan] * 4
    assert stopped_at([*[9.0] * 4, *[math.nan] * 4, *[9.0] * 20], finished) is None
    assert stopped_at([*[9.0] * 4, *[math.nan] * 7, *[9.0] * 20], finished) is None  # less than twice as long
    assert stopped_at([*[9.0] * 4, *[math.nan] * 20], finished) == 12
