from __future__ import annotations

import torch

from lcsearch.forecast.prior import records
from lcsearch.forecast.prior.draw import draw
from lcsearch.forecast.prior.losses import TRAITS
from lcsearch.forecast.prior.records import keep_best
from lcsearch.forecast.prior.variates import Variates


def made(share: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    draws = Variates(torch.Generator().manual_seed(seed))
    task = torch.arange(60).repeat_interleave(8)
    loss = 1.0 + 0.1 * draws.normal(480, 40)
    z = {name: draws.normal(480) for name in TRAITS}
    before, records.SHARE = records.SHARE, share
    try:
        return task, loss, *keep_best(draws, task, z, loss, loss - 1.0, 60)
    finally:
        records.SHARE = before


def test_a_best_value_never_rises_and_is_what_it_is() -> None:
    _, _, loss, latent = made(1.0)
    assert (loss.diff(dim=-1) <= 0).all()
    assert torch.equal(loss, latent)
    assert torch.isfinite(loss).all()


def test_there_are_plateaus_and_jumps() -> None:
    _, _, loss, _ = made(1.0)
    moved = loss.diff(dim=-1) < 0
    assert 0.05 < float(moved.float().mean()) < 0.5
    gain = (loss[:, :1] - loss[:, -1:]).clamp(min=1e-9)
    late = (loss[:, 20] - loss[:, -1]) / gain[:, 0]
    assert float((late > 0.1).float().mean()) > 0.2, "much comes late"
    assert float((loss.diff(dim=-1).min(-1).values / -gain[:, 0] > 0.3).float().mean()) > 0.2, "in large steps"


def test_other_studies_stay_as_they_are() -> None:
    task, given, loss, latent = made(0.3)
    same = (loss == given).all(-1)
    studies = [set(same[task == k].tolist()) for k in range(60)]
    assert all(len(one) == 1 for one in studies), "a study is of one kind throughout"
    assert 10 < sum(one == {False} for one in studies) < 30
    assert torch.equal(latent[same], given[same] - 1.0)


def test_some_drawn_studies_keep_the_best() -> None:
    drawn = draw(200, torch.Generator().manual_seed(0), horizon=(20, 40))
    falls = torch.nan_to_num(drawn.loss.diff(dim=-1), nan=0.0) <= 0
    kept = (falls | (torch.arange(1, drawn.loss.shape[-1]) >= drawn.length[:, None, None])).all(-1)
    share = float((kept | ~drawn.present).all(1).float().mean())
    assert 0.04 < share < 0.2
