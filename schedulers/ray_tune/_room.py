"""What Tune has room for: slots of the cluster's size, and new trials, which it is kept from asking for too early."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import ray
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.result import SHOULD_CHECKPOINT
from ray.tune.trainable import Trainable
from ray.tune.trainable.function_trainable import FunctionTrainable

from lcsearch.allocation.contract import Resources

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ray.tune.execution.tune_controller import TuneController


def request(trial: TuneTrial) -> Resources:
    """The CPUs and GPUs that a trial asks for."""
    asked = getattr(trial.placement_group_factory, "required_resources", {"CPU": 1.0})
    return Resources(float(asked.get("CPU", 0.0)), float(asked.get("GPU", 0.0)))


def resize(trial: TuneTrial, size: Resources) -> None:
    """Let a trial that does not run ask for something else from now on."""
    if request(trial) != size:
        trial.update_resources(PlacementGroupFactory([{"CPU": size.cpus, "GPU": size.gpus}]))


def size(tune_controller: TuneController) -> Resources:
    """CPUs and GPUs of the cluster, as Tune read them some seconds ago at most."""
    told = tune_controller.trial_executor._resource_updater  # type: ignore[attr-defined]  # noqa: SLF001  # schedulers may
    return Resources(float(told.get_num_cpus()), float(told.get_num_gpus()))


def largest_node(least: Resources) -> Resources:
    """CPUs and GPUs of the node with the most GPUs, then CPUs; `least` where that is not known."""
    nodes = [node.get("Resources", {}) for node in ray.nodes() if node.get("Alive")]  # type: ignore[no-untyped-call]
    gpus, cpus = max(((node.get("GPU", 0.0), node.get("CPU", 0.0)) for node in nodes), default=least[::-1])
    return Resources(cpus, gpus)


def left(cluster: Resources, used: Iterable[Resources]) -> Resources:
    """What trials that run leave of the cluster."""
    cpus, gpus = cluster
    for one in used:
        cpus, gpus = cpus - one.cpus, gpus - one.gpus
    return Resources(cpus, gpus)


def room(left: Resources, one: Resources) -> float:
    """How many trials that ask for `one` fit into what is left; math.inf: it asks for nothing.

    Nodes are not looked at: a trial that fits in sum and on no node waits as PENDING, as it would without a scheduler.
    """
    return min((have / n + 1e-9 for have, n in zip(left, one, strict=True) if n > 0), default=math.inf)


def pausable(trial: TuneTrial, result: Mapping[str, Any]) -> bool:
    """Whether the trial would go on from this very report: it carries a checkpoint, or can be saved at any."""
    if result.get(SHOULD_CHECKPOINT):
        return True
    kind = trial.get_trainable_cls()  # type: ignore[no-untyped-call]
    if kind is None or issubclass(kind, FunctionTrainable):  # saves what it last handed out: an older step, or nothing
        return False
    return bool(kind.save_checkpoint is not Trainable.save_checkpoint)


class Asks(Protocol):
    """Who says when Tune may ask for a new trial."""

    def wants_more(self) -> bool:
        """May it ask now?"""
        ...

    def refused(self) -> None:
        """It asked, and got none, although there are more to come."""
        ...


def hold_back(search: Any, by: Asks) -> None:
    """Let Tune ask for no new trial unless one is wanted.

    Tune asks until so many are PENDING; a trial that is held is PAUSED. Without this it would ask for all there are:
    for ever without a number, and a searcher for each before the first report. There is no hook for it.
    """
    kind = type(search)
    if hasattr(kind, "lcsearch_asks"):
        kind.lcsearch_asks = weakref.ref(by)
        return
    if not callable(getattr(kind, "next_trial", None)):
        return

    def next_trial(self: Any) -> Any:
        asks: Asks | None = type(self).lcsearch_asks()
        if asks is not None and not asks.wants_more():
            return None
        trial = kind.next_trial(self)
        if trial is None and asks is not None and not self.is_finished():
            asks.refused()
        return trial

    # Tune saves the instance's attributes, so none is set; its class is saved by nobody.
    members = {"next_trial": next_trial, "lcsearch_asks": weakref.ref(by), "__module__": kind.__module__}
    search.__class__ = type(kind.__name__, (kind,), members)


def to_come(tune_controller: TuneController) -> float:
    """New trials that the search has left to give; 0 when it has none."""
    search = getattr(tune_controller, "search_alg", None)
    if search is None or search.is_finished():
        return 0
    total = getattr(search, "total_samples", None)
    asked = len(tune_controller.get_trials())  # type: ignore[no-untyped-call]
    return max(total - asked, 0) if isinstance(total, int) else 1
