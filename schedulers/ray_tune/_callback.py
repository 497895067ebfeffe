"""The scheduler's state through `Tuner.restore`: Tune saves callbacks, but never schedulers."""

from __future__ import annotations

import io
import os
import pickle
import weakref
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial

from lcsearch.errors import FileProblem, InvalidValue, in_words
from lcsearch.schedule import Schedule
from lcsearch.schedulers.ray_tune._book import Book, Entry
from lcsearch.schedulers.ray_tune._moved import RENAMED
from lcsearch.schedulers.ray_tune._scheduler import CurveScheduler
from lcsearch.stopping.risk import StopRecord
from lcsearch.study import Status, Trial

_STATES = "callback-states-*.pkl"

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


def kept_trials(folder: str | os.PathLike[str]) -> dict[str, Trial]:
    """Every trial of an experiment by its id, as its StateCallback has kept it last.

    Nothing of the file is run: classes that are not lcsearch's own come back as empty ones.

    Args:
        folder: the experiment's, or the one above.

    Raises:
        FileProblem: there is no such state, or it is damaged.
    """
    root = Path(folder)
    found = sorted((*root.glob(_STATES), *root.glob(f"*/{_STATES}")), key=lambda path: path.name)
    if not found:
        raise FileProblem(f"{root}: expected a Tune experiment whose run had a StateCallback, got no {_STATES} there.")
    try:
        states = _Inert(io.BytesIO(found[-1].read_bytes())).load()
        for state in states.values():
            if isinstance(state, dict) and isinstance(state.get("scheduler"), bytes):
                saved = _Inert(io.BytesIO(state["scheduler"])).load()
                book = Book.from_record(saved["book"]) if isinstance(saved["book"], dict) else saved["book"]
                return {uid: book.trial(uid) for uid in book.entries}
    except Exception as error:  # whatever damaged bytes come to
        raise FileProblem(f"{found[-1]}: expected the state of a CurveScheduler, got {in_words(error)}.") from error
    raise FileProblem(f"{found[-1]}: expected the state of a CurveScheduler, got that of other callbacks.")


class _Saved(pickle.Unpickler):
    """Reads what an earlier lcsearch saved, too: these classes, by the modules in which they stood then."""

    def find_class(self, module: str, name: str) -> Any:
        """The class of a pickled value."""
        known = {kind.__name__: kind for kind in (Book, Entry, StopRecord, Schedule, Status)}
        own, now = module.partition(".")[0] == "lcsearch", RENAMED.get(name, name)
        return known[now] if own and now in known else self.foreign(module, name)

    def foreign(self, module: str, name: str) -> Any:
        """What is none of ours: in a run that goes on, Tune has read it by then, too."""
        return super().find_class(module, name)


class _Inert(_Saved):
    """Reads ours and runs nothing else: for files that somebody hands on."""

    def foreign(self, module: str, name: str) -> Any:
        """An empty class in the place of any other."""
        return _Nothing


class _Nothing:
    """Stands for a value that is not read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass
