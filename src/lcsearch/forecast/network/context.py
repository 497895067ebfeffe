"""The trials that queries are compared with: which ones, and what they look like as tensors of one study.

A context made from an earlier one takes over what it knows of trials that are in both; each trial is encoded alone, so
that this changes no bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcsearch.curves import Floats
from lcsearch.forecast.network import features
from lcsearch.forecast.network.begun import FEW, Begun, alongside
from lcsearch.forecast.network.columns import Columns, Plain, plain
from lcsearch.forecast.network.features import Curves
from lcsearch.forecast.network.model import CurveNetwork
from lcsearch.forecast.network.reports import Batch, Reports, as_tensor, pad, planned, standardize
from lcsearch.schedule import Schedule
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial

MOST_COUNTED = 64
"""Complete trials that the network is told of at most: in its training there were seldom more."""


@dataclass(frozen=True, eq=False)
class Known:
    """What is kept of a finished or paused trial: its reports, its configuration, its last state (W,)."""

    trial: Trial
    horizon: float
    sign: float
    reports: Reports
    params: Plain
    state: Tensor

    @classmethod
    def of(
        cls,
        trials: Sequence[Trial],
        sign: float,
        horizon: float,
        network: CurveNetwork,
        device: str,
        gap: float | None = None,
    ) -> list[Known]:
        """Read and encode them in one batch; `gap` as :meth:`Reports.of` has it."""
        if not trials:
            return []
        reports = [Reports.of(trial, sign, horizon, gap) for trial in trials]
        batch = Batch.of(reports, device)
        states = network.encode_ends(features.tokens(batch.curves, batch.grid), batch.ends)
        each = zip(trials, reports, states, strict=True)
        return [cls(trial, horizon, sign, r, plain(trial.params), state) for trial, r, state in each]

    def still(self, trial: Trial, sign: float, horizon: float) -> bool:
        """Whether it says of `trial` what reading it anew would."""
        return self.horizon == horizon and self.sign == sign and same(self.trial, trial)

    @property
    def key(self) -> Key:
        """Of the trial as it is known."""
        return _key(self.trial)


Key = tuple[str, int]
"""A trial's uid and its number of reports: where several searches run over the same trials, each may end one elsewhere.
"""


def same(a: Trial, b: Trial) -> bool:
    """Whether two trials are one, at the same report, as far as the network sees."""
    return a is b or (
        a.uid == b.uid
        and (a.curve is b.curve or a.curve == b.curve)
        and a.schedule == b.schedule
        and (a.status is Status.COMPLETE) == (b.status is Status.COMPLETE)
        and (a.params is b.params or plain(a.params) == plain(b.params))
    )


def unknown(snapshot: Snapshot, kept: Mapping[Key, Known], live: tuple[Trial, ...]) -> dict[Key, Trial]:
    """The trials of a context that nothing is kept of; `live`: what :func:`alongside` says."""
    sign, horizon = snapshot.goal.sign, snapshot.horizon
    found = {_key(trial): trial for trial in Begun.of(snapshot, live).trials}
    return {k: t for k, t in found.items() if (have := kept.get(k)) is None or not have.still(t, sign, horizon)}


def weight(trial: Trial) -> int:
    """About how many numbers' room a finished or cut trial takes that is kept."""
    words = sum(len(value) for value in trial.params.values() if isinstance(value, str))
    return 100 + 5 * trial.curve.n_reports + 20 * len(trial.params) + words // 8


def _key(trial: Trial) -> Key:
    return trial.uid, trial.curve.n_reports


_NONE: Mapping[Key, Known] = {}


@dataclass(frozen=True, eq=False)
class Context:
    """C context trials of one study, in its units: y = (loss - center) / scale.

    Attributes:
        bank, horizon: what it was made for.
        begun: whom it holds.
        known: C trials.
        places: uid -> row.
        steps: (C, S) raw steps; (S,) where all trials report at the same ones; +inf beyond a trial's last.
        ends: (C,) raw step of each trial's last report.
        curves: (1, C, S); only what `features.beside` reads is filled.
        reported, complete: (1, C) of them.
        judged: (1, C) losses that configurations are told apart by; NaN for none.
        states: (1, C, W).
        columns: the parameters that differ.
        params: (1, C, D).
        kinds: (1, D).
        schedules: different plans, of peak 1.
        plan: (C,) index of each trial's; -1 without one.
        gap: steps between first reports, typically; None without a trial that tells.
        spread: of judged losses, see :class:`Begun`.
        stand_in: what a curve without a unit takes for the spread where that is 0, as best values tie; 0: nothing.
        n_complete: as the network is told.
        crowds: what was made of it, see :class:`~lcsearch.forecast.network.round.Crowd`: a memo, never meaning.
    """

    bank: FinishedTrials
    horizon: float
    begun: Begun
    known: tuple[Known, ...]
    places: dict[str, int]
    steps: Floats
    ends: Floats
    curves: Curves
    reported: Tensor
    complete: Tensor
    judged: Tensor
    states: Tensor
    columns: Columns
    params: Tensor
    kinds: Tensor
    schedules: tuple[Schedule, ...]
    plan: NDArray[np.int64]
    gap: float | None
    center: float
    scale: float
    spread: float
    stand_in: float
    n_complete: float
    crowds: dict[Any, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.known)

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        network: CurveNetwork,
        device: str,
        kept: Mapping[Key, Known] = _NONE,
        live: tuple[Trial, ...] | None = None,
    ) -> Context:
        """Make it, with what is known already; `live`: what :func:`alongside` says."""
        bank, sign, horizon = snapshot.bank, snapshot.goal.sign, snapshot.horizon
        begun = Begun.of(snapshot, alongside(snapshot) if live is None else live)
        known = []
        for trial in begun.trials:
            have = kept.get(_key(trial))
            if have is None or not have.still(trial, sign, horizon):
                (have,) = Known.of([trial], sign, horizon, network, device)  # alone: no bit hangs on what else is new
            known.append(have)
        reports, complete = [one.reports for one in known], begun.complete
        center, scale, stand_in = _units(reports, begun.so_far, begun.target(), begun.spread)
        judged = standardize(begun.so_far, center, scale)
        if np.count_nonzero(complete) >= FEW:
            judged = np.where(complete, judged, np.nan)
        steps, curves = _curves(reports, center, scale, device)
        columns = Columns.of([one.params for one in known])
        params = columns.encode([one.params for one in known])
        width = network.size.curve_width
        states = [one.state for one in known]
        # shares of the peak are what is read; peaks differ from trial to trial, plans hardly do
        plans = [None if r.schedule is None else replace(r.schedule, peak=1.0) for r in reports]
        schedules = {plan: i for i, plan in enumerate(dict.fromkeys(plan for plan in plans if plan is not None))}
        gaps = [r.steps[0] - r.start for r in reports if r.steps.size > 1]
        return cls(
            bank,
            horizon,
            begun,
            tuple(known),
            {one.trial.uid: i for i, one in enumerate(known)},
            steps,
            np.array([r.steps[-1] for r in reports]),
            curves,
            torch.tensor([[r.steps.size for r in reports]], dtype=torch.int64, device=device),
            torch.from_numpy(complete).to(device)[None],
            as_tensor(judged, device)[None],
            (torch.stack(states) if states else torch.zeros(0, width, device=device, dtype=torch.float32))[None],
            columns,
            as_tensor(params, device)[None],
            torch.tensor([columns.kinds], dtype=torch.int64, device=device),
            tuple(schedules),
            np.array([-1 if plan is None else schedules[plan] for plan in plans], np.int64),
            float(np.median(gaps)) if gaps else None,
            center,
            scale,
            begun.spread,
            stand_in,
            float(min(bank.n_complete, MOST_COUNTED)),
        )

    @property
    def kept(self) -> dict[Key, Known]:
        """What a later context may take over."""
        return {one.key: one for one in self.known}

    def still(self, snapshot: Snapshot, live: tuple[Trial, ...]) -> bool:
        """Whether it is what the snapshot, with these :func:`alongside`, would have made."""
        mine, bank = self.bank, snapshot.bank
        empty = not len(mine) and not len(bank) and mine.goal == bank.goal  # each of them is a new object
        if not (mine is bank or empty) or self.horizon != snapshot.horizon:
            return False
        return len(self.begun.live) == len(live) and all(map(same, self.begun.live, live))

    def place(self, step: Floats) -> NDArray[np.int64]:
        """(Q,) steps -> (Q, C) index of each trial's last report not after them: -1 before its first, and one beyond
        its last where it had ended by then."""
        count = self.reported[0].cpu().numpy()
        if self.steps.ndim == 1:
            at: NDArray[np.int64] = np.searchsorted(self.steps, step, side="right")[:, None] - 1
            return np.where(step[:, None] > self.ends, count, at)
        unique, back = np.unique(step, return_inverse=True)
        found = np.empty((unique.size, len(self)), np.int64)
        for i, x in enumerate(unique):
            found[i] = np.count_nonzero(self.steps <= x, axis=1) - 1
        found += unique[:, None] > self.ends
        return found[back]

    def planned(self, steps: Floats) -> tuple[Floats, Floats]:
        """(Q,) steps -> rate and area (Q, C) that the trials' schedules have there; NaN without one."""
        blank = np.full(steps.shape, np.nan)
        found = [*(planned(schedule, steps) for schedule in self.schedules), (blank, blank)]
        rate, area = (np.stack([one[k] for one in found], 1)[:, self.plan] for k in (0, 1))
        return rate, area


def _units(reports: Sequence[Reports], judged: Floats, incumbent: float, spread: float) -> tuple[float, float, float]:
    """Center and scale of a study's losses: the incumbent and the spread, or what stands in for them; and, of a scale
    that stands in, how large it is (0 where nothing gives one).
    """
    finite = [r.loss[np.isfinite(r.loss)] for r in reports]
    center = incumbent if math.isfinite(incumbent) else float(finite[0][0]) if finite else 0.0
    if spread > 0:
        return center, spread, 0.0
    with np.errstate(over="ignore"):  # distances from the best, not ranges: one blow-up must not set the scale
        away = np.array([np.median(0.5 * (x - x.min())) for x in finite])
    away = away[(away > 0) & np.isfinite(away)]
    if not away.size:  # no curve has moved: how far they lie apart
        away = np.abs(judged - center)
        away = away[(away > 0) & np.isfinite(away)]
    found = float(np.median(away)) if away.size else 0.0
    return center, found or 1.0, found


def _curves(reports: Sequence[Reports], center: float, scale: float, device: str) -> tuple[Floats, Curves]:
    """Raw steps, see :class:`Context`, and the curves as `features.beside` wants them."""
    if not reports:
        empty = torch.zeros(1, 0, 1, device=device, dtype=torch.float32)
        return np.zeros(0), Curves(empty, empty > 0, empty, empty, empty, empty, empty, empty)
    sizes = np.array([r.steps.size for r in reports])
    index = pad(sizes)
    loss = np.concatenate([r.loss for r in reports])[index]
    best = np.concatenate([r.best for r in reports])[index]
    steps = np.concatenate([r.steps for r in reports])[index]
    inside = np.arange(steps.shape[1]) < sizes[:, None]
    longest = reports[int(sizes.argmax())].steps
    steps = longest if (~inside | (steps == longest)).all() else np.where(inside, steps, np.inf)
    y, bad = features.fill(as_tensor(standardize(loss, center, scale), device)[None])
    best_y = as_tensor(np.nan_to_num(standardize(best, center, scale), posinf=1e30), device)[None]
    blank = torch.full_like(y[..., :1], math.nan)
    return steps, Curves(y, bad, best_y, blank, blank, blank, blank, blank)
