"""Numbers the network reads off curves: causal tokens, what a curve looks like at a cut, and one trial beside another.

Every function takes losses (lower is better) in which events are already filled (:func:`fill`), works on any batch
shape in front, and uses only gathers, running minima and medians of three: no running sum, which a blow-up to 1e30
would ruin for the rest of the curve.

All are ratios or logarithms of ratios, so that no unit survives. Three yardsticks: `s`, a running one that uses the
past of each token only (tokens may be kept while a curve grows); `unit`, the curve's own present one; `spread`, the
study's (:attr:`lcsearch.study.FinishedTrials.robust_range`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

DENSE = 8  # the first reports are all tokens,
RATIO = 1.2  # later ones are this factor apart
FRACTIONS = (0.0, 0.03, 0.07, 0.13, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the reports so far
N_TOKEN = 24
N_CUT = 36
N_PAIR = 24
N_PLAN = 7
_TINY = 1e-7


def token_grid(n: int, ratio: float = RATIO) -> list[int]:
    """Indices of the reports that become tokens, the last of n among them; growing n only changes the last one.

    >>> token_grid(14)
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 13]
    """
    out = list(range(min(n, DENSE)))
    at = float(DENSE - 1)
    while True:
        at = max(at + 1.0, at * ratio)
        if round(at) >= n - 1:
            break
        out.append(round(at))
    if n > DENSE:
        out.append(n - 1)
    return out


def fill(loss: Tensor) -> tuple[Tensor, Tensor]:
    """(..., S) losses with NaN -> (the last finite one instead, the first finite one before it; where it was NaN)."""
    bad = ~torch.isfinite(loss)
    index = torch.arange(loss.shape[-1], device=loss.device).expand(loss.shape)
    last = torch.where(bad, torch.full_like(index, -1), index).cummax(-1).values
    first = (~bad).to(torch.int8).argmax(-1, keepdim=True)
    filled = loss.gather(-1, torch.where(last < 0, first, last))
    return torch.nan_to_num(filled.clamp(-1e30, 1e30), nan=0.0), bad


def squash(x: Tensor) -> Tensor:
    """asinh, at most 12 in size."""
    return torch.asinh(x).clamp(-12.0, 12.0)


def _log(x: Tensor) -> Tensor:
    return torch.log(x.clamp_min(_TINY)).clamp(-16.0, 16.0)


def median3(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The middle of three, element by element."""
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))


def _at(x: Tensor, index: Tensor) -> Tensor:
    """x (..., S), index (..., K) -> (..., K); indices beyond an end take it."""
    return x.gather(-1, index.clamp(0, x.shape[-1] - 1))


@dataclass(frozen=True)
class Curves:
    """Curves ready to be read: N of them in any batch shape, S reports.

    Attributes:
        y: (..., S) filled losses.
        bad: (..., S) where a report was not finite.
        best: (..., S) running minimum.
        steps: (..., S) steps of the reports, broadcast against y.
        horizon: (..., 1) step at which trials are judged.
        total: (..., 1) about how many reports a trial makes up to there.
        rate: (..., S) learning rate as a share of its peak; NaN when no schedule is known.
        area: (..., S) share of the whole schedule's area (S1) that is behind; NaN likewise.
    """

    y: Tensor
    bad: Tensor
    best: Tensor
    steps: Tensor
    horizon: Tensor
    total: Tensor
    rate: Tensor
    area: Tensor

    @classmethod
    def of(cls, loss: Tensor, steps: Tensor, horizon: Tensor, total: Tensor, rate: Tensor, area: Tensor) -> Curves:
        """Fill and run."""
        y, bad = fill(loss)
        one = (*y.shape[:-1], 1)
        return cls(
            y, bad, y.cummin(-1).values, steps.expand(y.shape), horizon.expand(one), total.expand(one), rate, area
        )

    def map(self, f: Callable[[Tensor], Tensor]) -> Curves:
        """`f` of every tensor."""
        return Curves(*(f(getattr(self, name)) for name in self.__dataclass_fields__))


def tokens(c: Curves, index: Tensor) -> Tensor:
    """Causal features of the reports at `index` (..., T) -> (..., T, N_TOKEN): each uses reports up to its own."""
    y, best = _at(c.y, index), _at(c.best, index)
    before = torch.cat([index[..., :1], index[..., :-1]], -1)
    y_before, best_before = _at(c.y, before), _at(c.best, before)
    one, two = _at(c.y, index - 1), _at(c.y, index - 2)
    first = c.y[..., :1]
    top = torch.maximum(torch.maximum(first, _at(c.y, index.clamp_max(1))), _at(c.y, index.clamp_max(2)))
    s = top - best + _TINY * ((top - first).abs() + (best - first).abs()) + 1e-30
    s_before = torch.cat([s[..., :1], s[..., :-1]], -1)
    smooth = median3(y, one, two)
    t, t_before = _at(c.steps, index), _at(c.steps, before)
    n = (index + 1).to(y.dtype)
    span = torch.where(index > before, (index - before).to(y.dtype), torch.ones_like(n))
    events = c.bad.to(y.dtype).cumsum(-1)
    at_events = _at(events, index)
    rate = _at(c.rate, index)
    known = torch.isfinite(rate)
    rate = torch.where(known, rate, torch.zeros_like(rate))
    rate_before = torch.cat([rate[..., :1], rate[..., :-1]], -1)
    area = torch.nan_to_num(_at(c.area, index))
    columns = [
        squash(3.0 * (y - best_before) / s),
        squash(30.0 * (y - y_before) / s),
        (y - best).div(s).clamp(0.0, 3.0),
        squash(30.0 * (y - best) / s),
        ((first - y) / s).clamp(-3.0, 3.0),
        squash(10.0 * (first - y) / s),
        squash(30.0 * (smooth - y) / s),
        squash(30.0 * (one - y) / s),
        squash(30.0 * (two - one) / s),
        (s / s_before).clamp(1e-6, 1e6).log(),
        0.3 * _log((y - 2.0 * one + two).abs() / s),
        0.3 * _log((best_before - best) / span / s),
        t / c.horizon,
        0.3 * torch.log((t / c.horizon).clamp_min(1e-5)),
        0.3 * n.log(),
        0.3 * torch.log(c.total.expand(n.shape)),
        0.3 * torch.log(((t - t_before) / c.horizon).clamp_min(1e-5)),
        (at_events - _at(events, before) > 0).to(y.dtype),
        at_events / n,
        known.to(y.dtype),
        rate,
        0.3 * torch.log(rate.clamp_min(1e-4)) * (rate > 0),
        squash(5.0 * (rate - rate_before)),
        area,
    ]
    return torch.nan_to_num(torch.stack(columns, -1), posinf=12.0, neginf=-12.0)


@dataclass(frozen=True)
class Cuts:
    """What M cuts of each curve look like in raw numbers, all (..., M) but `parts`.

    Attributes:
        index: index of the last report seen.
        y, best, first: the last loss, the best and the first.
        parts: (..., M, len(FRACTIONS)) smoothed losses at shares of the reports so far.
        smooth: the median of the last three.
        noise: a typical second difference over the last half.
        full, recent: range of the smoothed curve, all of it and its last half.
    """

    index: Tensor
    y: Tensor
    best: Tensor
    first: Tensor
    parts: Tensor
    smooth: Tensor
    noise: Tensor
    full: Tensor
    recent: Tensor

    def map(self, f: Callable[[Tensor], Tensor]) -> Cuts:
        """`f` of every tensor."""
        return Cuts(*(f(getattr(self, name)) for name in self.__dataclass_fields__))


def cut(c: Curves, index: Tensor) -> Cuts:
    """Read the curves at the reports `index` (..., M)."""
    shape = index.shape
    share = torch.tensor(FRACTIONS, device=index.device, dtype=torch.float32)
    at = (share * index.unsqueeze(-1)).round().long()  # (..., M, F)

    def flat(i: Tensor) -> Tensor:
        return _at(c.y, i.flatten(-2)).reshape(i.shape)

    # Medians of three around each place, nothing beyond the cut.
    end = index.unsqueeze(-1)
    parts = median3(flat(at - 1), flat(at), flat(torch.minimum(at + 1, end)))
    parts[..., 0] = flat(at)[..., 0]  # the first report stays
    y, one, two = _at(c.y, index), _at(c.y, index - 1), _at(c.y, index - 2)
    smooth = median3(y, one, two)
    places = torch.linspace(0.5, 1.0, 9, device=index.device, dtype=torch.float32)
    at = torch.minimum((places * end).round().long(), end - 1).clamp_min(1)
    noise = (flat(at - 1) - 2.0 * flat(at) + flat(torch.minimum(at + 1, end))).abs()
    noise = torch.where(index >= 2, noise.median(-1).values, torch.zeros_like(y))
    path = torch.cat([parts, smooth.unsqueeze(-1), y.unsqueeze(-1)], -1)
    half = path[..., FRACTIONS.index(0.5) :]
    full = path.amax(-1) - path.amin(-1)
    recent = half.amax(-1) - half.amin(-1)
    return Cuts(index, y, _at(c.best, index), c.y[..., :1].expand(shape), parts, smooth, noise, full, recent)


def unit_of(a: Cuts, spread: Tensor) -> Tensor:
    """A curve's own unit: the recent range, floored by a share of the whole one and of the study's spread."""
    floor = torch.hypot(0.01 * a.full, 0.003 * spread)
    return torch.hypot(a.recent, floor) + 1e-30


def describe(
    c: Curves,
    a: Cuts,
    unit: Tensor,
    spread: Tensor,
    incumbent: Tensor,
    n_complete: Tensor,
    until: Tensor,
    rate_until: Tensor,
    area_until: Tensor,
) -> Tensor:
    """Features of queried cuts -> (..., M, N_CUT).

    Args:
        unit, spread, incumbent, n_complete: (..., M); incumbent is NaN while there is none.
        until: (..., M) step that is asked about.
        rate_until, area_until: (..., M) planned rate and area there; NaN without a schedule.
    """
    n = (a.index + 1).to(a.y.dtype)
    t = _at(c.steps, a.index)
    there = torch.isfinite(incumbent)
    gap = torch.where(there, incumbent, a.y)
    wide = spread > 0
    safe = torch.where(wide, spread, unit)
    where_best = (c.y <= c.best).to(torch.int64) * torch.arange(c.y.shape[-1], device=c.y.device)
    since = (a.index - _at(where_best.cummax(-1).values, a.index)).to(a.y.dtype)
    events = _at(c.bad.to(a.y.dtype).cumsum(-1), a.index)
    rate = _at(c.rate, a.index)
    known = torch.isfinite(rate)
    rate, area = torch.nan_to_num(rate), torch.nan_to_num(_at(c.area, a.index))
    columns = [
        *(squash((a.parts - a.y.unsqueeze(-1)) / unit.unsqueeze(-1))).unbind(-1),
        squash((a.smooth - a.y) / unit),
        squash((a.best - a.y) / unit),
        0.3 * _log(a.noise / unit),
        0.3 * _log(a.full / unit),
        0.3 * n.log(),
        0.3 * torch.log(c.total.expand(n.shape)),
        t / c.horizon,
        0.3 * torch.log((t / c.horizon).clamp_min(1e-5)),
        (until - t) / c.horizon,
        0.3 * torch.log((until / t.clamp_min(1e-9)).clamp(1e-2, 1e5)),
        since / n,
        events / n,
        there.to(a.y.dtype),
        squash((gap - a.y) / unit),
        squash((gap - a.best) / unit),
        squash(5.0 * (gap - a.y) / safe),
        0.3 * _log(spread / unit),
        0.3 * torch.log1p(n_complete),
        known.to(a.y.dtype),
        rate,
        area,
        torch.nan_to_num(rate_until - rate),
        torch.nan_to_num(area_until - area),
        squash((a.first - a.y) / unit),
    ]
    return torch.nan_to_num(torch.stack(columns, -1), posinf=12.0, neginf=-12.0)


def read(x: Tensor, index: Tensor) -> Tensor:
    """Context trials as queries see them: x (B, C, S), index (B, Q, C) -> (B, Q, C); indices beyond an end take it."""
    return _at(x, index.permute(0, 2, 1)).permute(0, 2, 1)


def beside(
    q: Cuts,
    unit: Tensor,
    spread: Tensor,
    incumbent: Tensor,
    context: Curves,
    reported: Tensor,
    complete: Tensor,
    now: Tensor,
    half: Tensor,
    quarter: Tensor,
    until: Tensor,
) -> Tensor:
    """Features of Q queries beside C context trials -> (B, Q, C, N_PAIR).

    Args:
        q: cuts flattened to (B, Q).
        unit, spread, incumbent: (B, Q).
        context: (B, C, S) curves.
        reported: (B, C) reports of each, >= 1.
        complete: (B, C) whether it reached the horizon.
        now, half, quarter, until: (B, Q, C) index in each context trial of the last report not after the query's
            step, after half and a quarter of it, and not after the step asked about; -1 where there is none, beyond
            the last one where it had ended by then. A trial that is not complete tells where one ends that is asked
            about a step which it passed itself.
    """
    b, n_q, n_c = now.shape
    last = (reported - 1).unsqueeze(1).expand(b, n_q, n_c)
    started = (now >= 0) & (reported.unsqueeze(1) > 0)
    has_now = started & ((now <= last) | complete.unsqueeze(1))
    has_end = started & (complete.unsqueeze(1) | (until <= last))
    now, until = torch.minimum(now, last), torch.minimum(until, last)
    c_now = read(context.y, now)
    c_smooth = median3(c_now, read(context.y, now - 1), read(context.y, now - 2))
    c_half, c_quarter = read(context.y, torch.minimum(half, now)), read(context.y, torch.minimum(quarter, now))
    best_now = read(context.best, now)
    c_last = read(context.y, last)
    c_first = context.y[..., 0].unsqueeze(1)

    def each(x: Tensor) -> Tensor:
        return x.unsqueeze(-1)

    y, u, smooth = each(q.y), each(unit), each(q.smooth)
    wide = torch.where(spread > 0, spread, unit)
    w = each(wide) / 5.0
    quarter_share = FRACTIONS.index(0.2)
    y_half, y_quarter = each(q.parts[..., FRACTIONS.index(0.5)]), each(q.parts[..., quarter_share])
    there = torch.isfinite(incumbent)
    inc = each(torch.where(there, incumbent, q.y))
    drop_q, drop_c = each(q.first - q.y).abs(), (c_first - c_now).abs()
    ratio = ((drop_q + 0.1 * u) / (drop_c + 0.1 * u)).clamp(1e-3, 1e3)
    real, end = has_now.to(q.y.dtype), has_end.to(q.y.dtype)
    # in an allocated search few context trials tell where one ends: what they say is zero of all others
    some = has_end.flatten(0, 1).any(0).nonzero().squeeze(1)

    def of(x: Tensor) -> Tensor:
        return x if some.numel() == n_c else x[..., some]

    at = of(until)
    c_until, best_until = (read(x if some.numel() == n_c else x[:, some], at) for x in (context.y, context.best))
    seen, seen_best = of(c_now), of(best_now)
    gain, c_future = c_until - seen, torch.where(best_until < seen_best, best_until, c_until)
    ends = [
        gain / u,
        gain / w,
        (c_future - seen) / u,
        (c_until - y) / u,
        (c_future - y) / u,
        (y + gain - inc) / u,
        (y + gain - inc) / w,
        (y + gain * of(ratio) - inc) / w,
        (c_until - inc) / w,
    ]
    told = [of(end) * squash(x) for x in ends]
    if some.numel() < n_c:
        blank = torch.zeros_like(end)
        told = [blank.index_copy(-1, some, x) for x in told] if some.numel() else [blank] * len(told)
    columns = [
        real,
        end,
        complete.to(q.y.dtype).unsqueeze(1).expand(b, n_q, n_c),
        real * squash((c_now - y) / u),
        real * squash((c_now - y) / w),
        real * squash((c_smooth - smooth) / u),
        real * squash(((c_half - c_now) - (y_half - y)) / u),
        real * squash(((c_quarter - c_now) - (y_quarter - y)) / u),
        real * squash((best_now - each(q.best)) / u),
        real * squash((best_now - each(q.best)) / w),
        *told,
        real * ratio.log(),
        real * 0.3 * _log(drop_c / u),
        (1.0 - end) * squash((c_last - inc) / w),
        (1.0 - end) * squash((c_last - y) / u),
        ((last + 1).to(q.y.dtype) / (each(q.index) + 1)).log().clamp(-5.0, 5.0) * 0.5,
    ]
    return torch.nan_to_num(torch.stack(columns, -1), posinf=12.0, neginf=-12.0)


def plans(mine: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> Tensor:
    """The schedules of Q queries beside those of C context trials -> (B, Q, C, N_PLAN); zero where one is not known.

    Args:
        mine: rate and area, each (2, B, Q): at the query's step and at the one asked about; NaN without a schedule.
        theirs: likewise (2, B, Q, C), of the context trials at the same two steps.
    """
    rate, area = (x.unsqueeze(-1) for x in mine)
    both = (torch.isfinite(rate) & torch.isfinite(theirs[0])).all(0)
    fall, their_fall = rate[0] - rate[1], theirs[0][0] - theirs[0][1]
    columns = [
        torch.ones_like(their_fall),
        theirs[0][0] - rate[0],
        theirs[0][1] - rate[1],
        theirs[1][0] - area[0],
        fall.expand_as(their_fall),
        their_fall,
        squash(10.0 * (their_fall - fall)),
    ]
    return torch.where(both.unsqueeze(-1), torch.stack(columns, -1), 0.0)
