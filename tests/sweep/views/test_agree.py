"""One stored sweep, every view of it: each number that two of them show is the same in both."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from sweep.report.test_report import BEGAN, falling, folder_of, paced, paper, stopped, trial

from lcsearch.stopping.decision import risk_told
from lcsearch.sweep.monitor.open_run import read_state
from lcsearch.sweep.monitor.outcome import Outcome
from lcsearch.sweep.monitor.state import SweepState
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views import status
from lcsearch.sweep.views.json_lines import JsonView
from lcsearch.sweep.views.live import PlainView
from lcsearch.sweep.views.phrases import clock, money
from lcsearch.sweep.views.screen import layout
from lcsearch.sweep.views.summary import summarize

WALL = 3725.0


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Every fate, a stopped trial that holds the best value, looks of which one failed open, a clock, a price."""
    trials = [trial(n, falling(n), attrs=paced(1.5)) for n in range(6)]
    best = stopped(6)
    best.intermediate_values = {1: 0.9, 2: 0.01, 3: 0.5, 4: 0.6}
    trials += [best, stopped(7), trial(8, falling(8, 2), TrialState.FAIL, attrs={"lcsearch:error": "OSError: disk"})]
    trials.append(trial(9, falling(9, 5), TrialState.RUNNING, attrs={"lcsearch:retries": 0, "lcsearch:seconds": 10.0}))
    made = folder_of(tmp_path, trials, budget={"trials": 12, "money_per_hour": 36.0})
    look = {"step": 3.0, "p": 0.5, "threshold": 0.05}
    records = [{"trial": str(n), "reason": "ABOVE", "latency": 0.010 + 0.001 * n, "now": look} for n in range(9)]
    records.append({"trial": "9", "reason": "ABSENT", "latency": 0.2,
                    "now": {**look, "p": None, "heard": {"network": "LATE"}}})  # fmt: skip
    (made.decisions / "w.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    began = BEGAN.astimezone(UTC).isoformat()
    launches = [[began, WALL]]
    record = {"seconds": WALL, "until": began, "monotonic": 1.0, "launches": launches}
    made.clock.write_text(json.dumps(record))
    return made


def end_of(state: SweepState, study: Any) -> dict[str, Any]:
    stream = io.StringIO()
    view = JsonView(state.sweep, state.folder, stream, resumed=False, people=PlainView(state.sweep, io.StringIO()))
    view.start()
    view.end(Outcome(state.folder.root, state.progress, study, 0, "", 1.0), state)
    end: dict[str, Any] = json.loads(stream.getvalue().splitlines()[-1])
    return end


def test_all_views_of_a_sweep_agree(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    study, state = read_state(folder)
    end = end_of(state, study)
    status.show(folder)
    views = {
        "status": capsys.readouterr().out,
        "screen": "\n".join(line.text for line in layout(state, 200, 60)),
        "summary": summarize(state),
        "report": paper(folder).text,
    }
    texts = {name: re.sub(r"\s+", " ", text) for name, text in views.items()}

    def shows(telling: Callable[[str], str], *, least: int = 4) -> None:
        """The number that `telling` phrases for a view stands in it; "" where that view does not show it."""
        wanted = {name: telling(name) for name in texts}
        assert sum(map(bool, wanted.values())) >= least
        assert {name: text for name, text in wanted.items() if text not in texts[name]} == {}

    def in_report(text: str, other: str) -> Callable[[str], str]:
        return lambda name: other if name == "report" else text

    for fate, n in end["counts"].items():
        shows(lambda _, said=f"{n} {fate}": said)  # type: ignore[misc]
    assert end["counts"] == {"complete": 6, "stopped": 2, "failed": 1, "running": 1}

    best, incumbent = end["best"], end["incumbent"]
    assert (best["trial"], best["state"], incumbent["state"]) == (6, "stopped", "complete")
    place = f"(trial {best['trial']}, epoch {best['step']})"
    value = f"{best['value']:.6g}"
    shows(lambda name: {"report": f"Best loss {place} {value}", "summary": f"best: loss {value} {place}"}.get(
        name, f"best so far, stopped: loss {value} {place}"))  # fmt: skip
    place = f"(trial {incumbent['trial']}, epoch {incumbent['step']})"
    value = f"{incumbent['value']:.6g}"
    shows(lambda name: f"the best complete one: loss {value} {place}" if name in ("report", "summary") else
          f"incumbent, the best complete: {value} {place}")  # fmt: skip

    spent, saved = end["spent"], end["saved"]
    assert min(spent, saved) > 0
    share = f"{saved / (spent + saved):.0%}"
    shows(lambda name: f"{spent} spent saved by stops, estimate {saved} ({share}" if name == "report" else
          f"epochs: {spent} spent, about {saved} saved ({share}")  # fmt: skip
    worker, kept = clock(end["worker_seconds"]), clock(end["worker_seconds_saved"])
    shows(in_report(f"worker time: {worker} spent, about {kept} saved", f"Worker time {worker} spent"))
    assert end["seconds_total"] == WALL
    shows(lambda name: "" if name == "summary" else f"wall clock{':' * (name != 'report')} {clock(WALL)}", least=3)
    assert clock(WALL) in summarize(state, seconds=1.0)
    cost = {name: money(amount) for name, amount in end["money"].items()}
    shows(lambda name: f"Cost {cost['spent']} spent" if name == "report" else f"money: {cost['spent']} spent")
    shows(lambda name: f"estimate {cost['saved']}" if name == "report" else f"about {cost['saved']} saved")

    assert 0 < end["risk"] < 1
    risk, _, independent = risk_told(end["risk"], end["risk_independent"], end["calibration"]).partition("; ")
    shows(lambda name: independent)
    shows(in_report(f"lost the winner: {risk}", f"lost the winner {risk}"))
    assert (end["looks"], end["failed_open"]) == (10, 1)
    shows(lambda name: {"report": "Looks 10 forecasts p50 15 ms p99 200 ms failed open 1 network LATE 1",
                        "summary": "looks: 10 forecasts, p50 15 ms, p99 200 ms; no forecast, so the trial went on: "
                                   "network LATE 1"}.get(
                            name, "looks: 10, p50 15 ms, p99 200 ms, 1 without a forecast"))  # fmt: skip
