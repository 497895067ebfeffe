"""A real Ray cluster of three nodes: what stops, what does not, what fails, and that every run ends."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from kit.doubles import Liar, NormalAroundBest, chances
from kit.tune_runner import searched_study
from optuna.samplers import RandomSampler
from ray import cloudpickle, tune
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from lcsearch.forecast.contract import Forecasts, Query
from lcsearch.schedulers.ray_tune import CurveScheduler, PrunedSearch, StateCallback
from lcsearch.schedulers.ray_tune._book import Book
from lcsearch.schedulers.ray_tune._callback import kept_trials
from lcsearch.session.decision_log import read_log
from lcsearch.session.verify import verify
from lcsearch.study import Snapshot, Status

STEPS = 20
BUDGET_S = 600
"""No run here takes that long. One that hangs is ended by Tune after it, and the test fails."""

STARTUP = [0.20, 0.21, 0.22, 0.23]
"""Good enough never to be stopped by the fake forecaster, in whatever order Ray starts and ends them."""
HOPELESS = [5.0, 6.0, 7.0, 8.0]
BEST = 0.1
LIMITS = [*STARTUP, *HOPELESS, BEST]

# Workers cannot import this module; what it defines travels whole.
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]


def loss(limit: float, step: int) -> float:
    return limit + 0.8**step


def pace(limit: float, step: int) -> None:
    """A hopeless trial slows down where it may be stopped: time for a busy machine, and none is lost by a quick one."""
    time.sleep(0.5 if limit >= HOPELESS[0] and step > 7 else 0.01)


def sign(folder: str, name: str, line: object) -> None:
    """Tell the test something: a line in a file."""
    with (Path(folder) / name).open("a") as file:
        file.write(f"{line}\n")


def signed(folder: Path, name: str) -> list[str]:
    return (folder / name).read_text().splitlines() if (folder / name).exists() else []


def meet(folder: str) -> None:
    """Wait until trials run on three nodes."""
    sign(folder, "nodes", ray.get_runtime_context().get_node_id())
    deadline = time.monotonic() + BUDGET_S
    while time.monotonic() < deadline and len(set(signed(Path(folder), "nodes"))) < 3:
        time.sleep(0.02)


def train(config: dict[str, Any]) -> None:
    """A decay to `limit`. Told so, it saves every few steps, and at some step of its first life it raises, or kills its
    process; its second life reports other values.
    """
    limit, every = config["limit"], config.get("every", 0)
    fault = config.get("faults", {}).get(str(limit))
    if config.get("meet"):
        meet(config["meet"])
    start, saved = 0, tune.get_checkpoint()
    if saved is not None:
        with saved.as_directory() as at:
            start = int((Path(at) / "step").read_text())
    second = False
    if fault is not None:
        second = bool(signed(Path(fault["folder"]), f"lives-{limit}"))
        sign(fault["folder"], f"lives-{limit}", start)
    for step in range(start + 1, STEPS + 1):
        pace(limit, step)
        if fault is not None and step == fault["at"] and not second:
            if fault["kind"] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("the trial's own trouble")
        told = {
            "epoch": step,
            "loss": loss(limit, step) + 0.001 * second,
            "node": ray.get_runtime_context().get_node_id(),
        }
        if every and step % every == 0:
            with tempfile.TemporaryDirectory() as at:
                (Path(at) / "step").write_text(str(step))
                tune.report(told, checkpoint=tune.Checkpoint.from_directory(at))
        else:
            tune.report(told)


class Decay(tune.Trainable):
    """The same as a class; its last result is the one that says done."""

    def setup(self, config: dict[str, Any]) -> None:
        self.limit, self.at = config["limit"], 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        self.at += 1
        pace(self.limit, self.at)
        return {"epoch": self.at, "loss": loss(self.limit, self.at), "done": self.at >= STEPS}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "step").write_text(str(self.at))

    def load_checkpoint(self, checkpoint_dir: Any) -> None:
        self.at = int((Path(checkpoint_dir) / "step").read_text())


def scheduler(folder: Path, **fields: Any) -> CurveScheduler:
    known: dict[str, Any] = {"time_attr": "epoch", "metric": "loss", "mode": "min", "max_t": STEPS}
    known |= {"n_startup_trials": 3, "forecasters": NormalAroundBest(sd=0.5), "decision_log": folder / "decisions"}
    return CurveScheduler(**{**known, "look_growth": 1, **fields})


def fit(
    of: CurveScheduler,
    folder: Path,
    trainable: Any = train,
    limits: Sequence[float] = LIMITS,
    *,
    failures: int = 0,
    save_every: int = 0,
    faults: dict[float, Any] | None = None,
    extra: dict[str, Any] | None = None,
    stop: dict[str, Any] | None = None,
    **settings: Any,
) -> list[tune.Result]:
    """Run one trial a limit; the results, in that order."""
    space = {"limit": tune.grid_search(list(limits)), "every": save_every, **(extra or {})}
    space["faults"] = {str(limit): {**fault, "folder": str(folder)} for limit, fault in (faults or {}).items()}
    by_tune = save_every if isinstance(trainable, type) else 0  # a function saves by itself
    tuner = tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(**{"scheduler": of, "reuse_actors": True, "time_budget_s": BUDGET_S, **settings}),
        run_config=tune.RunConfig(
            name="run",
            storage_path=str(folder),
            verbose=0,
            stop=stop,
            callbacks=[StateCallback(of)],
            failure_config=tune.FailureConfig(max_failures=failures),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=by_tune),
        ),
    )
    start = time.monotonic()
    grid = tuner.fit()
    assert time.monotonic() - start < BUDGET_S, "the run did not end by itself"
    # A trial that is retried has moved to the end; one that never ran has no config.
    order = {str(limit): at for at, limit in enumerate(limits)}
    return sorted(all_of(grid), key=lambda result: order[str((result.config or {}).get("limit", limits[-1]))])


def all_of(grid: tune.ResultGrid) -> list[tune.Result]:
    return [grid[i] for i in range(len(grid))]


def book(of: CurveScheduler) -> Book:
    return of.get_state()["book"]  # type: ignore[no-any-return]


def uid(result: tune.Result) -> str:
    assert result.metrics is not None
    return str(result.metrics["trial_id"])


def curve(of: CurveScheduler, result: tune.Result) -> dict[int, float]:
    steps, values = book(of).trial(uid(result)).curve.reports()
    return dict(zip((int(step) for step in steps), values.tolist(), strict=True))


def whole(limit: float, until: int = STEPS) -> dict[int, float]:
    return {step: loss(limit, step) for step in range(1, until + 1)}


def again(limit: float, first: int, last: int) -> dict[int, float]:
    """What `train` reports in its second life."""
    return {step: loss(limit, step) + 0.001 for step in range(first, last + 1)}


def assert_as_expected(
    of: CurveScheduler,
    folder: Path,
    results: Sequence[tune.Result],
    limits: Sequence[float] = LIMITS,
    *,
    exactly: bool = True,
) -> None:
    """The hopeless ones were stopped (`exactly`: no others), for a stated reason; the rest, the best among them, ran to
    their end; curves and log are right.
    """
    ids = {limit: uid(result) for limit, result in zip(limits, results, strict=True)}
    hopeless = {ids[limit] for limit in limits if limit in HOPELESS}
    stopped = set(of.stopped())
    assert hopeless <= stopped
    assert stopped == hopeless or not exactly
    assert ids[BEST] not in stopped
    for limit, result in zip(limits, results, strict=True):
        got = curve(of, result)
        if ids[limit] in stopped:
            assert 6 <= len(got) < STEPS
            assert got == whole(limit, len(got))
            assert book(of).trial(ids[limit]).status is Status.STOPPED
            assert f"trial {ids[limit]}, step " in of.explain(ids[limit])
            assert "STOP (BELOW)" in of.explain(ids[limit])
            assert "P(beat)" in of.stopped()[ids[limit]]
        else:
            assert got == whole(limit)
            assert book(of).trial(ids[limit]).status is Status.COMPLETE
            assert "STOP" not in of.explain(ids[limit])
    records = list(read_log(folder / "decisions"))
    assert {record["trial"] for record in records if record["reason"] == "BELOW"} == stopped
    assert {record["verdict"] for record in records if record["reason"] != "BELOW"} <= {"CONTINUE"}
    looks = Counter((record["trial"], record["step"]) for record in records)
    assert set(looks.values()) == {1}, "one look a step"
    ends = {uid(result): result.metrics["loss"] for result in results if result.metrics}
    assert min(ends.items(), key=lambda end: end[1]) == (ids[BEST], loss(BEST, STEPS))
    assert of.debug_string().startswith(f"Using CurveScheduler: {len(stopped)} stopped, ")
    assert "failed open" not in of.debug_string()


def test_three_nodes_functions_and_the_default_forecaster(cluster: Any, tmp_path: Path) -> None:
    of = scheduler(tmp_path, forecasters=None)
    results = fit(of, tmp_path, extra={"meet": str(tmp_path)})
    assert not any(result.error for result in results)
    assert_as_expected(of, tmp_path, results, exactly=False)  # it may well see that the first ones will not win
    assert len(set(signed(tmp_path, "nodes"))) == 3
    assert of.why_not().splitlines()[0].endswith("looks in this process:")


@pytest.mark.parametrize("reuse", [True, False])
def test_classes(cluster: Any, tmp_path: Path, reuse: bool) -> None:
    of = scheduler(tmp_path)
    limits = [*STARTUP, 5.0, BEST]
    results = fit(of, tmp_path, Decay, limits, reuse_actors=reuse, save_every=5)
    assert_as_expected(of, tmp_path, results, limits)


def side_by_side(config: dict[str, Any]) -> None:
    """All run at once. Hopeless trials wait until the others are ahead, before a report by which one of them could be
    stopped against another, and these at their last step until all of those are stopped.
    """
    folder, limit, n = config["folder"], config["limit"], config["n"]
    n_hopeless = config["n_hopeless"]

    def await_signs(name: str, n: int) -> None:
        deadline = time.monotonic() + BUDGET_S
        while time.monotonic() < deadline and len(set(signed(Path(folder), name))) < n:
            time.sleep(0.05)

    sign(folder, "begun", limit)
    await_signs("begun", n)
    for step in range(1, STEPS + 1):
        if limit >= HOPELESS[0] and step == 2:
            await_signs("ahead", n - n_hopeless)
        if limit < HOPELESS[0] and step == STEPS:
            await_signs("left", n_hopeless)
        tune.report({"epoch": step, "loss": loss(limit, step)})
        if limit < HOPELESS[0] and step == STEPS - 4:
            sign(folder, "ahead", limit)


class Telling(CurveScheduler):
    """Tells the trials which of them have left."""

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
        super().on_trial_complete(tune_controller, trial, result)
        sign(trial.config["folder"], "left", trial.config["limit"])


def test_all_at_once_those_behind_stop_before_any_has_ended(cluster: Any, tmp_path: Path) -> None:
    fake = NormalAroundBest(sd=0.5)
    of = Telling(
        "epoch", "loss", "min", STEPS, rivals=1, forecasters=fake, decision_log=tmp_path / "decisions", look_growth=1
    )
    good, hopeless = [BEST, 0.2, 0.3, 0.4, 0.5], [5.0 + i for i in range(7)]
    n = {"n": len(good + hopeless), "n_hopeless": len(hopeless), "folder": str(tmp_path)}
    results = fit(of, tmp_path, tune.with_resources(side_by_side, {"cpu": 0.2}), [*good, *hopeless], extra=n)
    left = [float(limit) for limit in signed(tmp_path, "left")]
    assert sorted(left[: len(hopeless)]) == hopeless
    assert sorted(left[len(hopeless) :]) == good
    ids = {limit: uid(result) for limit, result in zip([*good, *hopeless], results, strict=True)}
    assert set(of.stopped()) == {ids[limit] for limit in hopeless}
    records = list(read_log(tmp_path / "decisions"))
    stops = [record for record in records if record["verdict"] == "STOP"]
    assert {record["reason"] for record in stops} == {"RIVALS"}
    for limit in hopeless:
        told = of.explain(ids[limit])
        assert "STOP (RIVALS)" in told
        # who stands best just then is the cluster's to say
        assert any(f"against running trials {ids[one]}, by what they are forecast to reach" in told for one in good)
    again = verify(tmp_path / "decisions", kept_trials(tmp_path / "run"), lambda name: fake)
    assert again.mismatch is None, str(again.mismatch)
    assert (again.looks, again.not_made_again) == (len(records), {})


def test_optuna_hears_of_stops_as_pruned(cluster: Any, tmp_path: Path) -> None:
    of = scheduler(tmp_path)
    inner = OptunaSearch(
        {"limit": tune.uniform(0, 10)},
        metric="loss",
        mode="min",
        sampler=RandomSampler(seed=1),
        points_to_evaluate=[{"limit": limit} for limit in LIMITS],
    )
    tuner = tune.Tuner(
        train,
        tune_config=tune.TuneConfig(
            scheduler=of,
            search_alg=PrunedSearch(inner, of),
            num_samples=len(LIMITS),
            max_concurrent_trials=2,
            reuse_actors=True,
            time_budget_s=BUDGET_S,
        ),
        run_config=tune.RunConfig(name="run", storage_path=str(tmp_path), verbose=0, callbacks=[StateCallback(of)]),
    )
    results = {result.config["limit"]: result for result in all_of(tuner.fit()) if result.config}
    assert_as_expected(of, tmp_path, [results[limit] for limit in LIMITS])
    study = searched_study(inner)
    trials = study.trials
    states = Counter(trial.state.name for trial in trials)
    assert states == {"PRUNED": len(of.stopped()), "COMPLETE": len(LIMITS) - len(of.stopped())}
    for trial in trials:
        limit = trial.params["limit"]
        known = curve(of, results[limit])
        assert trial.intermediate_values == known
        assert trial.value == known[max(known)]


@pytest.mark.parametrize("judged", ["best", "final"])
def test_which_result_is_the_best(cluster: Any, tmp_path: Path, judged: Any) -> None:
    """Curves fall and rise again: Tune's own default, the best last value, names a trial that was stopped early."""

    def overfit(config: dict[str, Any]) -> None:
        for step in range(1, STEPS + 1):
            pace(config["limit"] * 5, step)
            tune.report({"epoch": step, "loss": loss(config["limit"], step) + max(0, step - 8) * 0.2})

    lc = scheduler(tmp_path, judged=judged, guard=0.0, n_startup_trials=5, forecasters=Liar())
    tuner = tune.Tuner(
        overfit,
        param_space={"limit": tune.grid_search([*STARTUP, BEST, 1.5])},
        tune_config=tune.TuneConfig(scheduler=lc, max_concurrent_trials=1, reuse_actors=True, time_budget_s=BUDGET_S),
        run_config=tune.RunConfig(name="run", storage_path=str(tmp_path), verbose=0),
    )
    results = tuner.fit()
    assert len(lc.stopped()) == 1
    named = results.get_best_result("loss", "min")
    assert uid(named) in lc.stopped()
    if judged == "best":
        best = results.get_best_result("loss", "min", scope="all")
    else:
        ended = [r for r in all_of(results) if uid(r) not in lc.stopped()]
        best = min(ended, key=lambda r: (r.metrics or {})["loss"])
    incumbent = lc.snapshot().incumbent
    assert incumbent is not None
    assert incumbent.uid == uid(best)
    assert best.config is not None
    assert best.config["limit"] == 0.1


def test_optuna_in_a_limiter_and_a_metric_that_comes_every_second_time(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a result may lack the metric is said to Tune by its own switch; then nothing else ends the run."""
    monkeypatch.setenv("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")

    def validated(config: dict[str, Any]) -> None:
        for step in range(1, STEPS + 2):
            pace(config["limit"], step)
            tune.report({"epoch": step} | ({} if step % 2 else {"loss": loss(config["limit"], step)}))

    of = scheduler(tmp_path, max_t=STEPS + 10)
    inner = OptunaSearch(
        {"limit": tune.uniform(0, 10)},
        metric="loss",
        mode="min",
        sampler=RandomSampler(seed=1),
        points_to_evaluate=[{"limit": limit} for limit in (*STARTUP, 5.0, BEST)],
    )
    tuner = tune.Tuner(
        validated,
        tune_config=tune.TuneConfig(
            scheduler=of,
            search_alg=PrunedSearch(ConcurrencyLimiter(inner, 2), of),
            num_samples=6,
            reuse_actors=True,
            time_budget_s=BUDGET_S,
        ),
        run_config=tune.RunConfig(name="run", storage_path=str(tmp_path), verbose=0, callbacks=[StateCallback(of)]),
    )
    results = {result.config["limit"]: result for result in all_of(tuner.fit()) if result.config}
    assert not any(result.error for result in results.values())
    assert list(of.stopped()) == [uid(results[5.0])]
    study = searched_study(inner)
    for trial in study.trials:
        known = curve(of, results[trial.params["limit"]])
        stopped = trial.params["limit"] == 5.0
        assert trial.state.name == ("PRUNED" if stopped else "COMPLETE")
        assert list(known) == list(range(2, max(known) + 1, 2))
        assert trial.intermediate_values == known
        assert trial.value == known[max(known)]
        assert (max(known) == STEPS) != stopped


@pytest.mark.parametrize("failures", [0, 1])
def test_a_trial_that_raises(cluster: Any, tmp_path: Path, failures: int) -> None:
    of = scheduler(tmp_path)
    victims = (7.0, BEST) if failures else (0.9, 7.0)
    limits = LIMITS if failures else [*STARTUP, 0.9, *HOPELESS, BEST]
    faults = {limit: {"kind": "raise", "at": 5} for limit in victims}
    results = dict(zip(limits, fit(of, tmp_path, limits=limits, faults=faults, failures=failures), strict=True))
    for limit in victims:
        got = curve(of, results[limit])
        trial = book(of).trial(uid(results[limit]))
        if failures:
            # From the start, as it saves nothing: its first life's reports are gone.
            assert signed(tmp_path, f"lives-{limit}") == ["0", "0"]
            assert got == again(limit, 1, len(got))
            assert trial.status is (Status.COMPLETE if limit == BEST else Status.STOPPED)
        else:
            assert "the trial's own trouble" in str(results[limit].error)
            assert got == whole(limit, 4)
            assert trial.status is Status.FAILED
            assert "failed; no look stopped it" in of.explain(trial.uid)
    assert set(of.stopped()) == {uid(results[limit]) for limit in HOPELESS if failures or limit not in victims}
    assert list(curve(of, results[BEST])) == list(range(1, STEPS + 1))


def test_another_run_of_the_same_name_with_the_same_scheduler(cluster: Any, tmp_path: Path) -> None:
    of = scheduler(tmp_path)
    fit(of, tmp_path, limits=[*STARTUP, BEST])
    first = set(book(of).entries)
    limits = [20.0, 21.0, 22.0, 23.0, 500.0, 10.0]
    results = fit(of, tmp_path, limits=limits)
    assert set(book(of).entries) == {uid(result) for result in results}
    assert not first & set(book(of).entries)
    # on a busy cluster the best may end before others of the first four, which may then be stopped, too
    assert uid(results[4]) in of.stopped()
    assert uid(results[5]) not in of.stopped()
    assert {len(curve(of, result)) for result in results if uid(result) not in of.stopped()} == {STEPS}
    assert not any(one in of.explain(stopped) for stopped in of.stopped() for one in first)


def test_a_killed_worker_goes_on_from_its_checkpoint(cluster: Any, tmp_path: Path) -> None:
    of = scheduler(tmp_path)
    killed = {7.0: 6, BEST: 18}
    faults = {limit: {"kind": "kill", "at": at} for limit, at in killed.items()}
    # Saved every fifth step: what came after it is reported anew.
    results = fit(of, tmp_path, faults=faults, failures=1, save_every=5)
    by = dict(zip(LIMITS, results, strict=True))
    assert [signed(tmp_path, f"lives-{limit}") for limit in faults] == [["0", "5"], ["0", "15"]]
    for limit, saved in ((7.0, 5), (BEST, 15)):
        got = curve(of, by[limit])
        assert got == whole(limit, saved) | again(limit, saved + 1, len(got))
    assert set(of.stopped()) == {uid(by[limit]) for limit in HOPELESS}
    for limit in (*STARTUP, BEST):
        assert list(curve(of, by[limit])) == list(range(1, STEPS + 1))
    looks = Counter((record["trial"], record["step"]) for record in read_log(tmp_path / "decisions"))
    assert {look for look, n in looks.items() if n > 1} <= {(uid(by[BEST]), step) for step in (16, 17)}


def test_a_node_is_removed_while_trials_run_on_it(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1)
    doomed, there, over = str(node.node_id), list[str](), threading.Event()

    def remove() -> None:
        """Once a trial there has saved something, its node is no more."""
        while not signed(tmp_path, doomed) and not over.wait(0.02):
            pass
        there.extend(signed(tmp_path, doomed))
        cluster.remove_node(node, allow_graceful=False)

    def slow(config: dict[str, Any]) -> None:
        start, saved, here = 0, tune.get_checkpoint(), ray.get_runtime_context().get_node_id()
        limit = config["limit"]
        if saved is not None:
            with saved.as_directory() as at:
                start = int((Path(at) / "step").read_text())
            sign(str(tmp_path), f"again-{limit}", json.dumps([here, start]))
        while here != doomed and not signed(tmp_path, doomed):  # on a busy machine it is the last to get a trial
            time.sleep(0.02)
        for step in range(start + 1, STEPS + 1):
            # On the doomed node it waits for its end.
            time.sleep(BUDGET_S if here == doomed and step > 10 else 0.02)
            pace(limit, step)
            with tempfile.TemporaryDirectory() as at:
                (Path(at) / "step").write_text(str(step))
                told = {"epoch": step, "loss": loss(limit, step)}
                tune.report(told, checkpoint=tune.Checkpoint.from_directory(at))
            if here == doomed and step >= 5:
                sign(str(tmp_path), here, step)

    of = scheduler(tmp_path)
    thread = threading.Thread(target=remove)
    thread.start()
    try:
        results = fit(of, tmp_path, slow, failures=2)
    finally:
        over.set()
        thread.join()
    assert there
    assert not any(result.error for result in results)
    by = dict(zip(LIMITS, results, strict=True))
    for limit, result in by.items():
        got = curve(of, result)
        assert got == whole(limit, len(got))
        if uid(result) in of.stopped():
            assert "STOP (BELOW)" in of.explain(uid(result))
        else:  # a first one that comes back late leaves others unjudged for longer
            assert got == whole(limit)
    assert uid(by[BEST]) not in of.stopped()
    looks = Counter((record["trial"], record["step"]) for record in read_log(tmp_path / "decisions"))
    returned = {uid(by[limit]) for limit in LIMITS if signed(tmp_path, f"again-{limit}")}
    assert {trial for (trial, _), n in looks.items() if n > 1} <= returned
    moved = [json.loads(line) for limit in LIMITS for line in signed(tmp_path, f"again-{limit}")]
    assert moved
    assert all(where != doomed and start >= 5 for where, start in moved)


def test_a_stopper_ends_trials_far_below_max_t(cluster: Any, tmp_path: Path) -> None:
    of = scheduler(tmp_path, max_t=1000)
    limits = [*STARTUP, 5.0, BEST]
    results = fit(of, tmp_path, limits=limits, stop={"epoch": 15}, max_concurrent_trials=1)
    by = dict(zip(limits, results, strict=True))
    assert list(of.stopped()) == [uid(by[5.0])]
    assert "by step 30: " in of.explain(uid(by[5.0]))  # as long again: few trials have ended
    for limit in (*STARTUP, BEST):
        assert curve(of, by[limit]) == whole(limit, 15)
        assert book(of).trial(uid(by[limit])).status is Status.COMPLETE
    at = len(curve(of, by[5.0]))
    found = of.report()
    assert (found.complete, found.spent, found.saved) == (5, 5 * 15 + at, 15 - at)


def test_all_trials_are_nan(cluster: Any, tmp_path: Path) -> None:
    of = scheduler(tmp_path)
    results = fit(of, tmp_path, limits=[math.nan] * 6)
    assert of.stopped() == {}  # there is nothing to beat
    assert [len(curve(of, result)) for result in results] == [STEPS] * 6
    assert of.risk_now() is None


def test_a_nan_trial_among_others_is_stopped_as_diverged(cluster: Any, tmp_path: Path) -> None:
    of = scheduler(tmp_path)
    results = fit(of, tmp_path, limits=[*STARTUP, math.nan, BEST], max_concurrent_trials=1)
    lost = uid(results[4])
    assert list(of.stopped()) == [lost]
    assert "diverged" in of.stopped()[lost]
    assert "STOP (DIVERGED)" in of.explain(lost)
    assert 6 <= len(curve(of, results[4])) <= 7  # at once, or with the next result
    assert curve(of, results[5]) == whole(BEST)


def test_all_trials_are_equally_bad(cluster: Any, tmp_path: Path) -> None:
    of = scheduler(tmp_path)
    results = fit(of, tmp_path, limits=[3.0] * 8)
    assert all(result.metrics for result in results)
    for result in results:
        got = curve(of, result)
        assert got == whole(3.0, len(got))
    assert sum(len(curve(of, result)) == STEPS for result in results) >= 3


class Stuck:
    """Says that nothing will ever win, but not before a file is there."""

    name, version = "stuck", "1"

    def __init__(self, release: Path) -> None:
        self.release = release

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        (self.release.parent / "asked").touch()
        deadline = time.monotonic() + BUDGET_S
        while time.monotonic() < deadline and not self.release.exists():
            time.sleep(0.02)
        return chances([0.0] * len(queries), snapshot.goal.sign)


def test_results_flow_while_a_forecaster_is_stuck(cluster: Any, tmp_path: Path) -> None:
    of = scheduler(tmp_path, forecasters=Stuck(tmp_path / "go"))
    try:
        results = fit(of, tmp_path, limits=[*STARTUP, *[1.0 + i / 10 for i in range(6)]])
        assert (tmp_path / "asked").exists()
        assert of.stopped() == {}
        assert [len(curve(of, result)) for result in results] == [STEPS] * len(results)
        assert {book(of).trial(uid(result)).status for result in results} == {Status.COMPLETE}
    finally:
        (tmp_path / "go").touch()
    assert of.session.wait(10)  # and what it says in the end reaches nobody
    assert list(of.session.poll(of.snapshot)) == []
    assert {record["verdict"] for record in read_log(tmp_path / "decisions")} == {"CONTINUE"}


def test_a_time_budget_ends_the_run_amid_trials(cluster: Any, tmp_path: Path) -> None:
    of = scheduler(tmp_path, max_t=10 * STEPS)

    def endless(config: dict[str, Any]) -> None:
        for step in range(1, 10_000):
            time.sleep(0.02)
            tune.report({"epoch": step, "loss": loss(config["limit"], step)})

    results = fit(of, tmp_path, endless, time_budget_s=5)
    assert not any(result.error for result in results)
    assert of.stopped() == {}
    # No hook tells of this end: the trials are live as far as the scheduler knows, and asking it does no harm. (On a
    # very busy machine none has reported yet.)
    told = {uid(result) for result in results if result.metrics and "loss" in result.metrics}
    assert {book(of).trial(one).status for one in told} <= {Status.RUNNING}
    assert all(f"trial {one}: " in of.why_not() for one in told)


def test_the_readme_s_lines(cluster: Any, tmp_path: Path) -> None:
    """They run as they stand, with a toy for 'your training function'."""
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "ray" in block)
    assert len([line for line in code.splitlines() if line]) == 5
    code = code.replace("num_samples=40", "num_samples=12")
    code = code.replace("callbacks=[", f"storage_path={str(tmp_path)!r}, verbose=0, callbacks=[")

    def short(config: dict[str, Any]) -> None:
        for step in range(1, 51):
            tune.report({"loss": config["limit"] + 0.8**step})

    scope: dict[str, Any] = {"train": short, "space": {"limit": tune.uniform(0, 1)}}
    exec(code, scope)
    assert scope["lc"].stopped()
    for trial_id in scope["lc"].stopped():
        assert f"trial {trial_id}, step " in scope["lc"].explain(trial_id)


def test_the_example(cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """examples/ray_tune.py as it stands, but for where its results lie."""
    code = (Path(__file__).parents[3] / "examples" / "ray_tune.py").read_text()
    code = code.replace("callbacks=[", f"storage_path={str(tmp_path)!r}, verbose=0, callbacks=[")
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(code, scope)
    assert len(scope["results"]) == 24
    assert len(scope["lc"].stopped()) >= 3
    assert "best: {'lr': " in capsys.readouterr().out
