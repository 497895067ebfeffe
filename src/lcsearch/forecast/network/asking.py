"""Queries made ready: what is certain already, what is left to ask, and what the asked trials look like."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lcsearch.curves import ROUNDING, Curve, Floats
from lcsearch.forecast.contract import Absent, Query
from lcsearch.forecast.network import features
from lcsearch.forecast.network.columns import Plain, plain
from lcsearch.forecast.network.context import Context, Known, weight
from lcsearch.forecast.network.features import Curves, Cuts
from lcsearch.forecast.network.model import KINDS, CurveNetwork
from lcsearch.forecast.network.reports import LARGEST, Batch, Reports, as_tensor, planned, standardize
from lcsearch.study import Trial

_HARDLY = 1e-6  # of the distance to what is to be beaten: a curve that moves by less is as good as constant
_NO_SCALE = 1e-25  # own units below this come from no difference at all


class PendingQuery(NamedTuple):
    """What is left to ask of the network: the query's row, its trial (cut), its kind, and the step asked about."""

    row: int
    trial: Trial
    kind: int
    step: float


def sort(queries: Sequence[Query], sign: float) -> tuple[list[Absent | None], dict[int, float], list[PendingQuery]]:
    """What cannot be answered, what is certain (row -> loss), and what is left to ask."""
    absent: list[Absent | None] = [None] * len(queries)
    sure: dict[int, float] = {}
    asked = []
    cuts: dict[tuple[int, float], Trial] = {}
    for i, (trial, kind, step) in enumerate(queries):
        curve = trial.curve
        if not len(curve) or not math.isfinite(step) or step < curve.steps[0]:
            absent[i] = Absent.NONFINITE
            continue
        if step <= curve.last_step:
            if kind != "latent":
                sure[i] = curve.at(step, sign, best=kind == "best_by")
                continue
            trial = cuts.setdefault((id(trial), step), trial.cut(step))
        if trial.curve.n_trailing_events:
            last = float(trial.curve.steps[-1])
            trial = cuts.setdefault((id(trial), last), trial.cut(last))
        asked.append(PendingQuery(i, trial, KINDS.index(kind), float(step)))
    return absent, sure, asked


def _encode(batch: Batch, network: CurveNetwork) -> Tensor:
    """(N, W) state of each trial at its last report."""
    return network.encode_ends(features.tokens(batch.curves, batch.grid), batch.ends)


def _behind(curve: Curve, loss: float, target: float, scale: float) -> float:
    """How far a trial of this loss stands from what it is to beat; 0 where its curve, so large, has hardly moved."""
    away = abs(loss - target)
    moved = not curve.still and scale > max(ROUNDING * abs(loss), _HARDLY * away)
    return away if moved and math.isfinite(away) else 0.0


class States:
    """States of cut trials, by uid and number of reports; one of another curve or plan of that name is encoded anew.

    Args:
        most: trials that are kept.
        heaviest: numbers that they may have, see :func:`~lcsearch.forecast.network.context.weight`.

    A state hangs on the curve, the plan and the horizon alone, but where nothing in the curve gives a scale or a
    distance between reports: those are not kept.
    """

    def __init__(self, most: int, heaviest: int) -> None:
        self._most, self._heaviest, self._weight = most, heaviest, 0
        self._kept: dict[tuple[str, int, float], tuple[Trial, Tensor]] = {}

    def encode(self, trials: Sequence[tuple[Trial, float]], batch: Batch, network: CurveNetwork) -> Tensor:
        """(N, W): trials with their horizons, read as `batch`."""
        keys = [(trial.uid, trial.curve.n_reports, horizon) for trial, horizon in trials]
        found = [self._get(key, trial) for key, (trial, _) in zip(keys, trials, strict=True)]
        new = [i for i, state in enumerate(found) if state is None]
        if new:
            rows = torch.tensor(new, device=batch.ends.device)
            made = _encode(batch.pick(rows), network)
            if len(self._kept) + len(new) > self._most or self._weight > self._heaviest:
                self._kept.clear()
                self._weight = 0
            for i, state in zip(new, made, strict=True):
                found[i], values = state, trials[i][0].curve.values
                if len(values) > 1 and values.min() < values.max():
                    self._kept[keys[i]] = trials[i][0], state
                    self._weight += weight(trials[i][0])
        return torch.stack([state for state in found if state is not None])

    def _get(self, key: tuple[str, int, float], trial: Trial) -> Tensor | None:
        kept = self._kept.get(key)
        if kept is None or kept[0].schedule != trial.schedule or kept[0].curve != trial.curve:
            return None
        return kept[1] if kept[0].status is trial.status else None


class Singly:
    """What trials look like that are asked about time and again as they stand: each is read and encoded alone, so that
    no bit hangs on what else is asked, or on what is kept here."""

    def __init__(self, most: int, heaviest: int) -> None:
        self._most, self._heaviest, self._weight = most, heaviest, 0
        self._kept: dict[tuple[str, int, float, float | None], Known] = {}

    def read(self, trial: Trial, sign: float, context: Context, network: CurveNetwork, device: str) -> Known:
        """A trial as it is asked about in a study."""
        gap = context.gap if trial.curve.n_reports == 1 else None
        key = trial.uid, trial.curve.n_reports, context.horizon, gap
        known = self._kept.get(key)
        if known is None or not known.still(trial, sign, context.horizon):
            (known,) = Known.of([trial], sign, context.horizon, network, device, gap)
            if len(self._kept) >= self._most or self._weight > self._heaviest:
                self._kept, self._weight = {}, 0  # a new dictionary: threads may be reading the old one
            self._kept[key] = known
            self._weight += weight(trial)
        return known


@dataclass(frozen=True, eq=False)
class QueryBatch:
    """Q asked trials, each in its own curve's units: loss = center + scale * y.

    Attributes:
        reports: Q of them.
        params: Q configurations.
        curves: (Q, S).
        cuts: (Q, 1) at the last report.
        states: (Q, W) there.
        center, scale: (Q,).
        spread, incumbent, unit: (Q, 1) of the study (NaN without an incumbent), and the curve's own unit.
        target: (Q,) the incumbent raw: the loss that the trial is to beat.
        wide: (Q,) the spread raw. Where there is none, and the curve has no unit of its own (it has not moved, or is of
            few values, most of them the same, as an accuracy on few samples), the context's `stand_in`; where that is
            0, too, and the curve has moved, how far it stands from `target`.
        now, until: (Q,) raw steps of the last report and of what is asked; until > now.
    """

    reports: list[Reports]
    params: list[Plain]
    curves: Curves
    cuts: Cuts
    states: Tensor
    center: Floats
    scale: Floats
    spread: Tensor
    incumbent: Tensor
    unit: Tensor
    target: Floats
    wide: Floats
    now: Floats
    until: Floats

    @classmethod
    def of(
        cls,
        asked: Sequence[PendingQuery],
        sign: float,
        contexts: Sequence[Context],
        network: CurveNetwork,
        device: str,
        memo: States | None = None,
        singly: Mapping[int, Known] = MappingProxyType({}),
    ) -> QueryBatch:
        """Read and encode Q trials beside Q contexts; one that is asked about more than once is read once.

        `memo` keeps what was encoded, where the same trials are asked about again and again; rows of which `singly`
        knows what they look like are not read.
        """
        keys = [(id(one.trial), id(context)) for one, context in zip(asked, contexts, strict=True)]
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        which = np.array([place[key] for key in keys])
        alone = [first[key] for key in place]
        known = [singly.get(i) for i in alone]
        reports, params = [], []
        for i, have in zip(alone, known, strict=True):
            trial, context = asked[i].trial, contexts[i]
            reports.append(Reports.of(trial, sign, context.horizon, context.gap) if have is None else have.reports)
            params.append(plain(trial.params) if have is None else have.params)
        batch = Batch.of(reports, device, np.array([contexts[i].scale for i in alone]))
        curves, ends = batch.curves, torch.from_numpy(batch.sizes - 1).to(device)
        new = [k for k, have in enumerate(known) if have is None]
        made: Sequence[Tensor] | Tensor = ()
        if new:
            part = batch if len(new) == len(alone) else batch.pick(torch.tensor(new, device=device))
            trials = [(asked[alone[k]].trial, contexts[alone[k]].horizon) for k in new]
            made = _encode(part, network) if memo is None else memo.encode(trials, part, network)
        rest = iter(made)
        states = torch.stack([next(rest) if have is None else have.state for have in known])
        if len(reports) < len(asked):
            each = torch.from_numpy(which).to(device)
            curves, states, ends = curves.map(lambda x: x[each]), states[each], ends[each]
            reports, params = [reports[i] for i in which], [params[i] for i in which]
        center, scale = batch.center[which], batch.scale[which]
        cuts = features.cut(curves, ends[:, None])
        wide = np.array([context.spread for context in contexts])
        pairs = zip(asked, contexts, strict=True)
        target = np.array([context.begun.target(one.trial.uid) for one, context in pairs])
        if (wide <= 0).any():
            own = features.unit_of(cuts, torch.zeros_like(cuts.recent))[:, 0].double().cpu().numpy()
            for i in np.flatnonzero((wide <= 0) & (own <= _NO_SCALE)).tolist():
                if reports[i].steps.size > 1:
                    wide[i] = contexts[i].stand_in or _behind(
                        asked[i].trial.curve, float(reports[i].loss[-1]), target[i], scale[i]
                    )
        with np.errstate(over="ignore"):
            spread = as_tensor(wide / scale, device)[:, None]
        incumbent_y = as_tensor(standardize(target, center, scale), device)[:, None]
        now = np.array([r.steps[-1] for r in reports])
        until = np.array([one.step for one in asked])
        until = np.where(until > now, until, now + np.array([r.spacing for r in reports]))
        unit = features.unit_of(cuts, spread)
        return cls(
            reports, params, curves, cuts, states, center, scale, spread, incumbent_y, unit, target, wide, now, until
        )

    def describe(self, n_complete: Sequence[float]) -> Tensor:
        """(Q, N_CUT), of studies with so many complete trials."""
        rate, area = (x[1] for x in self.plans)
        times = (self.until - self.start) / np.array([r.reach for r in self.reports])
        device = str(self.unit.device)
        then, rates, areas, n = (as_tensor(np.asarray(x), device)[:, None] for x in (times, rate, area, n_complete))
        found = features.describe(self.curves, self.cuts, self.unit, self.spread, self.incumbent, n, then, rates, areas)
        return found.squeeze(1)

    @cached_property
    def plans(self) -> tuple[Floats, Floats]:
        """Rate and area (2, Q) that the trials' schedules have at `now` and at `until`; NaN without one."""
        rate, area = np.full((2, len(self.reports)), np.nan), np.full((2, len(self.reports)), np.nan)
        for i, r in enumerate(self.reports):
            if r.schedule is not None:
                rate[:, i], area[:, i] = planned(r.schedule, np.array([self.now[i], self.until[i]]))
        return rate, area

    @property
    def start(self) -> Floats:
        """(Q,) raw steps at which the trials' times are 0."""
        return np.array([r.start for r in self.reports])

    def in_study(self, center: Floats, scale: Floats) -> tuple[Cuts, Tensor]:
        """Cuts and units in the units of their studies (Q,), as (1, Q): what `features.beside` reads of them."""
        a, device = self.cuts, self.unit.device
        with np.errstate(over="ignore"):
            factor = np.clip(self.scale / scale, 1.0 / LARGEST**5, LARGEST**5)
            shift = np.clip((self.center - center) / scale, -LARGEST, LARGEST)
        by, plus = torch.from_numpy(factor).to(device), torch.from_numpy(shift).to(device)

        def moved(x: Tensor) -> Tensor:
            x = x.transpose(0, 1).double()
            k, d = (by, plus) if x.dim() == 2 else (by[:, None], plus[:, None])
            return (x * k + d).clamp(-LARGEST, LARGEST).float()

        found = replace(
            a,
            index=a.index.T,
            y=moved(a.y),
            best=moved(a.best),
            first=moved(a.first),
            parts=moved(a.parts),
            smooth=moved(a.smooth),
            **{name: getattr(a, name).T for name in ("noise", "full", "recent")},
        )
        return found, (self.unit.T * by).clamp(1e-30, LARGEST).float()

    def sizes(self) -> tuple[Floats, Floats]:
        """(Q,) raw sizes of the own units, NaN where nothing gives a scale; (Q,) raw last losses."""
        size = self.unit[:, 0].double().cpu().numpy()
        last = np.array([r.loss[-1] for r in self.reports])
        with np.errstate(over="ignore"):
            raw = np.minimum(size * self.scale, np.finfo(np.float64).max)
        some = (size > _NO_SCALE) & (raw >= np.finfo(np.float64).tiny)
        some &= (self.wide > 0) | (raw > ROUNDING * np.abs(last))
        return np.where(some, raw, np.nan), last
