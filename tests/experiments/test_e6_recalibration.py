"""A map of odds: as its formula says, found again, within a forecaster's contract, and never fitted to itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import props
from kit.forecasters import ForecasterKit, ask, laws, study
from kit.scripts import EXPERIMENTS, neighbour, script
from scipy.special import expit, logit

from lcsearch.forecast.contract import Forecaster
from lcsearch.forecast.rank_gap import RankAndGap

for shared in ("research", "provenance"):
    neighbour("e6_recalibration", shared)
for beside in ("calibration", "cheap", "entrants", "scores", "questions"):
    neighbour("e1_forecast", beside)
recal = neighbour("e6_recalibration", "recalibrated")
Odds, Recalibrated, fit = recal.Odds, recal.Recalibrated, recal.fit


class TestRecalibratedKeepsTheContract(ForecasterKit):
    dominance_atol = 0.3  # rank-gap's own, see its test

    @pytest.fixture(autouse=True)
    def _found_by_processes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(EXPERIMENTS / "e6_recalibration"))

    def make(self) -> Forecaster:
        made: Forecaster = Recalibrated(RankAndGap(), Odds(0.7, -0.4))
        return made


def test_the_map_by_hand() -> None:
    odds = Odds(2.0, math.log(3))
    assert odds([0.5, 0.0, 1.0]).tolist() == pytest.approx([0.75, 0.0, 1.0])  # odds 1 become 3; what is certain stays
    assert odds(0.2) == pytest.approx(3 / 16 / (1 + 3 / 16))  # odds 1/4, squared, times 3
    assert np.isnan(odds(math.nan))
    assert odds.back(0.75) == pytest.approx(0.5)
    assert Odds()([0.1, 0.9]).tolist() == pytest.approx([0.1, 0.9])


@props
@given(st.floats(0.2, 3), st.floats(-3, 3), st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_it_is_monotone(slope: float, shift: float, p: list[float]) -> None:
    assert (np.diff(Odds(slope, shift)(sorted(p))) >= 0).all()


def test_p_beat_is_mapped_and_absent_answers_stay_absent() -> None:
    rows = laws(6, seed=3)
    snapshot = study(laws(20), [*((f"live-{i}", row[:9]) for i, row in enumerate(rows)), ("none", np.zeros(0))])
    plain = RankAndGap().forecast(snapshot, ask(snapshot))
    odds = Odds(0.8, -1.0)
    mapped = Recalibrated(RankAndGap(), odds).forecast(snapshot, ask(snapshot))
    assert mapped.absent == plain.absent
    known = [i for i, reason in enumerate(plain.absent) if reason is None]
    at = plain.knots[:, 3]  # at a knot nothing is interpolated
    np.testing.assert_allclose(mapped.cdf(at)[known], odds(plain.cdf(at))[known], rtol=1e-12)
    assert (mapped.p_beat(at)[known] <= plain.p_beat(at)[known] + 1e-12).all()


def test_far_out_the_tail_falls_as_the_map_has_it() -> None:
    rows = laws(4, seed=3)
    snapshot = study(laws(20), [(f"live-{i}", row[:9]) for i, row in enumerate(rows)])
    plain = RankAndGap().forecast(snapshot, ask(snapshot, ("value",)))
    odds = Odds(0.5, 0.3)
    far, farther = (plain.knots[:, 0] - n * plain.tails[:, 0] for n in (12, 20))
    fallen = odds.of(plain).cdf(farther) / odds.of(plain).cdf(far)
    np.testing.assert_allclose(fallen, odds(plain.cdf(farther)) / odds(plain.cdf(far)), rtol=1e-2)


def test_version_and_name_tell_the_map() -> None:
    one, other = (Recalibrated(RankAndGap(), Odds(1.0, shift)) for shift in (0.0, 1e-9))
    assert one.name == "rank-gap-recal"
    assert one.version.startswith(RankAndGap().version)
    assert one.version != other.version
    assert Odds(1.0, 0.5).version == Odds(1.0, 0.5).version


def drawn(odds: Any, n: int = 20000) -> tuple[Any, Any]:
    """What is said where the truth is the map of it."""
    rng = np.random.default_rng(0)
    p = rng.beta(0.4, 1.0, n)
    return p, rng.random(n) < odds(p)


@pytest.mark.parametrize("odds", [Odds(0.6, -0.8), Odds(1.5, 0.4), Odds()])
def test_a_map_is_found_again(odds: Any) -> None:
    found = fit(*drawn(odds))
    assert found.slope == pytest.approx(odds.slope, abs=0.06)
    assert found.shift == pytest.approx(odds.shift, abs=0.12)


def test_it_minimizes_what_it_says() -> None:
    p, won = drawn(Odds(0.6, -0.8), 300)
    weight = np.linspace(0.1, 2, 300)

    def cost(slope: float, shift: float) -> float:
        q = expit(slope * logit(np.clip(p, recal.CLIP, 1 - recal.CLIP)) + shift)
        loss = -(weight * np.where(won, np.log(q), np.log1p(-q))).sum()
        return float(loss + ((slope - 1) ** 2 + shift**2) / (2 * 0.5**2))

    found = fit(p, won, weight, 0.5)
    best = cost(found.slope, found.shift)
    for step in (0.01, -0.01):
        assert cost(found.slope + step, found.shift) > best
        assert cost(found.slope, found.shift + step) > best


def test_little_is_known_little_is_moved() -> None:
    assert fit([], []) == Odds()
    assert fit([0.3, 0.2], [0, 0]) == Odds()  # nothing won: no map says how likely it is
    assert fit([math.nan, 0.3], [1, 0], sd=1e-3).shift == pytest.approx(0.0, abs=1e-5)
    p, won = drawn(Odds(0.6, -0.8), 40)
    shifts = [abs(fit(p, won, sd=sd).shift) for sd in (0.01, 0.1, 1.0, math.inf)]
    assert shifts == sorted(shifts)
    assert shifts[0] < 0.01


# The experiment


@pytest.fixture
def run() -> Any:
    return script("e6_recalibration/run.py")


def test_a_study_learns_from_what_it_knows_alone(run: Any) -> None:
    def known(knows: str) -> list[list[float]]:
        return list(run.seen([stopped, ended], knows, np.random.default_rng(0)))

    stopped, ended = [(0.5, True), (0.04, True), (0.03, True)], [(0.04, False), (0.3, False)]
    assert known("all") == [[0.5, 1, 1 / 3], [0.04, 1, 1 / 3], [0.03, 1, 1 / 3], [0.04, 0, 1 / 2], [0.3, 0, 1 / 2]]
    assert known("ended") == [[0.04, 0, 1 / 2], [0.3, 0, 1 / 2]]  # the other was below .05 twice
    drawn = [list(run.seen([stopped], "audits", np.random.default_rng(seed))) for seed in range(400)]
    audited = [rows for rows in drawn if rows]
    assert len(audited) == pytest.approx(400 * run.AUDIT, abs=20)
    assert all(sum(row[2] for row in rows) == pytest.approx(1 / run.AUDIT) for rows in audited)


def test_a_sweep_is_scored_on_trials_that_its_map_has_not_seen(run: Any) -> None:
    hopes = [[(0.3, False)] * 3 for _ in range(30)]  # says 30 %, never does
    raw, mapped = run.inside(hopes, "all", 1.0)
    assert raw == pytest.approx(-math.log(0.7))
    assert mapped < raw / 3
    first, same = run.inside(hopes[:2], "ended", 1e-6)
    assert same == pytest.approx(first)  # a prior that narrow moves nothing


def test_levels_that_are_even_and_levels_that_are_not(run: Any) -> None:
    even = np.linspace(0, 1, 1001)
    assert run.uneven(even) < 0.01
    assert run.uneven(even**2) == pytest.approx(0.25, abs=0.01)
    nothing = np.zeros(1000)
    atom = run.Rows(nothing, nothing, nothing, nothing + 1)  # all mass on the truth says as much as even levels
    assert run.uneven(run.truths(atom)) < 0.05
    assert run.truths(atom._replace(low=nothing * np.nan)).size == 0


def test_a_map_of_values_makes_levels_even(run: Any) -> None:
    rng = np.random.default_rng(0)
    u = Odds(0.6, 0.8)(rng.random(4000))  # the truth lies too high, and too far in
    rows = run.Rows(u, u, u, u)
    odds = fit(*run.fitted([rows], "values"))
    assert run.uneven(u) > 0.1 > 4 * run.uneven(odds(u))


def test_figures_are_paired_by_task(run: Any) -> None:
    p, won = np.array([0.5, 0.5, 0.01, 0.01]), np.array([1.0, 0.0, 0.0, 0.0])
    rows = run.Rows(p, won, p, p)
    same, other = run.figures([rows, rows], Odds()), run.figures([rows, rows], Odds(1.0, -1.0))
    assert same["gap"] == [0.0, 0.0]
    assert (same["as_if"], same["low"]) == (pytest.approx(0.05), [0.5, 0.0])
    assert other["gap"] == [pytest.approx(other["log_loss"] - same["log_loss"]), 0.0]
    assert other["as_if"] == pytest.approx(expit(logit(0.05) + 1))
