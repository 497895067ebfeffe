"""Which configuration is begun: by hand, for every reason to leave it to the sampler, and whatever is forecast."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import goal, props, snapshot, trial

from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Answer, Forecasts
from lcsearch.goal import Direction, Judged
from lcsearch.proposal import ByForecast, ByProgress, Proposal, best_seen, survival
from lcsearch.study import Snapshot, Status, Trial

ASKS = ByForecast(sampler_share=0, n_startup=0)


def study(direction: Direction = "minimize", judged: Judged = "best") -> Snapshot:
    sign = 1 if direction == "minimize" else -1
    begun = [trial(str(i), [sign * (3.0 - 0.5 * i)], Status.PAUSED, params={"x": i}) for i in range(4)]
    return snapshot(goal(direction, judged=judged), [], begun)


def even(low: float, high: float, sign: float = 1.0) -> Forecasts:
    return Forecasts.of(np.array([[low, high]]), np.array([[0.0, 1.0]]), np.zeros((1, 2)), sign=sign, source="test")


def drawn(n: int) -> list[dict[str, Any]]:
    return [{"x": 10 + i} for i in range(n)]


def chosen(answers: list[Answer], at: Snapshot | None = None, candidates: Any = None) -> Proposal:
    return ASKS.choose(at or study(), candidates or drawn(len(answers)), {"test": answers}, (0, 9))


def test_expected_improvement_by_hand() -> None:
    # Best seen 1.5. Even on [1, 2]: .5 * .25; on [0, 4]: .375 * .75; on [1.4, 1.5]: .05.
    said = chosen([even(1.0, 2.0), even(0.0, 4.0), even(1.4, 1.5)])
    assert said.row == 1
    assert said.score == pytest.approx(0.375 * 0.75)
    assert said.p_beat == pytest.approx(0.375)
    assert said.why == "the one of 3 candidates that is forecast to gain most, 0.281 on the best value seen"


def test_gain_counts_per_cost_where_steps_differ_in_it() -> None:
    """.125, .28125 and .05 as above; for one, nine and one second a step .125, .0938 and .05."""
    answers: list[Answer] = [even(1.0, 2.0), even(0.0, 4.0), even(1.4, 1.5)]
    said = ASKS.choose(study(), drawn(3), {"test": answers}, (0, 9), [1.0, 9.0, 1.0])
    assert said.row == 0
    assert said.score == pytest.approx(0.125)
    assert said.why == (
        "the one of 3 candidates that is forecast to gain most for the time that it takes, 0.125 on the best value seen"
    )
    assert ASKS.choose(study(), drawn(3), {"test": answers}, (0, 9), [1.0, 4.0, 1.0]).row == 1, ".141"


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_nothing_is_gained_beyond_the_metrics_bound(direction: Direction) -> None:
    """Best seen 1.5, and no loss is below 0: even on [-4, 2] gains 1.5 with 4 / 6, and 1.5^2 / 12 above 0."""
    sign = 1.0 if direction == "minimize" else -1.0
    answers: list[Answer] = [even(-4.0, 2.0, sign), even(0.0, 0.5, sign)]
    free = study(direction)
    assert chosen(answers, free)[0] == 0
    known = replace(free.goal, bounds=(0.0, None) if direction == "minimize" else (None, 0.0))
    bounded = snapshot(known, [], list(free.live))
    assert chosen(answers, bounded)[0] == 1
    assert chosen(answers[:1], bounded).score == pytest.approx(1.0 + 1.5**2 / 12)


def test_a_metric_that_is_maximized() -> None:
    answers: list[Answer] = [even(1.0, 2.0, -1.0), even(0.0, 4.0, -1.0), even(1.4, 1.5, -1.0)]
    assert chosen(answers, study("maximize")).row == 1


def test_the_questions_are_about_the_judged_value_at_the_horizon() -> None:
    asked = ASKS.questions(study(), drawn(2))
    assert [(q.kind, q.step, dict(q.trial.params), len(q.trial.curve)) for q in asked] == [
        ("best_by", 10.0, {"x": 10}, 0),
        ("best_by", 10.0, {"x": 11}, 0),
    ]
    assert ASKS.questions(study(judged="final"), drawn(1))[0].kind == "value"


def test_what_leaves_it_to_the_sampler() -> None:
    absent: list[Answer] = [Absent.UNSUPPORTED, Absent.FAILED]
    assert chosen(absent) == Proposal(0, "the sampler's own: nothing is forecast of a configuration")
    assert chosen([even(5.0, 6.0), even(4.0, 6.0)]).row == 0  # nobody gains anything
    nothing = snapshot(goal(), [], [trial(str(i), [math.nan], Status.PAUSED) for i in range(4)])
    assert chosen([even(5.0, 6.0), even(4.0, 6.0)], nothing).why == "the sampler's own: no trial has a value yet"


def test_a_candidate_without_a_forecast_is_passed_over() -> None:
    assert chosen([Absent.NONFINITE, even(1.4, 1.5), Absent.LATE]).row == 1


def test_a_configuration_that_a_trial_has_is_passed_over_as_long_as_there_is_another() -> None:
    better: list[Answer] = [even(1.0, 2.0), even(0.0, 1.0)]
    assert chosen(better, candidates=[{"x": 10}, {"x": 2}]).row == 0
    none_left = chosen(better, candidates=[{"x": 1}, {"x": 2}])
    assert none_left == Proposal(0, "the sampler's own: every candidate with a forecast has been begun before")


def test_where_trials_are_lost_little_is_gained() -> None:
    fine = [trial(f"a{i}", [3.0, 2.0], params={"x": 0.1 * i, "kind": "a"}) for i in range(7)]
    crashed = [trial(f"b{i}", [2.0], Status.FAILED, params={"x": 0.7 + 0.05 * i, "kind": "a"}) for i in range(5)]
    blown = [trial(f"c{i}", [2.0, math.nan], Status.STOPPED, params={"x": 0.1 * i, "kind": "b"}) for i in range(7)]
    at: list[dict[str, Any]] = [
        {"x": 0.22, "kind": "a"},
        {"x": 0.81, "kind": "a"},
        {"x": 0.22, "kind": "b"},
        {"kind": "a"},
    ]
    assert survival(snapshot(goal(), fine), at).tolist() == [1.0] * 4
    found = survival(snapshot(goal(), [*fine, *crashed, *blown]), at).tolist()
    assert found[:3] == pytest.approx([5.5 / 6, 0.5 / 6, 0.5 / 6])
    assert 0 < found[3] < 1
    said = ASKS.choose(snapshot(goal(), [*fine, *crashed]), at[:2], {"test": [even(1.8, 2.1), even(1.4, 2.1)]}, (0, 9))
    assert said.row == 0


def test_trials_that_have_not_reported_leave_fewer_candidates() -> None:
    answers: list[Answer] = [even(1.4, 1.5), even(1.3, 1.5), even(1.2, 1.5), even(1.1, 1.5), even(1.0, 1.5)]
    silent = [trial(f"new {i}", [], Status.RUNNING, params={"x": 50 + i}) for i in range(2)]
    at = study()
    waiting = snapshot(goal(), [], [*at.live, *silent[:1]]), snapshot(goal(), [], [*at.live, *silent])
    assert [chosen(answers, one).row for one in (at, *waiting)] == [4, 2, 1]


def test_who_is_the_samplers_own() -> None:
    few = ByForecast(sampler_share=0, n_startup=5)
    assert few.own(study(), (0, 4)) == Proposal(0, "the sampler's own: one of the first 5 trials")
    silent = snapshot(goal(), [], [trial(str(i), [], Status.RUNNING) for i in range(9)])
    assert few.own(silent, (0, 9)) == Proposal(0, "the sampler's own: fewer than 3 trials have reported")
    assert ASKS.own(study(), (0, 4)) is None
    always = ByForecast(sampler_share=1, n_startup=0).own(study(), (0, 4))
    assert always == Proposal(0, "the sampler's own, as 100% of all are", 1.0)


def test_the_share_of_the_sampler_is_drawn_by_the_key() -> None:
    quarter = ByForecast(n_startup=0)
    own = [quarter.own(study(), (7, n)) is not None for n in range(400)]
    assert 70 < sum(own) < 130
    assert own == [quarter.own(study(), (7, n)) is not None for n in range(400)]
    assert own != [quarter.own(study(), (8, n)) is not None for n in range(400)]


def earned(ours: list[Any], theirs: list[Any], share: float = 0.25, **more: Any) -> ByForecast:
    """What is trusted where forecasts chose `ours`; trials as lists of values, or made."""
    made = [
        one if isinstance(one, Trial) else trial(f"{kind}{i}", one, Status.PAUSED)
        for kind, of in (("a", ours), ("b", theirs))
        for i, one in enumerate(of)
    ]
    begun = {one.uid: i < len(ours) for i, one in enumerate(made)}
    bank = [one for one in made if one.status.finished]
    at = snapshot(goal(**more), bank, [one for one in made if not one.status.finished])
    found = ByForecast(share).trusted(at, begun)
    assert isinstance(found, ByForecast)
    return found


def test_choices_that_stand_behind_lose_their_share_by_hand() -> None:
    """Five of each: alike, the share of pairs has a standard deviation of sqrt(11 / 300) = .1915."""
    ours, theirs = [[6.0 + i] for i in range(5)], [[1.0 + i] for i in range(5)]
    none = earned(ours, theirs)  # 2.6 below a half
    assert none.sampler_share == pytest.approx(0.9)
    assert none.doubt == ", while what forecasts choose is better than it in 0% of pairs"
    said = replace(none, n_startup=0).own(study(), (7, 1))
    assert said is not None
    assert said.why == f"the sampler's own, as 90% of all are{none.doubt}"
    assert said.propensity == pytest.approx(0.9)
    seven = earned([[1.5], [2.5], *ours[2:]], theirs)  # of 25: (.5 - .28) / .1915 = 1.149
    assert seven.sampler_share == pytest.approx(0.25 + 0.649 * 0.65, abs=1e-3)
    ten = earned([[1.5], [1.5], [3.5], *ours[3:]], theirs)  # .522
    assert ten.sampler_share == pytest.approx(0.25 + 0.022 * 0.65, abs=1e-3)
    assert earned(theirs, theirs) == earned(theirs, ours) == ByForecast()
    up = [[[-x for x in values] for values in kind] for kind in (ours, theirs)]
    assert earned(up[0], up[1], direction="maximize") == none


def test_choices_are_compared_where_both_have_been() -> None:
    """What leads at the first report says nothing of those that have gone further, and they nothing of it."""
    theirs = [[3.0 + i / 10, 2.9 + i / 10, 0.1] for i in range(5)]
    assert earned([[1.0 + i] for i in range(5)], theirs) == ByForecast()
    assert earned([[4.0 + i] for i in range(5)], theirs).sampler_share == pytest.approx(0.9)
    risen = [[1.0, 5.0 + i] for i in range(5)]
    assert earned(risen, theirs) == ByForecast()
    assert earned(risen, theirs, judged="final").sampler_share == pytest.approx(0.9)
    late = [trial(f"late {i}", [math.nan, math.nan, math.nan, 9.0], Status.PAUSED) for i in range(5)]
    assert earned(late, theirs) == ByForecast()  # it had no value yet where they stand


def test_slow_starters_that_forecasts_chose_are_no_bad_choices() -> None:
    """Five that began worst of all and came to .13, beside ten of the sampler's own at their first report."""
    slow = [trial(f"slow {i}", [1.2, 1.1, 0.13 + i / 100]) for i in range(5)]
    waiting = [[1.0 + i / 100] for i in range(10)]
    assert earned(slow, waiting) == ByForecast()  # the best value seen is one of theirs
    led = [*waiting, trial("led", [0.9, 0.5, 0.12])]
    assert earned(slow, led).sampler_share > 0.8
    stopped = [trial(f"stopped {i}", [1.0 + i / 100], Status.STOPPED) for i in range(10)]
    assert earned(slow, [*stopped, led[-1]]) == ByForecast()  # two that have ended are compared by their ends


def test_what_was_lost_is_worse_than_any_that_was_not() -> None:
    theirs = [[3.0], [4.0], [5.0], [6.0], [7.0]]
    failed = [trial(f"f{i}", [0.1] * i, Status.FAILED) for i in range(5)]
    unfit = [trial(f"i{i}", [0.1], feasible=False) for i in range(5)]
    empty = [trial(f"n{i}", [0.1], returned=math.nan) for i in range(5)]
    for lost in (failed, unfit):
        assert earned(lost, theirs).sampler_share == pytest.approx(0.9)
        assert earned(theirs, lost) == ByForecast()
        assert earned(lost, [trial(f"g{i}", [], Status.FAILED) for i in range(5)]) == ByForecast()
    assert earned(empty, [[0.05], *theirs]).sampler_share == pytest.approx(0.9)


def test_who_says_nothing_is_believed() -> None:
    ours, theirs = [[9.0]] * 5, [[1.0]] * 5
    assert earned(ours, theirs).sampler_share > 0.25
    assert earned(ours[1:], theirs) == earned(ours, theirs[1:]) == ByForecast()
    assert earned([[], *ours[1:]], theirs) == ByForecast()  # it runs, and has not reported
    for share in (0.0, 0.9, 1.0):
        assert earned(ours, theirs, share).sampler_share == share
    begun = {str(i): True for i in range(4)}
    assert ByProgress().trusted(study(), begun) == ByProgress()  # it does not begin what is best


def test_trust_is_won_back_by_the_latest() -> None:
    """What was chosen long ago counts no more; the order is that of their begin, whatever they are called."""
    theirs: list[Any] = [[5.0 + i / 100] for i in range(39)] + [[0.5]]
    bad = [trial(f"{900 - i}", [9.0], Status.PAUSED) for i in range(40)]
    good = [trial(f"{400 - i}", [4.0], Status.PAUSED) for i in range(32)]
    assert earned(bad, theirs).sampler_share == pytest.approx(0.9)
    assert earned([*bad, *good], theirs) == ByForecast()
    assert earned([*good, *bad], theirs).sampler_share == pytest.approx(0.9)


def test_whose_merit_a_configuration_is() -> None:
    assert Proposal(0, "the sampler's own: one of the first 10 trials").by_forecasts is False
    assert chosen([even(1.0, 2.0)]).by_forecasts is True
    assert chosen([even(5.0, 6.0), even(5.0, 6.0)]).by_forecasts is None  # none is forecast to gain anything


@props
@given(
    ours=st.lists(st.floats(0, 1), max_size=6),
    theirs=st.lists(st.floats(0, 1), max_size=6),
    share=st.floats(0, 1),
)
def test_a_share_never_falls_nor_passes_its_bound(ours: list[float], theirs: list[float], share: float) -> None:
    found = earned([[x] for x in ours], [[x] for x in theirs], share)
    assert share <= found.sampler_share <= max(share, 0.9 + 1e-12)
    assert (found.doubt == "") == (found.sampler_share == share)


def test_the_best_value_seen_is_one_that_may_still_be_the_result() -> None:
    lost = [trial("a", [0.1], Status.STOPPED), trial("b", [0.2], Status.FAILED), trial("c", [0.3], feasible=False)]
    assert best_seen(snapshot(goal(), lost, [trial("d", [0.9, 0.5], Status.RUNNING)])) == 0.5
    assert best_seen(snapshot(goal(), lost)) == 0.1
    assert best_seen(snapshot(goal(), [])) == math.inf


@pytest.mark.parametrize("fields", [{"sampler_share": -0.1}, {"sampler_share": math.nan}, {"n_startup": -1}])
def test_knobs_are_checked(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match=f"{next(iter(fields))}.*: expected"):
        ByForecast(**fields)


ANSWERS = st.one_of(
    st.sampled_from(list(Absent)),
    st.tuples(st.floats(-1e308, 1e308), st.floats(0, 1e308)).map(lambda at: even(at[0], at[0] + at[1])),
)


@props
@given(answers=st.lists(ANSWERS, min_size=1, max_size=8), share=st.floats(0, 1))
def test_whatever_is_forecast_one_of_the_candidates_is_begun(answers: list[Answer], share: float) -> None:
    with np.errstate(all="ignore"):  # as a session does
        said = ByForecast(share, 0).choose(study(), drawn(len(answers)), {"test": answers}, (0, 9))
    assert 0 <= said.row < len(answers)
    assert said.propensity in ({1.0, 1.0 - share} if said.row else {1.0})
    assert said.score is None or said.score > 0


REGIONS = ByProgress(sampler_share=0.2, n_startup=0)


def line(chance: Any, n: int = 41, **ends: Status) -> tuple[Snapshot, list[Answer]]:
    """Paused trials at x = 0 to 1, the first with the best value, 1; and forecasts by which `chance(i)` beats it."""
    live = [trial(str(i), [1.0 + i], ends.get(f"t{i}", Status.PAUSED), params={"x": i / (n - 1)}) for i in range(n)]
    done = [one for one in live if one.status.finished]
    at = snapshot(goal(), done, [one for one in live if not one.status.finished])
    open_ = [int(query.trial.uid) for query in REGIONS.questions(at, [])]
    return at, [even(1 - chance(i), 2 - chance(i)) for i in open_]


def test_what_is_begun_lies_where_neighbours_differ() -> None:
    """P is alike over the lower half, and .1 or .9 by turns over the upper one."""
    at, answers = line(lambda i: 0.5 if i < 20 else 0.1 + 0.8 * (i % 2))
    candidates = [{"x": (i + 0.5) / 100} for i in range(100)]
    found = [REGIONS.choose(at, candidates, {"test": answers}, (0, n)) for n in range(200)]
    assert sum(said.row >= 50 for said in found) > 160
    assert len({said.row for said in found}) > 20
    assert found == [REGIONS.choose(at, candidates, {"test": answers}, (0, n)) for n in range(200)]
    said = found[0]
    assert said.why.startswith("one of 100 candidates, drawn in region ")
    assert said.why.endswith("between neighbours")
    assert (said.score, said.p_beat) == (None, None)


def test_a_propensity_is_how_often_a_candidate_is_drawn() -> None:
    at, answers = line(lambda i: 0.5 if i < 20 else 0.1 + 0.8 * (i % 2))
    candidates = [{"x": x} for x in (0.31, 0.52, 0.77, 0.93)]
    found = [REGIONS.choose(at, candidates, {"test": answers}, (0, n)) for n in range(2000)]
    chance = {said.row: said.propensity for said in found}
    assert sum(chance.values()) == pytest.approx(1.0)
    for row, p in chance.items():
        drawn_ = sum(said.row == row for said in found) / len(found)
        own = 0.2 * (row == 0)
        assert own + 0.8 * drawn_ == pytest.approx(p, abs=0.04)


def test_only_trials_that_may_go_on_are_asked_about() -> None:
    at, answers = line(lambda i: 0.5, t3=Status.COMPLETE, t4=Status.FAILED, t5=Status.STOPPED)
    asked = [query.trial.uid for query in REGIONS.questions(at, [])]
    assert asked == [str(i) for i in range(41) if i not in (3, 4)]
    assert len(answers) == 39


def test_where_there_are_no_regions_it_is_the_samplers_own() -> None:
    candidates = [{"x": 0.11}, {"x": 0.52}]
    at, answers = line(lambda i: 0.5)
    same = REGIONS.choose(at, candidates, {"test": answers}, (0, 1))
    assert same == Proposal(0, "the sampler's own: P(beat) is the same everywhere")
    absent = REGIONS.choose(at, candidates, {"test": [Absent.LATE] * 41}, (0, 1))
    assert absent == Proposal(0, "the sampler's own: too few trials are forecast for regions of the space")
    at, answers = line(lambda i: 0.1 + 0.8 * (i % 2))
    taken = REGIONS.choose(at, [{"x": 0.5}], {"test": answers}, (0, 1))
    assert taken == Proposal(0, "the sampler's own: every candidate has been begun before")
    bare = snapshot(goal(), [], [trial(str(i), [1.0 + i], Status.PAUSED, params={"same": 3}) for i in range(41)])
    flat = REGIONS.choose(bare, [{"same": 3}, {"same": 4}], {"test": answers}, (0, 1))
    assert flat == Proposal(0, "the sampler's own: no parameter differs")


def test_regions_need_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcsearch.allocation.mixture.find_spec", lambda name: None)
    with pytest.raises(InvalidValue, match=r"^ByProgress: expected the package scikit-learn, got 'none'. Install"):
        ByProgress()


@props
@given(chances=st.lists(st.floats(0, 1), min_size=20, max_size=30), n=st.integers(1, 6))
def test_whatever_p_is_one_of_the_candidates_is_begun(chances: list[float], n: int) -> None:
    at, answers = line(lambda i: chances[i], len(chances))
    with np.errstate(all="ignore"):  # as a session does
        said = REGIONS.choose(at, drawn(n), {"test": answers}, (0, n))
    assert 0 <= said.row < n
    assert 0 <= said.propensity <= 1.0 + 1e-9
