from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import goal, props, trial

from lcsearch.curves import Curve
from lcsearch.goal import Direction
from lcsearch.stopping.rules import Rank, epsilon_of, has_diverged, telling, threshold_for
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import FinishedTrials, Status


@pytest.mark.parametrize(("n", "threshold"), [(0, 0.01), (7, 0.01), (8, 0.05), (100, 0.05)])
def test_the_threshold_is_stricter_below_a_few_observations(n: int, threshold: float) -> None:
    assert threshold_for(0.05, n, few=8, factor=0.2) == pytest.approx(threshold)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize(
    ("values", "others", "n"),
    [
        ([9, 9, 8, 8, 8, 8, 7, 7, 7], [[9, 8, 8, 5], [7, 7, 7, 6]], 3),  # best values so far: each counts once
        ([9, 9, 8, 8, 8, 8, 7, 7, 7], [[9, 8, 8, 5], [7, 7, 7.5, 6]], 9),  # another trial got worse: no best so far
        ([9, 9, 8, 8, 8, 8, 7, 7, 7], [[9, 8, 8, 5], [9, 8, 7, 6]], 9),  # another one has no plateau
        ([9, 9, 8, 8, 8, 8, 7, 7, 7.5], [[9, 8, 8, 5]], 9),  # it got worse itself
        ([9, 8, 7, 6, 5, 4, 3, 2], [[9, 8, 8, 5]], 8),  # no plateau
        ([9, 9, 9, 9, 9, 9, 9, 9], [[9, 8, 8, 5]], 8),  # still: it has a rule of its own
        ([9, 9, 8, 8, 8, 8, 7, 7, 7], [], 9),  # nobody has ended
        ([9], [[9, 8]], 1),
    ],
)
def test_of_best_values_so_far_each_counts_once(
    direction: Direction, values: list[float], others: list[list[float]], n: int
) -> None:
    of = goal(direction)
    bank = FinishedTrials(of).extend(trial(str(i), [of.sign * v for v in row]) for i, row in enumerate(others))
    curve = Curve.of(range(len(values)), [of.sign * v for v in values])
    assert telling(curve, bank, of.sign) == n


def test_trials_that_were_stopped_say_nothing_of_plateaus() -> None:
    bank = FinishedTrials(goal()).extend([trial("0", [3, 2, 2, 1]), trial("1", [3, 4], status=Status.STOPPED)])
    assert telling(Curve.of(range(3), [5, 5, 4]), bank, 1.0) == 2


def test_epsilon_is_a_share_of_the_spread() -> None:
    assert epsilon_of(3.0, 0.01) == pytest.approx(0.03)
    assert epsilon_of(0.0, 0.01) == 0.0


@pytest.mark.parametrize(
    ("values", "diverged"),
    [
        ([], False),
        ([1, 2, 3], False),
        ([1, math.nan, math.nan], False),
        ([1, math.nan, math.nan, math.inf], True),
        ([math.nan] * 3, True),
        ([math.nan, math.nan, math.nan, 1], False),
        ([math.nan, math.nan, 1, math.nan], False),
        ([1, -math.inf, math.inf, -math.inf, math.inf], True),
    ],
)
def test_divergence_counts_the_last_reports(values: list[float], diverged: bool) -> None:
    bank = FinishedTrials(goal()).extend([trial(str(i), [1.0] * 20) for i in range(4)])
    assert has_diverged(Curve.of(range(len(values)), values), bank, 3) is diverged


def now_and_then(n: int, every: int = 5, of: int = 50) -> list[float]:
    """A value every so many reports, and placeholders in between; from report n on placeholders only."""
    return [1.0 / (i + 1) if i % every == every - 1 and i < n else math.nan for i in range(of)]


def diverged_at(values: list[float], finished: list[list[float]]) -> int | None:
    """The report at which a trial counts as diverged."""
    bank = FinishedTrials(goal(horizon=50)).extend(trial(str(i), row) for i, row in enumerate(finished))
    cut = (n for n in range(1, len(values) + 1) if has_diverged(Curve.of(range(n), values[:n]), bank, 3))
    return next((n - 1 for n in cut), None)


EVERY, FIFTH = [[1.0] * 50] * 6, [now_and_then(50)] * 6


def test_placeholders_between_values_are_no_divergence() -> None:
    """Validation every fifth epoch, NaN in between: 59 of 60 such trials were stopped."""
    assert diverged_at(now_and_then(50), FIFTH) is None
    assert diverged_at(now_and_then(50, every=10), FIFTH) is None


def test_a_divergence_among_placeholders_is_one_once_three_values_were_due() -> None:
    assert diverged_at(now_and_then(20), FIFTH) == 34  # due at 24, 29, 34
    assert diverged_at([math.nan] * 50, FIFTH) == 14
    assert diverged_at([1.0] * 20 + [math.nan] * 30, EVERY) == 22


def test_a_trial_that_reports_now_and_then_among_others_that_report_always() -> None:
    """Its first run may mislead; once it has come back from one, or a finished trial has, as long a run is borne."""
    fourth = [1.0, *now_and_then(50, every=5, of=49)]
    assert diverged_at(now_and_then(50), EVERY) == 2
    assert diverged_at(now_and_then(50), [*EVERY, now_and_then(50)]) is None
    assert diverged_at([1.0, math.nan, math.nan, *fourth], EVERY) == 6
    own = [math.nan, math.nan, *[1.0] * 3, *[math.nan] * 5]
    assert diverged_at(own, EVERY) == 7
    late = [*[math.nan] * 2, 1.0, *[math.nan] * 2, 1.0, *[math.nan] * 4]
    assert diverged_at(late, EVERY) == 8


def test_finished_trials_without_values_there_say_nothing() -> None:
    """Trials that diverged before there was a rule, or ended early, neither excuse a run nor make values due."""
    gone = [[1.0] * 10 + [math.nan] * 40] * 5
    assert diverged_at([1.0] * 20 + [math.nan] * 30, [*EVERY[:1], *gone]) == 22
    assert diverged_at([1.0] * 20 + [math.nan] * 30, gone) is None
    assert diverged_at([1.0] * 20 + [math.nan] * 30, [[1.0] * 15] * 5) is None


def test_values_due_on_an_axis_of_seconds() -> None:
    """No two trials report at the same second."""
    rng = np.random.default_rng(0)
    ended = [np.cumsum(rng.uniform(0.9, 1.1, 60)) for _ in range(5)]
    bank = FinishedTrials(goal(horizon=60)).extend(
        trial(str(i), [1.0] * 60, steps=at.tolist()) for i, at in enumerate(ended)
    )
    steps = np.cumsum(rng.uniform(0.9, 1.1, 24))
    values = np.where(np.arange(24) < 20, 1.0, np.nan)
    assert [has_diverged(Curve.of(steps[:n], values[:n]), bank, 3) for n in (20, 22, 23)] == [False, False, True]


def test_ranks_by_hand() -> None:
    others = np.array([1.0, 2.0, 2.0, 3.0, math.inf])
    assert Rank.of(0.5, others) == Rank(1, 6)
    assert Rank.of(2.0, others) == Rank(2, 6)  # ties count in the trial's favour
    assert Rank.of(math.inf, others) == Rank(5, 6)
    assert Rank.of(1.0, np.array([])) == Rank(1, 1)
    assert Rank.of(2.0, np.array([1.0, math.nan, 3.0]), [0.5, 2.0]) == Rank(3, 5)  # NaN: nothing to say there


def test_trials_that_ended_earlier_are_compared_too() -> None:
    here = np.array([1.0, 2.0, 3.0, math.nan])
    standing = Rank.of(1.5, here, ended=(2, 10))
    assert standing == Rank(2, 4, ended_ahead=2, ended=10)
    assert str(standing) == "rank 2 of 4 at this step, 4 of 14 with those that ended earlier"
    # second of four among those that came as far, second of 24 among all
    assert Rank.of(1.5, here).held_by(0.1, 3) is None
    assert Rank.of(1.5, here, ended=(0, 20)).held_by(0.1, 3) is Reason.GUARD
    # these are no comparisons at the step
    assert Rank.of(1.5, here, ended=(0, 20)).held_by(0.1, 4) is Reason.COMPARISONS


@props
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 500), st.integers(0, 500), st.floats(0, 1))
def test_what_ended_earlier_never_takes_a_guard_away(rank: int, n: int, ahead: int, ended: int, guard: float) -> None:
    """A slow starter that leads at its own step is held, however many were ahead of it before they were stopped."""
    rank, ahead = min(rank, n), min(ahead, ended)
    if Rank(rank, n).held_by(guard, 4):
        assert Rank(rank, n, ahead, ended).held_by(guard, 4)


@pytest.mark.parametrize(
    ("rank", "n", "guard", "reason"),
    [
        (1, 4, 0.1, Reason.COMPARISONS),  # three others
        (4, 4, 0.1, Reason.COMPARISONS),
        (1, 5, 0.1, Reason.GUARD),  # four others: enough, and the best is held at any share
        (2, 5, 0.1, None),
        (1, 10, 0.1, Reason.GUARD),
        (2, 10, 0.1, None),  # one of ten is a tenth
        (2, 11, 0.1, Reason.GUARD),  # rounded up
        (2, 20, 0.1, Reason.GUARD),
        (3, 20, 0.1, None),
        (1, 20, 0.0, None),  # no guard
        (20, 20, 1.0, Reason.GUARD),  # all guarded
    ],
)
def test_guard_boundaries(rank: int, n: int, guard: float, reason: Reason | None) -> None:
    assert Rank(rank, n).held_by(guard, 4) is reason


@props
@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_guard_and_a_better_rank_hold_more(rank: int, n: int, a: float, b: float) -> None:
    rank, (low, high) = min(rank, n), sorted((a, b))
    if Rank(rank, n).held_by(low, 0):
        assert Rank(rank, n).held_by(high, 0)
        assert rank == 1 or Rank(rank - 1, n).held_by(low, 0)


@props
@given(st.floats(allow_nan=False), st.lists(st.floats(allow_nan=False), max_size=20), st.randoms(use_true_random=False))
def test_standing_ignores_order(loss: float, others: list[float], random: Random) -> None:
    shuffled = list(others)
    random.shuffle(shuffled)
    assert Rank.of(loss, np.array(others)) == Rank.of(loss, np.array(shuffled))


def test_every_verdict_and_reason_gives_advice_in_whole_sentences() -> None:
    for member in [*Verdict, *Reason]:
        assert member.advice[0].isupper() or member.advice.startswith("max_steps")
        assert member.advice.endswith(".")
    assert [reason for reason in Reason if reason.fails_open] == [Reason.ABSENT, Reason.UNRECORDED]
