"""PrunedSearch: what a stop means to Optuna's samplers when Tune runs the trials."""

from __future__ import annotations

import math
from typing import Any

from ray.air.constants import TRAINING_ITERATION
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from lcsearch.errors import InvalidValue
from lcsearch.schedulers.ray_tune._scheduler import CurveScheduler


class PrunedSearch(Searcher):
    """`OptunaSearch` that hears of a stop as PRUNED with the trial's curve.

    Tune tells a searcher of a stopped trial as of one that has ended, so OptunaSearch files it as COMPLETE with the
    value of an early step, and the sampler takes that for what the configuration is worth.

    Args:
        searcher: an OptunaSearch; it keeps the study.
        scheduler: the one given to `tune.TuneConfig`.

    Raises:
        InvalidValue: either is of another kind.
    """

    def __init__(self, searcher: OptunaSearch, scheduler: CurveScheduler) -> None:
        if not isinstance(searcher, OptunaSearch):
            raise InvalidValue("an OptunaSearch", type(searcher).__name__, "PrunedSearch(searcher=)")
        if not isinstance(scheduler, CurveScheduler):
            raise InvalidValue("a CurveScheduler", type(scheduler).__name__, "PrunedSearch(scheduler=)")
        super().__init__(metric=searcher.metric, mode=searcher.mode)
        self.searcher, self._scheduler = searcher, scheduler
        self._seen: dict[str, float] = {}  # trial id -> the last step that was handed on

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """As the searcher's."""
        done = bool(self.searcher.set_search_properties(metric, mode, config, **spec))
        self._metric, self._mode = self.searcher.metric, self.searcher.mode
        return done

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """As the searcher's."""
        return self.searcher.suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """As the searcher's, but for the steps that a trial repeats after an error or a restore."""
        if result[TRAINING_ITERATION] > self._seen.get(trial_id, -math.inf):
            self._seen[trial_id] = result[TRAINING_ITERATION]
            self.searcher.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial has ended; one that lcsearch stopped is handed on without a value: so OptunaSearch files PRUNED."""
        if result and not error:
            # Tune keeps a result answered by STOP from searchers; the last one of a class may hold no metric at all.
            if isinstance(self.metric, str) and self.metric in result:
                self.on_trial_result(trial_id, result)
            if self._scheduler.reason(trial_id) is not None:
                result = None
        self._seen.pop(trial_id, None)
        self.searcher.on_trial_complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """As the searcher's."""
        self.searcher.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """As the searcher's."""
        self.searcher.restore(checkpoint_path)

    def get_state(self) -> dict[str, Any]:
        """What Tune saves beside the searcher inside."""
        return {"seen": dict(self._seen)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`get_state` gave."""
        self._seen = dict(state.get("seen", {}))
