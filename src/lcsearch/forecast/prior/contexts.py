"""Contexts as schedulers leave them: how many reports a trial had made when it was stopped.

Every rule compares a trial at its looks with the others that reported as far: it goes on while at most a share of them
is better. ASHA (Li et al. 2020), its stopping variant: the best 1 / eta so far, at rungs eta^k; successive halving
(Jamieson & Talwalkar 2016): of all, not only of those before; the median rule (Golovin et al. 2017): half of those
before, at even looks, after some complete trials; a threshold on the rank: any share.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lcsearch.forecast.network.studies import Studies
from lcsearch.forecast.prior.variates import Variates

RULES = ("none", "asha", "halving", "median", "threshold", "random")
_WEIGHTS = (0.15, 0.22, 0.13, 0.2, 0.15, 0.15)
_LOOKS = 10
EARLY = 0.4
"""Share of the studies that have only begun."""


def censor(studies: Studies, generator: torch.Generator) -> Studies:
    """The studies, drawn or real, with `reported` as a scheduler of random kind would have left it.

    In more than half of the studies at least two trials are complete; in most of the others none is, and all were cut
    at some depth, as by an allocation that has only begun. Trials that were complete may only become shorter: a trial
    that is `present` reports at least once and never more than it did.
    """
    draws = Variates(generator)
    b, c, _ = studies.loss.shape
    length, present = studies.length, studies.present
    rule = draws.choice(b, weights=_WEIGHTS)
    looks = _looks(draws, rule, length)
    stopped = _stopped(draws, rule, looks, studies)
    # Random ends: any step, of a share of the trials.
    cut = draws.flip(b, c, p=1.0) & (draws.uniform(b, c) < draws.uniform(b, 1))
    anywhere = 1 + torch.floor(draws.uniform(b, c) * (length[:, None] - 1)).long()
    ends = torch.where(cut, anywhere, length[:, None])
    made = torch.where((rule == RULES.index("random"))[:, None], ends, stopped)
    made = torch.where((rule == RULES.index("none"))[:, None], length[:, None], made)
    # The last few are still running in some studies.
    running = torch.floor(draws.uniform(b, 1) * 8.0) * draws.flip(b, 1, p=0.35)
    last = present.sum(1, keepdim=True) - present.cumsum(1) < running
    made = torch.where(last, torch.minimum(made, anywhere), made)
    # An allocation that is under way: hardly any trial is complete, most are paused after a few reports.
    depth = torch.floor(length[:, None] ** draws.uniform(b, 1) ** 1.5).clamp(min=1.0).long()
    early = draws.flip(b, 1, p=EARLY)
    made = torch.where(early, torch.minimum(made, depth), _complete_two(draws, made, studies))
    made = torch.minimum(made, studies.reported).clamp(min=1)
    return replace(studies, reported=torch.where(present, made, 0))


def _looks(draws: Variates, rule: Tensor, length: Tensor) -> Tensor:
    """(B, K) reports after which a trial is looked at: rungs that grow by eta, or even looks."""
    b = len(rule)
    k = torch.arange(_LOOKS, device=rule.device)
    eta = draws.uniform(b, 1, low=2.0, high=4.0)
    rungs = torch.floor(draws.log_uniform(b, 1, low=1.0, high=8.0)) * eta**k
    even = torch.floor(length[:, None] * (draws.uniform(b, 1, low=0.02, high=0.3) + k / _LOOKS))
    halving = (rule == RULES.index("asha")) | (rule == RULES.index("halving"))
    return torch.where(halving[:, None], rungs, even).clamp(min=1.0, max=1e6).long()


def _stopped(draws: Variates, rule: Tensor, looks: Tensor, studies: Studies) -> Tensor:
    """(B, C) reports until the rule stopped the trial; `length` where it never did."""
    b, c, s = studies.loss.shape
    length, present = studies.length[:, None], studies.present
    loss = torch.nan_to_num(studies.loss, nan=torch.inf, posinf=torch.inf)
    judged = torch.where(draws.flip(b, 1, 1, p=0.5), loss.cummin(-1).values, loss)  # by the best so far, or the last
    halving = rule == RULES.index("halving")
    share = torch.where(rule == RULES.index("median"), 0.5, draws.uniform(b, low=0.15, high=0.85))
    eta = (looks[:, 1] / looks[:, 0].clamp(min=1)).clamp(min=1.5)
    share = torch.where(halving | (rule == RULES.index("asha")), 1.0 / eta, share)[:, None]
    startup = torch.floor(draws.uniform(b, 1, high=9.0))
    startup = torch.where(rule[:, None] == RULES.index("asha"), startup * draws.flip(b, 1, p=0.3), startup)
    startup = torch.where(halving[:, None], 0.0, startup)
    exempt = present.cumsum(1) <= startup
    order = torch.arange(c, device=rule.device)
    before = (order[None, :] < order[:, None])[None] | halving[:, None, None]
    alive = present.clone()
    made = length.expand(b, c).clone()
    for k in range(looks.shape[1]):
        look = looks[:, k : k + 1]
        due = look < length
        at = judged.gather(2, (look.clamp(max=s) - 1)[:, :, None].expand(b, c, 1))[..., 0]
        peers = before & alive[:, None, :] & (order[None, :] != order[:, None])[None]
        better = (peers & (at[:, None, :] < at[:, :, None])).sum(2)
        number = peers.sum(2)
        # A report that is not finite is worse than any share.
        bad = torch.isinf(at) & (number > 0)
        worse = alive & due & ~exempt & ((better >= share * (number + 1)) | bad) & (number > 0)
        made = torch.where(worse, torch.minimum(look, made), made)
        alive = alive & ~worse
    return made


def _complete_two(draws: Variates, made: Tensor, studies: Studies) -> Tensor:
    """At least two complete trials, those that came furthest, in most studies."""
    b, c = made.shape
    length, present = studies.length[:, None], studies.present
    whole = (made == length) & present
    key = torch.where(present, made + draws.uniform(b, c), -1.0)
    furthest = torch.zeros_like(present).scatter(1, key.topk(min(2, c), dim=1).indices, True) & present
    wanted = draws.flip(b, 1, p=0.93) & (whole.sum(1, keepdim=True) < 2)
    return torch.where(furthest & wanted, length, made)
