"""What every forecaster must keep. Run it on your own::

from kit.forecasters import ForecasterKit

class TestMine(ForecasterKit):
    def make(self) -> Forecaster:
        return MyForecaster()
"""

from __future__ import annotations

import base64
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lcsearch.curves import Curve, Floats
from lcsearch.forecast.contract import Absent, Forecaster, Forecasts, Kind, Query
from lcsearch.goal import Direction, Goal, Judged
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial

HORIZON = 40
KINDS: tuple[Kind, ...] = ("value", "latent", "best_by")


def laws(n: int, seed: int = 0, noise: float = 0.004) -> Floats:
    """(n, HORIZON) losses of a made-up study: power laws of many speeds, Gaussian noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(1.0, HORIZON + 1.0)
    c, a, b = (rng.uniform(low, high, (n, 1)) for low, high in ((0.2, 0.6), (0.4, 1.6), (0.3, 1.2)))
    return np.asarray(c + a * t**-b + noise * rng.standard_normal((n, HORIZON)))


def study(
    losses: Floats,
    looks: list[tuple[str, Floats]],
    *,
    direction: Direction = "minimize",
    judged: Judged = "best",
    scale: float = 1.0,
    shift: float = 0.0,
) -> Snapshot:
    """A study with `losses` (n, HORIZON) finished and `looks` (uid, losses so far) running.

    Values are `sign * (scale * loss + shift)`: the same study in other units or mirrored.
    """
    goal = Goal("metric", direction, HORIZON, judged)

    def curve(loss: Floats) -> Curve:
        return Curve.of(np.arange(1.0, len(loss) + 1.0), goal.sign * (scale * loss + shift))

    done = [Trial(f"done-{i}", curve(row), status=Status.COMPLETE) for i, row in enumerate(losses)]
    live = tuple(Trial(uid, curve(loss)) for uid, loss in looks)
    return Snapshot("kit", goal, FinishedTrials(goal).extend(done), live)


def ask(snapshot: Snapshot, kinds: tuple[Kind, ...] = KINDS, step: float = HORIZON) -> list[Query]:
    """Every kind of question about every live trial."""
    return [Query(trial, kind, step) for trial in snapshot.live for kind in kinds]


def assert_valid(forecasts: Forecasts, n: int) -> None:
    """n answers, each a distribution or a reason."""
    assert len(forecasts) == n
    for i in range(n):
        one = forecasts.row(i)
        if isinstance(one, Absent):
            continue
        assert np.isfinite(one.knots).all()
        assert np.isfinite(one.tails).all()
        assert (np.diff(one.knots) >= 0).all()
        assert (np.diff(one.levels) >= 0).all()
        assert one.levels.min() >= 0
        assert one.levels.max() <= 1
        assert (one.tails >= 0).all()
        assert np.isfinite(one.mean()).all()
        p = np.array([[0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]])
        q = one.quantile(p)
        assert np.isfinite(q).all()
        assert (np.diff(q) >= 0).all()
        assert (one.cdf(q) >= p - 1e-6).all(), "P(Y <= quantile(p)) must reach p"


def _interesting() -> list[Floats]:
    """Curves that have broken something somewhere."""
    t = np.arange(1.0, 21.0)
    smooth = 0.3 + t**-0.7
    spike, jump, blown = smooth.copy(), smooth.copy(), smooth.copy()
    spike[12], jump[15:], blown[10:] = 1e34, 3.0, 1e34
    nan_tail, nan_once, inf_end = smooth.copy(), smooth.copy(), smooth.copy()
    nan_tail[10:], nan_once[7], inf_end[-1] = np.nan, np.nan, np.inf
    return [
        np.zeros(0), np.array([0.5]), np.array([0.5, 0.4]), np.array([np.nan]), np.full(20, np.nan), np.full(20, 0.7),
        np.full(2, 0.7), spike, jump, blown, nan_tail, nan_once, inf_end, np.full(20, 1e34),
        np.linspace(-1e300, 1e300, 20), 1e-300 * smooth, 1e8 + 1e-9 * smooth, np.arange(20.0),
        np.arange(20.0)[::-1], smooth, np.tile([0.0, 1.0], 10),
    ]  # fmt: skip


def _tied(snapshot: Snapshot) -> Snapshot:
    """The same study with values so coarse that many are equal."""

    def coarse(trial: Trial) -> Trial:
        return replace(trial, curve=Curve.of(trial.curve.steps, np.round(trial.curve.values, 1)))

    bank = FinishedTrials(snapshot.goal).extend([coarse(trial) for trial in snapshot.bank])
    return replace(snapshot, bank=bank, live=tuple(coarse(trial) for trial in snapshot.live))


class ForecasterKit:
    """The tests. `make` gives a fresh forecaster; the tolerances say how exact it is meant to be."""

    #: Largest relative change of P(beat) under an affine change of the metric.
    affine_rtol: float = 1e-6
    #: How much a later best-by may fall short of an earlier one in probability: quadrature, not law.
    dominance_atol: float = 0.01
    #: How much a probability may depend on what else is asked, and on the order of finished trials.
    batch_atol: float = 0.0
    #: How much an answer may differ when it is asked for again: a host works on what others ask in the same pass.
    again_atol: float = 0.0

    def make(self) -> Forecaster:
        """A fresh forecaster under test."""
        raise NotImplementedError

    @pytest.fixture
    def snapshot(self) -> Snapshot:
        cuts = (3, 5, 8, 12, 20, 30, 39, 12, 8, 20)
        looks = [(f"live-{i}", row[:n]) for i, (row, n) in enumerate(zip(laws(10, seed=1), cuts, strict=True))]
        return study(laws(20), looks)

    @pytest.fixture
    def answers(self, snapshot: Snapshot) -> Forecasts:
        return self.make().forecast(snapshot, ask(snapshot))

    def _p_beat(self, snapshot: Snapshot, queries: list[Query] | None = None) -> Floats:
        assert snapshot.incumbent is not None
        answers = self.make().forecast(snapshot, ask(snapshot) if queries is None else queries)
        return answers.p_beat(snapshot.incumbent.value)

    def test_is_a_forecaster(self) -> None:
        one = self.make()
        assert isinstance(one, Forecaster)
        assert one.name
        assert one.version

    def test_answers_every_query_with_a_distribution(self, snapshot: Snapshot, answers: Forecasts) -> None:
        assert_valid(answers, len(ask(snapshot)))
        assert answers.absent.count(None) >= 0.9 * len(answers), "ordinary curves must be answered"
        assert answers.sign == snapshot.goal.sign
        assert answers.source

    def test_no_queries(self, snapshot: Snapshot) -> None:
        assert len(self.make().forecast(snapshot, [])) == 0

    @pytest.mark.parametrize("judged", ["best", "final"])
    def test_directions_mirror_exactly(self, judged: Judged) -> None:
        looks = [(f"live-{n}", row[:n]) for row, n in zip(laws(6, seed=2), (3, 6, 10, 17, 25, 38), strict=True)]
        down = study(laws(15), looks, judged=judged)
        up = study(laws(15), looks, judged=judged, direction="maximize")
        a, b = self.make().forecast(down, ask(down)), self.make().forecast(up, ask(up))
        assert a.absent == b.absent
        np.testing.assert_array_equal(a.knots, b.knots)
        np.testing.assert_array_equal(a.levels, b.levels)
        np.testing.assert_array_equal(self._p_beat(down), self._p_beat(up))
        np.testing.assert_array_equal(a.mean(), -b.mean())

    @pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0.0), (250.0, 0.0), (1.0, -20.0), (17.0, 3.0)])
    def test_affine_change_of_the_metric_changes_nothing(self, scale: float, shift: float) -> None:
        looks = [(f"live-{n}", row[:n]) for row, n in zip(laws(6, seed=3), (3, 6, 10, 17, 25, 38), strict=True)]
        one, other = study(laws(15), looks), study(laws(15), looks, scale=scale, shift=shift)
        np.testing.assert_allclose(self._p_beat(other), self._p_beat(one), rtol=self.affine_rtol, atol=1e-9)

    def test_a_longer_look_sharpens(self) -> None:
        rows = laws(12, seed=4)
        widths = []
        for n in (6, 14, 30):
            snapshot = study(laws(30), [(f"live-{i}", row[:n]) for i, row in enumerate(rows)])
            answers = self.make().forecast(snapshot, ask(snapshot, ("value",)))
            low, high = answers.quantile(np.tile([0.05, 0.95], (len(rows), 1))).T
            widths.append(float(np.nanmean(high - low)))
        assert widths[0] > widths[1] > widths[2]

    def test_permuting_trials_permutes_answers_and_batch_equals_single(
        self, snapshot: Snapshot, answers: Forecasts
    ) -> None:
        queries = ask(snapshot)
        order = np.random.default_rng(0).permutation(len(queries))
        mixed = self.make().forecast(replace(snapshot, live=snapshot.live[::-1]), [queries[i] for i in order])
        at = np.full((len(queries), 1), float(np.median(snapshot.bank.judged))) + np.array([[-0.1, 0.0, 0.1]])
        np.testing.assert_allclose(mixed.cdf(at), answers.cdf(at)[order], rtol=0.0, atol=self.batch_atol)
        for i in order[:8]:
            alone = self.make().forecast(snapshot, [queries[i]])
            np.testing.assert_allclose(alone.cdf(at[:1]), answers.cdf(at)[i : i + 1], rtol=1e-12, atol=self.batch_atol)

    def test_order_of_finished_trials_does_not_matter(self, snapshot: Snapshot) -> None:
        for seen in (snapshot, _tied(snapshot)):
            other = replace(seen, bank=FinishedTrials(seen.goal).extend(list(seen.bank)[::-1]))
            np.testing.assert_allclose(self._p_beat(other), self._p_beat(seen), rtol=1e-9, atol=1e-12 + self.batch_atol)

    @pytest.mark.parametrize("direction", ["minimize", "maximize"])
    @pytest.mark.parametrize("finished", [0, 1, 3, 12])
    @pytest.mark.filterwarnings("error")
    def test_strange_curves_get_a_distribution_or_a_reason(self, finished: int, direction: Direction) -> None:
        odd = [(f"odd-{i}", curve) for i, curve in enumerate(_interesting())]
        snapshot = study(laws(12)[:finished], odd, direction=direction)
        assert_valid(self.make().forecast(snapshot, ask(snapshot)), len(ask(snapshot)))

    @pytest.mark.filterwarnings("error")
    def test_diverged_trials_in_the_bank(self) -> None:
        losses = laws(12)
        losses[0, 10:], losses[1, 5:], losses[2, 20:], losses[3] = np.nan, 1e34, np.inf, np.nan
        snapshot = study(losses, [("live", laws(1, seed=5)[0, :12])])
        assert_valid(self.make().forecast(snapshot, ask(snapshot)), 3)

    def test_nothing_finite_is_said_so(self) -> None:
        snapshot = study(laws(12), [("empty", np.zeros(0)), ("nan", np.full(3, np.nan))])
        answers = self.make().forecast(snapshot, ask(snapshot, ("best_by",)))
        assert answers.absent == (Absent.NONFINITE, Absent.NONFINITE)
        assert np.isnan(answers.p_beat(0.5)).all()

    @pytest.mark.parametrize("judged", ["best", "final"])
    def test_reports_that_are_no_values_are_passed_over(self, judged: Judged) -> None:
        """A metric that is reported every fifth step, NaN in between: a curve is what it was at its last value."""
        rows = laws(6, seed=8)
        kinds: tuple[Kind, ...] = ("value", "best_by")
        for row in rows:
            row[np.arange(HORIZON) % 5 != 4] = np.nan
        done = laws(12)
        done[:, np.arange(HORIZON) % 5 != 4] = np.nan
        at, later = (study(done, [(f"l-{i}", row[:n]) for i, row in enumerate(rows)], judged=judged) for n in (20, 23))
        a, b = (self.make().forecast(s, ask(s, kinds)) for s in (at, later))
        assert b.absent == (None,) * len(b)
        np.testing.assert_array_equal(a.knots, b.knots)
        np.testing.assert_array_equal(a.levels, b.levels)
        passed = self.make().forecast(later, ask(later, kinds, 22))
        np.testing.assert_allclose(passed.mean()[::2], [row[19] for row in rows])
        np.testing.assert_allclose(passed.mean()[1::2], [np.nanmin(row[:22]) for row in rows])

    def test_deterministic_in_threads_and_processes(self, snapshot: Snapshot, answers: Forecasts) -> None:
        queries = ask(snapshot)
        one = self.make()
        with ThreadPoolExecutor(4) as pool:
            for again in pool.map(lambda _: one.forecast(snapshot, queries), range(4)):
                np.testing.assert_array_equal(again.knots, answers.knots)
                np.testing.assert_allclose(again.levels, answers.levels, rtol=0, atol=self.again_atol)
        job = base64.b64encode(pickle.dumps((one, snapshot, queries))).decode()
        code = (
            "import sys, base64, pickle; f, s, q = pickle.loads(base64.b64decode(sys.stdin.read()));"
            "a = f.forecast(s, q); sys.stdout.write(base64.b64encode(pickle.dumps((a.knots, a.levels))).decode())"
        )
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"],
            input=job, capture_output=True, text=True, check=True,
        )  # fmt: skip
        knots, levels = pickle.loads(base64.b64decode(done.stdout))
        np.testing.assert_array_equal(knots, answers.knots)
        np.testing.assert_allclose(levels, answers.levels, rtol=0, atol=self.again_atol)

    def test_global_random_state_is_left_alone(self, snapshot: Snapshot) -> None:
        def state() -> list[Any]:
            name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
            return [name, keys.tolist() if isinstance(keys, np.ndarray) else keys, rest, random.getstate()]

        before = state()
        self.make().forecast(snapshot, ask(snapshot))
        assert state() == before

    def test_inputs_are_left_alone(self, snapshot: Snapshot) -> None:
        queries = ask(snapshot)
        before = pickle.dumps([(q.trial.curve.steps, q.trial.curve.values) for q in queries])
        losses = snapshot.bank.losses.copy()
        self.make().forecast(snapshot, queries)
        assert pickle.dumps([(q.trial.curve.steps, q.trial.curve.values) for q in queries]) == before
        np.testing.assert_array_equal(snapshot.bank.losses, losses)

    def test_best_by_is_never_worse_than_the_best_so_far(self, snapshot: Snapshot) -> None:
        answers = self.make().forecast(snapshot, ask(snapshot, ("best_by",)))
        best = np.array([trial.curve.values.min() for trial in snapshot.live])
        known = np.array([reason is None for reason in answers.absent])
        assert (answers.cdf(best)[known] == 1.0).all()
        assert (answers.quantile(1.0)[known] <= best[known]).all()

    def test_more_time_is_never_worse(self, snapshot: Snapshot) -> None:
        at = snapshot.incumbent.value if snapshot.incumbent is not None else 0.0
        levels = at + np.linspace(-0.1, 0.3, 9)
        grid = np.tile(levels, (len(snapshot.live), 1))
        earlier: Floats | None = None
        for step in (HORIZON - 8, HORIZON - 4, HORIZON):
            later = self.make().forecast(snapshot, ask(snapshot, ("best_by",), step)).cdf(grid)
            if earlier is not None:
                assert np.nanmin(later - earlier) >= -self.dominance_atol
            earlier = later

    def test_best_by_of_a_finished_horizon_is_what_was_reached(self) -> None:
        row = laws(1, seed=6)[0]
        snapshot = study(laws(12), [("ended", row)])
        answers = self.make().forecast(snapshot, ask(snapshot, ("best_by",)))
        assert answers.mean()[0] == pytest.approx(row.min(), rel=1e-12)
        assert answers.p_beat(row.min())[0] == 0.0

    def test_a_leader_is_likelier_to_win_than_a_laggard(self) -> None:
        losses = laws(20)
        order = np.argsort(losses[:, -1])
        rest = losses[order[1:-1]]
        snapshot = study(rest, [("lead", losses[order[0], :15]), ("lag", losses[order[-1], :15])])
        lead, lag = self._p_beat(snapshot, ask(snapshot, ("best_by",)))
        assert lead > lag
        assert 0.0 <= lag < 0.2
