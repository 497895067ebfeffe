from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.allocators import PAUSES, heard
from kit.builders import goal, props, snapshot, trial
from kit.doubles import NormalAroundBest

from lcsearch.allocation.ask import ask
from lcsearch.allocation.contract import Account, Allocation, Move, Resources, Slots, Time, Wait
from lcsearch.allocation.judge import judge
from lcsearch.allocation.named import KINDS, allocator
from lcsearch.allocation.receipt import AllocationReceipt
from lcsearch.curves import Curve
from lcsearch.errors import InvalidValue
from lcsearch.study import Status, Trial

DONE = [trial("0", [1.0] * 28, first=0), trial("1", [2.0] * 28, first=0), trial("2", [2.0, math.nan], Status.STOPPED)]
LIVE = [
    trial("3", [1.0, math.nan, 0.8], Status.PAUSED, first=1),
    trial("4", [1.0], Status.PAUSED, first=1),
    trial("5", [1.1], Status.PAUSED, first=1),
    trial("6", [1.2] * 4, Status.RUNNING, first=1),
    Trial("7", status=Status.PAUSED),
]
SEEN = snapshot(goal(horizon=27), DONE, LIVE)
SLOTS = Slots(1, 9, Account(900, 90, 0.5, 0.25, paid=3.5), "4")


def later(one: Trial) -> Trial:
    """The trial after it has gone on."""
    steps, values = one.curve.reports()
    last = max(one.curve.last_step, 0.0)
    curve = Curve.of([*steps, last + 1, last + 2], [*values, 0.5, 0.4])
    return replace(one, curve=curve, status=Status.COMPLETE)


TIMED = SLOTS._replace(account=SLOTS.account._replace(time=Time(150.0, 4.0, {"3": 7.0, "4": 0.5, "5": 0.5, "0": 0.5})))


@pytest.mark.parametrize("slots", [SLOTS, TIMED], ids=["steps", "seconds"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_allocation_can_be_made_again_from_its_receipt_and_later_curves(kind: str, slots: Slots) -> None:
    one = allocator(kind)
    asked = ask(one, one.init(), SEEN, PAUSES, slots, (7, 3))
    made = judge(asked, heard([NormalAroundBest()], SEEN, asked.queries))
    text = json.dumps(AllocationReceipt.of(asked, made).to_record(), allow_nan=False)
    back = AllocationReceipt.from_record(json.loads(text))
    assert back == AllocationReceipt.of(asked, made)
    trials = {t.uid: t for t in [*DONE, *map(later, LIVE)]}
    again = back.asked(allocator(back.allocator, **back.knobs), SEEN.goal, trials)
    assert [(q.trial.uid, q.kind, q.step) for q in again.queries] == [
        (q.trial.uid, q.kind, q.step) for q in asked.queries
    ]
    assert judge(again, heard([NormalAroundBest()], again.snapshot, again.queries)) == made


def test_a_receipt_keeps_the_paces_it_was_made_with_and_none_where_there_were_none() -> None:
    one = allocator("asha", first=1 / 27)

    def record(slots: Slots) -> Any:
        asked = ask(one, None, SEEN, PAUSES, slots, (7, 3))
        return AllocationReceipt.of(asked, judge(asked, {})).to_record()

    assert record(TIMED)["account"]["time"] == [150.0, 4.0, [[0.5, ["0", "4-5"]], [7.0, ["3"]]]]
    assert record(SLOTS)["account"] == {
        "total": 900, "spent": 90, "checkpoint": 0.5, "resume": 0.25, "promised": 0.0, "paid": 3.5
    }  # fmt: skip
    assert [move["why"] for move in record(TIMED)["moves"]] == ["on to step 1; about 11 s"]
    assert record(TIMED)["against"][-1][:4] == ["3", 1, 1, "seconds to step 27"]
    told = AllocationReceipt.from_record({**record(TIMED), "moves": [{**record(TIMED)["moves"][0], "uid": None}]})
    assert told.lines == ["a new configuration until step 1: on to step 1; about 11 s"]


def test_a_receipt_tells_the_story() -> None:
    one = allocator("asha", first=1 / 27)
    asked = ask(one, None, SEEN, PAUSES, SLOTS, (7, 3))
    receipt = AllocationReceipt.of(asked, judge(asked, {}))
    assert receipt.number == 3
    assert receipt.lines == ["trial 3 until step 9: rank 1 of 4 at step 3"]
    assert receipt.story("3") == (
        "allocation 3 (asha): got a slot until step 9: rank 1 of 4 at step 3 "
        "(before 3 others, the nearest trial 4: rank 3 of 7)"
    )
    assert receipt.story("5") == (
        "allocation 3 (asha): waits: rank 4 of 7 by value at step 1, needs rank 2 or 5 more trials there"
    )
    assert receipt.story("6") is None


def test_everything_a_move_may_name_is_kept() -> None:
    made = Allocation(
        {"a": [1]},
        (Move(None, 3.0, 0.5, "why", 0.25, {"lr": 0.1, "kind": "sgd"}, Resources(2, 0.5)),),
        (("3", "cut"),),
        (Wait("4", 1, 2, "value", "more"),),
    )
    asked = ask(allocator("uniform"), {"last": None}, SEEN, PAUSES, SLOTS, (0, 0))
    receipt = AllocationReceipt.of(asked, made, "it failed")
    assert AllocationReceipt.from_record(json.loads(json.dumps(receipt.to_record()))) == receipt


FIELDS = ["study", "allocator", "key", "state", "free", "account", "live", "moves", "stops", "against"]
PLAIN = st.none() | st.booleans() | st.floats() | st.text(max_size=5)
ANYTHING = st.recursive(
    PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(FIELDS), inner), max_leaves=8
)


@props
@given(ANYTHING)
def test_what_is_no_receipt_is_refused(record: Any) -> None:
    with pytest.raises(
        InvalidValue, match=r"^AllocationReceipt.from_record: expected the record of an allocation, got "
    ):
        AllocationReceipt.from_record(record)


@props
@given(st.lists(st.one_of(st.integers(0, 30).map(str), st.text("ab-_01", min_size=1, max_size=6)), max_size=40))
def test_finished_trials_are_packed_in_their_order(uids: list[str]) -> None:
    asked = ask(allocator("asha"), None, SEEN, PAUSES, SLOTS, (0, 0))
    receipt = replace(AllocationReceipt.of(asked, judge(asked, {})), finished=tuple(uids))
    assert AllocationReceipt.from_record(json.loads(json.dumps(receipt.to_record()))).finished == tuple(uids)


def test_a_thousand_finished_trials_are_one_word() -> None:
    asked = ask(allocator("asha"), None, SEEN, PAUSES, SLOTS, (0, 0))
    receipt = replace(AllocationReceipt.of(asked, judge(asked, {})), finished=(*map(str, range(1000)), "07", "8"))
    assert receipt.to_record()["finished"] == ["0-999", "07", "8"]


@pytest.mark.parametrize("steps", [[3.0, 9.0], [3.0, 6.0, 9.0], [0.25, 1.5, 9.0]])
def test_a_report_of_an_earlier_step_that_came_later_changes_no_receipt(steps: list[float]) -> None:
    """Where the steps of then are evenly spaced they are known; else it is said that they are not."""
    one, late = allocator("asha", first=1 / 27), [1.0, 2.0]
    first = trial("8", [0.3, 0.2, 0.1][: len(steps)], Status.PAUSED, steps=steps)
    asked = ask(one, None, replace(SEEN, live=(*LIVE, first)), PAUSES, SLOTS, (7, 3))
    text = json.dumps(AllocationReceipt.of(asked, judge(asked, {})).to_record())
    back = AllocationReceipt.from_record(json.loads(text))
    now = trial("8", [5.0, 5.0, *first.curve.values], Status.PAUSED, steps=[*late, *steps])
    trials = {t.uid: t for t in [*DONE, *LIVE]}
    if back.live["8"].first is not None:
        again = back.asked(one, SEEN.goal, {**trials, "8": now})
        assert again.snapshot.live[-1].curve.digest == first.curve.digest
        assert judge(again, {}) == judge(asked, {})
    else:
        assert steps[0] == 0.25
        with pytest.raises(InvalidValue) as wrong:
            back.asked(one, SEEN.goal, {**trials, "8": now})
        assert str(wrong.value) == (
            "again(trials=): expected the 3 reports up to step 9 that trial 8 had then, got 5. Reports of earlier "
            "steps came later, or some are gone: this decision cannot be made again."
        )
    gone = {**trials, "8": replace(first, curve=first.curve.cut(steps[0] / 2))}
    with pytest.raises(InvalidValue, match=r"expected the . reports up to step 9 that trial 8 had then, got 0\."):
        back.asked(one, SEEN.goal, gone)


def test_a_receipt_of_an_earlier_version_tells_how_many_reports_there_were() -> None:
    asked = ask(allocator("asha"), None, SEEN, PAUSES, SLOTS, (0, 0))
    record = AllocationReceipt.of(asked, judge(asked, {})).to_record()
    stood = {uid: text.partition("~")[0] for uid, text in record["live"].items()}
    assert stood == {"3": "P3@1:3", "4": "P1@1:1", "5": "P1@1:1", "6": "R4@1:4", "7": "P0"}
    record["live"] = {uid: text.partition("@")[0] for uid, text in record["live"].items()}
    back = AllocationReceipt.from_record(record)
    again = back.asked(allocator("asha"), SEEN.goal, {t.uid: t for t in [*DONE, *map(later, LIVE)]})
    assert [t.curve.digest for t in again.snapshot.live] == [t.curve.digest for t in LIVE]
    gone = {t.uid: t for t in [*DONE, *LIVE, replace(LIVE[0], curve=LIVE[0].curve.cut(1))]}
    with pytest.raises(InvalidValue, match=r"expected the 3 reports that trial 3 had then, got 1\."):
        back.asked(allocator("asha"), SEEN.goal, gone)


def test_a_trial_that_is_gone_is_named() -> None:
    asked = ask(allocator("asha"), None, SEEN, PAUSES, SLOTS, (0, 0))
    receipt = AllocationReceipt.of(asked, judge(asked, {}))
    with pytest.raises(InvalidValue, match=r"^again\(trials=\): expected every trial that the receipt names, got "):
        receipt.asked(allocator("asha"), SEEN.goal, {})
