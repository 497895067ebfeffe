"""The scheduler's state through `Tuner.restore`: Tune saves callbacks, but never schedulers."""

from __future__ import annotations

import pickle
import weakref
from typing import Any

from ray.tune import Callback

from lcsearch.errors import InvalidValue
from lcsearch.schedulers.ray_tune._scheduler import CurveScheduler

_restored: list[weakref.ref[CurveScheduler]] = []


def restored() -> CurveScheduler:
    """The scheduler of the run that `Tuner.restore(...).fit()` took up last in this process: Tune hands it to nobody.

    Raises:
        InvalidValue: no run with a StateCallback was restored here.
    """
    scheduler = _restored[-1]() if _restored else None
    if scheduler is None:
        raise InvalidValue("a restored run that has a StateCallback", None, "restored()", "call fit() first")
    return scheduler


class StateCallback(Callback):
    """Keeps a CurveScheduler's curves, ends and stops with the experiment's own state, and gives them back.

    Tune pickles scheduler and callback together when a `Tuner` is made, so that both sides of a restored run hold the
    same scheduler, and hands the state back before any trial is added again.

    Args:
        scheduler: the one given to `tune.TuneConfig`.

    Raises:
        InvalidValue: it is no CurveScheduler.
    """

    def __init__(self, scheduler: CurveScheduler) -> None:
        if not isinstance(scheduler, CurveScheduler):
            raise InvalidValue("a CurveScheduler", type(scheduler).__name__, "StateCallback(scheduler=)")
        self.scheduler = scheduler

    def get_state(self) -> dict[str, Any]:
        """The state to save, as bytes: what is saved later must not change with the run."""
        return {"scheduler": pickle.dumps(self.scheduler.get_state())}

    def set_state(self, state: dict[str, Any]) -> None:
        """Give a saved state back to the scheduler."""
        self.scheduler.set_state(pickle.loads(state["scheduler"]))
        _restored[:] = [weakref.ref(self.scheduler)]
