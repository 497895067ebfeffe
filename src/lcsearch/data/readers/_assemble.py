"""From runs as a format has them to a task, with a word on everything left out."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lcsearch.curves import Curve, Floats
from lcsearch.data.caveats import Caveats
from lcsearch.data.tables import DIRECTIONS, reached
from lcsearch.data.task import Run, Task
from lcsearch.errors import FileProblem, InvalidValue, is_finite_number
from lcsearch.goal import Direction, Goal, Judged
from lcsearch.study import Status, Trial, trained_by

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

Standing = Callable[[Sequence["FrozenTrial"]], Sequence[Trial]]


@dataclass(frozen=True)
class Read:
    """A study as it was read.

    Attributes:
        task: its runs.
        left_out: what is not in the task, and what had to be assumed, in sentences.
        source: what was read, for people: "Optuna study 'digits' in runs/digits/study.sqlite3".
        live: unfinished trials that have reported, where they were asked for; no task has them.
    """

    task: Task
    left_out: tuple[str, ...]
    source: str
    live: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class ReadOptions:
    """What the caller of `read` asked for; None where he left it to the study.

    Attributes:
        study: name of the study, where one place holds several.
        metric: name, tag or column of the metric.
        direction: "minimize" or "maximize".
        max_steps: the horizon.
        judged: "best" or "final".
        steps: count steps where the format has times too.
        trial, step: columns of the trial's name and of the step.
        caveats: what is to be minded of a table of curves.
        live: unfinished trials are kept, beside the task; it may then be of trials with one report each.
        standing: of a study of Optuna, all trials by number -> those that no other one goes on with, as they count.
    """

    study: str | None = None
    metric: str | None = None
    direction: Direction | None = None
    max_steps: float | None = None
    judged: Judged = "best"
    steps: bool = False
    trial: str | None = None
    step: str | None = None
    caveats: Caveats = field(default_factory=dict)
    live: bool = False
    standing: Standing | None = None


@dataclass(frozen=True)
class Found:
    """One run as a format has it.

    Attributes:
        uid: unique in its study.
        curve: what it reported.
        status: None where nobody wrote down how it ended.
        params: its configuration.
        clock: (n_reports,) seconds from its start to each report; None to count steps.
    """

    uid: str
    curve: Curve
    status: Status | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    clock: Floats | None = None


def choose(names: Sequence[str]) -> str:
    """Advice where one of several studies must be named.

    >>> choose(["my study", "another"])
    "give study= (--study 'my study')"
    """
    name = names[0]
    typed = shlex.quote(name) if name.isprintable() else "$'" + "".join(map(_escaped, name)) + "'"
    return f"give study= (--study {typed})"


def _escaped(sign: str) -> str:
    """As bash reads it between $' and '."""
    if sign in "\\'":
        return "\\" + sign
    if sign.isprintable():
        return sign
    return {"\n": "\\n", "\t": "\\t"}.get(sign) or (f"\\x{ord(sign):02x}" if sign.isascii() else f"\\U{ord(sign):08x}")


def direction_of(wish: ReadOptions, source: str) -> Direction:
    """The direction asked for, where the format has none of its own.

    Raises:
        InvalidValue: none was.
    """
    if wish.direction is None:
        text = "'minimize' or 'maximize' (the file does not say which way is better)"
        advice = "give direction= (--direction), and metric= (--metric) where there are several"
        raise InvalidValue(text, None, f"{source}: direction", advice)
    return wish.direction


def as_direction(word: str | None) -> Direction | None:
    """ "min" and "max" too.

    Raises:
        InvalidValue: another word.
    """
    if word is not None and word not in DIRECTIONS:
        raise InvalidValue("'minimize' or 'maximize'", word, "read(direction=)")
    return None if word is None else DIRECTIONS[word]


def count(n: int, noun: str, ending: str = "s") -> str:
    """ "1 trial", "3 trials"."""
    return f"{n} {noun}{'' if n == 1 else ending}"


@dataclass
class Attempts:
    """Tells which of a trial's reports count where it was tried again, and counts over all trials of a study.

    Attributes:
        again: reports of a step that comes again later.
        anew: trials of which an attempt that died had got further than the one after it.
    """

    again: int = 0
    anew: int = 0

    def latest(self, steps: Sequence[float]) -> list[int]:
        """Places of the reports that count, by step, from steps in the order in which they were written.

        Where steps go back to one that was there, and rise again, another attempt begins: what the one before had
        reported beyond is dropped, as TensorBoard does. Where they go back to one that was not there, the table is in
        no order: the last report of every step counts, as it does where a single one comes after all others.
        """
        last = {step: i for i, step in enumerate(steps)}
        self.again += len(steps) - len(last)
        kept, top = dict[float, int](), -math.inf
        for i, step in enumerate(steps):
            if step < top:
                if step not in kept:
                    kept = last
                    break
                if i + 1 < len(steps) and steps[i + 1] > step:
                    kept = {at: place for at, place in kept.items() if at < step}
                    top = step
            kept[step], top = i, max(step, top)
        self.anew += len(kept) < len(last)
        return [kept[step] for step in sorted(kept)]

    def notes(self, report: str, trial: str, verb: str) -> list[str]:
        """What is to be said of it, in the format's own words: "value", "run", "logs"."""
        told = []
        if self.again:
            told.append(f"{count(self.again, report)} at a step that its {trial} {verb} again: the last one counts.")
        if self.anew:
            who = f"{count(self.anew, trial)} began anew after an attempt that had got further"
            told.append(f"{who}: what only that one had reported is left out.")
        return told


def assemble(
    name: str, found: Sequence[Found], wish: ReadOptions, direction: Direction, source: str, notes: Sequence[str] = ()
) -> Read:
    """The task made of `found`.

    Left out are unfinished runs, unless they are asked for, and those without a report. The horizon is
    `wish.max_steps`, else the largest last step of a complete run, else (where nobody wrote down how runs ended) of
    any. A run of unknown end is COMPLETE when its next report would lie beyond the horizon, FAILED when it ended
    earlier in a non-finite report, else STOPPED.
    Reports beyond the horizon are cut off; a run that made them has reached it.

    Raises:
        FileProblem: nothing is left to replay.
        InvalidValue: `max_steps` is no number above 0.
    """
    said = list(notes)
    live = [run for run in found if run.status is not None and not run.status.finished]
    ended = [run for run in found if run.status is None or run.status.finished]
    kept = [run for run in ended if run.curve.n_reports]
    if live and not wish.live:
        said.append(f"{count(len(live), 'trial')} still running or waiting: left out.")
    if len(kept) < len(ended):
        said.append(f"{count(len(ended) - len(kept), 'trial')} without a report: left out.")
    if wish.live and not kept and any(run.curve.n_reports for run in live):
        text = f"{source}: expected a finished trial beside those that are under way, got none"
        raise FileProblem(f"{text} (of {count(len(found), 'trial')}). Ask again when one has ended.")
    if not any(run.curve.n_reports > (not wish.live) for run in kept):
        text = f"{source}: expected trials with a learning curve, got {count(len(kept), 'trial')} with one report each"
        if not kept:
            text = f"{source}: expected finished trials with a learning curve, got none"
        raise FileProblem(f"{text} (of {count(len(found), 'trial')}). {_WHY}")
    horizon = _horizon(kept, wish, source)
    runs, shortened, guessed, short = [], 0, 0, 0
    for run in kept:
        curve = run.curve.cut(horizon)
        if not curve.n_reports:
            continue
        shortened += curve is not run.curve
        status = _status(run, horizon)
        guessed += run.status is None
        short += run.status is None and status is not Status.COMPLETE
        steps = curve.reports()[0]
        clock = trained_by(steps, float(steps[0])) if run.clock is None or wish.steps else run.clock[: curve.n_reports]
        runs.append(Run(run.uid, curve, clock, dict(run.params), status))
    if not runs:
        raise FileProblem(f"{source}: expected reports at steps up to max_steps {horizon:g}, got none.")
    if len(runs) < len(kept):
        said.append(f"{count(len(kept) - len(runs), 'trial')} without a report up to step {horizon:g}: left out.")
    if shortened:
        said.append(f"{count(shortened, 'trial')} went beyond step {horizon:g}: cut there.")
    if guessed:
        before = f", and {short} that ended before as stopped or failed" if short else ""
        said.append(f"Nothing says how {count(guessed, 'trial')} ended: taken as complete at step {horizon:g}{before}.")
    whole = [run.curve for run in runs if run.status is Status.COMPLETE]
    if whole and not any(reached(curve, horizon) for curve in whole):
        end = max(curve.last_step for curve in whole)
        text = f"None of {count(len(whole), 'trial')} that ran to the end came to step {horizon:g} (max_steps): "
        said.append(f"{text}the last ended at step {end:g}. What is saved is counted to where each ended.")
    unit = "steps" if kept[0].clock is None or wish.steps else "seconds"
    goal = Goal(wish.metric or "value", direction, horizon, wish.judged)
    under_way = [
        Trial(run.uid, run.curve, dict(run.params), run.status) for run in live if run.curve.n_reports and run.status
    ]
    return Read(Task(name, goal, tuple(runs), unit), tuple(said), source, tuple(under_way) if wish.live else ())


_WHY = "A replay needs a value at every step, as in Optuna's `trial.report(value, step)`."


def _horizon(kept: Sequence[Found], wish: ReadOptions, source: str) -> float:
    if wish.max_steps is not None:
        if not (is_finite_number(wish.max_steps) and wish.max_steps > 0):
            raise InvalidValue("a finite number > 0", wish.max_steps, "read(max_steps=)")
        return float(wish.max_steps)
    whole = [run.curve.last_step for run in kept if run.status in (Status.COMPLETE, None)]
    if not whole:
        text = f"{source}: expected a complete trial to take the horizon from, got none."
        raise FileProblem(f"{text} Give max_steps= (--max-steps).")
    if not max(whole) > 0:
        raise FileProblem(
            f"{source}: expected a complete trial with a report after step 0, got none. Give max_steps= (--max-steps)."
        )
    return max(whole)


def _status(run: Found, horizon: float) -> Status:
    """How a run ended, seen from the horizon."""
    last = run.curve.last_step
    if last > horizon or (last == horizon and run.status is Status.STOPPED):
        return Status.COMPLETE
    if run.status is not None:
        return run.status
    if reached(run.curve, horizon):
        return Status.COMPLETE
    return Status.FAILED if run.curve.n_trailing_events else Status.STOPPED
