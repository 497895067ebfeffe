"""A replay in words, for a terminal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from lcsearch.data.task import Task
from lcsearch.replay.history import NEAR, History, RunOutcome
from lcsearch.replay.policies import PolicySpec
from lcsearch.replay.whatif import Point, Replay, differences, ranks
from lcsearch.stopping.decision import percent
from lcsearch.stopping.rules import epsilon_of
from lcsearch.study import Status
from lcsearch.terminal import quoted

WRONG, ALONE = 3, 8
"""Trials that are listed one by one: stops that were wrong, and those of one policy alone."""


def summary(found: Replay) -> str:
    """What the study is, what became of it in its own order, and over random ones."""
    lines = [*_study(found), "", "In the order the study ran:"]
    for one, history in found.played:
        lines += _played(found, one, history)
    return "\n".join([*lines, "", *_orders(found)])


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _study(found: Replay) -> list[str]:
    task = found.task
    n = {status: sum(run.status is status for run in task.runs) for status in Status}
    parts = [f"{n[Status.COMPLETE]} ran to the end"]
    parts += [f"{n[Status.STOPPED]} had been stopped"] * bool(n[Status.STOPPED])
    parts += [f"{n[Status.FAILED]} failed"] * bool(n[Status.FAILED])
    goal = task.goal
    lines = [
        f"{quoted(task.name)}: {_count(len(task), 'trial')}, {goal.direction} {goal.metric}, "
        f"judged by the {goal.judged} value "
        f"up to step {goal.horizon:g}; {', '.join(parts)}"
    ]
    if n[Status.STOPPED]:
        lines.append(
            "What had been stopped is censored: nobody knows how it would have gone on. None of it counts as lost, and "
            f"what is saved is saved of the {task.unit} really trained: little, where "
            "a pruner was at work. A study that was run without one tells more."
        )
    if found.best is None:
        lines.append("No trial ran to the end with a finite value: what a policy would have lost cannot be said.")
    else:
        value = goal.sign * task.judged[task.runs.index(found.best)]
        lines.append(
            f"The best: trial {found.best.uid}, {value:.6g}; as good is what is worse by at most "
            f"{epsilon_of(task.robust_range, NEAR):.3g}, {percent(NEAR)} of the study's range."
        )
    return lines


def _played(found: Replay, one: PolicySpec, history: History) -> list[str]:
    """What became of the study under one policy, in its own order."""
    task = found.task
    saved = 1.0 - history.spent / history.full_cost if history.full_cost else 0.0
    text = f"  {one.name}: {len(history.stopped)} of {_count(len(history.lives), 'trial')} stopped"
    text += f" ({len(history.again)} where they had been stopped already)" if history.again else ""
    text += f", {100 * saved:.0f} % of the {task.unit} saved"
    if found.best is not None:
        fate = next(life for life in history.lives if task.runs[life.row] is found.best)
        text += f"; the best {_end(history, fate)}" if history.lost() else "; the best kept"
    lines = [text]
    places = ranks(task)
    if wrong := history.wrong():
        lines.append(f"    {len(wrong)} of those stopped would have beaten the best finished trial of that moment:")
        for life in sorted(wrong, key=lambda life: places[life.row])[:WRONG]:
            assert life.stop is not None
            lines.append(f"    trial {life.uid} (rank {places[life.row]} of {len(places)}): {life.stop.line}")
        if len(wrong) > WRONG:
            lines.append(f"    and {len(wrong) - WRONG} more")
    if not history.stopped and one.policy is not None:
        held = max(history.reasons, key=lambda reason: history.reasons[reason], default=None)
        if held is not None:
            lines.append(f"    what held most looks: {held.name}. {held.advice}")
    return lines


def _end(history: History, fate: RunOutcome) -> str:
    goal, loss = history.task.goal, history.found()
    instead = "nothing found" if loss == math.inf else f"best found {goal.sign * loss:.6g}"
    return f"stopped at step {fate.step:g}, {instead}, {'worse' if history.missed() else 'as good'}"


def _orders(found: Replay) -> list[str]:
    """A row a policy, and for one with a threshold a row a threshold."""
    rows: list[tuple[str, Point]] = []
    lines = {line[0].name: line for line in found.frontiers}
    for point in found.points:
        for one in lines.get(point.name, (point,)):
            mark = " *" if one is point and point.name in lines else ""
            shown = f"{one.name} at {percent(one.threshold or 0.0)}{mark}" if point.name in lines else one.name
            rows.append((shown, one))
    n, unit = found.points[0].orders, found.task.unit
    width = max(len(name) for name, _ in rows)
    saved = [_saved(point) for _, point in rows]
    wide = max(len(f"{unit} saved"), *map(len, saved))
    title = "Over one random order" if n == 1 else f"Over {n} random orders"
    title += " of the trials" + (", * its own threshold" if lines else "")
    title += (f", others over the first {found.fewest}" if found.fewest < n else "") + ":"
    head = f"  {'':{width}}  {f'{unit} saved':{wide}}"
    if found.best is None:
        return [title, head, *(f"  {name:{width}}  {text}" for (name, _), text in zip(rows, saved, strict=True))]
    out = [title, f"{head}  best stopped  of these nothing as good found"]
    for (name, point), text in zip(rows, saved, strict=True):
        share = f"{point.lost} ({100 * point.lost / point.orders:.0f} %)"
        out.append(f"  {name:{width}}  {text:{wide}}  {point.stopped:12d}  {share}")
    return out


def _saved(point: Point) -> str:
    low, high = 100 * min(point.saved), 100 * max(point.saved)
    return f"{100 * statistics.mean(point.saved):3.0f} % ({low:.0f} to {high:.0f})"


def compared(found: Replay) -> str:
    """The first two policies trial by trial, where they disagree; empty for one policy alone."""
    if len(found.played) < 2:
        return ""
    (one, first), (other, second) = found.played[:2]
    apart, names = differences(first, second), (one.name, other.name)
    if not apart:
        return f"{one.name} and {other.name} agree on every trial."
    lines = [f"{one.name} and {other.name} disagree on {len(apart)} of {_count(len(found.task), 'trial')}:"]
    n_known = len(ranks(found.task))
    alone = [d for d in apart if d.rank is not None and d.alone]
    both = [d.lives for d in apart if d.rank is not None and not d.alone]
    unknown = [d.lives for d in apart if d.rank is None]
    width = max((len(d.uid) for d in alone), default=0)
    if alone:
        counts = [sum(d.lives[i].stop is not None for d in alone) for i in (0, 1)]
        lines.append(f"  stopped by one alone ({names[0]} {counts[0]}, {names[1]} {counts[1]}), best ones first:")
        for d in alone[:ALONE]:
            who, life = next((n, life) for n, life in zip(names, d.lives, strict=True) if life.stop is not None)
            lines.append(f"    trial {d.uid:>{width}}, rank {d.rank} of {n_known}: {who} at step {life.step:g}")
        if len(alone) > ALONE:
            lines.append(f"    and {len(alone) - ALONE} more")
    if both:
        steps = [statistics.median(lives[i].step for lives in both) for i in (0, 1)]
        at = f"typically {names[0]} at step {steps[0]:g}, {names[1]} at step {steps[1]:g}"
        lines.append(f"  stopped by both, at other steps: {_count(len(both), 'trial')}, {at}")
    if unknown:
        lines.append(f"  of unknown end, nothing to conclude: {_censored(unknown, names)}")
    return "\n".join(lines)


def _censored(lives: Sequence[tuple[RunOutcome, RunOutcome]], names: tuple[str, str]) -> str:
    counts = [sum(pair[i].stop is not None for pair in lives) for i in (0, 1)]
    return f"{_count(len(lives), 'trial')}, of which {names[0]} stops {counts[0]} and {names[1]} {counts[1]}"


def place_of(task: Task, row: int) -> str:
    """What is known of a trial's end, short: "rank 3", "censored"."""
    run = task.runs[row]
    known = f"rank {ranks(task)[row]}" if row in ranks(task) else "no finite value"
    return {Status.STOPPED: "censored", Status.FAILED: "failed"}.get(run.status, known)
