"""The desk: turns as the simulator gives them, one allocation at a time, and an end that comes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from kit.allocators import Never, Recorded
from kit.doubles import NormalAroundBest
from kit.studies import STORAGES, grpc_proxy, storage
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from lcsearch.allocation.allocators.asha import AshaPromotion
from lcsearch.allocation.allocators.greedy import GreedyGain
from lcsearch.allocation.allocators.run_to_end import RunToEnd
from lcsearch.allocation.allocators.uniform import Uniform
from lcsearch.allocation.contract import Account, Allocation, Allocator, Move, Prices, Slots
from lcsearch.allocation.named import KINDS
from lcsearch.allocation.named import allocator as named
from lcsearch.curves import Curve
from lcsearch.data.task import Run, Task
from lcsearch.goal import Goal
from lcsearch.replay.simulator import World, simulate
from lcsearch.schedulers.optuna import as_trial
from lcsearch.schedulers.optuna._desk import Desk, Turn
from lcsearch.schedulers.optuna._record import paid_by
from lcsearch.schedulers.optuna._snapshot import Reader
from lcsearch.schedulers.optuna._storage import allocation_of, claim, end_cut, pause, store_allocation
from lcsearch.session import Session
from lcsearch.stopping.policy import Policy
from lcsearch.study import Status

HORIZON = 9


@pytest.fixture(params=STORAGES)
def on(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseStorage]:
    with grpc_proxy(tmp_path) if request.param == "grpc" else storage(request.param, tmp_path) as made:
        yield made


def curves(n: int, seed: int = 0) -> list[list[float]]:
    """Losses at steps 1..HORIZON."""
    rng = np.random.default_rng(seed)
    t = np.arange(1.0, HORIZON + 1)
    found = rng.uniform(0, 1, (n, 1)) + rng.uniform(0.2, 2, (n, 1)) * t ** -rng.uniform(0.3, 1.5, (n, 1))
    return [[float(value) for value in row] for row in found]


def desk_of(study: optuna.Study, allocator: Allocator, n: int, session: Session | None = None, **fields: Any) -> Desk:
    def left(trials: Sequence[FrozenTrial]) -> int:
        return n - sum(t.state != TrialState.WAITING or as_trial(t).status is Status.PAUSED for t in trials)

    def spent(trials: Sequence[FrozenTrial]) -> Account:
        return Account(spent=float(sum(t.last_step or 0 for t in trials)))

    session = session or Session(Policy(), [NormalAroundBest()])
    settings: dict[str, Any] = {"seed": 0, "account": spent, "n_new_allowed": left}
    settings |= {"lock": contextlib.nullcontext, **fields}
    return Desk(study, allocator, session, Reader(HORIZON, "best"), **settings)


def signed(trial: Trial) -> None:
    trial.set_user_attr("worker", "me")


def play(study: optuna.Study, desk: Desk, losses: list[list[float]]) -> list[tuple[int, float]]:
    """One worker until the end: every turn as (number, pause_at); each is played to its end."""
    log: list[tuple[int, float]] = []
    turn = desk.take(signed)
    while turn is not None:
        trial, at = turn.trial, turn.pause_at
        log.append((trial.number, at))
        values = losses[trial.number]
        done = len(study.trials[trial.number].intermediate_values)
        following: Turn | None = None
        for step in range(done + 1, len(values) + 1):
            trial.report(values[step - 1], step)
            if step == len(values):
                study.tell(trial, min(values))
            elif at <= step and at < HORIZON:
                following = desk.turn_over(trial, signed)
                if following is not None and following.trial.number == trial.number:
                    at = following.pause_at
                    log.append((trial.number, at))
                    continue
                pause(study, trial)
                break
        else:
            following = None
        turn = following or desk.take(signed)
    assert desk.over
    return log


@pytest.mark.parametrize("allocator", [AshaPromotion(), Uniform(), Uniform(quantum=0.45), RunToEnd()])
def test_a_study_goes_to_its_end(allocator: Allocator, on: BaseStorage) -> None:
    losses, study = curves(6), optuna.create_study(storage=on)
    log = play(study, desk_of(study, allocator, 6), losses)
    assert {number for number, _ in log} == set(range(6))
    assert all(trial.state.is_finished() for trial in study.trials)
    assert all(trial.user_attrs["worker"] == "me" for trial in study.trials)
    for trial in study.trials:
        n = len(trial.intermediate_values)
        assert trial.intermediate_values == dict(enumerate(losses[trial.number][:n], start=1))
    stored = allocation_of(study)
    assert (stored["allocator"], json.loads(json.dumps(stored))) == (allocator.name, stored)


def test_asha_cuts_those_that_wait_when_no_rung_can_grow() -> None:
    study = optuna.create_study()
    play(study, desk_of(study, AshaPromotion(), 6), curves(6))
    states = [trial.state for trial in study.trials]
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    pruned = next(trial for trial in study.trials if trial.state == TrialState.PRUNED)
    assert pruned.user_attrs["lcsearch:reason"] == "cut: its rung is closed"
    assert pruned.value == pruned.intermediate_values[pruned.last_step or 0]
    assert as_trial(pruned).status is Status.STOPPED


def test_who_waits_for_others_is_not_over() -> None:
    study = optuna.create_study()
    desk = desk_of(study, Uniform(), 1)
    turn = desk.take(signed)
    assert turn is not None
    assert desk.take(signed) is None
    assert not desk.over
    study.tell(turn.trial, 1.0)
    assert desk.take(signed) is None
    assert desk.over


def test_trials_that_run_without_a_turn_are_waited_for_by_nobody() -> None:
    study = optuna.create_study()
    study.ask()
    desk = desk_of(study, AshaPromotion(), 4)
    play(study, desk, [[1.0], *curves(3)])
    assert [trial.state for trial in study.trials].count(TrialState.RUNNING) == 1


def test_enqueued_trials_are_begun_first() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.5})
    desk = desk_of(study, Uniform(), 2)
    turn = desk.take(signed)
    assert turn is not None
    assert turn.trial.suggest_float("x", 0, 1) == 0.5
    assert turn.resumed is False


class Raises(RunToEnd):
    def allocate(self, *args: Any) -> Allocation:
        raise RuntimeError("broken")


def test_a_broken_allocator_does_not_end_a_study() -> None:
    study = optuna.create_study()
    session = Session(Policy(), [NormalAroundBest()])
    play(study, desk_of(study, Raises(), 3, session), curves(3))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    assert sum(session.failed_open.values()) == 3


class Asks(RunToEnd):
    def questions(self, *args: Any) -> Any:
        raise RuntimeError("broken")


def test_an_allocator_whose_questions_fail_does_not_end_a_study() -> None:
    study = optuna.create_study()
    session = Session(Policy(), [NormalAroundBest()])
    play(study, desk_of(study, Asks(), 3, session), curves(3))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    assert session.failed_open == {"allocator 'run-to-end'": 3}


@pytest.mark.parametrize("name", ["going-rate", "uniform"])
@pytest.mark.parametrize("fields", [{}, {"state": {"of": "another version"}}, {"state": None}, {"state": [1]}])
def test_a_state_that_cannot_be_used_is_begun_anew(name: str, fields: dict[str, Any]) -> None:
    losses, allocator = curves(4), named(name)
    study, session = optuna.create_study(), Session(Policy(), [NormalAroundBest()])
    log = play(study, desk_of(study, allocator, 4), losses)
    again = optuna.create_study()
    store_allocation(again, {"allocator": allocator.name, "n": 0, **fields})
    assert play(again, desk_of(again, allocator, 4, session), losses) == log
    assert sum(session.failed_open.values()) == (1 if fields else 0)


def test_a_trial_that_was_taken_over_gets_no_turn_here() -> None:
    """Another worker has had it meanwhile, and has paused it: it is nobody's until it is claimed."""
    study = optuna.create_study()
    desk = desk_of(study, RunToEnd(), 1)
    turn = desk.take(signed)
    assert turn is not None
    turn.trial.report(1.0, 1)
    pause(study, turn.trial)
    assert desk.turn_over(turn.trial, signed) is None
    assert not desk.over
    assert study.trials[0].state == TrialState.WAITING
    following = desk.take(signed)
    assert following is not None
    assert following.trial.number == 0


class Proposes(RunToEnd):
    def allocate(self, state: Any, snapshot: Any, forecasts: Any, abilities: Any, slots: Slots, key: Any) -> Allocation:
        fresh = min(slots.n_new_allowed, 1)
        return Allocation(state, (Move(None, HORIZON, proposal={"x": 0.125}),) * fresh)


def test_a_proposal_is_the_new_trial_s_parameters() -> None:
    study = optuna.create_study()
    turn = desk_of(study, Proposes(), 1).take(signed)
    assert turn is not None
    assert turn.trial.suggest_float("x", 0, 1) == 0.125


class CutsHere(RunToEnd):
    """Pauses the first trial at step 2 and cuts it there."""

    def allocate(self, state: Any, snapshot: Any, forecasts: Any, abilities: Any, slots: Slots, key: Any) -> Allocation:
        paused = [trial for trial in snapshot.live if trial.status is Status.PAUSED]
        if paused:
            return Allocation(state, (), ((paused[0].uid, "not wanted"),))
        return Allocation(state, (Move(None, 2.0),) * min(slots.n_new_allowed, 1))


def test_a_trial_that_is_cut_where_it_stands_ends_when_it_is_paused() -> None:
    study = optuna.create_study()
    desk = desk_of(study, CutsHere(), 2)
    turn = desk.take(signed)
    assert turn is not None
    turn.trial.report(1.0, 1)
    turn.trial.report(0.5, 2)
    assert desk.turn_over(turn.trial, signed) is None
    assert pause(study, turn.trial) is False
    (frozen,) = study.trials
    assert (frozen.state, frozen.value) == (TrialState.PRUNED, 0.5)
    assert frozen.user_attrs["lcsearch:reason"] == "cut: not wanted"
    assert paid_by(frozen, Prices(1.0, 10.0)) == 1.0, "it had saved"


def test_what_pauses_and_resumes_have_cost_follows_from_the_trials(on: BaseStorage) -> None:
    """Paid by a trial: paused; resumed; on its way further where it stands; paused again; cut while it waits."""
    study, paid = optuna.create_study(storage=on), list[float]()

    def note() -> None:
        paid.append(paid_by(study.trials[0], Prices(1.0, 10.0)))

    desk = desk_of(study, Uniform(quantum=0.2), 1)  # of 9 steps
    turn = desk.take(signed)
    assert turn is not None
    for step in (1, 2):
        turn.trial.report(1.0, step)
    pause(study, turn.trial)
    note()
    turn = desk.take(signed)
    note()
    assert turn is not None
    for step in (3, 4):
        turn.trial.report(1.0, step)
    following = desk.turn_over(turn.trial, signed)
    assert following is not None
    assert following.trial.number == 0
    note()
    pause(study, turn.trial)
    note()
    assert claim(study, 0) is not None
    end_cut(study, 0, "not wanted")
    note()
    assert paid == [1.0, 11.0, 11.0, 12.0, 12.0]


def test_the_state_goes_on_in_another_process(on: BaseStorage) -> None:
    """Half of it by one desk, half by another: the same moves as by one alone."""
    losses = curves(5)
    whole = play(study := optuna.create_study(), desk_of(study, Uniform(), 5), losses)
    study = optuna.create_study(storage=on)
    log: list[tuple[int, float]] = []
    for _ in range(len(whole)):
        turn = desk_of(study, Uniform(), 5).take(signed)
        assert turn is not None
        trial, at = turn.trial, turn.pause_at
        log.append((trial.number, at))
        step = len(study.trials[trial.number].intermediate_values) + 1
        trial.report(losses[trial.number][step - 1], step)
        if step == HORIZON:
            study.tell(trial, 0.0)
        else:
            pause(study, trial)
    assert log == whole


ALLOCATORS = [
    *(named(name) for name in KINDS),
    *(Uniform(4, 0.3), AshaPromotion(0.2, 2), GreedyGain(0.3)),
]


@pytest.mark.parametrize("allocator", ALLOCATORS, ids=repr)
@pytest.mark.parametrize("seed", range(3))
def test_one_worker_moves_as_in_the_simulator(allocator: Allocator, seed: int) -> None:
    losses = curves(9, seed)
    goal, steps = Goal("value", "minimize", HORIZON), range(1, HORIZON + 1)
    runs = [Run(str(i), Curve.of(steps, values), np.array(steps, float)) for i, values in enumerate(losses)]
    simulated, real = Recorded(allocator), Recorded(allocator)
    world = World(seed=seed)
    simulate(Task("task", goal, tuple(runs)), range(9), Never(), world, simulated, [NormalAroundBest()])
    study = optuna.create_study()
    play(study, desk_of(study, real, 9, seed=seed), losses)
    assert real.moves == simulated.moves
    assert real.stops == simulated.stops
    assert len(real.moves) >= 4
