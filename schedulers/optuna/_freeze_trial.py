"""A trial that may be paused: an `optuna.Trial` that saves and loads checkpoints, and knows when its turn is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import Trial

from lcsearch.allocation.turns import verdict_at
from lcsearch.checkpoint import Checkpoint
from lcsearch.errors import FileProblem, InvalidValue, in_words
from lcsearch.schedulers.optuna._attempts import StoredReports
from lcsearch.schedulers.optuna._storage import stored
from lcsearch.stopping.verdict import Verdict
from lcsearch.study import trained_by

if TYPE_CHECKING:
    from lcsearch.schedulers.optuna._artifacts import TrialCheckpoints
    from lcsearch.schedulers.optuna._desk import Turn
    from lcsearch.schedulers.optuna._lease import Lease


class Paused(BaseException):
    """Raised by `FreezeThawTrial.save` when the trial's turn is over: let it pass through the objective.

    No `Exception`, so that `except Exception:` in an objective does not hold it up.
    """


class LostTrial(BaseException):
    """Another worker has taken the trial over: this one was away for longer than its lease."""


class FreezeThawTrial(Trial):
    """What the objective of a :class:`FreezeThaw` is given: an `optuna.Trial`, and the five lines of a checkpoint.

    >>> def objective(trial):  # doctest: +SKIP
    ...     model, first = make(trial.suggest_float("lr", 1e-4, 1, log=True)), 0
    ...     if (kept := trial.load()) is not None:
    ...         model.load_state_dict(kept.state["model"])
    ...         first = kept.step + 1
    ...     for step in range(first, 50):
    ...         trial.report(train_one_epoch(model), step)
    ...         if trial.should_prune():
    ...             raise optuna.TrialPruned
    ...         if trial.checkpoint_due:
    ...             trial.save({"model": model.state_dict()}, step)
    ...     return evaluate(model)
    """

    def __init__(
        self,
        turn: Turn,
        lease: Lease,
        checkpoints: TrialCheckpoints,
        horizon: float,
        following: Callable[[Trial], Turn | None],
        spent: Callable[[], bool],
        warn: Callable[[str, str], None],
    ) -> None:
        # The handle as it is: another Trial would make the sampler begin it again.
        self.__dict__.update(turn.trial.__dict__)
        self._pause_at, self._lease, self._checkpoints = turn.pause_at, lease, checkpoints
        self._horizon, self._ask_desk, self._spent, self._warn = horizon, following, spent, warn
        frozen = stored(self.study, turn.trial)
        self._before = set(frozen.intermediate_values)  # steps of earlier turns
        self._reports = StoredReports(self, frozen, super().report)
        self._first = min(self._before, default=None)
        self._last: int | None = None  # the latest step of this turn
        self._here: set[int] = set()  # all of them
        self._again = False  # it was reported before, by a worker that was killed
        self._asked: int | None = None  # the step at which the desk was asked
        self._due = self._stopped = False
        self._next: Turn | None = None

    def report(self, value: float, step: int) -> None:
        """As `optuna.Trial.report`. A step that was reported before the trial was resumed is passed over, where the
        value is the same; another one takes its place, and what came after it counts no more.

        Raises:
            LostTrial: another worker has the trial; let it pass.
        """
        self._check_lease()
        if self._last is not None and self._is_over(self._last):
            self._warn(
                "freeze-thaw save",
                f"trial {self.number} reports step {step}, its turn was over at step {self._pause_at:g}, and it did "
                "not save, so that it runs on until it does: after trial.report, call trial.save(state, step) where "
                "trial.checkpoint_due",
            )
        self._again = self._stopped = False
        if self._before and step not in self._here:
            self._again = not self._reports.report(float(value), int(step))
        else:
            super().report(value, step)
        self._last = int(step)
        self._here.add(self._last)
        self._first = self._last if self._first is None else self._first

    def _check_lease(self) -> None:
        if not self._lease.holds():
            raise LostTrial

    def ended(self, returned: bool) -> None:
        """The trial ends: what only a worker that was killed had reported is none of its curve."""
        if self._before:
            if returned:
                self._reports.attempts.end()
            self._reports.end()

    def should_prune(self) -> bool:
        """As `optuna.Trial.should_prune`; False at a step that was looked at before the trial was resumed, and where
        the pruner would judge what only a worker that was killed had reported.
        """
        can_be_judged = not self._again and self._reports.can_be_judged(self.study.pruner)
        self._stopped = can_be_judged and super().should_prune()
        return self._stopped

    @property
    def checkpoint_due(self) -> bool:
        """Is the trial's turn over, so that it must save now? To be asked after `report` and `should_prune`.

        An allocator that gives it the next turn, too, is asked here; then it goes on without a checkpoint.
        """
        if self._last is None or self._stopped:
            return False
        if self._asked == self._last or self._next is not None:
            return self._due
        self._asked, self._due = self._last, False
        if self._at_end(self._last):
            return False
        if self._spent():
            self._due = True
        elif self._is_over(self._last):
            turn = self._ask_desk(self)
            self._due = turn is None or turn.trial.number != self.number
            if self._due:
                self._next = turn
            elif turn is not None:
                self._pause_at = turn.pause_at
        return self._due

    def _is_over(self, step: int) -> bool:
        return verdict_at(Verdict.CONTINUE, step, self._pause_at, self._horizon) is Verdict.PAUSE

    def _at_end(self, step: int) -> bool:
        return trained_by(step, step if self._first is None else self._first) >= self._horizon

    def save(self, state: Mapping[str, Any], step: int) -> None:
        """Keep `state` (nested dicts, lists and tuples of tensors, arrays, bytes, numbers, text) as of `step`.

        Also before the turn is over, so that less is lost when the worker is killed. A checkpoint that cannot be kept,
        on a full disk, say, is told, and the trial runs on without a pause.

        Raises:
            Paused: the turn is over; let it pass.
            InvalidValue: something in `state` is none of these.
        """
        self._check_lease()
        due = self.checkpoint_due
        try:
            self._checkpoints.save(state, step)
        except InvalidValue:
            raise
        except Exception as error:  # of a disk, or a store
            self._not_kept(error)
            return
        if due:
            raise Paused

    @contextmanager
    def saving(self, step: int, state: Mapping[str, Any] | None = None) -> Iterator[Path]:
        """An empty folder for files of any kind; kept, beside `state`, when the block ends. Raises as :meth:`save`.

        >>> with trial.saving(step) as folder:  # doctest: +SKIP
        ...     model.save_model(folder / "model.json")
        """
        self._check_lease()
        due = self.checkpoint_due
        with self._checkpoints.filling(step, state or {}) as folder:
            yield folder
        try:
            self._checkpoints.send(step)
        except Exception as error:
            self._not_kept(error)
            return
        if due:
            raise Paused

    def _not_kept(self, error: Exception) -> None:
        text = f"trial {self.number} goes on without a pause, its checkpoint cannot be kept: {in_words(error)}"
        self._warn(f"freeze-thaw keep {type(error).__name__}", text)

    def load(self) -> Checkpoint | None:
        """What was saved last: `.state`, `.step` and `.files`; None where the trial is to begin at its first step.

        A checkpoint that is gone or damaged is told and passed over: the trial trains again what it had trained.
        """
        try:
            return self._checkpoints.load()
        except (FileProblem, ArtifactNotFound, OSError) as error:
            text = f"trial {self.number} begins anew, its checkpoint cannot be read: {in_words(error)}"
            self._warn(f"freeze-thaw load {self.number}", text)
            return None

    def following(self) -> Turn | None:
        """The next turn of the worker, where one was given when this one was over; for the driver."""
        return self._next
