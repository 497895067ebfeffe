"""The report: its numbers are the summary's, it stands alone, and odd runs get one too."""

from __future__ import annotations

import io
import json
import math
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from PIL import Image
from sweep.kit import Remembering, state_of, write_toy
from typer.testing import CliRunner

from lcsearch.cli import app
from lcsearch.errors import EnvironmentProblem, FileProblem
from lcsearch.schedulers.optuna import REASON
from lcsearch.stopping.risk import LEVELS, StopRecord
from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor import open_run, progress
from lcsearch.sweep.monitor.importances import LEAST, MOST, importances
from lcsearch.sweep.monitor.outcome import Outcome
from lcsearch.sweep.monitor.state import SweepState
from lcsearch.sweep.report.collect import Report, axis_of, best_path, collect
from lcsearch.sweep.report.figures import LIGHT, p_beat, scale_of
from lcsearch.sweep.report.page import page as make_page
from lcsearch.sweep.report.write import write
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store import studies
from lcsearch.sweep.store.budget import Reading
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views.summary import summarize

CURVES = """\
def train(ctx):
    if ctx.number == 7:
        raise ValueError("no <luck> & such")
    for epoch in range(1, ctx.max_steps + 1):
        ctx.report(ctx.params["a"] + 0.8 ** epoch, epoch)
"""
BEGAN = datetime(2024, 1, 1)
VOID = {"meta", "img", "source", "br", "link"}


class Reader(HTMLParser):
    """The text of a page, its attributes, and whether every tag that is opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.said))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.said.append(data)


def read(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def paper(folder: RunFolder) -> Reader:
    """The page without its figures, which take a second."""
    return Reader(make_page(collect(folder), []))


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A real run with stops, completions and a failure."""
    folder = tmp_path_factory.mktemp("toy")
    path = write_toy(folder, CURVES, max_steps=20, trials=24, workers=2, pruner="curve")
    return launcher.run(path, folder=folder / "run", view=Remembering())


@pytest.fixture(scope="module")
def page(outcome: Outcome) -> Path:
    return write(RunFolder(outcome.folder))


def test_the_numbers_are_the_summary_s(outcome: Outcome, page: Path) -> None:
    done, text = outcome.progress, read(page).text
    assert len(done.of("stopped")) > 3
    said = summarize(state_of(outcome))
    ((spent, saved, share, total),) = re.findall(r"epochs: (\d+) spent, about (\d+) saved \((\d+%) of (\d+)\)", said)
    assert (
        f"Compute in epochs {spent} spent saved by stops, estimate {saved} ({share} of {total}) unpruned {total}"
        in (re.sub(r" +", " ", text))
    )
    ((value, where),) = re.findall(r"best: loss (\S+) (\(trial \d+, epoch \d+\))", said)
    assert f"Best loss {where} {value}" in text
    assert done.best is not None
    for name, param in done.best.params.items():
        assert f"{name} {param:.6g}" in text
    (risk,) = re.findall(r"winner: (.+ \((?:weights certified|uncalibrated|calibrated on \d+)\).*)", said)
    assert f"lost the winner {risk}" in text
    ((n, p50, p99),) = re.findall(r"looks: (\d+) forecasts, p50 (\d+) ms, p99 (\d+) ms", said)
    assert f"Looks {n} forecasts p50 {p50} ms p99 {p99} ms failed open 0" in text
    assert re.search(rf"{done.counts['complete']} complete.{{3}}{done.counts['stopped']} stopped", text)
    for stop in done.of("stopped"):
        mark = StopRecord.from_json(outcome.study.trials[stop.number].system_attrs["lcsearch:mark"])
        assert re.sub(r"\s+", " ", mark.text) in text
    assert "ValueError: no <luck> & such" in text


def test_what_is_collected_of_stops_and_looks(outcome: Outcome) -> None:
    report = collect(RunFolder(outcome.folder))
    assert [stop.number for stop in report.stops] == [row.number for row in outcome.progress.of("stopped")]
    for stop in report.stops:
        row = report.progress.rows[stop.number]
        assert (stop.reason, stop.step, stop.saved) == ("BELOW", row.spent, 20 - row.spent)
        assert stop.p is not None
        assert stop.p_before is not None
        assert stop.threshold is not None
        assert max(stop.p, stop.p_before) < stop.threshold
        assert stop.incumbent is not None
        assert stop.rank is not None
        assert f"incumbent {stop.incumbent[0]:.4g} of trial {stop.incumbent[1]}, " in row.note
        assert f"rank {stop.rank[0]} of {stop.rank[1]} at" in row.note
        assert len(stop.forecast) == len(LEVELS)
        assert report.looks[stop.number][-1][:2] == (stop.step, stop.p)
    state, c = report.state, outcome.progress
    assert state.risk == pytest.approx(sum(stop.p_today or 0.0 for stop in report.stops))
    assert (report.progress.spent, report.progress.saved, state.unpruned) == (c.spent, c.saved, c.spent + c.saved)
    assert state.seconds_unpruned == pytest.approx(report.progress.seconds + (report.progress.seconds_saved or 0.0))
    assert c.best is not None
    assert report.best_path[-1] == (c.spent, c.best.value)
    assert [v for _, v in report.best_path[:-1]] == sorted({v for _, v in report.best_path}, reverse=True)
    assert sum(share for _, share in report.importances.shares) == pytest.approx(1.0)
    assert report.importances.shares[0][0] == "a"  # the toy's loss is `a` and nothing else


def test_the_page_stands_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import|<script|javascript:", text)
    seen = read(page)
    links = [value for name, value in seen.attributes if name in ("src", "srcset", "href", "action", "data")]
    assert len(links) >= 10
    assert all(value.startswith("data:image/png;base64,") for value in links)
    assert not {"script", "link", "iframe", "object"} & set(seen.tags)
    assert all(value for name, value in seen.attributes if name == "alt")
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_the_figures_are_pngs(page: Path) -> None:
    names = ("best", "calibration", "curves", "fans", "importances", "p_beat", "stops", "timeline")
    assert sorted(path.name for path in page.parent.iterdir()) == sorted(
        [*(f"{name}.png" for name in names), "report.html"]
    )
    for name in names:
        data = (page.parent / f"{name}.png").read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            image.verify()
            assert image.width > 1000


def test_the_same_run_gives_the_same_bytes(outcome: Outcome, page: Path, tmp_path: Path) -> None:
    again = write(RunFolder(outcome.folder), tmp_path / "deep" / "er")
    for path in page.parent.iterdir():
        assert (again.parent / path.name).read_bytes() == path.read_bytes(), path.name


def test_without_a_decision_log(outcome: Outcome, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("run.json", "sweep.yaml", "study.sqlite3"):
        (tmp_path / "run" / name).write_bytes((outcome.folder / name).read_bytes())
    text = paper(RunFolder(tmp_path / "run")).text
    assert text.count("there is no decision log") == text.count("what is known of stops comes from the study") == 1
    assert "Looks none yet" in text
    stop = collect(RunFolder(tmp_path / "run")).stops[0]
    kept = collect(RunFolder(outcome.folder)).stops[0]  # a record keeps the whole decision
    assert (stop.p, stop.p_before, stop.threshold, stop.rank) == (kept.p, kept.p_before, kept.threshold, kept.rank)
    assert None not in (stop.p, stop.p_before, stop.threshold, stop.rank)
    assert "the whole story" in text  # its numbers stand in the columns
    (tmp_path / "run" / "decisions").mkdir()
    torn = '{"trial": "3", "now": {"step": 4.0, "p": NaN}}\n{"trial": "3", "now": {"st'
    (tmp_path / "run" / "decisions" / "w.jsonl").write_text(torn)  # NaN is no probability; what is torn is not told
    said = paper(RunFolder(tmp_path / "run")).text
    assert f"a place of the decision log is no record of a look and left out, the first: {tmp_path}/run/" in said
    assert said.count("w.jsonl:") == 1
    (tmp_path / "run" / "decisions" / "w.jsonl").write_text("5\n")
    assert "a place of the decision log is no record" in paper(RunFolder(tmp_path / "run")).text


# Runs that were never trained: a folder, and a study filled by hand, which is kept in memory: sqlite takes its time.

STUDIES: dict[Path, BaseStorage] = {}


@pytest.fixture(autouse=True)
def _studies_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    real = studies.open_storage

    def open_storage(sweep: SweepFile, folder: RunFolder, **settings: Any) -> BaseStorage:
        return STUDIES.get(folder.root) or real(sweep, folder, **settings)

    monkeypatch.setattr(studies, "open_storage", open_storage)


def folder_of(tmp_path: Path, trials: list[FrozenTrial], **changes: Any) -> RunFolder:
    """A run folder whose study holds `trials`."""
    pruner = changes.pop("pruner", "curve")
    sweep = load(write_toy(tmp_path, max_steps=10, trials=max(len(trials), 1), pruner=pruner))
    file = SweepFile.model_validate_json(json.dumps({**sweep.file.model_dump(mode="json", by_alias=True), **changes}))
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    folder.decisions.mkdir()
    folder.write(type(sweep)(file, sweep.path, sweep.text))
    studies.quiet_optuna()
    STUDIES[folder.root] = InMemoryStorage()
    (folder.root / "study.sqlite3").touch()
    study = studies.create_study(file, folder, resume=False)
    study.add_trials(trials)
    return folder


SPACE: dict[str, BaseDistribution] = {"a": FloatDistribution(0.0, 1.0), "lr": FloatDistribution(1e-5, 1e-1, log=True)}


def trial(
    number: int,
    values: dict[int, float],
    state: TrialState = TrialState.COMPLETE,
    *,
    space: dict[str, BaseDistribution] = SPACE,
    attrs: dict[str, Any] | None = None,
    mark: StopRecord | None = None,
) -> FrozenTrial:
    drawn = {"a": (number * 0.37) % 1.0, "lr": 10 ** -(1.0 + (number * 0.61) % 4.0)}
    value = next(reversed(values.values())) if state == TrialState.COMPLETE else None
    made = create_trial(
        state=state,
        value=value if value is None or not math.isnan(value) else math.inf,
        params={name: drawn.get(name, distribution_choice(distribution)) for name, distribution in space.items()},
        distributions=space,
        intermediate_values=values,
        user_attrs={"lcsearch:worker": {"slot": number % 2}, **(attrs or {})},
        system_attrs={} if mark is None else {"lcsearch:mark": mark.to_json()},
    )
    began = BEGAN + timedelta(seconds=10 * number)
    made.datetime_start, made.datetime_complete = began, began + timedelta(seconds=15)
    if not state.is_finished():
        made.datetime_complete = None
    return made


def distribution_choice(distribution: BaseDistribution) -> Any:
    return getattr(distribution, "choices", (0.5,))[0]


def paced(seconds: float, gaps: int = 9) -> dict[str, Any]:
    """What a worker stores of a trial's pace; what the trial took is left to its own times."""
    return {"lcsearch:took": {"since": "", "seconds": 0.0, "pace": seconds, "gaps": gaps}}


def falling(number: int, steps: int = 10) -> dict[int, float]:
    return {step: (number * 0.37) % 1.0 + 1 / step for step in range(1, steps + 1)}


def stopped(number: int, text: str = "why") -> FrozenTrial:
    losses = tuple(0.05 + level for level in LEVELS)
    mark = StopRecord(4, "BELOW", 0.01, text, losses)
    return trial(number, falling(number, 4), TrialState.PRUNED, attrs={REASON: text}, mark=mark)


def begun(found: FrozenTrial, number: int, why: str) -> FrozenTrial:
    """The trial, with why it has its configuration."""
    found.system_attrs["lcsearch:begun"] = {"row": 0, "why": why, "of": number}
    return found


def test_why_trials_were_begun(tmp_path: Path) -> None:
    own, chosen = "the sampler's own: one of the first 2 trials", "the one of 256 candidates that is forecast <most>"
    trials = [begun(trial(n, falling(n)), n, own) for n in range(2)]
    trials += [begun(trial(3, {10: 0.01}), 2, chosen), begun(stopped(4), 3, chosen), trial(5, falling(5))]
    text = paper(folder_of(tmp_path, trials)).text
    assert "Configurations 2 of 4 chosen by forecasts one of the first 2 trials 2 The others are the sampler's" in text
    assert f"begun as {chosen}" in text  # the best one
    assert f"why it was begun as {chosen}" in text  # in the story of the stopped one


def test_trials_that_doubt_left_to_the_sampler_are_one_row(tmp_path: Path) -> None:
    own, chosen = (
        "the sampler's own: one of the first 2 trials",
        "the one of 256 candidates that is forecast to gain most",
    )
    doubts = [
        f"the sampler's own, as {n} of all are, while what forecasts choose is better than it in {n}"
        for n in ("61%", "58%")
    ]
    trials = [begun(trial(n, falling(n)), n, why) for n, why in enumerate([own, *doubts, chosen])]
    text = paper(folder_of(tmp_path, trials)).text
    doubted = "more of them while choices stood behind 2 one of the first 2 trials 1"
    assert f"Configurations 1 of 4 chosen by forecasts {doubted}" in text


def test_where_no_forecast_has_a_say_nothing_is_said_of_configurations(tmp_path: Path) -> None:
    assert "Configurations" not in paper(folder_of(tmp_path, [trial(0, falling(0))])).text


def test_a_thawed_trial_is_drawn(tmp_path: Path) -> None:
    goes_on = trial(2, falling(2))
    goes_on.system_attrs["lcsearch:thaw"] = {"stopped": 1, "step": 4.0, "p": 0.01, "now": 0.02, "anew": False}
    text = read(write(folder_of(tmp_path, [trial(0, falling(0)), stopped(1), goes_on]))).text
    assert "1 thawed" in text


def test_no_trials(tmp_path: Path) -> None:
    text = read(write(folder_of(tmp_path, []))).text
    for said in ("no trials yet", "none yet", "0 spent", "nothing yet", "not known", "No trial was stopped.",
                 "No trial has reported a value that can be drawn yet.", "Too few trials: 0 complete"):  # fmt: skip
        assert said in text
    assert [path.name for path in (tmp_path / "run" / "report").iterdir()] == ["report.html"]


def test_no_complete_trial(tmp_path: Path) -> None:
    running = trial(0, falling(1, 5), TrialState.RUNNING)
    waiting = trial(1, falling(2, 3), TrialState.RUNNING, attrs={"lcsearch:worker": None})
    failed = trial(2, falling(3, 2), TrialState.FAIL, attrs={"lcsearch:error": "OSError: disk", **paced(7.5, 1)})
    report = collect(folder := folder_of(tmp_path, [running, waiting, failed]))
    assert (report.progress.spent, report.progress.saved, report.state.unpruned) == (10, 0, 22)
    # the failed one took 15 s, 7.5 s from its first step to its second; of the others nothing is known
    assert (report.progress.seconds, report.state.seconds_unpruned) == (15.0, 105.0)
    text = read(write(folder)).text
    assert "Not finished: 2 running or waiting, 0 of 3 not begun." in text
    assert "OSError: disk" in text
    assert "Trial 0 is running, not complete; the incumbent, which others must beat, is none yet." in text


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    odd = {1: math.nan, 2: math.inf, 3: -math.inf, 4: 1e308, 5: -1e308}
    trials = [trial(0, odd), trial(1, falling(1)), trial(2, dict.fromkeys(range(1, 11), math.nan))]
    assert (write(folder_of(tmp_path, trials)).parent / "curves.png").exists()


def test_nothing_but_nan(tmp_path: Path) -> None:
    path = write(folder_of(tmp_path, [trial(n, dict.fromkeys(range(1, 11), math.nan)) for n in range(12)]))
    assert "No trial has reported a value that can be drawn yet." in read(path).text
    assert not (path.parent / "curves.png").exists()


def test_every_value_the_same(tmp_path: Path) -> None:
    text = read(write(folder_of(tmp_path, [trial(n, dict.fromkeys(range(10), 0.0)) for n in range(12)]))).text
    assert "Every trial reached the same value: there is nothing to explain." in text


def test_maximize_and_judged_by_the_last_value(tmp_path: Path) -> None:
    trials = [trial(n, {s: 0.9 - 0.5 / s - 0.01 * n for s in range(1, 11)}) for n in range(3)]
    losses = tuple(-0.8 + level / 10 for level in LEVELS)
    mark = StopRecord(4, "BELOW", 0.01, "why", losses)
    trials.append(trial(3, {1: 0.95, 2: 0.1}, TrialState.PRUNED, mark=mark))
    report = collect(folder := folder_of(tmp_path, trials, goal="maximize", judged="final"))
    assert report.progress.best is not None
    assert report.progress.best.number == 0
    assert report.best_path[-1] == pytest.approx((32, 0.85))
    assert report.stops[0].forecast[0] == pytest.approx(0.79999)
    assert report.stops[0].forecast == tuple(sorted(report.stops[0].forecast, reverse=True))
    assert write(folder).exists()


def test_another_pruner_s_stops(tmp_path: Path) -> None:
    trials = [
        trial(0, falling(0)),
        trial(1, falling(1, 3), TrialState.PRUNED, attrs={REASON: "median pruner: no"}),
    ]
    text = paper(folder_of(tmp_path, trials, pruner="median")).text
    assert "1 3 - - - - - - - 7 median pruner: no" in text
    assert "lost the winner" not in text
    assert "decision log" not in text


def test_a_run_that_ray_trained(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [trial(n, falling(n)) for n in range(6)] + [stopped(6)], backend={"kind": "ray"})
    text = paper(folder).text
    assert "2 workers on ray" in text
    assert "6 4 BELOW" in text


def test_parameters_that_only_some_trials_have(tmp_path: Path) -> None:
    extra = {**SPACE, "momentum": FloatDistribution(0.0, 1.0)}
    trials = [trial(n, falling(n), space=extra if n % 2 else SPACE) for n in range(20)]
    text = paper(folder_of(tmp_path, trials)).text
    assert "Not ranked, because only some trials have them: momentum." in text
    assert "20 trials (20 complete, 0 stopped" in text


def test_importances_without_enough_to_compare(tmp_path: Path) -> None:
    goal = load(write_toy(tmp_path)).file.target
    assert importances([trial(n, falling(n)) for n in range(LEAST - 1)], goal).basis == (
        "Too few trials: 9 complete or stopped with a finite value, 10 are needed."
    )
    one = {"a": SPACE["a"]}
    assert importances([trial(n, falling(n), space=one) for n in range(20)], goal).basis == (
        "Fewer than two parameters were drawn in every trial: there is nothing to compare."
    )


def test_a_choice_of_many_does_not_take_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of k columns of one parameter fANOVA tries 2^k mixtures: at thirty choices `lcsearch report` never ended."""
    columns: list[int] = []

    def asked(study: optuna.Study, **_: Any) -> dict[str, float]:
        for name, known in study.trials[0].distributions.items():
            columns.append(len(known.choices) if isinstance(known, optuna.distributions.CategoricalDistribution) else 1)
            assert len({t.params[name] for t in study.trials}) > 1
        return {"a": 0.5, "many": 0.5}

    many = optuna.distributions.CategoricalDistribution([f"choice {n}" for n in range(30)])
    monkeypatch.setattr("lcsearch.sweep.monitor.importances.get_param_importances", asked)
    goal = load(write_toy(tmp_path)).file.target
    trials = [trial(n, falling(n), space={"a": SPACE["a"], "many": many}) for n in range(20)]
    for n, one in enumerate(trials):
        one.params["many"] = f"choice {n}"
    assert dict(importances(trials, goal).shares) == {"a": 0.5, "many": 0.5}
    assert sorted(columns) == [1, 1]


def test_importances_survive_a_failing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no <luck>")

    monkeypatch.setattr("lcsearch.sweep.monitor.importances.get_param_importances", fail)
    text = paper(folder_of(tmp_path, [trial(n, falling(n)) for n in range(20)])).text
    assert "Not available: RuntimeError: no <luck>" in text


def test_what_users_write_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('$1')</script>&\"$x_{$"
    space = {**SPACE, evil: optuna.distributions.CategoricalDistribution((evil,))}
    trials = [trial(n, falling(n), space=space) for n in range(12)]
    trials.append(stopped(12, f"{evil}\n\x00 \N{SNOWMAN} 雪"))
    trials.append(trial(13, {}, TrialState.FAIL, attrs={"lcsearch:error": evil}))
    folder = folder_of(tmp_path, trials, metric=evil, step=evil)
    path = write(folder)
    page = path.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(" in page
    seen = read(path)  # every tag closed, none from the text
    assert seen.text.count(evil) > 5
    assert "script" not in seen.tags


def test_trials_without_times(tmp_path: Path) -> None:
    trials = [trial(n, falling(n)) for n in range(3)]
    for number, one in enumerate(trials):
        one.number, one.datetime_start = number, None
    file = load(write_toy(tmp_path, max_steps=10)).file
    found = progress.collect(trials, file.target, 3, file.space)
    state = SweepState(file, RunFolder(tmp_path), found)
    assert (found.spent, found.saved, found.seconds) == (30, 0, 0.0)
    assert (state.unpruned, state.seconds_unpruned, state.wall) == (30, None, 20.0)
    assert best_path(found.rows, file.target, axis_of(found.rows, Reading()))[0] == pytest.approx((1, 1.0))


def test_of_a_trial_that_was_taken_up_again_the_night_between_does_not_count(tmp_path: Path) -> None:
    """What its workers took was measured; status and summary say the same."""
    trials = [trial(n, falling(n)) for n in range(3)]
    night = trial(3, falling(3), attrs={"lcsearch:retries": 0, "lcsearch:seconds": 40.0, **paced(2.0)})
    night.datetime_complete = BEGAN + timedelta(days=1)
    away = trial(4, falling(4, 5), TrialState.RUNNING, attrs={"lcsearch:retries": 0, "lcsearch:seconds": 10.0})
    folder = folder_of(tmp_path, [*trials, night, away], budget={"trials": 5, "money_per_hour": 7200})
    _, state = open_run.read_state(folder)
    assert (state.progress.seconds, state.progress.seconds_saved, state.seconds_unpruned) == (95.0, 0.0, 105.0)
    assert "money: 190.00 spent (0.0264 worker hours at 7200)" in summarize(state)
    text = paper(folder).text
    assert "Worker time 1 min 35 s spent" in text
    assert "Cost 190.00 spent saved by stops, estimate 0.00 unpruned, estimate 210.00" in text
    assert "0.0264 worker hours at 7200 each." in text


def test_the_cost_of_stops_where_an_hour_has_a_price_and_only_there(tmp_path: Path) -> None:
    short = trial(1, falling(1, 3), TrialState.PRUNED, attrs=paced(4.0))
    made = folder_of(tmp_path, [trial(0, falling(0)), short], budget={"trials": 2, "money_per_hour": 3600})
    assert "Cost 30.00 spent saved by stops, estimate 28.00 unpruned, estimate 58.00" in paper(made).text
    (tmp_path / "free").mkdir()
    assert "Cost" not in paper(folder_of(tmp_path / "free", [trial(0, falling(0)), short])).text


def test_reports_from_step_0_and_fewer_than_the_horizon(tmp_path: Path) -> None:
    report = collect(folder_of(tmp_path, [trial(0, {0: 3.0, 4: 2.0, 8: 1.0}), trial(1, dict.fromkeys(range(10), 2.0))]))
    assert report.progress.spent == 20
    assert report.best_path[-1] == (20, 1.0)


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ([{s: 10.0 ** -(s / 2) for s in range(1, 11)}] * 3, True),
        ([{s: 1 + 1 / s for s in range(1, 11)}] * 3, False),
        ([{s: 1 / s - 0.2 for s in range(1, 11)}] * 3, False),
        ([{s: 1 + 1 / s for s in range(1, 11)}] * 20 + [{1: 1e30}], False),  # what diverged does not count
    ],
)
def test_a_logarithmic_axis_where_values_ask_for_it(tmp_path: Path, values: list[dict[int, float]], log: bool) -> None:
    report = collect(folder_of(tmp_path, [trial(n, curve) for n, curve in enumerate(values)]))
    scale = scale_of(report)
    assert scale is not None
    assert scale.log is log
    assert scale.low < min(v for curve in values for v in curve.values())
    assert scale.high < 100


def threshold_line(report: Report) -> tuple[list[tuple[float, float]], str]:
    figure = p_beat(report, LIGHT)
    assert figure is not None
    (line,) = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    (said,) = [text.get_text() for text in figure.legends[0].get_texts() if text.get_text().startswith("threshold")]
    return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())], said


@pytest.mark.parametrize(
    ("curves", "rises"),
    [
        ([falling(0), falling(1)], 7.5),  # epochs from 1: the eighth observation is of epoch 8
        ([{step - 1: value for step, value in falling(n).items()} for n in range(2)], 6.5),
        # one began with reports that were no numbers: most say where it is
        ([falling(0), falling(1), {**falling(2), 1: math.nan, 2: math.nan}], 7.5),
        ([falling(0, 7)], None),
    ],
)
def test_the_threshold_is_drawn_as_it_holds(
    tmp_path: Path, curves: list[dict[int, float]], rises: float | None
) -> None:
    folder = folder_of(tmp_path, [trial(n, curve) for n, curve in enumerate(curves)])
    look = {"now": {"step": 6.0, "p": 0.5, "threshold": 0.01}, "trial": "0", "reason": "ABOVE", "latency": 0.01}
    (folder.decisions / "w.jsonl").write_text(json.dumps({**look, "verdict": "CONTINUE", "time": 0.0}) + "\n")
    line, said = threshold_line(collect(folder))
    assert said == "threshold (1 % below 8 observations)"
    steps = [(0, 0.01), (10.15, 0.01)]
    if rises is not None:
        steps[1:] = [(rises, 0.01), (rises, 0.05), (10.15, 0.05)]
    np.testing.assert_allclose(line, steps)


def many(n: int) -> list[FrozenTrial]:
    text = "trial 0, step 4: STOP (BELOW)\n" + "P(beat) is below the threshold at this look and the previous.\n" * 12
    return [trial(i, falling(i)) if i % 10 == 0 else stopped(i, text[:900]) for i in range(n)]


def test_a_thousand_trials(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, many(1000))
    look = {"step": 3.0, "p": 0.5, "interval": [0.1, 0.2, 0.3], "threshold": 0.05}
    lines = [
        json.dumps({"trial": str(n), "verdict": "CONTINUE", "reason": "ABOVE", "latency": 0.01, "time": 0.0,
                    "now": {**look, "step": float(step), "p": 1 / (n + step)}})
        for n in range(1000) for step in range(1, 5)
    ]  # fmt: skip
    (folder.decisions / "w.jsonl").write_text("\n".join(lines) + "\n")
    began = time.process_time()
    path = write(folder)
    assert time.process_time() - began < 20
    assert path.stat().st_size < 5e6
    text = read(path).text
    assert f"{MOST} trials" in text
    assert "spread evenly over the 1000 there are" in text


def test_the_risk_is_made_of_what_the_table_shows(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [trial(n, falling(n)) for n in range(6)] + [stopped(6), stopped(7)])
    report = collect(folder)
    assert report.state.risk is not None
    assert 0 < report.state.risk < 1
    kept = math.prod(1 - (stop.p_today or 0.0) for stop in report.stops)
    assert report.state.independent == pytest.approx(1 - kept)
    assert report.state.risk == pytest.approx(sum(stop.p_today or 0.0 for stop in report.stops))


def no_run(tmp_path: Path) -> tuple[Path, Path | None]:
    return tmp_path, None


def no_study(tmp_path: Path) -> tuple[Path, Path | None]:
    folder = folder_of(tmp_path, [])
    (folder.root / "study.sqlite3").unlink()
    del STUDIES[folder.root]
    return folder.root, None


def out_is_a_file(tmp_path: Path) -> tuple[Path, Path | None]:
    (tmp_path / "plain").write_text("")
    return folder_of(tmp_path, []).root, tmp_path / "plain" / "out"


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (no_run, 2, "{tmp}: expected a run folder, got no run.json in it. "
                    "Curves of other tools are for `lcsearch replay`."),
        (no_study, 2, "{tmp}/run: expected the study of a run (study.sqlite3), got none. "
                      "Start it with `lcsearch run`."),
        (out_is_a_file, 3, "{tmp}/plain/out: expected a folder lcsearch can write to, got Not a directory. "
                           "Choose another with --out."),
    ],
)  # fmt: skip
def test_what_cannot_be_reported(
    tmp_path: Path, make: Callable[[Path], tuple[Path, Path | None]], code: int, message: str
) -> None:
    folder, out = make(tmp_path)
    with pytest.raises(FileProblem if code == 2 else EnvironmentProblem):
        write(RunFolder(folder), out)
    arguments = ["report", "--folder", str(folder), *(["--out", str(out)] if out else [])]
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stderr) == (code, message.format(tmp=tmp_path) + "\n")
    assert not (folder / "study.sqlite3").exists() or code == 3


def test_the_command_prints_the_page_s_path(outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", "--folder", str(outcome.folder), "--out", "here"])
    assert (done.exit_code, done.stdout) == (0, "here/report.html\n"), done.stderr
    assert (tmp_path / "here" / "report.html").exists()


def test_a_report_s_type_is_frozen(outcome: Outcome) -> None:
    report = collect(RunFolder(outcome.folder))
    assert isinstance(report, Report)
    with pytest.raises(AttributeError):
        report.state = report.state  # type: ignore[misc]


def test_of_very_many_stops_the_likeliest_to_have_won_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every stop has its story on the page: that of 100 000 trials had 160 MB."""
    monkeypatch.setattr("lcsearch.sweep.report.page._STOPS", 3)
    marks = [StopRecord(4.0, "BELOW", p, f"the story of {p}") for p in (0.01, 0.04, 0.02, 0.03, 0.001)]
    trials = [trial(n, falling(n)) for n in range(5)]
    trials += [trial(5 + n, falling(5 + n, 4), TrialState.PRUNED, mark=mark) for n, mark in enumerate(marks)]
    text = paper(folder_of(tmp_path, trials)).text
    assert [p for p in (0.01, 0.04, 0.02, 0.03, 0.001) if f"the story of {p} " in f"{text} "] == [0.04, 0.02, 0.03]
    assert "and 2 more, less likely to have won; `lcsearch explain TRIAL` tells of each" in text
