"""The answers of one call about one study while they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Absent, Forecasts, Query
from lcsearch.forecast.network.asking import PendingQuery, sort
from lcsearch.forecast.network.columns import plain
from lcsearch.forecast.network.context import Context
from lcsearch.forecast.network.firsts import Firsts, single
from lcsearch.forecast.network.model import KINDS
from lcsearch.forecast.network.reading import write_point_mass
from lcsearch.forecast.network.round import Crowd, Pair, unbegun


@dataclass(eq=False)
class Answers:
    """One row a query.

    Attributes:
        queries: as they came.
        whole: knots and levels (Q, K) and tails (Q, 2); NaN where nothing is written yet.
        absent: (Q,) why there is no answer.
        asked: what is left to ask of the network.
        unbegun: of every pair, rows of the trials that have not begun.
        firsts: of pairs that a crowd was asked of, what binds trials of a single report.
    """

    queries: Sequence[Query]
    whole: tuple[Floats, Floats, Floats]
    absent: list[Absent | None]
    asked: list[PendingQuery]
    unbegun: dict[Pair, list[int]]
    firsts: dict[Pair, Firsts] = field(default_factory=dict)

    @classmethod
    def of(cls, queries: Sequence[Query], sign: float, width: int) -> Answers:
        """What is certain is written, or that there is no answer; knots are `width` a row."""
        absent, sure, asked = sort(queries, sign)
        n = len(queries)
        whole = np.full((n, width), np.nan), np.full((n, width), np.nan), np.full((n, 2), np.nan)
        if sure:
            write_point_mass(whole, list(sure), list(sure.values()))
        return cls(queries, whole, absent, asked, unbegun(queries))

    def pairs(self, context: Context) -> list[Pair]:
        """Of what a crowd is asked: of trials that have not begun, and of those with a single report beside others that
        made theirs at that step."""
        firsts = [one for one in self.asked if single(one.trial)]
        if firsts:
            steps = {float(trial.curve.steps[0]) for trial in context.begun.trials if single(trial)}
            firsts = [one for one in firsts if float(one.trial.curve.steps[0]) in steps]
        return list(self.unbegun | {(self.queries[one.row].kind, one.step): None for one in firsts})

    def take(self, pair: Pair, crowd: Crowd) -> None:
        """Write what a crowd says of its own trials and of those that have not begun; what it says of others that have
        a single report counts in `write`."""
        self.firsts[pair] = crowd.firsts
        kind, step = KINDS.index(pair[0]), pair[1]
        mine = [one for one in self.asked if one.kind == kind and one.step == step]
        found = {one.row: crowd.row(one.trial, step) for one in mine}
        to = [row for row, at in found.items() if at is not None]
        if to:
            said = crowd.said.pick([at for at in found.values() if at is not None])
            for column, part in zip(self.whole, (said.knots, said.levels, said.tails), strict=True):
                column[to] = part
            for row, why in zip(to, said.absent, strict=True):
                self.absent[row] = why
            self.asked = [one for one in self.asked if found.get(one.row) is None]
        rows = self.unbegun.get(pair, [])
        if not rows:
            return
        others = crowd.answers([plain(self.queries[i].trial.params) for i in rows], self.whole[0].shape[1])
        for i in rows:
            self.absent[i] = Absent.UNSUPPORTED if others is None else None
        if others is not None:
            for column, part in zip(self.whole, others, strict=True):
                column[rows] = part

    def write(self, parts: Sequence[Floats], off: NDArray[np.bool_]) -> None:
        """What the network says of `asked`, and of which of them nothing."""
        to = [one.row for one in self.asked]
        for column, part in zip(self.whole, parts, strict=True):
            column[to, : part.shape[1]] = np.where(off[:, None], np.nan, part)
            column[to, part.shape[1] :] = column[to, part.shape[1] - 1 : part.shape[1]]
        for one, gone in zip(self.asked, off, strict=True):
            if gone:
                self.absent[one.row] = Absent.UNSUPPORTED
            elif single(one.trial) and (firsts := self.firsts.get((self.queries[one.row].kind, one.step))) is not None:
                knots, levels, _ = self.whole
                knots[one.row] = firsts.raised(one.trial, knots[one.row], levels[one.row])

    def forecasts(self, sign: float, source: str) -> Forecasts:
        """All rows."""
        return Forecasts.of(*self.whole, sign=sign, source=source, absent=self.absent)
