"""Rules of other libraries as E2 has them: Ax's default and one epoch, by hand on a few trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from kit.builders import goal, mirrored, mirrored_trial, snapshot, trial
from kit.scripts import neighbour

from lcsearch.curves import Curve
from lcsearch.data.task import Run, Task
from lcsearch.goal import Goal
from lcsearch.stopping.gates import Event
from lcsearch.study import Snapshot, Status

ax_rule, top_k = (neighbour("e2_stop", name) for name in ("ax_rule", "top_k"))
NAN = math.nan

# Ax: six steps, so that .2 and .9 of them lie at the second and before the last.

DONE: dict[str, list[float]] = {
    "0": [9, 8, 7, 6, 5, 4],
    "1": [9, 7, 6, 5, 4, 3],
    "2": [9, 6, 5, 4, 3, 2],
    "3": [9, 5, 4, 3, 2, 1],
}


def study(*more: tuple[str, Sequence[float]], n: int = 4) -> Snapshot:
    done = [trial(uid, values, first=1) for uid, values in list(DONE.items())[:n]]
    return snapshot(goal(horizon=6), [*done, *(trial(uid, v, Status.STOPPED, first=1) for uid, v in more)])


def says(values: Sequence[float], seen: Snapshot | None = None) -> str:
    """STOP or CONTINUE and why, the same when everything is mirrored."""
    seen = study() if seen is None else seen
    live = trial("9", values, Status.RUNNING, first=1)
    look = Event(live, live.curve.last_step)
    found = ax_rule.AxDefault().check(seen, look).decision
    up = ax_rule.AxDefault().check(mirrored(seen), Event(mirrored_trial(live), look.step)).decision
    assert (up.verdict, up.detail) == (found.verdict, found.detail)
    return f"{found.verdict.name} {found.detail}"


def test_worse_than_the_median_at_its_step_is_stopped() -> None:
    # At step 3 stand 7, 6, 5, 4 and itself: with 6.5 the median is 6, and three are better.
    assert says([9, 8, 6.5]) == "STOP ax: worse than the median at this step"
    assert says([9, 8, 6.0]).startswith("CONTINUE")  # as good as the median
    assert says([9, 8, 5.5]).startswith("CONTINUE")


def test_stopped_trials_count_among_the_others() -> None:
    # Two that were stopped at step 3 with worse values lift the median from 6 to 7.
    assert says([9, 8, 6.5], study(("4", [9, 9, 9]), ("5", [9, 9, 9]))).startswith("CONTINUE")


def test_the_best_three_run_on_and_ties_share_a_rank() -> None:
    seen = study(("4", [9, 9, 4]), ("5", [9, 9, 4]), ("6", [9, 9, 4]))  # 4 four times, 5, 6, 7: the median is 4
    assert says([9, 8, 5.5], seen).startswith("CONTINUE")  # worse than the median, and third
    assert says([9, 8, 6.5], seen).startswith("STOP")


@pytest.mark.parametrize(
    ("values", "n", "why"),
    [
        ([9], 4, "outside the steps"),  # 0 of the range of steps
        ([9, 9, 9, 9, 9, 9], 4, "outside the steps"),  # all of it
        ([9, 8, 6.5], 2, "2 trials have finished"),
        ([NAN, NAN, NAN], 4, "no value"),
    ],
)
def test_what_holds_it(values: list[float], n: int, why: str) -> None:
    assert says(values, study(n=n)).startswith(f"CONTINUE ax: {why}")


def test_nothing_is_stopped_where_the_best_would_have_been() -> None:
    # The last one ended best, and was the worst of six in between.
    done = [trial(uid, values, first=1) for uid, values in DONE.items()]
    late = [trial("4", [9, 9, 9, 9, 9, 0], first=1)]
    seen = snapshot(goal(horizon=6), [*done, *late])
    assert says([9, 8, 7.5], seen) == "CONTINUE ax: it would have stopped the best trial"
    assert says([9, 8, 7.5], snapshot(goal(horizon=6), done)).startswith("STOP")


def test_values_between_reports_are_interpolated_and_beyond_them_unknown() -> None:
    curves = [trial("0", [3, NAN, 1, 0], first=1), trial("1", [5, 4], first=1), trial("2", [NAN, 6], first=1)]
    steps, losses = ax_rule.aligned(curves, 1.0)
    assert steps.tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(losses, [[3, 5, NAN], [2, 4, 6], [1, NAN, NAN], [0, NAN, NAN]])


# One epoch

CURVES: dict[str, list[float]] = {"a": [5, 1, 1], "b": [4, 3, 2], "c": [3, 2, 2], "d": [NAN, 0, 0], "e": [6, 6, 6]}


@pytest.fixture
def task() -> Task:
    runs = [Run(uid, Curve.of([1, 2, 3], values), np.arange(1.0, 4.0)) for uid, values in CURVES.items()]
    return Task("made", Goal("loss", "minimize", 3), tuple(runs))


def test_the_best_k_after_one_report_run_on(task: Task) -> None:
    two = top_k.TopK(2)
    assert two.kept(task, range(5)) == [2, 1]
    assert two.spent(task, range(5)) == 3 + 3 + 1 + 1 + 1
    assert two.lost(task, range(5), 1) == 1  # d, which began with no number
    assert two.lost(task, range(5), 2) == 2  # and a
    assert two.lost(task, [1, 2, 4], 1) == 0
    assert two.wrong(task, range(5)) == 2  # d and a; e would not have been better than 2


def test_a_search_begins_as_many_as_leave_the_k_their_length(task: Task) -> None:
    # Three begun cost 3, and one of them, c, 2 more.
    assert top_k.TopK(1).trace(task, range(5), 5.0) == [(1, 5 / 2), (2, 4 / 2), (3, 3 / 2), (4, 2 / 2)]
    assert top_k.TopK(1).trace(task, range(5), 7.0)[-1] == (6, 2 / 2)  # all five, then c


def test_a_row_has_what_others_have(task: Task) -> None:
    row: dict[str, Any] = top_k.TopK(2).row(task, range(5), 4, 2)
    assert row["spent"] == (3 + 3 + 1 + 1) / 12
    assert (row["stops"], row["looks"], row["lost_1"]) == (2, 4, 1)
    assert row["trace"][0][0] == round(1 / 3, 6)
