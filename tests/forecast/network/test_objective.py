from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from kit.networks import network
from torch import Tensor

from lcsearch.curves import Curve
from lcsearch.forecast.network import features
from lcsearch.forecast.network.features import Curves, Cuts
from lcsearch.forecast.network.objective import Queries, objective, query, study_figures
from lcsearch.forecast.network.studies import Studies
from lcsearch.forecast.prior.draw import draw
from lcsearch.goal import Goal
from lcsearch.study import FinishedTrials, Status, Trial

TRIALS = 8


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def studies(seed: int = 0) -> Studies:
    return draw(4, seeded(seed), trials=(4, TRIALS), horizon=(12, 40))


def asked(some: Studies, seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Queries, Tensor, Tensor]:
    """Queries, the losses (B, A, S) of the trials that are queried, and where they are cut (B, A, M)."""
    seen: list[tuple[Curves, Tensor]] = []
    whole = features.cut

    def spy(c: Curves, index: Tensor) -> Cuts:
        seen.append((c, index))
        return whole(c, index)

    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(features, "cut", spy)
        made = query(network(), some, seeded(seed), TRIALS, 3)
    ((own, index),) = seen
    return made, own.y, index


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("change", ["better", "worse", "nan", "blown"])
def test_nothing_leaks_from_a_trials_own_later_reports(seed: int, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    some = studies(seed)
    before, losses, index = asked(some, seed, monkeypatch)
    b, n, m = index.shape
    checked = changed = 0
    for trial in range(some.loss.shape[1]):
        start = int(index.float().mean())
        after = some.loss.clone()
        later = after[:, trial, start + 1 :]
        new = {"better": later - 5.0, "worse": later + 5.0, "nan": later * math.nan, "blown": later * 0.0 + 1e30}
        after[:, trial, start + 1 :] = new[change]
        other, changed_losses, again = asked(replace(some, loss=after), seed, monkeypatch)
        torch.testing.assert_close(again, index)  # what is asked does not depend on the reports
        own = (changed_losses != losses).any(-1)  # (B, A) queries of this trial
        # a query that begins with non-finite reports only is never weighed: it is filled from what follows
        early = (own[..., None] & (index <= start)).reshape(b, n * m) & (before.weight > 0)
        checked += int(early.sum())
        for k, (x, y) in enumerate(zip(before.inputs, other.inputs, strict=True)):
            if k == 6 or x is None or y is None:  # the context's states: the trial is not in its own context
                continue
            x, y = x[early], y[early]
            if k in (3, 4, 5):
                use = before.inputs[7][early]
                x, y = x[use], y[use]
            torch.testing.assert_close(x, y, rtol=0.0, atol=1e-5, msg=f"input {k}")
        with torch.inference_mode():
            net = network()
            for x, y in zip(net.answer(*before.inputs), net.answer(*other.inputs), strict=True):
                torch.testing.assert_close(x[early], y[early], rtol=0.0, atol=1e-4)
        torch.testing.assert_close(before.incumbent[early], other.incumbent[early], equal_nan=True)
        changed += int((before.target[early] != other.target[early]).sum())
    assert checked > 20
    assert changed > 5, "the answers must have changed"


@pytest.mark.parametrize("seed", range(4))
def test_gradients_are_finite_whatever_happens(seed: int) -> None:
    some = studies(seed)
    loss = some.loss.clone()
    chance = torch.rand(loss.shape, generator=seeded(seed + 100))
    loss[chance < 0.02] = math.nan
    loss[(chance > 0.02) & (chance < 0.03)] = 1e34
    loss[(chance > 0.03) & (chance < 0.04)] = -1e34
    loss[0, 0] = math.nan
    loss[0, 1] = 0.7
    loss[0, 2] *= 1e-30
    net = network()
    value, figures = objective(net, replace(some, loss=loss), seeded(seed))
    value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert math.isfinite(float(value.detach()))
    assert all(map(math.isfinite, figures.values()))
    for name, one in net.named_parameters():
        assert one.grad is None or torch.isfinite(one.grad).all(), name


def test_the_same_generator_gives_the_same_loss() -> None:
    net, some = network(), studies()
    with torch.inference_mode():
        one, other = (objective(net, some, seeded(3)) for _ in range(2))
        third = objective(net, some, seeded(4))
    assert (float(one[0]), one[1]) == (float(other[0]), other[1])
    assert float(third[0]) != float(one[0])


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    with torch.inference_mode():
        objective(network(), studies(), seeded(0))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_figures_of_a_study_are_those_of_the_bank() -> None:
    goal, inf = Goal("loss", "minimize", 2), math.inf
    for judged in ([3.0, 1.0, 2.0, 9.0], [0.5, 3.0, 1.0, 2.0, 9.0, 4.0, 4.5], [4.0], []):
        done = [Trial(str(i), Curve.of([1, 2], [x, x]), status=Status.COMPLETE) for i, x in enumerate(judged)]
        bank = FinishedTrials(goal).extend(done)
        spread, incumbent, n = study_figures(torch.tensor([inf, *judged, inf]))
        assert float(spread) == pytest.approx(bank.robust_range)
        assert float(n) == bank.n_complete
        assert math.isnan(incumbent) if bank.best_complete is None else float(incumbent) == bank.best_complete[0]
