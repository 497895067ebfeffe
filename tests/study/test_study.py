from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import goal, mirrored, others_at, props, slow_at, snapshot, trial

from lcsearch.curves import Curve
from lcsearch.errors import InvalidValue
from lcsearch.goal import Direction, Goal, Judged
from lcsearch.study import (
    FinishedTrials,
    Incumbent,
    Snapshot,
    Status,
    Trial,
    judged_at_end,
    judged_loss,
    loss_at,
    steps_trained,
)

NAN, INF = math.nan, math.inf


def some_trials(seed: int) -> list[Trial]:
    """Up to eight finished trials with gaps, ties and non-finite reports, some without a report."""
    rng = np.random.default_rng(seed)
    values = [*map(float, range(-6, 7)), NAN, INF, -INF]
    found = []
    for i in range(rng.integers(9)):
        steps = rng.choice(13, rng.integers(11), replace=False)
        status = (Status.COMPLETE, Status.STOPPED, Status.FAILED)[rng.integers(3)]
        found.append(Trial(str(i), Curve.of(steps, rng.choice(values, steps.size)), {}, status))
    return found


def on_a_grid(seed: int) -> list[Trial]:
    """Up to nine finished trials that report at the same steps, as far as each of them gets: some of them nowhere.

    One in three lists ends with a trial that has steps of its own.
    """
    rng = np.random.default_rng(seed)
    grid = np.sort(rng.choice(13, rng.integers(1, 13), replace=False))
    found = []
    for i in range(rng.integers(1, 9)):
        steps = grid[: (0, 0, grid.size, int(rng.integers(grid.size + 1)))[rng.integers(4)]]
        status = (Status.COMPLETE, Status.STOPPED, Status.FAILED)[rng.integers(3)]
        found.append(Trial(str(i), Curve.of(steps, rng.normal(size=steps.size)), {}, status))
    if rng.random() < 1 / 3:
        found.append(Trial("odd", Curve.of(grid + 0.5, rng.normal(size=grid.size)), {}, Status.COMPLETE))
    return found


# Drawn from a seed: lists of lists would take hypothesis longer than the code under test.
many = st.integers(0, 10**6).map(some_trials)
gridded = st.integers(0, 10**6).map(on_a_grid)


def content(bank: FinishedTrials) -> list[object]:
    arrays = (bank.steps, bank.losses, bank.best_losses, bank.stops, bank.judged, bank.judged_steps, bank.complete)
    return [[t.uid for t in bank], *(a.tolist() for a in arrays), bank.last_steps.tolist(), bank.n_complete]


# Trials


def test_a_trial_needs_a_uid_and_a_sensible_cost() -> None:
    with pytest.raises(InvalidValue, match=r"^Trial\.uid: expected a non-empty uid, got ''\.$"):
        Trial("")
    with pytest.raises(InvalidValue, match=r"^Trial\.cost: expected a cost >= 0 or None, got nan\.$"):
        Trial("1", cost=NAN)
    assert Trial("1", cost=0.0).cost == 0.0


def test_cutting_a_trial_cuts_its_curve_and_nothing_else() -> None:
    one = trial("7", [3, 2, 1], Status.RUNNING, cost=5.0)
    assert one.cut(2) is one
    assert one.cut(1).curve.values.tolist() == [3, 2]
    assert (one.cut(1).uid, one.cut(1).cost) == ("7", 5.0)


def test_finished_states() -> None:
    assert {s for s in Status if s.finished} == {Status.COMPLETE, Status.STOPPED, Status.FAILED}


# Judged losses


@pytest.mark.parametrize(
    ("direction", "judged", "expected"),
    [
        ("minimize", "best", (1.0, 1.0)),
        ("minimize", "final", (3.0, 3.0)),
        ("maximize", "best", (-4.0, 0.0)),
        ("maximize", "final", (-3.0, 3.0)),
    ],
)
def test_judged_loss(direction: Direction, judged: Judged, expected: tuple[float, float]) -> None:
    of = Goal("m", direction, 10, judged)
    assert judged_loss(trial("0", [4, 1, 2, 3, NAN]).curve, of) == expected
    assert judged_loss(Curve.of([0], [NAN]), of) == (INF, -INF)


@pytest.mark.parametrize("judged", ["best", "final"])
def test_what_ends_at_no_number_has_no_final_value(judged: Judged) -> None:
    of, values = Goal("m", "maximize", 10, judged), [4, 1, 2]
    assert judged_at_end(trial("0", values).curve, of) == ((4.0, 0.0) if judged == "best" else (2.0, 2.0))
    for bad in (NAN, INF, -INF):
        found = judged_at_end(trial("0", [*values, bad]).curve, of)
        assert found == ((4.0, 0.0) if judged == "best" else None)
    assert judged_at_end(Curve.of([0], [NAN]), of) is None


@pytest.mark.parametrize(
    ("steps", "complete", "expected"),
    [
        ([], True, 0),
        ([1, 2, 3], False, 3),
        ([0, 1, 2], False, 3),  # `range(3)`
        ([9], True, 9),  # one more was owed: none came
        ([0, 9], True, 10),
        ([3, 6, 9], True, 10),  # a report every three steps
        ([3, 6, 9], False, 9),
        ([3, 6], True, 6),
        ([6, 12], True, 12),  # beyond the horizon it is what was reported
    ],
)
def test_steps_trained(steps: list[float], complete: bool, expected: float) -> None:
    assert steps_trained(steps, 10, complete=complete) == expected


def test_loss_at_a_step() -> None:
    curve = trial("0", [4, 1, 2, NAN], first=1).curve
    assert [loss_at(curve, goal(), s) for s in (0, 1, 2.5, 3, 4, 9)] == [INF, 4, 1, 1, 1, 1]
    assert [loss_at(curve, goal(judged="final"), s) for s in (0, 1, 2.5, 3, 4, 9)] == [INF, 4, 1, 2, 2, 2]


# The bank


def test_columns_by_hand() -> None:
    bank = FinishedTrials(goal("maximize")).extend(
        [trial("0", [1, 3, NAN, 2]), trial("1", []), trial("2", [5], Status.STOPPED, first=2)]
    )
    assert len(bank) == 3
    assert bank[1].uid == "1"
    assert bank.steps.tolist() == [0, 1, 2, 3, 2]
    assert bank.losses.tolist() == [-1, -3, INF, -2, -5]
    assert bank.best_losses.tolist() == [-1, -3, -3, -3, -5]
    assert bank.stops.tolist() == [4, 4, 5]
    assert bank.judged.tolist() == [-3, INF, -5]
    assert bank.judged_steps.tolist() == [1, -INF, 2]
    assert bank.complete.tolist() == [True, True, False]
    assert bank.last_steps.tolist() == [3, -INF, 2]
    assert bank.n_complete == 2


@pytest.mark.parametrize(
    ("step", "best", "now"),
    [(-1, NAN, NAN), (0, 4, 4), (1, 2, 2), (1.5, 2, 2), (2, 2, 3), (3, 2, 3), (50, 2, 3)],
)
def test_a_complete_trial_keeps_its_last_value_beyond_its_end(step: float, best: float, now: float) -> None:
    bank = FinishedTrials(goal()).extend([trial("0", [4, 2, 3])])
    np.testing.assert_array_equal(bank.at(step, best=True), [best])
    np.testing.assert_array_equal(bank.at(step, best=False), [now])


@pytest.mark.parametrize("status", [Status.STOPPED, Status.FAILED])
def test_a_stopped_trial_says_nothing_beyond_its_end(status: Status) -> None:
    bank = FinishedTrials(goal()).extend([trial("0", [4, 2, 3], status)])
    assert bank.at(2, best=False).tolist() == [3]
    assert np.isnan(bank.at(2.5, best=False)).all()


def test_trials_without_a_report_are_kept_and_silent() -> None:
    bank = FinishedTrials(goal()).extend(
        [trial("0", []), trial("1", [1]), trial("2", []), trial("3", [2]), trial("4", [])]
    )
    np.testing.assert_array_equal(bank.at(0, best=True), [NAN, 1, NAN, 2, NAN])
    nothing = FinishedTrials(goal()).extend([trial("0", []), trial("1", [])])
    assert np.isnan(nothing.at(0, best=True)).all()
    assert FinishedTrials(goal()).at(3, best=False).shape == (0,)
    assert FinishedTrials(goal()).last_steps.shape == (0,)


def test_only_finished_trials_go_in() -> None:
    with pytest.raises(InvalidValue) as error:
        FinishedTrials(goal()).extend([trial("8", [1], Status.RUNNING)])
    assert str(error.value) == "FinishedTrials.extend(trial 8): expected a finished trial, got 'RUNNING'."
    assert len(FinishedTrials(goal()).extend([])) == 0


@props
@given(many, st.integers(0, 8))
def test_extending_is_building_at_once(trials: list[Trial], n: int) -> None:
    at_once = FinishedTrials(goal()).extend(trials)
    assert content(FinishedTrials(goal()).extend(trials[:n]).extend(trials[n:])) == content(at_once)
    one_by_one = FinishedTrials(goal())
    for each in trials:
        one_by_one = one_by_one.extend([each])
    assert content(one_by_one) == content(at_once)


@props
@given(many, st.floats(-1, 14) | st.integers(-1, 14), st.booleans(), st.sampled_from(["minimize", "maximize"]))
def test_at_against_plain_python(trials: list[Trial], step: float, best: bool, direction: Direction) -> None:
    bank = FinishedTrials(goal(direction)).extend(trials)
    np.testing.assert_array_equal(bank.at(step, best=best), slow_at(bank, step, best=best))


@props
@given(gridded, st.booleans(), st.integers(0, 9))
def test_at_on_a_common_grid_against_plain_python(trials: list[Trial], best: bool, n: int) -> None:
    """At every step, before the first and after the last, also of a bank that was extended since."""
    early = FinishedTrials(goal()).extend(trials[:n])
    bank = early.extend(trials[n:])
    assert trials[-1].uid == "odd" or bank.grid is not None
    for step in np.arange(-1.0, 14.0, 0.5):
        np.testing.assert_array_equal(bank.at(step, best=best), slow_at(bank, step, best=best))
        np.testing.assert_array_equal(early.at(step, best=best), slow_at(early, step, best=best))


EMPTY_AT = {
    "front": [[], [], [4, 2, 3], [5, 1]],
    "middle": [[4, 2, 3], [], [], [5, 1]],
    "end": [[4, 2, 3], [5, 1], [], []],
    "everywhere": [[], [4, 2, 3], [], [5, 1], []],
    "nowhere": [[4, 2, 3], [5, 1]],
}


@pytest.mark.parametrize("curves", EMPTY_AT.values(), ids=EMPTY_AT)
@pytest.mark.parametrize("status", [Status.COMPLETE, Status.STOPPED])
@pytest.mark.parametrize("on_grid", [True, False])
def test_trials_without_a_report_at_the_ends_and_in_between(
    curves: list[list[float]], status: Status, on_grid: bool
) -> None:
    """Steps 3, 5, 9: before them, between them, and after the end of each trial; on a grid and off it."""
    trials = [trial(str(i), values, status, steps=[3, 5, 9][: len(values)]) for i, values in enumerate(curves)]
    odd = trial("odd", [7, 6], status, steps=[4, 8])
    bank = FinishedTrials(goal()).extend(trials if on_grid else [*trials, odd])
    assert (bank.grid is not None) == on_grid
    for step in (-1, 0, 2.9, 3, 4, 5, 7, 8, 9, 12):
        for best in (True, False):
            np.testing.assert_array_equal(bank.at(step, best=best), slow_at(bank, step, best=best))
    # Not only alike: by hand for the one that ends at step 9.
    row = next(i for i, values in enumerate(curves) if len(values) == 3)
    after = 3 if status is Status.COMPLETE else NAN
    for step, expected in ((2.9, NAN), (3, 4), (4.9, 4), (5, 2), (9, 3), (12, after)):
        np.testing.assert_equal(bank.at(step, best=False)[row], expected)


@pytest.mark.parametrize(
    "steps", [[0, 1, 3], [0, 2], [1, 2], [0.5], [0, 1, 2.5], [-1, 0, 1]], ids=lambda steps: str(steps)
)
@pytest.mark.parametrize("first", [True, False])
def test_a_grid_that_differs_is_no_common_grid(steps: list[float], first: bool) -> None:
    regular = [trial(str(i), values) for i, values in enumerate([[5, 4, 3], [], [9, 8]])]
    odd = trial("odd", [7.0 - i for i in range(len(steps))], Status.STOPPED, steps=steps)
    bank = FinishedTrials(goal()).extend([odd, *regular] if first else [*regular, odd])
    assert bank.grid is None
    for step in np.arange(-2, 5, 0.25):
        np.testing.assert_array_equal(bank.at(step, best=False), slow_at(bank, step, best=False))


@props
@given(many, many, many)
def test_an_earlier_bank_never_changes(first: list[Trial], second: list[Trial], third: list[Trial]) -> None:
    parent = FinishedTrials(goal()).extend(first)
    before = content(parent)
    left = parent.extend(second)
    left_before = content(left)
    right = parent.extend(third)  # a sibling: its parent's columns already go on with `second`
    again = left.extend(third)
    assert content(parent) == before
    assert content(left) == left_before
    assert content(right) == content(FinishedTrials(goal()).extend([*first, *third]))
    assert content(again) == content(FinishedTrials(goal()).extend([*first, *second, *third]))


@props
@given(many, st.randoms(use_true_random=False))
def test_what_a_bank_says_does_not_hang_on_the_order_of_reading(trials: list[Trial], random: Random) -> None:
    """Processes meet finished trials in different orders, and must come to the same verdicts."""
    other = random.sample(trials, len(trials))
    for known in (goal(), replace(goal(), judged="final")):
        one, two = FinishedTrials(known).extend(trials), FinishedTrials(known).extend(other)
        for name in (
            "end",
            "tremble",
            "reached",
            "best_complete",
            "robust_range",
            "at_bound",
            "longest",
            "n_complete",
            "begun",
        ):
            assert getattr(one, name) == getattr(two, name), name
        assert one.ends.tolist() == two.ends.tolist()


def test_of_trials_that_end_together_the_closest_tells_where() -> None:
    """The first that was read once told: 2 reports beside 150 of one study moved its horizon from 16384 to 300."""
    often = trial("0", [1.0] * 150, steps=[*range(1, 150), 819])
    seldom = trial("1", [1.0, 0.5], steps=[1, 819])
    once = trial("2", [0.5], steps=[819])
    known = replace(goal(), horizon=300.0)
    for trials in ([often, seldom, once], [once, seldom, often], [seldom, once, often]):
        assert FinishedTrials(known).extend(trials).tremble == FinishedTrials(known).extend([often]).tremble
    assert FinishedTrials(known).extend([once]).tremble == 0.0


def test_extending_costs_the_new_trials_only() -> None:
    bank = FinishedTrials(goal()).extend([trial(str(i), range(100)) for i in range(50)])
    grown = bank.extend([trial("50", range(100))])
    further = grown.extend([trial("51", range(10))])
    assert np.shares_memory(grown.steps, further.steps)
    assert len(bank) == 50
    fork = bank.extend([trial("x", [1.0])])
    assert not np.shares_memory(fork.steps, further.steps)
    assert further[50].uid == "50"
    assert fork[50].uid == "x"


def test_columns_are_read_only() -> None:
    bank = FinishedTrials(goal()).extend([trial("0", [1, 2])])
    for array in (bank.steps, bank.losses, bank.best_losses, bank.stops, bank.judged, bank.judged_steps, bank.complete):
        assert not array.flags.writeable


# The snapshot


def test_the_bank_must_be_judged_by_the_goal() -> None:
    with pytest.raises(
        InvalidValue, match=r"^Snapshot\.bank: expected a bank judged by Goal\(.*'best',.*\), got Goal\("
    ):
        Snapshot("s", goal(), FinishedTrials(goal(judged="final")))


def test_no_incumbent() -> None:
    assert snapshot(goal(), []).incumbent is None
    assert snapshot(goal(), [trial("0", [NAN]), trial("1", []), trial("2", [1], Status.STOPPED)]).incumbent is None


@pytest.mark.parametrize("status", [Status.STOPPED, Status.FAILED])
def test_stopped_and_failed_trials_are_no_incumbents(status: Status) -> None:
    got = snapshot(goal(), [trial("0", [3, 2]), trial("1", [1], status)]).incumbent
    assert got == Incumbent(2.0, "0", 1.0)


def test_only_a_complete_trial_is_the_incumbent() -> None:
    """A running one may be what a killed process left behind, at a value that nobody will get."""
    finished, live = [trial("0", [3, 2]), trial("2", [1], Status.STOPPED)], [trial("1", [1, 5], Status.RUNNING)]
    for judged in ("best", "final"):
        assert snapshot(goal(judged=judged), finished, live).incumbent == Incumbent(2.0, "0", 1.0)


def test_the_first_of_equals_leads() -> None:
    finished = [trial("10", [1, 1]), trial("9", [5, 1]), trial("2", [2])]
    assert snapshot(goal(), finished).incumbent == Incumbent(1.0, "9", 1.0)


def test_values_are_in_the_metrics_own_direction() -> None:
    finished = [trial("0", [0.5, 0.9, 0.7]), trial("1", [0.8])]
    assert snapshot(goal("maximize"), finished).incumbent == Incumbent(0.9, "0", 1.0)
    assert snapshot(goal("maximize", judged="final"), finished).incumbent == Incumbent(0.8, "1", 0.0)


def spread_of(*values: float) -> float:
    return snapshot(goal(), [trial(str(i), [v]) for i, v in enumerate(values)]).robust_range


def test_spread_is_twice_the_way_from_the_best_to_the_median() -> None:
    assert spread_of(1.0, 1.5, 2.0, 4.0, 1e34, NAN) == 2.0
    assert spread_of(1.0, 1.5, 2.0, 3.0, 4.0, 1e34) == 3.0
    assert spread_of(1.0) == spread_of(1.0, 2.0) == spread_of(1.0, 2.0, 4.0) == 0.0  # too few for a quartile


def test_trials_that_never_learned_do_not_widen_the_spread() -> None:
    """A margin of 1 % of 2 x 2.2 would ask the next trial for half the best loss."""
    assert spread_of(0.10, 0.11, 0.12, 2.3, 2.3, 2.3, 2.3) == pytest.approx(8 * 0.01)
    assert spread_of(0.10, 0.11, 1e4, 1e4, 1e34, 1e34) == pytest.approx(8 * 0.01)


def test_spread_of_degenerate_studies() -> None:
    assert snapshot(goal(), [trial("0", [1]), trial("1", [9], Status.STOPPED)]).robust_range == 0.0
    assert snapshot(goal(), []).robust_range == 0.0
    assert spread_of(-1.7e308, *[1.7e308] * 9) == 0.0  # an infinite margin would let nobody beat the incumbent


def test_the_horizon_is_where_trials_end_in_fact() -> None:
    assert snapshot(goal(horizon=50), []).horizon == 50
    assert snapshot(goal(horizon=50), [trial("0", range(50))]).horizon == 49
    assert snapshot(goal(horizon=50), [trial("0", range(70))]).horizon == 69  # a horizon that is proved too small
    ends = [trial(str(i), range(n)) for i, n in enumerate((50, 50, 12))]
    assert snapshot(goal(horizon=50), ends).horizon == 49  # one that stopped early by itself moves nothing
    stopped = [trial("0", range(50)), trial("1", range(5), Status.STOPPED), trial("2", range(5), Status.STOPPED)]
    assert snapshot(goal(horizon=50), stopped).horizon == 49
    assert snapshot(goal(horizon=50), [trial("0", []), trial("1", range(50))]).horizon == 49


def test_where_trials_end_by_themselves() -> None:
    ends = [trial(str(i), range(n)) for i, n in enumerate((41, 500, 200, 100))]
    of = snapshot(
        goal(horizon=500, judged="final"),
        [*ends, trial("4", range(30), Status.STOPPED), trial("5", range(9), Status.FAILED)],
    )
    assert of.bank.ends.tolist() == [40, 99, 199, 499]
    assert of.horizons(7) == (40, 99, 199, 499)
    assert of.horizons(150) == (199, 199, 499, 499)
    assert of.horizons(300) == (499,)
    assert snapshot(goal(horizon=500), ends).horizons(7) == (499,)  # the best value judges
    assert (of.bank.left(9), of.bank.left(150), of.bank.left(499)) == (209 - 9, 349 - 150, 0), "their mean"
    odd = snapshot(goal(horizon=500), [*ends[:2], trial("6", range(101))]).bank
    assert odd.left(50) == 300 - 50, "half a step is none"
    assert snapshot(goal(horizon=50), []).bank.left(3) == 0  # nothing is known


def test_ends_that_tremble_are_one() -> None:
    seconds = [
        Trial(str(i), Curve.of(np.linspace(1, 50 + 0.3 * i, 50), np.ones(50)), status=Status.COMPLETE)
        for i in (0, 1, 2)
    ]
    of = snapshot(goal(horizon=60), seconds)
    assert set(of.bank.ends) == {of.horizon} == {50.6}
    every_ten = [
        Trial(str(i), Curve.of(range(0, n, 10), np.ones(n // 10 + 1)), status=Status.COMPLETE)
        for i, n in enumerate((51, 41))
    ]
    assert snapshot(goal(horizon=60), every_ten).horizons(20) == (50,)


def test_the_short_ones_end_first() -> None:
    """Eight at once: of epochs that are tuned, those of few are known first."""
    short = [trial(str(i), range(n)) for i, n in enumerate((11, 13, 15, 17, 19))]
    of = snapshot(
        goal(horizon=100), short, [trial("8", range(31), Status.RUNNING), trial("9", range(8), Status.RUNNING)]
    )
    assert of.horizon == 60  # twice as far as the one that has outlived them
    assert of.horizons(7)[-1] == 60
    assert of.horizons(30) == (60,)
    assert snapshot(goal(horizon=100), short, [trial("9", range(8), Status.RUNNING)]).horizon == 18


def test_others_at_a_step() -> None:
    finished = [trial("0", [5, 4, 3]), trial("1", [9], Status.STOPPED), trial("2", [7, 6], Status.STOPPED)]
    live = [
        trial("3", [2, 8], Status.RUNNING),
        trial("4", [1], Status.RUNNING),  # not there yet
        trial("5", [0, 0, 0], Status.RUNNING, first=2),  # started later on the axis: says nothing about step 1
        trial("6", [3, 3], Status.RUNNING),  # the one that asks
    ]
    assert sorted(others_at(snapshot(goal(), finished, live), 1, "6")) == [2, 4, 6]
    assert sorted(others_at(snapshot(goal(judged="final"), finished, live), 1, "6")) == [4, 6, 8]


@props
@given(many, many, st.integers(0, 12), st.sampled_from(["best", "final"]))
def test_a_mirrored_snapshot_says_the_same(done: list[Trial], live: list[Trial], step: int, judged: Judged) -> None:
    running = [replace(t, uid=f"r{t.uid}", status=Status.RUNNING) for t in live]
    one = snapshot(goal(judged=judged), done, running)
    two = mirrored(one)
    assert (one.horizon, one.robust_range) == (two.horizon, two.robust_range)
    np.testing.assert_array_equal(others_at(one, step, "r0"), others_at(two, step, "r0"))
    a, b = one.incumbent, two.incumbent
    assert (a is None) == (b is None)
    if a is not None and b is not None:
        assert (a.value, a.uid, a.step) == (-b.value, b.uid, b.step)


def test_an_irregular_trial_ends_the_common_grid_for_later_banks_and_leaves_earlier_ones_right() -> None:
    regular = FinishedTrials(goal()).extend([trial("0", [5, 4, 3]), trial("1", [9, 8]), trial("2", [7, 6, 5, 4])])
    assert regular.grid is not None
    before = regular.at(1.5, best=False).tolist()
    mixed = regular.extend([Trial("3", Curve.of([0.5, 1.5], [2.0, 1.0]), status=Status.COMPLETE)])
    assert mixed.grid is None
    assert regular.at(1.5, best=False).tolist() == before == [4.0, 8.0, 6.0]
    assert mixed.at(1.5, best=False).tolist() == [4.0, 8.0, 6.0, 1.0]


@props
@given(many, st.integers(0, 10**6), st.integers(0, 13), st.sampled_from(["best", "final"]))
def test_where_trials_ended(trials: list[Trial], seed: int, step: int, judged: Judged) -> None:
    own = some_trials(seed)[:1]
    curve = own[0].curve if own else Curve.of([0.0, 4.0], [1.0, NAN])
    aim = goal(horizon=12, judged=judged)
    ahead = n = 0
    mine = curve.reports()[0]
    for one in trials:
        reported = one.curve.reports()[0]
        if one.status is Status.COMPLETE or not reported.size or reported[-1] >= step:
            continue
        before = mine[mine <= reported[-1]]
        if before.size and reported[0] <= before[-1]:
            n += 1
            ahead += loss_at(one.curve, aim, before[-1]) < loss_at(curve, aim, before[-1])
    assert FinishedTrials(aim).extend(trials).rank_among_ended(step, curve) == (ahead, n)


@props
@given(st.integers(0, 10**6), st.booleans())
def test_one_that_was_worse_at_every_step_did_not_end_ahead(seed: int, grid: bool) -> None:
    rng = np.random.default_rng(seed)
    losses = np.sort(rng.random(20))[::-1]
    mine = np.sort(rng.choice(20, 5, replace=False))
    others = [
        Trial(str(i), Curve.of(np.arange(n) + (0 if grid else 0.1 * i), 1.05 * losses[:n]), {}, Status.STOPPED)
        for i, n in enumerate(rng.integers(1, 19, 6))
    ]
    bank = FinishedTrials(goal(horizon=30)).extend(others)
    assert bank.rank_among_ended(25, Curve.of(mine, losses[mine]))[0] == 0


def bounded(sign: float, *rows: list[float]) -> int:
    of = goal("minimize" if sign > 0 else "maximize")
    return FinishedTrials(of).extend(trial(str(i), [sign * v for v in row]) for i, row in enumerate(rows)).at_bound


@pytest.mark.parametrize("bound", [0.0, -1.0, -100.0])
def test_a_bound_is_where_metrics_end_and_reports_tie(bound: float) -> None:
    up, worse = [bound + 0.5, bound, bound], [bound + 0.7, bound + 0.2]
    for sign in (1.0, -1.0):
        assert bounded(sign, up, [bound + 0.3, bound], worse) == 3
        assert bounded(sign, up, worse) == 0, "two are no proof"
        assert bounded(sign, *[[bound] * 9] * 5, [bound + 0.2] * 9) == 0, "a share of 0 that no trial ever leaves"
        assert bounded(sign, up, up, [bound - 1e-9]) == 0, "something was better"
        assert bounded(sign, *[[v + 0.01 for v in up]] * 5) == 0, "metrics do not end there"
    assert FinishedTrials(goal()).at_bound == 0
    seen = FinishedTrials(goal()).extend([trial("0", [0.5, 0.0, 0.0, 0.0], Status.STOPPED), trial("1", [0.5, 0.0])])
    assert seen.at_bound == 0


def test_a_bound_that_is_given_needs_no_ties() -> None:
    def bank(high: float | None, *rows: list[float], low: float | None = None) -> FinishedTrials:
        of = replace(goal("maximize"), bounds=(low, high))
        return FinishedTrials(of).extend(trial(str(i), row) for i, row in enumerate(rows))

    assert bank(0.9, [0.5, 0.9], [0.3]).at_bound == 1
    assert bank(0.9, [0.5, 0.9 + 1e-8], [0.3]).at_bound == 1, "a mean in single precision"
    assert bank(2.0, [0.5, 1.0, 1.0], [0.3, 1.0]).at_bound == 0, "it goes on to 2"
    assert bank(None, [0.5, 1.0, 1.0], [0.3, 1.0]).at_bound == 3, "not known: seen"
    assert bank(None, [0.5, 0.9, 0.9, 0.9], low=0.0).at_bound == 0
    passed = bank(0.9, [0.5, 0.95], [0.3, 1.0, 1.0, 1.0])
    assert (passed.least, passed.at_bound) == (-math.inf, 3), "not the bound, as was said"
    minimized = FinishedTrials(replace(goal(), bounds=(0.25, None))).extend([trial("0", [0.5, 0.25])])
    assert (minimized.least, minimized.at_bound) == (0.25, 1)
