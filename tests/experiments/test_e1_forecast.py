"""E1 asks what it says it asks, scores by the book, goes on where it was, and keeps rows it did not run again."""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from kit.forecasters import ForecasterKit
from kit.scripts import neighbour
from kit.scripts import script as anew

from lcsearch.curves import Curve
from lcsearch.forecast.contract import Forecaster, Forecasts, Query
from lcsearch.forecast.network.model import CurveNetwork
from lcsearch.forecast.network.size import Size
from lcsearch.forecast.rank_gap import RankAndGap
from lcsearch.goal import Goal
from lcsearch.pretrain.real_tables import read
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial
from lcsearch.weights import store as weights

FOLDER = Path(__file__).parents[2] / "experiments" / "e1_forecast"
SMALL = {"curve_width": 8, "curve_layers": 1, "curve_heads": 2, "study_width": 8, "study_layers": 1, "study_heads": 2}


script = partial(neighbour, "e1_forecast")


scores, calibration, cheap = (script(name) for name in ("scores", "calibration", "cheap"))
_, provenance, entrants, questions = (script(name) for name in ("research", "provenance", "entrants", "questions"))
peers, peer_data = script("peers"), script("peer_data")
pieces = script("pieces")
train_peers = script("train_peers")


@pytest.fixture(autouse=True)
def neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes find them too."""
    monkeypatch.syspath_prepend(FOLDER)


@pytest.fixture
def e1() -> Any:
    return anew("e1_forecast/run.py")


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
    return Snapshot("s", goal, FinishedTrials(goal).extend(done)), Trial(
        "live", Curve.of(t[:5], np.linspace(1.0, 0.8, 5))
    )


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
    assert rows["rank-gap"]["code"] == [provenance.fingerprint(pieces.ROOMS, *pieces.SCRIPTS)]
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


def test_the_halves_are_those_of_pretraining(tmp_path: Path) -> None:
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
        tasks, skipped = questions.curves_of("one", tmp_path, half)
        known, _ = read(tmp_path, None if half == "all" else half)  # type: ignore[arg-type]
        assert [task.name for task in tasks] == [task.name for task in known if task.name != "few"]
        assert any("few: skipped, 10 finite curves" in line for line in skipped) == (half != "b")
    (task,) = [task for task in tasks if task.name == "d"]
    assert task.seed == (0, 0)  # its place in the table, whatever the half
    assert np.array_equal(task.losses, -values[1:24])  # lower is better; the run that ended early is not there
    assert task.params[0].keys() == {"p0", "p1"}
    assert task.params[0]["p1"] == "c1"


def test_nobody_sees_the_future_and_all_the_same_questions() -> None:
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

    (task, _), _ = questions.curves_of("made", None, "all")
    for kind in questions.KINDS:
        rows, _ = questions.ask(entrants.PolicySpec("spy", Spy()), kind, task, 45)
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


def test_mcmc_is_asked_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("mcmc")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(entrants, "NAMES", ("parametric", "rank-gap"))  # the registry may know it some day
    with pytest.raises(SystemExit, match="expected one class with `forecast`"):
        entrants.entrant("mcmc")
    monkeypatch.setattr(module, "Mine", type("Mine", (RankAndGap,), {"__module__": module.__name__}), raising=False)
    module.Mine.forecast = RankAndGap.forecast
    assert isinstance(entrants.entrant("mcmc").method, RankAndGap)


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


# The small networks


def untrained(name: str) -> Any:
    recipe = train_peers.RECIPES[name]
    sizes = {**vars(recipe.size), "bins": 20, "width": 16, "layers": 1, "heads": 2}
    return replace(recipe, size=peers.Size(**sizes), steps=3, batch=8)


def quiet(_: str) -> None:
    pass


@pytest.mark.parametrize("name", entrants.PEERS)
def test_training_is_the_same_twice_and_moves(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_peers, "BORDERS", 2)
    recipe = untrained(name)
    (first, n), (second, _) = (train_peers.train(recipe, quiet) for _ in range(2))
    assert n > 3
    for (what, a), b, before in zip(
        first.state_dict().items(), second.state_dict().values(), train_peers.prepared(recipe).state_dict().values(),
        strict=True,
    ):  # fmt: skip
        assert torch.equal(a, b)
        assert torch.equal(a, before) == (what in ("borders", "tails"))


def test_lc_pfns_prior_is_mirrored_and_keeps_its_conditions() -> None:
    curves = peer_data.lc_pfn_curves(200, np.random.default_rng(0))
    assert curves.shape == (200, 100)
    smooth = np.median(np.abs(np.diff(curves[:, -20:], axis=1)), axis=1) < 0.01
    assert (curves[smooth, 0] > curves[smooth, -1]).mean() > 0.9  # they fall, but for the noise
    assert ((curves[smooth] > -0.1) & (curves[smooth] < 1.1)).all()


def test_wide_batches_show_nothing_of_the_future() -> None:
    batch = peer_data.wide(32, torch.Generator().manual_seed(0))
    assert all(torch.isfinite(part).all() for part in batch)
    b, n = batch.seen.shape
    assert batch.times.shape == (b, n, 3)
    assert (batch.values[~batch.seen] == 0).all()
    last = batch.seen.sum(1) - 1
    assert (batch.values[torch.arange(b), last] == 0).all()  # around the last value
    assert (batch.asked[:, :, 0] > batch.times[torch.arange(b), last, 0][:, None]).all()
    assert (batch.asked[:, :2, 0] == 1).all()  # the horizon
    assert (batch.target[:, 1] <= batch.target[:, 0]).all()  # the best is no worse than the final


def peer(name: str) -> Any:
    torch.manual_seed(0)
    network = train_peers.prepared(untrained(name))
    return {"lc-pfn-recipe": peers.LcPfn, "wide": peers.Wide}[name](network, "1")


@pytest.mark.parametrize("name", entrants.PEERS)
def test_a_small_network_is_a_forecaster(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_peers, "BORDERS", 2)
    method, (snapshot, live) = peer(name), study()
    short = Trial("short", live.curve.cut(2))
    queries = [Query(live, "value", 10.0), Query(short, "best_by", 9.0), Query(live, "value", 3.0)]
    found = method.forecast(snapshot, queries)
    assert found.absent == (None, None, None)
    alone = [method.forecast(snapshot, [query]) for query in queries]
    q = np.array([[0.05, 0.5, 0.95]])
    for i, one in enumerate(alone):
        np.testing.assert_allclose(found.quantile(np.repeat(q, 3, 0))[i], one.quantile(q)[0], rtol=1e-5)
    pick, times, asked, horizon = peers.counted(queries[0], snapshot)
    assert (pick, times.tolist(), asked, horizon) == ([0, 1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0, 5.0], 10.0, 10.0)
    bent = replace(live, curve=Curve.of(live.curve.steps, [1.0, 0.99, 0.98, 0.81, 0.8]))
    assert method.forecast(snapshot, [Query(bent, "value", 10.0)]).quantile(0.5)[0] != found.quantile(0.5)[0]
    assert found.cdf(short.curve.values.min())[1] == 1.0  # the best by is no worse than the best so far
    assert found.quantile(0.5)[2] == live.curve.values[2]  # known
    # In other units the same.
    scaled = [
        Trial(t.uid, Curve.of(t.curve.steps, 3.0 + 50.0 * t.curve.values), status=t.status) for t in snapshot.bank
    ]
    other = Snapshot("s", snapshot.goal, FinishedTrials(snapshot.goal).extend(scaled))
    curve = Curve.of(live.curve.steps, 3.0 + 50.0 * live.curve.values)
    again = method.forecast(other, [Query(Trial("live", curve), "value", 10.0)])
    np.testing.assert_allclose(again.p_beat(3.0 + 50.0 * 0.6), found.p_beat(0.6)[:1], rtol=1e-3)


def test_flat_and_blown_up_curves_have_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_peers, "BORDERS", 2)
    snapshot, _ = study()
    t = np.arange(1.0, 6.0)
    curves = [Curve.of(t, np.full(5, 0.7)), Curve.of(t, [1.0, 0.9, 1e34, 0.8, 0.7]), Curve.of(t[:1], [1.0])]
    queries = [Query(Trial(f"{i}", curve), "value", 10.0) for i, curve in enumerate(curves)]
    for name in entrants.PEERS:
        found = peer(name).forecast(snapshot, queries)
        assert found.absent == (None,) * 3
        assert np.isfinite(found.p_beat(0.5)).all()


def test_recalibration_learns_from_the_other_source_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 1))
    won = (rng.random(20_000) < 1 / (1 + np.exp(1.0 - 2.0 * x[:, 0]))).astype(float)
    c = calibration.fit(x, won)
    assert c == pytest.approx([-1.0, 2.0], abs=0.1)
    kinds = {"value": [0.0, 1.0], "best_by": [0.0, 1.0]}
    made = calibration.Calibration(("logit",), {"here": kinds, "there": {**kinds, "value": [1.0, 0.5]}})
    made.write(tmp_path / "c.json")
    read = calibration.Calibration.read(tmp_path / "c.json")
    assert read.version == made.version
    snapshot, live = study()
    queries, p = [Query(live, "value", 10.0)] * 2, np.array([0.2, np.nan])
    want = 1 / (1 + math.exp(-1.0 - 0.5 * math.log(0.2 / 0.8)))
    assert read.p_beat("here", snapshot, queries, p) == pytest.approx([want, math.nan], nan_ok=True)
    assert read.p_beat("there", snapshot, queries, p)[0] == pytest.approx(0.2)
    with pytest.raises(SystemExit, match="expected one of here, there, got 'elsewhere'"):
        read.p_beat("elsewhere", snapshot, queries, p)


def test_features_by_hand() -> None:
    snapshot, _ = study()  # at step 5 the finished stand at .778 + i/100, and end at .5 + i/100
    here = 1.0 - 0.5 * 4 / 9
    live = Trial("live", Curve.of(np.arange(1.0, 6.0), [1.0, 0.9, 0.7, 0.9, here + 0.035]))
    found = calibration.features(snapshot, [Query(live, "value", 10.0)], np.array([0.5]))[0]
    scale = 0.5 * 5 / 9  # what was still gained: the largest of the three
    want = [0.0, 0.0, math.asinh(0.035 / scale), math.asinh((here + 0.035 - 0.5) / scale)]
    assert found[:4] == pytest.approx(want)
    p = RankAndGap().forecast(snapshot, [Query(live, "value", 10.0)]).p_beat(0.5)[0]
    assert found[4] == pytest.approx(math.log(p / (1 - p)))
    best = calibration.features(snapshot, [Query(live, "best_by", 10.0)], np.array([1.0]))[0]
    assert best[0] == pytest.approx(math.log((1 - 1e-4) / 1e-4))
    assert best[1] == pytest.approx(math.log(0.5 / 8.5))  # its best so far is ahead of all


def test_recalibrated_rows_say_nothing_of_values(e1: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrants, "WEIGHTS", tmp_path)
    with pytest.raises(SystemExit, match=r"rank-gap-recal: expected .*json, got none; fit it: python experiments"):
        e1.run(arguments(tmp_path / "out", "rank-gap-recal"))
    with pytest.raises(SystemExit, match=r"wide: expected .*safetensors, got none; train it"):
        e1.run(arguments(tmp_path / "out", "wide-recal"))
    c = {"value": [-2.0, 0.5, -0.5, -0.5], "best_by": [-2.0, 0.5, -0.5, -0.5]}
    made = calibration.Calibration(("rank", "lead", "gap"), {"made": c, "other": c})
    made.write(tmp_path / "rank-gap-recal.json")
    e1.run(arguments(tmp_path / "out", "rank-gap", "rank-gap-recal"))
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = found["sections"]["all tasks, 30 curves a task"]["sources"]["made"]["forecasters"]
    assert rows["rank-gap-recal"]["version"][0].startswith(rows["rank-gap"]["version"][0] + "-")
    cell = rows["rank-gap-recal"]["kinds"]["value"]["10%"]
    assert cell["absent"] == 0
    assert 0 < cell["log_loss"] != rows["rank-gap"]["kinds"]["value"]["10%"]["log_loss"]
    assert cell["value"]["crps"] is None
    tables = (tmp_path / "out" / "table.md").read_text().split("Final value")
    assert "| rank-gap-recal |" in tables[0]
    assert "| rank-gap-recal |" not in tables[1].split("Paired")[0]


def test_results_are_written_as_the_script_writes_them() -> None:
    text = (FOLDER / "results.json").read_text()
    assert text == pieces.compact(json.loads(text)) + "\n"
