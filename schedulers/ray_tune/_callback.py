"""The scheduler's state through `Tuner.restore`: Tune saves callbacks, but never schedulers."""

from __future__ import annotations

import io
import pickle
import weakref
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial

from lcsearch.errors import InvalidValue
from lcsearch.schedule import Schedule
from lcsearch.schedulers.ray_tune._book import Book, Entry
from lcsearch.schedulers.ray_tune._moved import RENAMED
from lcsearch.schedulers.ray_tune._scheduler import CurveScheduler
from lcsearch.stopping.risk import StopRecord
from lcsearch.study import Status

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

    def on_experiment_end(self, trials: list[TuneTrial], **info: Any) -> None:
        """The run is over."""
        self.scheduler.end_run(trials)

    def get_state(self) -> dict[str, Any]:
        """The state to save, as bytes: what is saved later must not change with the run.

        Plain values: a class of lcsearch that was pickled would have to stay where it is for ever.
        """
        state = self.scheduler.get_state()
        return {"scheduler": pickle.dumps({**state, "book": state["book"].to_record()})}

    def set_state(self, state: dict[str, Any]) -> None:
        """Give a saved state back to the scheduler."""
        saved = _Saved(io.BytesIO(state["scheduler"])).load()
        book = saved.get("book")
        self.scheduler.set_state({**saved, "book": Book.from_record(book)} if isinstance(book, dict) else saved)
        _restored[:] = [weakref.ref(self.scheduler)]


class _Saved(pickle.Unpickler):
    """Reads what an earlier lcsearch saved, too: these classes, by the modules in which they stood then."""

    def find_class(self, module: str, name: str) -> Any:
        """The class of a pickled value."""
        known = {kind.__name__: kind for kind in (Book, Entry, StopRecord, Schedule, Status)}
        own, now = module.partition(".")[0] == "lcsearch", RENAMED.get(name, name)
        return known[now] if own and now in known else super().find_class(module, name)
