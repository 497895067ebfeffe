"""What the network is trained for: log-likelihood of the answers, and cross-entropy of P(beats the incumbent).

Every trial of a study is context (at the end of its `reported` part) for all others, and is queried at several cuts of
its whole curve. Incumbent, spread and slopes are those of the context without the trial itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lcsearch.forecast.network import features
from lcsearch.forecast.network.begun import FEW
from lcsearch.forecast.network.features import Curves, token_grid
from lcsearch.forecast.network.model import KINDS, CurveNetwork
from lcsearch.forecast.network.params import match
from lcsearch.forecast.network.studies import Studies

VALUE, LATENT, BEST_BY = range(len(KINDS))
ODD_TOKENS = 4
"""Reports off the grid that are tokens too."""


@dataclass(frozen=True)
class Weighing:
    """How queries are drawn and weighed.

    Attributes:
        trials: queried in each study, at most; the others are context only.
        cuts: queries of a queried trial.
        beat: weight of the cross-entropy of P(beat) beside the log-likelihood.
    """

    trials: int = 16
    cuts: int = 3
    beat: float = 2.0


def objective(
    network: CurveNetwork, studies: Studies, generator: torch.Generator, weighing: Weighing = Weighing()
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch, and figures: `nll` (of the value in own units), `beat` (log-loss), `rate` (of beating)."""
    batch = query(network, studies, generator, weighing.trials, weighing.cuts)
    logs, split = network.answer(*batch.inputs)
    nll = likelihood(network.borders, logs, batch.target)
    loss = (nll * batch.weight).sum() / batch.weight.sum().clamp_min(1.0)
    p = p_below(network.borders, logs, split, batch.incumbent).clamp(1e-6, 1.0 - 1e-6)
    asked = batch.judged & torch.isfinite(batch.incumbent) & (batch.weight > 0)
    won = (batch.target < batch.incumbent).float()
    entropy = torch.where(asked, -(won * p.log() + (1.0 - won) * torch.log1p(-p)), torch.zeros_like(p))
    n = asked.sum().clamp_min(1)
    beat = entropy.sum() / n
    figures = {"nll": float(loss.detach()), "beat": float(beat.detach()), "rate": float((won * asked).sum() / n)}
    return loss + weighing.beat * beat, figures


@dataclass(frozen=True)
class Queries:
    """Q queries of each of B studies, ready for :meth:`CurveNetwork.answer`.

    Attributes:
        inputs: its arguments.
        target: (B, Q) the answer in own units around the last loss; +inf when the trial diverged.
        incumbent: (B, Q) likewise, NaN without one.
        judged: (B, Q) asked about the horizon as the study judges: P(beat) counts.
        weight: (B, Q) 1 or 0.
    """

    inputs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor]
    target: Tensor
    incumbent: Tensor
    judged: Tensor
    weight: Tensor


@dataclass(frozen=True)
class _Known:
    """What B studies of C trials know of themselves.

    Attributes:
        since: (B, S) time of the reports.
        curves: (B, C, S).
        reported: (B, C) reports of each trial as context.
        complete: (B, C) bool.
        judged: (B, C) judged loss; +inf where the trial is not complete, or diverged.
        so_far: (B, C) what it would be judged by if it ended where it stands; +inf where that is not finite.
        met: (B, C) bool, trials that count as context: a study has met some of its trials, how many is drawn evenly in
            the logarithm.
        by_best: (B,) bool, judged by the best value; else by the last one.
    """

    since: Tensor
    curves: Curves
    reported: Tensor
    complete: Tensor
    judged: Tensor
    so_far: Tensor
    met: Tensor
    by_best: Tensor

    @classmethod
    def of(cls, studies: Studies, length: Tensor, generator: torch.Generator) -> _Known:
        """Read, and draw how the studies judge and whom they have met."""
        b, c, _ = studies.loss.shape
        by_best = _rand(generator, b) < 0.6
        # The first report stands one spacing after the start, wherever a study counts from.
        since = studies.steps - (2.0 * studies.steps[:, :1] - studies.steps[:, 1:2])
        horizon = since.gather(1, (length - 1)[:, None]).unsqueeze(-1)  # (B, 1, 1)
        total = length.to(studies.loss.dtype)[:, None, None]
        curves = Curves.of(studies.loss, since.unsqueeze(1), horizon, total, *_plans(studies, length))
        reported = torch.minimum(studies.reported, length[:, None]).clamp_min(1)
        complete = (reported >= length[:, None]) & studies.present
        end = (length - 1)[:, None].expand(b, c).unsqueeze(-1)
        infinite = torch.full((b, c), math.inf, device=since.device)
        lasts = complete & ~curves.bad.gather(-1, end).squeeze(-1)
        final = torch.where(lasts, curves.y.gather(-1, end).squeeze(-1), infinite)
        best = torch.where(complete, curves.best.gather(-1, end).squeeze(-1), infinite)
        here = (reported - 1).unsqueeze(-1)
        stands = studies.present & ~curves.bad[..., 0]  # a curve that begins with events is filled from what comes
        so_far = torch.where(by_best[:, None, None], curves.best.gather(-1, here), curves.y.gather(-1, here))
        n_present = studies.present.sum(1).to(torch.float32)
        meets = torch.exp(_rand(generator, b) * torch.log(n_present + 1.0))
        order = _rand(generator, b, c).masked_fill(~studies.present, 2.0).argsort(1).argsort(1)
        met = studies.present & (order < meets[:, None].round())
        judged = torch.where(by_best[:, None], best, final)
        return cls(
            since, curves, reported, complete, judged, torch.where(stands, so_far.squeeze(-1), infinite), met, by_best
        )


def _rand(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _plans(studies: Studies, length: Tensor) -> tuple[Tensor, Tensor]:
    """Rate and area (B, C, S) of the schedules; NaN where a trial's is not known throughout."""
    s = studies.loss.shape[-1]
    known = torch.isfinite(studies.rate).all(-1, keepdim=True)
    inside = torch.arange(s, device=length.device) < length[:, None, None]
    gone = torch.where(inside, torch.nan_to_num(studies.rate), 0.0).cumsum(-1)
    area = gone / gone[..., -1:].clamp_min(1e-9)
    return torch.where(known, studies.rate, math.nan), torch.where(known, area, math.nan)


def _tokens_at(s: int, generator: torch.Generator) -> Tensor:
    """Reports that are tokens, other ones in every batch: later reports may become tokens anywhere, and a curve's last
    one stands as close to the token before it as it comes."""
    extra = (_rand(generator, ODD_TOKENS) * s).long().tolist()
    found = {*token_grid(s, 1.12 + 0.16 * float(_rand(generator, 1))), *extra}
    return torch.tensor(sorted(found), device=generator.device)


def _scaled(params: Tensor, kinds: Tensor, met: Tensor) -> Tensor:
    """(B, C, D) parameters, numbers scaled by their range among the trials that were met: serving knows no other."""
    there = met.unsqueeze(-1) & torch.isfinite(params)
    low = torch.where(there, params, math.inf).amin(1, keepdim=True)
    width = torch.where(there, params, -math.inf).amax(1, keepdim=True) - low
    share = ((params - low) / width.clamp_min(1e-6)).clamp(-0.25, 1.25)
    # what never differs among them is no parameter
    share = torch.where(width > 1e-6, share, math.nan)
    return torch.where((kinds == 1).unsqueeze(1), share, params)


def query(network: CurveNetwork, studies: Studies, generator: torch.Generator, trials: int, m: int) -> Queries:
    """Draw `trials` of every study, `m` cuts of each, and what is asked there."""
    b, c, s = studies.loss.shape
    length = studies.length.clamp(2, s)
    known = _Known.of(studies, length, generator)
    curves = known.curves
    grid = _tokens_at(s, generator)
    states = network.encode(features.tokens(curves, grid.expand(b, c, -1)).flatten(0, 1)).view(b, c, grid.numel(), -1)
    last_token = (torch.searchsorted(grid, (known.reported - 1).contiguous(), right=True) - 1).clamp_min(0)
    context = states.gather(2, last_token[..., None, None].expand(-1, -1, 1, states.shape[-1])).squeeze(2)

    # Which trials are asked about, where they stand, and what is asked.
    asked = _rand(generator, b, c).masked_fill(~studies.present, 2.0).argsort(1)[:, :trials]  # (B, A)
    n = asked.shape[1]
    flat = b, n * m

    def of_asked(x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, A, ...)."""
        return x.gather(1, asked.view(b, n, *[1] * (x.dim() - 2)).expand(b, n, *x.shape[2:]))

    own = curves.map(of_asked)
    at, index = _cuts(grid, length, of_asked(known.reported), m, generator)
    kind, until = _asked(known.by_best, index, length, generator)
    a = features.cut(own, index)
    use_pair = known.met[:, None, :] & (asked.unsqueeze(-1) != torch.arange(c, device=asked.device))  # (B, A, C)
    ended, so_far = (torch.where(use_pair, x[:, None, :], math.inf) for x in (known.judged, known.so_far))
    spread, incumbent, n_complete = (x.unsqueeze(-1).expand(b, n, m) for x in figures_of_begun(ended, so_far))
    unit = features.unit_of(a, spread)
    step_until = own.steps.gather(-1, until)
    plan_until = own.rate.gather(-1, until), own.area.gather(-1, until)
    cut = features.describe(own, a, unit, spread, incumbent, n_complete, step_until, *plan_until)

    # Beside the context trials.
    t = own.steps.gather(-1, index).reshape(*flat)

    def place(step: Tensor) -> Tensor:
        """(B, Q) step -> (B, Q, C) index, the same in all trials of a study."""
        return (torch.searchsorted(known.since, step.contiguous(), right=True) - 1).unsqueeze(-1).expand(-1, -1, c)

    now, then = (x.reshape(*flat).unsqueeze(-1).expand(*flat, c) for x in (index, until))
    pairs = features.beside(
        a.map(lambda x: x.reshape(*flat, *x.shape[3:])),
        unit.reshape(*flat),
        spread.reshape(*flat),
        incumbent.reshape(*flat),
        curves,
        known.reported,
        known.complete,
        now,
        place(0.5 * t),
        place(0.25 * t),
        then,
    )
    planned = None
    if bool(torch.isfinite(curves.rate).any()):
        mine = [torch.stack([x.gather(-1, i).reshape(*flat) for i in (index, until)]) for x in (own.rate, own.area)]
        theirs = [torch.stack([features.read(x, i) for i in (now, then)]) for x in (curves.rate, curves.area)]
        planned = features.plans((mine[0], mine[1]), (theirs[0], theirs[1]))
    use = use_pair.unsqueeze(2).expand(b, n, m, c).reshape(*flat, c)
    params = _scaled(studies.params, studies.kinds, known.met)
    judged = ranked(known.judged, known.so_far, known.met)
    my_params = of_asked(params).unsqueeze(2).expand(b, n, m, -1).reshape(*flat, -1)
    alike = match(my_params, params, studies.kinds, judged, use)
    state = of_asked(states).gather(2, at.unsqueeze(-1).expand(-1, -1, -1, states.shape[-1])).reshape(*flat, -1)

    answer = _answers(of_asked(studies.loss), of_asked(studies.latent), kind, index, until)
    target, gap = (answer - a.y) / unit, (incumbent - a.y) / unit
    fine = of_asked(studies.present).unsqueeze(-1) & ~torch.isnan(target) & (index < until)
    fine = fine & ~own.bad.gather(-1, index)
    far = (length - 1)[:, None, None]
    as_judged = (until == far) & (kind == torch.where(known.by_best, BEST_BY, VALUE)[:, None, None])
    already = (kind == BEST_BY) & (a.best < incumbent)  # it has beaten the incumbent: nothing is asked
    return Queries(
        (state, cut.reshape(*flat, -1), kind.reshape(*flat), pairs, planned, alike, context, use),
        target.nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf).reshape(*flat),
        gap.reshape(*flat),
        (as_judged & ~already).reshape(*flat),
        fine.to(torch.float32).reshape(*flat),
    )


def _cuts(grid: Tensor, length: Tensor, reported: Tensor, m: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(B, A, M) places in the grid, and the reports that stand there: the last ones seen, rather early; a third where
    the trial (B, A) `reported` last, as an allocation asks about those that are paused."""
    shape = (*reported.shape, m)
    low, high = math.log(0.02), math.log(0.97)
    share = torch.exp(low + (high - low) * _rand(generator, *shape))
    share = torch.where(_rand(generator, *shape) < 0.3, _rand(generator, *shape), share)
    wanted = (share * length[:, None, None]).round().long().clamp_min(1)
    wanted = torch.where(_rand(generator, *shape) < 0.33, reported.unsqueeze(-1), wanted)
    wanted = torch.minimum(wanted, (length - 1)[:, None, None])
    at = (torch.searchsorted(grid, (wanted - 1).contiguous(), right=True) - 1).clamp_min(0)
    return at, grid[at]


def _asked(by_best: Tensor, index: Tensor, length: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(B, A, M) kinds, mostly as the study judges, and the reports that are asked about, mostly the last."""
    draw = _rand(generator, *index.shape)
    kind = torch.where(by_best[:, None, None], BEST_BY, VALUE).expand(index.shape).clone()
    kind[draw < 0.25] = VALUE
    kind[draw < 0.10] = LATENT
    far = (length - 1)[:, None, None].expand(index.shape)
    near = torch.minimum(index + 1 + (_rand(generator, *index.shape) * (far - index)).long(), far)
    until = torch.where((draw < 0.05) | ((draw > 0.15) & (draw < 0.25)) | (draw > 0.93), near, far)
    return kind, until


def _answers(loss: Tensor, latent: Tensor, kind: Tensor, index: Tensor, until: Tensor) -> Tensor:
    """(B, A, M) what came: the value or the noise-free one at `until`, or the best after `index` up to there; +inf
    where a trial diverged, NaN where it is not known."""
    later = torch.arange(loss.shape[-1], device=loss.device)
    between = (later > index.unsqueeze(-1)) & (later <= until.unsqueeze(-1))  # (B, A, M, S)
    finite = loss.nan_to_num(nan=math.inf, posinf=math.inf)
    best = torch.where(between, finite.unsqueeze(2), math.inf).amin(-1)
    value = finite.gather(-1, until)
    return torch.where(kind == BEST_BY, best, torch.where(kind == LATENT, latent.gather(-1, until), value))


def ranked(judged: Tensor, so_far: Tensor, met: Tensor) -> Tensor:
    """(B, C) losses that configurations are told apart by, NaN for none: judged ones, or where they stand where fewer
    than `FEW` of the trials that were met are complete (the longer a trial was let run, the better it stood)."""
    few = (torch.isfinite(judged) & met).sum(1, keepdim=True) < FEW
    found = torch.where(few, so_far, judged)
    return torch.where(torch.isfinite(found), found, math.nan)


def figures_of_begun(judged: Tensor, so_far: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`study_figures`; where complete trials give no spread, or no incumbent, all that have begun do.

    Args:
        judged: (..., C) of the complete trials, +inf elsewhere.
        so_far: (..., C) of all that have begun, where they stand.
    """
    spread, incumbent, n = study_figures(judged)
    among, best, _ = study_figures(so_far)
    return torch.where(spread > 0, spread, among), torch.where(torch.isnan(incumbent), best, incumbent), n


def study_figures(judged: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(..., C) judged losses, +inf where there is none -> spread, incumbent (NaN for none) and count of complete ones.

    As :attr:`lcsearch.study.FinishedTrials.robust_range` and :attr:`~lcsearch.study.FinishedTrials.best_complete` have
    them.
    """
    ordered = judged.sort(-1).values
    n = torch.isfinite(ordered).sum(-1, keepdim=True)

    def at(i: Tensor) -> Tensor:
        found = ordered.gather(-1, i.clamp(0, judged.shape[-1] - 1))
        return torch.where(n > 0, found, torch.zeros_like(found))

    low = at(torch.zeros_like(n))
    to_median = 0.5 * at((n - 1) // 2) + 0.5 * at(n // 2) - low
    spread = 2.0 * torch.minimum(to_median, 4.0 * (at((n - 1) // 4) - low))
    incumbent = torch.where(n > 0, low, torch.full_like(low, math.nan))
    return spread.squeeze(-1), incumbent.squeeze(-1), n.squeeze(-1).to(judged.dtype)


def likelihood(borders: Tensor, logs: Tensor, target: Tensor) -> Tensor:
    """(B, Q) negative log-density of `target` in own units; of a tail's mass alone where it is not finite."""
    bins = borders.numel() - 1
    place = torch.searchsorted(borders, torch.nan_to_num(target, posinf=1e30, neginf=-1e30).contiguous())
    chosen = logs.gather(-1, place.unsqueeze(-1)).squeeze(-1)
    width = torch.log(borders[1:] - borders[:-1])
    inside = F.pad(width, (1, 1))  # log width of bins; tails are dealt with below
    scale = tail_scales(borders)
    low = torch.log(scale[0]) + (borders[0] - target).clamp_min(0.0) / scale[0]
    high = torch.log(scale[1]) + (target - borders[-1]).clamp_min(0.0) / scale[1]
    area = torch.where(place == 0, low, torch.where(place == bins + 1, high, inside[place]))
    area = torch.where(torch.isfinite(target), area.clamp_max(40.0), torch.zeros_like(area))
    return area - chosen


def tail_scales(borders: Tensor) -> Tensor:
    """(2,) scales of the exponential tails below the first and above the last border."""
    return 0.5 * torch.stack([-borders[0], borders[-1]])


def p_below(borders: Tensor, logs: Tensor, split: Tensor, gap: Tensor) -> Tensor:
    """(B, Q) mass below `gap` (own units): whole bins, and a share of the one it lies in."""
    bins = borders.numel() - 1
    x = torch.nan_to_num(gap, nan=0.0, posinf=1e30, neginf=-1e30).contiguous()
    place = torch.searchsorted(borders, x)
    mass = logs.exp()
    whole = mass.cumsum(-1) - mass
    left, right = borders[(place - 1).clamp(0, bins)], borders[place.clamp(0, bins)]
    scale = tail_scales(borders)
    share = ((x - left) / (right - left).clamp_min(1e-30)).clamp(1e-6, 1.0 - 1e-6)
    share = torch.where(place == 0, torch.exp((x - borders[0]).clamp_max(0.0) / scale[0]), share)
    share = torch.where(place == bins + 1, 1.0 - torch.exp(-(x - borders[-1]).clamp_min(0.0) / scale[1]), share)
    share = share.clamp(1e-6, 1.0 - 1e-6)
    share = torch.sigmoid(torch.logit(share) + split)
    chosen = mass.gather(-1, place.unsqueeze(-1)).squeeze(-1)
    below = whole.gather(-1, place.unsqueeze(-1)).squeeze(-1)
    return below + share * chosen
