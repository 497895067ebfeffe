"""The one module that touches what Optuna keeps private (checked with optuna 5.0.0)."""

from __future__ import annotations

import copy
import weakref
from collections import defaultdict
from collections.abc import Collection, Container, Hashable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.storages._heartbeat import is_heartbeat_enabled
from optuna.trial import FrozenTrial, TrialState, create_trial

from lcsearch.errors import InvalidValue
from lcsearch.schedulers.optuna._process_identity import this_process
from lcsearch.schedulers.optuna._record import (
    ANEW,
    AUDIT,
    CLAIMED,
    CUT,
    DEAD,
    MARK,
    PAUSED,
    REASON,
    WENT_ON,
    Record,
    curve_of,
    cut_of,
    is_paused,
    n_pauses,
    thawed_of,
    without_dead,
)
from lcsearch.stopping.risk import StopRecord

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import Trial
    from sqlalchemy.orm import Session

ALLOCATION = "lcsearch:allocation"
"""The study's system attribute that holds an allocator's state, see _desk.py."""
_LOCKED_TRIES = 20


def trial_id(trial: FrozenTrial) -> int:
    """The storage's id of a trial, which is not its number."""
    return trial._trial_id


def study_key(study: Study) -> tuple[int, int, str]:
    """Tells studies apart inside one process, as well as it can be done.

    The id alone is 0 in every in-memory storage, and an object's id may be used again: whoever caches by this key must
    also check that the trials are the ones he knows.
    """
    return id(study._storage), study._study_id, study.study_name


def counted_as(study: Study) -> tuple[Hashable, int, str]:
    """By what one process counts a study's looks: the same for every handle of a study in a database or a journal file,
    and unlike :func:`study_key` never that of a study in another storage that has ended meanwhile.
    """
    storage = getattr(study._storage, "_backend", study._storage)  # what Optuna wraps anew for every handle
    place = getattr(storage, "url", getattr(storage, "_file_path", None))
    shared = isinstance(place, str) and place != "sqlite://" and ":memory:" not in place
    return place if shared else weakref.ref(storage), study._study_id, study.study_name


def adopt(study: Study, number: int) -> Trial:
    """The live handle of a RUNNING trial that another process left behind.

    Raises:
        KeyError: the study has no trial of that number.
    """
    return _handle(study, study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number))


def _handle(study: Study, of: int) -> Trial:
    from optuna.trial import Trial

    study._thread_local.cached_all_trials = None  # as Study.ask does: samplers read it
    return Trial(study, of)


def begin(
    study: Study,
    proposal: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any] | None = None,
    trials: Iterable[FrozenTrial] | None = None,
) -> Trial:
    """Begin a new trial: the oldest that the user has enqueued, else one of the sampler's.

    `Study.ask` would take any WAITING trial, a paused one, too.

    Args:
        study: where.
        proposal: its parameters, as for `Study.enqueue_trial`; no enqueued trial is looked for then.
        attrs: system attributes that it has from the moment at which it runs.
        trials: among which those that are enqueued are; None reads them.
    """
    storage, attrs = study._storage, {CLAIMED: {**this_process(), "pauses": 0, "of": None}, **(attrs or {})}
    if trials is None and proposal is None:
        trials = storage.get_all_trials(study._study_id, deepcopy=False, states=(TrialState.WAITING,))
    for frozen in trials or () if proposal is None else ():
        if frozen.state == TrialState.WAITING and not is_paused(frozen) and thawed_of(frozen) is None:
            for key, value in attrs.items():
                storage.set_trial_system_attr(frozen._trial_id, key, value)
            if _claimed(storage, frozen._trial_id):
                return _handle(study, frozen._trial_id)
    if proposal is not None:
        attrs["fixed_params"] = dict(proposal)
    template = create_trial(state=TrialState.RUNNING, system_attrs=attrs)
    return _handle(study, storage.create_new_trial(study._study_id, template_trial=template))


def pause(study: Study, trial: Trial | FrozenTrial) -> bool:
    """Make a RUNNING trial a paused one: WAITING, with its parameters and its curve, until it is claimed.

    Samplers, `best_trial` and `Study.ask` of others know it as WAITING; :func:`~lcsearch.schedulers.optuna.as_trial`
    as PAUSED, by a system attribute.

    Returns:
        False where it was cut when its turn was over (see _desk.py): it is PRUNED now, and will not go on.
    """
    storage = study._storage
    frozen = storage.get_trial(trial._trial_id)
    why = cut_of(frozen)
    if why is not None:
        end_cut(study, frozen.number, why)
        return False
    # first: a WAITING trial without it is one to be begun
    stored = {"pause": n_pauses(frozen) + 1, "step": without_dead(frozen).last_step, "of": frozen.number}
    storage.set_trial_system_attr(trial._trial_id, PAUSED, stored)
    storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
    return True


def end_cut(study: Study, number: int, why: str, kind: str = "cut") -> None:
    """End a RUNNING trial that goes on no more, with the reason where people read it.

    Args:
        study: whose trial it is.
        number: which.
        why: in words.
        kind: "cut" by an allocator, or what else has ended it, which `why` tells by itself.
    """
    trial = adopt(study, number)
    trial.set_user_attr(REASON, f"cut: {why}" if kind == "cut" else why)
    store_with(study, trial, CUT, {"why": why, "of": number, "kind": kind})
    study.tell(number, state=TrialState.PRUNED)


def claim(study: Study, number: int) -> Trial | None:
    """Make a paused trial RUNNING, atomically: of several that try, one gets its handle and the others None.

    Behind a gRPC proxy with sqlite the server does it, which is not atomic: hold a lock there.
    """
    of = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    frozen = study._storage.get_trial(of)
    if not is_paused(frozen):
        return None
    return _claim(study, of, {**this_process(), "pauses": n_pauses(frozen), "of": number})


def claim_waiting(study: Study, number: int) -> Trial | None:
    """Make a trial that waits to be begun RUNNING, as :func:`claim` does a paused one; None: another was faster."""
    of = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    return _claim(study, of, {**this_process(), "pauses": 0, "of": number})


def _claim(study: Study, of: int, mine: Mapping[str, Any]) -> Trial | None:
    # first: who is killed in between is known by it; one that claims in vain may overwrite it, and a lease follows
    try:
        study._storage.set_trial_system_attr(of, CLAIMED, mine)
    except UpdateFinishedTrialError:
        return None
    if not _claimed(study._storage, of):
        return None
    study._storage.set_trial_system_attr(of, CLAIMED, mine)  # whoever claimed in vain may have written over it
    return _handle(study, of)


def _claimed(storage: BaseStorage, of: int) -> bool:
    """WAITING -> RUNNING, once; False for whoever comes later."""
    backend = getattr(storage, "_backend", storage)
    if getattr(getattr(backend, "engine", None), "name", "") == "sqlite":
        return _claimed_in_sqlite(storage, backend, of)
    replayed = getattr(storage, "_replay_result", None)
    if replayed is not None:  # a journal takes a trial that this thread once had for its own again
        replayed._worker_id_to_owned_trial_id.pop(replayed.worker_id, None)
    try:
        return storage.set_trial_state_values(of, TrialState.RUNNING)
    except UpdateFinishedTrialError:
        return False


def _claimed_in_sqlite(storage: BaseStorage, backend: Any, of: int) -> bool:
    """Optuna reads the state, then writes it, and sqlite locks no rows: two would be told that the trial is theirs."""
    from optuna.storages._rdb import models
    from sqlalchemy import update
    from sqlalchemy.exc import OperationalError

    mine = update(models.TrialModel).where(
        models.TrialModel.trial_id == of, models.TrialModel.state == TrialState.WAITING
    )
    mine = mine.values(state=TrialState.RUNNING, datetime_start=datetime.now())
    for _ in range(_LOCKED_TRIES):
        try:
            with backend.engine.begin() as connection:
                return bool(connection.execute(mine).rowcount)
        except OperationalError as error:  # locked for longer than sqlite waits
            locked = error
            storage.get_trial(of)  # a storage with patience has it here
    raise StorageInternalError(f"trial {of} could not be claimed, the database stayed locked") from locked


@contextmanager
def optimizing(study: Study) -> Iterator[None]:
    """A block in which `study.stop()` may be called, as inside of `study.optimize`: samplers do when a trial ends."""
    local = study._thread_local
    before, local.in_optimize_loop = local.in_optimize_loop, True
    try:
        yield
    finally:
        local.in_optimize_loop = before


def take_stop(study: Study) -> bool:
    """Was `study.stop()` called? Asked again, it was not."""
    asked, study._stop_flag = study._stop_flag, False
    return asked


def file_of(study: Study) -> Path | None:
    """The file that a study is kept in; None for one in memory or on a server."""
    backend = getattr(study._storage, "_backend", study._storage)
    engine, path = getattr(backend, "engine", None), getattr(backend, "_file_path", None)
    if engine is not None and engine.name == "sqlite":
        path = engine.url.database
    return Path(path).absolute() if path and path != ":memory:" and not path.startswith("file:") else None


def is_in_memory(study: Study) -> bool:
    """Does the study live in this process alone?"""
    backend = getattr(study._storage, "_backend", study._storage)
    engine = getattr(backend, "engine", None)
    in_sqlite = engine is not None and engine.name == "sqlite" and file_of(study) is None
    return in_sqlite or isinstance(backend, InMemoryStorage)


def allocation_of(study: Study) -> Any:
    """What is stored of a study's allocator; None before the first allocation."""
    return study._storage.get_study_system_attrs(study._study_id).get(ALLOCATION)


def store_allocation(study: Study, stored: Any) -> None:
    """Store what `allocation_of` reads."""
    study._storage.set_study_system_attr(study._study_id, ALLOCATION, stored)


def store_with(study: Study, trial: Trial | FrozenTrial, key: str, value: Any) -> None:
    """Store a system attribute with a trial that has not ended."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def stored(study: Study, trial: Trial | FrozenTrial) -> FrozenTrial:
    """The trial as the storage has it now."""
    return study._storage.get_trial(trial._trial_id)


def write_stop(study: Study, trial: FrozenTrial | Trial, stop: StopRecord, reason: str) -> None:
    """Store a stop with its trial, which must still be RUNNING: the stop for us, the reason for people to read.

    The stop is a system attribute (dashboards do not show it), the reason a user attribute (they do).

    Raises:
        InvalidValue: the record would not read back; nothing was stored.
    """
    known = trial if isinstance(trial, FrozenTrial) else study._storage.get_trial(trial._trial_id)
    record = Record.of(stop, known.number, curve_of(known))
    text = record.to_json()
    back = Record.parse(text)
    if back is None or (back.number, back.last, back.digest) != (record.number, record.last, record.digest):
        raise InvalidValue("a record that reads back", text[:80], "lcsearch:mark")
    _write(study, trial, text, reason)


def write_audit(study: Study, trial: FrozenTrial | Trial, stop: StopRecord) -> None:
    """Store a stop that is not carried out with its trial, which goes on; the first one counts."""
    known = trial if isinstance(trial, FrozenTrial) else study._storage.get_trial(trial._trial_id)
    store_with(study, trial, AUDIT, Record.of(stop, known.number, curve_of(known)).to_json())


def withdraw_stop(study: Study, trial: FrozenTrial | Trial, made: bool = True) -> None:
    """Take back a stop that was not carried out: an attribute cannot be removed, so the reason becomes empty.

    Args:
        study: whose trial it is.
        trial: whose stop it was.
        made: the trial was told to stop, so a record stays that it did not; else the record becomes empty too.
    """
    stored = study._storage.get_trial_system_attrs(trial._trial_id).get(MARK)
    record = Record.parse(stored)
    gone = replace(record, withdrawn=True).to_json() if record is not None and made else ""
    _write(study, trial, None if record is None else gone, "")


def _write(study: Study, trial: FrozenTrial | Trial, stored: str | None, reason: str) -> None:
    study._storage.set_trial_user_attr(trial._trial_id, REASON, reason)
    if stored is not None:  # last: where the reason could not be written there is no record either
        study._storage.set_trial_system_attr(trial._trial_id, MARK, stored)
    # as Trial.set_user_attr does: what this process knows of the trial is not read again
    (trial if isinstance(trial, FrozenTrial) else trial._cached_frozen_trial).user_attrs[REASON] = reason


def begin_anew(study: Study, trial: FrozenTrial, after: int) -> None:
    """Store that a trial's values up to a step are those of the attempt that it repeats from the start."""
    study._storage.set_trial_system_attr(trial._trial_id, ANEW, after)


def go_on(study: Study, trial: FrozenTrial, after: int | None) -> None:
    """Store that a trial goes on from the step at which the attempt that it repeats stood; None: that it does not."""
    study._storage.set_trial_system_attr(trial._trial_id, WENT_ON, {"after": after, "of": trial.number})


def stale(study: Study) -> set[int]:
    """Numbers of the running trials whose heartbeat the storage misses; none where it keeps no heartbeats."""
    storage = study._storage
    if not is_heartbeat_enabled(storage):
        return set()
    return {storage.get_trial_number_from_id(i) for i in storage._get_stale_trial_ids(study._study_id)}  # type: ignore[attr-defined]


def report_again(trial: Trial, step: int, value: float) -> None:
    """Report a step anew, in the place of what was reported there; `trial.report` would pass it over with a warning."""
    trial.storage.set_trial_intermediate_value(trial._trial_id, step, float(value))
    trial._cached_frozen_trial.intermediate_values[step] = float(value)  # by which pruners judge it


def write_dead(trial: Trial, reported: Collection[int], dead: Set[int]) -> None:
    """Store which of the steps that a trial has in the storage are a dead attempt's alone, see DEAD.

    Args:
        trial: which.
        reported: all that it has there.
        dead: those of them that count no more.
    """
    runs = groupby(sorted(reported), key=dead.__contains__)
    spans = [(steps[0], steps[-1]) for is_dead, run in runs if is_dead and (steps := [*run])]
    trial.storage.set_trial_system_attr(trial._trial_id, DEAD, {"steps": spans, "of": trial.number})


def whole(study: Study) -> Study:
    """The study itself, where Optuna hands out the part of it that is a bracket of its HyperbandPruner."""
    found: Study = getattr(study, "_study", study)
    return found


class WaitingKnown(RDBStorage):
    """Optuna's storage on SQL, which reads all that has not ended anew whenever all trials are asked for. Of those that
    wait, here only the ones are read that have changed, whoever changed them: the database says which.
    """

    _waiting: Mapping[int, tuple[Any, FrozenTrial]] = MappingProxyType({})
    """id -> its marks, and the trial that was read after them."""

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """As Optuna's: of a study the trials of these ids and all of greater ones, by their ids."""
        if states is not None or not included_trial_ids:
            return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        from optuna.storages._rdb import models
        from optuna.storages._rdb.storage import _create_scoped_session
        from sqlalchemy import select

        trial = models.TrialModel
        later = select(trial.trial_id).where(trial.study_id == study_id, trial.trial_id > trial_id_greater_than)
        with _create_scoped_session(self.scoped_session) as session:
            asked = included_trial_ids.union(session.execute(later).scalars())
            marks = _marks(session, study_id)  # before the trials: what changes in between is read again
        kept = {of: known for of in asked & marks.keys() if (known := self._waiting.get(of)) and known[0] == marks[of]}
        read = super()._get_trials(study_id, None, asked - kept.keys(), max(asked))
        fresh = {of: (marks[of], t) for t in read if (of := trial_id(t)) in marks}
        self._waiting = kept | {of: known for of, known in fresh.items() if known[1].state is TrialState.WAITING}
        return sorted([*read, *(known for _, known in kept.values())], key=trial_id)


def _marks(session: Session, study_id: int) -> dict[int, list[Any]]:
    """Of every WAITING trial of a study: id -> what is another when anything of it has changed.

    Its attributes word for word; of its reports of each kind (finite, infinite, NaN) their number, the sum of values
    and that of values by steps. Parameters are drawn before a trial waits with them, and the count of its pauses is an
    attribute.
    """
    from optuna.storages._rdb import models
    from sqlalchemy import func, select

    found: dict[int, list[Any]] = defaultdict(list)
    trial, report = models.TrialModel, models.TrialIntermediateValueModel
    waits = (trial.study_id == study_id, trial.state == TrialState.WAITING)
    value, kind_of = report.intermediate_value, report.intermediate_value_type
    sums = func.count(report.step), func.sum(value), func.sum(value * (report.step + 1))
    reports = select(trial.trial_id, kind_of, *sums).outerjoin(report, report.trial_id == trial.trial_id)
    groups = reports.where(*waits).group_by(trial.trial_id, kind_of).order_by(trial.trial_id, kind_of)
    for of, *counts in session.execute(groups):
        found[of].append(counts)
    for kind in (models.TrialSystemAttributeModel, models.TrialUserAttributeModel):
        said = select(kind.trial_id, kind.key, kind.value_json).join(trial, trial.trial_id == kind.trial_id)
        for of, *words in session.execute(said.where(*waits).order_by(kind.trial_id, kind.key)):
            found[of].append(words)
    return found


class Shown:
    """A study as a sampler is shown it: some trials that have not ended by themselves stand as COMPLETE, with a value
    that they are forecast to reach. All else is the study's own.

    Args:
        study: the study.
        values: number of a trial -> its value.
    """

    def __init__(self, study: Study, values: Mapping[int, float]) -> None:
        self._real, self._values = study, values

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        found = [self._shown(trial) for trial in self._real._get_trials(deepcopy=False, use_cache=use_cache)]
        found = [trial for trial in found if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """As the study's."""
        return self._get_trials(deepcopy, states)

    @property
    def trials(self) -> list[FrozenTrial]:
        """As the study's."""
        return self._get_trials()

    def _shown(self, trial: FrozenTrial) -> FrozenTrial:
        value = self._values.get(trial.number)
        if value is None or trial.state in (TrialState.COMPLETE, TrialState.FAIL):
            return trial
        shown = copy.copy(trial)
        shown.state, shown.values = TrialState.COMPLETE, [value]
        return shown
