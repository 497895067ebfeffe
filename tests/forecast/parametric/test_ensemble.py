from __future__ import annotations

import time

import numpy as np
import pytest
from kit.builders import goal, snapshot, trial
from kit.forecasters import HORIZON, ask, assert_valid, laws, study

from lcsearch.curves import Curve, Floats
from lcsearch.forecast.contract import Absent, Kind, Query
from lcsearch.forecast.parametric import ParametricEnsemble
from lcsearch.forecast.parametric.families import FAMILIES
from lcsearch.forecast.parametric.fit import curve_at, fit
from lcsearch.forecast.parametric.mixture import LEVELS, TIMES, future, read_off
from lcsearch.forecast.parametric.observed import observe
from lcsearch.forecast.rank_gap import RankAndGap
from lcsearch.goal import Goal
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial

T = np.arange(1.0, HORIZON + 1.0)


def p_beat(loss: Floats, target: float, n: int | None = None, kind: Kind = "best_by") -> float:
    """P(beat `target`) of one curve in the study of `laws(20)`; NaN when absent."""
    snapshot = study(laws(20), [("live", loss[:n])])
    answer = ParametricEnsemble().forecast(snapshot, [Query(snapshot.live[0], kind, HORIZON)])
    return float(answer.p_beat(target)[0])


def simulate(snapshot: Snapshot, trial: Trial, n: int = 40_000) -> tuple[Floats, Floats]:
    """Plain Monte Carlo of the documented model, report by report: (values at the horizon, best by the horizon)."""
    rng = np.random.default_rng(0)
    method = ParametricEnsemble()
    seen = observe([trial.curve], snapshot.goal, snapshot.horizon, snapshot.robust_range)
    fitted = fit(seen)
    steps = np.arange(trial.curve.last_step + 1.0, HORIZON + 1.0)
    u = seen.time(np.zeros(1, np.intp), steps[None])[0]
    k = rng.choice(len(FAMILIES), n, p=fitted.weights[0])
    p = fitted.p[0, k] + np.einsum("nij,nj->ni", fitted.root[0, k], rng.standard_normal((n, 5)))
    p[:, 3:] = np.clip(p[:, 3:], -9.0, 4.0)
    m = curve_at(FAMILIES, k, np.broadcast_to(u, (n, u.size)), np.full(n, seen.u[0, 0]), p)
    now = seen.u[0, seen.n[0] - 1]
    wander = method.discrepancy * np.hypot(seen.recent[0], 0.1) * np.log(u / now)
    m += rng.standard_normal((n, 1)) * wander
    m += (fitted.noise * fitted.weights).sum() * rng.standard_normal(m.shape)
    value, low = m[:, -1], m.min(1)
    broad = rng.standard_t(3.0, n) * (1.0 - now / u[-1]) * max(1.0, seen.spread[0])
    broad += np.where(rng.random(n) < 0.5, seen.y[0, : seen.n[0]].min(), 0.0)
    forget = rng.random(n) < method.broad
    value, low = np.where(forget, broad, value), np.where(forget, broad, low)
    scaled = seen.loc[0] + seen.unit[0] * np.stack([value, low])
    return scaled[0], np.minimum(scaled[1], (snapshot.goal.sign * trial.curve.values).min())


@pytest.mark.parametrize("n", [5, 12, 30])
@pytest.mark.parametrize("seed", [21, 22])
def test_mixture_and_best_by_match_a_plain_simulation(n: int, seed: int) -> None:
    snapshot = study(laws(20), [("live", laws(1, seed=seed, noise=0.01)[0, :n])])
    trial = snapshot.live[0]
    value, best = simulate(snapshot, trial)
    answers = ParametricEnsemble().forecast(
        snapshot, [Query(trial, "value", HORIZON), Query(trial, "best_by", HORIZON)]
    )
    for row, draws in enumerate((value, best)):
        points = np.quantile(draws, [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9])
        points = points[points < draws.max()]
        said = answers.cdf(np.stack([points] * 2))[row]
        true = (draws[:, None] <= points).mean(0)
        lower = true <= 0.1
        np.testing.assert_allclose(said[lower], true[lower], atol=0.015)  # where stops are decided
        np.testing.assert_allclose(said, true, atol=0.05)
    atom = (best == best.max()).mean()
    said = 1.0 - answers.p_beat(best.max())[1]
    assert said == pytest.approx(atom, abs=0.05)


def test_read_off_against_dense_gaussians() -> None:
    rng = np.random.default_rng(1)
    where = rng.normal([[0.0], [3.0]], [[1.0], [0.2]], (2, 20_000))
    mass = np.full(where.shape, 1.0 / where.shape[1])
    knots, levels, tails = read_off(where, mass, np.array([np.inf, 2.9]))
    expected = np.quantile(where[0], LEVELS[5:-3])
    np.testing.assert_allclose(knots[0, 5 : LEVELS.size - 3], expected, atol=0.01)
    assert knots[1, -1] == 2.9
    assert levels[1, -1] == 1.0
    assert levels[1, -2] == pytest.approx((where[1] < 2.9).mean(), abs=0.005)
    assert tails[1, 1] == 0.0


def test_future_reports_are_counted_once() -> None:
    times, counts, n = future(np.array([10.0, 10.0, 39.0, 40.0]), np.full(4, 40.0), np.array([1.0, 10.0, 1.0, 1.0]))
    assert n.tolist() == [30.0, 3.0, 1.0, 0.0]
    assert counts[:3].sum(1) == pytest.approx([30.0, 3.0, 1.0])
    assert times.shape == (4, TIMES)
    assert (times[:, -1] == 40.0).all()
    assert times[1, counts[1] > 0] == pytest.approx([20.0, 30.0, 40.0])
    assert (times[counts > 0] <= 40.0).all()
    # The quadrature keeps the mean time of the reports it stands for: 11, 12, ..., 40.
    assert (times[0] * counts[0]).sum() / 30.0 == pytest.approx(25.5)


@pytest.mark.parametrize("size", [0.5, -0.2, 1e34, -1e3])
@pytest.mark.parametrize("at", [1, 8, 17, 19])  # not 0: a high first report is a steep start as well
def test_one_outlier_does_not_move_the_verdict(size: float, at: int) -> None:
    for seed in (31, 32):
        loss = laws(1, seed=seed)[0, :20]
        spoiled = loss.copy()
        spoiled[at] += size
        clean_best = loss.min()
        for target in (clean_best - 0.3, clean_best - 0.1):
            # A target below the outlier itself would be beaten already: ask about the value at the horizon.
            before, after = p_beat(loss, target, kind="value"), p_beat(spoiled, target, kind="value")
            assert abs(before - after) < 0.05, (seed, at, size, target, before, after)
            assert (before < 0.05) == (after < 0.05)


def fooling() -> dict[str, tuple[Floats, float, int]]:
    """Curves that fool a pruner: name -> (losses, a target it beats in the end, the cut at which it looks bad)."""
    rng = np.random.default_rng(5)
    noise = 0.003 * rng.standard_normal(HORIZON)
    base = 0.3 + T**-0.7
    dip, oscillating, crossing = base.copy(), base.copy(), 1.2 - 0.75 * (T / HORIZON) ** 0.8
    dip[19:24] += 0.4 * np.exp(-np.arange(5.0))
    oscillating += 0.1 * np.sin(T) * np.exp(-T / 60.0)
    warm = np.where(T < 6, 1.0 + 0.2 * T, 0.35 + 1.6 * np.exp(-(T - 5.0) / 6.0))
    spike = base.copy()
    spike[18] = 1e34
    saw = base + 0.1 * (T % 6.0) / 6.0
    return {
        "stability gap and recovery": (dip + noise, 0.38, 21),
        "two points into the dip": (dip + noise, 0.38, 22),
        "benign oscillation": (oscillating + noise, 0.33, 20),
        "warm-up rise": (warm + noise, 0.6, 9),
        "spike with recovery": (spike + noise, 0.38, 19),
        "saw-tooth": (saw + noise, 0.39, 17),
        "near-linear slow learner": (crossing + noise, 0.55, 16),
    }


@pytest.mark.parametrize("name", fooling())
def test_curves_that_fool_a_pruner_are_not_written_off(name: str) -> None:
    loss, target, cut = fooling()[name]
    assert loss.min() < target < loss[:cut].min(), "the test's own premise"
    p = p_beat(loss, target, cut)
    assert np.isnan(p) or p > 0.05, f"{name}: P(beat) = {p:.3f}"


def test_an_overfit_hump_keeps_its_best() -> None:
    hump = 0.3 + np.exp(-T / 4.0) + 0.01 * T
    best = hump[:25].min()
    assert p_beat(hump, best + 0.01, 25) == 1.0
    assert p_beat(hump, best - 0.05, 25) < 0.1


def test_a_hopeless_trial_is_called_hopeless() -> None:
    bad = laws(1, seed=3)[0] + 0.6
    assert p_beat(bad, 0.3, 12) < 0.02
    assert p_beat(bad, 0.3, 24) < 0.02


def test_a_jump_is_off_law_and_an_outlier_is_not() -> None:
    snapshot = study(laws(20), [])
    loss = laws(1, seed=7)[0]
    jumped, spiked = loss.copy(), loss.copy()
    jumped[20:] += 0.8
    spiked[22] += 0.8

    def reason(curve: Floats) -> Absent | None:
        trial = Trial("live", Curve.of(T[: len(curve)], curve))
        return ParametricEnsemble().forecast(snapshot, [Query(trial, "best_by", HORIZON)]).absent[0]

    assert reason(jumped[:23]) is Absent.UNSUPPORTED
    assert reason(spiked[:23]) is None
    assert reason(loss[:23]) is None


def test_what_is_known_is_certain() -> None:
    loss = laws(1, seed=8)[0]
    snapshot = study(laws(20), [("live", loss[:20])])
    trial = snapshot.live[0]
    queries = [Query(trial, "best_by", 12), Query(trial, "value", 12), Query(trial, "best_by", 20)]
    answers = ParametricEnsemble().forecast(snapshot, queries)
    expected = [loss[:12].min(), loss[11], loss[:20].min()]
    assert answers.mean() == pytest.approx(expected)
    assert answers.quantile(np.full((3, 2), [0.01, 0.99])).T[0] == pytest.approx(expected)


def test_no_scale_is_off_law() -> None:
    goal = Goal("loss", "minimize", HORIZON)
    curves = {"one": Curve.of([1], [0.5]), "constant": Curve.of([1, 2, 3], [0.5] * 3)}
    live = tuple(Trial(uid, curve) for uid, curve in curves.items())
    snapshot = Snapshot("s", goal, FinishedTrials(goal), live)
    answers = ParametricEnsemble().forecast(snapshot, [Query(t, "best_by", HORIZON) for t in live])
    assert answers.absent == (Absent.UNSUPPORTED, Absent.UNSUPPORTED)
    known = study(laws(5), [(uid, curve.values) for uid, curve in curves.items()])
    assert_valid(ParametricEnsemble().forecast(known, [Query(t, "best_by", HORIZON) for t in known.live]), 2)


@pytest.mark.parametrize("value", [0.1, 0.7])
def test_a_curve_that_has_not_moved_goes_by_what_became_of_those_beside_it(value: float) -> None:
    """No family of decay says anything of it, but each would be sure."""
    rows = np.maximum(laws(12), 0.6)
    dead, late = np.full((2, HORIZON), 1.5), np.where(T < 20, 1.5, 0.5)
    live = [("x", np.full(10, 1.5))]
    without, some = study(np.vstack([rows, dead]), live), study(np.vstack([rows, dead, late[None]]), live)
    for seen in (without, some):
        own, beside = (f.forecast(seen, ask(seen)) for f in (ParametricEnsemble(), RankAndGap()))
        at = np.full((3, 1), value)
        np.testing.assert_array_equal(own.cdf(at), beside.cdf(at))
    p = [ParametricEnsemble().forecast(s, ask(s, ("best_by",))).p_beat(0.55)[0] for s in (without, some)]
    assert p[0] < 0.05 < p[1]


def test_sparse_steps_and_other_axes_say_the_same() -> None:
    loss = laws(1, seed=9)[0, ::2]

    def said(unit: float, first: float) -> float:
        goal = Goal("loss", "minimize", HORIZON * unit)
        steps = first + unit * T[::2]
        done = [
            Trial(f"d{i}", Curve.of(first + unit * T, row), status=Status.COMPLETE) for i, row in enumerate(laws(10))
        ]
        snapshot = Snapshot("s", goal, FinishedTrials(goal).extend(done))
        trial = Trial("live", Curve.of(steps[:8], loss[:8]))
        return float(ParametricEnsemble().forecast(snapshot, [Query(trial, "best_by", HORIZON * unit)]).p_beat(0.4)[0])

    assert said(1.0, 0.0) == pytest.approx(said(250.0, 0.0), rel=1e-9)


def test_fast_enough() -> None:
    rows = laws(100, seed=10)
    snapshot = study(laws(100), [(f"live-{i}", row[:25]) for i, row in enumerate(rows)])
    trial = snapshot.live[0]
    two = [Query(trial, "best_by", HORIZON), Query(trial.cut(24), "best_by", HORIZON)]
    many = [Query(t, "best_by", HORIZON) for t in snapshot.live]
    method = ParametricEnsemble()

    def cpu(queries: list[Query], repeats: int) -> float:
        spent = []
        for _ in range(repeats):
            start = time.process_time()
            method.forecast(snapshot, queries)
            spent.append(time.process_time() - start)
        return float(np.min(spent))

    # Ten times what it costs on a quiet machine (10 ms, 100 ms): a guard against accidents, not a benchmark.
    assert cpu(two, 5) < 0.1
    assert cpu(many, 3) < 1.0


def test_a_curve_beyond_all_measure_spoils_no_other() -> None:
    """1e296 back and forth: the answer to every query of the batch was an IndexError."""
    wild = trial("w", [-0.0, 1e-12, -1e296, 1e296, 1e-12, -1e296], Status.RUNNING)
    plain = trial("p", [1.0, 0.8, 0.7, 0.64, 0.6, 0.58], Status.RUNNING)
    seen = snapshot(goal(horizon=11), [])
    with np.errstate(all="ignore"):  # as looks are made
        alone = ParametricEnsemble().forecast(seen, [Query(plain, "best_by", 11)])
        both = ParametricEnsemble().forecast(seen, [Query(wild, "best_by", 11), Query(plain, "best_by", 11)])
    assert both.absent[0] is not None
    assert both.quantile(0.5)[1] == alone.quantile(0.5)[0]
