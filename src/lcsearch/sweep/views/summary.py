"""The last words of a sweep, and the commands that lead on from it: plain text for any terminal."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lcsearch.errors import FileProblem
from lcsearch.schedulers.optuna._record import EVICTED, LEFT
from lcsearch.session.study_report import COUNTED, about
from lcsearch.stopping.decision import Decision, percent
from lcsearch.stopping.verdict import Reason
from lcsearch.sweep.monitor.progress import Progress, Row
from lcsearch.sweep.monitor.state import SweepState
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.spec.strict import Scalar
from lcsearch.sweep.store.budget import Limit, ended_by, is_late, next_gain, price_of, read_clock, worker_seconds
from lcsearch.sweep.store.folder import RunFolder, latest
from lcsearch.sweep.store.pace import usual
from lcsearch.sweep.store.turns import no_turn_left
from lcsearch.sweep.views.notices import notices
from lcsearch.sweep.views.phrases import (
    SHOWN,
    UNTIMED,
    best_line,
    clock,
    gain_told,
    looks_told,
    money,
    named,
    risk_told,
    spacing,
    standing,
    thaws_told,
    turns_told,
    worker_time,
)
from lcsearch.terminal import quoted

if TYPE_CHECKING:
    from lcsearch.schedulers.optuna import Stop

_FINE = 0.02  # a risk below which no finish is named
_TURNS = 5  # the latest ones
_CLOSEST = 3  # stopped trials
_SAME_S = 0.5  # a launch that took all the time but this was the only one


def summarize(state: SweepState, seconds: float | None = None, code: int | None = None) -> str:
    """Best value and configuration, steps spent and saved, risk, stops and failures in groups, what next.

    `seconds` and `code` (its exit code) are those of the last launch; None when the run is only looked at.
    """
    progress, sweep, folder, counts = state.progress, state.sweep, state.folder, state.progress.counts
    fates = ("complete", "stopped", "thawed", "failed", "running", "paused", "waiting")
    said = ", ".join(f"{counts[s]} {s}" for s in fates if s in counts)
    lines = [f"{sweep.name}: {said or 'no trials'}{_time(state, seconds)}"]
    if progress.best is not None:
        lines += [f"best: {best_line(progress.best, sweep)}", *configuration(progress.best.params, "  ")]
        if text := standing(progress, sweep):
            lines.append(f"  {text}")
    else:
        lines.append("best: none")
    share = state.share_saved
    text = "" if share is None else f" ({share:.0%} of {progress.spent + progress.saved})"
    text += f", {COUNTED}" if progress.saved else ""
    lines.append(f"{sweep.step}s: {progress.spent} spent, {about(progress.saved, str(progress.saved))} saved{text}")
    if progress.paid:
        lines.append(f"  pauses and resumes took {progress.paid:g} more out of the budget, as the file prices them")
    lines.append(worker_time(progress))
    lines += _spending(state)
    stops = () if state.ledger is None else state.ledger.stops
    closest = sorted((stop for stop in stops if stop.p_now > 0), key=lambda stop: -stop.p_now)
    if sweep.pruner.kind == "curve":
        lines.append(f"risk that some stop lost the winner: {risk_told(state)}")
        if state.ledger is not None and state.ledger.certificate:
            lines.append(f"  {state.ledger.certificate}")
        thawed = thaws_told(progress, sweep)
        if state.risk:
            lines += [f"  {state.calibration.sentence}"] * state.calibration.telling
            if not thawed and (state.ledger is None or not state.ledger.audits.n):
                lines.append("  by the forecasts alone: no stopped trial was trained on to check them")
            if sweep.pruner.risk is None:
                lines.append("  no limit was set; to set one: pruner: {kind: curve, risk: 0.1}")
            if not thawed and state.risk > _FINE:
                lines.append(f"  to train on what could still win: lcsearch finish --risk {_FINE}{at(folder)}")
        lines += thawed
        lines += [] if state.ledger is None else state.ledger.audits.lines
        if (line := looks_told(state)) is not None:
            lines += [line, f"  looked {spacing(sweep.pruner.look_growth)}"]
    lines += turns_told(state, _TURNS)
    lines += _stopped(progress, sweep, closest)
    lines += _failed(progress.of("failed"))
    lines += [f"! {text}" for text in notices(progress, sweep)]
    lines += [f"! {text}" for text in state.damage]
    lines.append(f"files: {shown(folder.root)}")
    return "\n".join([*lines, *_next(progress, folder, closest, code)])


def _stopped(progress: Progress, sweep: SweepFile, closest: Sequence[Stop]) -> list[str]:
    """The stops by what stopped them: each was told when it came, and `explain` tells it whole."""
    groups: dict[str, list[int]] = {}
    for row in progress.of("stopped"):
        by = _stopped_by(row.stop) or _LEFT_BY.get(row.cut) or f"by the {sweep.pruner.kind} pruner"
        groups.setdefault(by, []).append(row.number)
    lines = [f"stopped {by}: {len(numbers)} ({named(numbers)})" for by, numbers in groups.items()]
    if closest:
        likeliest = ", ".join(f"trial {stop.trial} ({percent(stop.p_now)})" for stop in closest[:_CLOSEST])
        lines.append(f"  likeliest to have won, as things stand now: {likeliest}")
    return lines


def _stopped_by(stop: Decision | None) -> str:
    if stop is None:
        return ""
    return "as diverged" if stop.reason is Reason.DIVERGED else f"by {stop.chance}" if stop.chance else ""


_LEFT_BY = {"cut": "by the allocator", LEFT: "and left paused", EVICTED: "for its checkpoint was evicted"}
"""Why a trial that was paused did not go on, in short."""


def _failed(rows: Sequence[Row]) -> list[str]:
    """The failures by what they said."""
    groups: dict[str, list[int]] = {}
    for row in rows:
        groups.setdefault(row.note, []).append(row.number)
    lines = [f"  {named(numbers)}: {note}" for note, numbers in list(groups.items())[:SHOWN]]
    if len(groups) > SHOWN:
        lines.append(f"  and {len(groups) - SHOWN} other errors")
    again = [f"{row.number} as {row.again}" for row in rows if row.again is not None]
    if again:
        lines.append(f"  run again: {named(again)}")
    return ["failed:", *lines] if rows else []


def _next(progress: Progress, folder: RunFolder, closest: Sequence[Stop], code: int | None) -> list[str]:
    """The commands that lead on."""
    commands = []
    if code not in (None, 0, 130) and not any(row.values for row in progress.rows):
        commands.append((run_again(folder, "--fresh"), "after the mend"))
    elif code not in (None, 0) and unfinished(progress, folder):
        commands.append((run_again(folder, "--resume"), ""))
    where, failed = at(folder), [row for row in progress.of("failed") if row.again is None]
    if progress.best is not None:
        commands.append((f"lcsearch report{where}", ""))
    if closest:
        text = f"stopped, with {percent(closest[0].p_now)} the likeliest of the stopped to have won"
        commands.append((f"lcsearch explain {closest[0].trial}{where}", text))
    elif failed:
        commands.append((f"lcsearch explain {failed[0].number}{where}", "failed"))
    elif progress.best is not None:
        commands.append((f"lcsearch explain best{where}", ""))
    if failed and any(row.values for row in progress.rows):
        n = len(failed)
        text = f"runs the {n} failed trial{'s' * (n != 1)} again, after the mend"
        commands.append((run_again(folder, "--resume --retry-failed"), text))
    heads = ["next: ", *["      "] * len(commands)]
    return [
        f"{head}{line}" + (f"   ({why})" if why else "") for head, (line, why) in zip(heads, commands, strict=False)
    ]


def unfinished(progress: Progress, folder: RunFolder) -> bool:
    """Is there anything left to do?"""
    if progress.of("running", "waiting", "paused"):
        return True
    return limit_reached(progress, folder.read().file, read_clock(folder).seconds) is None


_NO_TURN = ", and what is left pays for no other turn"
_NO_END = ", and what is left brings no other trial to its end"


def limit_reached(progress: Progress, sweep: SweepFile, seconds: float) -> Limit | None:
    """The limit that has ended the sweep, or will; None while there is none.

    Where trials pause it is `budget.steps`, `seconds` or `money`, too, when what is left of them pays for no turn of a
    new trial, or, though all were begun, of any that was left paused.
    """
    budget, used = sweep.budget, progress.spent + progress.paid
    cost, gain = price_of(sweep, progress.seconds) or 0.0, next_gain(sweep, progress.begun(sweep.target))
    limit = ended_by(budget, progress.counted, used, seconds, cost, gain)
    if limit == "trials" and any(row.cut == LEFT for row in progress.rows):
        if budget.seconds is not None and seconds >= budget.seconds:
            return "seconds"
        if budget.money is not None and cost >= budget.money:
            return "money"
        timed = budget.seconds is not None or budget.money is not None
        if budget.steps is not None and (not timed or no_turn_left(sweep, used)):
            return "steps"
        return _scarcer(sweep, seconds, cost) if timed else limit
    if limit is not None or progress.of("running", "waiting", "paused"):
        return limit
    if no_turn_left(sweep, used):
        return "steps"
    pace = usual(row.pace for row in progress.rows)
    left = worker_seconds(sweep, seconds, cost) / pace if pace else math.inf
    over = no_turn_left(sweep, used, left) or _late(progress, sweep, seconds, cost)
    return _scarcer(sweep, seconds, cost) if over else None


def _late(progress: Progress, sweep: SweepFile, seconds: float, cost: float) -> bool:
    """Would a new trial come too late to its end?"""
    return is_late(sweep, seconds, cost, progress.spent + progress.paid, (row.pace for row in progress.rows))


def _scarcer(sweep: SweepFile, seconds: float, cost: float) -> Limit:
    """Of seconds and money what leaves less of workers' time."""
    whole = worker_seconds(sweep, seconds, cost)
    clock = sweep.model_copy(update={"budget": sweep.budget.model_copy(update={"money": None})})
    return "seconds" if worker_seconds(clock, seconds) == whole else "money"


def limit_told(progress: Progress, sweep: SweepFile, seconds: float) -> str | None:
    """Which limit has ended the sweep, where there are several; None where none has."""
    budget, limit = sweep.budget, limit_reached(progress, sweep, seconds)
    others = (budget.steps, budget.seconds, budget.money, budget.stop_when)
    if limit is None or (limit == "trials" and all(other is None for other in others)):
        return None
    n, cost = f"{progress.counted} of {budget.trials} trials", price_of(sweep, progress.seconds) or 0.0
    left = _NO_END if _late(progress, sweep, seconds, cost) else _NO_TURN
    match limit:
        case "trials":
            text = n
        case "steps":
            paid = f" and {progress.paid:g} paid for pauses and resumes" if progress.paid else ""
            text = f"{progress.spent} of {budget.steps} {sweep.step}s were spent{paid} after {n} had begun"
            few = progress.spent + progress.paid < (budget.steps or 0)
            text += _NO_TURN if few else ""
        case "seconds":
            text = f"{seconds:.3g} of {budget.seconds or 0:g} seconds were used after {n} had begun"
            text += left if seconds < (budget.seconds or 0) else ""
        case "money":
            text = f"{money(cost)} of {money(budget.money or 0.0)} were spent after {n} had begun"
            text += left if cost < (budget.money or 0.0) else ""
        case _:
            text = f"{gain_told(progress, sweep)}; {n} had begun"
    return f"ended by budget.{limit}: {text}"


def at(folder: RunFolder) -> str:
    """The option that names the run; empty where the run is the one that is taken without it."""
    try:
        if latest(Path("runs")).resolve() == folder.root:
            return ""
    except FileProblem:
        pass
    return f" --folder {shlex.quote(shown(folder.root))}"


def run_again(folder: RunFolder, how: str) -> str:
    """The command line that goes on with the run, or starts it over."""
    sweep = folder.read()
    own = folder.root == (Path("runs") / sweep.file.name).resolve()
    where = "" if own else f" --folder {shlex.quote(shown(folder.root))}"
    return f"lcsearch run {shlex.quote(shown(sweep.path))} {how}{where}"


def _time(state: SweepState, seconds: float | None) -> str:
    """How long it took; of a run that was resumed, all its launches together."""
    if seconds is None:
        return ""
    total = seconds if state.clock.counted is None else state.clock.counted
    this = f" ({clock(seconds)} in this launch)" if total - seconds > _SAME_S else ""
    return f" in {clock(total)} of wall clock{this}"


def _spending(state: SweepState) -> list[str]:
    """What it cost where a worker's hour has a price, and which limit ended it where there are several."""
    progress, lines = state.progress, []
    if state.money is not None:
        spent, saved = state.money
        hours = f"{progress.seconds / 3600:.3g} worker hours at {state.sweep.budget.money_per_hour:g}"
        told = f"{about(saved, money(saved))} saved" if saved is not None else f"saved: {UNTIMED}"
        lines.append(f"money: {money(spent)} spent ({hours}), {told}")
    limit = limit_told(progress, state.sweep, state.clock.seconds)
    gain = gain_told(progress, state.sweep)
    lines += [gain] if gain and gain not in (limit or "") else []
    return lines if limit is None else [*lines, limit]


def configuration(params: Mapping[str, Scalar], indent: str) -> list[str]:
    """One `name: value` a line, as a sweep file would have it."""
    return [f"{indent}{quoted(name)}: {quoted(plain(value))}" for name, value in params.items()]


def plain(value: Scalar) -> str:
    """A parameter's value for people."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def shown(path: Path) -> str:
    """The path from where the user stands, if that is shorter to type."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
