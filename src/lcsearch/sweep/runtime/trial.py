"""One trial, trained and told of: what every worker does with it, on this machine or on Ray."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

import lcsearch.errors
from lcsearch.errors import EnvironmentProblem, FileProblem, LcsearchError
from lcsearch.schedulers.optuna import REASON, SCHEDULE, as_trial, withdraw_stop
from lcsearch.schedulers.optuna._attempts import StoredReports
from lcsearch.schedulers.optuna._record import thawed_of
from lcsearch.schedulers.optuna._storage import stored
from lcsearch.session.decision_log import DecisionLog, read_log
from lcsearch.study.attempts import Attempts
from lcsearch.sweep.objective.context import Context, Interrupted, Lost, Paused, Stopped, load_objective
from lcsearch.sweep.objective.program import CommandFailed, command_objective
from lcsearch.sweep.runtime.exits import NO_REPORT
from lcsearch.sweep.spec.load import Sweep
from lcsearch.sweep.spec.space import planned_schedule, suggest
from lcsearch.sweep.store import ownership
from lcsearch.sweep.store.budget import OVERTAKEN, TRAINED
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.heartbeat import here
from lcsearch.sweep.store.thaws import bring_checkpoint
from lcsearch.sweep.store.turns import Turns

_ERROR_LENGTH = 500


class StudyReporter:
    """An Optuna trial whose pruner may raise.

    Args:
        trial: where reports go.
        held: is the trial still ours?
        frozen: the trial as an earlier attempt has left it; None: it has not begun.
    """

    def __init__(
        self, trial: Trial, held: Callable[[], bool] = lambda: True, frozen: FrozenTrial | None = None
    ) -> None:
        self._trial, self._held = trial, held
        self._reports = StoredReports(trial, frozen, trial.report)

    @property
    def attempts(self) -> Attempts:
        """What counts of the reports."""
        return self._reports.attempts

    def report(self, value: float, step: int) -> None:
        """Write one report. What a dead attempt had reported otherwise there or later counts no more.

        Raises:
            EnvironmentProblem: the storage does not take it.
            Lost: another machine has the trial.
        """
        if not self._held():
            raise Lost(f"another machine has taken the trial; left at step {step}")
        self._reports.report(value, step)

    def end(self, reported: Mapping[int, float] | None = None) -> None:
        """The trial has ended with what it `reported`, by its attempts where that is None."""
        self._reports.end(reported)

    def should_prune(self) -> bool:
        """The pruner's word; False when it raises, or would judge a dead attempt."""
        try:
            return self._reports.can_be_judged(self._trial.study.pruner) and self._trial.should_prune()
        except Exception:  # fail open: a pruner's fault must not cost a trial
            traceback.print_exc()
            return False


def run_trial(
    taken: ownership.Claim,
    sweep: Sweep,
    folder: RunFolder,
    objective: Callable[[Context], object],
    device: str,
    interrupted: Callable[[], bool],
    heard: Callable[[], None] = lambda: None,
    turns: Turns | None = None,
) -> TrialState:
    """Train one trial and tell how it ended, or where it was left.

    RUNNING: to be adopted, or it is another machine's now. WAITING: its turn is over, by `turns`, and it is paused.
    """
    trial = taken.trial
    study, file = trial.study, sweep.file
    shared = file.backend.storage is not None  # nobody but our launcher takes a trial of the folder's own study

    def held() -> bool:
        return not shared or ownership.still_has(study, taken)

    frozen = stored(study, trial)
    thawed = thawed_of(frozen)
    if thawed is not None:
        bring_checkpoint(folder, trial.number, thawed)
    checkpoints = folder.checkpoints(trial.number)
    checkpoints.mkdir(parents=True, exist_ok=True)
    reporter = StudyReporter(trial, held, frozen)
    reported = dict(reporter.attempts.values)
    if taken.adopted and reported and max(reported) < file.max_steps:
        # its worker may have died between a report and its look, or between a stop and its end in the study
        stopped = (
            "stop" in as_trial(frozen).stop_records if file.pruner.kind == "curve" else REASON in frozen.user_attrs
        )
        if stopped or reporter.should_prune():
            _say_why(trial, sweep, reported)
            taken.end(state=TrialState.PRUNED)
            return TrialState.PRUNED
        died = "the worker died before the stop was carried out, and a look at the resumed trial let it go on"
        withdraw_stops(folder, trial.number, died)
    context: Context | None = None
    before = frozen.intermediate_values

    def came(step: int, at: float) -> None:
        heard()
        if step not in before:  # a replayed step was not trained again
            taken.pacer.came(step, at)

    try:
        params = suggest(trial, file.space)
        schedule = planned_schedule(file, params)
        if schedule is not None:
            trial.set_user_attr(SCHEDULE, asdict(schedule))
        context = Context(
            reporter,
            params=params,
            number=trial.number,
            seeded_as=None if thawed is None else thawed.stopped,
            goal=file.target,
            seed=file.seed,
            checkpoint_dir=checkpoints,
            device=device,
            schedule=schedule,
            reported=reported,
            interrupted=interrupted,
            heard=came,
            pause_at=taken.pause_at,
            turn_over=(lambda: None) if turns is None else (lambda: turns.turn_over(taken)),
        )
        context.returned(objective(context))
        ended: BaseException | None = context.ended
    except (EnvironmentProblem, KeyboardInterrupt):
        raise
    except (Exception, SystemExit) as error:
        # what ended the trial is what report() said, even where the objective raised something after it
        ended = (context.ended if context is not None else None) or error
    if context is not None and context.overtaken and held():
        take_back(study, trial, folder, curve=file.pruner.kind == "curve")
    if isinstance(ended, Interrupted) or not held():
        if isinstance(ended, Interrupted) and context is not None and ownership.REPLAYED in context.noted and held():
            taken.note({ownership.REPLAYED: context.noted[ownership.REPLAYED]})
        return TrialState.RUNNING
    taken.noted.update(context.noted if context is not None else {})
    if isinstance(ended, Paused) and turns is not None:
        return turns.pause(taken)
    if context is not None:
        reporter.end(context.reported)
    if isinstance(ended, (Stopped, optuna.TrialPruned)):
        _say_why(trial, sweep, context.reported if context is not None else {})
        if context is not None and context.ahead is not None:
            trial.set_user_attr(TRAINED, min(context.ahead, file.max_steps))
        taken.end(state=TrialState.PRUNED)
        return TrialState.PRUNED
    value = context.judged() if context is not None else None
    if ended is None and value is None:
        ended = FileProblem((context.all_beyond if context is not None else "") or NO_REPORT)
    if ended is not None:
        print_place(ended)
        trial.set_user_attr(ownership.ERROR, describe(ended, sweep.path.parent))
        taken.end(state=TrialState.FAIL)
        return TrialState.FAIL
    taken.end(value)
    return TrialState.COMPLETE


def take_back(study: optuna.Study, trial: Trial, folder: RunFolder, curve: bool) -> None:
    """A stop came too late: the trial and its record (the curve pruner's; others keep none) say so, and the log."""
    trial.set_user_attr(OVERTAKEN, 1)
    if curve:
        withdraw_stop(study, trial)
    withdraw_stops(folder, trial.number, "the program had come to its end before the stop could reach it")


def withdraw_stops(folder: RunFolder, number: int, why: str) -> None:
    """Write into the decision log that a stop of the trial was never carried out, and why."""
    if not folder.decisions.is_dir():
        return
    latest = None
    for record in read_log(folder.decisions):
        if record.get("trial") == str(number) and record.get("verdict"):
            latest = record
    if latest is not None and latest["verdict"] == "STOP":
        changed = {"verdict": "CONTINUE", "reason": "SUPERSEDED", "detail": why, "time": time.time()}
        changed |= dict.fromkeys(("now", "before", "latency"))  # it is no look of its own
        DecisionLog(folder.decisions).append({**latest, **changed, "host": here(), "pid": os.getpid()})


def _say_why(trial: Trial, sweep: Sweep, reported: Mapping[int, float]) -> None:
    """Optuna's own pruners keep no reason; the curve pruner has written its own."""
    if sweep.file.pruner.kind == "curve" or not reported:
        return
    step = max(reported)
    text = f"{sweep.file.pruner.kind} pruner at {sweep.file.step} {step}: {reported[step]:.6g}"
    trial.set_user_attr(REASON, text)


def print_place(error: BaseException) -> None:
    """The traceback, where it tells of the objective: not that of a program, which has told of its failure itself."""
    if error.__traceback__ is not None and not isinstance(error, CommandFailed):
        traceback.print_exception(error)


def describe(error: BaseException, folder: Path) -> str:
    """One line: the type, the message, and the place in the user's own files, which stand in `folder`.

    An error that came by none of them is given the place where it was raised, unless it is one of lcsearch's.
    """
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    own = [f for f in frames if _is_own(Path(f.filename), folder)]
    frames = own or ([] if isinstance(error, LcsearchError) else frames)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    text = " ".join(str(error).split())
    name = "" if isinstance(error, LcsearchError) else f"{type(error).__name__}: "
    return f"{name}{text[:_ERROR_LENGTH]}{place}"


def _is_own(file: Path, folder: Path) -> bool:
    """Under `folder`, but neither lcsearch's nor of a virtual environment that lies there."""
    if file.is_relative_to(Path(lcsearch.errors.__file__).parent):
        return False
    return file.is_relative_to(folder) and not {"site-packages", "dist-packages"} & set(file.parts)


def load_any(sweep: Sweep) -> Callable[[Context], object]:
    """The sweep's objective, function or program.

    Raises:
        FileProblem: see :func:`load_objective`.
    """
    if sweep.file.objective.python is not None:
        return load_objective(sweep.file.objective.python, sweep.path.parent)
    return command_objective(sweep.file, sweep.path.parent)
