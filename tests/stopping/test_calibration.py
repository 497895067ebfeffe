"""What became of forecasts: bands, bins, the state, and the sentence on what n trials can prove."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import goal, props, trial

from lcsearch.goal import Goal
from lcsearch.stopping.calibration import ENOUGH, Calibration, Outcome, clopper_pearson, outcomes_of
from lcsearch.stopping.risk import LEVELS, StopRecord
from lcsearch.study import Status


def binomial(k: int, n: int, p: float) -> float:
    """P(Bin(n, p) <= k), term by term."""
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


@props
@given(st.integers(1, 60), st.floats(0, 1), st.floats(0.5, 0.999))
def test_the_band_is_clopper_s_and_pearson_s(n: int, share: float, confidence: float) -> None:
    k = round(share * n)
    low, high = clopper_pearson(k, n, confidence)
    assert 0.0 <= low <= k / n <= high <= 1.0
    half = (1 - confidence) / 2
    if k:
        assert 1 - binomial(k - 1, n, low) == pytest.approx(half, abs=1e-9)
    if k < n:
        assert binomial(k, n, high) == pytest.approx(half, abs=1e-9)


def test_known_bounds() -> None:
    assert clopper_pearson(0, 6, 0.9)[1] == pytest.approx(1 - 0.05 ** (1 / 6))  # six audits bound a rate by 39 %
    assert clopper_pearson(0, 10) == pytest.approx((0.0, 0.30850), abs=1e-5)
    assert clopper_pearson(3, 10) == pytest.approx((0.06674, 0.65245), abs=1e-5)


def outcomes(n: int, p: float, rate: float) -> list[Outcome]:
    return [Outcome(str(i), p, i < rate * n) for i in range(n)]


def test_the_state() -> None:
    assert Calibration().state == "uncalibrated"
    assert Calibration(certificate="at most 2 % of winners lost").state == "certified"
    assert Calibration.of(outcomes(ENOUGH - 1, 0.3, 0.3)).state == "uncalibrated"
    assert Calibration.of(outcomes(ENOUGH, 0.3, 0.3)).state == f"calibrated on {ENOUGH}"
    wrong = Calibration.of(outcomes(40, 0.03, 0.4), certificate="at most 2 % of winners lost")
    assert wrong.state == "uncalibrated"  # what is seen here goes before what was proved elsewhere
    assert wrong.sentence == (
        "P(beat) is off here: of 40 trials with a forecast in 0 to 5 % 16 beat their target, 1.2 were forecast to"
    )


def test_a_trial_counts_once_a_bin() -> None:
    found = Calibration.of([Outcome("1", p, True) for p in (0.01, 0.02, 0.03, 0.6, 0.7)])
    assert (found.n, [(one.low, one.n, one.forecast) for one in found.bins]) == (1, [(0.0, 1, 0.01), (0.5, 1, 0.6)])


def test_in_words() -> None:
    assert Calibration().lines == [
        "P(beat) is uncalibrated",
        "no trial with a forecast has ended yet, so nothing is known of how P(beat) fares here",
    ]
    found = Calibration.of([*outcomes(20, 0.02, 0.0), *(Outcome(f"x{i}", 0.9, i < 9) for i in range(10))])
    assert found.lines == [
        "P(beat) is calibrated on 30",
        "     P(beat)  trials  forecast    beat  95 % band",
        "    0 to 5 %      20       2 %     0 %  0 % to 17 %",
        " 80 to 100 %      10      90 %    90 %  55 % to 100 %",
        "30 trials that ran to their end do not contradict P(beat); 20 trials below 5 %: that at most 14 % of such win "
        "is all they can prove (95 %), and of stopped trials only audits can",
    ]
    none_low = Calibration.of(outcomes(1, 0.5, 1.0))
    assert none_low.sentence == (
        "1 trial that ran to its end does not contradict P(beat) (at least 20 are asked for); none had one below 5 %, "
        "so nothing is shown of the stops"
    )


@pytest.mark.parametrize("of", [goal(), goal("maximize")])
def test_outcomes_of_a_log(of: Goal) -> None:
    s = of.sign
    trials = [
        trial("1", [s * 3.0, s * 1.0]),
        trial("2", [s * 3.0, s * 2.0]),
        trial("3", [s * 3.0], Status.STOPPED),
    ]
    records = [
        {"trial": uid, "step": 1, "now": {"p": p}, "target": s * 1.5}
        for uid, p in (("1", 0.4), ("2", 0.3), ("3", 0.01), ("9", 0.5), ("1", None))
    ]
    records += [{"trial": "1", "step": 2, "now": {"p": 0.2}}, {"trial": "2", "step": 2}]
    assert outcomes_of(records, trials, of) == [("1", 0.4, True, None), ("2", 0.3, False, None)]


@pytest.mark.parametrize("of", [goal(), goal("maximize")])
def test_a_trial_stopped_by_p_beat_has_not_beaten_and_is_owed_what_its_stop_gave_it(of: Goal) -> None:
    losses = tuple(map(float, np.linspace(1.0, 2.3, len(LEVELS))))
    stop = StopRecord(2, "BELOW", 0.02, "", losses, losses[4])
    stopped = [
        replace(trial("1", [3.0], Status.STOPPED), stop_records={"stop": stop}),
        replace(trial("2", [3.0], Status.STOPPED), stop_records={"stop": replace(stop, p=None, losses=())}),  # diverged
        replace(trial("3", [3.0], Status.RUNNING), stop_records={"stop": stop}),
        trial("4", [3.0], Status.STOPPED),  # by something else
    ]
    records = [
        {"trial": uid, "step": step, "now": {"p": p}, "target": of.sign * losses[at]}
        for uid in "1234"
        for step, p, at in ((1, 0.6, 6), (2, 0.02, 4))
    ]
    found = outcomes_of(records, stopped, of)
    assert [one[:3] for one in found] == [("1", 0.6, False), ("1", 0.02, False)]
    assert [one.owed for one in found] == [pytest.approx(LEVELS[6]), 0.02]  # by the target of the look
    against = "against running trials 0, by what they are forecast to reach"
    for known in ({"rivals": ["0"]}, {"detail": against}):  # as it is written, and as an earlier lcsearch had it
        assert outcomes_of([{**record, **known} for record in records], stopped, of) == []


def test_in_words_with_stopped_trials() -> None:
    stopped = [Outcome(f"s{i}", p, False, 0.02) for i in range(30) for p in (0.3, 0.02)]
    found = Calibration.of([*outcomes(20, 0.02, 0.0), *(Outcome(f"x{i}", 0.4, i < 18) for i in range(20)), *stopped])
    assert found.lines == [
        "P(beat) is calibrated on 40",
        "     P(beat)  trials  stopped  forecast    beat  95 % band",
        "    0 to 5 %      50       30       2 %     0 %  0 % to 11 %",
        "  20 to 50 %      50       30      34 %    36 %  23 % to 53 %",
        "40 trials that ran to their end do not contradict P(beat); 20 trials below 5 %: that at most 14 % of such win "
        "is all they can prove (95 %), and of stopped trials only audits can",
    ]
    one = Calibration.of([Outcome("s", 0.02, False, 0.02)])  # a table of stopped trials, and "no trial has ended"
    assert one.sentence == (
        "no trial with a forecast has run to its end yet, so nothing is known of how P(beat) fares here"
    )
    never = Calibration.of([Outcome(str(i), 0.9, False, 0.02) for i in range(30)])
    assert (never.n, never.state) == (0, "uncalibrated")
    assert never.sentence == (
        "P(beat) is off here: of 30 trials with a forecast in 80 to 100 % 0 beat their target, 27.0 were forecast to "
        "(30 were stopped, which takes 0.6)"
    )


def test_stops_do_not_make_right_forecasts_look_wrong() -> None:
    """Trials walk; what is said of their ends is right, or far too low. Below 5 % they are stopped."""
    rng, n_looks, target = np.random.default_rng(0), 6, -0.5
    told = {1: 0, 3: 0}
    for power in told:
        for _ in range(30):
            records: list[dict[str, object]] = []
            trials = []
            for i in range(150):
                walk, stop = np.cumsum(rng.normal(size=n_looks)) / math.sqrt(n_looks), None
                for at in range(n_looks - 1):
                    left = math.sqrt(1 - (at + 1) / n_looks)
                    p = (0.5 * math.erfc((walk[at] - target) / left / math.sqrt(2))) ** power
                    records.append({"trial": str(i), "now": {"p": p}, "target": target})
                    if p < 0.05:
                        stop = StopRecord(at, "BELOW", p, "", target=target)
                        break
                made = trial(str(i), [float(walk[-1])], Status.COMPLETE if stop is None else Status.STOPPED)
                trials.append(made if stop is None else replace(made, stop_records={"stop": stop}))
            told[power] += Calibration.of(outcomes_of(records, trials, goal())).contradicted is not None
    assert told[1] <= 2
    assert told[3] >= 20


def test_a_right_forecast_is_seldom_contradicted_and_a_wrong_one_is() -> None:
    rng = np.random.default_rng(0)
    told = {"right": 0, "square": 0}
    for _ in range(200):
        p = rng.uniform(0, 1, 120)
        beat = rng.uniform(size=120) < p
        for name, said in (("right", p), ("square", p**2)):
            made = Calibration.of(
                Outcome(str(i), float(q), bool(b)) for i, (q, b) in enumerate(zip(said, beat, strict=True))
            )
            told[name] += made.contradicted is not None
    assert told["right"] <= 10
    assert told["square"] >= 150
