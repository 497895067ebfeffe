"""FreezeThaw: pausing for real, with real models, threads, processes and kills."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from kit.allocators import Never, Recorded
from kit.doubles import NormalAroundBest
from kit.studies import storage
from optuna.trial import TrialState

from lcsearch.allocation.named import KINDS
from lcsearch.allocation.named import allocator as named
from lcsearch.curves import Curve
from lcsearch.data.task import Run, Task
from lcsearch.errors import InvalidValue
from lcsearch.goal import Goal
from lcsearch.replay.simulator import World, simulate
from lcsearch.schedulers.optuna import CurvePruner, FreezeThaw, FreezeThawTrial, as_trial
from lcsearch.schedulers.optuna._lease import Lease, Watch
from lcsearch.schedulers.optuna._storage import adopt, begin, claim, pause, store_with
from lcsearch.session import Session
from lcsearch.session.decision_log import read_allocations
from lcsearch.stopping.policy import Policy
from lcsearch.sweep.spec.allocator import FORECASTING

STEPS = 9


class Objective:
    """A curve that needs its state: the loss is what is left of the distance, which only training makes smaller.

    Attributes:
        journal: takes a line for every step that is trained, the process with it.
        kill_at: (trial, step) at which the process ends itself, the first time.
    """

    def __init__(
        self, journal: Path, kill_at: tuple[int, int] | None = None, every: int = 0, rest: float = 0.0
    ) -> None:
        self.journal, self.kill_at, self.every, self.rest = journal, kill_at, every, rest

    def __call__(self, trial: FreezeThawTrial) -> float:
        rate, floor = trial.suggest_float("rate", 0.1, 0.9), trial.suggest_float("floor", 0, 1)
        kept, distance, first = trial.load(), np.array([1.0, 2.0]), 1
        if kept is not None:
            distance, first = kept.state["distance"], kept.step + 1
            assert kept.state["rate"] == rate
        for step in range(first, STEPS + 1):
            distance = distance * rate
            with self.journal.open("a") as file:
                file.write(json.dumps([trial.number, step, os.getpid()]) + "\n")
            if self.kill_at == (trial.number, step) and not (flag := self.journal.with_suffix(".killed")).exists():
                flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(self.rest)
            trial.report(floor + float(distance.sum()), step)
            if trial.should_prune():
                raise optuna.TrialPruned
            if trial.checkpoint_due or (self.every and step % self.every == 0):
                trial.save({"distance": distance, "rate": rate}, step)
        return floor + float(distance.sum())

    def trained(self) -> list[tuple[int, int, int]]:
        return [tuple(json.loads(line)) for line in self.journal.read_text().splitlines()]


def study_on(made: optuna.storages.BaseStorage | None = None, **fields: Any) -> optuna.Study:
    sampler = optuna.samplers.RandomSampler(seed=1)
    return optuna.create_study(
        storage=made, study_name="ft", sampler=sampler, pruner=optuna.pruners.NopPruner(), **fields
    )


def whole(study: optuna.Study, n: int) -> None:
    """Every trial has ended, with the values that it would have had without a pause."""
    assert len(study.trials) == n
    for trial in study.trials:
        assert trial.state in (TrialState.COMPLETE, TrialState.PRUNED), trial
        rate, floor = trial.params["rate"], trial.params["floor"]
        expected = {step: floor + 3 * rate**step for step in range(1, (trial.last_step or 0) + 1)}
        assert trial.intermediate_values == pytest.approx(expected)
        assert (trial.last_step == STEPS) == (trial.state == TrialState.COMPLETE)


@pytest.mark.parametrize("allocator", ["asha", "uniform", "greedy", "run-to-end"])
@pytest.mark.parametrize("n_workers", [1, 3])
def test_trials_are_trained_in_turns_and_nothing_is_lost(allocator: str, n_workers: int, tmp_path: Path) -> None:
    objective, study = Objective(tmp_path / "journal"), study_on()
    driver = FreezeThaw(
        study,
        objective,
        max_steps=STEPS,
        allocator=allocator,
        n_trials=6,
        n_workers=n_workers,
        forecasters=[NormalAroundBest()],
    )
    driver.run()
    whole(study, 6)
    trained = [(number, step) for number, step, _ in objective.trained()]
    assert len(trained) == len(set(trained)), "no step is trained twice"
    paused = [t for t in study.trials if "lcsearch:paused" in t.system_attrs]
    if allocator in ("asha", "uniform"):  # greedy may go on with whom it began
        assert paused
    assert driver.paused() == []
    assert study.best_trial.last_step == STEPS
    assert len(study.trials_dataframe()) == 6


def test_the_same_seed_gives_the_same_moves(tmp_path: Path) -> None:
    logs = []
    for name in "ab":
        objective = Objective(tmp_path / name)
        FreezeThaw(study_on(), objective, max_steps=STEPS, allocator="asha", n_trials=6).run()
        logs.append([(number, step) for number, step, _ in objective.trained()])
    assert logs[0] == logs[1]


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_processes_one_of_them_killed(kind: str, tmp_path: Path) -> None:
    objective = Objective(tmp_path / "journal", kill_at=(2, 4), every=2)
    with storage(kind, tmp_path) as made:
        study = study_on(made)
        driver = FreezeThaw(
            study, objective, max_steps=STEPS, allocator="uniform", n_trials=6, n_workers=4, processes=True
        )
        driver.run()
        whole(study, 6)
        assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
        assert len({pid for _, _, pid in objective.trained()}) > 1
        trained = [(number, step) for number, step, _ in objective.trained()]
        again = {one for one in trained if trained.count(one) > 1}
        assert again <= {(2, step) for step in range(1, 5)}
        assert [path.name for path in tmp_path.glob("*.checkpoints/*")] == [
            ".lock"
        ]  # no artifact is left of trials that have ended


class Anew:
    """It saves nothing, and the first attempt at trial 2, which is killed, reports what no training ever came to."""

    def __init__(self, died: Path) -> None:
        self.died = died

    def __call__(self, trial: FreezeThawTrial) -> float:
        floor, first = trial.suggest_float("floor", 0, 1), trial.number == 2 and not self.died.exists()
        for step in range(1, STEPS + 1):
            trial.report(-9.0 if first else floor + 1 / step, step)
            if first and step == 4:
                self.died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if trial.should_prune():
                raise optuna.TrialPruned
            if not first and trial.number == 2 and step == 2:
                (frozen,) = trial.study.get_trials(deepcopy=False)[2:3]
                assert as_trial(frozen).curve.values.tolist() == [floor + 1, floor + 1 / 2]
        return floor + 1 / STEPS


class OfTheDead(optuna.pruners.BasePruner):
    """It judges a trial by its last step, as Optuna's own do, and prunes one that only a dead attempt explains."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        assert trial.last_step is not None
        return trial.last_step >= 4 and trial.intermediate_values[trial.last_step] == -9.0


def test_a_trial_that_begins_anew_has_its_own_curve(tmp_path: Path) -> None:
    with storage("sqlite", tmp_path) as made:
        study = study_on(made)
        study.pruner = OfTheDead()
        objective = Anew(tmp_path / "died")
        FreezeThaw(
            study, objective, max_steps=STEPS, allocator="uniform", n_trials=4, n_workers=2, processes=True
        ).run()
        assert (tmp_path / "died").exists()
        for trial in study.trials:
            own = [trial.params["floor"] + 1 / step for step in range(1, STEPS + 1)]
            assert trial.state == TrialState.COMPLETE
            assert list(trial.intermediate_values.values()) == own
            assert as_trial(trial).curve.values.tolist() == own


class Digits:
    """A real one: logistic regression by SGD on the digits, what partial_fit needs kept as arrays."""

    def __call__(self, trial: FreezeThawTrial) -> float:
        from sklearn.datasets import load_digits
        from sklearn.linear_model import SGDClassifier

        x, y = load_digits(return_X_y=True)
        alpha = trial.suggest_float("alpha", 1e-6, 1e-1, log=True)
        model, first, score = SGDClassifier(loss="log_loss", alpha=alpha, random_state=0), 0, 0.0
        if (kept := trial.load()) is not None:
            model.partial_fit(x[:1], y[:1], classes=np.arange(10))
            model.coef_, model.intercept_, model.t_ = kept.state["coef"], kept.state["intercept"], kept.state["t"]
            first, score = kept.step + 1, kept.state["score"]
        for epoch in range(first, STEPS):
            model.partial_fit(x[:900], y[:900], classes=np.arange(10))
            score = float(model.score(x[900:], y[900:]))
            trial.report(score, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
            if trial.checkpoint_due:
                state = {"coef": model.coef_, "intercept": model.intercept_, "t": model.t_, "score": score}
                trial.save(state, epoch)
        return score


def test_a_real_model_with_pauses_is_the_model_without_them() -> None:
    studies = []
    for allocator in ("uniform", "run-to-end"):
        study = study_on(direction="maximize")
        FreezeThaw(study, Digits(), max_steps=STEPS, allocator=allocator, n_trials=3).run()
        studies.append([(trial.params, trial.intermediate_values) for trial in study.trials])
    assert studies[0] == studies[1]


class Files:
    """Keeps files in the place of a state."""

    def __call__(self, trial: FreezeThawTrial) -> float:
        kept = trial.load()
        text, first = ("", 0) if kept is None else ((kept.files / "text").read_text(), kept.step + 1)  # type: ignore[operator]
        for step in range(first, STEPS):
            text += str(step)
            trial.report(-len(text), step)
            if trial.checkpoint_due:
                with trial.saving(step) as folder:
                    (folder / "text").write_text(text)
        assert text == "".join(map(str, range(STEPS)))
        return -len(text)


def test_files_are_kept(tmp_path: Path) -> None:
    with storage("sqlite", tmp_path) as made:
        study = study_on(made)
        store = optuna.artifacts.FileSystemArtifactStore(tmp_path)
        FreezeThaw(study, Files(), max_steps=STEPS, allocator="uniform", n_trials=2, artifact_store=store).run()
        assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2


def test_a_stop_goes_before_a_pause(tmp_path: Path) -> None:
    """A trial that is stopped where its turn is over is PRUNED, not paused."""

    class Stops(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            return trial.number > 0 and trial.last_step == 1

    study = study_on()
    study.pruner = Stops()
    FreezeThaw(study, Objective(tmp_path / "j"), max_steps=STEPS, allocator="asha", n_trials=3).run()
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED]
    assert ["lcsearch:paused" in trial.system_attrs for trial in study.trials] == [True, False, False]


def test_curve_pruner_stops_beside_paused_trials(tmp_path: Path) -> None:
    """Its stops are recorded, its looks see the paused ones, its log takes the allocations' receipts."""
    study = study_on()
    pruner = CurvePruner(max_steps=STEPS, forecasters=[NormalAroundBest()], n_startup_trials=2, threshold=0.4)
    driver = FreezeThaw(
        study, Objective(tmp_path / "j"), max_steps=STEPS, allocator="uniform", n_trials=8, pruner=pruner
    )
    driver.run()
    assert study.pruner is pruner
    assert all(trial.state.is_finished() for trial in study.trials)
    assert driver.report().failed_open == 0
    assert "trial 0" in driver.explain(0)
    assert driver.explain(study.trials[0]) == driver.explain(0)
    given: dict[str, Any] = {"forecasters": "parametric", "decision_log": tmp_path, "host": "rubbish"}
    for name, value in given.items():
        with pytest.raises(InvalidValue) as wrong:
            FreezeThaw(study, Objective(tmp_path / "j"), max_steps=STEPS, n_trials=8, **{name: value})
        assert str(wrong.value) == (
            f"FreezeThaw({name}=): expected {'auto' if name == 'host' else None!r}, got {value!r}. "
            "Give it to the study's CurvePruner."
        )


def test_pruner_and_driver_agree_where_trials_end() -> None:
    with pytest.raises(InvalidValue) as wrong:
        FreezeThaw(study_on(), Files(), max_steps=STEPS, n_trials=1, pruner=CurvePruner(max_steps=50))
    assert str(wrong.value) == "CurvePruner(max_steps=): expected max_steps=9, as FreezeThaw has it, got 50."


def test_one_that_never_saves_is_never_paused(caplog: pytest.LogCaptureFixture) -> None:
    def objective(trial: FreezeThawTrial) -> float:
        for step in range(1, STEPS + 1):
            trial.report(1 / step, step)
        return 0.1

    study = study_on()
    FreezeThaw(study, objective, max_steps=STEPS, allocator="asha", n_trials=3).run()
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    assert [record.getMessage() for record in caplog.records if "did not save" in record.getMessage()] == [
        "lcsearch: trial 0 reports step 2, its turn was over at step 0.18, and it did not save, so that it runs on "
        "until it does: after trial.report, call trial.save(state, step) where trial.checkpoint_due"
    ]


def test_a_budget_of_steps_is_kept_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    objective, study = Objective(tmp_path / "j"), study_on()

    def run(steps: float) -> FreezeThaw:
        driver = FreezeThaw(study, objective, max_steps=STEPS, allocator="uniform", n_trials=4, steps=steps)
        driver.run()
        return driver

    driver = run(10)
    assert len(objective.trained()) == 10
    (ended,) = (trial.number for trial in study.trials if trial.state is TrialState.COMPLETE)  # the leader went first
    waiting = driver.paused()
    assert waiting == [number for number in range(len(study.trials)) if number != ended]
    assert f"trials: 1 complete, 0 stopped, {len(waiting)} paused" in str(driver.report())
    said = driver.explain(waiting[0]).splitlines()
    assert said[0] == f"trial {waiting[0]} is paused at step 1"
    assert said[1].startswith("waits: rank ")
    assert said[2] == "the last slots went to:"
    assert all(study.trials[number].state is TrialState.WAITING for number in waiting)
    run(20)
    assert len(objective.trained()) == 20
    run(100)
    assert len(objective.trained()) == 4 * STEPS
    whole(study, 4)


def paused_under_curve_pruner(made: optuna.storages.BaseStorage, folder: Path, **fields: Any) -> FreezeThaw:
    """A search whose budget is spent while eleven trials wait at step 1, one of 12 at 3."""
    study, pruner = study_on(made), CurvePruner(max_steps=STEPS, forecasters="parametric", **fields)
    driver = FreezeThaw(
        study, Objective(folder / "j"), max_steps=STEPS, allocator="asha", n_trials=12, steps=20, pruner=pruner
    )
    driver.run()
    assert len(driver.paused()) > 8
    return driver


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_another_process_tells_from_the_log_why_a_trial_waits(kind: str, tmp_path: Path) -> None:
    with storage(kind, tmp_path) as made:
        driver = paused_under_curve_pruner(made, tmp_path, decision_log=tmp_path / "log")
        paused, last = driver.paused(), max(read_allocations(tmp_path / "log"), key=lambda one: one.number)
        elsewhere = CurvePruner(max_steps=STEPS, forecasters="parametric", decision_log=tmp_path / "log")
        told = {n: elsewhere.explain(n, driver.study).splitlines() for n in paused}
        here = {n: driver.explain(n).splitlines()[:-1] for n in paused}  # the budget is the driver's
        assert isinstance(driver.study.pruner, CurvePruner)
        assert driver.study.pruner.explain(paused[0], driver.study).splitlines() == here[paused[0]]
        assert last.n_waiting == len(paused) > len(last.against)  # most are too far from a slot to be named in it
        for n in paused:
            assert here[n][1].startswith("waits: rank ")
            assert told[n][:2] == here[n][:2]
            assert told[n][2] == f"  by allocation {last.number} (asha), the latest in {tmp_path / 'log'}"
            assert told[n][3:] == here[n][2:]


@pytest.mark.parametrize("max_steps", [STEPS, "auto"])
def test_a_pruner_tells_the_waits_of_its_own_study_among_those_of_one_name(tmp_path: Path, max_steps: Any) -> None:
    """Two studies of one name in one process, in two storages, under one pruner: only the first has allocated."""
    pruner = CurvePruner(max_steps=max_steps, forecasters="parametric")
    studies = [study_on(optuna.storages.InMemoryStorage()) for _ in range(2)]
    drivers = [
        FreezeThaw(s, Objective(tmp_path / str(n)), max_steps=STEPS, allocator="asha", n_trials=12, steps=20,
                   pruner=pruner)
        for n, s in enumerate(studies)
    ]  # fmt: skip
    drivers[0].run()
    studies[1].add_trials(studies[0].trials)
    waits = drivers[0].paused()[-1]
    told = drivers[0].explain(waits).splitlines()[:-1]  # the budget is the driver's
    assert told[1].startswith("waits: rank ")
    assert pruner.explain(waits, studies[0]).splitlines() == told
    said = pruner.explain(waits, studies[1])
    assert "the last slots went to:" not in said
    assert "no slot was given away by this process" in said


def test_without_a_log_a_driver_asks_what_a_trial_of_other_processes_waits_for(tmp_path: Path) -> None:
    with storage("sqlite", tmp_path) as made:
        driver = FreezeThaw(
            study_on(made), Objective(tmp_path / "j"), max_steps=STEPS, allocator="asha", n_trials=12, steps=20,
            n_workers=2, processes=True,
        )  # fmt: skip
        driver.run()
        said = {n: driver.explain(n).splitlines() for n in driver.paused()}
        before = driver.study.trials
        assert said  # how many hangs on which process was quicker
        for n, (first, second, *rest) in said.items():
            assert first == f"trial {n} is paused at step {before[n].last_step}"
            assert second.startswith(("waits: rank ", "it is next, until step "))
            spent = [line.startswith("the budget is spent, ") for line in rest]  # to the last step, or nearly
            assert spent in ([], [True])
        assert driver.study.trials == before  # to explain moves nobody


def test_what_is_cut_says_so_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    objective = Objective(tmp_path / "j")
    with storage("journal", tmp_path) as made:
        study = study_on(made)
        driver = FreezeThaw(study, objective, max_steps=STEPS, allocator="asha", n_trials=6)
        driver.run()
        cut = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
        assert cut
        for trial in cut:
            reason = trial.user_attrs["lcsearch:reason"].removeprefix("cut: ")
            told = f"trial {trial.number} was cut at step {trial.last_step}, where it was paused: {reason}"
            assert driver.explain(trial.number).splitlines()[0] == told
        report = driver.report()
        assert (report.cut, report.stops) == (len(cut), ())
        assert report.saved == sum(STEPS - (trial.last_step or 0) for trial in cut)  # as of any other stop
        told = f"trials: {6 - len(cut)} complete, {len(cut)} stopped ({len(cut)} of them ended while paused)"
        assert str(report).splitlines()[0] == told
        assert [path.name for path in tmp_path.glob("*.checkpoints/*")] == [".lock"]


def test_one_that_is_cut_and_whose_worker_is_killed_before_it_pauses_ends(tmp_path: Path) -> None:
    objective = Objective(tmp_path / "j")
    with storage("sqlite", tmp_path) as made:
        study = study_on(made)
        driver = FreezeThaw(study, objective, max_steps=STEPS, allocator="uniform", n_trials=2, steps=2)
        driver.run()
        trial = claim(study, 0)
        assert trial is not None
        store_with(study, trial, "lcsearch:cut", {"why": "its rung is closed", "of": 0})
        Lease(study, trial, 60.0, nullcontext).release()  # its worker is gone
        last = study.trials[0].last_step
        FreezeThaw(study, objective, max_steps=STEPS, allocator="uniform", n_trials=2).run()
        assert study.trials[0].state == TrialState.PRUNED
        assert study.trials[0].last_step == last
        assert study.trials[0].user_attrs["lcsearch:reason"] == "cut: its rung is closed"
        assert study.trials[1].state == TrialState.COMPLETE
        assert [path.name for path in tmp_path.glob("*.checkpoints/*")] == [".lock"]


def test_finish_ends_what_is_paused(tmp_path: Path) -> None:
    objective = Objective(tmp_path / "j")
    with storage("sqlite", tmp_path) as made:
        study = study_on(made)
        driver = FreezeThaw(study, objective, max_steps=STEPS, allocator="uniform", n_trials=3, steps=7)
        driver.run()
        assert driver.paused() == driver.finish() == [0, 1, 2]
        assert [trial.state for trial in study.trials] == [TrialState.PRUNED] * 3
        assert all(trial.value == trial.intermediate_values[trial.last_step] for trial in study.trials)  # type: ignore[index]
        assert study.trials[0].user_attrs["lcsearch:reason"] == "the search was finished while it was paused"
        assert driver.finish() == []
        assert [path.name for path in tmp_path.glob("*.checkpoints/*")] == [".lock"]


class Fails:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, trial: FreezeThawTrial) -> float:
        if trial.number == 1:
            raise self.error
        return 1.0


def test_an_exception_fails_its_trial_and_ends_the_run_unless_it_is_caught() -> None:
    study = study_on()
    with pytest.raises(ZeroDivisionError):
        FreezeThaw(study, Fails(ZeroDivisionError()), max_steps=STEPS, n_trials=3, allocator="asha").run()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL"]
    FreezeThaw(study, Fails(ZeroDivisionError()), max_steps=STEPS, n_trials=3, allocator="asha").run()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    study = study_on()
    caught = (ArithmeticError,)
    FreezeThaw(study, Fails(ZeroDivisionError()), max_steps=STEPS, n_trials=3, allocator="asha", catch=caught).run()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]


def test_an_interrupt_leaves_a_trial_that_the_next_run_goes_on_with(tmp_path: Path) -> None:
    class Interrupted(Objective):
        def __call__(self, trial: FreezeThawTrial) -> float:
            if trial.number == 1 and not self.journal.with_suffix(".interrupted").exists():
                self.journal.with_suffix(".interrupted").touch()
                raise KeyboardInterrupt
            return super().__call__(trial)

    study, objective = study_on(), Interrupted(tmp_path / "j")
    with pytest.raises(KeyboardInterrupt):
        FreezeThaw(study, objective, max_steps=STEPS, n_trials=3, allocator="uniform").run()
    assert study.trials[1].state == TrialState.RUNNING
    FreezeThaw(study, objective, max_steps=STEPS, n_trials=3, allocator="uniform").run()
    whole(study, 3)


def test_a_worker_process_that_fails_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with storage("sqlite", tmp_path) as made:
        study = study_on(made)
        driver = FreezeThaw(
            study, Fails(ZeroDivisionError()), max_steps=STEPS, n_trials=3, allocator="asha", processes=True
        )
        with pytest.raises(RuntimeError, match="ended with exit code 1: its error stands above"):
            driver.run()
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_trial_that_kills_its_workers_has_failed(tmp_path: Path) -> None:
    with storage("sqlite", tmp_path) as made:
        study = study_on(made)
        FreezeThaw(study, Kills(), max_steps=STEPS, n_trials=2, allocator="asha", processes=True).run()
        assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]


class Kills:
    def __call__(self, trial: FreezeThawTrial) -> float:
        if trial.number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"n_trials": None},
            "FreezeThaw(n_trials=, steps=): expected n_trials or steps, got None. Say when the search ends.",
        ),
        ({"max_steps": 0}, "FreezeThaw(max_steps=): expected a number > 0, got 0."),
        ({"n_workers": 0}, "FreezeThaw(n_workers=): expected a whole number >= 1, got 0."),
        ({"lease_s": -1}, "FreezeThaw(lease_s=): expected a number > 0, got -1."),
        ({"steps": float("nan")}, "FreezeThaw(steps=): expected a number of steps > 0 or None, got nan."),
        ({"checkpoint_cost": -1}, "FreezeThaw(checkpoint_cost=): expected a number of steps >= 0, got -1."),
        ({"resume_cost": math.inf}, "FreezeThaw(resume_cost=): expected a number of steps >= 0, got inf."),
        (
            {"processes": True},
            "FreezeThaw(processes=True): expected a storage that processes share, as a sqlite file or a "
            "journal, got 'a study in memory'.",
        ),
    ],
)
def test_wrong_arguments(fields: dict[str, Any], text: str) -> None:
    settings: dict[str, Any] = {"max_steps": STEPS, "n_trials": 3, "allocator": "asha", **fields}
    with pytest.raises(InvalidValue) as wrong:
        FreezeThaw(study_on(), Files(), **settings)
    assert str(wrong.value) == text


def test_samplers_learn_from_what_has_ended_only(tmp_path: Path) -> None:
    """TPE proposes what it would without paused trials; the figures of plots are of trials that have ended."""
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=2))
    FreezeThaw(study, Objective(tmp_path / "j"), max_steps=STEPS, allocator="uniform", n_trials=6, steps=20).run()
    assert {trial.state for trial in study.trials} >= {TrialState.WAITING}
    assert all(trial.value is None for trial in study.trials if trial.state == TrialState.WAITING)
    frame = study.trials_dataframe()
    assert frame[frame.state == "WAITING"].value.isna().all()


def test_a_budget_that_is_spent_is_said_of_who_waits(tmp_path: Path) -> None:
    study = study_on()
    driver = FreezeThaw(study, Objective(tmp_path / "j"), max_steps=STEPS, allocator="uniform", n_trials=6, steps=6)
    driver.run()
    said = driver.explain(driver.paused()[-1]).splitlines()
    assert said[-1] == "the budget is spent, 6 of 6 steps: nobody goes on until `steps` is raised"
    more = FreezeThaw(study, Objective(tmp_path / "j"), max_steps=STEPS, allocator="uniform", n_trials=6, steps=60)
    assert "budget" not in more.explain(more.paused()[-1])


# Leases


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def elsewhere(study: optuna.Study, trial: optuna.Trial) -> None:
    """Make a lease look like one of another machine."""
    kept = dict(study.trials[trial.number].system_attrs["lcsearch:lease"])
    store_with(study, trial, "lcsearch:lease", kept | {"host": "another machine"})


def test_a_worker_on_another_machine_is_dead_when_its_lease_stands_still() -> None:
    study, clock = study_on(), Clock()
    trial = begin(study)
    lease = Lease(study, trial, 60.0, nullcontext, clock=clock)
    watch = Watch(60.0, clock)
    assert not watch.dead(study.trials[0])  # a process that lives, on this machine
    elsewhere(study, trial)
    for clock.now in (0.0, 30.0, 50.0):
        assert not watch.dead(study.trials[0])
    assert lease.holds()  # it is renewed
    elsewhere(study, trial)
    for clock.now in (70.0, 120.0):
        assert not watch.dead(study.trials[0])
    clock.now = 130.0
    assert watch.dead(study.trials[0])
    lease.release()
    assert Watch(60.0, clock).dead(study.trials[0])


def test_a_lease_is_renewed_no_more_often_than_it_must() -> None:
    study, clock = study_on(), Clock()
    trial = begin(study)
    lease = Lease(study, trial, 60.0, nullcontext, clock=clock)
    beats = []
    for clock.now in (0.0, 1.0, 14.0, 15.0, 29.0, 31.0):
        assert lease.holds()
        beats.append(study.trials[0].system_attrs["lcsearch:lease"]["beat"])
    assert beats == [0, 0, 0, 1, 1, 2]


def test_who_was_away_finds_that_the_trial_is_another_s() -> None:
    study, clock = study_on(), Clock()
    trial = begin(study)
    lease = Lease(study, trial, 60.0, nullcontext, clock=clock)
    assert lease.holds()
    other = Lease(study, trial, 60.0, nullcontext, clock=clock)
    clock.now = 61.0
    assert other.holds()
    assert not lease.holds()


def test_a_claim_that_was_not_signed_runs_out() -> None:
    """Killed between the claim and the lease: the lease of the turn before says nothing, though its process lives."""
    study, clock = study_on(), Clock()
    trial = begin(study)
    Lease(study, trial, 60.0, nullcontext, clock=clock)
    pause(study, trial)
    assert claim(study, 0) is not None
    watch = Watch(60.0, clock)
    assert not watch.dead(study.trials[0])
    clock.now = 60.0
    assert watch.dead(study.trials[0])


def take_and_die(path: str, number: int | None) -> None:
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{path}")
    if number is None:
        begin(study)
    else:
        claim(study, number)
    os._exit(1)


@pytest.mark.parametrize("number", [0, None], ids=["claimed", "begun"])
def test_who_was_killed_before_the_lease_on_this_machine_is_known_dead_at_once(
    tmp_path: Path, number: int | None
) -> None:
    """Nobody waits `lease_s`; a claim from another machine, or of an earlier turn, says nothing."""
    study, clock = optuna.create_study(study_name="s", storage=f"sqlite:///{tmp_path / 's'}"), Clock()
    trial = begin(study)
    Lease(study, trial, 60.0, nullcontext, clock=clock)
    pause(study, trial)
    worker = multiprocessing.get_context("spawn").Process(target=take_and_die, args=(str(tmp_path / "s"), number))
    worker.start()
    worker.join(300)
    assert worker.exitcode == 1
    left = study.trials[-1]
    assert left.state == TrialState.RUNNING
    assert Watch(60.0, clock).dead(left)
    kept = left.system_attrs["lcsearch:claimed"]
    for said in ({"host": "another machine"}, {"pauses": 7}):
        store_with(study, left, "lcsearch:claimed", kept | said)
        assert not Watch(60.0, clock).dead(study.trials[-1])
    store_with(study, left, "lcsearch:claimed", kept)
    Lease(study, adopt(study, left.number), 60.0, nullcontext, clock=clock)  # it was taken over
    assert not Watch(60.0, clock).dead(study.trials[-1])


def test_a_worker_that_lost_its_trial_leaves_it_alone(tmp_path: Path) -> None:
    """It was away; another has taken the trial over, trained it and ended it meanwhile."""
    seen: list[FreezeThawTrial] = []

    class Away(Objective):
        def __call__(self, trial: FreezeThawTrial) -> float:
            if trial.number == 0 and not seen:
                seen.append(trial)
                trial.report(9.0, 1)
                Lease(trial.study, trial, 60.0, nullcontext)
                trial.study.tell(0, 0.5)
                trial._lease._renewed = -1e9  # noqa: SLF001
                trial.report(8.0, 2)
                raise AssertionError("it went on")
            return super().__call__(trial)

    study = study_on()
    FreezeThaw(study, Away(tmp_path / "j"), max_steps=STEPS, allocator="asha", n_trials=2).run()
    assert study.trials[0].intermediate_values == {1: 9.0}
    assert study.trials[0].value == 0.5
    assert study.trials[1].state.is_finished()


def test_a_checkpoint_that_is_gone_is_no_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    objective, folder = Objective(tmp_path / "j"), tmp_path / "kept"
    study = study_on()

    def run(steps: float) -> None:
        driver = FreezeThaw(
            study, objective, max_steps=STEPS, allocator="uniform", n_trials=2, steps=steps, artifact_store=folder
        )
        driver.run()

    run(4)
    for file in folder.glob("[0-9a-f]*"):
        file.write_bytes(b"damaged")
    run(2 * STEPS)
    whole(study, 2)
    assert sum("its checkpoint cannot be read" in record.getMessage() for record in caplog.records) == 2


@pytest.mark.parametrize("allocator", sorted(set(KINDS) - {*FORECASTING} | {"going-rate"}))  # it does not ask so early
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("world", [World(), World(budget=40.0, checkpoint=1.0, resume=2.0)], ids=["free", "priced"])
def test_the_same_moves_as_in_the_simulator(allocator: str, seed: int, world: World) -> None:
    """And before every allocation the same account: what was trained, and paid for pauses and resumes."""
    rng, t = np.random.default_rng(seed), np.arange(1.0, STEPS + 1)
    losses = rng.uniform(0, 1, (8, 1)) + rng.uniform(0.2, 2, (8, 1)) * t ** -rng.uniform(0.3, 1.5, (8, 1))
    goal = Goal("value", "minimize", STEPS)
    runs = tuple(Run(str(i), Curve.of(t, values), t) for i, values in enumerate(losses))
    simulated, real = Recorded(named(allocator)), Recorded(named(allocator))
    simulate(Task("task", goal, runs), range(8), Never(), replace(world, seed=seed), simulated)

    def objective(trial: FreezeThawTrial) -> float:
        kept = trial.load()
        for step in range(1 if kept is None else kept.step + 1, STEPS + 1):
            trial.report(float(losses[trial.number][step - 1]), step)
            if trial.checkpoint_due:
                trial.save({}, step)
        return float(losses[trial.number].min())

    search = FreezeThaw(
        study_on(),
        objective,
        max_steps=STEPS,
        allocator=real,
        n_trials=8,
        steps=world.budget,
        checkpoint_cost=world.checkpoint,
        resume_cost=world.resume,
        seed=seed,
    )
    search.run()
    assert real.moves == simulated.moves
    assert real.stops == simulated.stops
    assert [slots.account for slots, *_ in real.said] == [slots.account for slots, *_ in simulated.said]
    assert [slots.here for slots, *_ in real.said] == [slots.here for slots, *_ in simulated.said]


def test_a_full_disk_is_no_end_and_no_pause(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Full(optuna.artifacts.FileSystemArtifactStore):
        def write(self, artifact_id: str, content_body: Any) -> None:
            raise OSError(28, "No space left on device")

    study = study_on()
    driver = FreezeThaw(
        study,
        Objective(tmp_path / "j"),
        max_steps=STEPS,
        allocator="uniform",
        n_trials=3,
        artifact_store=Full(tmp_path),
    )
    driver.run()
    whole(study, 3)
    assert all("lcsearch:paused" not in trial.system_attrs for trial in study.trials)
    assert sum("its checkpoint cannot be kept: OSError" in record.getMessage() for record in caplog.records) == 1


DRIVER = """
import sys
from pathlib import Path
import optuna
from schedulers.optuna.test_freeze_thaw import Objective, STEPS, open_study
optuna.logging.set_verbosity(optuna.logging.ERROR)
from lcsearch.schedulers.optuna import FreezeThaw

if __name__ == "__main__":
    folder = Path(sys.argv[2])
    study = open_study(sys.argv[1], folder)
    objective = Objective(folder / "trained", every=2, rest=0.02)
    FreezeThaw(study, objective, max_steps=STEPS, allocator="asha", n_trials=9, n_workers=2, lease_s=1.0).run()
"""


def open_study(kind: str, folder: Path) -> optuna.Study:
    if kind == "sqlite":
        return study_on(optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}"), load_if_exists=True)
    path = str(folder / "journal.log")
    lock = optuna.storages.journal.JournalFileSymlinkLock(path, grace_period=4)  # that of a killed process
    backend = optuna.storages.journal.JournalFileBackend(path, lock)
    return study_on(optuna.storages.JournalStorage(backend), load_if_exists=True)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_driver_that_is_killed_again_and_again_loses_nothing(kind: str, tmp_path: Path) -> None:
    """SIGKILL wherever it happens to be; the next one goes on."""
    script, chance = tmp_path / "driver.py", np.random.default_rng(3)
    script.write_text(DRIVER)
    tests = str(Path(__file__).parents[2])
    paths = filter(None, [tests, os.environ.get("PYTHONPATH")])  # an empty one would be the working directory
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    trained, kills = tmp_path / "trained", 0
    while True:
        had = len(trained.read_text().splitlines()) if trained.exists() else 0
        process = subprocess.Popen([sys.executable, str(script), kind, str(tmp_path)], env=environment)
        until = had + int(chance.integers(3, 12)) if kills < 4 else math.inf
        while process.poll() is None:
            if trained.exists() and len(trained.read_text().splitlines()) >= until:
                process.kill()
                kills += 1
            time.sleep(0.01)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert kills >= 3
    study = open_study(kind, tmp_path)
    whole(study, 9)


@pytest.mark.parametrize(("allocator", "n_trials"), [("uniform", 4), ("run-to-end", 9)])
def test_a_grid_is_tried_to_its_end_and_no_further(allocator: str, n_trials: int, tmp_path: Path) -> None:
    """The sampler says so by `study.stop()`, which Optuna takes inside of `optimize` only."""
    sampler = optuna.samplers.GridSampler({"rate": [0.3, 0.6], "floor": [0.1, 0.2]})
    study = optuna.create_study(sampler=sampler, pruner=optuna.pruners.NopPruner())
    FreezeThaw(study, Objective(tmp_path / "j"), max_steps=STEPS, allocator=allocator, n_trials=n_trials).run()
    whole(study, 4)
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 4


def test_an_objective_may_end_the_run(tmp_path: Path) -> None:
    class Enough(Objective):
        def __call__(self, trial: FreezeThawTrial) -> float:
            if trial.number == 2:
                trial.study.stop()
            return super().__call__(trial)

    study = study_on()
    driver = FreezeThaw(study, Enough(tmp_path / "j"), max_steps=STEPS, allocator="uniform", n_trials=9)
    driver.run()
    assert driver.paused() == [0, 1, 2]


def test_threads_on_every_storage(everywhere: optuna.storages.BaseStorage, tmp_path: Path) -> None:
    study, folder = study_on(everywhere), tmp_path / "checkpoints"
    objective = Objective(tmp_path / "j")
    settings: dict[str, Any] = {"max_steps": STEPS, "allocator": "asha", "n_trials": 6, "n_workers": 3}
    FreezeThaw(study, objective, artifact_store=folder, **settings).run()
    whole(study, 6)
    trained = [(number, step) for number, step, _ in objective.trained()]
    assert len(trained) == len(set(trained))
    if isinstance(everywhere, optuna.storages.GrpcStorageProxy):
        with pytest.raises(InvalidValue, match="expected a folder, or an artifact store, that all workers reach"):
            FreezeThaw(study, objective, **settings)


@pytest.mark.parametrize("allocator", sorted(KINDS))
@pytest.mark.parametrize("seed", range(2))
def test_the_same_moves_and_stops_as_in_the_simulator(allocator: str, seed: int) -> None:
    """With looks, too: a stop goes before a pause, and what was stopped counts in every comparison."""
    rng, n = np.random.default_rng(seed), 24
    t = np.arange(1.0, n + 1)
    losses = rng.uniform(0, 1, (12, 1)) + rng.uniform(0.2, 2, (12, 1)) * t ** -rng.uniform(0.3, 1.5, (12, 1))
    runs = tuple(Run(str(i), Curve.of(t, values), t) for i, values in enumerate(losses))
    simulated, real = Recorded(named(allocator)), Recorded(named(allocator))
    knobs: dict[str, Any] = {"threshold": 0.3, "n_startup_trials": 2, "look_growth": 1.0}
    stopper = Session(Policy(**knobs), [NormalAroundBest()])
    task = Task("task", Goal("value", "minimize", n), runs)
    found = simulate(task, range(12), stopper, World(seed=seed), simulated, [NormalAroundBest()])

    def objective(trial: FreezeThawTrial) -> float:
        kept = trial.load()
        for step in range(1 if kept is None else kept.step + 1, n + 1):
            trial.report(float(losses[trial.number][step - 1]), step)
            if trial.should_prune():
                raise optuna.TrialPruned
            if trial.checkpoint_due:
                trial.save({}, step)
        return float(losses[trial.number].min())

    study = study_on()
    study.pruner = CurvePruner(max_steps=n, forecasters=[NormalAroundBest()], **knobs)
    FreezeThaw(study, objective, max_steps=n, allocator=real, n_trials=12, seed=seed).run()
    assert real.moves == simulated.moves
    assert real.stops == simulated.stops
    stopped = {life.uid: life.shown for life in found.lives if life.stop is not None}
    ended = {str(t.number): t.last_step for t in study.trials if "lcsearch:mark" in t.system_attrs}
    assert ended == stopped


def test_receipts_of_allocations_stand_in_the_log(tmp_path: Path) -> None:
    objective, log = Objective(tmp_path / "j"), tmp_path / "decisions"
    driver = FreezeThaw(
        study_on(), objective, max_steps=STEPS, allocator="asha", n_trials=4, decision_log=log, forecasters="rank-gap"
    )
    driver.run()
    receipts = list(read_allocations(log))
    assert len(receipts) >= 4
    assert {one.allocator for one in receipts} == {"asha"}
