"""One round of queries: those about trials that have not begun become queries about all that have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.linalg import LinAlgError

from lcsearch.forecast.contract import Absent, Forecasts, Kind, Query
from lcsearch.forecast.network.begun import Begun, alongside
from lcsearch.forecast.network.columns import Plain, plain
from lcsearch.forecast.network.unseen import unseen
from lcsearch.study import Snapshot, Status, Trial


@dataclass(frozen=True, eq=False)
class Round:
    """What is asked of the network, and what is made of its answers.

    Attributes:
        queries: as they came.
        asked: those that are about begun trials or cannot be asked, and behind them one about every context trial, for
            each pair of a kind and a step that is asked about a trial which has not begun, unless it is there already.
        unbegun: for each such pair, rows of `queries`, and of `asked` those of the context trials.
        configs: of the context trials.
    """

    queries: Sequence[Query]
    asked: Sequence[Query]
    unbegun: Sequence[tuple[list[int], list[int]]]
    configs: Sequence[Plain]

    @classmethod
    def of(cls, snapshot: Snapshot, queries: Sequence[Query]) -> Round:
        """Sort them."""
        unbegun: dict[tuple[Kind, float], list[int]] = {}
        for i, (trial, kind, step) in enumerate(queries):
            if not trial.curve.n_reports and trial.params and math.isfinite(step):
                unbegun.setdefault((kind, step), []).append(i)
        if not unbegun:
            return cls(queries, queries, (), ())
        trials = [t for t in Begun.of(snapshot, alongside(snapshot)).trials if t.status is not Status.FAILED]
        asked = list(queries)
        there = {(id(trial), kind, step): i for i, (trial, kind, step) in enumerate(queries)}
        found = []
        for (kind, step), rows in unbegun.items():
            beside = []
            for trial in trials:  # one that is complete has no more to say after its end
                query = Query(trial, kind, min(step, _end(trial)))
                at = there.setdefault((id(trial), kind, query.step), len(asked))
                if at == len(asked):
                    asked.append(query)
                beside.append(at)
            found.append((rows, beside))
        return cls(queries, asked, found, [plain(trial.params) for trial in trials])

    def answers(self, said: Forecasts) -> Forecasts:
        """One row a query of those that came; what fails over trials that have not begun takes no other along."""
        if not self.unbegun:
            return said
        n = len(self.queries)
        knots, levels, tails = said.knots[:n].copy(), said.levels[:n].copy(), said.tails[:n].copy()
        absent: list[Absent | None] = list(said.absent[:n])
        for rows, beside in self.unbegun:
            found = None
            with np.errstate(all="ignore"), suppress(LinAlgError, ValueError):
                mine = [plain(self.queries[i].trial.params) for i in rows]
                found = unseen(self.configs, said.pick(beside), mine, knots.shape[1])
            for i in rows:
                absent[i] = Absent.UNSUPPORTED if found is None else None
            if found is not None:
                knots[rows], levels[rows], tails[rows] = found
        return Forecasts.of(knots, levels, tails, sign=said.sign, source=said.source, absent=absent)


def _end(trial: Trial) -> float:
    return trial.curve.last_step if trial.status is Status.COMPLETE else math.inf
