"""The rewards of turns that the bandits over groups learn from."""

from __future__ import annotations

import pytest
from kit.builders import goal, snapshot, trial
from kit.curricula import ACCOUNT, NINTH, asked, even, paused, study

from lcsearch.allocation.allocators.sec import SelfEvolving
from lcsearch.allocation.contract import Slots
from lcsearch.study import Status

WHO = SelfEvolving(NINTH, floor=0.0, temperature=1e-6)


def test_a_turn_is_rewarded_by_the_change_of_p_for_its_cost() -> None:
    # 5: P(L < 1) = 1/2, 6: 1/4. A new one has 1/4: trial 5 brought |1/2 - 1/4| in 1 of 9 steps; 6 is past that turn.
    made = asked(WHO, even(0, 4), even(0.5, 1.5), n_new=0, free=1)
    assert made.state["memory"] == {"new": pytest.approx(0.25 * 9)}
    assert made.state["p"] == {"5": [1, 0.5], "6": [3, 0.25]}
    state = {**made.state, "turns": {"5": ["step 1", 0.5, 1.0]}}
    back = snapshot(goal(horizon=9), [], [paused("5", 3, 2.0), paused("6", 3, 1.0)])
    asks = WHO.questions(state, back, Slots(1, 1, ACCOUNT))
    assert [query.trial.uid for query in asks] == ["5"], "6 has not moved"
    made = asked(WHO, even(0.8, 1.8), at=back, state=state, free=1)
    assert made.state["memory"] == pytest.approx({"new": 2.25, "step 1": 0.3 * 9 / 2})  # from .5 to .2 in 2 steps
    assert made.moves[0].uid is None, "the group of the largest Q"
    assert made.moves[0].why == "a new configuration: what turns in its group bring, the best being 1, 1"


def test_the_turn_that_a_group_gets_is_its_first_in_line() -> None:
    state = {"memory": {"new": 0.1, "step 1": 2.0}, "p": {"5": [1, 0.5], "6": [3, 0.25]}, "turns": {}}
    made = asked(WHO, state=state, free=1)
    assert [(move.uid, move.pause_at) for move in made.moves] == [("5", 3.0)]
    assert made.state["turns"] == {"5": ["step 1", 0.5, 1.0]}
    assert made.state["memory"] == state["memory"]


def test_of_a_trial_that_has_ended_p_is_0_or_1() -> None:
    turns = {"0": ["step 3", 0.5, 3.0], "1": ["step 3", 0.5, 3.0], "2": ["step 1", 0.5, 1.0]}
    state = {"memory": {}, "p": {"5": [1, 0.5], "6": [3, 0.25]}, "turns": turns}
    done = [
        trial("0", [0.5] * 9, first=1), trial("1", [1.5] * 9, first=1),
        trial("2", [9.0] * 2, Status.FAILED, first=1),
    ]  # fmt: skip
    made = asked(SelfEvolving(NINTH, alpha=1.0), at=snapshot(goal(horizon=9), done, study().live), state=state)
    assert made.state["memory"] == pytest.approx({"step 3": 0.5 * 9 / 6, "step 1": 0.5 * 9})
    assert made.state["turns"].keys() <= {"5", "6"}
