"""finish: stopped trials are trained on, the likeliest to have won first, until the rest is at most a given risk."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.exceptions import TrialPruned
from optuna.trial import TrialState, create_trial

from lcsearch.errors import InvalidValue
from lcsearch.schedulers.optuna._process_identity import is_gone, this_process
from lcsearch.schedulers.optuna._pruner import CurvePruner, several
from lcsearch.schedulers.optuna._record import CLAIMED, RESUMED_FROM, THAW, Thawed, thawed_of, without_dead
from lcsearch.schedulers.optuna._storage import adopt, claim_waiting, store_with
from lcsearch.schedulers.optuna._thaw import THAWED, alone
from lcsearch.stopping.decision import UNCALIBRATED, percent, risk_told
from lcsearch.stopping.finish import FinishPlan, Frozen, plan_finish, stopped_of
from lcsearch.stopping.policy import Policy
from lcsearch.study import Incumbent, Snapshot, trained_by

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

_log = logging.getLogger("lcsearch")


@dataclass(frozen=True)
class FinishReport:
    """What a finish comes to, or has come to.

    Attributes:
        plan: which trials are to be thawed, as the study stood when it began.
        steps: what that was said to cost: what they had left, each counted to the mean end of the COMPLETE trials.
        thawed: (stopped trial, the trial that goes on with it, how that ended), in the order in which they were run.
        risk: a bound of P(some trial that is still stopped would have beaten the incumbent), now.
        before: the incumbent when it began; None without one.
        incumbent: the incumbent now.
        independent: what `risk` bounds, were trials independent.
        calibration: what is known of the probabilities that it is made of.
        n_stopped: trials that P(beat) stopped and that stay so.
        again: steps beside `steps` that thawed trials have trained a second time, for want of a late enough
            checkpoint.
    """

    plan: FinishPlan
    steps: float
    thawed: tuple[tuple[int, int, str], ...] = ()
    risk: float | None = None
    before: Incumbent | None = None
    incumbent: Incumbent | None = None
    independent: float | None = None
    calibration: str = UNCALIBRATED
    n_stopped: int = 1
    again: float = 0.0

    def __str__(self) -> str:
        """A few lines for people."""
        lines = [planned(self.plan, f"about {self.steps:g} steps")]
        for stopped, by, state in self.thawed:
            lines.append(f"trial {stopped} was thawed as trial {by}: {state.lower()}")
        if self.again:
            more = f"about {self.again:g} steps more than that were trained, a second time"
            lines.append(f"{more}: checkpoints were older than the stops, or there were none")
        if self.thawed and self.risk is not None:
            told = risk_told(self.risk, self.independent, self.calibration, stops=self.n_stopped > 0)
            lines.append(f"risk that some stop lost the winner: {told}")
            lines.append(outcome(self.before, self.incumbent))
        return "\n".join(lines)


def planned(plan: FinishPlan, cost: str) -> str:
    """What a finish would do, and what it would cost, in a line or two."""
    n, total = len(plan.thaw), f"{percent(min(plan.risk, 1.0))} now, by the sum of P(beat)"
    if not n:
        text = f"nothing is to be thawed: the risk is at most {total}, and {percent(plan.limit)} is allowed"
        if plan.named or plan.rest > plan.limit:
            which = "none of those named can be thawed again" if plan.named else "no trial is left that could be thawed"
            text = f"{which}, and the risk is at most {total}"
    else:
        first = plan.thaw[0]
        named = ", ".join(one.uid for one in plan.thaw[:10]) + (f" and {n - 10} more" if n > 10 else "")
        text = f"to bring the risk from at most {total}, to at most {percent(plan.limit)}, " * (not plan.named)
        text += f"{n} stopped trial{'s are' if n > 1 else ' is'} thawed, the likeliest to have won first: {named} "
        text += f"(trial {first.uid} with P(beat) {percent(first.p)}). "
        if plan.named:
            text += f"The risk is at most {total}; the others sum to at most {percent(min(plan.rest, 1.0))}. "
        text += f"That takes {cost}"
    left = [(plan.apart, "not stopped by lcsearch, or its record cannot be read"), (plan.diverged, "diverged")]
    for uids, why in left:
        if uids:
            more = f" and {len(uids) - 10} more" if len(uids) > 10 else ""
            text += f"\nleft alone, for no risk is known of them ({why}): trial{'s' * (len(uids) > 1)} "
            text += ", ".join(uids[:10]) + more
    return text


def outcome(before: Incumbent | None, now: Incumbent | None) -> str:
    """Whether another trial leads than before, plainly."""
    if before is None or now is None or before.uid == now.uid:
        return "the winner is the same as before"
    return (
        f"THE WINNER HAS CHANGED: trial {now.uid} reached {now.value:.6g}, and had been stopped; before it was trial "
        f"{before.uid} with {before.value:.6g}"
    )


def next_thaws(
    policy: Policy,
    snapshot: Snapshot,
    trials: Sequence[FrozenTrial],
    risk: float,
    only: Collection[int] = (),
    since: int = 0,
) -> FinishPlan:
    """What is still to be thawed, of a study as it stands.

    Args:
        policy: the pruner's.
        snapshot: the study.
        trials: all of it.
        risk: the limit.
        only: numbers of trials that are thawed whatever the risk; none: whoever brings it below the limit.
        since: thaws of this number or a later one that failed are not tried again.
    """
    # Those whose thaw waits, or has failed, still stand in the snapshot as stopped.
    again = [(t, thawed) for t in trials if (thawed := thawed_of(t)) is not None]
    tried = {str(thawed.stopped) for t, thawed in again if t.number >= since or not t.state.is_finished()}
    return plan_finish(policy, snapshot, risk, but=tried, only={str(number) for number in only})


def cost_of(snapshot: Snapshot, plan: FinishPlan, anew: Callable[[Frozen], bool]) -> float:
    """Steps that a plan takes: what each trial had left, or all of a run where it begins anew."""
    stopped = {trial.uid: trial.curve.reports()[0] for trial in snapshot.bank}
    whole = (trained_by(snapshot.bank.left(0.0), float(stopped[one.uid][0])) for one in plan.thaw if anew(one))
    return math.fsum([*whole, *(snapshot.bank.left(one.step) for one in plan.thaw if not anew(one))])


def add_thaw(study: Study, one: Frozen, *, anew: bool) -> None:
    """Add the trial that goes on with a stopped one: WAITING, with its parameters and, unless anew, its reports."""
    frozen = next(t for t in study.get_trials(deepcopy=False) if t.number == int(one.uid))
    how = Thawed(frozen.number, one.step, one.was, one.p, anew)
    attrs = {key: value for key, value in frozen.user_attrs.items() if not key.startswith("lcsearch:") or key in _KEPT}
    study.add_trial(
        create_trial(
            state=TrialState.WAITING,
            params=frozen.params,
            distributions=frozen.distributions,
            intermediate_values={} if anew else without_dead(frozen).intermediate_values,
            user_attrs={**attrs, **({} if anew else {RESUMED_FROM: frozen.number}), THAWED: str(how)},
            system_attrs={THAW: how._asdict()},
        )
    )
    _log.info("lcsearch: %s", how)


_KEPT = ("lcsearch:schedule",)


def finish(
    study: Study,
    objective: Callable[[Trial], float],
    *,
    risk: float = 0.02,
    trials: Collection[int] = (),
    anew: bool = False,
    dry_run: bool = False,
    catch: Sequence[type[Exception]] = (),
) -> FinishReport:
    """Train stopped trials on until the others have lost the winner with a risk of at most `risk`.

    The likeliest to have won goes first. As incumbents improve the others' P(beat) fall, so fewer may be needed than
    was said at first; at worst all are trained to their end. Each goes on as a new trial, with the stopped one's
    parameters and reports: `resumed_from(trial)` tells the objective whose checkpoint to load, and it goes on at the
    step after the last one. It is never stopped again. The stopped trial stays PRUNED in the storage; reports and
    risks have the new one in its place. Trials that something else stopped are left alone, and named.

    A call that is killed is taken up by the next one: what was under way goes on from the objective's own checkpoints.

    Args:
        study: its pruner is a :class:`CurvePruner`.
        objective: as for `study.optimize`.
        risk: what the P(beat) of all trials that stay stopped may sum to, in [0, 1].
        trials: numbers of trials to thaw instead, whatever the risk.
        anew: the objective keeps no checkpoints (it never asks `resumed_from`): thawed trials begin at their start,
            without reports. Where that is not said, such an objective trains from its start all the same: what it
            reports again is passed over, and once it does so, a warning says what the finish costs then.
        dry_run: nothing is trained; the report says what would be, and what it would cost.
        catch: exceptions of the objective that make a trial FAIL and no more, as in `study.optimize`; any other makes
            it FAIL and is raised. What a failed one is at risk stays.

    Raises:
        InvalidValue: the study's pruner is no CurvePruner, it has several objectives, `risk` is outside [0, 1], or
            one of `trials` is not a trial that lcsearch stopped.
    """
    pruner = study.pruner
    if not isinstance(pruner, CurvePruner):
        raise InvalidValue("a study whose pruner is a CurvePruner", type(pruner).__name__, "finish(study)")
    if several(study):
        raise InvalidValue("a study of one objective", f"{len(study.directions)} objectives", "finish(study)")
    policy = pruner.session.policy
    snapshot = pruner.snapshot(study)
    expect_stopped(policy, snapshot, trials, "finish(trials=)")
    known = study.get_trials(deepcopy=False)
    plan = next_thaws(policy, snapshot, known, risk, trials, since=len(known))
    steps = cost_of(snapshot, plan, lambda one: anew)
    before, done, again, warned = snapshot.incumbent, [], 0.0, False
    if not dry_run:
        _log.info("lcsearch: %s", planned(plan, f"about {steps:g} steps"))
        since = len(study.get_trials(deepcopy=False))
        while (trial := _take(study, pruner, risk, trials, anew, since)) is not None:
            thawed = thawed_of(frozen := study.get_trials(deepcopy=False)[trial.number])
            told = _Again(trial, frozen, None if warned else lambda: cost_of(snapshot, plan, lambda one: True))
            _train(study, trial, objective, tuple(catch))
            again, warned = again + told.steps, warned or told.warned
            state = study.get_trials(deepcopy=False)[trial.number].state
            done.append((-1 if thawed is None else thawed.stopped, trial.number, state.name))
    now, incumbent = pruner.report(study), pruner.snapshot(study).incumbent
    known_of = now.calibration.state
    n = sum(stop.p is not None for stop in now.stops)
    return FinishReport(plan, steps, tuple(done), now.risk, before, incumbent, now.independent, known_of, n, again)


def expect_stopped(policy: Policy, snapshot: Snapshot, numbers: Collection[int], where: str) -> None:
    """Every one of `numbers` can be thawed.

    Raises:
        InvalidValue: one cannot.
    """
    known = {int(one.uid) for one in stopped_of(policy, snapshot)}
    for number in numbers:
        if number not in known:
            raise InvalidValue("the number of a trial that a look stopped and that is not thawed yet", number, where)


def _take(
    study: Study, pruner: CurvePruner, risk: float, only: Collection[int], anew: bool, since: int
) -> Trial | None:
    """A thawed trial that a process left behind, or one that waits, or the next one; None: nothing is left."""
    with alone(study):
        trials = study.get_trials(deepcopy=False)
        for frozen in trials:
            if thawed_of(frozen) is None:
                continue
            if frozen.state == TrialState.RUNNING and is_gone(frozen.system_attrs.get(CLAIMED) or {}):
                trial = adopt(study, frozen.number)
                store_with(study, trial, CLAIMED, this_process())
                return trial
            if frozen.state == TrialState.WAITING and (claimed := claim_waiting(study, frozen.number)) is not None:
                return claimed
        plan = next_thaws(pruner.session.policy, pruner.snapshot(study), trials, risk, only, since)
        if not plan.thaw:
            return None
        add_thaw(study, plan.thaw[0], anew=anew)
        return claim_waiting(study, len(study.get_trials(deepcopy=False)) - 1)


class _Again:
    """Watches the first report of a thawed trial: where the stopped one had made it, it tells how far training went
    back.

    Attributes:
        steps: that are trained a second time.
        warned: whether it has told that the trial begins at its start.
    """

    def __init__(self, trial: Trial, frozen: FrozenTrial, whole: Callable[[], float] | None) -> None:
        """`whole` says what the finish costs where all begin anew; None: it was told."""
        self.steps, self.warned, self._trial, self._whole = 0.0, False, trial, whole
        self._known, thawed = sorted(frozen.intermediate_values), thawed_of(frozen)
        if thawed is not None and self._known and self._known[-1] <= thawed.step:  # no earlier call went on with it
            self._report, trial.report = trial.report, self._first  # type: ignore[method-assign]  # of this trial alone

    def _first(self, value: float, step: int) -> None:
        self._trial.report = self._report  # type: ignore[method-assign]  # as it was
        self._report(value, step)
        first, last = self._known[0], self._known[-1]
        if step > last:
            return
        earlier = [at for at in self._known if at < step]
        self.steps = float(last - earlier[-1]) if earlier else trained_by(last, first)
        if not earlier and self._whole is not None:
            self.warned = True
            _log.warning(
                "lcsearch: trial %d goes on with one that had come to step %d, and begins at its start: the objective "
                "loaded no checkpoint. If it does so for all, the finish takes about %g steps. Have it ask "
                "resumed_from(trial) whose to load, or say anew=True where it keeps none",
                self._trial.number,
                last,
                self._whole(),
            )


def _train(study: Study, trial: Trial, objective: Callable[[Trial], float], catch: tuple[type[Exception], ...]) -> None:
    """Run the objective to its end, as `study.optimize` would."""
    with warnings.catch_warnings():
        # One that goes on from an earlier checkpoint, or from its start, reports steps again: the first value stays.
        warnings.filterwarnings("ignore", message="The reported value is ignored")
        try:
            value = objective(trial)
        except TrialPruned:
            _tell(study, trial, state=TrialState.PRUNED)
            return
        except KeyboardInterrupt:  # the next call goes on with it, in this process, too
            store_with(study, trial, CLAIMED, {**this_process(), "pid": None})
            raise
        except Exception as error:
            _tell(study, trial, state=TrialState.FAIL)
            if not isinstance(error, catch):
                raise
            _log.warning("lcsearch: trial %d, which was thawed, failed: %s", trial.number, error)
            return
    _tell(study, trial, value)


def _tell(study: Study, trial: Trial, value: float | None = None, state: TrialState | None = None) -> None:
    try:
        study.tell(trial, value, state=state)
    except Exception:
        # A sampler hears of it once the end is certain. Those of grids would stop `optimize` then, which does not run,
        # or look for the place on the grid of a trial that they did not begin.
        if not study.get_trials(deepcopy=False)[trial.number].state.is_finished():
            raise
