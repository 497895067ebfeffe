"""E1 asks what it says it asks, scores by the book, goes on where it was, and keeps rows it did not run again."""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from kit.forecasters import ForecasterKit

from lcsearch.curves import Curve
from lcsearch.forecast.contract import Forecaster, Forecasts, Query
from lcsearch.forecast.network.model import CurveNetwork, Size
from lcsearch.forecast.rank_gap import RankAndGap
from lcsearch.goal import Goal
from lcsearch.pretrain import weights
from lcsearch.replay.real_tasks import read
from lcsearch.study import Bank, Snapshot, Status, Trial

FOLDER = Path(__file__).parents[2] / "experiments" / "e1_forecast"
SMALL = {"curve_width": 8, "curve_layers": 1, "curve_heads": 2, "study_width": 8, "study_layers": 1, "study_heads": 2}


def script(name: str) -> Any:
    """A file of the experiment under its own name, as the script finds its neighbours."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scores, cheap = script("scores"), script("cheap")


@pytest.fixture(autouse=True)
def neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes find them too."""
    monkeypatch.syspath_prepend(FOLDER)


@pytest.fixture
def e1() -> Any:
    spec = importlib.util.spec_from_file_location("e1_forecast_run", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules["e1_forecast_run"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestLastValue(ForecasterKit):
    def make(self) -> Forecaster:
        made: Forecaster = cheap.LastValue()
        return made


class TestNearestCurves(ForecasterKit):
    def make(self) -> Forecaster:
        made: Forecaster = cheap.NearestCurves()
        return made


class TestPowerLaw(ForecasterKit):
    def make(self) -> Forecaster:
        made: Forecaster = cheap.PowerLaw()
        return made


# Scores


def one(knots: list[float], levels: list[float], tails: tuple[float, float] = (0.0, 0.0)) -> Forecasts:
    return Forecasts.of(np.array([knots]), np.array([levels]), np.array([tails]), sign=1.0, source="")


LAWS = {
    "uniform": one([0.0, 1.0], [0.0, 1.0]),
    "tails": one([0.2, 0.5, 0.7], [0.2, 0.4, 0.9], (0.3, 0.1)),
    "atoms": one([0.2, 0.2, 0.6, 0.6], [0.0, 0.3, 0.5, 1.0]),
    "atoms at the ends": one([0.1, 0.4], [0.4, 0.8]),
    "far above": one([5.0, 9.0], [0.5, 0.7], (3.0, 1.0)),
    "far below": one([-1e7, -3.0], [0.1, 0.6], (1e7, 2.0)),
    "wide": one([-50.0, 50.0], [0.1, 0.9], (9.0, 9.0)),
    "laplace": one([0.4], [0.5], (0.2, 0.2)),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("y", [0.0, 0.2, 0.35, 1.3, 2.0, 1e34])
def test_crps_is_the_integral(law: str, y: float) -> None:
    f, cap = LAWS[law], scores.CAP
    x = np.linspace(-cap, cap, 400_001)
    x = 0.5 * (x[1:] + x[:-1])
    square = (f.cdf(x[None])[0] - (min(y, cap) <= x)) ** 2
    assert scores.crps(f, np.array([y]))[0] == pytest.approx(square.mean() * 2 * cap, abs=1e-4)


def test_crps_by_hand() -> None:
    assert scores.crps(LAWS["uniform"], np.array([0.5]))[0] == pytest.approx(1 / 12)
    assert scores.crps(one([0.3, 0.3], [0.0, 1.0]), np.array([1.0]))[0] == pytest.approx(0.7)  # an atom: the distance


def test_log_likelihood_of_densities_atoms_and_nothing() -> None:
    y = np.array([0.5])
    assert scores.log_likelihood(LAWS["uniform"], y)[0] == pytest.approx(0.0)
    assert scores.log_likelihood(one([0.5, 0.5], [0.0, 1.0]), y)[0] == pytest.approx(math.log(1e4))
    assert scores.log_likelihood(one([0.1, 0.2], [0.0, 1.0]), y)[0] == pytest.approx(math.log(1e-8))
    # at or beyond the cap: the mass there
    assert scores.log_likelihood(one([1.0, 3.0], [0.0, 1.0]), np.array([1e34]))[0] == pytest.approx(math.log(0.5))


def test_value_scores_in_the_range_of_the_task() -> None:
    goal = Goal("loss", "minimize", 2.0, "final")
    finals = [10.0, 11.0, 12.0, 13.0, 1e34]
    done = [Trial(f"{i}", Curve.of([1, 2], [20.0, x]), status=Status.COMPLETE) for i, x in enumerate(finals)]
    unit = scores.Unit.of(done, goal)
    assert (unit.best, unit.width) == (10.0, 4.0)  # twice best to median
    found = scores.value_scores(one([10.0, 14.0], [0.0, 1.0]), np.array([13.5]), unit)[0]
    assert found.tolist()[:3] == [0.0, 1.0, 1.0]  # .875 of the mass lies below
    assert found[4] == pytest.approx(0.0)
    assert found[5] == pytest.approx(0.375**2)
    absent = Forecasts(*(np.full((1, 2), np.nan),) * 3, 1.0, (None,))
    assert np.isnan(scores.value_scores(absent, np.array([13.5]), unit)).all()


def test_beat_figures_by_hand() -> None:
    rows = [np.array([[0.01, 0.0], [0.02, 1.0], [np.nan, 1.0]]), np.array([[0.9, 1.0], [0.07, 0.0]])]
    found = scores.beat_figures(rows, 0.25)
    assert (found["n"], found["absent"]) == (5, pytest.approx(0.2))
    assert found["log_loss"] == pytest.approx(-np.mean(np.log([0.99, 0.02, 0.9, 0.93])))
    assert found["brier"] == pytest.approx(np.mean(np.square([0.01, 0.98, 0.1, 0.07])))
    assert found["auc"] == pytest.approx(3 / 4)
    assert found["ece"] == pytest.approx((abs(1 - 0.1) + abs(1 - 0.9)) / 4)
    assert found["low"]["0.05"]["rate"] == 0.5
    assert found["low"]["0.1"]["n"] == 3
    assert found["by_task"]["brier"] == [
        pytest.approx((0.01**2 + 0.98**2 + 0.75**2) / 3),
        pytest.approx((0.01 + 0.07**2) / 2),
    ]
    certain = scores.beat_figures([np.array([[0.0, 1.0]])], 0.25)
    assert certain["log_loss"] == pytest.approx(-math.log(1e-4))


def test_bounds_count_tasks_not_curves() -> None:
    hits, n = np.array([0.0, 0.0, 20.0]), np.array([100.0, 100.0, 100.0])
    assert scores.clustered(hits, n) == pytest.approx(2 * 20 / 300)  # the task with all of them, drawn twice
    assert scores.clustered(hits * 0, n) == pytest.approx(1 - 0.05 ** (1 / 300))  # zero hits are no proof
    assert math.isnan(scores.clustered(hits, n * 0))


def test_paired_over_tasks() -> None:
    mean, error, n = scores.paired([1.0, 2.0, None], [0.5, 1.0, 7.0])
    assert (mean, n) == (0.75, 2)
    assert error == pytest.approx(0.25)


# The cheap forecasters


def study(final: float = 0.5) -> tuple[Snapshot, Trial]:
    """Finished: eight curves 1 + i/100 -> final + i/100; live: one that fell from 1 to .8 at step 5 of 10."""
    t = np.arange(1.0, 11.0)
    goal = Goal("loss", "minimize", 10.0, "final")
    losses = [np.linspace(1.0, final, 10) + i / 100 for i in range(8)]
    done = [Trial(f"d{i}", Curve.of(t, loss), status=Status.COMPLETE) for i, loss in enumerate(losses)]
    return Snapshot("s", goal, Bank(goal).extend(done)), Trial("live", Curve.of(t[:5], np.linspace(1.0, 0.8, 5)))


def test_last_value_and_nearest() -> None:
    snapshot, live = study()
    query = Query(live, "value", 10.0)
    gain = 0.5 * 5 / 9
    last = cheap.LastValue().forecast(snapshot, [query])
    assert last.quantile(0.5)[0] == pytest.approx(0.8)
    assert last.cdf(0.8 - gain)[0] == pytest.approx(0.25)  # half of the gains are larger, on either side
    near = cheap.NearestCurves().forecast(snapshot, [query])
    assert near.quantile(0.5)[0] == pytest.approx(0.8 - gain)


def test_power_law_finds_its_own() -> None:
    t = np.arange(1.0, 51.0)
    live = Trial("live", Curve.of(t[:10], 0.2 + 0.7 * t[:10] ** -0.5))
    found = cheap.PowerLaw().forecast(study()[0], [Query(live, "value", 50.0), Query(live, "best_by", 50.0)])
    assert found.quantile(0.5)[0] == pytest.approx(0.2 + 0.7 * 50**-0.5, abs=0.02)
    assert found.p_beat(live.curve.values.min())[1] <= 1.0


def test_the_better_of_a_value_and_the_best() -> None:
    law = np.array([0.0, 1.0]), np.array([0.2, 0.8]), (0.5, 0.5)
    for best in (-0.3, 0.0, 0.4, 1.0, 1.2):
        knots, levels, tails = cheap.capped(law, best)
        f = Forecasts.of(knots[None], levels[None], np.array([tails]), sign=1.0, source="")
        raw = Forecasts.of(law[0][None], law[1][None], np.array([law[2]]), sign=1.0, source="")
        assert f.absent == (None,)
        assert f.cdf(best)[0] == 1.0
        x = np.array([[-2.0, -0.4, 0.1, 0.3, 0.9]])
        x = x[x < best][None]
        want = raw.cdf(x)
        assert f.cdf(x) == pytest.approx(want)


# The experiment


def arguments(out: Path, *forecasters: str, **other: Any) -> argparse.Namespace:
    fixed = {"data": None, "half": "all", "sources": ["made"], "curves": 30, "table": False, "out": out}
    return argparse.Namespace(**{**fixed, "forecasters": list(forecasters), **other})


def test_it_goes_on_where_it_was_and_keeps_other_rows(e1: Any, tmp_path: Path, capsys: Any) -> None:
    e1.run(arguments(tmp_path, "rank-gap", "nearest"))
    first = json.loads((tmp_path / "results.json").read_text())["sections"]["all tasks, 30 curves a task"]
    rows = first["sources"]["made"]["forecasters"]
    assert list(rows) == ["rank-gap", "nearest"]
    assert rows["rank-gap"]["code"] == [e1.fingerprint()]
    assert rows["rank-gap"]["kinds"]["value"]["10%"]["n"] == 60
    text = (tmp_path / "table.md").read_text()
    assert "## all tasks, 30 curves a task: made (2 tasks)" in text
    assert text.count("| nearest - rank-gap |") == 2
    assert (tmp_path / "forecast.png").exists()
    capsys.readouterr()
    e1.run(arguments(tmp_path, "rank-gap", "last-value"))
    said = capsys.readouterr().out
    assert "made power rank-gap: kept" in said
    second = json.loads((tmp_path / "results.json").read_text())["sections"]["all tasks, 30 curves a task"]
    assert list(second["sources"]["made"]["forecasters"]) == ["rank-gap", "last-value", "nearest"]
    # Elsewhere, with results.json alone: rows stay, of another protocol they do not.
    other = tmp_path / "other"
    other.mkdir()
    (other / "results.json").write_text((tmp_path / "results.json").read_text())
    e1.run(arguments(other, "power-law"))
    third = json.loads((other / "results.json").read_text())["sections"]["all tasks, 30 curves a task"]
    assert set(third["sources"]["made"]["forecasters"]) == {"rank-gap", "last-value", "nearest", "power-law"}
    third["knobs"]["seed"] = 7
    (other / "results.json").write_text(json.dumps({"sections": {"all tasks, 30 curves a task": third}}))
    e1.run(arguments(other, "power-law"))
    fourth = json.loads((other / "results.json").read_text())["sections"]["all tasks, 30 curves a task"]
    assert set(fourth["sources"]["made"]["forecasters"]) == {"power-law"}


def test_the_halves_are_those_of_pretraining(e1: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [name for name in ("d", "b", "a", "c", "few") for _ in range(10 if name == "few" else 24)]
    values = rng.random((len(names), 12))
    values[0, 5:] = np.nan  # run 0 of d ended early
    folder = tmp_path / "one"
    folder.mkdir()
    np.savez(folder / "curves.npz", Y__score=values, step=np.arange(1.0, 13.0))
    rows = "".join(f"{name},{i},0\n" for i, name in enumerate(names))
    with gzip.open(folder / "runs.csv.gz", "wt") as file:
        file.write("task,config_id,seed\n" + rows)
    with gzip.open(folder / "configs.csv.gz", "wt") as file:
        file.write("config_id,lr,kind\n" + "".join(f"{i},{0.1 + i},{'xy'[i % 2]}\n" for i in range(len(names))))
    meta = {"name": "one", "primary": "score", "metrics": {"score": {"direction": "max"}}, "nan_means": "padding"}
    (folder / "meta.json").write_text(json.dumps(meta))
    for half in ("a", "b", "all"):
        tasks, skipped = e1.curves_of("one", tmp_path, half)
        known, _ = read(tmp_path, None if half == "all" else half)  # type: ignore[arg-type]
        assert [task.name for task in tasks] == [task.name for task in known if task.name != "few"]
        assert any("few: skipped, 10 finite curves" in line for line in skipped) == (half != "b")
    (task,) = [task for task in tasks if task.name == "d"]
    assert task.seed == (0, 0)  # its place in the table, whatever the half
    assert np.array_equal(task.losses, -values[1:24])  # lower is better; the run that ended early is not there
    assert task.params[0].keys() == {"p0", "p1"}
    assert task.params[0]["p1"] == "c1"


def test_nobody_sees_the_future_and_all_the_same_questions(e1: Any) -> None:
    seen: dict[str, list[Any]] = {}

    class Spy(RankAndGap):
        def forecast(self, snapshot: Snapshot, queries: Any) -> Forecasts:
            mine = seen.setdefault(snapshot.goal.judged, [])
            mine.append([(q.trial.uid, q.trial.curve.last_step, q.step) for q in queries])
            assert not {q.trial.uid.partition("-")[2] for q in queries} & {
                t.uid.partition("-")[2] for t in snapshot.bank
            }
            assert len(snapshot.bank) == 10
            return super().forecast(snapshot, queries)

    (task, _), _ = e1.curves_of("made", None, "all")
    for kind in e1.KINDS:
        rows, _ = e1.ask(e1.Entrant("spy", Spy()), kind, task, 45)
        assert rows.shape == (3, 45, 8)
    assert seen["final"] == seen["best"]
    assert {last for group in seen["final"] for _, last, _ in group} == {5.0, 10.0, 20.0}
    assert {step for group in seen["final"] for _, _, step in group} == {50.0}


def test_two_networks_side_by_side(e1: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    for name in ("one", "two"):
        network = CurveNetwork(Size(**SMALL, pair_width=8, bins=10))
        size = {**SMALL, "pair_width": 8, "bins": 10}
        weights.save(tmp_path / f"{name}.safetensors", network.state_dict(), size=size, recipe="r", seed=0, step=1)
    specs = [f"network={tmp_path / 'one.safetensors'}", f"network+configs@named={tmp_path / 'two.safetensors'}"]
    e1.run(arguments(tmp_path / "out", "rank-gap", *specs))
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = found["sections"]["all tasks, 30 curves a task"]["sources"]["made"]["forecasters"]
    assert list(rows) == ["rank-gap", "network+configs@named", "network@one"]
    assert rows["network@one"]["version"] != rows["network+configs@named"]["version"]
    assert rows["network@one"]["kinds"]["value"]["40%"]["value"]["crps"] > 0


def test_mcmc_is_asked_by_name(e1: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("lcsearch.forecast.mcmc")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(e1, "NAMES", ("parametric", "rank-gap"))  # the registry may know it some day
    with pytest.raises(SystemExit, match="expected one class with `forecast`"):
        e1.entrant("mcmc")
    monkeypatch.setattr(module, "Mine", type("Mine", (RankAndGap,), {"__module__": module.__name__}), raising=False)
    module.Mine.forecast = RankAndGap.forecast
    assert isinstance(e1.entrant("mcmc").method, RankAndGap)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("unknown", "expected some of network, parametric"),
        ("network@nobody", "nobody"),
        ("network=/no/such", "/no/such"),
    ],
)
def test_what_cannot_be_had_is_said(e1: Any, tmp_path: Path, spec: str, said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        e1.run(arguments(tmp_path, spec))
