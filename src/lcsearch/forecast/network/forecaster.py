"""The network as a forecaster: a snapshot and queries -> tensors -> forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Absent, Forecasts, Query
from lcsearch.forecast.network import features
from lcsearch.forecast.network.asking import Asked, Looks, sort
from lcsearch.forecast.network.columns import plain
from lcsearch.forecast.network.context import Context
from lcsearch.forecast.network.model import KINDS, CurveNetwork
from lcsearch.forecast.network.params import N_MATCH, match
from lcsearch.forecast.network.reading import read_off, settle
from lcsearch.forecast.network.reports import as_tensor, shrink
from lcsearch.study import Snapshot

_PAIRS = 2500  # queries times context trials that are worked on at once: what stays in the processor's cache
_STUDIES = 8  # whose contexts are kept


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

        Absent rows: NONFINITE when the curve has no finite observation or its first one comes after the step asked
        about, or when that step is not finite; OFF_LAW when nothing gives the curve a scale (one
        observation, or a constant curve, in a study without a spread).
        """
        sign, source = snapshot.goal.sign, f"{self.name}/{self.version}"
        absent, sure, asked = sort(queries, sign)
        width = self._network.borders.numel() + 2
        found = (
            np.full((len(queries), width), np.nan),
            np.full((len(queries), width), np.nan),
            np.full((len(queries), 2), np.nan),
        )
        if asked:
            rows = [one.row for one in asked]
            # a training loop around this may have set autocast; float32 is what the tolerances are stated for
            with torch.inference_mode(), torch.autocast(torch.device(self._device).type, enabled=False):
                *parts, off = self._answer(snapshot, asked)
            for whole, part in zip(found, parts, strict=True):
                whole[rows, : part.shape[1]] = np.where(off[:, None], np.nan, part)
                whole[rows, part.shape[1] :] = whole[rows, part.shape[1] - 1 : part.shape[1]]
            for row, gone in zip(rows, off, strict=True):
                if gone:
                    absent[row] = Absent.OFF_LAW
        if sure:
            settle(found, list(sure), list(sure.values()))
        return Forecasts.of(*found, sign=sign, source=source, absent=absent)

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

    def _answer(self, snapshot: Snapshot, asked: Sequence[Asked]) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
        """Knots, levels and tails, and which of them have no scale."""
        context = self._context(snapshot)
        looks = Looks.of(asked, snapshot.goal.sign, context, self._network, self._device)
        cut = looks.describe(context.n_complete)
        pairs, alike, use = self._beside(context, asked, looks)
        plans = self._plans(context, looks)
        kind = torch.tensor([[one.kind for one in asked]], device=self._device)
        chunk = max(_PAIRS // max(len(context), 1), 1)
        parts = []
        for part in (slice(i, i + chunk) for i in range(0, len(asked), chunk)):
            state, seen, what = looks.states[None, part], cut[:, part], kind[:, part]
            beside = pairs[:, part], None if plans is None else plans[:, part], alike[:, part]
            parts.append(self._network.answer(state, seen, what, *beside, context.states, use[:, part]))
        logs, split = (torch.cat([part[k] for part in parts], 1)[0] for k in (0, 1))
        size, last = looks.sizes(context.spread)
        off = np.isnan(size)
        best_by = np.array([KINDS[one.kind] == "best_by" for one in asked])
        cap = np.where(best_by, [r.best[-1] for r in looks.reports], np.inf)
        unit = np.where(off, 1.0, size)
        return (*read_off(self._network.borders, logs, split, last, unit, context.incumbent, cap), off)

    def _beside(self, context: Context, asked: Sequence[Asked], looks: Looks) -> tuple[Tensor, Tensor, Tensor]:
        """Queries beside context trials: (1, Q, C, N_PAIR), (1, Q, C, D, N_MATCH) and (1, Q, C) which ones count."""
        n, c, device = len(asked), len(context), self._device
        start, now = looks.start, looks.now
        passed = now - start
        at = context.place(np.concatenate([now, start + 0.5 * passed, start + 0.25 * passed, looks.until]))
        incumbent = shrink(np.full(n, context.incumbent), context.center, context.scale)
        pairs = features.beside(
            *looks.in_study(context),
            torch.full((1, n), 1.0 if context.spread > 0 else 0.0, device=device, dtype=torch.float32),
            as_tensor(incumbent, device)[None],
            context.curves,
            context.reported,
            context.complete,
            *torch.from_numpy(at).to(device).view(4, 1, n, c).unbind(),
        )
        use = torch.ones((1, n, c), dtype=torch.bool, device=device)
        for i, one in enumerate(asked):
            if (j := context.places.get(one.trial.uid)) is not None:  # a trial is no context of its own
                use[0, i, j] = False
        if not context.columns.columns:
            return pairs, pairs.new_zeros(1, n, c, 0, N_MATCH), use
        params = as_tensor(context.columns.encode([plain(one.trial.params) for one in asked]), device)[None]
        return pairs, match(params, context.params, context.kinds, context.judged, use), use

    def _plans(self, context: Context, looks: Looks) -> Tensor | None:
        """Schedules beside those of context trials, (1, Q, C, N_PLAN); None where none is known."""
        if not context.schedules or all(r.schedule is None for r in looks.reports):
            return None
        theirs = context.planned(np.concatenate([looks.now, looks.until]))
        rate, area = (as_tensor(x, self._device).unsqueeze(1) for x in looks.plans)
        their_rate, their_area = (as_tensor(x, self._device).view(2, 1, len(looks.now), -1) for x in theirs)
        return features.plans((rate, area), (their_rate, their_area))
