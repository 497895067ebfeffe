from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from lcsearch.curves import Floats
from lcsearch.data.synthetic import KINDS, Kind, synthetic_task
from lcsearch.data.task import Task
from lcsearch.errors import InvalidValue
from lcsearch.study import Status


def values(task: Task) -> Floats:
    return np.array([run.curve.reports()[1] for run in task.runs])


def agreement(kind: Kind, early: int) -> float:
    """Rank correlation of what was reported at step `early` with the end."""
    found = values(synthetic_task(kind, 300))
    return float(spearmanr(found[:, early - 1], found[:, -1]).statistic)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_arguments_make_the_same_curves(kind: Kind) -> None:
    one, again, other = synthetic_task(kind, 8, 3), synthetic_task(kind, 8, 3), synthetic_task(kind, 8, 4)
    assert [run.curve for run in one.runs] == [run.curve for run in again.runs]
    assert [run.params for run in one.runs] == [run.params for run in again.runs]
    assert all(a.curve != b.curve for a, b in zip(one.runs, other.runs, strict=True))
    assert (one.name, other.name) == (f"{kind}-3", f"{kind}-4")


@pytest.mark.parametrize("kind", KINDS)
def test_every_run_is_complete_and_reports_at_every_step(kind: Kind) -> None:
    task = synthetic_task(kind, 5, n_steps=12)
    assert task.goal.horizon == 12
    for run in task.runs:
        assert run.status is Status.COMPLETE
        assert run.steps == run.clock.tolist() == list(range(1, 13))
        assert all(isinstance(value, float) for value in run.params.values())


@pytest.mark.parametrize("kind", KINDS)
def test_maximize_mirrors(kind: Kind) -> None:
    low, high = synthetic_task(kind, 6), synthetic_task(kind, 6, direction="maximize")
    np.testing.assert_array_equal(values(low), -values(high))
    np.testing.assert_array_equal(low.judged, high.judged)
    assert (low.goal.metric, high.goal.metric) == ("loss", "score")


def test_the_early_order_of_power_laws_tells_the_late_one() -> None:
    assert agreement("power", 5) > 0.8


def test_what_leads_early_loses_where_curves_cross() -> None:
    assert agreement("crossing", 5) < -0.8


def test_curves_that_part_late_tell_nothing_before() -> None:
    assert abs(agreement("late", 25)) < 0.15
    assert abs(agreement("late", 40)) < 0.15
    assert agreement("late", 45) > 0.8


def test_high_learning_rates_diverge_and_nothing_else_does() -> None:
    task = synthetic_task("diverging", 200)
    ways = set()
    for run in task.runs:
        last = run.curve.reports()[1][-1]
        hot = run.params["learning_rate"] > 1e-2
        assert hot == bool(not last < 10)
        if hot:
            ways.add("nan" if np.isnan(last) else "inf" if np.isinf(last) else "large")
            assert run.curve.values[0] < 10
    assert ways == {"nan", "inf", "large"}


def test_records_are_plateaus_and_jumps() -> None:
    found = values(synthetic_task("records", 300, n_steps=100))
    steps = -np.diff(found, axis=1)
    assert (steps >= 0).all()
    assert (found[:, 0] == 1).all()
    assert 0.7 < (steps == 0).mean() < 0.95
    most = steps.max(1) > 0.5 * (found[:, 0] - found[:, -1])
    assert 0.1 < most.mean() < 0.6, "one jump is more than half of all"
    assert agreement("records", 10) < 0.7


def test_relaxation_really_solves_the_equation() -> None:
    task = synthetic_task("sor", 300)
    found = values(task)
    omega = np.array([run.params["omega"] for run in task.runs])
    assert (found[omega > 2.01][:, -1] > found[omega > 2.01][:, 24]).all()
    assert omega[found[:, -1].argmin()] == pytest.approx(2 / (1 + np.sin(np.pi / 13)), abs=0.1)
    assert found[:, -1].min() < -8


def test_wrong_arguments() -> None:
    with pytest.raises(InvalidValue) as caught:
        synthetic_task("powr")  # type: ignore[arg-type]
    assert (
        str(caught.value)
        == "synthetic_task(kind): expected one of power, crossing, late, diverging, sor, records, got 'powr'."
    )
    with pytest.raises(InvalidValue) as caught:
        synthetic_task("power", 0)
    assert str(caught.value) == "made(n_runs): expected a whole number >= 1, got 0."
    with pytest.raises(InvalidValue, match=r"made\(n_steps\): expected a whole number >= 2, got 1"):
        synthetic_task("power", n_steps=1)
    with pytest.raises(InvalidValue, match=r"made\(seed\): expected a whole number >= 0, got -1"):
        synthetic_task("power", seed=-1)
    with pytest.raises(InvalidValue, match="expected 'minimize' or 'maximize', got 'min'"):
        synthetic_task("power", direction="min")  # type: ignore[arg-type]
