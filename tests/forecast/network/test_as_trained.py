"""The forecaster shows the network what training showed it: the same inputs for the same study."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from kit.networks import network
from torch import Tensor

from lcsearch.curves import Curve
from lcsearch.forecast.contract import Query
from lcsearch.forecast.network import features, objective
from lcsearch.forecast.network.forecaster import NetworkForecaster
from lcsearch.forecast.network.model import KINDS, CurveNetwork
from lcsearch.forecast.network.objective import BEST_BY, query
from lcsearch.forecast.network.studies import Studies
from lcsearch.forecast.prior.draw import draw
from lcsearch.goal import Goal
from lcsearch.schedule import Schedule, Shape
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial


class Spy:
    """Runs a function and keeps what it was given."""

    def __init__(self, patch: pytest.MonkeyPatch, where: Any, name: str) -> None:
        self._real = getattr(where, name)
        self.given: list[tuple[Any, ...]] = []
        patch.setattr(where, name, self)

    def __call__(self, *args: Any) -> Any:
        self.given.append(args)
        return self._real(*args)


def studies(seed: int) -> Studies:
    made = draw(6, torch.Generator().manual_seed(seed), trials=(6, 12), horizon=(12, 40))
    made.rate[:] = math.nan
    made.reported[:] = made.reported.clamp_min(4)
    return made


def snapshot(some: Studies, study: int, use: list[int], by_best: bool) -> Snapshot:
    n = int(some.length[study])
    steps = some.steps[study].double().numpy()
    goal = Goal("loss", "minimize", float(steps[n - 1]), "best" if by_best else "final")
    done = []
    for trial in use:
        k = min(int(some.reported[study, trial]), n)
        curve = Curve.of(steps[:k], some.loss[study, trial, :k].double().numpy())
        done.append(Trial(f"t{trial}", curve, status=Status.COMPLETE if k == n else Status.STOPPED))
    return Snapshot("s", goal, FinishedTrials(goal).extend(done))


@pytest.mark.parametrize("seed", range(8))
def test_inputs_are_those_of_training(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    some, net = studies(seed), network()
    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(objective, "token_grid", lambda n, ratio: features.token_grid(n))
        patch.setattr(objective, "ODD_TOKENS", 0)
        cut, describe = Spy(patch, features, "cut"), Spy(patch, features, "describe")
        made = query(net, some, torch.Generator().manual_seed(seed), 12, 2)
    ((own, index),) = cut.given
    until, moved = describe.given[0][6], features.cut(own, index).full
    state, seen, kind, pairs, _, _, context, use = made.inputs
    grid = torch.tensor(features.token_grid(some.loss.shape[-1]))
    compared = 0
    for b in range(len(some)):
        n = int(some.length[b])
        if not torch.isfinite(some.loss[b, :, :n]).all() or (some.loss[b].abs() > 1e6).any():
            continue
        by_best = bool((kind[b] == BEST_BY).any())
        for q in range(kind.shape[1]):
            a, m = divmod(q, index.shape[2])
            i = int(index[b, a, m])
            among = use[b, q].nonzero().ravel().tolist()
            trial = next(
                t
                for t in range(some.loss.shape[1])
                if torch.equal(some.loss[b, t, :n], own.y[b, a, :n]) and t not in among
            )
            if not made.weight[b, q] or i < 3 or not among:
                continue
            steps = some.steps[b].double().numpy()
            then = int((some.steps[b] - 2.0 * some.steps[b, 0] + some.steps[b, 1] - until[b, a, m]).abs().argmin())
            live = Trial(f"t{trial}", Curve.of(steps[: i + 1], some.loss[b, trial, : i + 1].double().numpy()))
            asked = Query(live, KINDS[int(kind[b, q])], float(steps[then]))  # type: ignore[arg-type]
            known = snapshot(some, b, among, by_best)
            if not (known.robust_range > 0 or moved[b, a, m] > 0):
                continue  # without a scale in training; something stands in for it here
            with monkeypatch.context() as patch:
                answer = Spy(patch, CurveNetwork, "answer")
                patch.setattr(CurveNetwork, "answer", lambda *args, to=answer: to(*args))
                NetworkForecaster(net, "").forecast(known, [asked])
            _, *got = answer.given[0]

            def close(x: Tensor, y: Tensor, what: str, atol: float = 2e-3) -> None:
                torch.testing.assert_close(x, y, rtol=1e-3, atol=atol, msg=lambda text: f"{what}: {text}")

            close(got[0][0, 0], state[b, q], "state")
            close(got[1][0, 0], seen[b, q], "cut")
            # training reads the last token of a grid that was laid for all trials, the forecaster the last report
            ends = some.reported[b, among].clamp(1, n) - 1
            there = torch.isin(ends, grid)
            close(got[6][0][there], context[b, among][there], "context")
            floor = torch.full((pairs.shape[-1],), -math.inf)
            floor[20] = -3.6  # below it the logarithm is of a drop within float32's rounding
            there_is, want = (torch.maximum(x, floor) for x in (got[3][0, 0], pairs[b, q, among]))
            close(there_is, want, "pairs", atol=0.05)  # differences of differences
            assert got[7].all()
            compared += 1
    assert compared > 10


def test_a_planned_schedule_is_what_training_saw() -> None:
    plan, steps = Schedule("cosine", 0.3, 40.0, warmup=0.1), torch.arange(1.0, 41.0)
    rate = torch.from_numpy(plan.rate(steps.numpy()) / plan.peak).float()
    area = rate.cumsum(-1) / rate.sum()
    goal = Goal("loss", "minimize", 40.0)
    live = Trial("t", Curve.of(steps.numpy()[:10], 1.0 / steps.numpy()[:10]), schedule=plan)
    with pytest.MonkeyPatch.context() as patch:
        describe = Spy(patch, features, "describe")
        NetworkForecaster(network(), "").forecast(
            Snapshot("s", goal, FinishedTrials(goal)), [Query(live, "best_by", 20.0)]
        )
    c, *_, rate_until, area_until = describe.given[0]
    torch.testing.assert_close(c.rate[0], rate[:10], rtol=0.0, atol=1e-5)
    torch.testing.assert_close(c.area[0], area[:10], rtol=0.0, atol=0.03)
    torch.testing.assert_close(rate_until.ravel(), rate[19:20], rtol=0.0, atol=1e-5)
    torch.testing.assert_close(area_until.ravel(), area[19:20], rtol=0.0, atol=0.03)


def test_schedules_beside_one_another_are_what_training_saw() -> None:
    shapes: tuple[Shape, ...] = ("cosine", "wsd", "linear", "step")
    plans = [Schedule(shape, 0.1 * (i + 1), 40.0) for i, shape in enumerate(shapes)]
    steps, n = torch.arange(1.0, 41.0), len(plans) + 1
    rates = torch.stack([torch.from_numpy(p.rate(steps.numpy()) / p.peak).float() for p in [*plans, plans[1]]])
    loss = torch.rand(n, 40, generator=torch.Generator().manual_seed(0)) + 1.0 / steps
    some = Studies(
        steps=steps[None],
        length=torch.tensor([40]),
        loss=loss[None],
        latent=loss[None],
        reported=torch.full((1, n), 40),
        present=torch.ones(1, n, dtype=torch.bool),
        rate=rates[None],
        params=torch.zeros(1, n, 0),
        kinds=torch.zeros(1, 0, dtype=torch.int64),
    )
    net, chance = network(), torch.Generator().manual_seed(1)
    with pytest.MonkeyPatch.context() as patch:
        cut, describe = Spy(patch, features, "cut"), Spy(patch, features, "describe")
        made = query(net, some, chance, n, 6)
    ((own, index),) = cut.given
    until, want, use = describe.given[0][6], made.inputs[4], made.inputs[7]
    assert want is not None
    goal = Goal("loss", "minimize", 40.0)
    compared = 0
    for q in range(use.shape[1]):
        a, m = divmod(q, index.shape[2])
        i, then = int(index[0, a, m]), float(until[0, a, m])
        mine = next(k for k in range(n) if torch.equal(loss[k], own.y[0, a]))
        among = use[0, q].nonzero().ravel().tolist()
        if not among or then <= i + 1:
            continue
        done = [
            Trial(
                f"t{k}",
                Curve.of(steps.numpy(), loss[k].numpy()),
                status=Status.COMPLETE,
                schedule=[*plans, plans[1]][k],
            )
            for k in among
        ]
        live = Trial(
            "t", Curve.of(steps.numpy()[: i + 1], loss[mine, : i + 1].numpy()), schedule=[*plans, plans[1]][mine]
        )
        with pytest.MonkeyPatch.context() as patch:
            spy = Spy(patch, CurveNetwork, "answer")
            patch.setattr(CurveNetwork, "answer", lambda *args, to=spy: to(*args))
            NetworkForecaster(net, "").forecast(
                Snapshot("s", goal, FinishedTrials(goal).extend(done)), [Query(live, "best_by", then)]
            )
        torch.testing.assert_close(spy.given[0][5][0, 0], want[0, q, among], rtol=0.0, atol=0.05)
        compared += 1
    assert compared > 8
