"""lcsearch in a Ray Tune run.

>>> from ray import tune
>>> from lcsearch.schedulers.ray_tune import CurveScheduler, StateCallback
>>> scheduler = CurveScheduler(time_attr="epoch", metric="loss", mode="min", max_t=50)
>>> tune_config = tune.TuneConfig(scheduler=scheduler, num_samples=40)
>>> run_config = tune.RunConfig(callbacks=[StateCallback(scheduler)])  # carries its state through Tuner.restore

Stops a trial when P(it beats the incumbent) stays low, shows why, and never raises into the run. With
`allocator="asha"` it also pauses trials that report with checkpoints, and goes on with them when they are next.
Needs the extra:
`pip install "lcsearch[ray]"`.
"""

from lcsearch.extras import need_ray

need_ray("lcsearch.schedulers.ray_tune")

from lcsearch.allocation.contract import Resources
from lcsearch.allocation.resources import ResourceBounds
from lcsearch.schedulers.ray_tune import _moved as _moved
from lcsearch.schedulers.ray_tune._callback import StateCallback, restored
from lcsearch.schedulers.ray_tune._scheduler import SCHEDULE, CurveScheduler
from lcsearch.schedulers.ray_tune._search import PrunedSearch
from lcsearch.session.study_report import Stop, StudyReport

__all__ = [
    "SCHEDULE",
    "CurveScheduler",
    "PrunedSearch",
    "ResourceBounds",
    "Resources",
    "StateCallback",
    "Stop",
    "StudyReport",
    "restored",
]
