"""`--json`: every line parses, the keys are those documented, and the numbers are the summary's."""

from __future__ import annotations

import io
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import optuna
from kit.allocators import PAUSES
from kit.builders import snapshot
from optuna.trial import TrialState
from sweep.kit import TRAIN, lcsearch, write_toy
from sweep.runtime.test_pause import Hand, pausing_toy
from sweep.test_run import LEAVING
from sweep.views.test_live import FILE, STOPPED, progress, trial

from lcsearch.allocation.ask import ask
from lcsearch.allocation.contract import Allocation, Move, Slots
from lcsearch.allocation.named import allocator
from lcsearch.allocation.receipt import AllocationReceipt
from lcsearch.curves import Curve
from lcsearch.session.decision_log import DecisionLog, read_allocations
from lcsearch.stopping.decision import risk_told
from lcsearch.study import Status, Trial
from lcsearch.sweep.monitor.open_run import reader
from lcsearch.sweep.monitor.outcome import Outcome
from lcsearch.sweep.monitor.progress import collect
from lcsearch.sweep.monitor.state import StateReader
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views import json_lines
from lcsearch.sweep.views.json_lines import JsonView
from lcsearch.sweep.views.live import PlainView

ASHA = allocator("asha", first=0.1)


def lines(text: str) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    told = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    assert text.endswith("\n")
    for entry in told:
        assert isinstance(entry["time"], float)
        for key in entry:
            assert key in ("event", "time") or f"`{key}`" in str(json_lines.__doc__), key
    return told


def of(told: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [entry for entry in told if entry["event"] == event]


def view(folder: Path, *, resumed: bool = False) -> tuple[JsonView, io.StringIO, io.StringIO]:
    stream, people = io.StringIO(), io.StringIO()
    return JsonView(FILE, RunFolder(folder), stream, resumed=resumed, people=PlainView(FILE, people)), stream, people


def test_the_lines_of_a_sweep(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.decisions.mkdir()
    look = {"trial": "1", "reason": "BELOW", "latency": 0.01, "now": {"step": 2.0, "p": 0.001}}
    (folder.decisions / "w.jsonl").write_text(json.dumps(look) + "\n")
    shown, stream, people = view(tmp_path)
    study = optuna.create_study()
    shown.event("the earlier run was kept")  # before the start: it waits for the opening line
    assert stream.getvalue() == ""
    shown.start()
    shown.update(collect([trial(0, TrialState.RUNNING, {1: 1.0})], FILE.target, 8, FILE.space), study)
    shown.update(progress(), study)
    shown.update(progress(), study)
    shown.event("worker 0 was killed; trial 3 goes on", worker=0, how="was killed", trial=3, retry=1, retries=2)
    shown.stop()
    outcome = Outcome(tmp_path, progress(), study, 130, "interrupted", 7.5)
    shown.end(outcome, StateReader(FILE, folder).state(outcome.progress, study))
    told = lines(stream.getvalue())
    assert [entry["event"] for entry in told] == [
        "sweep", "notice", "trial", "best",
        "trial", "trial", "trial", "trial", "trial", "trial", "trial", "trial", "best",
        "worker", "notice", "end",
    ]  # fmt: skip
    assert {key: told[0][key] for key in ("name", "trials", "max_steps", "pruner", "folder", "resumed")} == {
        "name": "toy", "trials": 4, "max_steps": 10, "pruner": "curve", "folder": str(tmp_path), "resumed": False,
    }  # fmt: skip
    trials = of(told, "trial")
    assert [(entry["trial"], entry["state"]) for entry in trials] == [
        (0, "began"), (1, "began"), (2, "began"), (3, "began"), (5, "began"),
        (0, "complete"), (1, "stopped"), (2, "failed"), (5, "complete"),
    ]  # fmt: skip
    assert trials[0]["params"] == {"a": 0.0, "k": 3}
    stop, nothing = trials[6], trials[8]
    del stop["time"]
    assert stop == {
        "event": "trial", "trial": 1, "state": "stopped", "value": 1.5, "last": 1.5, "step": 2, "spent": 2,
        "saved": 8, "reason": STOPPED, "p_beat": 0.001, "cut": None, "thaws": None,
    }  # fmt: skip
    assert (nothing["value"], nothing["last"], nothing["p_beat"]) == (None, None, None)
    worker = of(told, "worker")[0]
    assert (worker["worker"], worker["trial"], worker["retry"], worker["retries"]) == (0, 3, 1, 2)
    end = told[-1]
    assert (end["exit_code"], end["message"], end["seconds"]) == (130, "interrupted", 7.5)
    assert (end["spent"], end["saved"], end["looks"], end["money"]) == (25, 8, 1, None)
    assert end["best"] == {"trial": 3, "step": 2, "value": 0.05, "params": {"a": 0.3, "k": 3}, "state": "running"}
    assert end["incumbent"] == {"trial": 0, "step": 10, "value": 0.1, "params": {"a": 0.0, "k": 3}, "state": "complete"}
    assert end["counts"] == {"complete": 2, "stopped": 1, "failed": 1, "running": 1, "waiting": 1}
    # people read the same as ever
    assert people.getvalue().splitlines()[0] == "! the earlier run was kept"
    assert (
        "[2/8] trial 1 stopped at epoch 2, about 8 saved: loss 1.5; P(beat) 0.1 %, threshold 5 %" in people.getvalue()
    )


def test_a_resumed_sweep_tells_nothing_twice(tmp_path: Path) -> None:
    shown, stream, _ = view(tmp_path, resumed=True)
    shown.start()
    shown.update(progress(), optuna.create_study())
    told = lines(stream.getvalue())
    assert told[0]["resumed"] is True
    assert [(entry["trial"], entry["state"]) for entry in of(told, "trial")] == [(3, "began")]


def test_a_reader_that_goes_away_ends_nothing(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        shown = JsonView(FILE, RunFolder(tmp_path), closed, resumed=False, people=PlainView(FILE, io.StringIO()))
        shown.start()
        shown.event("nobody reads this")


def test_a_whole_sweep(tmp_path: Path) -> None:
    path = write_toy(tmp_path, LEAVING.format(code=3), trials=3)
    path.write_text(path.read_text().replace("budget: {", "budget: {money_per_hour: 7.2, "))
    done = lcsearch("run", path, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = lines(done.stdout)
    assert told[0]["event"] == "sweep"
    assert [(e["trial"], e["retry"], e["given_up"], e["worker"]) for e in of(told, "worker")] == [(1, 1, False, 0)]
    end = told[-1]
    assert (end["event"], end["exit_code"], end["message"], end["counts"]) == ("end", 0, None, {"complete": 3})
    spent, saved = re.findall(r"epochs: (\d+) spent, (?:about )?(\d+) saved", done.stderr)[0]
    assert (end["spent"], end["saved"]) == (int(spent), int(saved))
    assert re.findall(r"best: loss (\S+) \(trial (\d+), epoch (\d+)\)", done.stderr) == [
        (f"{end['best']['value']:.6g}", str(end["best"]["trial"]), str(end["best"]["step"]))
    ]
    assert math.isclose(end["money"]["spent"], end["worker_seconds"] / 500)
    assert of(told, "best")[-1]["value"] == end["best"]["value"]
    ended = [e for e in of(told, "trial") if e["state"] != "began"]
    assert sum(e["spent"] for e in ended) == end["spent"]


def test_what_the_summary_notices_is_a_notice(tmp_path: Path) -> None:
    path = write_toy(tmp_path, TRAIN.replace("ctx.max_steps + 1", "4"), trials=1)
    done = lcsearch("run", path, "--json", cwd=tmp_path)
    (notice,) = of(lines(done.stdout), "notice")
    assert notice["text"] == (
        "1 of 1 complete trials ended before epoch 6, at epoch 3: if they stop early by themselves, nothing is to be "
        "done; if they are meant to train 6 epochs, the objective gets that number as ctx.max_steps"
    )
    assert f"\n! {notice['text']}\n" in done.stderr


def test_stops_and_risk_agree_with_the_summary_and_status_shows_them(tmp_path: Path) -> None:
    path = write_toy(tmp_path, TRAIN, trials=12, max_steps=20, pruner="curve")
    done = lcsearch("run", path, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = lines(done.stdout)
    end = told[-1]
    risk = risk_told(end["risk"], end["risk_independent"], end["calibration"])
    risk = f"risk that some stop lost the winner: {risk}"
    assert risk in done.stderr
    assert f"looks: {end['looks']} forecasts" in done.stderr
    stops = [e for e in of(told, "trial") if e["state"] == "stopped"]
    assert stops
    for stop in stops:
        assert stop["reason"].startswith(f"step {stop['step']}: P(beat) ")
        said = stop["reason"].removeprefix(f"step {stop['step']}: ").partition(", incumbent ")[0]
        shown = [line for line in done.stderr.splitlines() if f" trial {stop['trial']} stopped at " in line]
        assert len(shown) == 1
        assert f"; {said}" in shown[0]
        assert 0 <= stop["p_beat"] < 0.05
    assert sum(stop["saved"] for stop in stops) == end["saved"]
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("*") if file.is_file()}
    status = lcsearch("status", cwd=tmp_path)
    assert status.returncode == 0, status.stderr
    assert risk in status.stdout
    assert status.stdout.splitlines()[-1] == "runs/toy: ended; next: lcsearch report, or lcsearch explain TRIAL"
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("*") if file.is_file()}


def test_a_turn_goes_on_from_the_step_that_was_reported_last(tmp_path: Path) -> None:
    """However many reports there were, and though one of an earlier step came later."""
    sweep = FILE.model_copy(update={"pause": True})
    stream = io.StringIO()
    shown = JsonView(sweep, RunFolder(tmp_path), stream, resumed=False, people=PlainView(sweep, io.StringIO()))
    shown.start()
    paused = snapshot(FILE.target, [], [Trial("0", Curve.of([4.0, 8.0], [1.0, 0.9]), {}, Status.PAUSED)])
    asked = ask(ASHA, ASHA.init(), paused, PAUSES, Slots(1, 0), (0, 0))
    made = Allocation(None, (Move("0", 10.0),))
    DecisionLog(tmp_path / "decisions").append(AllocationReceipt.of(asked, made).to_record())
    found = collect([trial(0, TrialState.RUNNING, {4: 1.0, 6: 0.95, 8: 0.9})], FILE.target, 8, FILE.space)
    shown.update(found, optuna.create_study())
    (turn,) = of(lines(stream.getvalue()), "turn")
    assert (turn["trial"], turn["from"], turn["until"]) == (0, 8.0, 10.0)


def turns_of(told: list[dict[str, Any]]) -> list[tuple[int | None, float, str]]:
    return [(entry["trial"], entry["until"], entry["why"]) for entry in of(told, "turn")]


def test_turns_pauses_and_cuts_of_a_sweep(tmp_path: Path) -> None:
    path = pausing_toy(tmp_path / "ann", trials=9, workers=2)
    done = lcsearch("run", path, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = lines(done.stdout)
    receipts = sorted(read_allocations(tmp_path / "runs/toy/decisions"), key=lambda one: one.number)
    assert [(None if uid is None else int(uid), *more) for one in receipts for uid, *more in moves_of(one)] == turns_of(
        told
    )
    turns, ended = of(told, "turn"), {e["trial"]: e for e in of(told, "trial") if "spent" in e}
    assert sum(turn["trial"] is None and turn["from"] == 0 for turn in turns) == 9
    assert all(turn["from"] in (1, 3, 9) for turn in turns if turn["trial"] is not None)
    assert all(turn["from"] < turn["until"] and turn["allocator"] == "asha" for turn in turns)
    assert any(turn["waiting"] and turn["nearest"]["needs"] for turn in turns)
    cut = [e for e in ended.values() if e["state"] == "stopped"]
    assert cut
    assert all((e["cut"], e["reason"], e["p_beat"]) == ("cut", "cut: its rung is closed", None) for e in cut)
    assert all(e["cut"] is None for e in ended.values() if e["state"] == "complete")
    assert (told[-1]["cut"], told[-1]["turns"]) == (len(cut), len(turns))
    for number, end in ended.items():
        story = [e for e in of(told, "trial") if e["trial"] == number]
        states = [e["state"] for e in story]
        pauses = [e for e in story if e["state"] == "paused"]
        woken = [e["step"] for e in story if e["state"] == "resumed"]
        assert states[0] == "began"
        assert states[1:-1] == [state for _ in pauses for state in ("paused", "resumed")][: len(states) - 2]
        slept = [e["step"] for e in pauses]
        # one may be cut when its turn is over, before it is paused
        assert slept == woken or (end["cut"] and slept == [*woken, end["step"]])
        assert all(e["step"] in (1, 3, 9) and isinstance(e["last"], float) for e in pauses)


def moves_of(receipt: AllocationReceipt) -> list[tuple[str | None, float, str]]:
    return [(move.uid, move.pause_at, move.why) for move in receipt.moves]


def test_a_resumed_sweep_tells_its_own_turns_only(tmp_path: Path) -> None:
    hand = Hand(pausing_toy(tmp_path / "ann"), tmp_path / "ann/run")
    for _ in range(4):
        hand.train()
    sweep, study, read = reader(hand.folder)
    out = io.StringIO()
    shown = JsonView(sweep.file, hand.folder, out, resumed=True, people=PlainView(sweep.file, io.StringIO()))
    shown.start()
    paused = [row.number for row in read().of("paused")]
    shown.update(read(), study)
    told = lines(out.getvalue())
    assert of(told, "turn") == []
    assert [(e["trial"], e["state"]) for e in of(told, "trial")] == [
        *((number, state) for number in paused for state in ("began", "paused")),
        (len(paused), "began"),  # it has its turn, and nobody trains it yet
    ]
    before = read()
    hand.train()
    shown.update(before, study)  # the log is ahead of the study as it was read
    shown.update(read(), study)
    news = lines(out.getvalue())[len(told) :]
    assert len(of(news, "turn")) == 1


def test_what_cannot_begin_tells_programs_nothing(tmp_path: Path) -> None:
    done = lcsearch("run", tmp_path / "none.yaml", "--json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected a sweep file, got no such file." in done.stderr


def test_a_resume_says_which_time_it_tells(tmp_path: Path) -> None:
    path = write_toy(tmp_path, trials=1)
    assert lcsearch("run", path, cwd=tmp_path).returncode == 0
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path}/runs/toy/study.sqlite3")
    assert study.user_attrs["lcsearch:best"]["trial"] == 0
    more = lcsearch("run", path, "--resume", "--trials", "2", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    assert re.search(r"^toy: 2 complete.* in this launch\)$", more.stdout, re.MULTILINE)
