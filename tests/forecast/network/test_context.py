from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from kit.networks import network

from lcsearch.curves import Curve, Floats
from lcsearch.forecast.network.context import Context
from lcsearch.goal import Goal
from lcsearch.schedule import Schedule
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial

GOAL = Goal("loss", "minimize", 20)
NET = network()


def trial(i: int, n: int = 20, start: float = 1.0, gap: float = 1.0, **more: object) -> Trial:
    t = np.arange(1.0, n + 1.0)
    rng = np.random.default_rng(i)
    values = rng.uniform(0.1, 1.0) + t ** -rng.uniform(0.3, 1.0) + 0.01 * rng.standard_normal(n)
    status = more.pop("status", Status.COMPLETE if n == 20 else Status.STOPPED)
    params = {"lr": float(10 ** rng.uniform(-5, -1)), "n": int(rng.integers(9))}
    return Trial(f"t{i}", Curve.of(start + gap * (t - 1.0), values), params, status, **more)  # type: ignore[arg-type]


def bank(n: int, first: int = 0) -> FinishedTrials:
    return FinishedTrials(GOAL).extend([trial(i, 20 if i % 3 else 4 + i % 13) for i in range(first, first + n)])


def context(of: FinishedTrials, before: Context | None = None) -> Context:
    with torch.inference_mode():
        return Context.of(Snapshot("s", of.goal, of), NET, "cpu", {} if before is None else before.kept)


def assert_same(a: Context, b: Context) -> None:
    for name in ("reported", "complete", "judged", "states", "params", "kinds"):
        x, y = getattr(a, name), getattr(b, name)
        assert torch.equal(x.nan_to_num(7.0), y.nan_to_num(7.0)), name
    for name in ("y", "best", "bad"):
        assert torch.equal(getattr(a.curves, name), getattr(b.curves, name))
    np.testing.assert_array_equal(a.steps, b.steps)
    assert (a.center, a.scale, a.gap, a.places, a.columns) == (b.center, b.scale, b.gap, b.places, b.columns)


@pytest.mark.parametrize("n", [0, 1, 5, 150])
def test_what_is_taken_over_is_what_would_be_made(n: int) -> None:
    one = bank(n)
    before = context(one)
    for i in range(3):
        one = one.extend([trial(n + i, 20 if i else 7)])
        before = context(one, before)
        assert_same(before, context(FinishedTrials(GOAL).extend(list(one))))


def test_what_has_changed_is_read_anew() -> None:
    one = [trial(i) for i in range(6)]
    before = context(FinishedTrials(GOAL).extend(one))
    plan = Schedule("cosine", 0.1, 20)
    others = [trial(0, 7), trial(1, schedule=plan), trial(99), trial(3), *one[4:]]
    others[2] = Trial("t2", one[2].curve, {"lr": 7.0}, Status.STOPPED)
    after = FinishedTrials(GOAL).extend(others)
    assert_same(context(after, before), context(after))
    states = context(after, before).states[0]
    assert torch.equal(states[3:], before.states[0, 3:])
    assert not torch.equal(states[1], before.states[0, 1]), "a schedule is part of what is seen"


def test_a_new_bank_without_trials_is_the_old_one() -> None:
    live = tuple(trial(i, 5, status=Status.PAUSED) for i in range(6))
    with torch.inference_mode():
        made = Context.of(Snapshot("s", GOAL, bank(0), live), NET, "cpu")
    assert made.still(Snapshot("s", GOAL, bank(0), live), live)
    assert not made.still(Snapshot("s", GOAL, bank(1), live), live)
    final = replace(GOAL, judged="final")
    assert not made.still(Snapshot("s", final, FinishedTrials(final), live), live), (
        "another loss is what it is judged by"
    )


@pytest.mark.parametrize("irregular", [False, True])
def test_places_are_reports_not_after_a_step(irregular: bool) -> None:
    odd = [trial(50, gap=0.7)] if irregular else []
    one = context(FinishedTrials(GOAL).extend([trial(1), trial(2, 5), trial(3, 1), *odd]))
    steps: Floats = np.array([0.5, 1.0, 4.9, 5.0, 5.5, 19.0, 20.0, 40.0])
    got = one.place(steps)[:, :3].T.tolist()
    assert got[0][:7] == [-1, 0, 3, 4, 4, 18, 19]
    # one beyond its last where it had ended by then: nothing is known of it there
    assert got[1] == [-1, 0, 3, 4, 5, 5, 5, 5]
    assert got[2] == [-1, 0, 1, 1, 1, 1, 1, 1]


def test_without_a_spread_a_blow_up_does_not_set_the_scale() -> None:
    values = np.linspace(1.0, 0.5, 20)
    values[7] = 1e34
    one = context(
        FinishedTrials(GOAL).extend([Trial("a", Curve.of(np.arange(1.0, 21.0), values), status=Status.STOPPED)])
    )
    assert 0.05 < one.scale < 1.0
