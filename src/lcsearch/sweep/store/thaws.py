"""Thaws of a run: stopped trials that are trained on, the likeliest to have won first, until the risk is low enough.

What is wanted stands with the study (`lcsearch finish`) or in the file (`finish:`), and which trial is next follows
from the study, so that whoever is killed over it takes nothing with them. All trials of the sweep's own go first.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from lcsearch.errors import FileProblem, InvalidValue, is_finite_number
from lcsearch.schedulers.optuna import CurvePruner
from lcsearch.schedulers.optuna._finish import add_thaw, cost_of, expect_stopped, next_thaws
from lcsearch.schedulers.optuna._record import Thawed, thawed_of
from lcsearch.schedulers.optuna._storage import claim_waiting
from lcsearch.stopping.finish import FinishPlan, Frozen
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store import ownership
from lcsearch.sweep.store.budget import late_now, limit_now, steps_left, used
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.ownership import Claim
from lcsearch.sweep.store.turns import no_turn_left

FINISH = "lcsearch:finish"
"""The study's user attribute that says what is wanted: a Wanted's fields; None where nothing is any more."""


NONE = "the finish that was asked for has thawed no trial"


class Wanted(NamedTuple):
    """What a finish is to bring.

    Attributes:
        risk: what the P(beat) of all trials that stay stopped may sum to.
        trials: those to thaw instead, whatever the risk.
        since: thaws of this number or a later one that failed are not tried again.
    """

    risk: float
    trials: tuple[int, ...] = ()
    since: int = 0


def wanted(study: optuna.Study, file: SweepFile) -> Wanted | None:
    """What is wanted of the study, or what its file wants at the end; None: nothing."""
    stored: Any = study.user_attrs.get(FINISH)
    risk: Any = stored.get("risk") if isinstance(stored, dict) else None
    if isinstance(stored, dict) and is_finite_number(risk):
        numbers = tuple(n for n in stored.get("trials") or () if isinstance(n, int))
        since = stored.get("since")
        return Wanted(float(risk), numbers, since if isinstance(since, int) else 0)
    return None if file.finish is None else Wanted(file.finish.risk)


def want(study: optuna.Study, wish: Wanted) -> None:
    """Store what is wanted, until :func:`done`."""
    study.set_user_attr(FINISH, wish._asdict())


def done(study: optuna.Study) -> bool:
    """What was stored has been brought, as far as it can be; False: nothing was."""
    if study.user_attrs.get(FINISH) is None:
        return False
    study.set_user_attr(FINISH, None)
    return True


def planned(study: optuna.Study, folder: RunFolder, wish: Wanted) -> tuple[FinishPlan, float, int]:
    """What is to be thawed, of the study as it stands: the plan, its cost in steps, and how many begin anew.

    Raises:
        FileProblem: the study's pruner is none of lcsearch's, or one of the trials wanted cannot be thawed.
    """
    pruner = study.pruner
    if not isinstance(pruner, CurvePruner):
        raise FileProblem("expected a run with `pruner: {kind: curve}`, got another: no risk is known of its stops.")
    policy, snapshot = pruner.session.policy, pruner.snapshot(study)
    try:
        expect_stopped(policy, snapshot, wish.trials, "lcsearch thaw")
        plan = next_thaws(policy, snapshot, study.get_trials(deepcopy=False), wish.risk, wish.trials, since=wish.since)
    except InvalidValue as error:
        raise FileProblem(str(error)) from error
    anew = [one for one in plan.thaw if not folder.has_checkpoint(int(one.uid))]
    return plan, cost_of(snapshot, plan, lambda one: one in anew), len(anew)


def due(study: optuna.Study, folder: RunFolder, file: SweepFile, trials: Sequence[FrozenTrial]) -> tuple[Frozen, ...]:
    """Those to be thawed now; none while the sweep's own trials go on, or are still to be begun."""
    own = [t for t in trials if thawed_of(t) is None]
    if any(not t.state.is_finished() for t in own) or not isinstance(study.pruner, CurvePruner):
        return ()
    counted = ownership.counted(trials)
    over = limit_now(file, folder, counted) is not None or late_now(file, folder, counted)
    over = over or no_turn_left(file, used(file, counted), steps_left(file, folder, counted))
    if not over or (wish := wanted(study, file)) is None:
        return ()
    policy, snapshot = study.pruner.session.policy, study.pruner.snapshot(study)
    return next_thaws(policy, snapshot, trials, wish.risk, wish.trials, since=wish.since).thaw


def left(study: optuna.Study, folder: RunFolder, file: SweepFile, trials: Sequence[FrozenTrial]) -> int:
    """How many thawed trials can be taken now."""
    waiting = sum(thawed_of(t) is not None and t.state == TrialState.WAITING for t in trials)
    return waiting + len(due(study, folder, file, trials))


def take(study: optuna.Study, folder: RunFolder, slot: int, file: SweepFile) -> Claim | None:
    """A thawed trial that waits to be begun, or the next one that is due; None: there is none."""
    with folder.claim():
        trials = study.get_trials(deepcopy=False)
        waiting = [t.number for t in trials if thawed_of(t) is not None and t.state == TrialState.WAITING]
        if not waiting and (found := due(study, folder, file, trials)):
            add_thaw(study, found[0], anew=not folder.has_checkpoint(int(found[0].uid)))
            waiting = [len(study.get_trials(deepcopy=False)) - 1]
        for number in waiting:
            if (trial := claim_waiting(study, number)) is not None:
                me = ownership.signature(folder, slot)
                ownership.sign(study, trial, me)
                frozen = study.get_trials(deepcopy=False)[number]
                return Claim(trial, bool(frozen.intermediate_values), me)
    return None


def bring_checkpoint(
    folder: RunFolder, number: int, thawed: Thawed, amend: Callable[[Path], None] = lambda copy: None
) -> None:
    """Copy the stopped trial's checkpoint folder, whole or not at all, unless the thawed one has its own by now.

    Args:
        folder: of the run.
        number: of the thawed trial.
        thawed: whose checkpoint it goes on from.
        amend: leaves in the copy what is the thawed trial's, too, before the copy is in its place.
    """
    mine, theirs = folder.checkpoints(number), folder.checkpoints(thawed.stopped)
    if thawed.anew or mine.is_dir() or not theirs.is_dir():
        return
    new = Path(f"{mine}.new")
    shutil.rmtree(new, ignore_errors=True)  # of a worker that was killed over it
    shutil.copytree(theirs, new, symlinks=True)
    amend(new)
    os.replace(new, mine)
