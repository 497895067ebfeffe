from __future__ import annotations

import re
from dataclasses import replace

from kit.builders import goal, snapshot, trial

from lcsearch.goal import Judged
from lcsearch.stopping.axis import ENOUGH
from lcsearch.stopping.notices import notices
from lcsearch.study import Status, Trial


def told(horizon: float, lengths: list[int], *others: Trial) -> list[str]:
    complete = [trial(str(i), [1.0] * n) for i, n in enumerate(lengths)]
    return [notice.text for notice in notices(snapshot(goal(horizon=horizon), [*complete, *others]))]


def test_a_horizon_that_no_trial_reached() -> None:
    assert told(1000, [50] * 6) == [
        "none of 6 trials that ended by themselves so far reached max_steps (max_t), which is 1000: they ended by "
        "step 49 (all of them). Looks ask now about the best value by step 98 (further than they came, for another may "
        "go on); steps saved are counted to where they ended. Nothing is to be done where they stop early by "
        "themselves, or where longer ones are still to come; else set it to what the longest needs, 50 so far"
    ]
    (text,) = told(1000, [41, 101, 201, 301, 401])
    assert "they ended by step 400 (half of them by step 200)" in text


def test_what_looks_ask_where_trials_end_by_themselves() -> None:
    """It said "looks ask about where trials end", and they ask about the last end or one further."""

    def asked(judged: Judged, lengths: list[int], horizon: float = 1000) -> str:
        complete = [trial(str(i), [1.0] * n) for i, n in enumerate(lengths)]
        study = snapshot(replace(goal(horizon=horizon), judged=judged), complete)
        (notice,) = notices(study)
        (said,) = re.findall("Looks ask now about (.*); steps saved", notice.text)
        assert all(f"{end:g}" in said for end in study.horizons(0))
        return str(said)

    further, many = "(further than they came, for another may go on)", [41, 101, 201, 301, 401]
    assert asked("best", [50] * 9) == "the best value by step 49"
    assert asked("best", many) == f"the best value by step 800 {further}"
    assert asked("best", many, 450) == f"the best value by step 450 {further}"
    assert asked("final", [50] * 9) == "the final value at step 49"
    assert asked("final", many) == f"the final value where a trial may end: at step 40, 200, 300 or 800 {further}"


def test_a_horizon_that_trials_leave_behind() -> None:
    assert told(10, [100] * 5) == [
        "trials go on to step 99, far beyond max_steps (max_t), which is 10 (9.9 times as far): they are judged there. "
        "Set it to 100, unless longer trials are still to come"
    ]


def test_one_trial_beyond_the_horizon_proves_it() -> None:
    """Where two trials ended and all others were stopped, nothing was ever said."""
    (text,) = told(10, [100] * 5)
    assert told(10, [100]) == told(10, [100, 7]) == [text]

    def on(*starts: float, horizon: float) -> list[str]:
        ended = [trial(str(i), [1.0] * 25, first=first) for i, first in enumerate(starts)]
        return [notice.text for notice in notices(snapshot(goal(horizon=horizon), ended))]

    # steps that may be no axis: five trials tell, and the last of such steps is no advice
    assert on(0, 25, horizon=25) == on(1_795_000_000, 1_795_000_300, horizon=25) == []


def test_a_little_beyond_the_horizon_is_not_far() -> None:
    """From a twentieth on it was said to be far."""
    assert told(100, [107] * 5) == [
        "trials go on to step 106, 6 % beyond max_steps (max_t), which is 100: they are judged there. Set it to 107, "
        "unless longer trials are still to come"
    ]
    (text,) = told(100, [199] * 5)
    assert "98 % beyond" in text
    (text,) = told(100, [201] * 5)
    assert "far beyond max_steps (max_t), which is 100 (2 times as far)" in text


def test_a_horizon_that_holds_says_nothing() -> None:
    assert told(50, [50] * 9) == []
    assert told(49, [50] * 9) == []  # a step too far
    assert told(50, [50, 12, 9, 8, 30, 30]) == []  # some end early
    assert told(1000, [50] * (ENOUGH - 1)) == []
    assert told(1000, [], *[trial(str(i), [1.0] * 50, Status.STOPPED) for i in range(9)]) == []
    assert told(1000, [0] * 9) == []


def test_a_horizon_of_seconds() -> None:
    ends = [trial(str(i), [1.0, 1.0, 1.0], steps=[10.0, 20.0, 30.0 + i / 10]) for i in range(6)]
    (text,) = [notice.text for notice in notices(snapshot(goal(horizon=3600), ends))]
    assert text.endswith("; else set it to what the longest needs, 30.5 so far")


def returning(*pairs: tuple[list[float], float]) -> list[str]:
    """Losses are reported in a study that is maximized, and `pairs` holds what trials reported and returned."""
    ended = [trial(str(i), values, returned=returned) for i, (values, returned) in enumerate(pairs)]
    study = replace(goal("maximize", horizon=2), judged="final")
    return [notice.text for notice in notices(snapshot(study, ended))]


def test_two_trials_that_returned_what_they_never_reported() -> None:
    """A loss is reported and an accuracy returned, so that the best are stopped: no third trial ended, and nothing was
    said."""
    good, bad = ([2.0, 0.5, 0.1], 0.97), ([2.5, 2.4, 2.3], 0.1)
    assert returning(good, bad) == [
        "the study's best is 0.97 of trial 0, and trials must beat 2.3 of trial 1: 2 of 2 trials returned what their "
        "curves do not say. Report what is returned"
    ]
    assert returning(good) == []
    assert returning(good, ([2.5, 2.4, 2.3], 2.4)) == []  # it did report that: so few prove nothing
    assert returning(([0.1], 0.97), ([2.3], 0.1)) == []  # of a curve that may be none


def test_an_incumbent_at_the_metrics_bound() -> None:
    share = [trial(str(i), [0.2, 1.0 - 0.1 * (i // 2), 1.0 - 0.1 * (i // 2)]) for i in range(6)]
    assert [notice.text for notice in notices(snapshot(goal("maximize", horizon=3), share))] == [
        "the incumbent, 1 of trial 0, is at the metric's bound, as 4 reports of finished trials are exactly that: no "
        "trial can beat it. Looks and the risk ask whether a trial ties it; end the study, or choose a metric that "
        "still tells good trials apart"
    ]
    assert notices(snapshot(goal("maximize", horizon=3), share[2:])) == ()


def test_bounds_say_when_it_is_reached_and_are_told_when_they_are_none() -> None:
    share = [trial(str(i), [0.2, 0.8 - 0.1 * i]) for i in range(3)]

    def said(low: float | None, high: float | None) -> list[str]:
        of = replace(goal("maximize", horizon=3), bounds=(low, high))
        return [notice.text for notice in notices(snapshot(of, share))]

    assert said(0, 1) == []
    (text,) = said(0, 0.8)
    assert text.startswith("the incumbent, 0.8 of trial 0, is at the metric's bound, as bounds says: no trial can beat")
    assert said(0, 0.7) == [
        "trial 0 reported 0.8, beyond the high one of bounds, which is 0.7: that bound is ignored. Set bounds to what "
        "the metric can be, or leave it out"
    ]
    (text,) = said(0.3, None)
    assert text.startswith("trial 0 reported 0.2, beyond the low one of bounds, which is 0.3")


def test_a_placeholder_between_measurements() -> None:
    """Validation every fifth epoch, and -1 in between; of a value that a trial never leaves nothing is said."""
    study = goal("maximize", horizon=20)

    def texts(*curves: list[float]) -> list[str]:
        ended = [trial(str(i), values) for i, values in enumerate(curves)]
        return [notice.text for notice in notices(snapshot(study, ended))]

    measured = [[0.1 * i + 0.01 * step if step % 5 == 4 else -1.0 for step in range(20)] for i in range(6)]
    said = "at least half of the reports of 6 trials are -1, with other values between them: if that stands for 'not "
    assert texts(*measured) == [f"{said}measured', report NaN there, or nothing"]
    assert texts(*measured[: ENOUGH - 1]) == []
    assert texts(*[[0.1] * 20] * 6, [0.2] * 20) == []
    tops = [[1.0 if step % 4 else 0.9 for step in range(20)]] * 6
    assert all("not measured" not in text for text in texts(*tops))


def test_steps_that_go_on_with_another_training_s() -> None:
    def texts(first: int, gap: int) -> list[str]:
        steps = [first + gap * i for i in range(20)]
        ended = [trial(str(i), [1.0 + i] * 20, steps=steps) for i in range(6)]
        ended.append(trial("from the start", [9.0, 9.0], steps=[1, 2]))
        return [notice.text for notice in notices(snapshot(goal(horizon=steps[-1]), ended))]

    assert texts(10001, 1) == [
        "trials begin at step 10001 and report every 1 or so from there: what lies before counts as trained in what is "
        "spent. If it was not, count steps from each trial's own start"
    ]
    assert texts(1000, 1000) == texts(0, 1) == texts(20, 1) == []
