"""What a sweep may spend and what it has spent: trials, steps, seconds, money; and when more of it gains too little.

The seconds are wall clock, from the begin to the end of each launch of one run folder, all launches together; what lies
between launches does not count. Every place that shows wall clock shows these. They stand in the folder's clock.json,
which the launcher rewrites about once a second: a launcher that is killed loses a second of the account, not the
account.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from optuna.trial import FrozenTrial, TrialState

from lcsearch import files
from lcsearch.allocation.contract import Time
from lcsearch.allocation.next_trials import gain_of_next
from lcsearch.allocation.paces import of_new, predicted
from lcsearch.curves import Curve
from lcsearch.errors import is_finite_number
from lcsearch.files import loads, write_atomically
from lcsearch.schedulers.optuna import is_paused
from lcsearch.schedulers.optuna._record import paid_by, thawed_of, without_dead
from lcsearch.study import judged_at_end, steps_trained, trained_by
from lcsearch.sweep.spec.model import Budget, SweepFile
from lcsearch.sweep.store import attributes
from lcsearch.sweep.store.attributes import WORKER
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.pace import Pace, pace_in, settled, usual

_LONGEST = 1 << 24  # bytes of clock.json

Limit = Literal["trials", "steps", "seconds", "money", "stop_when"]

_SLACK_S = 10.0  # a worker whose launcher was killed may go on for a while after the last tick

AGAIN = "lcsearch:again"
"""A trial's user attribute that names the failed trial which it runs again."""


TRAINED = "lcsearch:trained"
"""A stopped trial's user attribute that names the step to which its program had trained when its stop came."""

OVERTAKEN = "lcsearch:overtaken"
"""A trial's user attribute: how many stops of it were taken back, because its program was at its end by then."""


SECONDS = "lcsearch:seconds"
"""What a trial's earlier workers took for it; its present one counts from the `since` of its signature, in UTC."""

TOOK = "lcsearch:took"
"""What its last worker took for it, by that worker's own clock: `since` as in the signature, `seconds`, and what a step
took (see pace.py)."""


def replacements(trials: Iterable[FrozenTrial]) -> dict[int, int]:
    """Failed trial -> the trial that runs it again, and counts in its place."""
    named = ((attributes.number(trial.user_attrs, AGAIN), trial.number) for trial in trials)
    return {failed: again for failed, again in named if failed is not None}


def thawed_as(trials: Iterable[FrozenTrial]) -> dict[int, int]:
    """Stopped trial -> the trial that goes on with it, and counts in its place; not one that failed."""
    found = ((thawed_of(trial), trial) for trial in trials)
    return {how.stopped: trial.number for how, trial in found if how is not None and trial.state not in _FAILED}


_FAILED = (TrialState.FAIL, TrialState.PRUNED)


def standing(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those that count in the budget: without failed ones that are run again, stopped ones that are thawed, and thaws
    that failed.
    """
    replaced = {*replacements(trials), *thawed_as(trials)}
    stand = (trial for trial in trials if trial.number not in replaced)
    return [trial for trial in stand if thawed_of(trial) is None or trial.state not in _FAILED]


def inherited(trials: Sequence[FrozenTrial], horizon: int) -> dict[int, int]:
    """Thawed trial -> steps on its curve that the stopped one trained before it."""
    numbered = {trial.number: trial for trial in trials}
    found = ((trial, thawed_of(trial)) for trial in trials)
    pairs = ((trial, numbered.get(how.stopped)) for trial, how in found if how is not None and not how.anew)
    return {
        trial.number: min(steps_of(trial, horizon), steps_of(before, horizon))
        for trial, before in pairs
        if before is not None
    }


def steps_of(trial: FrozenTrial, horizon: int) -> int:
    """Steps trained, on the user's axis: by the reports, or as far as a stopped trial's program had come."""
    steps = sorted(trial.intermediate_values)
    if not steps:
        return 0
    reported = steps_trained(steps, horizon, complete=trial.state == TrialState.COMPLETE)
    beyond = trained_by(attributes.number(trial.user_attrs, TRAINED) or 0, steps[0])
    return min(horizon, int(max(reported, beyond)))


def paid(file: SweepFile, trials: Iterable[FrozenTrial]) -> float:
    """What the trials' pauses and resumes have cost, in steps, by the file's prices."""
    prices = file.prices
    return math.fsum(paid_by(trial, prices) for trial in trials) if any(prices) else 0.0


def used(file: SweepFile, trials: Sequence[FrozenTrial]) -> float:
    """What of `budget.steps` is used: steps trained, and what pauses and resumes have cost."""
    return trained(file, trials) + paid(file, trials)


def trained(file: SweepFile, trials: Sequence[FrozenTrial]) -> int:
    """Steps trained by all of them, each once."""
    return sum(own_steps(trials, file.max_steps).values())


def own_steps(trials: Sequence[FrozenTrial], horizon: int) -> dict[int, int]:
    """Trial -> steps that it trained itself, without those that a thawed one inherits."""
    before = inherited(trials, horizon)
    return {trial.number: steps_of(trial, horizon) - before.get(trial.number, 0) for trial in trials}


def seconds_of(frozen: FrozenTrial, now: datetime | None) -> float:
    """What a trial has taken of its workers' time, the time without a worker left out.

    A worker that ended its trial has measured it. Otherwise what its present worker has done so far is read off two
    clocks that may be two machines': in UTC.

    Args:
        frozen: the trial.
        now: the end of what its present worker has done so far; None leaves the present worker of a trial out.
    """
    signed = attributes.signature(frozen.user_attrs, WORKER).get("since")
    earlier = attributes.seconds(frozen.user_attrs, SECONDS)
    took = attributes.took(frozen.user_attrs, TOOK)
    if took is not None and took.get("since") == signed:
        return earlier + float(took["seconds"])
    since = datetime.fromisoformat(signed) if signed is not None else None
    if since is None and SECONDS not in frozen.user_attrs and frozen.state.is_finished():
        since = frozen.datetime_start
    until = frozen.datetime_complete or now
    if since is None or until is None:
        return earlier
    # times without a zone (by Optuna, by an earlier lcsearch) are taken to be of this machine's
    return earlier + max((until.astimezone() - since.astimezone()).total_seconds(), 0.0)


class Spent(NamedTuple):
    """One trial that has begun.

    Attributes:
        loss: its judged loss so far; inf where it has no value, or has failed.
        steps: trained.
        seconds: of its workers' time.
    """

    loss: float
    steps: float
    seconds: float


def next_gain(file: SweepFile, begun: Sequence[Spent]) -> float | None:
    """About what is gained at most by as much more as `budget.stop_when` names, at the mean cost of those that have
    begun, in the metric's units; None where the file does not ask, inf where it is not known yet.

    Args:
        file: the sweep's.
        begun: its trials that have begun, by number.
    """
    asked = file.budget.stop_when
    if asked is None:
        return None
    if asked.trials is not None:
        k = float(asked.trials)
    elif asked.steps is not None:
        k = len(begun) * asked.steps / max(math.fsum(one.steps for one in begun), 1.0)
    else:
        worked = math.fsum(one.seconds for one in begun)
        k = len(begun) * (asked.seconds or 0.0) * file.backend.workers.n / worked if worked else math.inf
    return gain_of_next([one.loss for one in begun], k) if 0 < k < math.inf else math.inf


def spent_by(file: SweepFile, trials: Iterable[FrozenTrial], now: datetime | None) -> list[Spent]:
    """What those of `trials` that have begun came to; the seconds of running ones are counted until `now`."""
    found = []
    for trial in trials:
        values = without_dead(trial).intermediate_values
        last = next(reversed(values.items()), None)
        key = (trial.number, trial.datetime_start, trial.datetime_complete, last, file.max_steps, file.target)
        if trial.state.is_finished() and key in _SPENT:
            found.append(_SPENT[key])
            continue
        reached = judged_at_end(Curve.of(dict(sorted(values.items()))), file.target)
        known = reached is not None and trial.state != TrialState.FAIL
        loss = file.target.sign * reached[0] if known and reached is not None else math.inf
        found.append(Spent(loss, steps_of(trial, file.max_steps), seconds_of(trial, now)))
        if trial.state.is_finished() and trial.datetime_complete is not None:
            if len(_SPENT) > _KEPT:
                _SPENT.clear()
            _SPENT[key] = found[-1]
    return found


_SPENT: dict[tuple[object, ...], Spent] = {}
"""A memo of trials that have ended: whoever allocates asks again each time."""
_KEPT = 100_000


def ended_by(
    budget: Budget, trials: int, steps: float, seconds: float, money: float = 0.0, gain: float | None = None
) -> Limit | None:
    """The limit that is reached, so that no trial is begun any more; None while none is.

    Args:
        budget: the file's.
        trials: begun, without failed ones that are run again.
        steps: spent by all of them, and what their pauses and resumes have cost.
        seconds: of wall clock, over all launches.
        money: what workers have cost.
        gain: see :func:`next_gain`.
    """
    if trials >= budget.trials:
        return "trials"
    if budget.steps is not None and steps >= budget.steps:
        return "steps"
    if budget.seconds is not None and seconds >= budget.seconds:
        return "seconds"
    if budget.money is not None and money >= budget.money:
        return "money"
    if budget.stop_when is not None and gain is not None and gain < budget.stop_when.gain:
        return "stop_when"
    return None


def limit_now(file: SweepFile, folder: RunFolder, trials: Sequence[FrozenTrial]) -> Limit | None:
    """The limit that the sweep in `folder`, whose launch is at work, has reached; None while it has reached none."""
    budget, clock = file.budget, Reading()
    if budget.seconds is not None or budget.money is not None or budget.stop_when is not None:
        clock = read_clock(folder)
    steps = used(file, trials) if budget.steps is not None else 0
    money, gain = 0.0, None
    if budget.money is not None:
        money = _cost(file, trials, clock)
    if budget.stop_when is not None:
        again = replacements(trials)  # thaws do not count: what has ended stays so while stopped trials are trained on
        own = (trial for trial in trials if trial.number not in again and thawed_of(trial) is None)
        gain = next_gain(file, spent_by(file, filter(_has_shown, own), clock.until))
    seconds = clock.now() if budget.seconds is not None else 0.0
    return ended_by(budget, _begun(trials), steps, seconds, money, gain)


def price_of(file: SweepFile, seconds: float | None) -> float | None:
    """What so many seconds of workers cost; None where that is not known, or the file gives their hours no price."""
    price = file.budget.money_per_hour
    return None if price is None or seconds is None else seconds / 3600 * price


def worker_seconds(file: SweepFile, seconds: float = 0.0, money: float = 0.0, workers: int | None = None) -> float:
    """Seconds of workers' time that `budget.seconds` and `budget.money` leave; inf where neither is set.

    Args:
        file: the sweep's.
        seconds: of wall clock, used so far.
        money: that workers have cost so far.
        workers: of how many; None: all. Of one it is what a trial has before it.
    """
    budget, left = file.budget, math.inf
    if budget.seconds is not None:
        left = max(budget.seconds - seconds, 0.0) * (workers or file.backend.workers.n)
    if budget.money is not None and budget.money_per_hour:
        left = min(left, max(budget.money - money, 0.0) / budget.money_per_hour * 3600)
    return left


def steps_left(file: SweepFile, folder: RunFolder, trials: Sequence[FrozenTrial]) -> float:
    """Steps that the seconds and the money left pay for, at the trials' usual pace; inf where that is not known."""
    if file.budget.seconds is None and file.budget.money is None:
        return math.inf
    clock, pace = read_clock(folder), usual(pace_in(trial.user_attrs.get(TOOK)) for trial in trials)
    return worker_seconds(file, clock.now(), _cost(file, trials, clock)) / pace if pace else math.inf


def _cost(file: SweepFile, trials: Sequence[FrozenTrial], clock: Reading) -> float:
    """What workers have cost; 0 where their hours have no price."""
    if file.budget.money_per_hour is None:
        return 0.0
    return price_of(file, math.fsum(seconds_of(trial, clock.until) for trial in trials)) or 0.0


def paces_of(file: SweepFile, trials: Sequence[FrozenTrial]) -> dict[int, float]:
    """Trial -> seconds of a step, measured or predicted, of all that have begun; none while too few were measured."""
    known = _known_paces(file, trials)
    return {int(uid): seconds for uid, seconds in predicted(*known).items()} if known is not None else {}


def new_paces(
    file: SweepFile, trials: Sequence[FrozenTrial], candidates: Sequence[Mapping[str, Any]]
) -> list[float] | None:
    """Seconds of a step of configurations that are not begun, as predicted; None while too few were measured."""
    known = _known_paces(file, trials)
    return None if known is None else of_new(candidates, *known)


def _known_paces(
    file: SweepFile, trials: Sequence[FrozenTrial]
) -> tuple[dict[str, dict[str, Any]], dict[str, float], dict[str, float]] | None:
    """Trial -> configuration, of all that have begun; seconds of a step, as measured, and what it takes at most."""
    known = {str(t.number): pace for t in trials if (pace := pace_in(t.user_attrs.get(TOOK))) is not None}
    if settled(known.values()) is None:
        return None
    params = {str(t.number): t.params for t in trials if _has_begun(t)}
    own = own_steps(trials, file.max_steps)
    at_most = {}  # with its start-up, of those whose time and steps belong together
    for trial in trials:
        steps, took = own[trial.number], seconds_of(trial, None)
        if steps and took > 0 and trial.state != TrialState.RUNNING:
            at_most[str(trial.number)] = took / steps
    return params, {uid: pace.seconds for uid, pace in known.items()}, at_most


def time_left(
    file: SweepFile, folder: RunFolder, trials: Sequence[FrozenTrial], paces: Mapping[int, float]
) -> tuple[Time, float]:
    """What the seconds and the money leave to one trial, with what a step of each that has begun takes; and to all
    of them together, in seconds of workers.

    Args:
        file: the sweep's.
        folder: its run's.
        trials: the study's.
        paces: of them, see :func:`paces_of`; some.
    """
    clock, pace = read_clock(folder), settled(pace_in(trial.user_attrs.get(TOOK)) for trial in trials)
    assert pace is not None
    cost = _cost(file, trials, clock)
    now, other = clock.now(), {str(number): its for number, its in paces.items() if its != pace}
    return Time(worker_seconds(file, now, cost, 1), pace, other), worker_seconds(file, now, cost)


def time_binds(file: SweepFile, left: float, used: float) -> bool:
    """Do seconds or money leave less than `budget.steps`? Only then does a step cost what it takes.

    Args:
        file: the sweep's.
        left: steps that seconds and money pay for, see :func:`steps_left`.
        used: of `budget.steps`, see :func:`used`.
    """
    return left < (math.inf if file.budget.steps is None else file.budget.steps - used)


def is_late(file: SweepFile, seconds: float, money: float, used: float, paces: Iterable[Pace | None]) -> bool:
    """Would a new trial come too late to its end, see :func:`~lcsearch.allocation.in_reach.in_reach`? Never where
    nothing pauses, or steps leave less than time.

    Args:
        file: the sweep's.
        seconds: of wall clock, used so far.
        money: that workers have cost so far.
        used: of `budget.steps`, see :func:`used`.
        paces: of the trials, as measured.
    """
    known = list(paces)
    pace, middle = settled(known), usual(known)
    if not file.pause or pace is None or not middle:
        return False
    binds = time_binds(file, worker_seconds(file, seconds, money) / middle, used)
    return binds and file.max_steps * pace > worker_seconds(file, seconds, money, 1)


def late_now(file: SweepFile, folder: RunFolder, trials: Sequence[FrozenTrial]) -> bool:
    """See :func:`is_late`."""
    if not file.pause:
        return False
    clock, paces = read_clock(folder), (pace_in(trial.user_attrs.get(TOOK)) for trial in trials)
    return is_late(file, clock.now(), _cost(file, trials, clock), used(file, trials), paces)


def room(file: SweepFile, folder: RunFolder, trials: Sequence[FrozenTrial]) -> int:
    """How many trials more may be begun, as far as is known now; those that wait to be begun are among them."""
    return 0 if limit_now(file, folder, trials) is not None else file.budget.trials - _begun(trials)


def _begun(trials: Sequence[FrozenTrial]) -> int:
    return sum(map(_has_begun, standing(trials)))


def _has_shown(trial: FrozenTrial) -> bool:
    """Has it ended, or is paused? One that runs has a value that says little yet, and is trained on in any case."""
    return trial.state.is_finished() or is_paused(trial)


def _has_begun(trial: FrozenTrial) -> bool:
    return trial.state != TrialState.WAITING or is_paused(trial) or thawed_of(trial) is not None


class Launch(NamedTuple):
    """When a launch began, in UTC, and how long it went on."""

    began: datetime
    seconds: float


@dataclass(frozen=True)
class Reading:
    """What clock.json says.

    Attributes:
        seconds: wall clock of all launches, up to the last tick.
        until: when the last tick was, in UTC; None before the first.
        monotonic: the system's monotonic clock at that tick, which all processes of a machine share.
        launches: one after the other; without those of an earlier lcsearch, which counted their seconds alone.
        damaged: there is a clock, and it cannot be read: what it counted is lost.
    """

    seconds: float = 0.0
    until: datetime | None = None
    monotonic: float = 0.0
    launches: tuple[Launch, ...] = ()
    damaged: bool = False

    @property
    def counted(self) -> float | None:
        """The seconds, where somebody has counted them: there is a clock, and it is not damaged."""
        return self.seconds if self.monotonic else None

    def now(self) -> float:
        """Seconds up to now, for a process that works for the launch which ticks; where none does, at most ten seconds
        beyond its last tick.
        """
        return self.seconds + min(max(time.monotonic() - self.monotonic, 0.0), _SLACK_S)

    def at(self, time: datetime) -> float | None:
        """Wall clock at a moment (one without a zone is this machine's), which stands still between launches.

        None where not every launch is known, or the moment lies outside all of them: it is another machine's.
        """
        if not math.isclose(self.seconds, sum(launch.seconds for launch in self.launches), abs_tol=_SLACK_S):
            return None
        total = 0.0
        for launch in self.launches:
            since = (time.astimezone() - launch.began).total_seconds()
            if since < -_SLACK_S:
                return None
            if since <= launch.seconds + _SLACK_S:
                return total + min(max(since, 0.0), launch.seconds)
            total += launch.seconds
        return None


def read_clock(folder: RunFolder) -> Reading:
    """The run's clock; zero where no launch has ticked yet."""
    try:
        record = loads(files.read(folder.clock, _LONGEST))
        until = datetime.fromisoformat(record["until"]).astimezone(UTC)  # an earlier lcsearch wrote local time
        launches = tuple(
            Launch(datetime.fromisoformat(began).astimezone(UTC), float(seconds))
            for began, seconds in record.get("launches", ())
        )
        numbers = (record["seconds"], record["monotonic"], *(launch.seconds for launch in launches))
        if not all(is_finite_number(number) and number >= 0 for number in numbers):
            raise ValueError("numbers")
        return Reading(float(record["seconds"]), until, float(record["monotonic"]), launches)
    except FileNotFoundError:
        return Reading()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return Reading(until=_modified(folder), damaged=True)


def _modified(folder: RunFolder) -> datetime:
    """The clock file was damaged: what it counted is lost, when it last ticked is not."""
    return datetime.fromtimestamp(folder.clock.lstat().st_mtime, UTC)


class Clock:
    """The launcher's hand on clock.json.

    Attributes:
        before: the clock as earlier launches left it.
        seconds: wall clock of this launch, up to the last tick.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._began = folder, time.monotonic()
        self._since, self.seconds = datetime.now(UTC), 0.0
        self.before = read_clock(folder)
        self.tick()

    def tick(self) -> None:
        """Write how long it has been."""
        now = time.monotonic()
        self.seconds = now - self._began
        launches = [*self.before.launches, Launch(self._since, self.seconds)]
        record = {
            "seconds": self.before.seconds + self.seconds,
            "until": datetime.now(UTC).isoformat(),
            "monotonic": now,
            "launches": [[launch.began.isoformat(), launch.seconds] for launch in launches],
        }
        write_atomically(self._folder.clock, json.dumps(record).encode())
