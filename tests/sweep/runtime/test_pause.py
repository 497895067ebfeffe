"""Sweeps with `pause: true`: trials wait as checkpoints, the allocator says who goes on, and nothing is lost."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from kit.allocators import Never, Recorded
from optuna.trial import TrialState
from sweep.kit import TRAIN, Remembering, write_toy

from lcsearch.allocation.named import allocator
from lcsearch.checkpoint import load as load_checkpoint
from lcsearch.curves import Curve
from lcsearch.data.task import Run, Task
from lcsearch.goal import Goal
from lcsearch.replay.simulator import World, simulate
from lcsearch.schedulers.optuna import adopt, is_paused
from lcsearch.session.decision_log import read_allocations
from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor.open_run import read_state
from lcsearch.sweep.monitor.outcome import Outcome
from lcsearch.sweep.objective.context import Context
from lcsearch.sweep.report import write as report
from lcsearch.sweep.runtime.trial import run_trial
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.store import attributes, ownership
from lcsearch.sweep.store.budget import TOOK, seconds_of
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.heartbeat import here
from lcsearch.sweep.store.pace import Pacer
from lcsearch.sweep.store.studies import create_study
from lcsearch.sweep.store.turns import Turns
from lcsearch.sweep.views.explain import explain
from lcsearch.sweep.views.notices import notices
from lcsearch.sweep.views.summary import summarize, unfinished
from lcsearch.sweep.views.verify import verified

SAVING = """\
import json, os

def train(ctx):
    kept = ctx.load()
    with (ctx.checkpoint_dir / "lives.jsonl").open("a") as lives:
        lives.write(json.dumps([os.getpid(), 0 if kept is None else kept.step]) + "\\n")
    for epoch in range(1 if kept is None else kept.step + 1, ctx.max_steps + 1):
        ctx.report(ctx.params["a"] + 1 / epoch, epoch)
        if ctx.checkpoint_due:
            ctx.save({"epoch": epoch}, epoch)
"""
RUNGS = (1, 3, 9)  # of 25 epochs with first: 0.04 and eta: 3


def pausing_toy(folder: Path, objective: str = SAVING, *, more: str = "", kind: str = "asha", **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    known = {"trials": 12, "max_steps": 25, **settings}
    path = write_toy(folder, objective, **known)
    path.write_text(f"{path.read_text()}pause: true\nallocator: {{kind: {kind}, first: 0.04}}\n{more}")
    return path


def swept(path: Path, **options: Any) -> Outcome:
    return launcher.run(path, folder=path.parent / "run", view=Remembering(), **options)


def moves(run: Path) -> list[tuple[str | None, float]]:
    found = sorted(read_allocations(run / "decisions"), key=lambda one: one.number)
    return [(move.uid, move.pause_at) for one in found for move in one.moves]


def test_trials_are_paused_promoted_and_cut(tmp_path: Path) -> None:
    outcome = swept(pausing_toy(tmp_path))
    assert outcome.code == 0
    rows = outcome.progress.rows
    assert [row.state for row in rows].count("complete") >= 1
    assert {row.state for row in rows} == {"complete", "stopped"}
    assert {row.spent for row in rows if row.state == "stopped"} <= set(RUNGS)
    best = min(rows, key=lambda row: row.params["a"])  # type: ignore[arg-type,return-value]  # a number
    assert best.state == "complete"
    assert best.values == pytest.approx({e: best.params["a"] + 1 / e for e in range(1, 26)})  # type: ignore[operator]
    lives = (outcome.folder / f"checkpoints/trial-{best.number:05d}/lives.jsonl").read_text().splitlines()
    starts = [json.loads(line)[1] for line in lives]
    assert starts[0] == 0
    assert starts[1:] == sorted(set(starts[1:]))  # each turn from the checkpoint of the one before
    assert set(starts[1:]) <= set(RUNGS)
    assert all(row.note == "cut: its rung is closed" for row in rows if row.state == "stopped")


def test_once_more_would_gain_too_little_the_leader_ends_and_the_others_are_cut(tmp_path: Path) -> None:
    path = pausing_toy(tmp_path / "toy", SAVING.replace('ctx.params["a"] + ', ""))
    outcome = swept(path, overrides=["budget.stop_when={gain: 0.5, trials: 2}"])
    states = [row.state for row in outcome.progress.rows]
    assert 4 <= len(states) < 12
    assert sorted(set(states)) == ["complete", "stopped"]


@pytest.mark.parametrize(
    ("kind", "knobs"),
    [
        ("asha", {"first": 0.04}),
        ("hyperband", {"first": 0.04}),
        ("halving", {"first": 0.04}),
        ("uniform", {"quantum": 0.2}),
    ],
)
def test_one_worker_makes_the_moves_of_the_simulator(tmp_path: Path, kind: str, knobs: dict[str, Any]) -> None:
    path = pausing_toy(tmp_path / "toy")
    said = ", ".join([kind, *(f"{name}: {value}" for name, value in knobs.items())])
    path.write_text(path.read_text().replace("{kind: asha, first: 0.04}", f"{{kind: {said}}}"))
    outcome = swept(path)
    rows, steps = outcome.progress.rows, np.arange(1.0, 26.0)
    runs = [Run(str(row.number), Curve.of(steps, row.params["a"] + 1 / steps), steps) for row in rows]  # type: ignore[operator]
    recorded, task = (
        Recorded(allocator(kind, **dict[str, Any](knobs))),
        Task("toy", Goal("loss", "minimize", 25), tuple(runs)),
    )
    lives = sorted(simulate(task, range(12), Never(), World(), recorded).lives, key=lambda life: int(life.uid))
    assert moves(path.parent / "run") == recorded.moves
    assert [(row.spent, row.state.upper()) for row in rows] == [(life.shown, life.status.name) for life in lives]
    assert all(list(row.values) == list(range(1, row.spent + 1)) for row in rows), "every epoch once, in its order"


@pytest.mark.parametrize("kind", ["asha", "hyperband", "halving"])
def test_prices_are_paid_out_of_the_budget_as_in_the_simulator(tmp_path: Path, kind: str) -> None:
    """The same moves, and before each of them the same account."""
    prices = "checkpoints: {save_cost: 0.5, resume_cost: 3}\n"
    path = pausing_toy(tmp_path / "toy", kind=kind, more=prices)
    path.write_text(path.read_text().replace("{trials: 12}", "{trials: 12, steps: 80}"))
    outcome = swept(path)
    assert outcome.code == 0
    rows, steps = outcome.progress.rows, np.arange(1.0, 26.0)
    rate = [float(row.params["a"]) for row in rows] + [9.0] * (12 - len(rows))  # type: ignore[arg-type]  # a number
    runs = [Run(str(i), Curve.of(steps, a + 1 / steps), steps) for i, a in enumerate(rate)]
    recorded, task = Recorded(allocator(kind, first=0.04)), Task("toy", Goal("loss", "minimize", 25), tuple(runs))
    simulate(task, range(12), Never(), World(budget=80.0, checkpoint=0.5, resume=3.0), recorded)
    made = sorted(read_allocations(path.parent / "run" / "decisions"), key=lambda one: one.number)
    assert [(one.slots.account, one.slots.here, one.moves, one.stops) for one in made] == [
        (slots.account, slots.here, moves, stops) for slots, _, moves, stops in recorded.said if moves or stops
    ]
    assert made[-1].slots.account.paid > 3.0
    assert sum(row.spent for row in rows) + made[-1].slots.account.paid <= 80


@pytest.mark.parametrize("steps", [24, 40])
def test_whoever_looks_is_told_that_prices_have_used_up_the_steps(tmp_path: Path, steps: int) -> None:
    path = pausing_toy(tmp_path / "toy", more="checkpoints: {save_cost: 1.5, resume_cost: 2}\n")
    path.write_text(path.read_text().replace("{trials: 12}", f"{{trials: 12, steps: {steps}}}"))
    outcome = swept(path)
    folder, progress = RunFolder(outcome.folder), outcome.progress
    assert progress.counted < 12
    n = sum(row.pauses for row in progress.rows)
    paid = 1.5 * n + 2 * sum(row.pauses - (row.cut != "") for row in progress.rows)
    _, state = read_state(folder)
    assert progress.paid == state.progress.paid == paid > 0
    left = steps - progress.spent - paid
    assert 0 <= left < 1 + 1.5, "no trial can be begun"
    said = summarize(state).splitlines()
    assert f"  pauses and resumes took {paid:g} more out of the budget, as the file prices them" in said
    assert (
        f"ended by budget.steps: {progress.spent} of {steps} epochs were spent and {paid:g} paid for pauses and "
        f"resumes after {progress.counted} of 12 trials had begun"
        f"{', and what is left pays for no other turn' if left else ''}"
    ) in said
    assert not unfinished(progress, folder), "so that nobody is sent to --resume for ever"
    page = report.write(folder).read_text()
    assert "Ended by budget.steps: " in page
    assert "Not finished" not in page


def test_trials_that_were_left_paused_ended_by_the_steps_though_all_had_begun(tmp_path: Path) -> None:
    path = pausing_toy(tmp_path / "toy", kind="uniform, quantum: 0.2")
    path.write_text(path.read_text().replace(", first: 0.04", "").replace("{trials: 12}", "{trials: 4, steps: 42}"))
    outcome = swept(path)
    assert sorted(row.cut for row in outcome.progress.rows) == ["", *["left"] * 3]  # the leader went to its end
    _, state = read_state(RunFolder(outcome.folder))
    assert outcome.progress.spent == 40
    said = (
        "ended by budget.steps: 40 of 42 epochs were spent after 4 of 4 trials had begun, and what is left pays for no "
    )
    assert f"{said}other turn" in summarize(state).splitlines()


def test_the_same_seed_gives_the_same_moves_on_one_worker(tmp_path: Path) -> None:
    first, again = (swept(pausing_toy(tmp_path / name)) for name in "ab")
    assert moves(first.folder) == moves(again.folder)
    assert [move for move in moves(first.folder) if move[0] is not None]


@pytest.mark.parametrize("kind", ["hyperband", "halving"])
def test_other_allocators(tmp_path: Path, kind: str) -> None:
    outcome = swept(pausing_toy(tmp_path, kind=kind, workers=2))
    assert outcome.code == 0
    assert outcome.progress.of("complete")
    assert not outcome.progress.of("running", "waiting", "paused")


def test_the_default_allocator_beside_the_curve_pruner(tmp_path: Path) -> None:
    path = pausing_toy(tmp_path, pruner="curve, forecasters: [parametric], n_startup_trials: 5")
    path.write_text(path.read_text().replace("allocator: {kind: asha, first: 0.04}\n", ""))
    outcome = swept(path)
    assert outcome.code == 0
    assert {one.allocator for one in read_allocations(outcome.folder / "decisions")} == {"asha"}
    assert outcome.progress.of("complete")
    assert not outcome.progress.of("running", "waiting", "paused")
    study, state = read_state(RunFolder(outcome.folder))
    assert state.ledger is not None
    n = len(outcome.progress.of("complete"))
    assert n < 5, "the pruner never begins to stop"
    said = (
        f"an allocator pauses trials here, so that few run to their end: {n} of the 5 that n_startup_trials waits for "
        f"{'is' if n == 1 else 'are'} complete, and before that the pruner stops only what diverges. Leave it to the "
        "allocator, or lower n_startup_trials"
    )
    assert study.pruner.why_not(study).splitlines()[0] == said  # type: ignore[attr-defined]  # it is a CurvePruner
    assert notices(state.progress, state.sweep) == [said]
    assert state.ledger.cut == state.progress.cut > 0
    assert state.ledger.saved == state.progress.saved > 0  # one count, whoever shows it


def test_the_larger_of_what_the_first_stop_waits_for_is_named(tmp_path: Path) -> None:
    path = pausing_toy(tmp_path, pruner="curve, forecasters: [parametric], n_startup_trials: 1, n_min_trials: 7")
    outcome = swept(path)
    study, state = read_state(RunFolder(outcome.folder))
    n = len(outcome.progress.of("complete"))
    (said,) = notices(state.progress, state.sweep)
    assert f": {n} of the 7 that n_min_trials waits for " in said
    assert said.endswith("or lower n_min_trials")
    assert study.pruner.why_not(study).splitlines()[0] == said  # type: ignore[attr-defined]  # it is a CurvePruner


def test_trials_that_never_save_run_to_their_end(tmp_path: Path) -> None:
    outcome = swept(pausing_toy(tmp_path, TRAIN, trials=3))
    assert [row.state for row in outcome.progress.rows] == ["complete"] * 3
    assert [row.noted for row in outcome.progress.rows] == [{"unsaved": (1.0,)}] * 3
    assert moves(outcome.folder) == [(None, 1.0)] * 3


def test_paused_trials_are_ended_in_words_when_the_budget_is_used_up(tmp_path: Path) -> None:
    path = pausing_toy(tmp_path)
    path.write_text(path.read_text().replace("{trials: 12}", "{trials: 12, steps: 40}"))
    outcome = swept(path)
    assert outcome.code == 0
    notes = [row.note for row in outcome.progress.of("stopped")]
    assert "left paused: the budget was used up" in notes
    study, state = read_state(RunFolder(outcome.folder))
    left = outcome.progress.of("stopped")[notes.index("left paused: the budget was used up")]
    rank = rf"the budget was used up\nrank \d+ of \d+ by value at epoch {left.spent}, as things stand now\n"
    assert re.search(rank, explain(left.number, state, study))
    assert not outcome.progress.of("running", "waiting", "paused")
    assert outcome.progress.spent <= 40


def test_a_bounded_store_stops_what_is_furthest_from_a_turn(tmp_path: Path) -> None:
    outcome = swept(pausing_toy(tmp_path, more="checkpoints: {keep: 2}\n"))
    rows = outcome.progress.of("stopped")
    evicted = [row for row in rows if row.note.startswith("its checkpoint was evicted")]
    assert evicted
    assert evicted[0].note.startswith("its checkpoint was evicted, for 2 are kept (checkpoints.keep): rank ")
    for row in evicted:
        assert load_checkpoint(outcome.folder / f"checkpoints/trial-{row.number:05d}") is None
    assert outcome.progress.of("complete")
    assert not outcome.progress.of("running", "waiting", "paused")


# One worker's hand, step by step.


@pytest.fixture
def hand(tmp_path: Path) -> Hand:
    return Hand(pausing_toy(tmp_path / "ann"), tmp_path / "ann/run")


class Hand:
    """A worker that does one thing at a time."""

    def __init__(self, path: Path, root: Path, study: optuna.Study | None = None) -> None:
        self.folder = RunFolder(root)
        for place in (self.folder.decisions, self.folder.root / "checkpoints"):
            place.mkdir(parents=True, exist_ok=True)
        if not self.folder.record.exists():
            self.folder.write(load(path))
        self.sweep = self.folder.read()
        self.study = study or create_study(self.sweep.file, self.folder, resume=True)
        self.turns = Turns(self.study, self.folder, 0, self.sweep.file)

    def train(
        self, objective: Callable[[Context], object] | None = None, interrupted: Callable[[], bool] = lambda: False
    ) -> tuple[int, str] | None:
        """Take a trial and train its turn; (its number, the state it was left in)."""
        taken = self.turns.take()
        if taken is None:
            return None
        found = run_trial(
            taken, self.sweep, self.folder, objective or saving, "cpu", interrupted, lambda: None, self.turns
        )
        return taken.trial.number, found.name

    def trial(self, number: int) -> optuna.trial.FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]


def saving(ctx: Context) -> None:
    kept = ctx.load()
    for epoch in range(1 if kept is None else kept.step + 1, ctx.max_steps + 1):
        ctx.report(ctx.params["a"] + 1 / epoch, epoch)
        if ctx.checkpoint_due:
            ctx.save({"epoch": epoch}, epoch)


def test_a_paused_trial_is_waiting_and_counts_as_begun(hand: Hand) -> None:
    assert hand.train() == (0, "WAITING")
    assert is_paused(hand.trial(0))
    assert hand.train() == (1, "WAITING")  # the next one was given on the way
    trials = hand.study.get_trials(deepcopy=False)
    assert ownership.work_left(trials, hand.folder, hand.sweep.file) == 12 - len(trials) + 2


def test_seconds_and_steps_are_counted_once_over_all_turns(hand: Hand) -> None:
    for _ in range(60):
        if hand.train() is None:
            break
    resumed = [n for n in range(12) if "lcsearch:seconds" in hand.trial(n).user_attrs]
    assert resumed
    for number in resumed:
        attrs = hand.trial(number).user_attrs
        now = datetime.now(UTC)
        total = attrs["lcsearch:seconds"] + attrs["lcsearch:took"]["seconds"]
        assert seconds_of(hand.trial(number), now) == pytest.approx(total)
    assert hand.turns.over


@pytest.fixture
def timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hand:
    """100 seconds are left, and the clock stands still; two trials are paused at epoch 1, the better one is slow."""
    monkeypatch.setattr(Pacer, "told", lambda self: {})  # what this machine takes is nobody's pace
    path = pausing_toy(tmp_path / "ann")
    path.write_text(path.read_text().replace("{trials: 12}", "{trials: 12, seconds: 1000}"))
    hand = Hand(path, tmp_path / "ann/run")
    clock = {"seconds": 900.0, "until": "2024-01-01T00:00:00", "monotonic": time.monotonic() + 1e6}
    hand.folder.clock.write_text(json.dumps(clock))
    assert [hand.train(in_order) for _ in range(2)] == [(0, "WAITING"), (1, "WAITING")]
    for number, pace in enumerate((8.0, 2.0)):
        took = {"since": None, "seconds": 9.0, "pace": pace, "gaps": 3}
        adopt(hand.study, number).set_user_attr(TOOK, took)
    return hand


def in_order(ctx: Context) -> None:
    """The earlier a trial was begun the better it is."""
    kept = ctx.load()
    for epoch in range(1 if kept is None else kept.step + 1, ctx.max_steps + 1):
        ctx.report(ctx.number + 1 / epoch, epoch)
        if ctx.checkpoint_due:
            ctx.save({"epoch": epoch}, epoch)


def test_with_a_deadline_only_what_can_end_before_it_gets_a_turn(timed: Hand) -> None:
    assert timed.train(in_order) == (2, "WAITING"), "it was begun before a pace was known"
    assert timed.train(in_order) == (1, "COMPLETE"), "nothing new is begun at 5 s an epoch, and the best one is slow"
    assert timed.train(in_order) == (2, "COMPLETE"), "what is left goes to whoever can use it"
    assert timed.train(in_order) is None
    assert timed.turns.over
    assert len(timed.study.trials) == 3
    told = "waits: rank 1 of 1 by seconds to step 25, needs about 192 s, and 100 s are left"
    assert timed.turns.next_turn(0) == told
    assert timed.turns.finish() == [0]
    note = read_state(timed.folder)[1].progress.numbered[0].note
    assert note == "left paused: to its end it needs about 192 s, and 100 s are left"
    first = next(one for one in read_allocations(timed.folder.decisions) if one.slots.account.time is not None)
    assert first.lines == ["trial 1 until step 25: the last 100 s of the budget finish the leader; about 48 s"]
    assert first.story("0") == f"allocation {first.number} (asha): {told}"


def test_an_allocation_is_made_again_with_the_paces_that_it_was_made_with(timed: Hand) -> None:
    while timed.train(in_order) is not None:
        pass
    adopt(timed.study, 0).set_user_attr(TOOK, {"since": None, "seconds": 1.0, "pace": 0.01, "gaps": 9})
    again, receipts = verified(timed.folder.root), list(read_allocations(timed.folder.decisions))
    assert any(one.slots.account.time is not None for one in receipts)
    assert (again.allocations, again.mismatch) == (len(receipts), None)


def test_a_worker_that_is_killed_leaves_its_turn_to_another(hand: Hand) -> None:
    assert hand.train() == (0, "WAITING")

    def killed(ctx: Context) -> None:
        ctx.report(1.0, 1)
        raise KeyboardInterrupt  # nothing of ours hears of it

    with pytest.raises(KeyboardInterrupt):
        hand.train(killed)
    other = Hand(hand.sweep.path, hand.folder.root, hand.study)
    (given,) = ownership.release(hand.study, hand.folder, (), 2)
    assert given.number == 1
    assert other.train() == (1, "WAITING")
    assert is_paused(hand.trial(1))
    assert list(hand.trial(1).intermediate_values) == [1]


def test_a_worker_that_is_killed_between_claim_and_signature_leaves_an_abandoned_trial(hand: Hand) -> None:
    assert hand.train() == (0, "WAITING")
    from lcsearch.schedulers.optuna._storage import claim

    assert claim(hand.study, 0) is not None
    assert ownership.abandoned(hand.trial(0), hand.folder.identity())
    before = seconds_of(hand.trial(0), None)
    other = Hand(hand.sweep.path, hand.folder.root, hand.study)
    assert other.turns.take() is not None
    assert hand.trial(0).user_attrs["lcsearch:seconds"] == pytest.approx(before)


def test_a_trial_that_was_cut_when_its_turn_was_over_ends_even_if_its_worker_is_killed_before(hand: Hand) -> None:
    from lcsearch.schedulers.optuna._record import CUT
    from lcsearch.schedulers.optuna._storage import store_with

    taken = hand.turns.take()
    assert taken is not None
    store_with(hand.study, taken.trial, CUT, {"why": "it does not pay", "of": 0})
    ownership.release(hand.study, hand.folder, (), 2, blame=False)
    other = Hand(hand.sweep.path, hand.folder.root, hand.study)
    assert other.train() == (1, "WAITING")
    assert hand.trial(0).state == TrialState.PRUNED
    assert hand.trial(0).user_attrs["lcsearch:reason"] == "cut: it does not pay"


# Two machines, two run folders, one storage.


def test_a_paused_trial_stays_with_the_machine_that_has_its_checkpoint(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/central.sqlite3"
    hands = []
    for name in ("ann", "bob"):
        path = pausing_toy(tmp_path / name)
        path.write_text(path.read_text().replace("backend: {", f"backend: {{storage: '{url}', "))
        hands.append(Hand(path, tmp_path / name / "run"))
    ann, bob = hands
    assert {(fate := ann.train()) and fate[1], (fate := bob.train()) and fate[1]} == {"WAITING"}
    for _ in range(80):
        if ann.train() is None and bob.train() is None and ann.turns.over and bob.turns.over:
            break
    ann.turns.finish()
    bob.turns.finish()
    trials = ann.study.get_trials(deepcopy=False)
    assert all(t.state.is_finished() for t in trials)
    runs = {hand.folder.identity(): hand for hand in hands}
    for trial in trials:
        own = runs[trial.user_attrs[attributes.WORKER]["run"]].folder
        (other,) = (hand.folder for hand in hands if hand.folder != own)
        assert own.checkpoints(trial.number).is_dir()
        assert not other.checkpoints(trial.number).exists()
        last = max(trial.intermediate_values)
        assert list(trial.intermediate_values) == list(range(1, last + 1))
    assert any(t.state == TrialState.COMPLETE for t in trials)
    assert len({t.user_attrs[attributes.WORKER]["run"] for t in trials}) == 2


def test_trials_that_are_paused_on_another_machine_are_left_to_it_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/central.sqlite3"
    paths = [pausing_toy(tmp_path / name, trials=4) for name in ("ann", "bob")]
    for path in paths:
        path.write_text(path.read_text().replace("backend: {", f"backend: {{storage: '{url}', "))
    ann = Hand(paths[0], tmp_path / "ann/run")
    monkeypatch.setattr(ann.turns, "turn_over", lambda claim: None)  # its machine goes down: it takes no other
    assert ann.train() == (0, "WAITING")
    view = Remembering()
    outcome = launcher.run(paths[1], folder=tmp_path / "bob/run", join=True, view=view)
    assert outcome.code == 0
    assert is_paused(ann.trial(0))
    assert [row.state for row in outcome.progress.rows].count("paused") == 1
    text = f"trial 0: paused, with checkpoints on {here()}; a run there goes on with --resume"
    assert view.events == [text]
    assert not (tmp_path / "bob/run/checkpoints/trial-00000").exists()


def test_a_trial_is_read_by_itself_not_with_all_others(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database gives all trials that have not ended anew each time they are asked for, paused ones among them."""
    read = list[int]()
    get_trials = optuna.Study.get_trials

    def counted(study: optuna.Study, *args: Any, **kwargs: Any) -> list[optuna.trial.FrozenTrial]:
        read.append(1)
        return get_trials(study, *args, **kwargs)

    hand.train()
    monkeypatch.setattr(optuna.Study, "get_trials", counted)
    assert hand.train() == (1, "WAITING")
    assert len(read) == 1  # the allocator's, when the turn is over
