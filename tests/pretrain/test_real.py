"""Real curves as training data: what augmentation must leave as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lcsearch.errors import InvalidValue
from lcsearch.forecast.network.studies import Studies
from lcsearch.pretrain import real
from lcsearch.pretrain.real import RealCurves, RealTask


def task(runs: int = 10, reports: int = 20, source: str = "s", **changes: Any) -> RealTask:
    chance = np.random.default_rng(runs * 100 + reports)
    wish: dict[str, Any] = {
        "name": "t",
        "source": source,
        "steps": np.arange(float(reports)),
        "losses": chance.normal(size=(runs, 1)) + 1 / np.arange(1.0, reports + 1),
        "length": np.full(runs, reports),
        "params": np.column_stack([chance.uniform(size=runs), chance.integers(0, 3, runs)]),
        "kinds": np.array([1, 2]),
    }
    return RealTask(**{**wish, **changes})


def draw(tasks: list[RealTask], seed: int = 0, n: int = 6, **wish: Any) -> Studies:
    return RealCurves(tasks, **wish).draw(torch.Generator().manual_seed(seed), n)


def test_batches_are_what_studies_asks_for() -> None:
    tasks = [
        task(),
        task(50, 300, "u"),
        task(5, 6, "v"),
        task(30, 100, "v", kinds=np.zeros(0, np.int64), params=np.zeros((30, 0))),
    ]
    seen = set()
    for seed in range(60):
        batch = draw(tasks, seed, longest=128)
        b, c, s = batch.loss.shape
        seen.add(s)
        assert b == len(batch)
        assert 1 <= b <= 12
        assert c <= 64
        assert s == int(batch.length.max()) <= 128
        assert batch.loss.dtype == batch.steps.dtype == batch.params.dtype == torch.float32
        assert batch.latent.shape == batch.rate.shape == (b, c, s)
        assert batch.latent.isnan().all()
        assert batch.rate.isnan().all()
        assert torch.equal(batch.reported, batch.length[:, None] * batch.present)
        assert (batch.present.sum(1) >= 4).all()
        assert 2 * int(batch.length.min()) > s or s <= 8  # little is padding
        for i in range(b):
            n = int(batch.length[i])
            assert batch.steps[i, 0] > 0
            assert (batch.steps[i, :n].diff() > 0).all()
            assert (batch.steps[i, n:] == batch.steps[i, n - 1]).all()
            assert batch.loss[i, batch.present[i], :n].isfinite().all()
            numbers = batch.params[i][batch.present[i]][:, batch.kinds[i] == 1]
            assert ((numbers >= 0) & (numbers <= 1)).all()
    assert len(seen) > 10


@pytest.mark.parametrize("reports", [4, 5, 7, 9, 12])
def test_short_tasks_are_drawn_too(reports: int) -> None:
    for seed in range(100):
        assert int(draw([task(6, reports)], seed).length.min()) >= 4


def test_it_draws_from_the_generator_alone() -> None:
    tasks = [task(), task(50, 300, "u")]
    np.random.default_rng().random()
    one, other = draw(tasks, 3), draw(tasks, 3)
    assert torch.equal(one.loss.nan_to_num(7), other.loss.nan_to_num(7))
    assert not torch.equal(one.steps, draw(tasks, 4).steps)


@pytest.mark.parametrize("seed", range(20))
def test_warps_keep_the_order(seed: int) -> None:
    chance = np.random.default_rng(seed)
    loss = np.sort(np.concatenate([chance.normal(size=200), 10.0 ** chance.uniform(-6, 34, 20)]))[None]
    bent = real._warp(chance, loss)  # noqa: SLF001
    rises = np.diff(bent[0])
    assert (rises >= 0).all()
    assert (rises[(np.diff(loss[0]) > 1e-6) & (loss[0, 1:] < 1e3)] > 0).all()


def test_small_differences_survive() -> None:
    """Values around 1e6 that differ by 1e-5 of their range, which is 1e-3: float32 alone would lose all of it."""
    base = 1e6 + 1e-3 * np.linspace(0, 1, 12)[:, None] + np.zeros((12, 8))
    base[1] = base[0] + 1e-8  # float64 has no less here: 1e-10
    made = task(12, 8, losses=base)
    chance = np.random.default_rng(0)
    scaled = real._standard(made.losses).astype(np.float32)  # noqa: SLF001
    assert scaled[1, -1] > scaled[0, -1]
    assert len(np.unique(scaled[:, -1])) == 12
    assert np.abs(scaled).max() < 10
    assert np.isfinite(real._bent(chance, made.losses)).all()  # noqa: SLF001


def test_blow_ups_and_constants_stay_finite() -> None:
    losses = np.full((8, 10), np.log(2.0))
    losses[0], losses[1, 5:], losses[2], losses[3, 4:] = 1e34, np.nan, -3e21, np.inf
    for seed in range(30):
        batch = draw([task(8, 10, losses=losses)], seed)
        inside = batch.loss[batch.loss.isfinite()]
        assert not batch.loss.isinf().any()
        assert inside.abs().max() <= 1.001e30
    flat = draw([task(8, 10, losses=np.full((8, 10), 0.3))])
    assert flat.loss[flat.loss.isfinite()].abs().max() < 1


def test_runs_are_used_up_to_their_own_length() -> None:
    """Nobody knows what follows: no study asks for it, and no NaN of padding becomes an event."""
    losses = np.ones((12, 40)) + np.arange(12)[:, None]
    length = np.array([40] * 5 + [10] * 7)
    losses[length == 10, 10:] = np.nan
    for seed in range(40):
        batch = draw([task(12, 40, losses=losses, length=length)], seed)
        for i in range(len(batch)):
            n = int(batch.length[i])
            assert batch.loss[i, batch.present[i], :n].isfinite().all()
            if n > 10:
                assert int(batch.present[i].sum()) <= 5


def test_divergence_stays_an_event() -> None:
    losses = 1.0 + np.zeros((6, 20))
    losses[:3, 10:] = np.nan
    seen = [draw([task(6, 20, losses=losses)], seed) for seed in range(20)]
    assert any(
        batch.loss[i, batch.present[i], : int(batch.length[i])].isnan().any() for batch in seen for i in range(6)
    )


@pytest.mark.parametrize(("enough", "low", "high"), [(5, 150, 250), (1000, 0, 12)])
def test_sources_are_equally_likely_unless_they_are_small(
    monkeypatch: pytest.MonkeyPatch, enough: int, low: int, high: int
) -> None:
    monkeypatch.setattr(real, "ENOUGH_RUNS", enough)
    tasks = [task(5, 20, "small"), *(task(40, 21, "large") for _ in range(9))]
    curves, chance = RealCurves(tasks), np.random.default_rng(0)
    counts = sum(curves._task(chance, 4).source == "small" for _ in range(400))  # noqa: SLF001
    assert low < counts < high


def test_what_is_no_task() -> None:
    with pytest.raises(InvalidValue) as caught:
        task(3, 20)
    assert str(caught.value) == (
        "RealTask(s/t): expected at least 4 runs of 4 reports, got '3 runs of [20, 20, 20]'. Leave the task out."
    )
    with pytest.raises(InvalidValue) as caught:
        task(5, 4, steps=np.array([1.0, 2, 2, 3]))
    assert str(caught.value) == "RealTask(s/t).steps: expected finite steps >= 0 that rise, got [1.0, 2.0, 2.0, 3.0]."
    with pytest.raises(InvalidValue) as caught:
        RealCurves([])
    assert str(caught.value) == (
        "RealCurves(tasks=): expected at least one task, got 0. Name a folder with tables of curves."
    )
