from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from forecast.network.test_context import GOAL, bank, trial
from numpy.typing import NDArray

from lcsearch.curves import Curve
from lcsearch.forecast.network.begun import CONTEXT, FEW, Begun, alongside, choose
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial, robust_range


def chosen(of: FinishedTrials) -> NDArray[np.intp]:
    return choose(of.judged, of.complete)


@pytest.mark.parametrize("n", [0, 1, 127, 128, 129, 300, 1000])
def test_at_most_128_are_chosen_and_the_best_of_the_complete_ones_is_among_them(n: int) -> None:
    one = bank(n)
    rows = chosen(one)
    assert rows.size == min(n, CONTEXT)
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(chosen(bank(n)), rows)
    if n:
        best = np.where(one.complete, one.judged, np.inf)
        assert np.argmin(best) in rows


def test_the_same_trials_are_chosen_in_whatever_order_they_came() -> None:
    trials = [trial(i) for i in range(300)]
    rng = np.random.default_rng(0)
    found = []
    for _ in range(4):
        one = FinishedTrials(GOAL).extend([trials[i] for i in rng.permutation(300)])
        found.append({one[i].uid for i in chosen(one)})
    assert all(uids == found[0] for uids in found)


def test_one_more_trial_changes_few_rows() -> None:
    one = bank(1000)
    for i in range(1000, 1020):
        more = one.extend([trial(i)])
        assert len(set(chosen(more).tolist()) - set(chosen(one).tolist())) <= 3
        one = more


def test_those_without_a_finite_report_are_no_context() -> None:
    nan = Trial("nan", Curve.of([1, 2], [np.nan, np.nan]), status=Status.FAILED)
    empty = Trial("empty", status=Status.FAILED)
    assert chosen(FinishedTrials(GOAL).extend([nan, trial(1), empty])).tolist() == [1]


def test_equal_values_are_chosen_by_place() -> None:
    same = Curve.of([1, 20], [0.5, 0.5])
    one = FinishedTrials(GOAL).extend([Trial(f"t{i}", same, status=Status.COMPLETE) for i in range(300)])
    rows = chosen(one)
    assert rows.size == CONTEXT
    assert set(range(64)) <= set(rows.tolist())


def snapshot(finished: int, *live: Trial) -> Snapshot:
    return Snapshot("s", GOAL, FinishedTrials(GOAL).extend([trial(i) for i in range(finished)]), live)


def paused(i: int, n: int) -> Trial:
    return trial(i, n, status=Status.PAUSED)


def running(i: int, n: int) -> Trial:
    return trial(i, n, status=Status.RUNNING)


def test_running_trials_are_context_until_enough_are_complete() -> None:
    live = running(100, 3), running(101, 7)
    assert alongside(snapshot(FEW - 1, *live)) == live
    assert alongside(snapshot(FEW, *live)) == ()


def test_while_some_are_paused_all_live_trials_are_context() -> None:
    live = running(100, 3), paused(101, 7), Trial("unbegun"), Trial("nan", Curve.of([1.0], [math.nan]))
    assert alongside(snapshot(40, *live)) == live[:2]


@pytest.mark.parametrize("n", [CONTEXT, CONTEXT + 1, 500])
def test_at_most_so_many_live_trials_are_and_the_best_is_among_them(n: int) -> None:
    live = tuple(paused(i, 1 + i % 9) for i in range(n))
    found = alongside(snapshot(0, *live))
    assert len(found) == CONTEXT
    assert min(live, key=lambda t: t.curve.values.min()) in found
    assert alongside(snapshot(0, *found)) == found  # what a host is sent is what it takes
    assert alongside(snapshot(0, *reversed(live))) == tuple(reversed(found))


def test_of_many_live_trials_the_furthest_the_best_and_some_of_the_rest_are_context() -> None:
    live = tuple(paused(i, 1 + i % 9 if i < 180 else 1) for i in range(400))
    losses = np.array([min(trial.curve.losses(GOAL.sign)[1]) for trial in live])
    for n in (0, 10, 60):
        found = alongside(snapshot(n, *live))
        assert len(found) == CONTEXT - min(n, CONTEXT // 4)
        far = sorted(live, key=lambda t: (-t.curve.n_reports, t.curve.losses(GOAL.sign)[1][-1]))
        assert set(far[:12]) <= set(found)
        assert live[int(losses.argmin())] in found
        near = [t for t in found if len(t.curve) == 1]
        assert len(near) > 20


def test_one_paused_trial_among_many_that_run_is_no_less_paused_at_a_host() -> None:
    live = (*(running(i, 9) for i in range(300)), trial(300, 1, status=Status.PAUSED))
    found = alongside(snapshot(FEW, *live))
    assert (len(found), found[-1]) == (CONTEXT - FEW, live[-1])
    assert alongside(snapshot(FEW, *found)) == found
    silent = Trial("nan", Curve.of([1.0], [math.nan]), status=Status.PAUSED)
    assert alongside(snapshot(FEW, *live[:3], silent)) == ()


def test_what_failed_or_breaks_a_constraint_is_nothing_to_beat() -> None:
    live = tuple(paused(i, 4 + i) for i in range(6))
    order = sorted(live, key=lambda t: t.curve.values.min())
    bad = {order[0].uid: {"feasible": False}, order[1].uid: {"status": Status.FAILED}}
    live = tuple(replace(t, **bad.get(t.uid, {})) for t in live)  # type: ignore[arg-type]  # fields of two types
    assert Begun.of(snapshot(0, *live), live).target() == order[2].curve.values.min()


def test_the_complete_ones_are_measured_by_where_there_are_any() -> None:
    live = paused(50, 4), paused(51, 9)
    made = snapshot(12, *live)
    found = Begun.of(made, alongside(made))
    assert made.incumbent is not None
    assert {found.target(uid) for uid in ("t0", "t50", None)} == {made.incumbent.value}
    assert found.complete.tolist() == [True] * 12 + [False] * 2


def test_where_some_wait_all_that_have_begun_have_a_say_in_the_spread() -> None:
    """Those that got to the end lie near to each other: they were promoted for being the best of many."""
    made = snapshot(12)
    assert Begun.of(made, ()).spread == made.robust_range > 0
    far = [replace(paused(50 + i, 4), curve=Curve.of([1.0], [1e3 * (1 + i)])) for i in range(20)]
    for live in (far, [replace(t, status=Status.RUNNING) for t in far]):
        asked = snapshot(12, *live)
        found = Begun.of(asked, tuple(live))
        everyone = np.concatenate([asked.bank.judged, [t.curve.values[0] for t in live]])
        waits = live[0].status is Status.PAUSED
        assert found.spread == pytest.approx(
            math.sqrt(asked.robust_range * robust_range(everyone)) if waits else asked.robust_range
        )
    near = [replace(paused(50 + i, 4), curve=Curve.of([1.0], [float(made.bank.judged.min())])) for i in range(20)]
    asked = snapshot(12, *near)
    assert Begun.of(asked, tuple(near)).spread == asked.robust_range, "no narrower than of the complete ones"


def test_without_a_complete_one_all_that_have_begun_are_and_no_trial_has_itself_to_beat() -> None:
    live = tuple(paused(i, 1 + i) for i in range(8))
    found = Begun.of(snapshot(0, *live), live)
    stands = {t.uid: float(t.curve.values.min()) for t in live}
    first, second = sorted(stands, key=stands.__getitem__)[:2]
    assert found.spread == robust_range(np.array(list(stands.values()))) > 0
    assert (found.target(first), found.target(second)) == (stands[second], stands[first])
    assert found.target() == stands[first]


def test_of_a_single_trial_there_is_nothing_to_beat() -> None:
    alone = paused(1, 5)
    found = Begun.of(snapshot(0, alone), (alone,))
    assert math.isnan(found.target(alone.uid))
    assert math.isnan(Begun.of(snapshot(0), ()).target())
    stopped = replace(alone, status=Status.STOPPED)
    assert Begun.of(Snapshot("s", GOAL, FinishedTrials(GOAL).extend([stopped])), ()).trials == (stopped,)
