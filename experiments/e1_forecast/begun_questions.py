"""What `begun.py` asks: of a task's configurations some are begun, and where will these and the unseen ones end?

Protocol: see `begun.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from questions import RealCurves

from lcsearch.curves import Curve, Floats
from lcsearch.forecast.contract import Query
from lcsearch.goal import Goal
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial

BEGUN = (10, 30, 100)
FIXED = {"1 report": 1, "3 reports": 3, "10 reports": 10}
"""Context -> reports of every begun trial; where these are at least half of a run there is no such context."""
CONTEXTS = (*FIXED, "rungs", "complete")
QUESTIONS = ("unseen", "begun")
UNSEEN, FEWEST_UNSEEN = 500, 20
ETA = 3
PROTOCOL = 1
"""Raise it when something else is asked: what is kept is asked again then."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Round:
    """One context and all that is asked beside it.

    Attributes:
        context: of CONTEXTS.
        snapshot: COMPLETE trials in the bank, the other begun ones PAUSED and live.
        begun: N trials in the order in which they began, as in the snapshot.
        shown: (N,) the last loss that each of them reported.
        standing: (N,) their order from the best, 0: by the deepest rung reached, then by the loss there (everywhere
            but in "rungs" by the loss alone).
        queries: the unseen trials' first, then those of the begun ones that are not COMPLETE.
        unseen: how many of them are unseen.
        finals: (Q,) the losses that they end at.
        target: the best final loss of the COMPLETE ones, or the best loss that a begun one has shown.
        nothing: P(beat) of who knows nothing: one in those behind the target and the trial itself.
        features: (N, D) and (Q, D) configurations, see `encoded`.
    """

    context: str
    snapshot: Snapshot
    begun: tuple[Trial, ...]
    shown: Floats
    standing: Ints
    queries: list[Query]
    unseen: int
    finals: Floats
    target: float
    nothing: float
    features: tuple[Floats, Floats]


def digest(task: RealCurves) -> str:
    """Of what is shown and asked."""
    return hashlib.sha256((task.digest + json.dumps(task.params, sort_keys=True)).encode()).hexdigest()[:12]


def encoded(params: Sequence[Mapping[str, Any]]) -> Floats:
    """(R, D) in [0, 1]: numbers over their range, a column for each category, and one for what not all of them have."""
    columns: list[Floats] = []
    for name in sorted({name for config in params for name in config}):
        values = [config.get(name) for config in params]
        missing = np.array([value is None for value in values])
        if any(isinstance(value, str) for value in values):
            columns += [
                np.array([v == word for v in values], float) for word in sorted({v for v in values if v is not None})
            ]
        else:
            column = np.array([np.nan if value is None else float(value) for value in values])
            low, width = np.nanmin(column), np.ptp(column[~missing])
            columns.append(np.where(missing, 0.5, (column - low) / (width or 1.0)))
        if missing.any():
            columns.append(missing.astype(float))
    return np.stack(columns, 1) if columns else np.zeros((len(params), 0))


def unlike(task: RealCurves, seed: int) -> Ints:
    """A random order of the curves, one of each configuration: a search begins it once."""
    rng = np.random.default_rng((*task.seed, 1 + seed))
    first: dict[str, int] = {}
    for i in rng.permutation(len(task.losses)).tolist():
        first.setdefault(json.dumps(task.params[i], sort_keys=True), i)
    return np.array(list(first.values()), np.int64)


def rounds(task: RealCurves, seed: int) -> Iterator[tuple[int, Round]]:
    """Begun trials and what is asked, for every number of them that leaves enough unseen."""
    features = encoded(task.params)
    order = unlike(task, seed)
    pool = order[max((n for n in BEGUN if order.size - n >= FEWEST_UNSEEN), default=0) :][:UNSEEN]
    for n in BEGUN:
        if order.size - n < FEWEST_UNSEEN:
            return
        for context in CONTEXTS:
            reports = reports_of(context, task.losses[order[:n]])
            if reports is not None:
                name = f"{task.source} {task.name} {seed} {n} {context}"
                yield n, _round(task, features, order[:n], reports, pool, context, name)


def _round(task: RealCurves, features: Floats, rows: Ints, reports: Ints, pool: Ints, context: str, name: str) -> Round:
    end, whole = float(task.steps[-1]), task.steps.size
    goal = Goal("loss", "minimize", end, "final")
    begun = tuple(
        Trial(
            f"begun-{i}",
            Curve.of(task.steps[:k], task.losses[i, :k]),
            task.params[i],
            Status.COMPLETE if k == whole else Status.PAUSED,
        )
        for i, k in zip(rows.tolist(), reports.tolist(), strict=True)
    )
    done = [trial for trial in begun if trial.status is Status.COMPLETE]
    live = tuple(trial for trial in begun if trial.status is Status.PAUSED)
    snapshot = Snapshot(name, goal, FinishedTrials(goal).extend(done), live)
    shown = task.losses[rows, reports - 1]
    standing = np.empty(rows.size, np.int64)
    standing[np.lexsort((shown, -reports))] = np.arange(rows.size)
    finals = task.losses[rows, -1]
    complete = reports == whole
    best_shown = min(float(task.losses[i, :k].min()) for i, k in zip(rows.tolist(), reports.tolist(), strict=True))
    queries = [Query(Trial(f"unseen-{i}", params=task.params[i]), "value", end) for i in pool.tolist()]
    queries += [Query(trial, "value", end) for trial in live]
    return Round(
        context,
        snapshot,
        begun,
        shown,
        standing,
        queries,
        pool.size,
        np.concatenate([task.losses[pool, -1], finals[~complete]]),
        float(finals[complete].min()) if done else best_shown,
        1.0 / (1 + (len(done) or rows.size)),
        (features[rows], np.concatenate([features[pool], features[rows[~complete]]])),
    )


def reports_of(context: str, losses: Floats) -> Ints | None:
    """(N,) how many reports each of the begun trials (N, S) has made; None where there is no such context."""
    n, whole = losses.shape
    if context == "rungs":
        return halving(losses)
    k = FIXED.get(context) or int(whole)
    return None if context in FIXED and whole <= 2 * k else np.full(n, k, np.int64)


def halving(losses: Floats) -> Ints:
    """(N,) reports made when asynchronous successive halving with one worker has begun all N trials and has nobody
    left to promote.

    Li et al. 2020, Algorithm 2: who is among the best 1/ETA of a rung goes on to the next one, from the highest rung
    down; else the next trial begins. Rungs: 1, ETA, ETA^2, ... reports, and the end.
    """
    n, whole = losses.shape
    rungs: list[int] = [1]
    while rungs[-1] < whole:
        rungs.append(min(ETA * rungs[-1], whole))
    at = np.full(n, -1)
    for new in range(n):
        at[new] = 0
        while (who := _promoted(losses, rungs, at)) is not None:
            at[who] += 1
    reports: Ints = np.array(rungs, np.int64)[at]
    return reports


def _promoted(losses: Floats, rungs: Sequence[int], at: Ints) -> int | None:
    for k in reversed(range(len(rungs) - 1)):
        there = np.flatnonzero(at >= k)
        best = there[np.argsort(losses[there, rungs[k] - 1], kind="stable")][: there.size // ETA]
        if (waiting := best[at[best] == k]).size:
            return int(waiting[0])
    return None
