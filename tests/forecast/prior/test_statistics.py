from __future__ import annotations

import numpy as np
import pytest

from lcsearch.forecast.prior.statistics import STATISTICS, ranks, spearman, statistics, summary, table


def test_a_task_worked_out_by_hand() -> None:
    steps = np.arange(1.0, 11.0)
    steady = np.linspace(1.0, 0.0, 10)  # half of its gain in the second half
    early = np.array([1.0, *[0.5] * 9])
    flat = np.ones(10)
    up = np.array([1.0, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.5, 0.5, 0.5])
    lost = np.array([1.0, 0.9, *[np.nan] * 8])
    found = statistics(steps, np.stack([steady, early, flat, up, lost]))
    assert set(found) == set(STATISTICS)
    assert found["trials"] == 5
    assert found["reports"] == 10
    assert found["lost"] == pytest.approx(0.2)
    assert found["flat"] == 0.25
    assert found["worse"] == 0.25
    assert found["jump"] == 0.25
    assert found["late"] == pytest.approx(1 / 3)
    assert found["noise_50"] == pytest.approx(0.0, abs=1e-12)
    assert found["top"] == pytest.approx(0.2)
    # Last values rank 0 1.5 3 1.5 4; at a quarter 3 1 4 0 2 of (.89, .5, 1, .2, .9).
    assert found["rank_25"] == pytest.approx(
        spearman(np.array([0.89, 0.5, 1.0, 0.2, 0.9]), np.array([0, 2, 3, 2, 4.0]))
    )


def test_noise_is_its_standard_deviation() -> None:
    rng = np.random.default_rng(0)
    losses = np.linspace(1, 0, 400) + 0.01 * rng.standard_normal((50, 400))
    assert statistics(np.arange(1.0, 401.0), losses)["noise_50"] == pytest.approx(0.01, rel=0.1)


def test_scale_offset_and_order_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    losses = np.cumsum(-rng.random((20, 30)), axis=1)
    steps = np.arange(1.0, 31.0)
    one, other = statistics(steps, losses), statistics(50 * steps, 1000 + 7 * losses[::-1])
    assert other == pytest.approx(one)


def test_ranks() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, np.inf])).tolist() == [1.5, 0.0, 1.5, 3.0]
    assert spearman(np.array([1.0, 2, 3]), np.array([1.0, 4, 9])) == pytest.approx(1.0)
    assert spearman(np.array([1.0, 2, 3]), np.array([9.0, 4, 1])) == pytest.approx(-1.0)
    assert np.isnan(spearman(np.ones(3), np.array([1.0, 2, 3])))


def test_a_task_that_only_diverged_has_few_statistics() -> None:
    found = statistics(np.arange(1.0, 6.0), np.full((3, 5), np.nan))
    assert found["lost"] == 1.0
    assert np.isnan(found["rank_10"])


def test_table() -> None:
    task = dict.fromkeys(STATISTICS, 0.25) | {"trials": 40.0, "noise_5": 3e-4, "late": float("nan"), "jump": 0.0}
    text = table({name: [task, task] for name in "abc"}, across=2)
    assert len(text.split("\n\n")) == 2
    lines = {line[:30].strip(): line[30:].split("  ") for line in text.splitlines() if line}
    assert "c (2)" in text
    assert "40 (40, 40)" in text
    assert "3e-4 (3e-4, 3e-4)" in text
    assert [cell.strip() for cell in lines["> 30 % of gain in 2nd half"] if cell.strip()] == ["-"]
    assert summary([task])["flat"].tolist() == [0.25] * 3
