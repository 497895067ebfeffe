from __future__ import annotations

import pytest
from kit.builders import goal, snapshot
from kit.curricula import paused, study

from lcsearch.allocation.groups import Groups
from lcsearch.allocation.rungs import Ladder
from lcsearch.errors import InvalidValue
from lcsearch.study import Trial

RUNGS = (1.0, 3.0, 9.0)


def groups(by: str, *live: Trial, n: int = 3) -> dict[str, str]:
    at = snapshot(goal(horizon=9), [], live) if live else study()
    return dict(Groups(by, n).of(Ladder(at, RUNGS, 3.0)))


def test_by_rung() -> None:
    assert groups("rung") == {"5": "step 1", "6": "step 3"}


def test_by_a_category_and_by_regions_of_a_number() -> None:
    live = [paused(str(i), 1, 1.0, params={"opt": "adam" if i % 2 else "sgd", "lr": float(i)}) for i in range(4)]
    live.append(paused("4", 1, 1.0, params={}))
    assert groups("opt", *live) == {
        "0": "opt 'sgd'", "1": "opt 'adam'", "2": "opt 'sgd'", "3": "opt 'adam'", "4": "no opt"
    }  # fmt: skip
    # 0, 1, 2, 3 in two halves, at 1.5
    assert groups("lr", *live, n=2) == {
        **dict.fromkeys("01", "lr, region 1 of 2"), **dict.fromkeys("23", "lr, region 2 of 2"), "4": "no lr"
    }  # fmt: skip
    assert groups("flag", paused("0", 1, 1.0, params={"flag": True})) == {"0": "flag True"}


def test_who_stands_below_the_first_rung_has_none() -> None:
    assert groups("rung", paused("0", 0, 1.0), paused("1", 1, 1.0)) == {"1": "step 1"}


def test_what_cannot_be() -> None:
    with pytest.raises(InvalidValue, match=r"^groups: expected 'rung' or the name of a parameter, got ''.$"):
        Groups("")
    with pytest.raises(InvalidValue, match=r"^n_regions: expected an integer >= 2, got 1.$"):
        Groups("lr", 1)
