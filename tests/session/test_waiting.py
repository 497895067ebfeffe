"""What a paused trial waits for, by the allocations of this process and by the decision log's."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kit.allocators import PAUSES
from kit.builders import goal, snapshot, trial
from kit.doubles import NormalAroundBest

from lcsearch.allocation.ask import ask
from lcsearch.allocation.contract import Allocation, Allocator, Move, Slots, Wait
from lcsearch.allocation.named import allocator
from lcsearch.session.decision_log import DecisionLog
from lcsearch.session.session import Session
from lcsearch.session.waiting import waiting
from lcsearch.stopping.policy import Policy
from lcsearch.study import Status

PAUSED = [trial(str(n), [1.0 + n / 10], Status.PAUSED, first=1) for n in range(9)]
SEEN = snapshot(goal(horizon=27), [], PAUSED)


def session(folder: Path | None = None) -> Session:
    return Session(Policy(), [NormalAroundBest()], None if folder is None else DecisionLog(folder), deadline=math.inf)


def allocate(by: Allocator, folder: Path, number: int = 0, seen: Any = SEEN) -> Session:
    of = session(folder)
    of.allocate(ask(by, by.init(), seen, PAUSES, Slots(1, 9), (0, number)))
    return of


ASHA = allocator("asha", first=1 / 27)


def test_another_process_knows_what_the_one_that_allocated_knows(tmp_path: Path) -> None:
    of = allocate(ASHA, tmp_path, 4)
    for one in PAUSED[1:]:  # the first is given the slot; five of the others stand in the receipt
        here, there = waiting(of, one, SEEN), waiting(session(tmp_path), one, SEEN)
        assert here[0].startswith(f"waits: rank {int(one.uid) + 1} of 9 by value at step 1, needs ")
        assert there == [here[0], f"  by allocation 4 (asha), the latest in {tmp_path}", *here[1:]]
    assert waiting(session(tmp_path), PAUSED[0], SEEN)[0].startswith("allocation 4 (asha): got a slot until step 3: ")


def test_the_latest_allocation_is_told_whoever_made_it(tmp_path: Path) -> None:
    of = allocate(ASHA, tmp_path, 4)
    allocate(allocator("uniform", quantum=0.5), tmp_path, 5)
    said = waiting(of, PAUSED[8], SEEN)
    assert said[1] == f"  by allocation 5 (uniform), the latest in {tmp_path}"
    assert said[-1] == "  a new configuration until step 13.5"


def test_a_trial_that_was_paused_since_or_before_is_not_told_by_a_receipt_of_another_pause(tmp_path: Path) -> None:
    allocate(ASHA, tmp_path, 4)
    further = trial("8", [1.8, 1.7, 1.6], Status.PAUSED, first=1)
    seen = replace(SEEN, live=(*PAUSED[:8], further))
    assert waiting(session(tmp_path), further, seen)[0] == (
        f"it was paused after allocation 4 (asha), the latest in {tmp_path}, and no slot was given away since"
    )
    allocate(ASHA, tmp_path, 5, replace(SEEN, live=(PAUSED[8],)))
    said = waiting(session(tmp_path), PAUSED[7], SEEN)
    assert said[0].startswith("waits: rank 8 of 9 by value at step 1, needs ")
    assert said[1] == f"  by allocation 4 (asha), in {tmp_path}; later ones do not name it"


def test_the_process_that_allocates_says_so_of_a_trial_that_was_paused_since() -> None:
    of = session()
    of.allocate(ask(ASHA, ASHA.init(), replace(SEEN, live=tuple(PAUSED[:8])), PAUSES, Slots(1, 9), (0, 4)))
    assert waiting(of, PAUSED[8], SEEN)[0] == (
        "it was paused after allocation 4 (asha), the latest of this process, and no slot was given away since"
    )


def test_what_turns_have_brought_is_told_here_and_by_the_log(tmp_path: Path) -> None:
    """Forecast by two allocations, with a turn by the first: its P after that less its P before."""
    by, done = allocator("greedy", quantum=1 / 27), [trial(f"c{i}", [2.0 + i] * 27, first=1) for i in range(2)]
    seen = snapshot(goal(horizon=27), done, PAUSED)
    of = session(tmp_path)
    (move,) = of.allocate(ask(by, by.init(), seen, PAUSES, Slots(1, 0), (0, 4))).moves
    uid = str(move.uid)
    turned = trial(uid, [0.5, 0.4], Status.PAUSED, first=1)
    later = snapshot(goal(horizon=27), done, [turned, *(one for one in PAUSED if one.uid != uid)])
    assert not any("P(it beats" in line for line in waiting(of, turned, seen)), "nothing before a second forecast"
    of.allocate(ask(by, by.init(), later, PAUSES, Slots(1, 9), (0, 5)))
    for one in (of, session(tmp_path)):
        (told,) = [line for line in waiting(one, turned, later) if "P(it beats" in line]
        assert told.endswith("% in 1 turn of its own (1 step), +0.0% while it waited")


class Own:
    """An allocator of the user's, which no other process can make."""

    name = "own"

    def init(self) -> None:
        return None

    def questions(self, *_: Any) -> tuple[()]:
        return ()

    def allocate(self, *_: Any) -> Allocation:
        waits = tuple(Wait(str(n), n, 8, "age", "years") for n in range(1, 9))
        return Allocation(None, (Move("0", 3.0, why="it is the oldest"),), (), waits)


def test_what_cannot_be_made_again_is_told_as_far_as_the_receipt_goes(tmp_path: Path) -> None:
    allocate(Own(), tmp_path)
    assert waiting(session(tmp_path), PAUSED[5], SEEN) == [
        "waits: rank 5 of 8 by age, needs years",
        f"  by allocation 0 (own), the latest in {tmp_path}",
        "the last slots went to:",
        "  trial 0 until step 3: it is the oldest",
    ]
    said = waiting(session(tmp_path), PAUSED[6], SEEN)
    assert said[0] == "waits: it was not among the 5 nearest to a slot of the 8 that waited"


def test_nothing_is_told_of_another_study_of_the_name() -> None:
    """Two studies of one name in one process, and a pruner that serves both."""
    of, one, other = session(), replace(SEEN, token="one"), replace(SEEN, token="other")
    of.allocate(ask(ASHA, ASHA.init(), one, PAUSES, Slots(1, 9), (0, 4)))
    assert waiting(of, PAUSED[1], one)[0].startswith("waits: rank 2 of 9 by value at step 1, needs ")
    assert waiting(of, PAUSED[1], other, lambda: "it waits for a turn") == ["it waits for a turn"]


@pytest.mark.parametrize("study", ["s", "another"])
def test_where_nothing_is_known_it_is_said_what_to_do(study: str, tmp_path: Path) -> None:
    if study == "another":
        allocate(ASHA, tmp_path, 4, replace(SEEN, study=study))
    (said,) = waiting(session(tmp_path), PAUSED[1], SEEN)
    assert said == (
        "no slot was given away by this process, and it keeps no decision log that tells of others: give the process "
        "that allocates and this one the same decision_log=FOLDER"
    )
    assert waiting(session(), PAUSED[1], SEEN, lambda: "it waits for a turn") == ["it waits for a turn"]
