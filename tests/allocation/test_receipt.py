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
from lcsearch.allocation.contract import Account, Allocation, Move, Resources, Slots, Wait
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


@pytest.mark.parametrize("kind", KINDS)
def test_an_allocation_can_be_made_again_from_its_receipt_and_later_curves(kind: str) -> None:
    one = allocator(kind)
    asked = ask(one, one.init(), SEEN, PAUSES, SLOTS, (7, 3))
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


def test_a_trial_that_is_gone_is_named() -> None:
    asked = ask(allocator("asha"), None, SEEN, PAUSES, SLOTS, (0, 0))
    receipt = AllocationReceipt.of(asked, judge(asked, {}))
    with pytest.raises(InvalidValue, match=r"^asked\(trials=\): expected every trial that the receipt names, got "):
        receipt.asked(allocator("asha"), SEEN.goal, {})
