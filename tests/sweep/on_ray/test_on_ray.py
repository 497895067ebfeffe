"""Sweeps that Ray trains, on a real cluster of this machine: the same record as every other sweep."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import ray
from ray.tune.error import TuneError
from ray.tune.execution.tune_controller import TuneController
from sweep.kit import PATIENCE_S, RESUMING, Remembering, command, held, state_of, wait_for, write_toy
from sweep.kit import lcsearch as typed

import lcsearch.sweep.on_ray
from lcsearch.errors import EnvironmentProblem, FileProblem
from lcsearch.session.decision_log import read_log
from lcsearch.sweep import run as launcher
from lcsearch.sweep.finish import finish
from lcsearch.sweep.monitor.outcome import Outcome
from lcsearch.sweep.monitor.progress import Progress
from lcsearch.sweep.on_ray import cluster, loop
from lcsearch.sweep.on_ray.trial import _Reporter, hand_on, noted
from lcsearch.sweep.runtime import launch
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.store.folder import REPORTS, RunFolder
from lcsearch.sweep.store.ownership import REPLAYED
from lcsearch.sweep.views.explain import explain
from lcsearch.sweep.views.summary import summarize
from lcsearch.sweep.views.verify import verified

# Ray's own: it opens sockets and files that it leaves to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

CURVES = """\
def train(ctx):
    print("trial", ctx.number, "on", ctx.device)
    for epoch in range(1, ctx.max_steps + 1):
        ctx.report(ctx.params["a"] + 0.8 ** epoch, epoch)
"""

ODD = """\
import json, os

def train(ctx):
    if ctx.number == 0:
        json.loads("no luck")  # raises deep in the library
    if ctx.number == 1:
        return
    for epoch in range(1, ctx.max_steps + 1):
        value = float("nan") if ctx.number == 2 else ctx.params["a"]
        try:
            ctx.report(value, epoch)
        finally:
            print("epoch", epoch)
        if ctx.number == 3 and epoch == 3:
            os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    """One cluster for the sweeps of this process: starting one takes seconds."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def run(path: Path, view: Remembering | None = None, **options: Any) -> Outcome:
    return launcher.run(path, folder=path.parent / "run", view=view or Remembering(), **options)


@pytest.mark.usefixtures("_ray")
def test_it_trains_the_trials_that_the_other_backend_trains(tmp_path: Path) -> None:
    values = []
    for kind in ("ray", "optuna"):
        (tmp_path / kind).mkdir()
        outcome = run(write_toy(tmp_path / kind, CURVES, kind=kind, trials=4, workers=2))
        assert outcome.code == 0
        values.append([(row.state, row.params, row.values, row.spent) for row in outcome.progress.rows])
        assert [t.value for t in outcome.study.trials] == [min(row.values.values()) for row in outcome.progress.rows]
        schedules = [t.user_attrs["lcsearch:schedule"] for t in outcome.study.trials]
        assert [s["peak"] for s in schedules] == [row.params["lr"] for row in outcome.progress.rows]
    assert values[0] == values[1]
    assert (tmp_path / "ray/run/logs/trial-00002.log").read_text() == "trial 2 on cpu\n"


@pytest.fixture(scope="module")
def stopping(_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Of a sweep with stops, whose trials report their third epoch twice."""
    known: list[int] = []

    class Spied(loop.SweepScheduler):
        def prepare(self) -> None:
            known.append(len(self._book.entries))
            super().prepare()

    twice = CURVES.replace("ctx.report(", "epoch == 3 and ctx.report(9.0, epoch); ctx.report(")
    path = write_toy(
        tmp_path_factory.mktemp("stops"), twice, kind="ray", pruner="curve", trials=14, max_steps=30, workers=2
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SweepScheduler", Spied)
        outcome = run(path)
    assert known == [0], "the forecaster is loaded once, before the first trial"
    return outcome


def test_stops_have_their_reasons_in_study_log_and_summary(stopping: Outcome) -> None:
    outcome, folder = stopping, RunFolder(stopping.folder)
    stopped = outcome.progress.of("stopped")
    assert len(stopped) >= 4
    assert outcome.progress.saved == sum(30 - row.spent for row in stopped) > 0
    assert all(row.pace is not None and row.pace.gaps >= row.spent - 2 for row in stopped)
    assert outcome.progress.seconds_saved is not None
    best = min(outcome.study.trials, key=lambda t: t.params["a"])
    assert outcome.progress.best is not None
    assert outcome.progress.best.number == best.number == outcome.study.best_trial.number
    logged = {(r["trial"], r["verdict"]): r for r in read_log(folder.decisions)}
    for row in stopped:
        assert row.note.startswith("step ")
        assert "P(beat)" in row.note
        record = logged[str(row.number), "STOP"]
        assert (record["study"], record["reason"]) == ("toy", "BELOW")
        assert row.spent >= record["step"]  # acted on at the next result, or sooner
        story = explain(row.number, state_of(outcome), outcome.study)
        assert f"trial {row.number}, step {record['step']:g}: STOP (BELOW)" in story
        assert f"trial-{row.number:05d}.log" in story
    assert {number for number, verdict in logged if verdict == "STOP"} == {str(row.number) for row in stopped}
    text = summarize(state_of(outcome))
    assert f"{len(outcome.progress.of('complete'))} complete, {len(stopped)} stopped" in text
    assert "risk that some stop lost the winner: " in text
    assert "looks: " in text
    again = verified(folder.root)
    assert again.mismatch is None
    assert again.looks == len(list(read_log(folder.decisions)))


def test_a_copied_trial_has_the_reports_that_the_study_has(tmp_path: Path) -> None:
    dead = _Reporter(tmp_path)
    dead.begin()
    (tmp_path / REPORTS).open("a").write("[1, 5.0]\n[2, 4.0]\n")
    dead.noted = {"repeated": [2], "replayed": [1]}
    dead.note()
    hand_on({2: 3.0, 1: 5.0, 3: math.nan}, tmp_path)
    known = _Reporter(tmp_path).known
    assert (list(known), known[1], known[2], math.isnan(known[3])) == ([1, 2, 3], 5.0, 3.0, True)
    assert not noted(tmp_path)


def test_what_is_odd_is_told_before_tune_may_end_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    odd: dict[str, list[float]] = {}
    monkeypatch.setattr("ray.tune.report", lambda result: told.append(noted(tmp_path)))
    reporter = _Reporter(tmp_path)
    reporter.begin()
    reporter.noted = odd
    news: list[dict[str, list[float]]] = [{"replayed": [2]}, {"replayed": [3], "descending": [1, 2]}, {}]
    for step, more in enumerate(news, 1):
        odd.update(more)
        reporter.report(0.5, step)
    reporter.note()
    told = [{k: v for k, v in one.items() if v is not None} for one in [*told, noted(tmp_path)]]
    assert told == [{"replayed": [2]}, *[{"replayed": [3], "descending": [1, 2]}] * 3]


def test_of_a_stopped_trial_is_told_what_was_odd(stopping: Outcome) -> None:
    stopped = stopping.progress.of("stopped")
    assert stopped
    assert {row.noted.get("repeated") for row in stopped} == {(3,)}


def test_what_can_go_wrong_in_a_trial(tmp_path: Path) -> None:
    view = Remembering()
    outcome = run(write_toy(tmp_path, ODD, kind="ray", trials=6, retries=1), view)
    rows = outcome.progress.rows
    assert [row.state for row in rows] == ["failed", "failed", "complete", "failed", "complete", "complete"]
    assert rows[0].note == "JSONDecodeError: Expecting value: line 1 column 1 (char 0) (toy.py:5)"
    assert rows[1].note == "the objective returned without a report: call ctx.report(value, step)"
    assert outcome.study.trials[2].value == float("inf")
    assert rows[3].note == "its worker died 2 times; retries: 1"
    assert list(rows[3].values) == [1, 2, 3]
    assert view.events == [
        "trial 3 lost its worker and goes on from its start, for no checkpoint is in its folder (it had reported "
        "epoch 3) (retry 1 of 1)",
        "trial 3 is marked failed after 1 retries",
    ]
    assert outcome.code == 0
    log = (tmp_path / "run/logs/trial-00000.log").read_text()
    assert "json.decoder.JSONDecodeError" in log


@pytest.mark.usefixtures("_ray")
def test_a_killed_worker_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    once = 'if ctx.number == 0 and epoch == 7 and len(state["lives"]) == 1:\n            os.kill(os.getpid(), 9)\n'
    objective = RESUMING.replace('        state["epoch"] = epoch\n', f'        state["epoch"] = epoch\n        {once}')
    outcome = run(write_toy(tmp_path, objective, kind="ray", trials=2, max_steps=12))
    first = outcome.progress.rows[0]
    assert (first.state, first.retries, list(first.values)) == ("complete", 1, list(range(1, 13)))
    state = json.loads((tmp_path / "run/checkpoints/trial-00000/state.json").read_text())
    assert [epoch for _, epoch in state["lives"]] == [0, 6]


# By trial: what its dead attempt reported, but up to which epoch the same as the next one; where that begins and ends.
ATTEMPTS = [
    (-9.0, 0, 1, 6),  # the dead one's best was the incumbent for ever
    (9.0, 2, 1, 6),  # its bad values hid a winner
    (-9.0, 0, 1, 3),  # it had got further
    (-9.0, 3, 1, 3),  # and what it did until there is only repeated
    (8.0, 0, 4, 6),  # the next one goes on from a checkpoint
    (8.0, 0, 4, 4),
]
ANEW = f"""
import os

def train(ctx):
    dead, same, first, last = {ATTEMPTS}[ctx.number]
    died = ctx.checkpoint_dir / "died"
    again = died.exists()
    for epoch in range(first if again else 1, last + 1 if again else 6):
        ctx.report(ctx.params["a"] + abs(epoch - 2) if again or epoch <= same else dead, epoch)
    if not again:
        died.touch()
        os.kill(os.getpid(), 9)
"""


@pytest.mark.usefixtures("_ray")
def test_trials_that_begin_anew_are_judged_by_their_own_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, make = list[loop.SweepScheduler](), loop.make_scheduler

    def making(*args: Any) -> loop.SweepScheduler | None:
        scheduler = make(*args)
        made.extend(filter(None, [scheduler]))
        return scheduler

    monkeypatch.setattr(loop, "make_scheduler", making)
    outcome = run(write_toy(tmp_path, ANEW, kind="ray", trials=6, pruner="curve, n_warmup_steps: 100"))
    book = made[0].get_state()["book"]
    for row, frozen, (dead, _, first, last) in zip(outcome.progress.rows, outcome.study.trials, ATTEMPTS, strict=True):
        assert (row.state, row.retries) == ("complete", 1)
        a = float(str(row.params["a"]))
        own = {**dict.fromkeys(range(1, first), dead), **{e: a + abs(e - 2) for e in range(first, last + 1)}}
        assert row.values == own
        assert frozen.value == min(own.values())
        assert sorted(frozen.intermediate_values) == [*range(1, max(last, 5) + 1)]
        assert dead not in frozen.intermediate_values.values() or first > 1
        steps, values = book.trial(str(row.number)).curve.reports()
        assert dict(zip(steps, values, strict=True)) == own
    best = min(min(row.values.values()) for row in outcome.progress.rows)
    assert outcome.progress.incumbent is not None
    assert outcome.progress.incumbent.value == best
    leads = made[0].snapshot().incumbent
    assert leads is not None
    assert leads.value == best


@pytest.mark.usefixtures("_ray")
def test_an_objective_that_does_not_import_ends_the_sweep_and_blames_no_trial(tmp_path: Path) -> None:
    failing = "import sys\nif 'ray' in sys.modules:\n    import nothing_of_this_name\n\ndef train(ctx): ...\n"
    path = write_toy(tmp_path, failing, kind="ray", trials=3)  # the launcher's own look finds nothing wrong
    outcome = run(path)
    assert outcome.code == 2
    assert "expected a module that imports, got ModuleNotFoundError" in outcome.message
    assert {row.state for row in outcome.progress.rows} == {"waiting"}
    path.with_name("toy.py").write_text(CURVES)
    outcome = run(path, resume=True)
    assert (outcome.code, [row.state for row in outcome.progress.rows]) == (0, ["complete"] * 3)


@pytest.mark.usefixtures("_ray")
def test_a_sweep_that_only_fails_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_LOOK_S", 0.0)
    outcome = run(write_toy(tmp_path, "def train(ctx):\n    raise ValueError('no')\n", kind="ray", trials=40))
    assert outcome.code == 1
    assert outcome.message.startswith("the first 5 trials failed before any report and with the same error, ")
    assert "ValueError: no (toy.py:2)" in outcome.message
    assert len(outcome.progress.rows) < 20


@pytest.mark.usefixtures("_ray")
def test_more_than_any_node_has(tmp_path: Path) -> None:
    path = write_toy(tmp_path, kind="ray")
    path.write_text(path.read_text().replace("{n: 1", "{n: 1, threads: 64"))
    with pytest.raises(EnvironmentProblem) as caught:
        run(path)
    text = "backend.workers: expected a node with 64 CPU and 0 GPU, got 2 CPU + 0 GPU."
    assert str(caught.value) == text
    assert not (tmp_path / "run/run.json").exists()


# Reports all it has, and hangs once: a launch is ended in the middle of what comes after the last report.
HANGING = """\
import os, time

def train(ctx):
    for epoch in range(1, ctx.max_steps + 1):
        ctx.report(ctx.params["a"] + 1 / epoch, epoch)
    here = ctx.checkpoint_dir / "here"
    if ctx.number == 0 and not here.exists():
        here.touch()
        time.sleep(900)
"""

# Trial 0 loses its worker in its first and in its third life, and is interrupted in its second.
DYING = """\
import os, time

def train(ctx):
    lives = ctx.checkpoint_dir / "lives"
    with lives.open("a") as file:
        file.write("x")
    n = len(lives.read_text())
    for epoch in range(1, ctx.max_steps + 1):
        time.sleep(0.02 if n != 2 else 0.2)
        ctx.report(ctx.params["a"], epoch)
        if n != 2 and epoch == 3:
            os.kill(os.getpid(), 9)
"""

PRINTING = """\
import os, pathlib, subprocess

def train(ctx):
    print("in", os.getcwd(), pathlib.Path("here.txt").read_text())
    subprocess.run(["echo", "a child"])
    os.write(1, b"C code\\n")
    ctx.report(1.0, 1)
"""

PROGRAM = """\
import os, pathlib, signal, sys, time
here = pathlib.Path(os.environ["LCSEARCH_CHECKPOINT_DIR"])
def end(*_):
    time.sleep(0.5)  # longer than it takes Tune to end a process
    (here / "told").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
hopeless = int(os.environ["LCSEARCH_NUMBER"]) >= 5
for epoch in range(1, 41):
    time.sleep(1.0 if hopeless and epoch > 12 else 0.03)  # it is still there when its stop comes
    print(f"epoch={epoch} loss={hopeless + 0.1 * float(sys.argv[1]) + 0.8 ** epoch}", flush=True)
"""


def interrupting(when: Path, *signals: signal.Signals) -> Remembering:
    """A view that sends this process the first signal when the file is there, and the others a second apart."""
    sent: list[float] = []

    def look(_: Progress) -> None:
        if when.exists() and not sent:
            sent.append(time.monotonic())
            for i, number in enumerate(signals[1:], 1):
                threading.Timer(i, os.kill, (os.getpid(), number)).start()
            os.kill(os.getpid(), signals[0])

    return Remembering(look)


@pytest.mark.usefixtures("_ray")
def test_two_interrupts_kill_at_once_and_a_trial_with_all_its_reports_is_finished_by_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_LOOK_S", 0.1)
    path = write_toy(tmp_path, HANGING, kind="ray", trials=2, max_steps=3)
    here = tmp_path / "run/checkpoints/trial-00000/here"
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    view = interrupting(here, signal.SIGINT, signal.SIGINT)
    begin = TuneController.__init__

    def patient(self: Any, *args: Any, **fields: Any) -> None:
        begin(self, *args, **fields)
        self._actor_force_cleanup_timeout = 900  # Tune's own is 10 s, which a busy machine may take as well

    monkeypatch.setattr(TuneController, "__init__", patient)
    outcome = run(path, view)
    assert time.time() - here.stat().st_mtime < PATIENCE_S
    assert (outcome.code, outcome.message) == (130, "interrupted; go on with --resume")
    assert view.events == [loop.RayWatch.interrupted]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before
    assert [(row.state, len(row.values)) for row in outcome.progress.rows] == [("running", 3)]
    outcome = run(path, resume=True)
    assert (outcome.code, outcome.message) == (0, "")
    assert [(row.state, list(row.values), row.retries) for row in outcome.progress.rows] == [
        ("complete", [1, 2, 3], 0),
        ("complete", [1, 2, 3], 0),
    ]


@pytest.mark.usefixtures("_ray")
def test_retries_are_counted_over_launches_and_tunes_own_signal_is_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_LOOK_S", 0.1)
    path = write_toy(tmp_path, DYING, kind="ray", trials=1, max_steps=400, retries=1)
    lives, seen = tmp_path / "run/checkpoints/trial-00000/lives", tmp_path / "seen"
    view = interrupting(seen, signal.SIGUSR1)
    tell = view.on_update

    def look(progress: Progress) -> None:
        if lives.exists() and len(lives.read_text()) == 2 and any(len(row.values) > 4 for row in progress.rows):
            seen.touch()
        tell(progress)

    view.on_update = look
    outcome = run(path, view)
    assert outcome.code == 130
    assert view.events[-1] == "Ray Tune was told to end by a signal; trials can be resumed from their checkpoints"
    assert [(row.state, row.retries) for row in outcome.progress.rows] == [("running", 1)]
    view = Remembering()
    outcome = run(path, view, resume=True)
    assert [row.note for row in outcome.progress.rows] == ["its worker died 2 times; retries: 1"]
    assert view.events[1:] == ["trial 0 is marked failed after 1 retries"]
    assert lives.read_text() == "xxx"


@pytest.mark.usefixtures("_ray")
def test_it_works_where_the_launcher_does_and_all_it_prints_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "here.txt").write_text("I am")
    monkeypatch.chdir(elsewhere)
    outcome = run(write_toy(tmp_path, PRINTING, kind="ray", trials=2, max_steps=1))
    assert outcome.code == 0, [row.note for row in outcome.progress.rows]
    for number in range(2):  # in one process
        log = (tmp_path / f"run/logs/trial-{number:05d}.log").read_text()
        assert log == f"in {elsewhere} I am\na child\nC code\n"


@pytest.mark.usefixtures("_ray")
def test_a_program_is_told_when_its_trial_is_stopped(tmp_path: Path) -> None:
    path = write_toy(tmp_path, kind="ray", pruner="curve", trials=7, max_steps=40, workers=1)
    (tmp_path / "program.py").write_text(PROGRAM)
    objective = f"objective: {{command: [{sys.executable}, -S, program.py, '{{a}}']}}"
    path.write_text(path.read_text().replace('objective: {python: "toy:train"}', objective))
    outcome = run(path)
    rows = outcome.progress.rows
    assert {row.state for row in rows} == {"complete", "stopped"}, [row.note for row in rows]
    told = {row.number for row in rows if (tmp_path / f"run/checkpoints/trial-{row.number:05d}/told").exists()}
    stopped = {row.number for row in rows if row.state == "stopped"}
    assert told <= stopped
    assert len(stopped - told) <= 1  # on a busy machine Tune may kill the last one when the run ends
    assert told


@pytest.mark.usefixtures("_ray")
def test_a_run_that_tune_breaks_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks_off(*_: Any, **__: Any) -> None:
        raise TuneError("out of order\nand more")

    monkeypatch.setattr("ray.tune.run", breaks_off)
    outcome = run(write_toy(tmp_path, kind="ray"))
    assert outcome.code == 1
    assert outcome.message == (
        "Ray Tune broke off the run: TuneError: out of order. Go on with --resume.\n"
        f"Traceback: {tmp_path / 'run/logs/ray.log'}"
    )
    assert "breaks_off" in (tmp_path / "run/logs/ray.log").read_text()


@pytest.mark.usefixtures("_ray")
def test_the_process_is_left_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, folder = write_toy(tmp_path, kind="ray"), RunFolder(tmp_path / "run")
    folder.logs.mkdir(parents=True)
    before, level = dict(os.environ), logging.getLogger("ray").level
    with cluster.cluster(load(path).file, folder):
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        os.environ["RAY_AUTH_MODE"] = os.environ["PYTHONBREAKPOINT"] = "token"
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        print("ours")
        thread = threading.Thread(target=print, args=("(raylet) Ray's",))
        thread.start()
        thread.join()
    assert (dict(os.environ), logging.getLogger("ray").level) == (before, level)
    assert capsys.readouterr().out == "ours\n"
    assert folder.ray_log.read_text() == "(raylet) Ray's\n"


FALLING = RESUMING.replace(
    "    for epoch in", "    first = state.setdefault('first', len(state['lives']))\n    for epoch in"
).replace(
    "time.sleep(0.02)",
    "if ctx.number == 14 and epoch == 17 and len(state['lives']) == first + 1: os.kill(os.getpid(), 9)",
)
"""The first thawed trial kills its worker once."""


@pytest.mark.usefixtures("_ray")
def test_stopped_trials_are_trained_on_until_the_risk_is_low(tmp_path: Path) -> None:
    epochs = 20
    path = write_toy(tmp_path, FALLING, kind="ray", pruner="curve", trials=14, max_steps=epochs, workers=2)
    outcome = run(path)
    assert outcome.code == 0, outcome.message
    before = {row.number: row for row in outcome.progress.of("stopped")}
    assert len(before) >= 3
    asked: list[str] = []
    folder = RunFolder(tmp_path / "run")
    view = Remembering()

    def agreed(text: str) -> bool:
        asked.append(text)
        return True

    done = finish(folder.root, risk=0.0, agreed=agreed, view=view)
    assert done is not None
    assert done.code == 0, done.message
    state = state_of(done)
    assert state.risk == 0.0
    thawed = [row for row in done.progress.rows if row.thawed is not None]
    assert f"{len(thawed)} stopped trials are thawed, the likeliest to have won first: " in asked[0]
    assert "begin" not in asked[0]  # each goes on from its checkpoint
    assert f"about {sum(before[row.thawed.stopped].saved for row in thawed if row.thawed):g} epochs" in asked[0]
    for row in thawed:
        assert row.thawed is not None
        assert row.state == "complete"
        assert list(row.values) == list(range(1, epochs + 1))
        stopped = before[row.thawed.stopped]
        assert row.values.items() >= stopped.values.items()
        kept = json.loads((folder.checkpoints(row.number) / "state.json").read_text())
        assert kept["lives"][-1][1] >= stopped.spent - 1 > 0
        again = stopped.spent - kept["lives"][-1][1]
        assert row.number == 14 or row.noted.get(REPLAYED, (0,)) == (again,), "the report at the stop among them"
    assert any(text.startswith("trial 14 lost its worker and goes on from ") for text in view.events), view.events
    assert f"thawed: {len(thawed)} stopped trials, {len(thawed)} of them trained to the end" in summarize(state)
    again = verified(folder.root)
    assert again.mismatch is None, str(again.mismatch)
    assert finish(folder.root, risk=0.0, view=Remembering()) is None


@pytest.mark.usefixtures("_ray")
def test_a_finish_at_the_end_of_a_sweep(tmp_path: Path) -> None:
    path = write_toy(tmp_path, RESUMING, kind="ray", pruner="curve", trials=14, max_steps=20, workers=2)
    path.write_text(path.read_text() + "finish: {risk: 0.001}\n")
    outcome = run(path)
    assert outcome.code == 0, outcome.message
    state = state_of(outcome)
    assert state.risk is not None
    assert state.risk <= 0.001
    assert outcome.progress.counts["thawed"] > 0
    assert outcome.progress.counted == 14


def test_its_knobs_are_those_of_the_file(tmp_path: Path) -> None:
    path = write_toy(tmp_path, kind="ray", pruner="curve, rivals: 2, audit: 0.1, threshold: 0.03, n_startup_trials: 7")
    scheduler = loop.make_scheduler(load(path).file, RunFolder(tmp_path / "run"))
    assert scheduler is not None
    policy = scheduler.session.policy
    assert (policy.rivals, policy.audit, policy.threshold, policy.n_startup_trials) == (2, 0.1, 0.03, 7)


def test_a_warm_up_beyond_the_horizon_stops_nothing(tmp_path: Path) -> None:
    path = write_toy(tmp_path, kind="ray", pruner="curve, n_warmup_steps: 100", max_steps=5)
    assert loop.make_scheduler(load(path).file, RunFolder(tmp_path / "run")) is not None


def test_what_others_finish_is_learnt_and_what_they_have_is_left_out(tmp_path: Path) -> None:
    path = write_toy(tmp_path, kind="ray", pruner="curve")
    scheduler = loop.make_scheduler(load(path).file, RunFolder(tmp_path / "run"))
    assert scheduler is not None
    study = optuna.create_study()
    trials = [study.ask() for _ in range(3)]
    for trial in trials:
        trial.report(1.0, 1)
    study.tell(trials[0], 1.0)
    scheduler.learn(study.trials, 2)  # 2 is adopted, 1 is another machine's
    assert list(scheduler.get_state()["book"].entries) == ["0", "2"]
    trials[1].report(0.5, 2)
    study.tell(trials[1], 0.5)
    scheduler.learn(study.trials, -1)
    entries = scheduler.get_state()["book"].entries
    assert list(entries) == ["0", "2", "1"]
    assert entries["1"].reports == {1: 1.0, 2: 0.5}


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_ended_launch_is_resumed_without_a_loss(tmp_path: Path, how: signal.Signals, code: int) -> None:
    epochs = 40
    objective, pruner = held(RESUMING, "ctx.number > 1"), "curve, forecasters: [parametric, rank-gap]"  # loaded at once
    path = write_toy(tmp_path, objective, kind="ray", pruner=pruner, trials=5, max_steps=epochs, workers=2)
    folder = tmp_path / "run"
    process = subprocess.Popen(
        command("run", path, "--folder", folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(lambda: (folder / "checkpoints/trial-00002/state.json").exists())
        process.send_signal(how)
        said, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == code, said
    study = optuna.load_study(study_name="toy", storage=RunFolder(folder).default_storage)
    before = [dict(t.intermediate_values) for t in study.trials]
    assert 3 <= len(before) < 5 or any(len(values) < epochs for values in before)
    (tmp_path / "go").touch()
    done = typed("run", path, "--folder", folder, "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    study = optuna.load_study(study_name="toy", storage=RunFolder(folder).default_storage)
    assert len(study.trials) == 5
    assert all(t.state.name in ("COMPLETE", "PRUNED") for t in study.trials)
    for values, trial in zip(before, study.trials, strict=False):
        assert values.items() <= trial.intermediate_values.items()
    for trial in study.trials:
        assert list(trial.intermediate_values) == list(range(1, len(trial.intermediate_values) + 1))
        state = json.loads((folder / f"checkpoints/trial-{trial.number:05d}/state.json").read_text())
        starts = [epoch for _, epoch in state["lives"]]
        assert starts == sorted(starts)  # no life began before what an earlier one had saved


def test_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    path = write_toy(tmp_path, kind="ray")
    path.write_text(path.read_text().replace("kind: ray,", "kind: ray, address: '127.0.0.1:9',"))
    done = typed("run", path, "--folder", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == (
        "backend.address: expected a Ray cluster that answers at '127.0.0.1:9', got ConnectionRefusedError: "
        "[Errno 111] Connection refused. Start one with: ray start --head"
    )
    assert not (tmp_path / "run/run.json").exists()


def test_ray_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lcsearch.sweep.on_ray.loop", raising=False)
    monkeypatch.delattr(lcsearch.sweep.on_ray, "loop", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EnvironmentProblem, match=r"expected Ray, got .*\. Install it: pip install 'lcsearch\[ray\]'"):
        run(write_toy(tmp_path, kind="ray"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "pruner: {kind: none}",
            "pruner: {kind: median}",
            "at $.pruner.kind: expected curve or none with backend kind ray",
        ),
        ("{n: 1", "{n: 1, devices: ['cuda:1']", "expected [cpu] or [cuda] with kind ray, which deals out GPUs itself"),
        ("kind: ray", "kind: optuna, address: auto", "at $.backend.address: expected no address with kind optuna"),
        (
            "kind: ray",
            "kind: ray, address: 'ray://a:1'",
            "expected 'local', 'auto' or 'host:port', got 'ray:",
        ),
        ("kind: ray", "kind: rai", "expected 'optuna' or 'ray', got 'rai'. Did you mean 'ray'?"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = write_toy(tmp_path, kind="ray")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(FileProblem) as caught:
        load(path)
    assert said in str(caught.value)


def test_the_option_too(tmp_path: Path) -> None:
    sweep = load(write_toy(tmp_path, kind="ray"))
    assert sweep.override(pruner="curve").file.pruner.kind == "curve"
    with pytest.raises(FileProblem, match=r"^--pruner: at .*: expected curve or none with .*, got 'hyperband'"):
        sweep.override(pruner="hyperband")


def test_a_cluster_that_dies_ends_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last node goes: Tune itself would wait for another one without a word."""
    path = write_toy(tmp_path, held(RESUMING), kind="ray", trials=2, max_steps=400)
    process = subprocess.Popen(
        command("run", path, "--folder", tmp_path / "run"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(lambda: (tmp_path / "run/checkpoints/trial-00000/state.json").exists())
        listings = Path(f"/proc/{process.pid}/task").glob("*/children")
        children = {int(pid) for listing in listings for pid in listing.read_text().split()}
        (raylet,) = (pid for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet")
        os.kill(raylet, signal.SIGKILL)
        said, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1, said
    assert "the Ray cluster is gone: no node of it is alive. Go on with --resume" in said


@pytest.mark.usefixtures("_ray")
def test_odd_reports_of_trials_on_ray_are_told_too(tmp_path: Path) -> None:
    objective = """\
def train(ctx):
    for epoch in (1, 3, 2, 2):
        ctx.report(float(epoch), epoch)
    return 77.0
"""
    outcome = run(write_toy(tmp_path, objective, kind="ray", trials=2, max_steps=3))
    assert [row.noted for row in outcome.progress.rows] == [
        {"descending": (2.0, 3.0), "repeated": (2.0,), "returned": (77.0,)}
    ] * 2


# Prints all it has to say in one piece, so that nothing hangs on how soon somebody reads the first line.
FAST = """\
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
number = int(os.environ["LCSEARCH_NUMBER"])
last = {last} if number >= 5 else 40
loss = [(number >= 5) + 0.01 * number + 0.8 ** epoch for epoch in range(1, last + 1)]
os.write(1, "".join(f"epoch={{epoch}} loss={{value}}\\n" for epoch, value in enumerate(loss, 1)).encode())
if number >= 5:
    {then}
"""


@pytest.mark.usefixtures("_ray")
def test_a_program_that_fails_after_its_last_step_has_failed_though_a_stop_was_decided(tmp_path: Path) -> None:
    path = write_toy(tmp_path, kind="ray", pruner="curve", trials=7, max_steps=40, workers=1)
    (tmp_path / "program.py").write_text(FAST.format(last=40, then="os._exit(1)"))
    objective = f"objective: {{command: [{sys.executable}, -S, program.py]}}"
    text = path.read_text().replace('objective: {python: "toy:train"}', objective)
    path.write_text(text.replace("kind: curve", "kind: curve, forecasters: [parametric, rank-gap]"))
    rows = run(path).progress.rows
    assert [row.state for row in rows] == ["complete"] * 5 + ["failed"] * 2, [row.note for row in rows]
    assert all("exit code 1" in row.note for row in rows[5:])


@pytest.mark.usefixtures("_ray")
@pytest.mark.parametrize("stays", [True, False])
def test_what_a_program_had_printed_when_its_stop_came_counts(tmp_path: Path, stays: bool) -> None:
    """What was printed is spent; a program that had ended by itself is complete, with all its values."""
    path = write_toy(tmp_path, kind="ray", pruner="curve", trials=7, max_steps=40, workers=1)
    (tmp_path / "program.py").write_text(FAST.format(last=30, then="time.sleep(900)" if stays else "os._exit(0)"))
    objective = f"objective: {{command: [{sys.executable}, -S, program.py]}}"
    text = path.read_text().replace('objective: {python: "toy:train"}', objective)
    path.write_text(text.replace("kind: curve", "kind: curve, forecasters: [parametric, rank-gap]"))
    outcome = run(path)
    rows = outcome.progress.rows[5:]
    assert [row.state for row in rows] == ["stopped" if stays else "complete"] * 2, [row.note for row in rows]
    assert [row.spent for row in rows] == [30, 30]
    if stays:
        assert all(len(row.values) < 30 and row.saved == 10 for row in rows)
        return
    assert all(len(row.values) == 30 for row in rows)
    assert outcome.progress.saved == 0
    story = explain(5, state_of(outcome), outcome.study)
    assert "it was not stopped, although a look at epoch " in story
