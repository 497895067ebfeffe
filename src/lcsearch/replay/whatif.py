"""What would a policy have done on a study that was run already: saved, lost, and where two policies disagree.

The best run of the study is a fact, so whether a policy would have stopped it in one order of the trials is a fact as
well. How likely that is, is counted over random orders. Runs that somebody stopped when the study was run are censored:
their curves end early, nobody knows how they would have gone on, and none of them counts as lost.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcsearch.decide.decision import percent
from lcsearch.errors import EnvironmentProblem, InvalidValue
from lcsearch.replay.history import History, Life
from lcsearch.replay.policies import Entrant, entrant
from lcsearch.replay.readers import read
from lcsearch.replay.simulator import World, simulate
from lcsearch.replay.task import Task
from lcsearch.study import Status

THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
SHOWN = 12
"""Rows of a list before it is cut short."""

Progress = Callable[[int, int], None]
"""Told (searches done, searches in all)."""


@dataclass(frozen=True)
class Point:
    """One policy over all orders.

    Attributes:
        name: the policy.
        threshold: of a policy that has one.
        saved: share of the study's cost saved, one an order.
        lost: orders in which the study's best run was stopped before its best value.
    """

    name: str
    threshold: float | None
    saved: tuple[float, ...]
    lost: int

    @property
    def orders(self) -> int:
        """How many."""
        return len(self.saved)


@dataclass(frozen=True)
class Replay:
    """A study replayed.

    Attributes:
        task: its runs.
        played: each policy with the search in the order the study ran.
        points: each policy over random orders, its threshold as it was set.
        frontiers: for policies that have a threshold, the points of all THRESHOLDS, rising.
    """

    task: Task
    played: tuple[tuple[Entrant, History], ...]
    points: tuple[Point, ...]
    frontiers: tuple[tuple[Point, ...], ...]


def replay(
    task: Task, entrants: Sequence[Entrant], *, orders: int = 20, workers: int = 1, progress: Progress | None = None
) -> Replay:
    """Run every policy over the study, in its own order and in random ones.

    Args:
        task: the study.
        entrants: policies, no name twice.
        orders: random orders of the trials, >= 1.
        workers: trials at once.
        progress: told after every search.

    Raises:
        InvalidValue: a name that occurs twice, no policy, or less than one order.
    """
    names = [entrant.name for entrant in entrants]
    if not names or len(set(names)) != len(names):
        raise InvalidValue("at least one policy, none twice", names, "replay(entrants=)")
    if orders < 1:
        raise InvalidValue("at least 1", orders, "replay(orders=)")
    world = World(workers=workers)
    swept = [
        [entrant.at(threshold) for threshold in sorted({*THRESHOLDS, entrant.policy.threshold})]
        for entrant in entrants
        if entrant.policy is not None and "oracle" not in entrant.opinions
    ]
    total = len(names) * (1 + orders) + sum((len(line) - 1) * orders for line in swept)
    done = 0

    def search(entrant: Entrant, order: Sequence[int]) -> History:
        nonlocal done
        found = simulate(task, order, entrant.make(task), world)
        done += 1
        if progress is not None:
            progress(done, total)
        return found

    def point(entrant: Entrant, threshold: float | None) -> Point:
        found = [search(entrant, task.order(seed)) for seed in range(orders)]
        saved = tuple(1.0 - history.spent / history.full_cost for history in found)
        return Point(entrant.name, threshold, saved, sum(bool(history.lost()) for history in found))

    played = tuple((entrant, search(entrant, range(len(task)))) for entrant in entrants)
    points = tuple(point(e, None if e.policy is None else e.policy.threshold) for e in entrants)
    known = {(p.name, p.threshold): p for p in points}
    frontiers = []
    for line in swept:
        pairs = [(entrant, dict(entrant.knobs)["threshold"]) for entrant in line]
        frontiers.append(tuple(known.get((e.name, t)) or point(e, t) for e, t in pairs))
    return Replay(task, played, points, tuple(frontiers))


@dataclass(frozen=True)
class Difference:
    """A trial that two policies treat differently.

    Attributes:
        uid: the trial.
        lives: what became of it under one and the other.
        rank: of its judged value among all complete runs, 1 is best; None when it is censored.
    """

    uid: str
    lives: tuple[Life, Life]
    rank: int | None


def differences(one: History, other: History) -> list[Difference]:
    """Trials that were stopped by one policy alone, or by both at different steps; those stopped by one come first."""
    task = one.task
    order = sorted(range(len(task)), key=lambda row: float(task.judged[row]))
    ranks = {row: rank for rank, row in enumerate((row for row in order if task.complete[row]), 1)}
    lives = {life.uid: life for life in other.lives}
    found = []
    for life in one.lives:
        twin = lives.get(life.uid)
        if twin is not None and (life.status, life.shown) != (twin.status, twin.shown):
            found.append(Difference(life.uid, (life, twin), ranks.get(life.row)))
    return sorted(found, key=lambda d: (d.lives[0].status is d.lives[1].status, d.rank or len(task) + 1))


def summary(found: Replay) -> str:
    """The replay in words, for a terminal."""
    task, lines = found.task, []
    n_censored = sum(run.status is Status.STOPPED for run in task.runs)
    n_failed = sum(run.status is Status.FAILED for run in task.runs)
    best = _best(task)
    lines.append(
        f"{task.name}: {len(task)} trials, {task.goal.direction} {task.goal.metric}, judged by the {task.goal.judged} "
        f"value up to step {task.goal.horizon:g}; {int(task.complete.sum())} ran to the end"
        + (f", {n_failed} failed" if n_failed else "")
    )
    if n_censored:
        lines.append(
            f"{n_censored} had been stopped when the study was run (censored): their curves end there, nobody knows "
            "how they would have gone on, and none of them counts as lost"
        )
    if best is None:
        lines.append("no trial ran to the end with a finite value: what a policy would have lost cannot be said")
    for (one, history), point in zip(found.played, found.points, strict=True):
        lines += ["", *_policy(one, history, point, best)]
    for line in found.frontiers:
        lines += ["", f"{line[0].name}, over {line[0].orders} random orders of the trials:"]
        lines += ["  threshold   saved   best stopped in"]
        lines += [
            f"  {percent(p.threshold or 0.0):>9}   {100 * statistics.mean(p.saved):3.0f} %   {p.lost} of {p.orders}"
            for p in line
        ]
    return "\n".join(lines)


def _best(task: Task) -> int | None:
    rows = [row for row in range(len(task)) if task.complete[row] and task.judged[row] < float("inf")]
    return min(rows, key=lambda row: float(task.judged[row]), default=None)


def _policy(entrant: Entrant, history: History, point: Point, best: int | None) -> list[str]:
    """What became of the study under one policy."""
    task = history.task
    saved = 1.0 - history.spent / history.full_cost
    stopped = f"{len(history.stopped)} of {len(history.lives)} stopped"
    text = f"{entrant.name}: {stopped}, {100 * saved:.0f} % of the {task.unit} saved"
    if best is not None:
        uid, value = task.runs[best].uid, task.goal.sign * task.judged[best]
        fate = next(life for life in history.lives if life.row == best)
        end = f"stopped at step {fate.step:g}" if history.lost() else "kept"
        text += f"; the best, trial {uid} ({value:.6g}), {end}"
    mean = 100 * statistics.mean(point.saved)
    low, high = 100 * min(point.saved), 100 * max(point.saved)
    lines = [text, f"  over {point.orders} random orders: {mean:.0f} % saved ({low:.0f} to {high:.0f}), "]
    lines[1] += f"the best stopped in {point.lost}"
    wrong = history.wrong()
    if wrong:
        lines.append(f"  {len(wrong)} of those stopped would have beaten the best trial of that moment:")
        lines += [f"    trial {life.uid}: {life.stop.line}" for life in wrong[:SHOWN] if life.stop is not None]
    elif history.stopped:
        lines.append("  none of those stopped, as far as known, would have beaten the best trial of that moment")
    if not history.stopped and entrant.kind != "none":
        held = max(history.reasons, key=lambda reason: history.reasons[reason], default=None)
        if held is not None:
            lines.append(f"  what held most looks: {held.name}. {held.advice}")
    return lines


def compared(found: Replay) -> str:
    """The first two policies trial by trial, where they disagree; empty for one policy alone."""
    if len(found.played) < 2:
        return ""
    (one, first), (other, second) = found.played[:2]
    apart = differences(first, second)
    if not apart:
        return f"{one.name} and {other.name} agree on every trial"
    alone = sum(d.lives[0].status is not d.lives[1].status for d in apart)
    both = len(apart) - alone
    lines = [f"{one.name} and {other.name}: {alone} trials stopped by one of them alone, {both} by both but elsewhere"]
    width = max(len(d.uid) for d in apart)
    for d in apart[: 2 * SHOWN]:
        place = "censored" if d.rank is None else f"rank {d.rank}"
        fates = ", ".join(f"{name} {_fate(life)}" for name, life in zip((one.name, other.name), d.lives, strict=True))
        lines.append(f"  trial {d.uid:>{width}} ({place}): {fates}")
    if len(apart) > 2 * SHOWN:
        lines.append(f"  and {len(apart) - 2 * SHOWN} more")
    return "\n".join(lines)


def _fate(life: Life) -> str:
    if life.stop is not None:
        return f"stops it at step {life.step:g}"
    return f"leaves it running to step {life.step:g}"


def show(
    where: str,
    policies: Sequence[str],
    wish: Mapping[str, Any],
    *,
    orders: int = 20,
    workers: int = 1,
    out: Path | None = None,
) -> Iterator[str]:
    """Read a study, replay it, draw the plots; yields paragraphs as they are ready.

    Args:
        where: see :func:`~lcsearch.replay.readers.read`.
        policies: see :func:`~lcsearch.replay.policies.entrant`.
        wish: further arguments of the reader.
        orders: random orders of the trials.
        workers: trials at once.
        out: folder for the plots; None: replay/NAME. It is never a part of the study.
    """
    entrants = [entrant(text) for text in policies]
    found = read(where, **wish)
    for one in entrants:
        one.make(found.task)  # what does not fit is told before anything runs
    folder = out or Path("replay") / re.sub(r"[^\w.-]+", "-", found.task.name)
    yield "\n".join([f"read {found.source}", *found.left_out])
    played = replay(found.task, entrants, orders=orders, workers=workers, progress=_counter())
    yield "\n" + summary(played)
    if text := compared(played):
        yield "\n" + text
    yield "\n" + "\n".join(f"wrote {path}" for path in draw(played, folder))


def draw(found: Replay, folder: Path) -> list[Path]:
    """Write the plots there are into a folder, which is made.

    Raises:
        EnvironmentProblem: the folder cannot be written.
    """
    from lcsearch.replay import plots

    made = [folder / "frontier.png"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        plots.frontier(found, made[0])
        if len(found.played) > 1 and plots.disagreement(found, folder / "disagreement.png"):
            made.append(folder / "disagreement.png")
    except OSError as error:
        text = f"{folder}: expected a folder that can be written, got {error.strerror or error}."
        raise EnvironmentProblem(f"{text} Choose another with --out.") from error
    return made


def _counter() -> Progress | None:
    """A line that counts up, on a terminal only."""
    if not sys.stderr.isatty():
        return None

    def tell(done: int, total: int) -> None:
        print(f"\r{done} of {total} searches" if done < total else "\r" + " " * 40 + "\r", end="", file=sys.stderr)
        sys.stderr.flush()

    return tell
