from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lcsearch.curves import Curve
from lcsearch.forecast.network import features
from lcsearch.forecast.network.reports import LONGEST, Batch, Reports, own_units, pad, planned
from lcsearch.schedule import Schedule
from lcsearch.study import Status, Trial


def reports(n: int, start: float = 1.0, gap: float = 1.0, status: Status = Status.RUNNING) -> Reports:
    steps = start + gap * np.arange(float(n))
    return Reports.of(Trial("t", Curve.of(steps, 1.0 / (1.0 + np.arange(n))), status=status), 1.0, 100.0)


@pytest.mark.parametrize(("start", "gap"), [(1.0, 1.0), (0.0, 1.0), (10.0, 10.0), (-3.0, 0.5)])
def test_time_starts_one_spacing_before_the_first_report(start: float, gap: float) -> None:
    got = reports(5, start, gap)
    assert got.start == start - gap
    assert got.start + got.reach == 100.0
    assert got.total == pytest.approx(5 + (100.0 - start - 4 * gap) / gap)


def test_one_report_takes_the_studys_spacing_or_what_its_step_says() -> None:
    def one(step: float, gap: float | None) -> Reports:
        return Reports.of(Trial("t", Curve.of([step], [0.5])), 1.0, 100.0, gap)

    assert (one(0.0, 5.0).start, one(0.0, 5.0).total) == (-5.0, 21.0)
    assert (one(4.0, None).start, one(4.0, None).total) == (0.0, 25.0)
    assert (one(0.0, None).start, one(0.0, None).total) == (-2.0, 51.0)


def test_a_complete_trial_has_made_all_its_reports() -> None:
    assert reports(90, status=Status.COMPLETE).total == 90.0
    assert reports(90, status=Status.STOPPED).total == 100.0


def test_long_curves_are_thinned_evenly_from_the_end_and_keep_their_best() -> None:
    steps = np.arange(1.0, 5001.0)
    values = 1.0 + 1.0 / steps
    values[2345] = -7.0
    got = Reports.of(Trial("t", Curve.of(steps, values)), 1.0, 10000.0)
    assert got.thinned
    assert got.steps.size <= LONGEST
    assert got.steps[-1] == 5000.0
    assert set(np.diff(got.steps)) == {10.0}
    assert got.best[-1] == -7.0
    assert got.total == pytest.approx(1000.0)
    assert float(Batch.of([got], "cpu").curves.best[0, -1]) < float(Batch.of([got], "cpu").curves.y.min())


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_padding_repeats_the_last(sizes: list[int]) -> None:
    index = pad(np.array(sizes))
    parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    for row, part in zip(index, parts, strict=True):
        assert row.tolist() == [*part.tolist(), *[part[-1]] * (max(sizes) - len(part))]


plain = st.integers(-(10**6), 10**6).map(lambda x: x / 1000.0)
value = st.one_of(plain, st.just(np.inf))


@settings(deadline=None)
@given(
    st.lists(value, min_size=2, max_size=20),
    st.lists(st.one_of(value, st.just(1e12)), max_size=20),
    st.integers(-40, 40),
)
def test_tokens_of_a_live_trial_do_not_change_while_it_grows(
    seen: list[float], later: list[float], exponent: int
) -> None:
    """Dividing by a power of two rounds nothing, so the unit may change while what was seen does not."""
    if not np.isfinite(seen).any():
        return

    def tokens(values: list[float]) -> torch.Tensor:
        losses = np.ldexp(np.array(values), exponent)
        curve = Curve.of(np.arange(1.0, len(values) + 1.0), losses)
        batch = Batch.of([Reports.of(Trial("t", curve), 1.0, 60.0)], "cpu")
        return features.tokens(batch.curves, batch.grid)[0]

    before = tokens(seen)[:-1]
    torch.testing.assert_close(tokens(seen + later)[: len(before)], before, rtol=0.0, atol=1e-5)


def test_own_units_are_powers_of_two_that_a_blow_up_does_not_set() -> None:
    center, scale = own_units(np.array([[np.inf, 1.0, 0.5, 1e34, 0.4], [3.0] * 5]), 0.1)
    assert center.tolist() == [1.0, 3.0]
    assert scale.tolist() == [0.5, 0.0625]


def test_a_plan_is_a_share_of_its_peak_and_of_its_area() -> None:
    rate, area = planned(Schedule("linear", 1e-3, 50.0), np.array([0.0, 25.0, 50.0, 99.0]))
    np.testing.assert_allclose(rate, [1.0, 0.5, 0.0, 0.0])
    np.testing.assert_allclose(area, [0.0, 0.75, 1.0, 1.0], atol=1e-4)
