"""Turns: how a worker of a sweep with `pause: true` gets its trials, and leaves them.

The allocator's state is stored with the study, and whoever holds the run folder's claim lock allocates: a launcher or a
worker that is killed takes nothing with it. A paused trial is WAITING in the storage, and signed with its run, for its
checkpoint lies in that run's folder: over several machines it stays with that one. One whose worker was killed is
adopted as ever, and goes on with the turn that it had been given.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from lcsearch.allocation.allocators.going_rate import GoingRateAsha
from lcsearch.allocation.contract import Account, Allocator
from lcsearch.allocation.in_reach import BY
from lcsearch.allocation.named import allocator
from lcsearch.allocation.rungs import rungs_of
from lcsearch.schedulers.optuna import CurvePruner, ForecastSampler
from lcsearch.schedulers.optuna._desk import Desk, Turn
from lcsearch.schedulers.optuna._record import EVICTED, LEFT, cut_of, pause_at_of
from lcsearch.schedulers.optuna._snapshot import Reader
from lcsearch.schedulers.optuna._storage import claim, end_cut, pause
from lcsearch.session import make_session
from lcsearch.stopping.policy import Policy
from lcsearch.sweep.spec.allocator import AllocatorSpec, GreedySpec, UniformSpec
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store import attributes, ownership
from lcsearch.sweep.store.attributes import WORKER
from lcsearch.sweep.store.budget import (
    limit_now,
    new_paces,
    own_steps,
    paces_of,
    paid,
    room,
    steps_left,
    time_binds,
    time_left,
    trained,
    used,
)
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.ownership import Claim


def make_allocator(spec: AllocatorSpec) -> Allocator:
    """The allocator with the knobs of the file."""
    return allocator(spec.kind, **spec.model_dump(exclude={"kind"}))


def asked_at(file: SweepFile) -> list[float]:
    """The steps at which a trial's turn may end, rising; by whole steps, as they are reported."""
    horizon, spec = float(file.max_steps), file.turns
    if isinstance(spec, UniformSpec | GreedySpec):
        length = max(math.ceil(spec.quantum * horizon - 1e-9), 1)  # a turn ends with a report
        found = [min(k * length, horizon) for k in range(1, math.ceil(horizon / length) + 1)]
    elif spec is not None:
        rungs = rungs_of(horizon, spec.first, spec.eta)
        found = list(rungs)
        if isinstance(one := make_allocator(spec), GoingRateAsha):
            found += [step for k in range(len(rungs) - 1) for step in one.checks(rungs, k) if step < rungs[k + 1]]
    else:
        found = [horizon]
    return sorted({float(math.ceil(step - 1e-9)) for step in found})


def no_turn_left(file: SweepFile, used: float, left: float = math.inf) -> bool:
    """Does what is left pay for no turn of a new trial? Never where nothing pauses.

    Args:
        file: the sweep's.
        used: steps trained by all trials, and what their pauses and resumes have cost; none of them runs, or waits.
        left: steps that seconds and money pay for, see :func:`~lcsearch.sweep.store.budget.steps_left`.
    """
    if not file.pause:
        return False
    first = asked_at(file)[0]
    turn = first + (file.prices.checkpoint if first < file.max_steps else 0.0)
    return turn > (left if file.budget.steps is None else min(left, file.budget.steps - used))


def next_turn(study: optuna.Study, folder: RunFolder, file: SweepFile, number: int) -> str:
    """What a paused trial waits for, were a slot free now; nothing is moved or written."""
    return Turns(study, folder, 0, file).next_turn(number)


class Turns:
    """The desk of one worker, over the run folder's claim lock.

    Attributes:
        over: no turn was given, and none will be: nothing runs, and nothing may be moved.
    """

    def __init__(self, study: optuna.Study, folder: RunFolder, slot: int, file: SweepFile) -> None:
        assert file.turns is not None
        self._study, self._folder, self._slot, self._file = study, folder, slot, file
        self._run = folder.identity()
        own = study.pruner if isinstance(study.pruner, CurvePruner) else None
        session = (
            make_session(Policy(), None, folder.decisions, None, host=file.backend.host) if own is None else own.session
        )
        self._desk = Desk(
            study,
            make_allocator(file.turns),
            session,
            Reader(file.max_steps, file.judged, file.bounds) if own is None else own.reader(file.max_steps),
            seed=file.seed,
            account=self.account,
            n_new_allowed=lambda trials: max(room(file, folder, ownership.counted(trials)), 0),
            lock=folder.claim,
            mine=lambda frozen: ownership.is_paused_in(frozen, self._run),
        )
        if isinstance(study.sampler, ForecastSampler):
            study.sampler.paces = self._paces
        self._next: Turn | None = None
        self._signed: dict[int, dict[str, Any]] = {}
        self.over = False

    def account(self, trials: Sequence[FrozenTrial]) -> Account:
        """What the study may spend and has spent; with `time` where seconds or money are what there is least of."""
        spent = float(trained(self._file, trials))
        used_up = limit_now(self._file, self._folder, ownership.counted(trials)) in ("steps", "seconds", "money")
        so_far, left = paid(self._file, trials), steps_left(self._file, self._folder, trials)
        timed = not used_up and time_binds(self._file, left, spent + so_far)
        paces = paces_of(self._file, trials) if timed else {}
        if paces:
            return self._timed(trials, paces, spent, so_far)
        total = spent if used_up else min(self._file.budget.steps or math.inf, spent + so_far + left)
        return Account(total if math.isfinite(total) else None, spent, *self._file.prices, paid=so_far)

    def _paces(self, trials: Sequence[FrozenTrial], candidates: Sequence[Mapping[str, Any]]) -> list[float] | None:
        """What a step of each would take; None where steps are what there is least of."""
        left = steps_left(self._file, self._folder, trials)
        timed = time_binds(self._file, left, used(self._file, trials))
        return new_paces(self._file, trials, candidates) if timed else None

    def _timed(self, trials: Sequence[FrozenTrial], paces: Mapping[int, float], trained: float, paid: float) -> Account:
        """The account where seconds or money are what there is least of: in steps of the usual trial."""
        time, pooled = time_left(self._file, self._folder, trials, paces)
        own = own_steps(trials, self._file.max_steps)
        more = ((paces.get(number, time.usual) / time.usual - 1) * steps for number, steps in own.items())
        spent = max(trained + math.fsum(more), 0.0)
        return Account(spent + paid + pooled / time.usual, spent, *self._file.prices, paid=paid, time=time)

    def take(self) -> Claim | None:
        """An abandoned trial of this run if there is one, else what the allocator says; None: nothing now."""
        turn, self._next = self._next, None
        if turn is not None:
            return self._claim(turn)
        with self._folder.claim():
            while (found := self._adopted()) is not None:
                frozen = self._frozen(found.trial)
                if cut_of(frozen) is None:  # else its worker was killed on the way to its end
                    at = pause_at_of(frozen)
                    return replace(found, pause_at=math.inf if at is None else at)
                pause(self._study, found.trial)
        turn = self._desk.take(self._sign)
        self.over = turn is None and self._desk.over
        if turn is None or (not turn.resumed and ownership.is_surplus(self._study, turn.trial, self._file)):
            return None
        return self._claim(turn)

    def _adopted(self) -> Claim | None:
        trials = self._study.get_trials(deepcopy=False)
        return ownership.adopt_abandoned(self._study, trials, self._folder, self._slot, self._file)

    def next_turn(self, number: int) -> str:
        """What a paused trial waits for, were a slot free now; nothing is moved or written."""
        return self._desk.next_turn(number, self._file.step)

    def turn_over(self, claim: Claim) -> float | None:
        """The step until which the trial goes on; None: it is to be paused, for it has no further turn now."""
        turn = self._desk.turn_over(claim.trial, self._sign)
        if turn is not None and turn.trial.number == claim.trial.number:
            return turn.pause_at
        self._next = turn
        return None

    def pause(self, claim: Claim) -> TrialState:
        """Leave the trial paused, its checkpoint being whole; PRUNED where the allocator has cut it."""
        with self._folder.claim():
            claim.count()
            # No pid: whoever claims it is killed before it signs leaves an abandoned trial.
            claim.trial.set_user_attr(WORKER, {**claim.owner, "slot": None, "pid": None})
            if not pause(self._study, claim.trial):
                return TrialState.PRUNED
            self._evict()
        return TrialState.WAITING

    def finish(self) -> list[int]:
        """End this run's paused trials, for which no turn is left; returns them."""
        late = {wait.uid: f"to its end it needs {wait.needs}" for wait in self._desk.waits if wait.by.startswith(BY)}
        with self._folder.claim():
            left = [(t, f"left paused: {late.get(str(t.number), 'the budget was used up')}") for t in self._paused()]
            return [t.number for t, why in left if self._end(t, why, LEFT)]

    def _evict(self) -> None:
        """Stop the paused trials of this run that are furthest from a turn, beyond as many as keep a checkpoint."""
        keep = None if self._file.checkpoints is None else self._file.checkpoints.keep
        if keep is None or len(paused := self._paused()) <= keep:
            return
        waits = {wait.uid: (place, wait) for place, wait in enumerate(self._desk.waits)}

        def likely(frozen: FrozenTrial) -> tuple[bool, float, str]:
            """The furthest first; without a rank, whoever was touched longest ago."""
            place = waits.get(str(frozen.number))
            touched = attributes.signature(frozen.user_attrs, WORKER).get("since") or ""
            return (place is None, -place[0] if place is not None else 0, touched)

        for frozen in sorted(paused, key=likely)[: len(paused) - keep]:
            _, wait = waits.get(str(frozen.number), (0, None))
            told = "paused longest ago" if wait is None else f"rank {wait.rank} of {wait.of} by {wait.by}"
            why = f"its checkpoint was evicted, for {keep} are kept (checkpoints.keep): {told}"
            if self._end(frozen, why, EVICTED):
                shutil.rmtree(self._folder.checkpoints(frozen.number), ignore_errors=True)

    def _paused(self) -> list[FrozenTrial]:
        return [t for t in self._study.get_trials(deepcopy=False) if ownership.is_paused_in(t, self._run)]

    def _end(self, frozen: FrozenTrial, why: str, kind: str) -> bool:
        if claim(self._study, frozen.number) is None:
            return False
        end_cut(self._study, frozen.number, why, kind)
        return True

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[trial.number]

    def _sign(self, trial: Trial) -> None:
        me = self._signed[trial.number] = ownership.signature(self._folder, self._slot)
        ownership.sign(self._study, trial, me)

    def _claim(self, turn: Turn) -> Claim:
        return Claim(turn.trial, turn.resumed, self._signed.pop(turn.trial.number), pause_at=turn.pause_at)
