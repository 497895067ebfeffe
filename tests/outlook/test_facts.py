"""The facts of an outlook, on hand-made studies: who is asked about, in which order, and why somebody says nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from kit.builders import goal, mirrored, snapshot, trial
from kit.doubles import Dead, Scripted, Silent

from lcsearch.forecast.contract import Absent, Forecaster, Query
from lcsearch.forecast.parametric import ParametricEnsemble
from lcsearch.goal import Direction
from lcsearch.outlook.facts import Outlook, fan, look_ahead
from lcsearch.session.panel import Panel
from lcsearch.study import Snapshot, Status, Trial


@dataclass
class ByUid(Scripted):
    """P(beat) by the trial."""

    def probability(self, query: Query) -> float:
        return {"4": 0.2, "5": 0.6, "6": 0.4, "line 2": 0.1, "line 3": 0.9}.get(query.trial.uid, 0.0)


def panel(*forecasters: Forecaster) -> Panel:
    return Panel(forecasters, math.inf, lambda key, text: None)


def study(direction: Direction = "minimize") -> Snapshot:
    """Three complete trials, a stopped and a failed one; one that runs, one paused, one that has not reported."""
    sign = 1.0 if direction == "minimize" else -1.0
    complete = [trial(str(i), [sign * (3.0 + i), sign * (2.0 + i), sign * (1.0 + i)]) for i in range(3)]
    stopped = trial("4", [sign * 3.0], status=Status.STOPPED)
    failed = trial("3", [sign * 3.5], status=Status.FAILED)
    live = [
        trial("5", [sign * 3.0, sign * 1.5], status=Status.RUNNING),
        trial("6", [sign * 2.5], status=Status.PAUSED),
        Trial("7"),
    ]
    return snapshot(goal(direction, 3), [*complete, failed, stopped], live)


def order(found: Outlook) -> list[str]:
    return [one.trial.uid for one in found.trials]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_begun_trials_come_with_the_most_promising_first(direction: Direction) -> None:
    of, sign = study(direction), 1.0 if direction == "minimize" else -1.0
    found = look_ahead(of, panel(ByUid()))
    assert order(found) == ["5", "6", "4", "0", "1", "2", "3"]
    assert [one.state for one in found.trials] == [
        "running",
        "paused",
        "stopped",
        "complete",
        "complete",
        "complete",
        "failed",
    ]
    assert found.incumbent is not None
    assert found.target is not None
    assert (found.incumbent.uid, found.incumbent.value) == ("0", sign * 1.0)
    assert sign * found.target == pytest.approx(1.0 - 0.01 * of.robust_range)  # what a look compares with
    first = found.trials[0].forecast
    assert first is not None
    assert first.p_beat == pytest.approx(0.6 - 0.01 * of.robust_range)
    assert first.low < first.median < first.high
    assert [one.worth for one in found.trials[3:6]] == [sign * 1.0, sign * 2.0, sign * 3.0]
    assert found.trials[-1].forecast is None


def test_only_trials_that_can_still_come_to_something_are_asked_about() -> None:
    asked = Scripted()
    look_ahead(study(), panel(asked), [Trial("line 2", params={"x": 0.5})])
    assert [uid for uid, _ in asked.asked] == ["4", "5", "6", "line 2"]


def test_configurations_stand_apart_in_their_own_order() -> None:
    unseen = [Trial(f"line {n}", params={"x": 0.1 * n}) for n in (2, 3)]
    found = look_ahead(study(), panel(ByUid()), unseen)
    assert [one.trial.uid for one in found.unseen] == ["line 3", "line 2"]
    assert {one.state for one in found.unseen} == {"unseen"}
    assert order(found) == order(look_ahead(study(), panel(ByUid())))


@dataclass
class NoConfigurations(Scripted):
    """Fails over what has no report."""

    def probability(self, query: Query) -> float:
        return {True: 0.5}[query.trial.curve.n_reports > 0]


def test_what_fails_over_a_configuration_takes_no_begun_trial_with_it() -> None:
    found = look_ahead(study(), panel(NoConfigurations()), [Trial("line 2", params={"x": 0.5})])
    assert [one.forecast is not None for one in found.trials[:3]] == [True] * 3
    assert [why for one in found.unseen for why, _ in (one.absent or {}).values()] == [Absent.FAILED]


def test_a_study_of_hundreds_is_asked_about_in_rounds_and_all_are_told() -> None:
    live = [trial(str(i), [3.0, 2.0], status=Status.PAUSED) for i in range(10, 110)]
    asked = Scripted()
    found = look_ahead(replace(study(), live=tuple(live)), panel(asked))
    assert asked.calls == 4
    assert len(found.trials) == 105


def test_who_gives_no_forecast_is_told_with_the_reason() -> None:
    found = look_ahead(study(), panel(Silent(), Dead()))
    one = found.trials[0]
    assert (one.trial.uid, one.forecast) == ("4", None)
    assert one.absent == {
        "silent": (Absent.UNSUPPORTED, ""),
        "dead": (Absent.FAILED, "RuntimeError: CUDA error: device lost"),
    }
    beside = look_ahead(study(), panel(Silent(), Scripted())).trials[0]
    assert beside.forecast is not None
    assert beside.forecast.by == "scripted"
    assert beside.absent == {"silent": (Absent.UNSUPPORTED, "")}


def test_of_several_forecasts_the_one_most_in_the_trials_favour_stands_as_in_a_look() -> None:
    low, high = Scripted(0.2, name="low"), Scripted(0.7, name="high")
    for both in ((low, high), (high, low)):
        said = look_ahead(study(), panel(*both)).trials[0].forecast
        assert said is not None
        assert said.by == "high"


def test_before_a_trial_is_complete_the_best_value_seen_is_to_be_beaten() -> None:
    failed = trial("0", [0.1], status=Status.FAILED)
    live = [trial("1", [3.0, 2.5], status=Status.PAUSED), trial("2", [3.0, 1.0], status=Status.PAUSED)]
    of = snapshot(goal("minimize", 10), [failed], live)
    for one in (of, mirrored(of)):
        found = look_ahead(one, panel(AtItsValue()))
        assert (found.incumbent, found.target, order(found)) == (None, one.goal.sign, ["2", "1", "0"])
        assert all(said.forecast is not None and said.forecast.p_beat is not None for said in found.trials[:2])


def test_where_nobody_has_a_finite_value_nothing_is_to_be_beaten() -> None:
    live = [trial("1", [math.nan], status=Status.RUNNING)]
    found = look_ahead(snapshot(goal("minimize", 10), [], live), panel(ByUid()))
    assert (found.incumbent, found.target) == (None, None)


@dataclass
class AtItsValue(Scripted):
    """A better median for a trial whose last value is nearer to 0."""

    def probability(self, query: Query) -> float:
        return 1.0 / (1.0 + float(abs(query.trial.curve.values[-1])))


def test_the_real_ensemble_says_nothing_of_a_configuration_alone() -> None:
    found = look_ahead(study(), panel(ParametricEnsemble()), [Trial("line 2", params={"x": 0.5})])
    (one,) = found.unseen
    assert one.forecast is None
    assert one.absent is not None
    assert "parametric" in one.absent


def test_a_fan_leads_from_the_last_report_to_the_end() -> None:
    steps = list(range(1, 6))
    of = snapshot(goal("minimize", 40), [trial("0", [2.0**-i for i in range(40)])], [])
    one = trial("5", [2.0**-i for i in range(len(steps))], status=Status.PAUSED)
    of = replace(of, live=(one,))
    asked = panel(ParametricEnsemble())
    (told,) = (one for one in look_ahead(of, asked).trials if one.trial.uid == "5")
    found = fan(of, asked, told)
    assert found is not None
    assert found.steps[0] > one.curve.last_step
    assert found.steps[-1] == told.end
    assert (found.steps % 1 == 0).all()
    assert len(found.steps) <= 16
    assert (found.low <= found.median).all()
    assert (found.median <= found.high).all()


def test_no_fan_where_nothing_is_forecast_or_left() -> None:
    of, asked = study(), panel(Silent())
    assert [fan(of, asked, one) for one in look_ahead(of, asked).trials] == [None] * 7


def test_a_broken_forecast_is_told_as_none() -> None:
    with np.errstate(all="ignore"):
        found = look_ahead(study(), panel(Broken()))
    assert {why for one in found.trials for why, _ in (one.absent or {}).values()} == {Absent.NONFINITE}


@dataclass
class Broken(Scripted):
    """P(beat) that is no number."""

    def probability(self, query: Query) -> float:
        return math.nan
