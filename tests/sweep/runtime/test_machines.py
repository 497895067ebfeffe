"""Several machines on one study, and what a launcher knows of its workers: heartbeats, claims, stalls, passwords."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from sweep.kit import Remembering, state_of, wait_for, write_toy
from sweep.store.test_budget import file_of

from lcsearch.errors import FileProblem
from lcsearch.secrets_in_urls import holds, mask, mask_of
from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor.progress import Progress
from lcsearch.sweep.objective.context import Context, Interrupted
from lcsearch.sweep.runtime import launch, liveness, trial
from lcsearch.sweep.runtime.liveness import Heartbeat, HeartbeatWriter, patience
from lcsearch.sweep.runtime.peers import Peers
from lcsearch.sweep.runtime.stalls import Stalls
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.spec.space import suggest
from lcsearch.sweep.store import attributes, heartbeat, ownership
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.heartbeat import PeerHeartbeat, PeerMonitor
from lcsearch.sweep.store.ownership import Claim
from lcsearch.sweep.store.studies import SWEEP
from lcsearch.sweep.views import plan
from lcsearch.sweep.views.explain import explain


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(study_name="toy")


def machine(tmp_path: Path, name: str, **settings: Any) -> RunFolder:
    """A run folder as `lcsearch run` leaves it."""
    folder = RunFolder(tmp_path / name)
    folder.root.mkdir()
    (tmp_path / f"of-{name}").mkdir()
    folder.write(load(write_toy(tmp_path / f"of-{name}", **settings)))
    return folder


def shared_toy(folder: Path, *arguments: Any, url: str | None = None, **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = write_toy(folder, *arguments, **settings)
    url = url or f"sqlite:///{folder}/central.sqlite3"
    path.write_text(path.read_text().replace("backend: {", f"backend: {{storage: '{url}', "))
    return path


def test_a_name_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCSEARCH_MACHINE", "ann")
    assert heartbeat.here() == "ann"
    monkeypatch.delenv("LCSEARCH_MACHINE")
    assert heartbeat.here() == os.uname().nodename


def test_a_run_keeps_its_identity(tmp_path: Path) -> None:
    ann, bob = machine(tmp_path, "ann"), machine(tmp_path, "bob")
    before = ann.identity()
    ann.write(ann.read())
    assert ann.identity() == before
    assert "" != before != bob.identity()


def test_an_ear_needs_no_common_clock() -> None:
    clock, ear = Clock(), None
    ear = PeerMonitor(clock)
    ear.listen({"lcsearch:run:ann": {"host": "ann", "beat": 7}, "lcsearch:sweep": {}, "other": 3})
    clock.now += 10
    assert (ear.silence("ann"), ear.lives("ann")) == (10, False)  # it may have died long ago
    ear.listen({"lcsearch:run:ann": {"host": "ann", "beat": 8}})
    assert (ear.silence("ann"), ear.lives("ann")) == (0, True)
    clock.now += 3 * heartbeat.BEAT_S
    ear.listen({"lcsearch:run:ann": {"host": "ann", "beat": 8}})
    assert (ear.silence("ann"), ear.lives("ann")) == (15, False)
    assert ear.silence("never heard") == 0
    clock.now += 5
    assert ear.silence("never heard") == 5


def test_a_heart_beats_until_it_is_stopped(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.01)
    beat = PeerHeartbeat(study, "ann")
    first = study.user_attrs["lcsearch:run:ann"]["beat"]
    wait_for(lambda: study.user_attrs["lcsearch:run:ann"]["beat"] >= first + 3)
    beat.stop()
    last = study.user_attrs["lcsearch:run:ann"]["beat"]
    time.sleep(0.05)
    assert study.user_attrs["lcsearch:run:ann"]["beat"] == last


def test_a_heart_goes_on_over_a_storage_that_hiccups(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.01)
    beat, said = PeerHeartbeat(study, "ann"), []

    def hiccup(key: str, value: Any) -> None:
        said.append(value)
        raise optuna.exceptions.StorageInternalError

    monkeypatch.setattr(study, "set_user_attr", hiccup)
    wait_for(lambda: len(said) >= 2)
    beat.stop()


def test_the_trials_of_a_silent_machine_are_taken_over_by_one(tmp_path: Path, study: optuna.Study) -> None:
    ann, bob, carl = (machine(tmp_path, name) for name in ("ann", "bob", "carl"))
    clock = Clock()
    watches = [Peers(study, folder, 2, clock) for folder in (bob, carl)]

    def mind() -> list[str]:
        return [text for watch in watches for text in watch.reclaim_orphans(study.get_trials(deepcopy=False))]

    taken = ownership.take(study, ann, 0, file_of(trials=5))
    assert taken is not None
    taken.trial.report(1.0, 1)
    study.set_user_attr(f"lcsearch:run:{ann.identity()}", {"host": "ann", "beat": 1})
    assert mind() == []
    assert watches[0].uncertain(study.trials)  # not heard twice yet
    clock.now += 59
    study.set_user_attr(f"lcsearch:run:{ann.identity()}", {"host": "ann", "beat": 2})
    assert mind() == []
    assert not watches[0].uncertain(study.trials)
    clock.now += 59
    assert mind() == []
    assert ownership.release(study, bob, (), 2, shared=True) == []  # a worker's death on bob is not ann's
    clock.now += 1
    assert mind() == []  # both say that they want it: the last one stands
    assert study.trials[0].user_attrs[ownership.CLAIMANT] == bob.identity()
    assert ownership.still_has(study, taken)
    clock.now += 1
    host = taken.owner["host"]
    assert mind() == [
        f"{host} has been silent for 60 s; trial 0 begins anew here: its checkpoints are there (retry 1 of 2)"
    ]
    assert not ownership.still_has(study, taken)
    assert ownership.take(study, carl, 0, file_of(trials=1)) is None  # not carl's
    again = ownership.take(study, bob, 0, file_of(trials=1))
    assert again is not None
    assert (again.trial.number, again.adopted) == (0, True)
    assert study.trials[0].user_attrs[ownership.RETRIES] == 1
    # and bob's heart was not heard by carl: the same again, until the retries are used
    clock.now += 61
    assert mind() == []
    clock.now += 61
    assert [text.partition(";")[2] for text in mind()] == [
        " trial 0 begins anew here: its checkpoints are there (retry 2 of 2)"
    ]


def test_of_two_that_want_a_trial_the_last_to_say_so_gets_it(tmp_path: Path, study: optuna.Study) -> None:
    ann, bob, carl = (machine(tmp_path, name) for name in ("ann", "bob", "carl"))
    assert ownership.take(study, ann, 0, file_of(trials=5)) is not None
    (wanted,) = ownership.foreign(study.trials, bob.identity())
    ownership.request_takeover(study, bob, 0)
    ownership.request_takeover(study, carl, 0)
    assert ownership.take_over(study, bob, wanted, 2) is None
    given = ownership.take_over(study, carl, wanted, 0)
    assert given is not None
    assert given.given_up
    assert study.trials[0].state == optuna.trial.TrialState.FAIL
    assert ownership.take_over(study, carl, wanted, 0) is None


def test_a_trial_nobody_has_signed_is_left_to_its_worker_for_a_while(tmp_path: Path, study: optuna.Study) -> None:
    ann = machine(tmp_path, "ann")
    study.ask()
    assert ownership.release(study, ann, (), 2, shared=True) == []
    clock = Clock()
    watch = Peers(study, ann, 2, clock)
    said = []
    for _ in range(4):
        said += list(watch.reclaim_orphans(study.trials))
        clock.now += 60
    assert [text.partition(" has")[0] for text in said] == ["a machine unknown"]
    assert ownership.take(study, ann, 0, file_of(trials=1)) is not None


def test_a_trial_beyond_the_budget_is_not_counted(tmp_path: Path, study: optuna.Study) -> None:
    ann = machine(tmp_path, "ann")

    study.ask()
    assert ownership.take(late(study), ann, 0, file_of(trials=1)) is None
    assert [t.state.name for t in study.trials] == ["RUNNING", "FAIL"]
    assert len(ownership.counted(study.trials)) == 1
    assert ownership.work_left(study.trials, ann, file_of(trials=1)) == 0
    assert (
        study.trials[1].user_attrs[ownership.ERROR]
        == "not run: another machine was faster to take the last of 1 trials"
    )
    # the budget is raised: launcher and worker count alike, and number 2 is the second
    assert ownership.work_left(study.trials, ann, file_of(trials=2)) == 1
    taken = ownership.take(study, ann, 0, file_of(trials=2))
    assert taken is not None
    assert taken.trial.number == 2
    assert [t.number for t in ownership.counted(study.trials)] == [0, 2]
    assert ownership.work_left(study.trials, ann, file_of(trials=2)) == 0
    assert ownership.take(study, ann, 1, file_of(trials=2)) is None
    assert len(study.trials) == 3


def late(study: optuna.Study) -> optuna.Study:
    """`study` as a worker reads it before another machine takes the last trial, and asks it after that."""
    early: list[Any] = [[]]

    class Late(optuna.Study):
        def __init__(self) -> None: ...
        def get_trials(self, *a: Any, **k: Any) -> Any:
            return early.pop() if early else study.get_trials(*a, **k)

        ask = study.ask
        tell = study.tell

    return Late()


def test_a_budget_is_raised_after_a_surplus_trial(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/central.sqlite3"
    path, run = shared_toy(tmp_path / "a", url=url, trials=2), tmp_path / "run"
    launcher.run(path, folder=run, view=Remembering())
    study = optuna.load_study(study_name="toy", storage=url)
    extra = study.ask()
    extra.set_user_attr(ownership.SURPLUS, 2)
    study.tell(extra, state=optuna.trial.TrialState.FAIL)
    more = launcher.run(path, folder=run, resume=True, trials=3, view=Remembering())
    assert (more.code, more.message) == (0, "")
    assert [(row.number, row.state) for row in more.progress.rows] == [
        (0, "complete"), (1, "complete"), (3, "complete"),
    ]  # fmt: skip
    assert explain(3, state_of(more), more.study).startswith("trial 3: complete, 6 of 6 epochs")


def test_a_trial_beyond_the_budget_is_not_run_after_a_take_over(tmp_path: Path, study: optuna.Study) -> None:
    """Its worker died after it had asked, and before it could mark it."""
    ann, bob = machine(tmp_path, "ann"), machine(tmp_path, "bob")
    study.ask()
    assert ownership.take(study, ann, 0, file_of(trials=9)) is not None
    (_, wanted) = ownership.foreign(study.trials, bob.identity())
    ownership.request_takeover(study, bob, wanted.number)
    assert ownership.take_over(study, bob, wanted, 2) is not None
    assert ownership.take(study, bob, 0, file_of(trials=1)) is None
    assert [t.state.name for t in study.trials] == ["RUNNING", "FAIL"]
    assert ownership.SURPLUS in study.trials[1].user_attrs
    # one that has reported was within a budget that is smaller now
    taken = ownership.take(study, bob, 0, file_of(trials=9))
    assert taken is not None
    taken.trial.report(1.0, 1)
    ownership.release(study, bob, (), 2, shared=True)
    again = ownership.take(study, bob, 0, file_of(trials=1))
    assert again is not None
    assert (again.trial.number, again.adopted) == (2, True)


def test_a_worker_that_was_away_leaves_a_trial_that_is_another_ones(tmp_path: Path) -> None:
    path = shared_toy(tmp_path / "a")
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    folder.write(load(path))
    study = optuna.create_study(study_name="toy", storage=load(path).file.backend.storage)
    taken = ownership.take(study, folder, 0, file_of(trials=3))
    assert taken is not None
    seen = []

    def train(ctx: Context) -> None:
        ctx.report(1.0, 1)
        taken.trial.set_user_attr(attributes.WORKER, {"slot": 0, "pid": 1, "host": "bob", "run": "bob"})
        try:
            ctx.report(2.0, 2)
        except Interrupted as error:
            seen.append(str(error))

    state = trial.run_trial(taken, folder.read(), folder, train, "cpu", lambda: False)
    assert (state.name, seen) == ("RUNNING", ["another machine has taken the trial; left at step 2"])
    assert study.trials[0].intermediate_values == {1: 1.0}
    # nor is its end told
    state = trial.run_trial(taken, folder.read(), folder, lambda ctx: None, "cpu", lambda: False)
    assert (state.name, study.trials[0].state.name) == ("RUNNING", "RUNNING")


def test_joining_must_be_asked_for_and_be_the_same_sweep(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/central.sqlite3"
    path = shared_toy(tmp_path / "a", url=url, pruner="curve")
    first = launcher.run(path, folder=tmp_path / "ann", join=True, view=Remembering())  # nobody there: it makes it
    assert len(first.progress.rows) == 3
    with pytest.raises(FileProblem, match="If another machine runs this very sweep there, work along with it: --join"):
        launcher.run(path, folder=tmp_path / "bob", view=Remembering())
    # workers and trials are a machine's own affair
    signed = dict(first.study.user_attrs[SWEEP])  # as an earlier version signed it
    assert "forecasters" in signed["pruner"]
    signed["pruner"] = {"opinions" if key == "forecasters" else key: v for key, v in signed["pruner"].items()}
    first.study.set_user_attr(SWEEP, signed)
    bob = launcher.run(path, folder=tmp_path / "bob", join=True, trials=4, workers=2, view=Remembering())
    assert [row.state for row in bob.progress.rows] == ["complete"] * 4
    assert bob.study.trials[3].user_attrs["lcsearch:worker"]["run"] == RunFolder(tmp_path / "bob").identity()
    other = shared_toy(tmp_path / "b", url=url, max_steps=7, pruner="curve")
    other.write_text(other.read_text().replace("[0, 1]", "[0, 2]"))
    with pytest.raises(FileProblem) as caught:
        launcher.run(other, folder=tmp_path / "carl", join=True, view=Remembering())
    assert str(caught.value) == (
        f"{url}: expected the study 'toy' to be of this sweep, got one of another:\n"
        "    max_steps: 6 there, 7 here\n"
        "    space: {'a': {'when': None, 'uniform': [0.0, 1.0], 'step': None}, "
        "'lr': {'when': None, 'loguniform': [1e-05, 0.1]}, 'k': 3} there, "
        "{'a': {'when': None, 'uniform': [0.0, 2.0], 'step': None}, "
        "'lr': {'when': None, 'loguniform': [1e-05, 0.1]}, 'k': 3} here\n"
        "Run the same file on every machine, or choose another `name`."
    )
    with pytest.raises(FileProblem, match=r"--join: expected a storage that all machines reach, got none\. Name one"):
        launcher.run(write_toy(tmp_path), folder=tmp_path / "dora", join=True)
    with pytest.raises(FileProblem, match="expected --resume or --join, got both"):
        launcher.run(path, folder=tmp_path / "bob", join=True, resume=True)
    mine = f"sqlite:///{tmp_path}/mine.sqlite3"
    optuna.create_study(storage=mine, study_name="toy")
    with pytest.raises(FileProblem, match="got one that lcsearch has not made"):
        launcher.run(shared_toy(tmp_path / "c", url=mine), folder=tmp_path / "emil", join=True)


# Stalls.


def vital(**changes: Any) -> Heartbeat:
    return Heartbeat(**{"pid": 7, "trial": 3, "at": 0.0, "since": 0.0, "reports": 9, "gap": 2.0, **changes})


@pytest.mark.parametrize(
    ("changes", "others", "limit"),
    [
        ({}, [], 60.0),
        ({"gap": 5.0}, [1.0], 100.0),
        ({"gap": None}, [1.0, 30.0, 7.0], 140.0),
        ({"gap": None}, [], 600.0),
        ({"gap": None, "reports": 0}, [7.0], 600.0),
        ({"gap": None, "reports": 0}, [60.0], 1200.0),
    ],
)
def test_patience(changes: dict[str, Any], others: list[float], limit: float) -> None:
    assert patience(vital(**changes), others) == limit


def test_a_stall_is_told_once_and_killed_if_the_file_says_so(tmp_path: Path) -> None:
    folder, clock = RunFolder(tmp_path), Clock()
    (tmp_path / "pulses").mkdir()

    def write(**changes: Any) -> None:
        folder.pulse(0).write_text(json.dumps(vital(**changes).__dict__))

    told, killing = Stalls(folder, None, clock), Stalls(folder, 30.0, clock)
    assert told.look({0: 7}) == []
    write(since=100.0, at=100.0)
    clock.now = 131.0
    assert told.look({0: 7}) == []
    assert killing.look({0: 7}) == []  # it may have reported after it wrote this
    clock.now = 133.0
    (stall,) = killing.look({0: 7})
    head = "trial 3 in worker 0 has not reported for 31 s, it used to every 2 s; its process has not answered for 33 s"
    assert (stall.kill, stall.text) == (True, f"{head} (see {tmp_path}/logs/worker-0.log); killed after 30 s")
    assert killing.look({0: 8}) == []  # its successor has not written yet
    write(since=100.0, at=161.0)
    clock.now = 161.0
    (stall,) = told.look({0: 7})
    text = f"trial 3 in worker 0 has not reported for 61 s, it used to every 2 s (see {tmp_path}/logs/worker-0.log)"
    assert (stall.trial, stall.seconds, stall.kill, stall.text) == (3, 61.0, False, text)
    (stall,) = told.look({0: 7})
    assert stall.text == ""
    write(since=162.0, at=162.0)
    assert told.look({0: 7}) == []
    write(since=162.0, at=162.0, trial=None)
    clock.now = 1e6
    assert told.look({0: 7}) == []  # between trials
    write(since=1e6, at=1e6, trial=4, gap=None)
    clock.now = 1e6 + 63
    (stall,) = told.look({0: 7})  # by the pace of trial 3
    assert stall.trial == 4


def test_a_pulse_counts_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    monkeypatch.setattr(HeartbeatWriter, "_go_on", lambda self: None)
    beat = HeartbeatWriter(tmp_path / "pulse.json")
    assert beat.heartbeat() == Heartbeat(os.getpid(), None, 100.0, 100.0, 0, None)
    clock.now = 110.0
    beat.begin(5)
    for gap in (30.0, 1.0, 2.0, 3.0):  # the first is no gap between reports
        assert beat.heartbeat().gap is None
        clock.now += gap
        beat.reported()
    assert beat.heartbeat() == Heartbeat(os.getpid(), 5, 146.0, 146.0, 4, 2.0)
    beat.begin(6)
    assert beat.heartbeat() == Heartbeat(os.getpid(), 6, 146.0, 146.0, 0, None)
    beat.end()
    assert beat.heartbeat().trial is None


STUCK = """\
import time

def train(ctx):
    first = ctx.checkpoint_dir / "first"
    for epoch in range(1, ctx.max_steps + 1):
        ctx.report(1.0, epoch)
        if ctx.number == 0 and epoch == 5 and not first.exists():
            first.touch()
            while not (ctx.checkpoint_dir / "go").exists():
                time.sleep(0.02)
        time.sleep(0.02)
"""


def test_a_stalled_trial_is_noticed_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_LOOK_S", 0.05)
    monkeypatch.setattr(liveness, "FLOOR_S", 3.0)
    monkeypatch.setattr(liveness, "FACTOR", 1.0)
    seen = []

    def look(progress: Progress) -> None:
        seen.append(dict(progress.silent))
        if progress.silent:  # it sleeps until somebody has noticed
            (tmp_path / "run/checkpoints/trial-00000/go").touch()

    view = Remembering(look)
    path = write_toy(tmp_path, STUCK, trials=2)
    outcome = launcher.run(path, folder=tmp_path / "run", view=view)
    assert [(row.state, row.retries) for row in outcome.progress.rows] == [("complete", 0)] * 2
    (event,) = view.events
    assert re.match(r"trial 0 in worker 0 has not reported for \d+ s, it used to every 0\.", event)
    assert {number for found in seen for number in found} == {0}
    assert seen[-1] == {}


def test_a_stalled_trial_is_killed_and_retried_if_the_file_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_LOOK_S", 0.05)
    path = write_toy(tmp_path, STUCK, trials=2)
    path.write_text(path.read_text().replace("workers: {", "workers: {stall: 4.5, "))
    view = Remembering()
    outcome = launcher.run(path, folder=tmp_path / "run", view=view)
    assert [(row.state, row.retries) for row in outcome.progress.rows] == [("complete", 1), ("complete", 0)]
    told, killed = view.events
    assert told.endswith("; killed after 4.5 s")
    assert killed == (
        "worker 0 was killed (SIGKILL); trial 0 goes on from its last checkpoint (it had reported epoch 5) "
        "in another worker (retry 1 of 2)"
    )


# A stop whose worker died over it.


def stopping(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, *, again: bool) -> tuple[optuna.Study, Claim]:
    """An adopted trial that reported step 1; a look at it says `again`."""
    sweep = folder.read().file
    study = optuna.create_study(study_name="toy")
    first = ownership.take(study, folder, 0, file_of(trials=3))
    assert first is not None
    suggest(first.trial, sweep.space)
    first.trial.report(1.0, 1)
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda self: again)
    ownership.release(study, folder, (), 2)
    taken = ownership.take(study, folder, 0, file_of(trials=3))
    assert taken is not None
    assert taken.adopted
    return study, taken


def never(ctx: Context) -> None:
    pytest.fail("the trial was to be stopped")


def test_a_stop_that_was_stored_is_carried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = machine(tmp_path, "ann")
    study, taken = stopping(folder, monkeypatch, again=False)
    taken.trial.set_user_attr("lcsearch:reason", "step 1: hopeless")
    trial.run_trial(taken, folder.read(), folder, never, "cpu", lambda: False)
    assert study.trials[0].state.name == "PRUNED"


def test_what_is_trained_again_is_counted_over_all_interruptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """28 epochs were trained again after an interrupt and a resume, and stood in no count."""
    folder = machine(tmp_path, "ann", pruner="none")
    study, taken = stopping(folder, monkeypatch, again=False)

    def from_the_start(ctx: Context) -> None:
        for epoch in range(1, 5):
            ctx.report(1.0, epoch)

    heard: list[int] = []
    trial.run_trial(
        taken, folder.read(), folder, from_the_start, "cpu", lambda: len(heard) == 3, lambda: heard.append(1)
    )
    assert study.trials[0].user_attrs[ownership.NOTED] == {"replayed": [1]}  # 1; new are 2 and 3
    ownership.release(study, folder, (), 2)
    again = ownership.take(study, folder, 0, file_of(trials=3))
    assert again is not None
    trial.run_trial(again, folder.read(), folder, from_the_start, "cpu", lambda: False)
    assert study.trials[0].state.name == "COMPLETE"
    assert study.trials[0].user_attrs[ownership.NOTED] == {"replayed": [4]}


def test_a_look_that_was_lost_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = machine(tmp_path, "ann", pruner="median")
    study, taken = stopping(folder, monkeypatch, again=True)
    trial.run_trial(taken, folder.read(), folder, never, "cpu", lambda: False)
    assert study.trials[0].state.name == "PRUNED"
    assert study.trials[0].user_attrs["lcsearch:reason"] == "median pruner at epoch 1: 1"


@pytest.mark.parametrize("said", ["STOP", "CONTINUE"])
def test_a_logged_stop_that_does_not_stand_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    folder = machine(tmp_path, "ann")
    study, taken = stopping(folder, monkeypatch, again=False)
    folder.decisions.mkdir()
    lines = [
        {
            "study": "toy",
            "trial": "0",
            "step": 1.0,
            "verdict": said,
            "reason": "BELOW",
            "time": 2.0,
            "latency": 0.1,
            "now": {"step": 1.0, "p": 0.01},
        },
        {"study": "toy", "trial": "1", "step": 1.0, "verdict": "STOP", "reason": "BELOW", "time": 3.0},
    ]
    (folder.decisions / "dead.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"torn')
    trial.run_trial(taken, folder.read(), folder, lambda ctx: None, "cpu", lambda: False)
    assert study.trials[0].state.name == "COMPLETE"
    written = [f for f in folder.decisions.glob("*.jsonl") if f.name != "dead.jsonl"]
    records = [json.loads(line) for f in written for line in f.read_text().splitlines()]
    assert [(r["trial"], r["step"], r["verdict"], r["reason"]) for r in records] == (
        [("0", 1.0, "CONTINUE", "SUPERSEDED")] if said == "STOP" else []
    )
    assert all(r["now"] is r["latency"] is None for r in records), "one look is counted once"


# Passwords.


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://ann:s3cret@host/db", "postgresql://ann:***@host/db"),
        ("postgresql+psycopg://ann:s3/c@r:et@host:5432/db?x=1", "postgresql+psycopg://ann:***@host:5432/db?x=1"),
        ("postgresql://:s3cret@host/db", "postgresql://:***@host/db"),
        ("postgresql://host/db?user=a&password=s3cret&x=1", "postgresql://host/db?user=a&password=***&x=1"),
        ("  storage: 'mysql://a:b@h/d'  # mail me@home", "  storage: 'mysql://a:***@h/d'  # mail me@home"),
    ],
)
def test_passwords_are_masked(text: str, masked: str) -> None:
    assert mask(text) == masked
    assert holds(text)


@pytest.mark.parametrize("text", ["sqlite:////a/b.db", "postgresql://ann@host/db", "postgresql:///db?host=/tmp/x"])
def test_what_holds_no_password_stays(text: str) -> None:
    assert mask(text) == text
    assert not holds(text)


def test_a_drivers_message_is_masked_too() -> None:
    url = "postgresql://ann:s3cret@host/db"
    assert mask_of(url, "cannot log in with s3cret at postgresql://ann:s3cret@host/db") == (
        "cannot log in with *** at postgresql://ann:***@host/db"
    )
    assert mask_of(None, "as it is") == "as it is"


def test_a_plan_and_a_wrong_override_show_no_password(tmp_path: Path) -> None:
    url = "postgresql://ann:s3cret@host/db"
    sweep = load(shared_toy(tmp_path / "a", url=url))
    text = plan.describe(sweep, RunFolder(tmp_path / "run"))
    assert "postgresql://ann:***@host/db" in text
    assert "s3cret" not in text
    with pytest.raises(FileProblem) as caught:
        sweep.override([f"backend.storages={url}"])
    assert "override 'backend.storages=postgresql://ann:***@host/db'" in str(caught.value)
    assert "s3cret" not in str(caught.value)
