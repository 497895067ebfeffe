"""A memo for replays: forecasts of a trial's next cuts are made in one batch, before they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lcsearch.forecast.contract import Forecaster, Forecasts, Opinion, Query
from lcsearch.replay.task import Task
from lcsearch.study import Snapshot

FIRST, LARGEST = 2, 32
"""Cuts forecast beyond the one asked for: so many at first, twice as many each time, up to the largest number."""
KEPT = 512
"""States of the study of which a memo keeps answers; the oldest are dropped."""
READS: Mapping[str, Callable[[Snapshot], Hashable]] = {
    # Its own curve aside, the parametric ensemble reads where curves end and their scale: a stop changes neither.
    "parametric": lambda snapshot: (snapshot.horizon, snapshot.spread),
}
"""By name of a forecaster, all that its answer about a curve takes from the study; others read the whole bank."""

Key = tuple[str, int, str, float]
Memo = dict[Hashable, dict[Key, Opinion]]
"""Answers of one forecaster on one task, by what it had read of the study."""


class Ahead:
    """Answers as `forecaster` does, bit for bit, and several times faster where the bank rarely changes.

    While one trial trains and no other ends, the forecaster is asked about every cut of its curve in turn, twice. What
    it says of a cut depends on the cut and the bank alone, and is the same alone and in a batch (the conformance kit
    holds it to that), so the cuts to come are put into the same batch. Nothing is answered that was not asked.

    Only for forecasters that do not read the other live trials.

    Args:
        forecaster: who answers.
        task: the runs, to know the cuts to come.
        memo: shared with other searches over the same runs by a forecaster of the same version; None: its own.
    """

    def __init__(self, forecaster: Forecaster, task: Task, memo: Memo | None = None) -> None:
        self._forecaster = forecaster
        self._reads = READS.get(forecaster.name, _bank)
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
        if (read := self._reads(snapshot)) != self._read:
            self._read = read
            self._known = self._memo.setdefault(read, {})
            self._reach.clear()
            while len(self._memo) > KEPT:
                del self._memo[next(iter(self._memo))]
        missing = [query for query in queries if _key(query) not in self._known]
        if missing:
            missing += self._to_come(missing[0])
            answers = self._forecaster.forecast(snapshot, missing)
            for i, query in enumerate(missing):
                self._known[_key(query)] = answers.opinion(i)
        return _joined([self._known[_key(query)] for query in queries], snapshot.goal.sign)

    def _to_come(self, query: Query) -> list[Query]:
        """The trial's next cuts that nothing is known of."""
        trial = query.trial
        run, n = self._runs[trial.uid], trial.curve.n_reports
        reach = self._reach[trial.uid] = min(2 * self._reach.get(trial.uid, FIRST // 2), LARGEST)
        found = []
        for step in run.steps[n : min(n + reach, len(run.steps) - 1)]:
            later = query._replace(trial=replace(trial, curve=run.curve.cut(step)))
            if _key(later) not in self._known:
                found.append(later)
        return found


def _bank(snapshot: Snapshot) -> Hashable:
    return snapshot.bank  # equal to itself alone


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
