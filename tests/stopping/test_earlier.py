"""Lines that an earlier lcsearch stored are read, and told again word for word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lcsearch.stopping.earlier import decision_of
from lcsearch.stopping.verdict import Reason

from .test_decision import STOP


@pytest.mark.parametrize(
    "line",
    [
        STOP.line,
        replace(STOP, bound=True, reason=Reason.BOUND).line,
        replace(STOP, standing=None).line,
        "step 9: P(beat) < 0.01 % (was 0 % at step 8.5), threshold 0.125 %, incumbent -1e+30 of trial a, b rank, "
        "rank 1 of 7 at this step, 9 of 56 with those that ended earlier",
        "step 1e+06: P(beat) 4.99 % (was 1.2 % at step 900000), threshold 5 %, incumbent nan of trial 3",
        "step 3: diverged, the last 3 reports were not finite (latest nan)",
    ],
)
def test_a_line_is_read(line: str) -> None:
    decision = decision_of(line)
    assert decision is not None
    assert decision.line == line


def test_its_facts() -> None:
    read = decision_of(STOP.line, "12")
    assert read is not None
    assert read.now is not None
    assert read.before is not None
    assert read.incumbent is not None
    assert (read.trial, read.step, read.reason, read.standing) == ("12", 9.0, Reason.BELOW, STOP.standing)
    assert (read.now.p, read.now.threshold, read.before.p, read.before.step) == (0.0042, 0.05, 0.012, 8.0)
    assert (read.incumbent.value, read.incumbent.uid) == (0.1235, "3")


@pytest.mark.parametrize("line", ["", "median pruner at epoch 1: 1", "step x: P(beat) 1 %", f"{STOP.line} or so"[3:]])
def test_what_is_no_such_line_is_left(line: str) -> None:
    assert decision_of(line) is None
