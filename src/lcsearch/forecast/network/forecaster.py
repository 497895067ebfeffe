"""The network as a forecaster: a snapshot and queries -> tensors -> forecasts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcsearch.curves import Curve, Floats
from lcsearch.forecast.contract import Absent, Forecasts, Query
from lcsearch.forecast.network import features
from lcsearch.forecast.network.columns import plain
from lcsearch.forecast.network.context import Context
from lcsearch.forecast.network.features import Cuts
from lcsearch.forecast.network.model import KINDS, CurveNetwork
from lcsearch.forecast.network.params import N_MATCH, match
from lcsearch.forecast.network.reading import read_off, settle
from lcsearch.forecast.network.reports import LARGEST, Batch, Reports, as_tensor, planned, shrink
from lcsearch.study import Snapshot, Trial

_PAIRS = 2500  # queries times context trials that are worked on at once: what stays in the processor's cache
_STUDIES = 8  # whose contexts are kept
_NO_SCALE = 1e-25  # own units below this come from no difference at all
_ROUNDING = 1e-12  # a curve that moves by less, relative to its size, is constant


class _Asked(NamedTuple):
    """What is left to ask of the network: the query's row, its trial (cut), its kind, and the step asked about."""

    row: int
    trial: Trial
    kind: int
    step: float


class NetworkForecaster:
    """P(beat) and whole distributions by the pretrained network.

    A query's answer depends on the other queries of the call, on the order of finished trials and on the metric's
    units by rounding in float32 only: probabilities differ by less than 1e-5 (1e-6 was measured), under other units by
    less than 1e-4 (1e-5 was measured), and by nothing when the study is mirrored or its values are multiplied by a
    power of two. What is kept between calls (what finished trials look like) never changes a bit. For that reason no
    states of live trials are kept: they are encoded in batches, whose sizes show in the last bits.

    Args:
        network: with its weights; it is moved to the device.
        version: of the weights, for receipts.
        device: where it computes.
    """

    name = "network"

    def __init__(self, network: CurveNetwork, version: str, device: str = "cpu") -> None:
        self._network = network.eval().to(device)
        self._version, self._device = version, device
        self._contexts: dict[str, Context] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_contexts": {}}  # a memo stays at home

    @property
    def version(self) -> str:
        """Of the weights."""
        return self._version

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """One row a query.

        A value or a best-by at a step that is not after the last report is certain; a latent value there is asked of
        the curve as it stood at that step.

        Absent rows: NONFINITE when the curve has no finite observation, ends in non-finite reports or begins after the
        step asked about, or when that step is not finite; OFF_LAW when nothing gives the curve a scale (one
        observation, or a constant curve, in a study without a spread).
        """
        sign, source = snapshot.goal.sign, f"{self.name}/{self.version}"
        absent, sure, asked = _sort(queries, sign)
        width = self._network.borders.numel() + 2
        found = (
            np.full((len(queries), width), np.nan),
            np.full((len(queries), width), np.nan),
            np.full((len(queries), 2), np.nan),
        )
        if asked:
            rows = [one.row for one in asked]
            with torch.inference_mode():
                *parts, off = self._answer(snapshot, asked)
            for whole, part in zip(found, parts, strict=True):
                whole[rows, : part.shape[1]] = np.where(off[:, None], np.nan, part)
                whole[rows, part.shape[1] :] = whole[rows, part.shape[1] - 1 : part.shape[1]]
            for row, gone in zip(rows, off, strict=True):
                if gone:
                    absent[row] = Absent.OFF_LAW
        if sure:
            settle(found, list(sure), list(sure.values()))
        made = Forecasts.of(*found, sign=sign, source=source)
        reasons = tuple(a if a is not None else b for a, b in zip(absent, made.absent, strict=True))
        return Forecasts(*found, sign, reasons, source)

    def _context(self, snapshot: Snapshot) -> Context:
        """The context of the snapshot's bank; kept until the study's bank is another one."""
        kept = self._contexts.get(snapshot.study)
        if kept is not None and kept.bank is snapshot.bank:
            return kept
        made = Context.of(snapshot, self._network, self._device, kept)
        others = {study: one for study, one in self._contexts.items() if study != snapshot.study}
        latest = list(others.items())[1 - _STUDIES :]
        self._contexts = {**dict(latest), snapshot.study: made}  # a new dictionary: threads may be reading the old one
        return made

    def _answer(self, snapshot: Snapshot, asked: Sequence[_Asked]) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
        """Knots, levels and tails, and which of them have no scale."""
        context = self._context(snapshot)
        curves = {id(one.trial): one.trial for one in asked}
        place = {key: i for i, key in enumerate(curves)}
        which = np.array([place[id(one.trial)] for one in asked])
        gap, sign = context.gap, snapshot.goal.sign
        reports = [Reports.of(trial, sign, context.horizon, gap) for trial in curves.values()]
        batch = Batch.of(reports, self._device, context.scale)
        states = self._network.encode_ends(features.tokens(batch.curves, batch.grid), batch.ends)
        own = batch.curves
        if len(reports) < len(asked):
            each = torch.from_numpy(which).to(self._device)
            own, states = own.map(lambda x: x[each]), states[each]
            reports = [reports[i] for i in which]
        center, scale = batch.center[which], batch.scale[which]
        now = np.array([r.steps[-1] for r in reports])
        until = np.array([one.step for one in asked])
        until = np.where(until > now, until, now + np.array([r.spacing for r in reports]))

        # The query by itself, in its curve's own units.
        def per(x: Floats | float) -> Tensor:
            return as_tensor(np.broadcast_to(np.asarray(x, np.float64), now.shape), self._device)[:, None]

        a = features.cut(own, torch.from_numpy(batch.sizes[which] - 1).to(self._device)[:, None])
        with np.errstate(over="ignore"):
            spread = per(context.spread / scale)
        incumbent = per(shrink(np.full(now.shape, context.incumbent), center, scale))
        unit = features.unit_of(a, spread)
        rate, area = _planned_at(reports, until)
        cut = features.describe(
            own,
            a,
            unit,
            spread,
            incumbent,
            per(context.n_complete),
            per(_times(reports, until)),
            per(rate),
            per(area),
        )

        # Beside the context, in the study's units.
        pairs, alike, use = self._beside(context, asked, reports, _in_study(a, unit, center, scale, context), until)
        kind = torch.tensor([[one.kind for one in asked]], device=self._device)
        about = states[None], cut.transpose(0, 1), kind
        chunk = max(_PAIRS // max(len(context), 1), 1)
        parts = []
        for part in (slice(i, i + chunk) for i in range(0, len(asked), chunk)):
            state, seen, what = (x[:, part] for x in about)
            parts.append(
                self._network.answer(state, seen, what, pairs[:, part], alike[:, part], context.states, use[:, part])
            )
        logs, split = (torch.cat([part[k] for part in parts], 1) for k in (0, 1))

        size = unit[:, 0].double().cpu().numpy()
        last = np.array([r.loss[-1] for r in reports])
        with np.errstate(over="ignore"):
            raw = np.minimum(size * scale, np.finfo(np.float64).max)
        off = ~(size > _NO_SCALE) | (raw < np.finfo(np.float64).tiny)
        if not context.spread > 0:
            off |= raw <= _ROUNDING * np.abs(last)
        best_by = np.array([KINDS[one.kind] == "best_by" for one in asked])
        cap = np.where(best_by, [r.best[-1] for r in reports], np.inf)
        found = read_off(self._network.borders, logs[0], split[0], last, raw, context.incumbent, cap)
        return (*found, off)

    def _beside(
        self,
        context: Context,
        asked: Sequence[_Asked],
        reports: Sequence[Reports],
        mine: tuple[Cuts, Tensor],
        until: Floats,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries beside context trials: (1, Q, C, N_PAIR), (1, Q, C, D, N_MATCH) and (1, Q, C) which ones count."""
        a, unit = mine
        n, c = len(asked), len(context)
        start = np.array([r.start for r in reports])
        now = np.array([r.steps[-1] for r in reports])
        at = context.place(np.concatenate([now, start + 0.5 * (now - start), start + 0.25 * (now - start), until]))
        places = torch.from_numpy(at).to(self._device).view(4, 1, n, c).unbind()
        incumbent = shrink(np.full(n, context.incumbent), context.center, context.scale)
        pairs = features.beside(
            a,
            unit,
            torch.full((1, n), 1.0 if context.spread > 0 else 0.0, device=self._device),
            as_tensor(incumbent, self._device)[None],
            context.curves,
            context.reported,
            context.complete,
            *places,
        )
        use = torch.ones((1, n, c), dtype=torch.bool, device=self._device)
        for i, one in enumerate(asked):
            if (j := context.places.get(one.trial.uid)) is not None:
                use[0, i, j] = False
        if not context.columns.columns:
            return pairs, pairs.new_zeros(1, n, c, 0, N_MATCH), use
        params = as_tensor(context.columns.encode([plain(one.trial.params) for one in asked]), self._device)[None]
        return pairs, match(params, context.params, context.kinds, context.judged, use), use


def _sort(queries: Sequence[Query], sign: float) -> tuple[list[Absent | None], dict[int, float], list[_Asked]]:
    """What cannot be answered, what is certain (row -> loss), and what is left to ask."""
    absent: list[Absent | None] = [None] * len(queries)
    sure: dict[int, float] = {}
    asked = []
    cuts: dict[tuple[int, float], Trial] = {}
    for i, (trial, kind, step) in enumerate(queries):
        curve = trial.curve
        if _silent(curve) or not math.isfinite(step) or step < curve.steps[0]:
            absent[i] = Absent.NONFINITE
            continue
        if step <= curve.steps[-1]:
            losses = sign * curve.values[: int(curve.steps.searchsorted(step, side="right"))]
            if kind != "latent":
                sure[i] = float(losses.min() if kind == "best_by" else losses[-1])
                continue
            trial = cuts.setdefault((id(trial), step), trial.cut(step))
            if _silent(trial.curve):
                absent[i] = Absent.NONFINITE
                continue
        asked.append(_Asked(i, trial, KINDS.index(kind), float(step)))
    return absent, sure, asked


def _silent(curve: Curve) -> bool:
    return not len(curve) or curve.n_trailing_events > 0


def _times(reports: Sequence[Reports], steps: Floats) -> Floats:
    """(Q,) steps on each trial's own time."""
    times: Floats = (steps - np.array([r.start for r in reports])) / np.array([r.reach for r in reports])
    return times


def _planned_at(reports: Sequence[Reports], steps: Floats) -> tuple[Floats, Floats]:
    """(Q,) planned rate and area at the steps."""
    rate, area = np.full(steps.shape, np.nan), np.full(steps.shape, np.nan)
    for i, r in enumerate(reports):
        if r.schedule is not None:
            rate[i : i + 1], area[i : i + 1] = planned(r.schedule, steps[i : i + 1])
    return rate, area


def _in_study(a: Cuts, unit: Tensor, center: Floats, scale: Floats, context: Context) -> tuple[Cuts, Tensor]:
    """Cuts (Q, 1) and their unit from own units to the study's, as (1, Q): what `features.beside` reads of them."""
    with np.errstate(over="ignore"):
        factor = np.clip(scale / context.scale, 1.0 / LARGEST**5, LARGEST**5)
        shift = np.clip((center - context.center) / context.scale, -LARGEST, LARGEST)
    by = torch.from_numpy(factor).to(unit.device)
    plus = torch.from_numpy(shift).to(unit.device)

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
    )
    return found, (unit.T * by).clamp(1e-30, LARGEST).float()
