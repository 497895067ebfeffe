"""lcsearch decides, while hyperparameter trials run, where the next unit of compute goes.

A learning-curve model forecasts every trial's future from its curve so far; from the forecast comes one number a trial,
P(it beats the incumbent); trials without a chance stop.

- In an Optuna study: `lcsearch.schedulers.optuna.CurvePruner`.
- As a sweep file: `lcsearch run configs/digits.yaml`.
- The values underneath: `Curve`, `Trial`, `Goal`, `Schedule`, `FinishedTrials`, `Snapshot`; forecasters in
  `lcsearch.forecast`.

Importing this module loads nothing heavy: not even numpy, before a name is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lcsearch.curves import Curve as Curve
    from lcsearch.errors import EnvironmentProblem as EnvironmentProblem
    from lcsearch.errors import FileProblem as FileProblem
    from lcsearch.errors import InvalidValue as InvalidValue
    from lcsearch.errors import LcsearchError as LcsearchError
    from lcsearch.forecast.contract import Absent as Absent
    from lcsearch.forecast.contract import Forecaster as Forecaster
    from lcsearch.forecast.contract import Forecasts as Forecasts
    from lcsearch.forecast.contract import Query as Query
    from lcsearch.goal import Goal as Goal
    from lcsearch.schedule import Schedule as Schedule
    from lcsearch.session import Session as Session
    from lcsearch.stopping.policy import Policy as Policy
    from lcsearch.study import FinishedTrials as FinishedTrials
    from lcsearch.study import Snapshot as Snapshot
    from lcsearch.study import Status as Status
    from lcsearch.study import Trial as Trial

__version__ = "0.1.0"

__all__ = [
    "Absent",
    "Curve",
    "EnvironmentProblem",
    "FileProblem",
    "FinishedTrials",
    "Forecaster",
    "Forecasts",
    "Goal",
    "InvalidValue",
    "LcsearchError",
    "Policy",
    "Query",
    "Schedule",
    "Session",
    "Snapshot",
    "Status",
    "Trial",
    "__version__",
]

_HOME = {
    "Absent": "forecast.contract",
    "FinishedTrials": "study",
    "Curve": "curves",
    "EnvironmentProblem": "errors",
    "FileProblem": "errors",
    "Forecaster": "forecast.contract",
    "Forecasts": "forecast.contract",
    "Goal": "goal",
    "InvalidValue": "errors",
    "LcsearchError": "errors",
    "Policy": "stopping.policy",
    "Query": "forecast.contract",
    "Schedule": "schedule",
    "Session": "session",
    "Snapshot": "study",
    "Status": "study",
    "Trial": "study",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lcsearch' has no attribute {name!r}")
    return getattr(import_module(f"lcsearch.{_HOME[name]}"), name)
