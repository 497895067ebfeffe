from __future__ import annotations

import math
from typing import Any

import pytest
from kit.allocators import PAUSES, Plot, World
from kit.builders import goal, snapshot, trial

from lcsearch.allocation.allocators.asha import AshaPromotion
from lcsearch.allocation.contract import Account, Allocation, Slots
from lcsearch.errors import InvalidValue
from lcsearch.goal import Judged
from lcsearch.study import Snapshot, Status, Trial

NAN = math.nan
ONE = Slots(1, 9)


def ask(seen: Snapshot, slots: Slots = ONE) -> Allocation:
    return AshaPromotion(first=1 / 9).allocate(None, seen, {}, PAUSES, slots, (0, 0))


def paused(uid: str, *losses: float) -> Trial:
    return trial(uid, losses, Status.PAUSED, first=1)


def study(*live: Trial, finished: tuple[Trial, ...] = (), judged: Judged = "best") -> Snapshot:
    return snapshot(goal(horizon=9, judged=judged), finished, live)


def moves(*live: Trial, slots: Slots = ONE, **fields: Any) -> list[tuple[str | None, float]]:
    return [(move.uid, move.pause_at) for move in ask(study(*live, **fields), slots).moves]


def test_nine_trials_by_hand() -> None:
    """Rungs 1, 3, 9; one worker; every trial keeps its first loss.

    After three trials the best of them, 1, goes to step 3. Of four the best may have gone, and has; of five it is the
    fifth, 4. Of eight two may have gone: 7 and 4, so 7 goes, and being the best of three at step 3 goes on to 9. The
    ninth trial lets a third one go, but the three best, 7, 4 and 1, have. Then no rung can grow.
    """
    losses = [0.5, 0.3, 0.9, 0.4, 0.2, 0.8, 0.7, 0.1, 0.6]
    world = World(Plot([[loss] * 9 for loss in losses]))
    while not world.given_up:
        done = ask(world.snapshot(), world.slots())
        world.apply(done)
        world.advance()
    assert [(move.uid, move.pause_at) for move in world.log] == [
        (None, 1), (None, 1), (None, 1), ("1", 3),
        (None, 1), (None, 1), ("4", 3),
        (None, 1), (None, 1), (None, 1), ("7", 3), ("7", 9),
        (None, 1),
    ]  # fmt: skip
    assert world.given_up == {"0", "1", "2", "3", "4", "5", "6", "8"}
    assert world.trials["7"].status is Status.COMPLETE


def test_the_highest_rung_comes_first_and_the_best_in_it() -> None:
    low = [paused(str(i), 0.9 + i / 100) for i in range(3)]
    high = [paused(str(i), 0.5, 0.5, 0.5 - i / 100) for i in range(3, 9)]
    # Rung 3 holds six: 8 and 7 may go. Rung 1 holds nine, and its best three are not among those that wait there.
    assert moves(*low, *high, slots=Slots(4, 9)) == [("8", 9), ("7", 9), (None, 1), (None, 1)]


def test_ties_go_to_the_earlier_uid() -> None:
    assert moves(*(paused(uid, 0.5) for uid in ("11", "10", "9"))) == [("9", 3)]


def test_finished_trials_hold_their_places_in_the_rungs() -> None:
    waiting = [paused("0", 0.5), paused("1", 0.6)]
    ended = trial("2", [0.4] * 2, Status.FAILED, first=1)
    assert moves(*waiting, finished=(ended,)) == [(None, 1)], "the best of three has gone, and failed"
    better = trial("2", [0.7] * 2, Status.STOPPED, first=1)
    assert moves(*waiting, finished=(better,)) == [("0", 3)]
    # range(9): a COMPLETE trial was at every rung, wherever its last report stands.
    short = trial("2", [0.7], Status.COMPLETE, first=0)
    assert moves(*waiting, finished=(short,)) == [("0", 3)]


def test_a_trial_that_runs_beyond_a_rung_holds_its_place_there() -> None:
    runs = trial("2", [0.4], Status.RUNNING, first=1)
    assert moves(paused("0", 0.5), paused("1", 0.6), runs) == [(None, 1)]


def test_the_loss_is_that_of_the_rung_and_the_best_so_far_only_where_that_is_judged() -> None:
    # Both waited at step 1 and were promoted once; at step 3 the first has the better best, the second the better last.
    live = [paused("0", 0.9, 0.2, 0.8), paused("1", 0.9, 0.9, 0.5), paused("2", 0.9, 0.9, 0.9)]
    assert moves(*live, judged="best") == [("0", 9)]
    assert moves(*live, judged="final") == [("1", 9)]


def test_sparse_reports_count_at_the_first_one_beyond_the_rung() -> None:
    live = [trial(str(i), [loss, 0.9], Status.PAUSED, steps=[0, 2]) for i, loss in enumerate((0.7, 0.1, 0.5))]
    assert moves(*live) == [("1", 3)]


def test_what_is_not_finite_ranks_last() -> None:
    assert moves(paused("0", NAN), paused("1", NAN), paused("2", 0.9)) == [("2", 3)]
    # A metric that starts late keeps nobody from starting.
    assert moves(*(paused(str(i), NAN) for i in range(3))) == [("0", 3)]


def test_a_trial_that_never_got_to_a_rung_goes_there_before_new_ones() -> None:
    empty = Trial("7", status=Status.PAUSED)
    assert moves(empty, paused("0", 0.5), slots=Slots(2, 9)) == [("7", 1), (None, 1)]


def test_who_leads_all_that_are_complete_is_not_cut_when_the_rungs_close() -> None:
    done = trial("1", [0.3, *[0.5] * 8], first=1)  # ahead of 0 at step 1, and behind it in the end
    live = [paused("0", 0.4), paused("2", 0.6)]
    first = ask(study(*live, finished=(done,), judged="final"), Slots(2, 0))
    assert [(m.uid, m.pause_at, m.why) for m in first.moves] == [("0", 9, "it leads all that are complete")]
    assert first.stops == ()
    now_done = trial("0", [0.4] * 9, first=1)
    last = ask(study(live[1], finished=(done, now_done), judged="final"), Slots(2, 0))
    assert last.stops == (("2", "its rung is closed"),)


def test_while_somebody_runs_nothing_is_given_up() -> None:
    runs = trial("2", [], Status.RUNNING)
    assert ask(study(paused("0", 0.5), paused("1", 0.6), runs), Slots(1, 0))[:3] == (None, (), ())


def test_a_study_too_small_for_promotions_still_has_a_result() -> None:
    assert moves(paused("0", 0.6), paused("1", 0.5), slots=Slots(2, 0)) == [("1", 3)]
    assert moves(paused("0", 0.4), paused("1", 0.5, 0.5, 0.5), slots=Slots(2, 0)) == [("1", 9)]
    done = ask(study(paused("0", 0.6), finished=(trial("1", [0.5] * 9, first=1),)), Slots(2, 0))
    assert done == Allocation(None, (), (("0", "its rung is closed"),))


@pytest.mark.parametrize("fields", [{"first": 0}, {"first": NAN}, {"first": 1.1}, {"eta": 1.5}, {"eta": math.inf}])
def test_what_cannot_be(fields: dict[str, float]) -> None:
    with pytest.raises(InvalidValue, match=r"^AshaPromotion\.(first|eta): expected a (share|finite number) "):
        AshaPromotion(**fields)


def test_what_a_trial_waits_for() -> None:
    """Five in the rung, one of which may go, and has: the leader, which no room for fewer may cost its place."""
    gone = paused("4", 0.1, 0.1, 0.1)
    live = [paused("0", 0.5), paused("1", 0.6), paused("2", 0.4), paused("3", 0.3), gone]
    assert [str(wait) for wait in ask(study(*live)).waits] == [
        "waits: rank 1 of 1 by value at step 3, needs 2 more trials there",
        "waits: rank 2 of 5 by value at step 1, needs rank 1 or 1 more trial there",
        "waits: rank 3 of 5 by value at step 1, needs rank 1 or 4 more trials there",
        "waits: rank 4 of 5 by value at step 1, needs rank 1 or 7 more trials there",
        "waits: rank 5 of 5 by value at step 1, needs rank 1 or 10 more trials there",
    ]


def test_who_came_furthest_stands_before_those_who_are_as_many_places_short() -> None:
    """1 is no leader, for 0 is better; both miss one place, but 1 has come further."""
    live = [paused("0", 0.1), paused("1", 0.5, 0.5, 0.5)]
    runs_too = trial("2", [], Status.RUNNING)
    others = [paused(str(i), 0.6) for i in range(3, 5)]
    assert [wait.uid for wait in ask(study(*live, *others, runs_too), Slots(1, 0)).waits] == ["1", "3", "4"]


def poor(total: float, spent: float, *live: Trial, free: int = 1, n_new: int = 9) -> list[tuple[str | None, float]]:
    slots = Slots(free, n_new, Account(total, spent))
    return [(move.uid, move.pause_at) for move in ask(study(*live), slots).moves]


def test_nothing_is_begun_that_cannot_reach_a_rung_in_what_is_left() -> None:
    three = [paused(uid, loss) for uid, loss in (("0", 0.5), ("1", 0.6), ("2", 0.4))]
    assert poor(9, 3, *three) == [("2", 3)], "6 left, 2 needed"
    assert poor(4.5, 3, *three) == [(None, 1)], "1.5 left: a promotion takes 2"
    assert poor(3.5, 3, *three) == []
    fails = Slots(1, 9, Account(4.5, 3, resume=1))
    assert [move.uid for move in ask(study(*three), fails).moves] == [None]


def test_the_end_of_the_budget_finishes_the_leader() -> None:
    """8 steps bring 2 to step 9; of 9 one may still go to a new trial, of 8.5 not."""
    two = [paused("1", 0.6), paused("2", 0.4)]
    assert poor(11, 2, *two) == [(None, 1)]
    assert poor(10.5, 2, *two) == [("2", 9)]
    better = trial("0", [0.3] * 9, first=1)
    slots = Slots(1, 9, Account(19.5, 11))
    assert [move.uid for move in ask(study(*two, finished=(better,)), slots).moves] == [None], "there is a better one"


def test_a_hopeful_newcomer_whose_way_is_too_long_does_not_disarm_the_rule() -> None:
    """6.5 are left: 2 is better and would take 8; 0 takes 6, and is finished."""
    live = [paused("0", 0.3, 0.3, 0.3), paused("2", 0.29)]
    assert poor(11, 4, *live) == [(None, 1)]
    assert poor(10.5, 4, *live) == [("0", 9)]


def test_what_runs_is_promised() -> None:
    assert Account(15, 5, promised=8).left == 2
    assert Account(15, 5, promised=20).left == 0


def test_range_counts_its_first_step() -> None:
    """`range(9)`: what stands at step 0 has trained one step, and one that is new to step 1 trains two."""
    live = [trial(uid, [loss] * 2, Status.PAUSED, first=0) for uid, loss in (("0", 0.5), ("1", 0.6), ("2", 0.4))]
    assert poor(7.5, 6, *live) == []
    assert poor(8, 6, *live) == [("2", 3)]
    assert poor(13, 6, *live) == [("2", 9)], "7 more steps to its end"
