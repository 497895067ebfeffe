"""A memo for replays: forecasts of a trial's next cuts are made in one batch, before they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lcsearch.forecast.contract import Forecaster, Forecasts, Opinion, Query
from lcsearch.forecast.parametric import ParametricEnsemble
from lcsearch.forecast.rank_gap import RankAndGap
from lcsearch.host.pretrained import Pretrained
from lcsearch.replay.task import Task
from lcsearch.study import Snapshot

FIRST, LARGEST = 2, 32
"""Cuts forecast beyond the one asked for: so many at first, twice as many each time, up to the largest number."""
KEPT = 512
"""States of the study of which a memo keeps answers; the oldest are dropped."""
READS: dict[type[Any], Callable[[Snapshot], Hashable]] = {
    # Where curves end and their scale: a stop changes neither.
    ParametricEnsemble: lambda snapshot: (snapshot.horizon, snapshot.spread),
    RankAndGap: lambda snapshot: snapshot.bank,  # equal to itself alone
    Pretrained: lambda snapshot: snapshot.bank,
}
"""By type of a forecaster, all that its answer takes from the study, the goal aside, which a task has one of.

Of the trial asked about, these read the curve and what a run never changes (configuration, schedule): not its cost,
status or marks, nor any other live trial. Who reads more, or may do so some day, does not belong here.
"""

Key = tuple[str, int, str, float]
Memo = dict[Hashable, dict[Key, Opinion]]
"""Answers of one forecaster on one task, by what it had read of the study."""


class Ahead:
    """Answers as `forecaster` does, and several times faster where the bank rarely changes.

    That goes for the types in READS, of which it is known what they read; all others are asked directly.

    While one trial trains and no other ends, the forecaster is asked about every cut of its curve in turn, twice. What
    it says of a cut depends on the cut and the bank alone, and is the same alone and in a batch (the conformance kit
    holds it to that: bit for bit, or the network within its stated tolerance), so the cuts to come are put into the
    same batch. Nothing is answered that was not asked: when a batch fails, the cuts to come are left out for that trial
    until the study changes, and the question is put as it was. One call in many takes the time of all of them, so what
    a look takes cannot be measured through this.

    Args:
        forecaster: who answers.
        task: the runs, to know the cuts to come.
        memo: shared with other searches over the same runs by a forecaster of the same version; None: its own.
    """

    def __init__(self, forecaster: Forecaster, task: Task, memo: Memo | None = None) -> None:
        self._forecaster = forecaster
        self._reads = READS.get(type(forecaster))
        self._runs = {run.uid: run for run in task.runs}
        self._memo: Memo = {} if memo is None else memo
        self._read: Hashable = None
        self._known: dict[Key, Opinion] = {}
        self._reach: dict[str, int] = {}

    @property
    def name(self) -> str:
        """The forecaster's own."""
        return self._forecaster.name

    @property
    def version(self) -> str:
        """The forecaster's own."""
        return self._forecaster.version

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """As the forecaster answers."""
        if self._reads is None:
            return self._forecaster.forecast(snapshot, queries)
        if (read := self._reads(snapshot)) != self._read:
            self._read = read
            self._known = self._memo.setdefault(read, {})
            self._reach.clear()
            while len(self._memo) > KEPT:
                del self._memo[next(iter(self._memo))]
        missing = [query for query in queries if _key(query) not in self._known]
        if missing:
            missing += self._to_come(missing[0])
            try:
                answers = self._forecaster.forecast(snapshot, missing)
            except Exception:
                self._reach[missing[0].trial.uid] = 0
                return self._forecaster.forecast(snapshot, queries)
            for i, query in enumerate(missing):
                self._known[_key(query)] = answers.opinion(i)
        return _joined([self._known[_key(query)] for query in queries], snapshot.goal.sign)

    def _to_come(self, query: Query) -> list[Query]:
        """The trial's next cuts that nothing is known of."""
        trial = query.trial
        run, n = self._runs[trial.uid], trial.curve.n_reports
        reach = self._reach[trial.uid] = min(2 * self._reach.get(trial.uid, FIRST // 2), LARGEST)
        found = []
        for i in range(n, min(n + reach, len(run.steps) - 1)):
            cut, cost = run.curve.cut(run.steps[i]), float(run.clock[i])
            later = query._replace(trial=replace(trial, curve=cut, cost=cost))
            if _key(later) not in self._known:
                found.append(later)
        return found


def _key(query: Query) -> Key:
    return query.trial.uid, query.trial.curve.n_reports, query.kind, query.step


def _joined(opinions: Sequence[Opinion], sign: float) -> Forecasts:
    """Single rows as one answer, padded to the widest; a repeated last knot changes no distribution."""
    rows = [opinion for opinion in opinions if isinstance(opinion, Forecasts)]
    width = max((row.knots.shape[1] for row in rows), default=2)
    shape = (len(opinions), width)
    knots, levels, tails = np.full(shape, np.nan), np.full(shape, np.nan), np.full((len(opinions), 2), np.nan)
    for i, opinion in enumerate(opinions):
        if isinstance(opinion, Forecasts):
            pad = ((0, 0), (0, width - opinion.knots.shape[1]))
            knots[i], levels[i] = np.pad(opinion.knots, pad, mode="edge"), np.pad(opinion.levels, pad, mode="edge")
            tails[i] = opinion.tails
    absent = tuple(None if isinstance(opinion, Forecasts) else opinion for opinion in opinions)
    return Forecasts(knots, levels, tails, sign, absent, rows[0].source if rows else "")
