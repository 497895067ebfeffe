from __future__ import annotations

import numpy as np
import pytest
from kit.builders import goal, snapshot, trial

from lcsearch.stopping.axis import ENOUGH, odd_axis
from lcsearch.stopping.notices import notices
from lcsearch.study import Status, Trial

SAID = " Report a step that every trial counts from its own start: epochs, or seconds since it began"
NOW = 1_795_000_000


def at(uid: int, steps: list[float], status: Status = Status.COMPLETE) -> Trial:
    return trial(str(uid), [1.0 / (i + 1) for i in range(len(steps))], status, steps=steps)


def counting(start: float, n: int = 50, by: float = 1.0) -> list[float]:
    return [start + by * i for i in range(n)]


def seen(ended: list[list[float]], live: list[list[float]] | None = None, horizon: float = 50) -> str | None:
    running = [at(100 + i, steps, Status.RUNNING) for i, steps in enumerate(live or [])]
    of = snapshot(goal(horizon=horizon), [at(i, steps) for i, steps in enumerate(ended)], running)
    said = odd_axis(of)
    told = [notice.text for notice in notices(of) if notice.key == "axis"]
    assert told == ([] if said is None else [said])
    assert said is None or "horizon" not in [notice.key for notice in notices(of)], (
        "the last of such steps is no advice"
    )
    return said


def test_always_the_same_step() -> None:
    assert seen([[0.0]] * 6) == "each of 6 trials reported at step 0 only, so there is no curve to look at." + SAID
    assert "at one step only" in str(seen([[10.0 + i] for i in range(6)]))
    assert seen([[0.0]] * 5 + [[0.0, 1.0]]) is None


def test_what_follows_from_odd_steps_is_not_told_beside_them() -> None:
    """Of reports at step 0 a study keeps the first, so what is returned stands in no curve: that was told, too."""
    ended = [trial(str(i), [5.0 + i], returned=1.0 - 0.1 * i) for i in range(6)]
    assert [notice.key for notice in notices(snapshot(goal(horizon=50), ended))] == ["axis"]


@pytest.mark.parametrize("unit", [1.0, 1e3, 1e6, 1e9])
def test_the_time_of_day(unit: float) -> None:
    """One after the other, and eight at a time."""
    for gap in (300, 1):
        said = seen([counting(unit * (NOW + gap * i), by=unit * 5) for i in range(6)])
        assert said == (
            f"steps are the time of day (trial 0 began at {unit * NOW:.0f}): no two trials share a step, and next to "
            "nothing can be stopped." + SAID
        )


def test_the_time_of_day_of_trials_that_mostly_end_within_a_second() -> None:
    said = seen([*([NOW + 2.0 * i] for i in range(5)), [NOW + 10.0, NOW + 11.0]], horizon=40)
    assert str(said).startswith(f"steps are the time of day (trial 0 began at {NOW}): ")


def test_tokens_of_trials_that_mostly_report_once_are_no_time_of_day() -> None:
    assert seen([[1.5e9]] * 5 + [[1.5e9, 3e9]], horizon=3e9) is None


def test_one_counter_for_all_trials() -> None:
    assert seen([counting(50 * i) for i in range(6)]) == (
        "steps go on from trial to trial (trial 0 reported steps 0 to 49, trial 1 reported steps 50 to 99): no two "
        "trials share a step, and next to nothing can be stopped." + SAID
    )
    # four workers share it: trials take every fourth step, and four of them begin together
    shared = [counting(200 * (i // 4) + i % 4, by=4.0) for i in range(20)]
    assert seen(shared[:5]) is None, "too early to tell"
    assert "go on from trial to trial" in str(seen(shared))


def test_counting_down() -> None:
    ended = [counting(0)] * 6
    assert seen(ended, [[49.0, 48.0, 47.0]]) == (
        "steps count down (trial 100 began with steps 47 to 49, finished ones have reported steps 0 to 49): a trial's "
        "first report seems to be its last." + SAID
    )
    assert "began with step 49, finished ones" in str(seen(ended, [[49.0]]))
    assert seen(ended, [[49.0, 48.0], counting(0, 3)]) is None
    assert seen(ended, [counting(0)]) is None
    assert seen(ended) is None
    assert "trial 101 began with step 49" in str(seen(ended, [counting(0), [49.0]])), "one that has reported all of it"
    stopped = [at(i, steps) for i, steps in enumerate(ended)] + [at(7, [48.0, 49.0], Status.STOPPED)]
    assert str(odd_axis(snapshot(goal(horizon=50), stopped))).startswith(
        "steps count down (trial 7 began with steps 48 to 49, finished ones have reported steps 0 to 49)"
    )


def test_axes_that_are_some() -> None:
    rng = np.random.default_rng(0)
    assert seen([counting(0)] * 20) is None
    assert seen([counting(1, int(n)) for n in rng.integers(1, 60, 20)]) is None, "trials end when they like"
    assert (
        seen([counting(float(rng.uniform(1, 3)), by=float(rng.uniform(1, 3))) for _ in range(20)], horizon=90) is None
    )
    assert seen([counting(1e9, by=1e9)] * 20, horizon=5e10) is None, "tokens"
    assert seen([counting(0)] * 10 + [counting(30, 20)] * 5) is None, "some were warm-started"
    assert seen([[]] * 9 + [counting(0)] * (ENOUGH - 1)) is None
    assert seen([[0.0]] * (ENOUGH - 1)) is None
