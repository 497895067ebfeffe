"""The network as a forecaster: a snapshot and queries -> tensors -> forecasts.

What is kept between calls is a memo of what finished trials look like; it never changes an answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Absent, Forecasts, Query
from lcsearch.forecast.network import features
from lcsearch.forecast.network.features import Curves, token_grid
from lcsearch.forecast.network.model import KINDS, CurveNetwork
from lcsearch.forecast.network.objective import p_below, tail_scales
from lcsearch.forecast.network.params import match
from lcsearch.schedule import Schedule
from lcsearch.study import Bank, Snapshot, Trial

CONTEXT = 128
"""Finished trials that a query is compared with, at most."""
LONGEST = 512
"""Reports of a curve that are read, at most; a longer one is thinned evenly from its end."""
_MOST_PARAMS = 32
_AREA = np.linspace(0.0, 1.0, 257)


@dataclass(frozen=True, eq=False)
class _Reports:
    """One curve's reports, thinned: raw losses (+inf for events) and their running minimum, in float64."""

    steps: Floats
    loss: Floats
    best: Floats
    n: int  # reports before thinning
    spacing: float  # between the last two reports
    base: float  # one spacing before the first

    @classmethod
    def of(cls, trial: Trial, sign: float) -> _Reports:
        steps, loss = trial.curve.losses(sign)
        n = steps.size
        best = np.minimum.accumulate(loss)
        first = float(steps[1] - steps[0]) if n > 1 else max(float(steps[0]), 0.0)
        last = float(steps[-1] - steps[-2]) if n > 1 else first
        base = float(steps[0]) - first
        if n > LONGEST:
            stride = math.ceil(n / LONGEST)
            keep = np.arange(n - 1, -1, -stride)[::-1]
            steps, loss, best = steps[keep], loss[keep], best[keep]
        return cls(steps, loss, best, n, last, base)


@dataclass(frozen=True, eq=False)
class _Context:
    """The context trials of one bank, as tensors of one study."""

    trials: tuple[Trial, ...]
    steps: Floats  # (C, S) raw
    curves: Curves  # (1, C, S)
    reported: Tensor
    complete: Tensor
    judged: Tensor
    states: Tensor  # (1, C, W)
    params: Tensor
    kinds: Tensor
    names: tuple[str, ...]
    scales: tuple[Any, ...]
    center: float
    scale: float


class NetworkForecaster:
    """P(beat) and whole distributions by the pretrained network.

    Args:
        network: with its weights.
        version: of the weights, for receipts.
        device: where it computes.
    """

    name = "network"

    def __init__(self, network: CurveNetwork, version: str, device: str = "cpu") -> None:
        self._network = network.eval().to(device)
        self._version, self._device = version, device
        self._borders = network.borders.double().cpu().numpy()
        self._last: tuple[Bank, float, _Context] | None = None
        self._read: WeakKeyDictionary[Any, tuple[float, float, _Reports, Tensor]] = WeakKeyDictionary()

    @property
    def version(self) -> str:
        """Of the weights."""
        return self._version

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """One row a query.

        Absent rows: NONFINITE when the curve has no finite observation or ends in non-finite reports, or the step
        asked about is not finite; OFF_LAW when nothing gives the curve a scale (one observation, or a constant curve,
        in a study without a spread).
        """
        sign, source = snapshot.goal.sign, f"{self.name}/{self.version}"
        absent: list[Absent | None] = [
            Absent.NONFINITE
            if not len(q.trial.curve) or q.trial.curve.n_trailing_events or not np.isfinite(q.step)
            else None
            for q in queries
        ]
        rows = [i for i, reason in enumerate(absent) if reason is None]
        k = self._borders.size + 2
        knots, levels = np.full((len(queries), k), np.nan), np.full((len(queries), k), np.nan)
        tails = np.full((len(queries), 2), np.nan)
        if rows:
            with torch.inference_mode():
                found = self._answer(snapshot, [queries[i] for i in rows])
            knots[rows], levels[rows], tails[rows], off = found
            for i, gone in zip(rows, off, strict=True):
                if gone:
                    absent[i] = Absent.OFF_LAW
                    knots[i] = levels[i] = np.nan
                    tails[i] = np.nan
        made = Forecasts.of(knots, levels, tails, sign=sign, source=source)
        reasons = tuple(a if a is not None else b for a, b in zip(absent, made.absent, strict=True))
        return Forecasts(knots, levels, tails, sign, reasons, source)

    # -- context ------------------------------------------------------------------------------------------------------

    def _context(self, snapshot: Snapshot) -> _Context:
        """The context of the snapshot's bank; kept until the bank is another one."""
        if self._last is not None and self._last[0] is snapshot.bank and self._last[1] == snapshot.horizon:
            return self._last[2]
        made = self._make_context(snapshot)
        self._last = (snapshot.bank, snapshot.horizon, made)
        return made

    def _make_context(self, snapshot: Snapshot) -> _Context:
        bank, sign, horizon = snapshot.bank, snapshot.goal.sign, snapshot.horizon
        trials = [bank[i] for i in choose(bank, CONTEXT)]
        read = [self._finished(trial, sign, horizon) for trial in trials]
        leader = bank.leader
        center = leader[0] if leader is not None else _first_finite(read[0][0].loss) if read else 0.0
        scale = snapshot.spread
        if not scale > 0:
            ranges = [np.ptp(r.loss[np.isfinite(r.loss)]) for r, _ in read]
            scale = float(np.median(ranges)) if ranges else 1.0
        scale = scale if np.isfinite(scale) and scale > 0 else 1.0
        c, s = len(trials), max((r.steps.size for r, _ in read), default=1)
        steps, loss, best = np.full((c, s), np.inf), np.full((c, s), np.nan), np.full((c, s), np.nan)
        reported = np.ones(c, np.int64)
        for i, (r, _) in enumerate(read):
            m = r.steps.size
            steps[i, :m], loss[i, :m], best[i, :m] = r.steps, r.loss, r.best
            best[i, m:], reported[i] = r.best[-1], m
        y, bad = features.fill(self._tensor((loss - center) / scale)[None])
        filled_best = torch.nan_to_num(self._tensor((best - center) / scale), posinf=1e30)[None]
        blank = torch.full_like(y, math.nan)
        curves = Curves(y, bad, filled_best, blank, blank[..., :1], blank[..., :1], blank, blank)
        width = self._network.size.curve_width
        states = torch.stack([state for _, state in read]) if read else torch.zeros(0, width, device=self._device)
        complete = np.array([t.status.name == "COMPLETE" for t in trials], np.bool_)
        judged = np.array([_judged(t, snapshot) for t in trials], np.float64)
        judged = np.where(complete & np.isfinite(judged), (judged - center) / scale, np.nan)
        names, kinds, scales = _columns(trials)
        params = np.array([_encode(t.params, names, kinds, scales) for t in trials]).reshape(c, len(names))
        return _Context(
            tuple(trials),
            steps,
            curves,
            torch.as_tensor(reported, device=self._device)[None],
            torch.as_tensor(complete, device=self._device)[None],
            self._tensor(judged)[None],
            states[None],
            self._tensor(params)[None],
            torch.as_tensor(kinds, dtype=torch.int64, device=self._device)[None],
            names,
            scales,
            center,
            scale,
        )

    def _finished(self, trial: Trial, sign: float, horizon: float) -> tuple[_Reports, Tensor]:
        """A finished trial's reports and its last state, from the memo if it is there."""
        kept = self._read.get(trial.curve)
        if kept is not None and kept[:2] == (sign, horizon):
            return kept[2], kept[3]
        reports = _Reports.of(trial, sign)
        state = self._encode([trial], [reports], horizon, [reports.n])[1][0]
        self._read[trial.curve] = (sign, horizon, reports, state)
        return reports, state

    # -- curves -------------------------------------------------------------------------------------------------------

    def _encode(
        self, trials: Sequence[Trial], reports: Sequence[_Reports], horizon: float, totals: Sequence[float]
    ) -> tuple[Curves, Tensor]:
        """Curves (N, S), each centred on its own first loss and scaled by its own range; their last states (N, W)."""
        n, s = len(reports), max(r.steps.size for r in reports)
        steps, loss = np.empty((n, s)), np.empty((n, s))
        rate, area = np.full((n, s), np.nan), np.full((n, s), np.nan)
        grids = [token_grid(r.steps.size) for r in reports]
        t = max(len(g) for g in grids)
        index = np.empty((n, t), np.int64)
        for i, r in enumerate(reports):
            m = r.steps.size
            finite = r.loss[np.isfinite(r.loss)]
            center = finite[0]
            with np.errstate(over="ignore"):
                scale = min(max(float(np.ptp(finite)), 1e-300), 1e300)
            steps[i, :m], steps[i, m:] = r.steps - r.base, r.steps[-1] - r.base
            loss[i, :m], loss[i, m:] = (r.loss - center) / scale, (r.loss[-1] - center) / scale
            index[i, : len(grids[i])], index[i, len(grids[i]) :] = grids[i], grids[i][-1]
            if (schedule := trials[i].schedule) is not None:
                rate[i, :m], area[i, :m] = planned(schedule, r.steps)
                rate[i, m:], area[i, m:] = rate[i, m - 1], area[i, m - 1]
        base = np.array([r.base for r in reports])
        reach = self._tensor(horizon - base)[:, None].clamp_min(1e-9)
        total = self._tensor(np.array(totals, np.float64))[:, None]
        curves = Curves.of(
            self._tensor(loss), self._tensor(steps), reach, total, self._tensor(rate), self._tensor(area)
        )
        at = torch.as_tensor(index, device=self._device)
        states = self._network.encode(features.tokens(curves, at))
        last = torch.as_tensor([len(g) - 1 for g in grids], device=self._device)
        return curves, states[torch.arange(n, device=self._device), last]

    def _answer(self, snapshot: Snapshot, queries: Sequence[Query]) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
        """Knots, levels, tails of queries about curves with observations, and which of them have no scale."""
        context = self._context(snapshot)
        sign, horizon = snapshot.goal.sign, snapshot.horizon
        reports = [_Reports.of(q.trial, sign) for q in queries]
        totals = [self._total(r, horizon, context) for r in reports]
        _, states = self._encode([q.trial for q in queries], reports, horizon, totals)
        n, s = len(queries), max(r.steps.size for r in reports)
        # In the study's units now; without any, each curve's own.
        center, scale = np.full(n, context.center), np.full(n, context.scale)
        if not context.trials:
            for i, r in enumerate(reports):
                finite = r.loss[np.isfinite(r.loss)]
                center[i], scale[i] = finite[0], np.ptp(finite) or 1.0
        steps, loss, best = np.empty((n, s)), np.empty((n, s)), np.empty((n, s))
        index = np.array([r.steps.size - 1 for r in reports])
        rates, areas = np.full((n, s), np.nan), np.full((n, s), np.nan)
        rate_until, area_until = np.full(n, np.nan), np.full(n, np.nan)
        base = np.array([r.base for r in reports])
        for i, r in enumerate(reports):
            m = r.steps.size
            steps[i, :m], loss[i, :m], best[i, :m] = r.steps, (r.loss - center[i]) / scale[i], r.best
            steps[i, m:], loss[i, m:], best[i, m:] = r.steps[-1], loss[i, m - 1], r.best[-1]
            if (schedule := queries[i].trial.schedule) is not None:
                rates[i, :m], areas[i, :m] = planned(schedule, r.steps)
                (rate_until[i],), (area_until[i],) = planned(schedule, np.array([queries[i].step]))
        until = np.array([q.step for q in queries])
        own = Curves.of(
            self._tensor(loss),
            self._tensor(steps - base[:, None]),
            self._tensor(horizon - base)[:, None].clamp_min(1e-9),
            self._tensor(np.array(totals, np.float64))[:, None],
            self._tensor(rates),
            self._tensor(areas),
        )
        best_now = np.array([r.best[-1] for r in reports])
        at = torch.as_tensor(index, device=self._device)[:, None]
        a = features.cut(own, at)
        leader = snapshot.bank.leader
        incumbent = math.nan if leader is None else (leader[0] - context.center) / context.scale
        spread = snapshot.spread / context.scale if context.trials else 0.0

        def full(x: float) -> Tensor:
            return torch.full((n, 1), x, device=self._device)

        unit = features.unit_of(a, full(spread))
        cut = features.describe(
            own,
            a,
            unit,
            full(spread),
            full(incumbent),
            full(float(min(snapshot.bank.n_complete, 40))),
            self._tensor(until - base)[:, None],
            self._tensor(rate_until)[:, None],
            self._tensor(area_until)[:, None],
        )
        one = a.map(lambda x: x.transpose(0, 1))
        now_step = np.array([r.steps[-1] for r in reports])
        pairs = features.beside(
            one,
            unit.T,
            full(spread).T,
            full(incumbent).T,
            context.curves,
            context.reported,
            context.complete,
            self._place(context, now_step),
            self._place(context, base + 0.5 * (now_step - base)),
            self._place(context, base + 0.25 * (now_step - base)),
            self._place(context, until),
        )
        c = len(context.trials)
        uids = {t.uid: i for i, t in enumerate(context.trials)}
        use = torch.ones((1, n, c), dtype=torch.bool, device=self._device)
        for i, q in enumerate(queries):
            if (j := uids.get(q.trial.uid)) is not None:
                use[0, i, j] = False
        mine = np.array(
            [_encode(q.trial.params, context.names, context.kinds[0].tolist(), context.scales) for q in queries]
        )
        alike = match(
            self._tensor(mine.reshape(n, len(context.names)))[None], context.params, context.kinds, context.judged, use
        )
        kind = torch.as_tensor([[KINDS.index(q.kind) for q in queries]], device=self._device)
        logs, split = self._network.answer(states[None], cut.transpose(0, 1), kind, pairs, alike, context.states, use)
        gap = ((full(incumbent) - a.y) / unit).T
        p = p_below(self._network.borders, logs, split, gap)[0].double().cpu().numpy()
        mass = logs[0].double().exp().cpu().numpy()
        in_units = unit[:, 0].double().cpu().numpy()
        scaled = in_units * scale
        last = np.array([r.loss[-1] for r in reports])
        off = ~(in_units > 1e-12)
        return (*self._read_off(queries, reports, mass, p, last, scaled, leader, best_now, sign), off)

    def _read_off(
        self,
        queries: Sequence[Query],
        reports: Sequence[_Reports],
        mass: Floats,
        p: Floats,
        last: Floats,
        unit: Floats,
        leader: tuple[float, str, float] | None,
        best: Floats,
        sign: float,
    ) -> tuple[Floats, Floats, Floats]:
        """Masses of bins -> knots, levels and tails in losses, split at the incumbent, capped at the best so far."""
        n, k = mass.shape[0], self._borders.size
        cdf = np.minimum(mass.cumsum(1)[:, :-1] / mass.sum(1, keepdims=True), 1.0)
        at = last[:, None] + unit[:, None] * self._borders
        beat = np.full(n, np.inf) if leader is None else np.full(n, leader[0])
        there = np.isfinite(beat)
        knots = np.concatenate([at, np.where(there, beat, at[:, -1])[:, None]], 1)
        levels = np.concatenate([cdf, np.where(there, p, cdf[:, -1])[:, None]], 1)
        knots, levels = np.sort(knots, 1), np.sort(levels, 1)
        scales = tail_scales(self._network.borders).double().cpu().numpy()
        tails = unit[:, None] * scales
        capped = np.array([q.kind == "best_by" for q in queries])
        plain = Forecasts(knots, levels, tails, 1.0, (None,) * n)
        below = plain.p_beat(best)
        knots = np.concatenate([knots, np.where(capped, best, knots[:, -1])[:, None]], 1)
        levels = np.concatenate([levels, np.where(capped, below, levels[:, -1])[:, None]], 1)
        knots, levels = np.sort(knots, 1), np.sort(levels, 1)
        knots = np.where(capped[:, None], np.minimum(knots, best[:, None]), knots)
        levels[capped, -1] = 1.0
        tails[capped, 1] = 0.0
        # What is already reported is certain.
        for i, (q, r) in enumerate(zip(queries, reports, strict=True)):
            if q.step <= r.steps[-1]:
                steps, loss = q.trial.curve.losses(sign)
                m = max(int(np.searchsorted(steps, q.step, side="right")), 1)
                if q.kind == "best_by" or (q.kind == "value" and np.isfinite(loss[m - 1])):
                    sure = loss[:m].min() if q.kind == "best_by" else loss[m - 1]
                    if np.isfinite(sure):
                        knots[i], levels[i], tails[i] = sure, 0.0, 0.0
                        levels[i, -1] = 1.0
        return knots, levels, tails

    def _total(self, r: _Reports, horizon: float, context: _Context) -> float:
        """About how many reports the trial makes up to the horizon."""
        if r.n == 1 and context.trials:
            return float(context.reported.max())
        return r.n + max((horizon - float(r.steps[-1])) / r.spacing, 0.0) if r.spacing > 0 else 50.0

    def _place(self, context: _Context, step: Floats) -> Tensor:
        """(1, Q, C) index in every context trial of its last report not after each step; -1 for none."""
        c = len(context.trials)
        unique, back = np.unique(step, return_inverse=True)
        count = np.empty((unique.size, c), np.int64)
        for i, x in enumerate(unique):
            count[i] = (context.steps <= x).sum(1)
        return torch.as_tensor(count[back] - 1, device=self._device)[None]

    def _tensor(self, x: Floats) -> Tensor:
        with np.errstate(over="ignore"):
            return torch.as_tensor(np.asarray(x, np.float32), device=self._device)


def choose(bank: Bank, most: int) -> list[int]:
    """Rows of the finished trials that become context, in bank order: all, or the best three eighths of `most`, the
    latest three eighths, and the rest even over the ranks of what is left. Trials without a finite report are no
    context."""
    judged = bank.judged
    rows = np.flatnonzero(np.isfinite(judged))
    if rows.size <= most:
        return [int(i) for i in rows]
    share = 3 * most // 8
    done = rows[bank.complete[rows]]
    top = done[np.argpartition(judged[done], share)[:share]] if done.size > share else done
    recent = rows[-share:]
    taken = np.union1d(top, recent)
    rest = np.setdiff1d(rows, taken, assume_unique=True)
    rest = rest[np.argsort(judged[rest], kind="stable")]
    picked = rest[np.linspace(0, rest.size - 1, most - taken.size).round().astype(np.intp)]
    return [int(i) for i in np.sort(np.concatenate([taken, picked]))]


def planned(schedule: Schedule, steps: Floats) -> tuple[Floats, Floats]:
    """Learning rate as a share of its peak, and share of the schedule's area that is behind, at `steps`."""
    rates = schedule.rate(_AREA * schedule.horizon)
    gone = np.concatenate([[0.0], np.cumsum(0.5 * (rates[1:] + rates[:-1]))])
    gone /= max(float(gone[-1]), 1e-300)
    return schedule.rate(steps) / schedule.peak, np.interp(steps / schedule.horizon, _AREA, gone)


def _first_finite(loss: Floats) -> float:
    return float(loss[np.isfinite(loss)][0])


def _judged(trial: Trial, snapshot: Snapshot) -> float:
    loss = snapshot.goal.sign * trial.curve.values
    return float(loss.min() if snapshot.goal.judged == "best" else loss[-1])


def _columns(trials: Sequence[Trial]) -> tuple[tuple[str, ...], list[int], tuple[Any, ...]]:
    """Names of the parameters that differ among the trials, their kinds (1 number, 2 category) and scales."""
    names: dict[str, list[Any]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            names.setdefault(name, []).append(value)
    found, kinds, scales = [], [], []
    for name in sorted(names):
        values = names[name]
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
        if len(numbers) == len(values):
            low, high = float(min(numbers)), float(max(numbers))
            if high > low and len(found) < _MOST_PARAMS:
                log = low > 0 and high / low > 30
                found.append(name)
                kinds.append(1)
                scales.append((log, math.log(low) if log else low, math.log(high) if log else high))
        elif len(known := {repr(v) for v in values}) > 1 and len(found) < _MOST_PARAMS:
            found.append(name)
            kinds.append(2)
            scales.append({word: i for i, word in enumerate(sorted(known))})
    return tuple(found), kinds, tuple(scales)


def _encode(
    params: Mapping[str, Any], names: Sequence[str], kinds: Sequence[int], scales: Sequence[Any]
) -> list[float]:
    """One configuration in these columns; NaN where it has no such parameter."""
    row = []
    for name, kind, scale in zip(names, kinds, scales, strict=True):
        value = params.get(name)
        if name not in params:
            row.append(math.nan)
        elif kind == 2:
            row.append(float(scale.get(repr(value), len(scale))))
        elif not isinstance(value, int | float) or not math.isfinite(value):
            row.append(math.nan)
        else:
            log, low, high = scale
            x = math.log(value) if log and value > 0 else low if log else float(value)
            row.append(min(max((x - low) / (high - low), -0.25), 1.25))
    return row
