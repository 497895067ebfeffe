"""One round of queries: those about trials that have not begun become queries about all that have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lcsearch.forecast.contract import Absent, Forecasts, Kind, Query
from lcsearch.forecast.network.begun import Begun, alongside
from lcsearch.forecast.network.columns import plain
from lcsearch.forecast.network.unseen import unseen
from lcsearch.study import Snapshot, Status, Trial


@dataclass(frozen=True, eq=False)
class Round:
    """What is asked of the network, and what is made of its answers.

    Attributes:
        queries: as they came.
        asked: those about begun trials, and behind them one about every context trial for each pair of a kind and a
            step that is asked about a trial which has not begun.
        unbegun: rows of `queries`, for each such pair.
        trials: the context trials of such pairs.
    """

    queries: Sequence[Query]
    asked: Sequence[Query]
    unbegun: dict[tuple[Kind, float], list[int]]
    trials: tuple[Trial, ...]

    @classmethod
    def of(cls, snapshot: Snapshot, queries: Sequence[Query]) -> Round:
        """Sort them."""
        unbegun: dict[tuple[Kind, float], list[int]] = {}
        for i, (trial, kind, step) in enumerate(queries):
            if not trial.curve.n_reports and trial.params and math.isfinite(step):
                unbegun.setdefault((kind, step), []).append(i)
        if not unbegun:
            return cls(queries, queries, {}, ())
        trials = tuple(t for t in Begun.of(snapshot, alongside(snapshot)).trials if t.status is not Status.FAILED)
        asked = list(queries)
        for kind, step in unbegun:  # one that is complete has no more to say after its end
            asked += [Query(t, kind, min(step, _end(t))) for t in trials]
        return cls(queries, asked, unbegun, trials)

    def answers(self, said: Forecasts) -> Forecasts:
        """One row a query of those that came."""
        if not self.unbegun:
            return said
        n, k = len(self.queries), len(self.trials)
        knots, levels, tails = said.knots[:n].copy(), said.levels[:n].copy(), said.tails[:n].copy()
        absent: list[Absent | None] = list(said.absent[:n])
        configs = [plain(trial.params) for trial in self.trials]
        for at, rows in enumerate(self.unbegun.values()):
            mine = said.rows(n + at * k, n + (at + 1) * k)
            found = unseen(configs, mine, [plain(self.queries[i].trial.params) for i in rows], knots.shape[1])
            for i in rows:
                absent[i] = Absent.UNSUPPORTED if found is None else None
            if found is not None:
                knots[rows], levels[rows], tails[rows] = found
        return Forecasts.of(knots, levels, tails, sign=said.sign, source=said.source, absent=absent)


def _end(trial: Trial) -> float:
    return trial.curve.last_step if trial.status is Status.COMPLETE else math.inf
