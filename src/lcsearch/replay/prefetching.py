"""A memo for replays: forecasts are made in batches, of a trial's next cuts and of many searches at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lcsearch.curves import Floats
from lcsearch.data.task import Task
from lcsearch.forecast.contract import Answer, Forecaster, Forecasts, Query
from lcsearch.forecast.network.begun import alongside
from lcsearch.forecast.parametric import ParametricEnsemble
from lcsearch.forecast.rank_gap import RankAndGap
from lcsearch.host.in_process import Pretrained
from lcsearch.stopping.gates import looks_at
from lcsearch.stopping.policy import Policy
from lcsearch.study import FinishedTrials, Snapshot, Trial

FIRST, LARGEST = 2, 32
"""Cuts forecast beyond the one asked for: so many at first, twice as many each time, up to the largest number."""
BESIDE = 8
"""The largest number where other searches fill the batch, too."""
KEPT = 512
"""States of the study of which a memo keeps answers; the oldest are dropped."""
BATCH = 256
"""Questions in one call, about."""


def _shown(trials: Iterable[Trial]) -> Hashable:
    """Which runs these are, in which order, how much of each, and how each stands or has ended."""
    return tuple((trial.uid, trial.curve.n_reports, trial.status) for trial in trials)


@lru_cache(maxsize=KEPT)
def _content(bank: FinishedTrials) -> Hashable:
    """What a bank of a replay holds."""
    return _shown(bank)


def _beside(snapshot: Snapshot) -> Hashable:
    """The live trials that the network is shown."""
    return () if len(snapshot.live) < 2 else _shown(alongside(snapshot))


READS: dict[type[Any], Callable[[Snapshot], Hashable]] = {
    # Where curves end, which live trials may move; beside whom, also of the ensemble's curves that stand still.
    ParametricEnsemble: lambda snapshot: (snapshot.horizon, _content(snapshot.bank)),
    RankAndGap: lambda snapshot: _content(snapshot.bank),
    # So, and live trials that are context to one another; one alone is who is asked about, and no context to itself.
    Pretrained: lambda snapshot: (snapshot.horizon, _content(snapshot.bank), _beside(snapshot)),
}
"""By type of a forecaster, all that its answer takes from the study, the goal aside, which a task has one of.

Of the trial asked about, these read the curve and what a run never changes (configuration, schedule): not its cost,
status or stop records. Who reads more, or may do so some day, does not belong here.
"""

Key = tuple[str, int, str, float]
Memo = dict[Hashable, dict[Key, Answer]]
"""Answers of one forecaster on one task, by what it had read of the study."""


class PrefetchingForecaster:
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
        waits: what is not known yet is no answer but :class:`Missing`, so that searches can ask together.
        policy: whose looks are asked about, to know which cuts to come will be; None: any may be.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        task: Task,
        memo: Memo | None = None,
        *,
        waits: bool = False,
        policy: Policy | None = None,
    ) -> None:
        self._forecaster, self._waits = forecaster, waits
        self._looked = None if policy is None else _looked(policy, max(run.curve.n_reports for run in task.runs))
        self._reads = READS.get(type(forecaster))
        self._runs = {run.uid: run for run in task.runs}
        self._memo: Memo = {} if memo is None else memo
        self._read: Hashable = None
        self._known: dict[Key, Answer] = {}
        self._reach: dict[str, int] = {}
        self._alone = False

    @property
    def name(self) -> str:
        """The forecaster's own."""
        return self._forecaster.name

    @property
    def version(self) -> str:
        """The forecaster's own."""
        return self._forecaster.version

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """As the forecaster answers.

        Raises:
            Missing: it waits, and not all is known.
        """
        if self._reads is None or self._alone:
            self._alone = False
            return self._forecaster.forecast(snapshot, queries)
        if (read := self._reads(snapshot)) != self._read:
            self._read = read
            self._known = self._memo[read] = self._memo.pop(read, {})
            self._reach.clear()
            while len(self._memo) > KEPT:
                del self._memo[next(iter(self._memo))]
        missing = [query for query in queries if _key(query) not in self._known]
        if missing:
            wanted = Wanted(self, self._forecaster, self._known, snapshot, (*missing, *self._to_come(missing)))
            if self._waits:
                raise Missing(wanted)
            answer([wanted])
            if _key(missing[0]) not in self._known:
                self._reach[missing[0].trial.uid] = 0
                return self.forecast(snapshot, queries)
        return _joined([self._known[_key(query)] for query in queries], snapshot.goal.sign)

    def ask_alone(self) -> None:
        """What it wanted could not be answered in a batch: the question is put once more, as it was."""
        self._alone = True

    def _to_come(self, missing: Sequence[Query]) -> list[Query]:
        """The same of the trial's next cuts, as far as nothing is known of them."""
        trial = missing[0].trial
        run, n = self._runs[trial.uid], trial.curve.n_reports
        most = BESIDE if self._waits else LARGEST
        reach = self._reach[trial.uid] = min(2 * self._reach.get(trial.uid, FIRST // 2), most)
        asked = [query for query in missing if query.trial.curve.n_reports == n]
        next_ones = (i for i in range(n, len(run.steps) - 1) if self._looked is None or i + 1 in self._looked)
        found = []
        for i in islice(next_ones, reach):
            cut = replace(trial, curve=run.cuts[i], cost=float(run.clock[i]))
            later = (query._replace(trial=cut) for query in asked)
            found += [query for query in later if _key(query) not in self._known]
        return found


def _looked(policy: Policy, longest: int) -> frozenset[int] | None:
    """Numbers of reports of the cuts that looks are about, each with the one before it; None where any may be.

    It is a guess where reports are no values or a warm-up is given in steps: another cut is asked about when it comes.
    """
    if policy.interval_steps > 1 or policy.look_growth == 1:
        return None
    numbers = looks_at(policy.min_observations, policy.look_growth, longest)
    return frozenset(numbers) | {n - 1 for n in numbers}


class Wanted(NamedTuple):
    """What a search waits for: who asked whom, where the answers go, and the questions."""

    ahead: PrefetchingForecaster
    forecaster: Forecaster
    known: dict[Key, Answer]
    snapshot: Snapshot
    queries: tuple[Query, ...]


class Missing(BaseException):
    """A look cannot be decided yet: ask again when what is `wanted` has been given to :func:`answer`.

    No Exception: what a forecaster raises counts as its failure, and this is none.
    """

    def __init__(self, wanted: Wanted) -> None:
        super().__init__("forecasts that are not made yet: see lcsearch.replay.simulator.simulate_all")
        self.wanted = wanted


def answer(wanted: Sequence[Wanted]) -> None:
    """Make the forecasts that searches wait for: of one forecaster in one call, where it can, and none twice.

    Who fails over a batch is asked by each search alone, when it asks again.
    """
    groups: dict[int, tuple[Wanted, dict[Key, Query]]] = {}
    for one in wanted:
        _, queries = groups.setdefault(id(one.known), (one, {}))
        queries.update((_key(query), query) for query in one.queries)
    by_forecaster: dict[int, list[tuple[Wanted, dict[Key, Query]]]] = {}
    for group in groups.values():
        by_forecaster.setdefault(id(group[0].forecaster), []).append(group)
    for asked in by_forecaster.values():
        while asked:
            batch = [asked.pop()]
            while asked and sum(len(queries) for _, queries in batch) < BATCH:
                batch.append(asked.pop())
            try:
                answers = _answers(batch[0][0].forecaster, [(one.snapshot, list(q.values())) for one, q in batch])
            except Exception:
                failed = {id(one.known) for one, _ in batch}
                for one in wanted:
                    if id(one.known) in failed:
                        one.ahead.ask_alone()
                continue
            for (one, queries), found in zip(batch, answers, strict=True):
                one.known.update((key, _kept(found, i)) for i, key in enumerate(queries))


def _answers(forecaster: Forecaster, asks: list[tuple[Snapshot, list[Query]]]) -> list[Forecasts]:
    each = getattr(forecaster, "forecast_each", None)  # one that has no such method is asked about one study at a time
    if each is None or len(asks) == 1:
        return [forecaster.forecast(snapshot, queries) for snapshot, queries in asks]
    found: list[Forecasts] = each(asks)
    return found


def _key(query: Query) -> Key:
    return query.trial.uid, query.trial.curve.n_reports, query.kind, query.step


class _Row(Forecasts):
    """One answer that is asked the same again: by the look after this one, and by searches with other thresholds."""

    said: dict[tuple[Any, ...], Floats]

    def p_beat(self, value: ArrayLike) -> Floats:
        """As the forecaster's own answer has it."""
        return self._once("p_beat", value)

    def quantile(self, p: ArrayLike) -> Floats:
        """As the forecaster's own answer has it."""
        return self._once("quantile", p)

    def _once(self, name: Literal["p_beat", "quantile"], at: ArrayLike) -> Floats:
        at = np.asarray(at, np.float64)
        key = name, at.shape, at.tobytes()
        if (found := self.said.get(key)) is None:
            found = self.said[key] = super().p_beat(at) if name == "p_beat" else super().quantile(at)
        return found


def _kept(found: Forecasts, i: int) -> Answer:
    """The answer to a query, for a memo."""
    reason, at = found.absent[i], slice(i, i + 1)
    if reason is not None:
        return reason
    row = _Row(found.knots[at], found.levels[at], found.tails[at], found.sign, (None,), found.source)
    object.__setattr__(row, "said", {})
    return row


class _Known(Forecasts):
    """Answers that are known one by one: each is handed out as it is."""

    answers: Sequence[Answer]

    def row(self, index: int) -> Answer:
        """The answer to one query."""
        return self.answers[index]


def _joined(answers: Sequence[Answer], sign: float) -> Forecasts:
    """Single rows as one answer, padded to the widest; a repeated last knot changes no distribution."""
    rows = [answer for answer in answers if isinstance(answer, Forecasts)]
    widths = {row.knots.shape[1] for row in rows}
    if len(rows) == len(answers) and len(widths) == 1:  # as most are
        knots, levels, tails = (
            np.concatenate(parts) for parts in zip(*((row.knots, row.levels, row.tails) for row in rows), strict=True)
        )
    else:
        width = max(widths, default=2)
        knots, levels = np.full((len(answers), width), np.nan), np.full((len(answers), width), np.nan)
        tails = np.full((len(answers), 2), np.nan)
        for i, answer in enumerate(answers):
            if isinstance(answer, Forecasts):
                n = answer.knots.shape[1]
                knots[i, :n], knots[i, n:] = answer.knots[0], answer.knots[0, -1]
                levels[i, :n], levels[i, n:] = answer.levels[0], answer.levels[0, -1]
                tails[i] = answer.tails[0]
    absent = tuple(None if isinstance(answer, Forecasts) else answer for answer in answers)
    joined = _Known(knots, levels, tails, sign, absent, rows[0].source if rows else "")
    object.__setattr__(joined, "answers", answers)
    return joined
