from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kit.allocators import PAUSES, RUNS_ON, Says
from kit.builders import goal, snapshot, trial

from lcsearch.allocation.allocators.greedy import GreedyGain
from lcsearch.allocation.ask import ask
from lcsearch.allocation.contract import Abilities, Allocation, Move, Slots
from lcsearch.allocation.judge import judge
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Answers
from lcsearch.study import Status, Trial

SEEN = snapshot(
    goal(),
    [trial("0", [1.0] * 11), trial("1", [2.0] * 11)],
    [
        trial("2", [1.0, 0.9, 0.8], Status.PAUSED, first=1),
        trial("3", [1.0], Status.PAUSED),
        trial("4", [1.0], Status.RUNNING),
        Trial("5", status=Status.PAUSED),
    ],
)
HELP = "The allocator is at fault: allocate with RunToEnd() instead."


def done(moves: Any = (), stops: Any = (), slots: Slots = Slots(3, 2), abilities: Abilities = PAUSES) -> Allocation:  # noqa: B008
    return judge(ask(Says(moves, stops), "state", SEEN, abilities, slots, (0, 0)), {})


def test_what_is_legal_comes_back_as_it_was() -> None:
    moves = (Move("2", 4), Move("5", 0.5, 3.0, "why"), Move(None, 10))
    stops = (("3", "hopeless"),)
    assert done(moves, stops) == Allocation("state", moves, stops)
    assert done() == Allocation("state", ())
    assert done((Move(None, 10),) * 2, abilities=RUNS_ON).moves == (Move(None, 10),) * 2
    assert done((Move("3", np.float64(1.0), np.float64(0.5)),)).moves[0].pause_at == 1.0


@pytest.mark.parametrize(
    ("moves", "says"),
    [
        ((Move("7", 4),), ".moves[0].uid: expected the uid of a PAUSED trial, got '7'."),
        ((Move("4", 4),), ".moves[0].uid: expected the uid of a PAUSED trial, got '4'."),
        ((Move("0", 4),), ".moves[0].uid: expected the uid of a PAUSED trial, got '0'."),
        ((Move(2, 4),), ".moves[0].uid: expected the uid of a PAUSED trial, got 2."),  # type: ignore[arg-type]
        ((Move("2", 4), Move("2", 4)), ".moves[1].uid: expected no trial twice, got '2'."),
        ((Move("2", 3),), ".moves[0].pause_at: expected a step in (3, 10], got 3."),
        ((Move("2", 2.5),), ".moves[0].pause_at: expected a step in (3, 10], got 2.5."),
        ((Move("2", 10.5),), ".moves[0].pause_at: expected a step in (3, 10], got 10.5."),
        ((Move("2", float("nan")),), ".moves[0].pause_at: expected a step in (3, 10], got nan."),
        ((Move(None, 0),), ".moves[0].pause_at: expected a step in (0, 10], got 0."),
        ((Move("5", 11),), ".moves[0].pause_at: expected a step in (0, 10], got 11."),
        ((Move("2", 4, float("nan")),), ".moves[0].score: expected a finite number, got nan."),
        ((Move(None, 1),) * 3, ".moves[2]: expected at most 2 new configurations, got 3."),
        ((Move(None, 1), Move("2", 4), Move("3", 4), Move("5", 4)), ".moves: expected at most 3 moves, got 4."),
        ((("2", 4),), ".moves[0]: expected a Move, got ('2', 4)."),
    ],
)
def test_a_move_that_is_not_legal(moves: Any, says: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        done(moves)
    assert str(caught.value) == f"says.allocate(){says} {HELP}"


@pytest.mark.parametrize("state", [np.int64(3), {"to": float("nan")}, {1, 2}])
def test_a_state_that_json_does_not_have(state: Any) -> None:
    with pytest.raises(InvalidValue, match=r"says.allocate\(\).state: expected plain values that JSON has, got "):
        judge(ask(Says(), state, SEEN, PAUSES, Slots(3, 2), (0, 0)), {})


@pytest.mark.parametrize(
    ("moves", "stops", "says"),
    [
        ((), (("4", "x"),), ".stops[0]: expected the uid of a PAUSED trial, got '4'."),
        ((), (("2", "x"), ("2", "y")), ".stops[1]: expected no trial twice, got '2'."),
        ((Move("2", 4),), (("2", "x"),), ".stops[0]: expected no trial twice, got '2'."),
    ],
)
def test_a_stop_that_is_not_legal(moves: Any, stops: Any, says: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        done(moves, stops)
    assert str(caught.value) == f"says.allocate(){says} {HELP}"


@pytest.mark.parametrize(
    ("move", "says"),
    [
        (Move("2", 10), ".moves[0].uid: expected new configurations only, for nothing can be resumed, got '2'."),
        (Move(None, 9), ".moves[0].pause_at: expected the horizon 10, for nothing can pause, got 9."),
    ],
)
def test_what_cannot_pause_is_not_asked_to(move: Move, says: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        done((move,), abilities=RUNS_ON)
    assert str(caught.value) == f"says.allocate(){says} {HELP}"


def test_no_allocation_at_all() -> None:
    class Mute(Says):
        def allocate(self, *args: Any) -> Any:
            return None

    with pytest.raises(InvalidValue, match=r"^says.allocate\(\): expected an Allocation, got None\. "):
        judge(ask(Mute(), None, SEEN, PAUSES, Slots(1, 1), (0, 0)), {})


@pytest.mark.parametrize("slots", [Slots(0, 3), Slots(1, -1)])
def test_slots_that_cannot_be(slots: Slots) -> None:
    with pytest.raises(InvalidValue, match=r"^ask\(slots=\): expected at least 1 free slot and no negative"):
        done(slots=slots)


def test_every_question_needs_an_answer_and_absent_is_one() -> None:
    asked = ask(GreedyGain(), None, SEEN, PAUSES, Slots(1, 1), (0, 0))
    n = len(asked.queries)
    assert n == 3
    short: Answers = {"short": [Absent.FAILED] * (n - 1)}
    with pytest.raises(InvalidValue, match=r"^judge\(forecasts='short'\): expected 3 forecasts, got 2\.$"):
        judge(asked, short)
    assert judge(asked, {"dead": [Absent.FAILED] * n}).moves
