"""PrunedSearch: what a stop means to Optuna's samplers when Tune runs the trials."""

from __future__ import annotations

import math
from typing import Any

from optuna.trial import Trial as OptunaTrial
from ray.air.constants import TRAINING_ITERATION
from ray.tune.search import ConcurrencyLimiter, Repeater, Searcher
from ray.tune.search.optuna import OptunaSearch

from lcsearch.errors import InvalidValue
from lcsearch.schedulers.optuna import ForecastSampler, begun_as
from lcsearch.schedulers.optuna._sampler import Seen
from lcsearch.schedulers.optuna._storage import report_again
from lcsearch.schedulers.ray_tune._scheduler import CurveScheduler


class PrunedSearch(Searcher):
    """`OptunaSearch` that hears of a stop as PRUNED with the trial's curve.

    Tune tells a searcher of a stopped trial as of one that has ended, so OptunaSearch files it as COMPLETE with the
    value of an early step, and the sampler takes that for what the configuration is worth.

    A :class:`~lcsearch.schedulers.optuna.ForecastSampler` in the OptunaSearch asks the scheduler's forecasters about
    the run as the scheduler sees it, with the trials that are paused; `CurveScheduler.explain` says why a trial was
    begun.

    Results that lack the metric now and then are passed over; a trial that ends with such a one is COMPLETE with the
    last value it had. What another attempt at a trial reports takes the place of what a dead one did; where that had
    got further, the last value stands there, for a sampler takes a stopped trial at its last step.

    Args:
        searcher: an OptunaSearch, or a ConcurrencyLimiter around one; it keeps the study.
        scheduler: the one given to `tune.TuneConfig`.

    Raises:
        InvalidValue: either is of another kind.
    """

    def __init__(self, searcher: OptunaSearch | ConcurrencyLimiter, scheduler: CurveScheduler) -> None:
        inner = _inner(searcher)
        if not isinstance(inner, OptunaSearch):
            advice = "Repeat inside one trial and report the mean: Repeater averages last values, and a stopped "
            raise InvalidValue(
                "an OptunaSearch, or a ConcurrencyLimiter around one",
                type(inner).__name__,
                "PrunedSearch(searcher=)",
                f"{advice}repeat's is that of an early step" if isinstance(inner, Repeater) else "",
            )
        if not isinstance(scheduler, CurveScheduler):
            raise InvalidValue("a CurveScheduler", type(scheduler).__name__, "PrunedSearch(scheduler=)")
        super().__init__(metric=inner.metric, mode=inner.mode)
        self.searcher, self._scheduler = searcher, scheduler
        self._seen: dict[str, float] = {}  # trial id -> the largest step that was handed on
        self._last: dict[str, float] = {}  # trial id -> the last value that was
        self._at: dict[str, float] = {}  # trial id -> its step

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """As the searcher's."""
        done = bool(self.searcher.set_search_properties(metric, mode, config, **spec))
        inner = _inner(self.searcher)
        self._metric, self._mode = inner.metric, inner.mode
        return done

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """As the searcher's."""
        self._scheduler.hearer(self)
        inner = _inner(self.searcher)
        sampler = inner._sampler  # noqa: SLF001  # Tune shows it to nobody
        if isinstance(sampler, ForecastSampler):
            return self._chosen(trial_id, inner, sampler)
        suggested: dict[str, Any] | None = self.searcher.suggest(trial_id)
        return suggested

    def _chosen(self, trial_id: str, inner: OptunaSearch, sampler: ForecastSampler) -> dict[str, Any] | None:
        """What a sampler suggests that forecasts, by the run as the scheduler sees it."""
        uids = {trial.number: uid for uid, trial in _asked(inner).items()}
        sampler.beside(
            lambda: Seen(self._scheduler.session, self._scheduler.snapshot(), lambda number: uids.get(number, ""))
        )
        try:
            found: dict[str, Any] | None = self.searcher.suggest(trial_id)
        finally:
            sampler.beside(None)
        asked = _asked(inner).get(trial_id)
        why = None if asked is None else begun_as(asked.study.get_trials(deepcopy=False)[asked.number])
        if why is not None:
            self._scheduler.begun_as(trial_id, why)
        return found

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """As the searcher's, for results that say something about the metric at a step."""
        # Of several metrics (a list) OptunaSearch keeps no curves.
        value = _number(result.get(self.metric)) if isinstance(self.metric, str) else None
        step = _number(result.get(TRAINING_ITERATION))
        if step is None or value is None or not 0 <= step < math.inf:
            return
        seen = self._seen.get(trial_id, -math.inf)
        if step > seen:
            self._seen[trial_id] = step
            self.searcher.on_trial_result(trial_id, {**result, self.metric: value, TRAINING_ITERATION: int(step)})
        elif (step, value) != (seen, self._last.get(trial_id)) and trial_id in _asked(self.searcher):
            # another attempt; not the last result told twice
            report_again(_asked(self.searcher)[trial_id], int(step), value)
        self._last[trial_id], self._at[trial_id] = value, step

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial has ended; one that lcsearch stopped is handed on without a value: so OptunaSearch files PRUNED."""
        if result and not error:
            if TRAINING_ITERATION not in result:
                self._scheduler.session.warn_once(
                    "repeater",
                    "a Repeater around PrunedSearch gives Optuna the mean of last values, and a stopped repeat's is "
                    "that of an early step; repeat inside one trial and report the mean",
                )
            self.on_trial_result(trial_id, result)  # Tune keeps a result answered by STOP from searchers
            last = self._last.get(trial_id)
            if self._scheduler.reason(trial_id) is not None:
                result = None
            elif isinstance(self.metric, str) and last is not None:
                # The last result may hold no metric; NaN is no value to Optuna.
                result, error = ({**result, self.metric: last}, False) if last == last else (None, True)
        self._forget_dead(trial_id)
        for known in (self._seen, self._last, self._at):
            known.pop(trial_id, None)
        self.searcher.on_trial_complete(trial_id, result, error)

    def _forget_dead(self, trial_id: str) -> None:
        """Put the last value in the place of what only a dead attempt had reported, beyond where this one ended."""
        at, asked = self._at.get(trial_id, math.inf), _asked(self.searcher).get(trial_id)
        if asked is None or at >= self._seen.get(trial_id, -math.inf):
            return
        for step in asked.study.get_trials(deepcopy=False)[asked.number].intermediate_values:
            if step > at:
                report_again(asked, step, self._last[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """As the searcher's."""
        self.searcher.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """As the searcher's."""
        self.searcher.restore(checkpoint_path)

    def get_state(self) -> dict[str, Any]:
        """What Tune saves beside the searcher inside."""
        return {"seen": dict(self._seen), "last": dict(self._last), "at": dict(self._at)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`get_state` gave."""
        self._seen, self._last, self._at = (dict(state.get(name, {})) for name in ("seen", "last", "at"))


def _inner(searcher: Any) -> Any:
    """The searcher inside ConcurrencyLimiters."""
    while isinstance(searcher, ConcurrencyLimiter):
        searcher = searcher.searcher
    return searcher


def _asked(searcher: Any) -> dict[str, OptunaTrial]:
    """Tune's trial id -> Optuna's trial, of all that OptunaSearch has asked for."""
    found: dict[str, OptunaTrial] = _inner(searcher)._ot_trials  # noqa: SLF001  # Tune shows them to nobody
    return found


def _number(value: Any) -> float | None:
    """What float() reads; None for anything else."""
    try:
        return float(value)
    except Exception:  # whatever a tensor says to float()
        return None
