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
from lcsearch.forecast.network.features import Curves, token_grid
from lcsearch.forecast.network.model import KINDS, CurveNetwork
from lcsearch.forecast.network.params import match
from lcsearch.forecast.network.studies import Studies

VALUE, LATENT, BEST_BY = range(len(KINDS))


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

    inputs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
    target: Tensor
    incumbent: Tensor
    judged: Tensor
    weight: Tensor


def query(network: CurveNetwork, studies: Studies, generator: torch.Generator, trials: int, m: int) -> Queries:
    """Draw `trials` of every study, `m` cuts of each, and what is asked there."""
    device = studies.loss.device
    b, c, s = studies.loss.shape
    length = studies.length.clamp(2, s)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    # The first report stands one spacing after the start, wherever a study counts from.
    base = 2.0 * studies.steps[:, :1] - studies.steps[:, 1:2]
    since = studies.steps - base
    horizon = since.gather(1, (length - 1)[:, None]).unsqueeze(-1)  # (B, 1, 1)
    total = length.to(studies.loss.dtype)[:, None, None]
    rate = studies.rate
    known = torch.isfinite(rate).all(-1, keepdim=True)
    inside = torch.arange(s, device=device) < length[:, None, None]
    gone = torch.where(inside, torch.nan_to_num(rate), torch.zeros_like(rate)).cumsum(-1)
    area = torch.where(known, gone / gone[..., -1:].clamp_min(1e-9), torch.full_like(rate, math.nan))
    rate = torch.where(known, rate, torch.full_like(rate, math.nan))
    curves = Curves.of(studies.loss, since.unsqueeze(1), horizon, total, rate, area)

    # The grid of tokens, another one for every batch: later reports may become tokens anywhere.
    ratio = 1.12 + 0.16 * float(rand(1))
    grid = torch.tensor(token_grid(s, ratio), device=device)
    tokens = features.tokens(curves, grid.expand(b, c, -1))
    states = network.encode(tokens.flatten(0, 1)).view(b, c, grid.numel(), -1)

    # Context: what each trial had reported.
    reported = torch.minimum(studies.reported, length[:, None]).clamp_min(1)
    complete = (reported >= length[:, None]) & studies.present
    last_token = (torch.searchsorted(grid, (reported - 1).contiguous(), right=True) - 1).clamp_min(0)
    context = states.gather(2, last_token[..., None, None].expand(-1, -1, 1, states.shape[-1])).squeeze(2)
    end = (length - 1)[:, None].expand(b, c).unsqueeze(-1)
    diverged = curves.bad.gather(-1, end).squeeze(-1)
    infinite = torch.full((b, c), math.inf, device=device)
    final = torch.where(complete & ~diverged, curves.y.gather(-1, end).squeeze(-1), infinite)
    best = torch.where(complete, curves.best.gather(-1, end).squeeze(-1), infinite)
    # A study has met only some of its trials; how many is drawn evenly in the logarithm.
    n_present = studies.present.sum(1).to(torch.float32)
    meets = torch.exp(rand(b) * torch.log(n_present + 1.0))
    order = rand(b, c).masked_fill(~studies.present, 2.0).argsort(1).argsort(1)
    met = studies.present & (order < meets[:, None].round())
    by_best = rand(b) < 0.6  # how this study judges
    judged_by = torch.where(by_best[:, None], best, final)

    # Queries.
    asked = rand(b, c).masked_fill(~studies.present, 2.0).argsort(1)[:, :trials]  # (B, A)
    n = asked.shape[1]

    def of_asked(x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, A, ...)."""
        return x.gather(1, asked.view(b, n, *[1] * (x.dim() - 2)).expand(b, n, *x.shape[2:]))

    own = curves.map(of_asked)
    share = torch.exp(math.log(0.02) + (math.log(0.97) - math.log(0.02)) * rand(b, n, m))
    share = torch.where(rand(b, n, m) < 0.3, rand(b, n, m), share)
    wanted = (share * total).round().long().clamp_min(1)
    wanted = torch.minimum(wanted, (length - 1)[:, None, None])
    at = (torch.searchsorted(grid, (wanted - 1).contiguous(), right=True) - 1).clamp_min(0)
    index = grid[at]  # (B, A, M)
    draw = rand(b, n, m)
    kind = torch.where(by_best[:, None, None], BEST_BY, VALUE).expand(b, n, m).clone()
    kind[draw < 0.25] = VALUE
    kind[draw < 0.10] = LATENT
    far = (length - 1)[:, None, None].expand(b, n, m)
    near = (index + 1 + (rand(b, n, m) * (far - index)).long()).clamp_max(s - 1)
    until = torch.where((draw < 0.05) | ((draw > 0.15) & (draw < 0.25)) | (draw > 0.93), torch.minimum(near, far), far)

    a = features.cut(own, index)
    flat = b, n * m
    use_pair = met[:, None, :] & (asked.unsqueeze(-1) != torch.arange(c, device=device))  # (B, A, C)
    spread, incumbent, n_complete = study_figures(torch.where(use_pair, judged_by[:, None, :], infinite[:, None, :]))

    def per(x: Tensor) -> Tensor:
        """(B, A) -> (B, A, M)."""
        return x.unsqueeze(-1).expand(b, n, m)

    spread, incumbent, n_complete = per(spread), per(incumbent), per(n_complete)
    unit = features.unit_of(a, spread)
    step_now, step_until = own.steps.gather(-1, index), own.steps.gather(-1, until)
    cut = features.describe(
        own,
        a,
        unit,
        spread,
        incumbent,
        n_complete,
        step_until,
        own.rate.gather(-1, until),
        own.area.gather(-1, until),
    )

    def place(step: Tensor) -> Tensor:
        """(B, Q) step -> (B, Q, C) index, the same in all trials of a study."""
        return (torch.searchsorted(since, step.contiguous(), right=True) - 1).unsqueeze(-1).expand(-1, -1, c)

    t = step_now.reshape(*flat)
    pairs = features.beside(
        a.map(lambda x: x.reshape(*flat, *x.shape[3:])),
        unit.reshape(*flat),
        spread.reshape(*flat),
        incumbent.reshape(*flat),
        curves,
        reported,
        complete,
        index.reshape(*flat).unsqueeze(-1).expand(*flat, c),
        place(0.5 * t),
        place(0.25 * t),
        until.reshape(*flat).unsqueeze(-1).expand(*flat, c),
    )
    use = use_pair.unsqueeze(2).expand(b, n, m, c).reshape(*flat, c)
    params = of_asked(studies.params).unsqueeze(2).expand(b, n, m, -1).reshape(*flat, -1)
    judged = torch.where(torch.isfinite(judged_by), judged_by, torch.full_like(judged_by, math.nan))
    alike = match(params, studies.params, studies.kinds, judged, use)
    own_states = of_asked(states)
    state = own_states.gather(2, at.unsqueeze(-1).expand(-1, -1, -1, states.shape[-1])).reshape(*flat, -1)

    # Answers.
    losses, known_latent = of_asked(studies.loss), of_asked(studies.latent)
    value, latent = losses.gather(-1, until), known_latent.gather(-1, until)
    later = torch.arange(s, device=device)
    between = (later > index.unsqueeze(-1)) & (later <= until.unsqueeze(-1))  # (B, A, M, S)
    future = losses.nan_to_num(nan=math.inf, posinf=math.inf).unsqueeze(2)
    future = torch.where(between, future, torch.full_like(future, math.inf)).amin(-1)
    value = value.nan_to_num(nan=math.inf, posinf=math.inf)
    answer = torch.where(kind == BEST_BY, future, torch.where(kind == LATENT, latent, value))
    target = (answer - a.y) / unit
    gap = (incumbent - a.y) / unit
    fine = of_asked(studies.present).unsqueeze(-1) & ~torch.isnan(target) & (index < until)
    fine = fine & ~own.bad.gather(-1, index)
    as_judged = (until == far) & (kind == torch.where(by_best, BEST_BY, VALUE)[:, None, None])
    already = (kind == BEST_BY) & (a.best < incumbent)  # it has beaten the incumbent: nothing is asked
    return Queries(
        (state, cut.reshape(*flat, -1), kind.reshape(*flat), pairs, alike, context, use),
        target.nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf).reshape(*flat),
        gap.reshape(*flat),
        (as_judged & ~already).reshape(*flat),
        fine.to(torch.float32).reshape(*flat),
    )


def study_figures(judged: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(..., C) judged losses, +inf where there is none -> spread, incumbent (NaN for none) and count of complete ones.

    As :attr:`lcsearch.study.Bank.spread` and :attr:`~lcsearch.study.Bank.leader` have them.
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
