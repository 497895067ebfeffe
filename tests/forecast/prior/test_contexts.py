from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from lcsearch.forecast.network.studies import Studies
from lcsearch.forecast.prior import censor, contexts


def real(b: int = 400, c: int = 12, s: int = 20) -> Studies:
    """Curves that are ordered throughout, without anything that only drawn ones have."""
    steps = torch.arange(1.0, s + 1).expand(b, s)
    order = torch.rand(b, c, 1, generator=torch.Generator().manual_seed(5))
    loss = (order + 1.0 / steps[:, None]).float()
    present = torch.arange(c) < torch.arange(b)[:, None] % (c - 3) + 4
    length = torch.full((b,), s)
    return Studies(
        steps=steps,
        length=length,
        loss=loss,
        latent=torch.full_like(loss, torch.nan),
        reported=torch.where(present, s, 0),
        present=present,
        rate=torch.full_like(loss, torch.nan),
        params=torch.full((b, c, 2), torch.nan),
        kinds=torch.zeros((b, 2), dtype=torch.int64),
    )


def under(monkeypatch: pytest.MonkeyPatch, rule: str, studies: Studies, seed: int = 0) -> Studies:
    """Censored by one rule, of searches that went on."""
    monkeypatch.setattr(contexts, "EARLY", 0.0)
    monkeypatch.setattr(contexts, "_WEIGHTS", tuple(float(name == rule) for name in contexts.RULES))
    return censor(studies, torch.Generator().manual_seed(seed))


def whole(studies: Studies) -> torch.Tensor:
    return (studies.reported == studies.length[:, None]) & studies.present


def test_only_reported_changes_and_only_downwards() -> None:
    given = real()
    made = censor(given, torch.Generator().manual_seed(0))
    for f in fields(given):
        if f.name != "reported":
            assert getattr(made, f.name) is getattr(given, f.name)
    assert (made.reported[given.present] >= 1).all()
    assert (made.reported <= given.reported).all()
    assert (made.reported[~given.present] == 0).all()
    short = replace(given, reported=torch.minimum(given.reported, torch.tensor(7)))
    assert censor(short, torch.Generator().manual_seed(0)).reported.max() <= 7


def test_most_studies_keep_two_complete_trials_and_the_others_have_only_begun() -> None:
    given = real(2000)
    made = censor(given, torch.Generator().manual_seed(1))
    complete = whole(made).sum(1)
    assert 0.55 < float((complete >= 2).float().mean()) < 0.7
    none = complete == 0
    assert 0.3 < float(none.float().mean()) < 0.45
    furthest = made.reported.max(1).values
    assert float((furthest[none] <= 3).float().mean()) > 0.3
    given = real(2000)
    stopped = given.present.sum() - complete.sum()
    assert 0.3 < float(stopped / given.present.sum()) < 0.8


def test_a_seed_determines_it() -> None:
    given = real()
    one, again, other = (censor(given, torch.Generator().manual_seed(seed)).reported for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("rule", ["asha", "halving", "median", "threshold"])
def test_schedulers_stop_the_worse_ones(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    given = real()
    made = under(monkeypatch, rule, given)
    done = whole(made)
    assert 0.05 < float(done.sum() / given.present.sum()) < 0.9
    last = given.loss[..., -1]
    mean_done, mean_rest = last[done].mean(), last[given.present & ~done].mean()
    assert mean_done < mean_rest - 0.1


@pytest.mark.parametrize("rule", ["asha", "halving", "median", "threshold"])
def test_the_best_of_ordered_curves_is_never_stopped_by_a_rule(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    given = real()
    best = torch.where(given.present, given.loss[..., -1], torch.inf).argmin(1)
    made = under(monkeypatch, rule, given)
    ended = whole(made).gather(1, best[:, None])[:, 0]
    # It may still be running: the last trials are in about a third of the studies.
    last = best >= given.present.sum(1) - 8
    assert ended[~last].all()


def test_without_a_rule_all_but_the_running_ones_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    given = real()
    made = under(monkeypatch, "none", given)
    shorter = given.present & ~whole(made)
    n = given.present.sum(1, keepdim=True)
    assert (torch.arange(12).expand_as(shorter)[shorter] >= (n - 8).expand_as(shorter)[shorter]).all()
    assert 0.5 < float((~shorter).all(1).float().mean()) < 0.8


def test_what_diverges_is_stopped_once_there_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    given = real()
    loss = given.loss.clone()
    loss[:, 3, 2:] = torch.nan
    made = under(monkeypatch, "asha", replace(given, loss=loss), seed=2)
    assert float(whole(made)[:, 3].float().mean()) < 0.35 < float(whole(made)[:, :3].float().mean())
