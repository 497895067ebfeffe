"""The same seed does the same on a busy machine: no clock stands on the way to a verdict."""

from __future__ import annotations

import os

from kit.load import told

BUSY = 2 * (os.cpu_count() or 1)


def test_the_same_stops_on_a_busy_machine_and_by_any_clock() -> None:
    """Once one script and one seed gave 20 stops after 2376 steps, and 33 after 1850."""
    quiet = told()
    assert sum(state == "PRUNED" for _, state, *_ in quiet["trials"]) >= 10
    assert quiet["looks"]["SPACED"] > 10
    assert quiet["failed"] == {}
    assert told(load=BUSY) == quiet
    assert told("jumping", pause=0.0) == quiet


def test_late_answers_are_counted_and_stop_nothing() -> None:
    """The one thing a clock can do: an answer after the deadline holds the stop, and is told wherever people look."""
    late = told("racing", pause=0.0)
    assert {state for _, state, *_ in late["trials"]} == {"COMPLETE"}
    n = late["looks"]["ABSENT"]
    assert late["failed"] == {"late opinion": n}
    assert f"{n:6d} failed open: late opinion" in late["why_not"].splitlines()[-1]
    assert f"{n} looks failed open (the trial went on: late opinion {n})" in late["report"]
