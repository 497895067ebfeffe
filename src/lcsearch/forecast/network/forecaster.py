"""The network as a forecaster: a snapshot and queries -> tensors -> forecasts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Forecasts, Query
from lcsearch.forecast.network.answers import Answers
from lcsearch.forecast.network.asking import PendingQuery, QueryBatch, Singly, States
from lcsearch.forecast.network.begun import alongside
from lcsearch.forecast.network.beside import Beside
from lcsearch.forecast.network.context import Context, Key, Known, unknown, weight
from lcsearch.forecast.network.model import KINDS, CurveNetwork
from lcsearch.forecast.network.reading import read_off
from lcsearch.forecast.network.round import Crowd, Pair, crowd_queries
from lcsearch.study import Snapshot, Status, Trial

_PAIRS = 5000  # queries times context trials that are worked on at once: half as many or twice as many take longer
_BLOCK = 4  # times as many, of which the features are worked out at once
_STUDIES = 8  # whose contexts are kept
_CROWDS = 8  # of pairs of a kind and a step, kept with a context
_SEARCHES, _TRIALS = 512, 16384  # contexts and cut or finished trials that are kept for searches that run side by side
_HEAVIEST = 2**24  # numbers that each of these may hold, about: trials of any length come to a host
_FREED = 31 * 2**20  # bytes; the C library's limit is 32 MiB


def keep_freed() -> None:
    """Have the C library keep what is freed.

    glibc gives memory beyond twice the largest block that was ever freed back to the system, and each page of it that
    the next chunk needs costs a fault: a quarter of a round's time. So a large block, never written to, is freed here.
    """
    torch.empty(_FREED, dtype=torch.uint8)


class NetworkForecaster:
    """P(beat) and whole distributions by the pretrained network.

    A query's answer depends on the other queries of the call, on the order of finished trials and on the metric's
    units by rounding in float32 only: probabilities differ by less than 1e-5 (1e-6 was measured), under other units by
    less than 1e-4 (1e-5 was measured), and by nothing when the study is mirrored or its values are multiplied by a
    power of two. What `forecast` keeps between calls (what finished trials look like) never changes a bit. For that
    reason it keeps no states of live trials: they are encoded in batches, whose sizes show in the last bits. Where many
    studies take turns, what is new in all their contexts is encoded in batches and kept, within the same tolerance.

    Args:
        network: with its weights; it is moved to the device.
        version: of the weights, for receipts.
        device: where it computes.
    """

    name = "network"

    def __init__(self, network: CurveNetwork, version: str, device: str = "cpu") -> None:
        self._network = network.eval().to(device)
        self._version, self._device = version, device
        self._begin()

    def _begin(self) -> None:
        keep_freed()
        self._contexts: dict[Hashable, Context] = {}
        self._searches: dict[tuple[int, float, float], Context] = {}
        self._known: dict[Key, Known] = {}
        self._searches_weigh = self._known_weigh = 0
        self._states, self._singly = States(_TRIALS, _HEAVIEST), Singly(_TRIALS, _HEAVIEST)

    def __getstate__(self) -> dict[str, Any]:  # a memo stays at home
        own = ("_network", "_version", "_device")
        return {name: self.__dict__[name] for name in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    @property
    def version(self) -> str:
        """Of the weights."""
        return self._version

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """One row a query.

        A value or a best-by at a step that is not after the last report is certain; a latent value there is asked of
        the curve as it stood at that step. A trial that has not begun (an empty curve, a configuration) is forecast
        from what the begun ones are forecast to reach at that step, see :mod:`lcsearch.forecast.network.unseen`;
        one with a single report as others of the context with a single one stand, see
        :mod:`lcsearch.forecast.network.firsts`.

        Absent rows: NONFINITE when a begun curve has no finite observation or its first one comes after the step asked
        about, when there is neither a curve nor a configuration, or when that step is not finite; UNSUPPORTED when
        nothing gives the curve a scale (one observation in a study without a spread, or a constant curve in one where
        neither curves nor judged values differ), or too few have begun to say anything of one that has not.
        """
        return self.forecast_each([(snapshot, queries)])[0]

    def forecast_each(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]]) -> list[Forecasts]:
        """What `forecast` says of each, in one pass of the network: many small questions cost little more than one.

        The snapshots are of one goal; studies of one name are expected to share most of their trials.
        """
        return self._each(asks, by_turns=len(asks) > 1)

    def forecast_many(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]]) -> list[Forecasts]:
        """As `forecast_each`, of many studies that take turns: the contexts of all are kept, and states of live trials.

        The snapshots are of one direction; uids are expected to tell the trials of different studies apart (where they
        do not, answers are the same and take longer).
        """
        return self._each(asks, by_turns=True)

    def _each(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]], *, by_turns: bool) -> list[Forecasts]:
        if not asks:
            return []
        sign, width = asks[0][0].goal.sign, self._network.borders.numel() + 2
        # A training loop around this may have set autocast; float32 is what the tolerances are stated for. Steps and
        # values may be of any size: what becomes too large on the way is no answer, and no reason for a warning.
        off = torch.autocast(torch.device(self._device).type, enabled=False)
        with torch.inference_mode(), off, np.errstate(all="ignore"):
            open_ = [Answers.of(queries, sign, width) for _, queries in asks]
            wanted = [one.asked or one.unbegun for one in open_]
            contexts = iter(self._look_up([s for (s, _), some in zip(asks, wanted, strict=True) if some], by_turns))
            memo = self._states if by_turns else None
            left: list[tuple[Answers, Context]] = []
            for one, some in zip(open_, wanted, strict=True):
                if some:
                    context = next(contexts)
                    for pair in one.pairs(context):
                        one.take(pair, self._crowd(context, pair, sign, width, memo))
                    left.append((one, context))
            self._fill(left, sign, memo)
        source = f"{self.name}/{self.version}"
        return [one.forecasts(sign, source) for one in open_]

    def _fill(
        self, some: Sequence[tuple[Answers, Context]], sign: float, memo: States | None, *, crowd: bool = False
    ) -> None:
        """Ask the network what is left."""
        rows = [(one, context) for answers, context in some for one in answers.asked]
        if not rows:
            return
        *parts, off = self._answer([one for one, _ in rows], [context for _, context in rows], sign, memo, crowd=crowd)
        at = 0
        for answers, _ in some:
            n = len(answers.asked)
            answers.write([part[at : at + n] for part in parts], off[at : at + n])
            at += n

    def _crowd(self, context: Context, pair: Pair, sign: float, width: int, memo: States | None) -> Crowd:
        """What the context trials are forecast to reach, asked apart from all else."""
        found = context.crowds.get(pair)
        if found is None:
            answers = Answers.of(crowd_queries(context, pair), sign, width)
            self._fill([(answers, context)], sign, memo, crowd=True)
            if len(context.crowds) >= _CROWDS:
                context.crowds.clear()
            found = context.crowds[pair] = Crowd.of(context, answers.forecasts(sign, self.name))
        return found

    def _look_up(self, snapshots: Sequence[Snapshot], by_turns: bool) -> list[Context]:
        if not by_turns:
            return [self._context(snapshot) for snapshot in snapshots]
        pairs = [(snapshot, alongside(snapshot)) for snapshot in snapshots]
        kept = [self._searches.get(_name(snapshot)) for snapshot in snapshots]
        self._learn([pair for pair, have in zip(pairs, kept, strict=True) if have is None or not have.still(*pair)])
        return [self._side_by_side(*pair) for pair in pairs]

    def _context(self, snapshot: Snapshot) -> Context:
        """The context of the snapshot; kept until the study's bank is another one, the horizon moves, which live trials
        may do too, or one of them that is context makes a report."""
        kept, live = self._contexts.get(snapshot.key), alongside(snapshot)
        if kept is not None and kept.still(snapshot, live):
            return kept
        made = Context.of(snapshot, self._network, self._device, {} if kept is None else kept.kept, live)
        others = {study: one for study, one in self._contexts.items() if study != snapshot.key}
        latest = list(others.items())[1 - _STUDIES :]
        self._contexts = {**dict(latest), snapshot.key: made}  # a new dictionary: threads may be reading the old one
        return made

    def _learn(self, studies: Sequence[tuple[Snapshot, tuple[Trial, ...]]]) -> None:
        """Read the trials that are new in contexts which must be made, in one batch for each horizon.

        Args:
            studies: each with its :func:`alongside`.
        """
        if len(self._known) > _TRIALS or self._known_weigh > _HEAVIEST:
            self._known.clear()
            self._known_weigh = 0
        for horizon in dict.fromkeys(snapshot.horizon for snapshot, _ in studies):
            new: dict[Key, Trial] = {}
            for snapshot, live in studies:
                if snapshot.horizon == horizon:
                    new |= unknown(snapshot, self._known, live)
            sign = studies[0][0].goal.sign
            for known in Known.of(list(new.values()), sign, horizon, self._network, self._device):
                self._known[known.key] = known
                self._known_weigh += weight(known.trial)

    def _side_by_side(self, snapshot: Snapshot, live: tuple[Trial, ...]) -> Context:
        """As `_context`, where many searches over the same trials take turns."""
        key = _name(snapshot)
        found = self._searches.pop(key, None)
        if found is None or not found.still(snapshot, live):
            if found is not None:
                self._searches_weigh -= _weight(found)
            found = Context.of(snapshot, self._network, self._device, self._known, live)
            self._searches_weigh += _weight(found)
        self._searches[key] = found  # at the end: the first is the one that was not asked for longest
        while len(self._searches) > _SEARCHES or (self._searches_weigh > _HEAVIEST and len(self._searches) > 1):
            self._searches_weigh -= _weight(self._searches.pop(next(iter(self._searches))))
        return found

    def _answer(
        self,
        asked: Sequence[PendingQuery],
        contexts: Sequence[Context],
        sign: float,
        memo: States | None,
        *,
        crowd: bool,
    ) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
        """Knots, levels and tails, and which of them have no scale."""
        singly = {
            i: self._singly.read(one.trial, sign, context, self._network, self._device)
            for i, (one, context) in enumerate(zip(asked, contexts, strict=True))
            if crowd or one.trial.status is Status.PAUSED
        }
        looks = QueryBatch.of(asked, sign, contexts, self._network, self._device, memo, singly)
        beside = Beside(asked, looks, contexts)
        states, cut = beside.queries(looks.states), beside.queries(looks.describe([c.n_complete for c in contexts]))
        kind = beside.queries(torch.tensor([one.kind for one in asked]))
        plans, use = beside.plans(), beside.use
        chunk = max(_PAIRS // max(beside.n_context, 1), 1)
        block = _BLOCK * chunk if beside.shared else len(asked)
        parts = []
        for j in range(0, len(asked), block):
            pairs, alike = beside.pairs(slice(j, j + block)), beside.alike(slice(j, j + block))
            for i in range(j, min(j + block, len(asked)), chunk):
                # queries stand in the second place where they share a context, else in the first, beside each its own
                at, mine = ((*([slice(None)] * beside.shared), slice(k, k + chunk)) for k in (i, i - j))
                state = beside.states if beside.shared else beside.states[at]
                rest = pairs[mine], None if plans is None else plans[at], alike[mine]
                parts.append(self._network.answer(states[at], cut[at], kind[at], *rest, state, use[at]))
        logs, split = (torch.cat([part[k].flatten(0, 1) for part in parts]) for k in (0, 1))
        size, last = looks.sizes()
        off = np.isnan(size)
        best_by = np.array([KINDS[one.kind] == "best_by" for one in asked])
        cap = np.where(best_by, [r.best[-1] for r in looks.reports], np.inf)
        unit = np.where(off, 1.0, size)
        return (*read_off(self._network.borders, logs, split, last, unit, looks.target, cap), off)


def _weight(context: Context) -> int:
    """As :func:`weight` of all its trials, but for the finished ones' parameters; what banks share counts for each."""
    bank = context.bank
    return 100 * len(bank) + 5 * bank.steps.size + sum(map(weight, context.begun.live))


def _name(snapshot: Snapshot) -> tuple[int, float, float]:
    """Of the context of a snapshot, which holds its bank."""
    return id(snapshot.bank), snapshot.horizon, snapshot.robust_range
