from __future__ import annotations

import time

import numpy as np
import pytest
from kit.forecasters import HORIZON, ask, laws, study

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Absent, Query
from lcsearch.forecast.rank_gap import RankAndGap
from lcsearch.study import Snapshot


def parallel(levels: list[float], gain: float, n: int = HORIZON) -> Floats:
    """Trials that stand at `levels` until half-time and then all gain the same."""
    half = np.arange(n) >= n // 2
    return np.asarray(np.array(levels)[:, None] - gain * half[None, :], np.float64)


def said(snapshot: Snapshot, step: float = HORIZON) -> Floats:
    """P(beat the incumbent) of every live trial, by best-by."""
    assert snapshot.incumbent is not None
    queries = [Query(trial, "best_by", step) for trial in snapshot.live]
    return RankAndGap().forecast(snapshot, queries).p_beat(snapshot.incumbent.value)


def test_gains_of_the_others_are_applied_to_the_present_loss() -> None:
    others = parallel([1.0, 1.1, 1.2, 1.3, 1.4], 0.3)
    snapshot = study(others, [("live", np.full(HORIZON // 2, 1.2))])
    answer = RankAndGap().forecast(snapshot, [Query(snapshot.live[0], "best_by", HORIZON)])
    assert answer.quantile(0.5)[0] == pytest.approx(0.9, abs=0.05)


def test_tails_follow_laplaces_rule() -> None:
    # Equal gains and equal weights: 1 / (n + 1) of the mass lies beyond anything seen, half of it below.
    others = parallel([1.0] * 9, 0.3)
    snapshot = study(others, [("live", np.full(HORIZON // 2, 1.0))])
    answer = RankAndGap().forecast(snapshot, [Query(snapshot.live[0], "best_by", HORIZON)])
    assert answer.p_beat(0.7 - 1e-9)[0] == pytest.approx(0.5 / 10.0 + 0.9 * 0.5 / 9.0, abs=1e-6)


def test_never_nothing_never_certain_from_few_trials() -> None:
    others = laws(12)
    worst = others[np.argmax(others[:, 20])]
    lag, lead = said(study(others, [("lag", worst[:20] + 5.0), ("lead", others.min(0)[:20] - 0.2)]))
    assert 0.0 < lag < 0.05
    assert lead == 1.0  # it has beaten the incumbent already


def test_fewer_than_four_comparisons_say_nothing() -> None:
    for finished, reason in ((3, Absent.UNSUPPORTED), (4, None)):
        snapshot = study(laws(finished), [("live", laws(1, seed=1)[0, :10])])
        answer = RankAndGap().forecast(snapshot, [Query(snapshot.live[0], "best_by", HORIZON)])
        assert answer.absent == (reason,)


@pytest.mark.parametrize("worst", [1e34, 1e300, 1.7e308])
@pytest.mark.parametrize("recovers", [False, True])
def test_blow_ups_are_clipped_and_learn_from_others_that_blew_up(recovers: bool, worst: float) -> None:
    others = laws(12)
    if recovers:
        others[0, 5:20] = worst
    blown = laws(1, seed=1)[0, :15].copy()
    blown[8:] = worst
    snapshot = study(others, [("blown", blown)], judged="final")
    assert snapshot.incumbent is not None
    answers = RankAndGap().forecast(snapshot, [Query(snapshot.live[0], "value", HORIZON)])
    p = answers.p_beat(snapshot.incumbent.value)[0]
    if recovers:  # the only trial that was ever as bad came back
        assert p > 0.05
    else:
        assert 0.0 < p < 0.05


@pytest.mark.parametrize("far", [-1e300, 1e300, 1.7e308])
@pytest.mark.parametrize("which", [slice(1), slice(None), slice(None, None, 2)])
def test_numbers_too_large_to_reckon_with_pass_quietly(which: slice, far: float) -> None:
    others = laws(12)
    others[which, 5:20] = far
    blown = laws(1, seed=1)[0, :15].copy()
    blown[8:] = far
    snapshot = study(others, [("blown", blown), ("sound", laws(1, seed=2)[0, :15])], judged="final")
    answers = RankAndGap().forecast(snapshot, ask(snapshot))
    for reason, p in zip(answers.absent, answers.p_beat(0.3), strict=True):
        assert 0.0 <= p <= 1.0 if reason is None else reason is Absent.NONFINITE


def test_calibrated_on_a_study_of_its_own_kind() -> None:
    rows = laws(300, seed=2)
    pool, rest = rows[:40], rows[40:]
    snapshot = study(pool[5:], [(f"live-{i}", row[:12]) for i, row in enumerate(rest)])
    target = float(np.quantile(rest.min(1), 0.3))
    queries = [Query(trial, "best_by", HORIZON) for trial in snapshot.live]
    p = RankAndGap().forecast(snapshot, queries).p_beat(target)
    won = rest.min(1) < target
    assert won[p < 0.1].mean() < 0.1
    assert won[p > 0.9].mean() > 0.9
    assert p.mean() == pytest.approx(won.mean(), abs=0.1)


def test_fast_enough() -> None:
    snapshot = study(laws(100), [(f"live-{i}", row[:25]) for i, row in enumerate(laws(100, seed=1))])
    queries = [Query(trial, "best_by", HORIZON) for trial in snapshot.live]
    start = time.process_time()
    RankAndGap().forecast(snapshot, queries)
    assert time.process_time() - start < 0.3
