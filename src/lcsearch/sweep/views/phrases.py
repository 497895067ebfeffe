"""Phrases that live view, summary and report share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lcsearch.session.study_report import about, without_risk
from lcsearch.stopping.decision import exactly
from lcsearch.stopping.decision import risk_told as bound_told
from lcsearch.stopping.gates import looks_at
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.rules import threshold_for
from lcsearch.sweep.monitor.progress import Best, Progress, Row
from lcsearch.sweep.monitor.state import SweepState
from lcsearch.sweep.spec.model import StopWhen, SweepFile
from lcsearch.sweep.store.budget import next_gain

SHOWN = 10
"""Trials that are named, or errors that are told, of one group."""

UNTIMED = "not known without the times of two reports"

_POLICY = Policy()  # what a sweep file cannot set is as here

FEW = _POLICY.few
"""Below this many observations the threshold is stricter."""


def best_line(best: Best, sweep: SweepFile) -> str:
    """`val_loss 0.0712 (trial 12, epoch 38)`."""
    return f"{sweep.metric} {best.value:.6g} {place(best, sweep)}"


def place(best: Best, sweep: SweepFile) -> str:
    """`(trial 12, epoch 38)`."""
    return f"(trial {best.number}, {sweep.step} {best.step})"


def standing(progress: Progress, sweep: SweepFile) -> str:
    """Whose the best value is, where that is not the incumbent; empty where they are one."""
    best, incumbent = progress.best, progress.incumbent
    if best is None or (incumbent is not None and incumbent.number == best.number):
        return ""
    text = f"trial {best.number} is {best.state}, not complete; the incumbent, which others must beat, is "
    return text + ("none yet" if incumbent is None else f"the best complete one: {best_line(incumbent, sweep)}")


def named(numbers: Sequence[object]) -> str:
    """`trial 3`, `trials 1, 2, 3 and 4 more`."""
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return f"trial{'s' * (len(numbers) != 1)} {', '.join(map(str, numbers[:SHOWN]))}{more}"


def finished_line(row: Row, sweep: SweepFile, *, new: str = "") -> str:
    """One line for a trial that ended, with its reason in short.

    `trial 4 complete: best loss 0.3123 at epoch 12 (last 0.3597), new best`
    `trial 12 stopped at epoch 9, about 31 saved: best loss 0.83 at epoch 7 (last 0.85); P(beat) 0.4 % (was 1.2 % at
    step 8), threshold 5 %`
    """
    line, unit = f"trial {row.number} {row.state}", sweep.step
    if row.state == "complete":
        if row.spent < sweep.max_steps:
            line += f" at {unit} {row.spent} of {sweep.max_steps}"
        line += f": {_judged(row, sweep)}"
        line += "" if row.thawed is None else f"; it was {row.thawed}"
    elif row.state == "stopped":
        line += f" at {unit} {row.judged_to}{_late(row, unit)}" + (f", about {row.saved} saved" if row.saved else "")
        line += f": {_judged(row, sweep)}" if row.last is not None else ""
    reason = _short(row, sweep)
    return line + (f"; {reason}" if reason else "") + (f", new {new}" if new else "")


def _judged(row: Row, sweep: SweepFile) -> str:
    last = f"{row.last[1]:.4g}" if row.last is not None else "-"
    reached = row.reached(sweep.target)
    if reached is None or f"{reached[0]:.4g}" == last:
        return f"{sweep.metric} {last}"
    return f"best {sweep.metric} {reached[0]:.4g} at {sweep.step} {reached[1]} (last {last})"


def _late(row: Row, unit: str) -> str:
    """Where training does not wait for a look, its stop comes some reports later."""
    late = []
    if row.stop is not None and (n := sum(at > row.stop.step for at in row.values)):
        late.append(f"{n} report{'s' * (n != 1)} after the look at {unit} {row.stop.step:g}")
    if row.spent > row.judged_to:
        who = "an attempt that died, or its program," if row.retries else "its program"
        late.append(f"{who} had trained to {unit} {row.spent}")
    return f" ({'; '.join(late)})" if late else ""


def _short(row: Row, sweep: SweepFile) -> str:
    """Without the incumbent and the rank, which `explain` tells."""
    if row.stop is None:
        return row.note
    reason, look = row.stop.short, row.stop.now
    if sweep.pruner.kind == "curve" and look is not None and row.stop.chance is not None:
        limit = exactly(strict(sweep.pruner.threshold))
        reason += f" (strict below {FEW} observations)" if exactly(look.threshold) == limit else ""
    return reason


def legend(sweep: SweepFile) -> str:
    """What P(beat) is and what it does; empty for a pruner that does not work it out."""
    if sweep.pruner.kind != "curve":
        return ""
    threshold = sweep.pruner.threshold
    return (
        f"P(beat): a trial's forecast chance to beat the incumbent by {sweep.step} {sweep.max_steps}; "
        f"it is stopped where this report and the one before are below {exactly(threshold)} "
        f"({exactly(strict(threshold))} below {FEW} observations)"
    )


def strict(threshold: float) -> float:
    """The threshold that holds for short curves."""
    return threshold_for(threshold, 0, few=FEW, factor=_POLICY.few_factor)


def spacing(growth: float) -> str:
    """Which reports of a trial are looked at.

    >>> spacing(1.1)
    'at 6, 7, 8, 9, 10, 11, 13, 15 ... reports of a trial (look_growth 1.1; 1 looks at every report)'
    """
    if growth == 1:
        return "at every report (look_growth 1)"
    first = ", ".join(map(str, looks_at(_POLICY.min_observations, growth, 10**6)[:8]))
    return f"at {first} ... reports of a trial (look_growth {growth:g}; 1 looks at every report)"


def clock(seconds: float) -> str:
    """`7 s`, `3 min 07 s`, `2 h 05 min`, `3 d 04 h`.

    >>> [clock(s) for s in (7.9, 187, 7500, 273_600)]
    ['7 s', '3 min 07 s', '2 h 05 min', '3 d 04 h']
    """
    s = int(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60:02d} s"
    return f"{s // 3600} h {s % 3600 // 60:02d} min" if s < 172_800 else f"{s // 86_400} d {s % 86_400 // 3600:02d} h"


def worker_time(progress: Progress) -> str:
    """`worker time: 3 min 07 s spent, about 1 min 21 s saved`."""
    saved = progress.seconds_saved
    told = f"{about(saved, clock(saved))} saved" if saved is not None else f"saved: {UNTIMED}"
    return f"worker time: {clock(progress.seconds)} spent, {told}"


def gain_told(progress: Progress, sweep: SweepFile) -> str:
    """`gain of another 500 epochs: about 0.0021 val_loss at most (budget.stop_when: 0.001)`; empty without it."""
    asked, gain = sweep.budget.stop_when, next_gain(sweep, progress.begun(sweep.target))
    if asked is None or gain is None:
        return ""
    known = f"about {gain:.3g} {sweep.metric} at most" if math.isfinite(gain) else "not known yet"
    return f"gain of another {more_told(asked, sweep.step)}: {known} (budget.stop_when: {asked.gain:g})"


def more_told(asked: StopWhen, step: str) -> str:
    """How much more `stop_when` asks about: `500 epochs`, `20 trials`, `1 h 00 min`."""
    if asked.seconds is not None:
        return clock(asked.seconds)
    n, unit = (asked.trials, "trial") if asked.trials is not None else (asked.steps, step)
    return f"{n} {unit}{'s' * (n != 1)}"


def turns_told(state: SweepState, most: int) -> list[str]:
    """Who got the last turns, a line each, the latest last; empty where nothing is paused.

    `turns: 31 given by going-rate; 8 trials are paused, the nearest to a turn is trial 4: rank 4 of 12 by ...`
    """
    spec = state.sweep.turns
    if spec is None:
        return []
    n = state.progress.counts.get("paused", 0)
    text = f"turns: {state.n_turns} given by {spec.kind}; {n} trial{'s are' if n != 1 else ' is'} paused"
    if n and state.turns and state.turns[-1].against:
        first = state.turns[-1].against[0]
        text += f", the nearest to a turn is trial {first.uid}: rank {first.rank} of {first.of} by {first.by}"
    lines = [line for one in state.turns for line in one.told(state.sweep.step)]
    return [text, *(f"  {line}" for line in lines[-most:])]


def risk_told(state: SweepState) -> str:
    """`at most 12 % (uncalibrated); 2 stops for divergence are not in it: no risk is known for them`."""
    risk, known = "not known yet", state.calibration.state
    if state.risk is not None:
        stops = any(row.state == "stopped" and row.stop is not None and row.stop.chance for row in state.progress.rows)
        risk = bound_told(state.risk, state.independent, known, stops=stops or state.risk > 0)
    progress = state.progress
    return f"{risk}{without_risk(progress.diverged, progress.cut, progress.unread_stops)}"


def thaws_told(progress: Progress, sweep: SweepFile) -> list[str]:
    """Which stopped trials were thawed, and whether one of them leads now; empty where none was."""
    rows = [row for row in progress.rows if row.thawed is not None and row.state not in ("failed", "stopped")]
    if not rows:
        return []
    n, complete = len(rows), sum(row.state == "complete" for row in rows)
    text = f"thawed: {n} stopped trial{'s' * (n != 1)}, {complete} of them trained to the end"
    lines = [f"{text} ({', '.join(f'{row.thawed.stopped} as {row.number}' for row in rows[:SHOWN] if row.thawed)})"]
    goal, before = sweep.target, [row for row in progress.of("complete") if row.thawed is None]
    reached = {row.number: found for row in before if (found := row.reached(goal)) is not None}
    first = min(reached, key=lambda number: goal.sign * reached[number][0], default=None)
    incumbent = progress.incumbent
    if incumbent is not None and first is not None and complete:
        own = progress.numbered[incumbent.number].thawed
        if own is None:
            lines.append("  none of those that ended beat the winner")
        else:
            now = f"trial {incumbent.number} reached {incumbent.value:.6g}, and had been stopped as trial {own.stopped}"
            was = f"before it was trial {first} with {reached[first][0]:.6g}"
            lines.append(f"  THE WINNER HAS CHANGED: {now}; {was}")
    return lines


def looks_told(state: SweepState) -> str | None:
    """Looks, their latency and the failed-open ones in one line; None before the first look."""
    if state.latency is None:
        return None
    said = ", ".join(f"{what} {n}" for what, n in state.failed_open.items())
    text = f"looks: {state.n_looks} forecasts, {latency_told(state.latency)}"
    return text + (f"; no forecast, so the trial went on: {said}" if said else "")


def latency_told(latency: tuple[float, float]) -> str:
    """`p50 13 ms, p99 32 ms`."""
    return f"p50 {1e3 * latency[0]:.0f} ms, p99 {1e3 * latency[1]:.0f} ms"


def money(amount: float) -> str:
    """Two decimals, more where they would show nothing; the currency is the user's.

    >>> money(12.345), money(0.00213), money(0.0)
    ('12.35', '0.0021', '0.00')
    """
    return f"{amount:.2f}" if amount >= 1 or amount == 0 else f"{amount:.2g}"
