"""Pauses and resumes, without a cluster: who runs, who waits, who is cut, and that no run hangs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.allocators import Recorded
from kit.doubles import NormalAroundBest
from kit.tune_runner import Proposals, Runner, book_of, copy_of, decay, of_run, restored, run_of, scheduler
from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT

from lcsearch.allocation.allocators.uniform import Uniform
from lcsearch.allocation.arms import StatelessAllocator
from lcsearch.allocation.contract import Abilities, Allocation, Key, Move, Slots
from lcsearch.allocation.judge import judge
from lcsearch.allocation.named import KINDS, allocator
from lcsearch.allocation.receipt import ALLOCATED
from lcsearch.curves import Curve
from lcsearch.data.task import Run, Task
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Answers, Query
from lcsearch.goal import Goal
from lcsearch.replay.baselines.never_patience import Never
from lcsearch.replay.simulator import World, simulate
from lcsearch.schedulers.ray_tune import CurveScheduler, StateCallback
from lcsearch.session.decision_log import read_allocations
from lcsearch.study import Snapshot, Status

STEPS = 9
LIMITS = {f"t{i}": limit for i, limit in enumerate([0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6])}


@dataclass(frozen=True)
class Does(StatelessAllocator):
    """Does what it is told to."""

    what: Callable[[Snapshot, Slots], Allocation]
    name: str = "told"

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        return self.what(snapshot, slots)


def curves(n: int = len(LIMITS)) -> dict[str, list[float]]:
    return {uid: decay(limit, STEPS) for uid, limit in list(LIMITS.items())[:n]}


def scheduled(by: Any, **fields: Any) -> CurveScheduler:
    return scheduler(**{"max_t": STEPS, "allocator": by, "n_startup_trials": 1000, **fields})


def drive(
    runner: Runner, known: Mapping[str, Sequence[float]], *, turns: int = 2000, checkpoints: bool = True
) -> list[str]:
    """Tune's loop until every trial has ended: the uids in the order in which they reported. Fails where it hangs."""
    order: list[str] = []
    idle = 0
    for _ in range(turns):
        runner.step()
        running = [trial for trial in runner.trials if trial.status == Trial.RUNNING]
        over = runner.search_alg is None or runner.search_alg.is_finished()
        if not running:
            if over and not runner.get_live_trials():
                return order
            idle += 1
            assert idle < 5, "nothing runs, and nothing is begun"
            continue
        assert len(running) <= runner.slots
        idle = 0
        for trial in running:
            at = int(trial.last_result.get("training_iteration", 0)) if trial.last_result else 0
            result = {"training_iteration": at + 1, "loss": known[trial.trial_id][at], SHOULD_CHECKPOINT: checkpoints}
            runner.result(trial, result)
            order.append(trial.trial_id)
    raise AssertionError("the run does not end")


def run_with(by: Any, n: int = len(LIMITS), slots: int = 1, limit: int | None = None, **fields: Any) -> Runner:
    runner = Runner(scheduled(by, **fields), slots=slots, search_alg=Proposals([*LIMITS][:n], limit))
    runner.order = drive(runner, curves(n))  # type: ignore[attr-defined]
    return runner


def ends(runner: Runner) -> dict[str, tuple[str, float]]:
    book = book_of(of_run(runner))
    return {uid: (entry.status.name, entry.last) for uid, entry in book.entries.items()}


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("uncertain", "top-two", "dump", "alp-gmm")])
@pytest.mark.parametrize("prices", [(0.0, 0.0), (0.75, 2.0)])
def test_one_slot_moves_as_the_simulator_does(name: str, prices: tuple[float, float]) -> None:
    """With the same account before every allocation: what was trained, and paid for pauses and resumes."""
    checkpoint, resume = prices
    one_slot_as_the_simulator(name, World(checkpoint=checkpoint, resume=resume))


@pytest.mark.parametrize("name", ["asha", "hyperband", "halving", "run-to-end", "going-rate", "greedy"])
def test_preemption_within_a_turn_is_the_simulators_too(name: str) -> None:
    assert one_slot_as_the_simulator(name, World(resume=0.5), max_slice=1.0) > len(LIMITS)


def one_slot_as_the_simulator(name: str, world: World, max_slice: float | None = None) -> int:
    """How many allocations there were, which both made alike."""
    task = Task(
        "same",
        Goal("loss", "minimize", STEPS),
        tuple(
            Run(uid, Curve.of(range(1, STEPS + 1), curve), np.arange(1.0, STEPS + 1)) for uid, curve in curves().items()
        ),
    )
    here, there = Recorded(allocator(name)), Recorded(allocator(name))
    runner = run_with(here, max_slice=max_slice, checkpoint_cost=world.checkpoint, resume_cost=world.resume)
    bounded = allocator(there, max_slice=max_slice)
    found = simulate(task, range(len(LIMITS)), Never(), world, bounded, [NormalAroundBest()])
    assert here.said == there.said
    assert len(here.said) > 5
    assert ends(runner) == {
        life.uid: (life.status.name, life.shown) for life in found.lives if life.status is not Status.PAUSED
    }
    return len(here.said)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("slots", [1, 3, 20])
@pytest.mark.parametrize(("limit", "max_slice"), [(None, None), (1, None), (2, None), (4, None), (None, 1.0)])
def test_every_run_ends_and_has_a_complete_trial(
    name: str, slots: int, limit: int | None, max_slice: float | None
) -> None:
    runner = run_with(name, slots=slots, limit=limit, max_slice=max_slice)
    found = ends(runner)
    assert len(found) == len(LIMITS)
    assert ("COMPLETE", STEPS) in found.values()
    assert {status for status, _ in found.values()} <= {"COMPLETE", "STOPPED"}
    assert of_run(runner).session.tally()[1] == []


def test_a_turn_that_is_over_is_given_to_whoever_is_next_and_a_trial_goes_on_where_it_stands() -> None:
    runner = run_with(Uniform(quantum=1 / 3), n=3)
    assert runner.order == ["t0"] * 3 + ["t1"] * 3 + ["t2"] * 3 + (["t0"] * 3 + ["t1"] * 3 + ["t2"] * 3) * 2  # type: ignore[attr-defined]
    alone = Runner(scheduled(Uniform(quantum=1 / 3)), slots=1, search_alg=Proposals(["t0"]))
    alone.step()
    (trial,) = alone.trials
    said = [
        alone.result(trial, {"training_iteration": step, "loss": 1.0, SHOULD_CHECKPOINT: True})
        for step in range(1, STEPS + 1)
    ]
    assert said == ["CONTINUE"] * (STEPS - 1) + ["STOP"]


def test_nothing_starts_that_nobody_named() -> None:
    runner = Runner(scheduled("asha"), slots=2, search_alg=Proposals([*LIMITS]))
    runner.step()
    runner.step()
    assert [trial.status for trial in runner.trials] == ["RUNNING", "RUNNING"]
    for uid in ("extra", "more"):  # whoever adds them
        runner.add(uid)
    for _ in range(5):
        assert runner.step() is None
    assert [trial.status for trial in runner.trials] == ["RUNNING", "RUNNING", "PAUSED", "PAUSED"]
    assert "extra has not been begun" in of_run(runner).explain("extra")


def test_the_searcher_is_asked_for_a_trial_when_one_is_wanted() -> None:
    """Not for all of them before the first has reported; a study without a number of trials would never begin."""
    search = Proposals([str(i) for i in range(10_000)])
    runner = Runner(scheduled("asha"), slots=1, search_alg=search)
    for _ in range(20):
        runner.step()
    assert len(runner.trials) == 1


def test_without_checkpoints_nothing_is_paused_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    runner = Runner(scheduled("uniform"), slots=1, search_alg=Proposals([*LIMITS][:3]))
    order = drive(runner, curves(3), checkpoints=False)
    assert order == ["t0"] * STEPS + ["t1"] * STEPS + ["t2"] * STEPS
    told = [record.message for record in caplog.records if "checkpoint" in record.message]
    assert len(told) == 1
    assert "trial t0 is not paused at step 1 and runs on: this report carries no checkpoint" in told[0]


def test_a_trial_that_saves_now_and_then_is_paused_where_it_can_go_on_from() -> None:
    runner = Runner(scheduled(Uniform(quantum=1 / 9)), slots=1, search_alg=Proposals(["t0", "t1"]))
    runner.step()
    trial = runner.trials[0]
    said = [
        runner.result(trial, {"training_iteration": step, "loss": 1.0, SHOULD_CHECKPOINT: step == 4})
        for step in range(1, 5)
    ]
    assert said == ["CONTINUE", "CONTINUE", "CONTINUE", "PAUSE"]


def test_stop_goes_before_pause() -> None:
    """A look that comes to a stop at the step where the turn ends: the trial is stopped, and never paused."""
    of = scheduler(allocator=Uniform(quantum=0.02))
    runner = run_of(of)  # without checkpoints: six complete ones
    runner.slots = 1
    bad = runner.add("bad")
    runner.step()
    assert bad.status == Trial.RUNNING
    said = []
    for step, value in enumerate(decay(5.0), 1):
        said.append(runner.result(bad, {"training_iteration": step, "loss": value, SHOULD_CHECKPOINT: True}))
        if bad.status == Trial.TERMINATED:
            break
        runner.step()
    assert said[-1] == "STOP"
    assert of.reason("bad") is not None


def test_cut_trials_are_told_and_paused_ones_say_what_they_wait_for(tmp_path: Path) -> None:
    of = scheduled("asha", decision_log=tmp_path)
    runner = Runner(of, slots=1, search_alg=Proposals([*LIMITS]))
    for _ in range(8):
        runner.step()
        for trial in runner.trials:
            if trial.status == Trial.RUNNING:
                at = int((trial.last_result or {}).get("training_iteration", 0))
                known = curves()[trial.trial_id][at]
                runner.result(trial, {"training_iteration": at + 1, "loss": known, SHOULD_CHECKPOINT: True})
    paused = next(uid for uid, (status, _) in ends(runner).items() if status == "PAUSED")
    text = of.explain(paused)
    assert f"trial {paused} is paused at step" in text
    assert "waits: rank" in text
    assert "the last slots went to:" in text
    assert " paused" in of.debug_string()
    waits = "few run to their end: 0 of the 1000 that n_startup_trials waits for are complete, and before that"
    assert of.why_not().startswith(f"an allocator pauses trials here, so that {waits}")
    drive(runner, curves())
    cut = next(uid for uid in of.stopped())
    assert of.reason(cut) == "its rung is closed"
    assert of.explain(cut).startswith(f"trial {cut} was cut at step ")
    assert ", where it was paused: its rung is closed" in of.explain(cut)
    report, n = of.report(), len(of.stopped())
    assert (report.cut, report.stopped_elsewhere) == (n, 0)
    assert report.saved == sum(STEPS - last for status, last in ends(runner).values() if status == "STOPPED")
    assert str(report).splitlines()[0].endswith(f" complete, {n} stopped ({n} of them ended while paused)")
    assert f"{n} stopped ({n} of them ended while paused), " in of.debug_string()
    assert of.debug_string().endswith(f"; {n} trials that ended while paused are not in it: no risk is known for them")
    assert all(receipt.allocator == "asha" for receipt in read_allocations(tmp_path))
    assert sum(1 for _ in read_allocations(tmp_path)) > 5


def test_max_paused_bounds_the_paused_set_and_min_slice_a_turn() -> None:
    most = 0

    class Counting(Runner):
        def result(self, trial: Trial, result: Mapping[str, Any]) -> str:
            nonlocal most
            said = super().result(trial, result)
            entries = book_of(of_run(self)).entries.values()
            most = max(most, sum(entry.status is Status.PAUSED for entry in entries))
            return said

    runner = Counting(scheduled("uniform", max_paused=2), slots=1, search_alg=Proposals([*LIMITS]))
    drive(runner, curves())
    assert most == 2
    of = of_run(runner)
    assert "3 trials would wait, 2 may (max_paused), and its rank is the lowest" in "".join(of.stopped().values())
    assert sum(status == "COMPLETE" for status, _ in ends(runner).values()) == 3

    whole = run_with(Uniform(quantum=1 / 9), n=2, min_slice=4)
    assert whole.order == ["t0"] * 4 + ["t1"] * 4 + ["t0"] * 4 + ["t1"] * 4 + ["t0", "t1"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["asha", "uniform", "hyperband", "halving"])
def test_every_receipt_can_be_made_again(name: str, tmp_path: Path) -> None:
    runner = run_with(name, slots=2, max_paused=3, min_slice=2, max_slice=2, decision_log=tmp_path)
    study = of_run(runner).snapshot()
    trials = {trial.uid: trial for trial in (*study.bank, *study.live)}
    receipts = list(read_allocations(tmp_path))
    assert len(receipts) > 5
    for receipt in receipts:
        made = judge(receipt.asked(allocator(receipt.allocator, **receipt.knobs), study.goal, trials), {})
        assert (made.moves, made.stops) == (receipt.moves, receipt.stops)
    cut = {uid for receipt in receipts for uid, _ in receipt.stops if trials[uid].curve.n_reports}
    assert {uid for uid, trial in trials.items() if ALLOCATED in trial.stop_records} == cut


@pytest.mark.parametrize(
    ("what", "fault"),
    [
        (lambda snapshot, slots: 1 / 0, "allocator 'told'"),
        (lambda snapshot, slots: Allocation(None, (Move("nobody", 3.0),)), "allocator 'told'"),
    ],
)
@pytest.mark.parametrize("slots", [1, 3])
def test_a_failing_allocator_falls_back_on_run_to_end(what: Any, fault: str, slots: int) -> None:
    runner = run_with(Does(what), n=4, slots=slots)
    assert ends(runner) == dict.fromkeys([*LIMITS][:4], ("COMPLETE", STEPS))
    assert fault in dict(of_run(runner).session.tally()[1])


def test_questions_that_fail_fall_back_on_run_to_end() -> None:
    class Asks(Does):
        def questions(self, state: Any, snapshot: Snapshot, slots: Slots) -> tuple[Query, ...]:
            raise RuntimeError("no question")

    runner = run_with(Asks(lambda snapshot, slots: Allocation(None, ())), n=3, slots=2)
    assert ends(runner) == dict.fromkeys([*LIMITS][:3], ("COMPLETE", STEPS))
    assert "allocator 'told'" in dict(of_run(runner).session.tally()[1])


def test_a_searcher_that_counts_paused_trials_is_told(caplog: pytest.LogCaptureFixture) -> None:
    run_with("asha", limit=2)
    (said,) = (record.message for record in caplog.records if "max_concurrent_trials" in record.message)
    assert "the searcher gives no new trial beside 2, and those that are paused count" in said


def test_an_allocator_that_names_nobody_does_not_hang_the_run() -> None:
    """It begins trials and never goes on with one: with nothing running, somebody does, and it is counted."""

    def begins(snapshot: Snapshot, slots: Slots) -> Allocation:
        return Allocation(None, (Move(None, 2.0),) * min(slots.free, slots.n_new_allowed))

    runner = run_with(Does(begins), n=3)
    assert ends(runner) == dict.fromkeys([*LIMITS][:3], ("COMPLETE", STEPS))
    assert dict(of_run(runner).session.tally()[1]) == {"allocator 'told'": 3}


def test_trials_that_the_allocator_never_begins_end_the_run() -> None:
    runner = run_with(Uniform(n_arms=2))
    found = ends(runner)
    assert {uid: end for uid, end in found.items() if end[1] > 0} == {"t0": ("COMPLETE", 9), "t1": ("COMPLETE", 9)}
    assert runner.search_alg is not None
    assert runner.search_alg.is_finished()


def test_what_was_never_begun_is_neither_cut_nor_saved_by_it() -> None:
    runner = run_with(Uniform(n_arms=2))
    n, report = sum(last < 0 for _, last in ends(runner).values()), of_run(runner).report()
    assert n
    assert (report.complete, report.cut, report.never_begun, report.saved) == (2, 0, n, 0)
    assert str(report).splitlines()[0] == f"trials: 2 complete, 0 stopped, {n} never begun"
    assert of_run(runner).debug_string().startswith("Using CurveScheduler: 0 stopped, 2 complete, ")


def test_a_failed_trial_leaves_its_slot_and_a_retried_one_keeps_its_turn() -> None:
    runner = Runner(scheduled(Uniform(quantum=1 / 3)), slots=1, search_alg=Proposals(["t0", "t1", "t2"]))
    runner.step()
    runner.fail(runner.trials[0], retry=True)
    trial = next(one for one in runner.trials if one.trial_id == "t0")
    assert trial.status == Trial.PENDING
    trial.status = Trial.RUNNING  # Tune starts it by itself
    for _ in range(3):
        assert runner.step() is None
    runner.fail(trial)
    runner.step()
    assert [one.trial_id for one in runner.trials if one.status == Trial.RUNNING] == ["t1"]


def test_all_bad_trials_end() -> None:
    of = scheduler(allocator="asha", max_t=50)
    runner = run_of(of)
    runner.slots = 2
    uids = [f"bad{i}" for i in range(6)]
    runner.search_alg = Proposals(uids)
    known = {uid: decay(5.0 + i) for i, uid in enumerate(uids)}
    drive(runner, known)
    assert {ends(runner)[uid][0] for uid in uids} == {"STOPPED"}


@pytest.mark.parametrize("name", ["asha", "uniform", "going-rate"])
def test_a_restored_run_makes_the_moves_it_would_have_made(name: str) -> None:
    prices: dict[str, Any] = {"checkpoint_cost": 0.5, "resume_cost": 1.0}
    whole = Recorded(allocator(name))
    run_with(whole, **prices)
    for n in (3, 7, 12):
        first = Recorded(allocator(name))
        runner = Runner(scheduled(first, **prices), slots=1, search_alg=Proposals([*LIMITS]))
        for _ in range(n):
            runner.step()
            for trial in runner.trials:
                if trial.status == Trial.RUNNING:
                    at = int((trial.last_result or {}).get("training_iteration", 0))
                    told = {"training_iteration": at + 1, "loss": curves()[trial.trial_id][at]}
                    runner.result(trial, {**told, SHOULD_CHECKPOINT: True})
        second = Recorded(allocator(name))
        before = {trial.trial_id: trial.status for trial in runner.trials}
        of = scheduled(second, **prices)
        StateCallback(of).set_state(copy_of(StateCallback(of_run(runner)).get_state()))
        twin = runner.fork(of)
        twin.search_alg = Proposals([*LIMITS][len(runner.trials) :])
        twin.search_alg.total_samples = len(LIMITS)
        for trial in twin.trials:
            trial.status = Trial.PENDING if trial.status in (Trial.RUNNING, Trial.PAUSED) else trial.status
            of.on_trial_add(twin, trial)  # type: ignore[arg-type]
            if before[trial.trial_id] == Trial.PAUSED:  # unless it was about to go on
                assert trial.status == Trial.PAUSED or book_of(of).entries[trial.trial_id].status is Status.RUNNING
            trial.status = Trial.RUNNING if trial.status == Trial.PENDING else trial.status
        drive(twin, curves())
        assert first.said + second.said == whole.said, n


def test_a_state_without_allocations_and_one_of_another_allocator_are_taken() -> None:
    runner = run_of()
    of, twin = restored(runner, StateCallback(of_run(runner)).get_state(), allocator="asha")
    assert of.snapshot().bank.n_complete == 6
    other = run_with("uniform", n=3)
    taken = scheduled("asha")
    StateCallback(taken).set_state(StateCallback(of_run(other)).get_state())
    assert taken.snapshot().bank.n_complete == 3
    assert twin.step() is None


def test_a_scheduler_may_serve_another_run() -> None:
    """One after another, each with its own trials: nothing of the first is left, not even the allocator's state."""
    by = Recorded(allocator("uniform"))
    runner = run_with(by, n=3)
    first, of = list(by.said), of_run(runner)
    by.said.clear()
    assert of.set_search_properties(None, None)
    again = Runner(of, slots=1, search_alg=Proposals(["u0", "u1", "u2"]))
    drive(again, {f"u{i}": decay(LIMITS[f"t{i}"], STEPS) for i in range(3)})
    assert set(ends(again)) == {"u0", "u1", "u2"}
    then, now = ([(slots._replace(here=None), key) for slots, key, *_ in said] for said in (first, by.said))
    assert now == then


def test_arguments_are_checked() -> None:
    alone: list[dict[str, Any]] = [
        {"allocator": "best"},
        {"allocator": 3},
        {"max_paused": 2},
        {"min_slice": 2},
        {"max_slice": 2},
    ]
    beside: list[dict[str, Any]] = [{"max_paused": 0}, {"min_slice": -1}, {"min_slice": float("nan")}, {"max_slice": 0}]
    for fields in (*alone, *({"allocator": "asha", **more} for more in beside)):
        with pytest.raises(InvalidValue):
            scheduler(**fields)
    for fields, text in (
        ({"checkpoint_cost": 1}, "expected an allocator beside them, got "),
        ({"resume_cost": -1}, r"CurveScheduler\(resume_cost=\): expected a number of steps >= 0, got -1."),
        (
            {"checkpoint_cost": float("nan")},
            r"CurveScheduler\(checkpoint_cost=\): expected a number of steps >= 0, got ",
        ),
    ):
        with pytest.raises(InvalidValue, match=text):
            scheduler(**fields)
