"""`lcsearch explain`: the story of one trial, plain text for any terminal."""

from __future__ import annotations

import math
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcsearch.curves import Curve
from lcsearch.errors import FileProblem
from lcsearch.schedulers.optuna import as_trial
from lcsearch.session.decision_log import read_log
from lcsearch.session.explain import judged_looks, nearest
from lcsearch.stopping.decision import percent
from lcsearch.stopping.risk import StopRecord
from lcsearch.study import Trial, judged_loss
from lcsearch.sweep.monitor import run_record
from lcsearch.sweep.monitor.progress import Progress, Row
from lcsearch.sweep.monitor.state import SweepState
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store import worker_log
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.ownership import REPLAYED, times
from lcsearch.sweep.store.turns import next_turn
from lcsearch.sweep.views.cuts import cuts_of
from lcsearch.sweep.views.phrases import best_line, legend, standing, turns_told
from lcsearch.sweep.views.sparkline import spark
from lcsearch.sweep.views.summary import at, configuration, run_again, shown, unfinished

if TYPE_CHECKING:
    import optuna

_TURNS = 5  # the latest ones
_LAST_LINES = 12  # of what a failed trial printed


def check_word(word: str) -> None:
    """See that `word` may name a trial: a number, or "best".

    Raises:
        FileProblem: it cannot.
    """
    if word != "best" and not (word.isdecimal() and len(word) < 19):
        text = f"expected the number of a trial, or 'best', got {word!r}."
        if os.path.isdir(word):  # whatever was typed, however long
            text += f" The trial comes first: lcsearch explain best {shlex.quote(word)}"
        raise FileProblem(text)


def number_of(word: str, progress: Progress) -> int:
    """The trial that `word` names: a number, or "best".

    Raises:
        FileProblem: it names none.
    """
    check_word(word)
    if word != "best":
        return int(word)
    if progress.best is None:
        raise FileProblem("expected the number of a trial, got 'best': no trial has reached a finite value.")
    return progress.best.number


def explain(number: int, state: SweepState, study: optuna.Study) -> str:
    """The full story of one trial.

    Raises:
        FileProblem: there is no such trial.
    """
    progress, sweep, folder = state.progress, state.sweep, state.folder
    row = progress.numbered.get(number)
    if row is None:
        known = f"0 to {progress.rows[-1].number}" if progress.rows else "none yet"
        raise FileProblem(f"{folder.root}: expected the number of a trial ({known}), got {number}.")
    lines = [f"trial {number}: {row.state}, {row.spent} of {sweep.max_steps} {sweep.step}s{_beyond(row, sweep)}"]
    lines += configuration(row.params, "  ")
    lines += _curve(row, sweep)
    if row.retries:
        lines.append(f"its worker died {times(row.retries)}; it went on {run_record.place(folder, number)}")
    if (n := int(row.noted.get(REPLAYED, (0,))[0])) > 0:
        reports = f"{n} of its reports came" if n > 1 else "one of its reports came"
        lines.append(f"it was taken up again, and {reports} a second time: {sweep.step}s spent count each once")
    lines += [f"it runs trial {other.number} again, which failed" for other in progress.rows if other.again == number]
    lines += _why(row, state, study)
    best = progress.best
    if best is not None:
        lines.append("it is the best trial" if best.number == number else f"best: {best_line(best, sweep)}")
        if text := standing(progress, sweep):
            lines.append(f"  {text}")
    lines.append(f"checkpoints: {shown(folder.checkpoints(number))}")
    if row.slot is not None:
        lines.append(f"printed to: {shown(_log(row, sweep, folder))}")
    lines += [f"! {text}" for text in state.damage]
    if not unfinished(progress, folder):
        lines.append(f"next: lcsearch report{at(folder)}")
    return "\n".join(lines)


def _beyond(row: Row, sweep: SweepFile) -> str:
    """That a program had trained further than its curve, where its stop came."""
    if row.state != "stopped" or row.spent <= row.judged_to:
        return ""
    died = "an attempt that died had come further, or " if row.retries else ""
    return f" trained, of which its curve has {row.judged_to}: {died}the program had gone on by the time its stop came"


def _why(row: Row, state: SweepState, study: optuna.Study) -> list[str]:
    """What ended the trial, or what holds it, and why it has its configuration."""
    lines = "\n".join(_became(row, state, study)).splitlines()
    told = f"it was begun as {row.begun}"
    return lines if not row.begun or told in lines else [*lines, told]


def _became(row: Row, state: SweepState, study: optuna.Study) -> list[str]:
    """What ended the trial, or what holds it."""
    sweep, folder = state.sweep, state.folder
    explainer = getattr(study.pruner, "explain", None)
    match row.state:
        case "failed":
            again = [] if row.again is None else [f"it is run again as trial {row.again}"]
            return [f"error: {row.note}", *again, *_last_lines(row, sweep, folder)]
        case "complete":
            if row.thawed is not None:
                return [f"it is {row.thawed}; nothing stops it again"]
            near = _nearest(row, sweep, folder, study) if explainer is not None else []
            return [f"it was not stopped{_overtaken(row, sweep, study)}", *near]
        case "paused":
            return [next_turn(study, folder, sweep, row.number), *turns_told(state, _TURNS)]
        case "stopped" if explainer is None or (row.stop is None and row.note):
            return [row.note, *_rank(row, sweep, folder, study)]
        case "waiting":
            line = "" if run_record.at_work(folder) else f": {run_again(folder, '--resume')}"
            return [f"it waits for a worker{line}"]
    if explainer is None or not row.values:
        return []
    text = str(explainer(row.number, study))
    by_chance = (row.state == "running" and row.thawed is None) or (
        row.stop is not None and row.stop.chance is not None
    )
    return [text, *_today(row, state), *([legend(sweep)] if by_chance else [])]


def _rank(row: Row, sweep: SweepFile, folder: RunFolder, study: optuna.Study) -> list[str]:
    """How a trial that ended while it was paused ranks where it was paused."""
    trials = study.get_trials(deepcopy=False)
    return [
        f"rank {cut.rank[0]} of {cut.rank[1]} by value at {sweep.step} {cut.step:g}, as things stand now"
        for cut in cuts_of([row], trials, sweep.target, folder.decisions, sweep.step)
    ]


def _today(row: Row, state: SweepState) -> list[str]:
    """What a stop is worth by now, where that is not what it said: the summary and the risk go by it."""
    stops = () if state.ledger is None else state.ledger.stops
    stop = next((stop for stop in stops if stop.trial == row.number), None)
    if stop is None or stop.p is None or not math.isfinite(stop.p_now) or percent(stop.p_now) == percent(stop.p):
        return []
    told = f"as things stand now: P(beat) {percent(stop.p_now)}"
    return [f"{told}, the stop's forecast against today's incumbent and margin"]


def _overtaken(row: Row, sweep: SweepFile, study: optuna.Study) -> str:
    """That a look at a trial that ran to its end came to a stop."""
    frozen = next(t for t in study.get_trials(deepcopy=False) if t.number == row.number)  # one before may be gone
    stop = as_trial(frozen).stop_records.get("ignored")
    if not isinstance(stop, StopRecord):
        return ""
    return f", although a look at {sweep.step} {stop.step:g} came to a stop: by then it was too late to carry it out"


def _nearest(row: Row, sweep: SweepFile, folder: RunFolder, study: optuna.Study) -> list[str]:
    """The look at which a trial that ran to its end was nearest to a stop, by the decision log; else what held it."""
    looks: list[dict[str, Any]] = []
    if folder.decisions.is_dir():
        looks = judged_looks(read_log(folder.decisions), Trial(str(row.number), Curve.of(row.values)))
    if not looks:
        text = str(study.pruner.explain(row.number, study))  # type: ignore[attr-defined]  # it is a CurvePruner
        return text.splitlines()[1:]
    return [*nearest(looks, f"in {shown(folder.decisions)}", step=sweep.step), legend(sweep)]


def _log(row: Row, sweep: SweepFile, folder: RunFolder) -> Path:
    return folder.trial_log(row.number) if sweep.backend.kind == "ray" else folder.log(row.slot or 0)


def _last_lines(row: Row, sweep: SweepFile, folder: RunFolder) -> list[str]:
    """The end of what a trial printed; a worker's log holds its other trials too."""
    log = _log(row, sweep, folder)
    try:
        if sweep.backend.kind == "ray":
            tail = worker_log.tail(log, _LAST_LINES)
        else:
            tail = worker_log.last_lines(log, folder.told(row.slot or 0), row.number, _LAST_LINES)
    except OSError:
        return []
    return ["the last lines it printed:", *(f"  {line}" for line in tail)] if tail else []


def _curve(row: Row, sweep: SweepFile) -> list[str]:
    if not row.values:
        return ["it reported nothing"]
    values = list(row.values.values())
    steps = list(row.values)
    drawn = spark(values, 40)
    lines = [f"{sweep.metric} over {sweep.step} {steps[0]}..{steps[-1]}: {drawn}"]
    lines.append(f"  first {values[0]:.6g}, last {values[-1]:.6g}")
    curve, goal = Curve.of(row.values), replace(sweep.target, judged="best")
    if len(curve):
        loss, step = judged_loss(curve, goal)
        lines[-1] += f", best {goal.sign * loss:.6g} at {sweep.step} {int(step)}"
    if n := curve.event_steps.size:
        lines[-1] += f"; {n} reports were no finite number"
    if set(drawn) & {"^", "v"}:
        lines[-1] += "; ^ and v lie far off the scale, above and below"
    return lines
