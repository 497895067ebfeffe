"""`lcsearch run FILE --json`: a sweep told to a program, one JSON object a line.

Standard output holds these lines and nothing else; what is meant for people goes to standard error. A run that cannot
begin (exit codes 2 and 3) prints none. Keys stay; new ones may be added. A number that is not finite is null; steps
are on the sweep's own axis, values in the metric's units, `time` is seconds since the epoch, as the launcher saw it.

======== ============================================================================================================
event    keys beside `event` and `time`
======== ============================================================================================================
sweep    first. `name`, `folder`, `resumed`, `trials` (budget), `max_steps`, `step` and `metric` (their names), `goal`,
         `judged`, `workers`, `sampler`, `pruner`, `seed`
trial    `trial` (its number) and `state`: "began" with `params` (a trial that `--resume` goes on with begins again), or
         "complete", "stopped", "failed" with `value` (judged, as far as it came), `last` (the last report), `step` of
         the last report, `spent`, `saved` (steps; here and at the end an estimate, counted to where complete trials
         ended), `reason` (of a stop or a failure, else null), `p_beat` (at the look that stopped it; null for trials
         that were not stopped, or not by P(beat)), `cut` (of one that ended where it was paused: "cut" by the
         allocator, "left" by the budget's end, "evicted" for its checkpoint; else null), `thaws` (the number of the
         stopped trial that it goes on with, else null). Where trials are paused also "paused" and "resumed" with
         `step`, where it was paused, and `last`, its report there
turn     an allocator gave a slot: `trial` (null: a new configuration, which begins as a `trial` of its own), `from` and
         `until` (steps; at `until` it is asked again, or ends), `why`, `score` (higher is better; by which is the
         allocator's to say), `allocation` (its number in the decision log), `allocator`, `waiting` (paused trials that
         got nothing), `nearest` ({`trial`, `rank`, `of`, `by`, `needs`} of the one nearest to a slot, or null). Of what
         the launcher sees at once turns are told first, and of a trial's pauses the latest
best     a new best value, of any trial that has not failed: `trial`, `step`, `value`, `params`, `state` (of the trial)
worker   one has died, stalled or been retried: `text`; as far as known `worker` (its slot), `how`, `trial`, `retry`,
         `retries`, `given_up` (the trial is marked failed)
notice   anything else a person would be told: `text`
end      last. `exit_code`, `message` (null when all went well), `counts` (state -> trials), `best` (as in `best`, or
         null), `incumbent` (the best of the complete trials, or null), `spent`, `saved` (steps), `seconds` (wall clock
         of this launch), `seconds_total` (of all launches), `worker_seconds`, `worker_seconds_saved` (null where no
         pace is known), `money` ({`spent`, `saved`} or null), `risk` (a bound of the probability that some stop lost
         the winner, or null), `risk_independent` (what it is, were trials independent), `diverged` (stops for
         divergence, which are not in `risk`), `cut` (trials that ended while they were paused,
         which are not in it, either), `unread_stops` (nor are these: their records were damaged), `turns` (that were
         given), `paid` (steps that pauses and resumes took out of `budget.steps` beside `spent`, by the file's prices),
         `calibration`, `looks`, `failed_open`, `folder`
======== ============================================================================================================
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from lcsearch.allocation.contract import Move
from lcsearch.allocation.receipt import AllocationReceipt
from lcsearch.sweep.monitor.decision_tail import DecisionLogTail
from lcsearch.sweep.monitor.progress import Best, Progress, Row
from lcsearch.sweep.monitor.state import ENDED, SweepState
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views.live import PlainView
from lcsearch.sweep.views.notices import notices
from lcsearch.terminal import silence

if TYPE_CHECKING:
    import optuna

    from lcsearch.sweep.monitor.outcome import Outcome

_OF_WORKERS = ("worker", "how", "trial", "retry", "retries", "given_up")


class JsonView:
    """Tells programs on `stream`, and people on standard error."""

    def __init__(
        self,
        sweep: SweepFile,
        folder: RunFolder,
        stream: TextIO,
        *,
        resumed: bool,
        people: PlainView | None = None,
    ) -> None:
        self._sweep, self._folder, self._stream, self._resumed = sweep, folder, stream, resumed
        self._people = people or PlainView(sweep, sys.stderr, folder=folder)
        self._looks = DecisionLogTail(folder.decisions, heard=self._hear)
        self._turns: list[AllocationReceipt] = []  # that are to be told
        self._pauses: dict[int, int] = {}  # that were told
        self._asleep: dict[int, dict[str, object]] = {}  # trials that were told last as paused, and where
        self._begun: set[int] = set()
        self._ended: set[int] = set()
        self._best: tuple[int, int] | None = None
        self._early: list[dict[str, Any]] | None = []  # told before the opening line
        self._first = True

    def start(self) -> None:
        """The opening line, and what was to be told before it."""
        self._people.start()
        s, early = self._sweep, self._early or []
        self._looks.latest()
        self._turns.clear()  # those of earlier launches
        self._early = None
        self._tell(
            "sweep",
            name=s.name,
            folder=str(self._folder.root),
            resumed=self._resumed,
            trials=s.budget.trials,
            max_steps=s.max_steps,
            step=s.step,
            metric=s.metric,
            goal=s.goal,
            judged=s.judged,
            workers=s.backend.workers.n,
            sampler=s.sampler.kind,
            pruner=s.pruner.kind,
            seed=s.seed,
        )
        for entry in early:
            self._write(entry)

    def update(self, progress: Progress, study: optuna.Study) -> None:
        """What began, ended and improved since the last call; after a resume, not what had ended before."""
        self._people.update(progress, study)
        if self._first and self._resumed:
            self._ended = {row.number for row in progress.of(*ENDED)}
            self._begun = set(self._ended)
            self._pauses = {row.number: row.pauses - (row.state == "paused") for row in progress.rows}
        self._first = False
        looks: dict[int, tuple[float, float]] | None = None
        if self._sweep.pause:
            looks = self._looks.latest()
            self._tell_turns(progress)
        news = [r for r in progress.rows if r.number not in self._ended and r.state != "waiting"]
        for row in news:
            if row.number not in self._begun:
                self._begun.add(row.number)
                self._tell("trial", trial=row.number, state="began", params=dict(row.params))
            self._tell_pauses(row)
        ended = [row for row in news if row.state in ENDED]
        for row in sorted(ended, key=lambda row: (row.ended is not None, row.ended, row.number)):
            self._ended.add(row.number)
            looks = self._looks.latest() if looks is None else looks
            self._tell("trial", trial=row.number, state=row.state, **_end_of(row, self._sweep, looks))
        best = progress.best
        if best is not None and (best.number, best.step) != self._best:
            self._best = (best.number, best.step)
            self._tell("best", **_best(best))

    def _hear(self, made: AllocationReceipt) -> None:
        self._turns.append(made)

    def _tell_turns(self, progress: Progress, *, all_of: bool = False) -> None:
        """Turns that were given, but not those of trials whose reports are not read yet."""
        rows = progress.numbered
        self._turns.sort(key=lambda made: made.number)
        while self._turns:
            made = self._turns[0]
            going = [move.uid for move in made.moves if move.uid is not None]
            if not all_of and any(made.live[uid].n > _n_reports(rows, uid) for uid in going):
                return
            del self._turns[0]
            for move in made.moves:
                self._tell("turn", **_turn(made, move))

    def _tell_pauses(self, row: Row) -> None:
        """That it was paused since the last look, and that it goes on."""
        number = row.number
        again = row.pauses > self._pauses.get(number, 0)
        if number in self._asleep and (again or not (row.state == "paused" or row.cut)):
            self._tell("trial", trial=number, state="resumed", **self._asleep.pop(number))
        if again:
            self._pauses[number] = row.pauses
            where: dict[str, object] = {"step": row.paused_at, "last": row.values.get(row.paused_at or 0)}
            self._tell("trial", trial=number, state="paused", **where)
            if row.state == "paused" or row.cut:
                self._asleep[number] = where
            else:
                self._tell("trial", trial=number, state="resumed", **where)

    def event(self, text: str, **facts: object) -> None:
        """Of workers when there are facts, a notice otherwise."""
        self._people.event(text, **facts)
        known = {key: facts[key] for key in _OF_WORKERS if key in facts}
        self._tell("worker" if known else "notice", text=text, **known)

    def stop(self) -> None:
        """Nothing: the end comes with the outcome."""

    def end(self, outcome: Outcome, state: SweepState) -> None:
        """The last line."""
        p, money = state.progress, state.money
        self._looks.latest()
        self._tell_turns(p, all_of=True)
        for text in notices(p, self._sweep):
            self._tell("notice", text=text)
        self._tell(
            "end",
            exit_code=outcome.code,
            message=outcome.message or None,
            counts=dict(p.counts),
            best=None if p.best is None else _best(p.best),
            incumbent=None if p.incumbent is None else _best(p.incumbent),
            spent=p.spent,
            saved=p.saved,
            seconds=outcome.seconds,
            seconds_total=state.wall or 0.0,
            worker_seconds=p.seconds,
            worker_seconds_saved=p.seconds_saved,
            money=None if money is None else {"spent": money[0], "saved": money[1]},
            risk=state.risk,
            risk_independent=state.independent,
            diverged=p.diverged,
            unread_stops=p.unread_stops,
            cut=p.cut,
            turns=state.n_turns,
            paid=p.paid,
            calibration=state.calibration.state,
            looks=state.n_looks,
            failed_open=state.n_failed_open,
            folder=str(outcome.folder),
        )

    def _tell(self, event: str, **facts: object) -> None:
        entry = {"event": event, "time": time.time(), **facts}
        if self._early is None:
            self._write(entry)
        else:
            self._early.append(entry)

    def _write(self, entry: dict[str, Any]) -> None:
        try:
            print(json.dumps(_finite(entry), allow_nan=False, default=str), file=self._stream, flush=True)
        except (OSError, ValueError):  # whoever has closed the pipe misses the rest
            silence(self._stream)


def _end_of(row: Row, sweep: SweepFile, looks: dict[int, tuple[float, float]]) -> dict[str, Any]:
    step, last = row.last or (None, None)
    look = looks.get(row.number)
    reached = row.reached(sweep.target)
    return {
        "value": None if reached is None else reached[0],
        "last": last,
        "step": step,
        "spent": row.spent,
        "saved": row.saved,
        "reason": row.note or None,
        "p_beat": look[1] if row.state == "stopped" and not row.cut and look is not None and look[0] == step else None,
        "cut": row.cut or None,
        "thaws": None if row.thawed is None else row.thawed.stopped,
    }


def _n_reports(rows: Mapping[int, Row], uid: str) -> int:
    row = rows.get(int(uid)) if uid.isdecimal() else None
    return 0 if row is None else len(row.values)


def _turn(made: AllocationReceipt, move: Move) -> dict[str, Any]:
    """Who got a slot, and from where: the last step that it had reported."""
    stood = None if move.uid is None else made.live[move.uid]
    begin = 0.0 if stood is None else stood.last or 0.0
    nearest = made.against[0]._asdict() if made.against else None
    if nearest is not None:
        nearest = {"trial": _number(nearest.pop("uid")), **nearest}
    return {
        "trial": None if move.uid is None else _number(move.uid),
        "from": begin,
        "until": move.pause_at,
        "why": move.why,
        "score": move.score,
        "allocation": made.number,
        "allocator": made.allocator,
        "waiting": made.n_waiting,
        "nearest": nearest,
    }


def _number(uid: str) -> int | str:
    return int(uid) if uid.isdecimal() else uid


def _best(best: Best) -> dict[str, Any]:
    return {
        "trial": best.number,
        "step": best.step,
        "value": best.value,
        "params": dict(best.params),
        "state": best.state,
    }


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(entry) for key, entry in value.items()}
    return value


@contextlib.contextmanager
def standard_output() -> Iterator[TextIO]:
    """Standard output for the events alone: what anything else in this process prints there goes to standard error."""
    sys.stdout.flush()
    kept = os.dup(sys.stdout.fileno())
    os.set_inheritable(kept, False)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        with open(os.dup(kept), "w", encoding="utf-8") as stream:
            yield stream
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os.dup2(kept, sys.stdout.fileno())
        os.close(kept)
