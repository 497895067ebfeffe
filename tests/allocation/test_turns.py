from __future__ import annotations

import pytest

from lcsearch.allocation.turns import verdict_at
from lcsearch.stopping.verdict import Verdict

STOP, GO, PAUSE = Verdict.STOP, Verdict.CONTINUE, Verdict.PAUSE


@pytest.mark.parametrize(
    ("looked", "step", "pause_at", "verdict"),
    [
        (GO, 8, 9, GO),
        (GO, 9, 9, PAUSE),
        (GO, 12, 9, PAUSE),  # reports are sparse
        (STOP, 8, 9, STOP),
        (STOP, 9, 9, STOP),  # both at one report
        (GO, 49, 50, GO),  # to its end
        (GO, 50, 50, GO),
        (GO, 50, 49.5, GO),  # there is nothing to come back for
    ],
)
def test_at_a_report(looked: Verdict, step: float, pause_at: float, verdict: Verdict) -> None:
    assert verdict_at(looked, step, pause_at, horizon=50) is verdict
