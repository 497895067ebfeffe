"""lcsearch in an Optuna study.

>>> import optuna
>>> from lcsearch.schedulers.optuna import CurvePruner
>>> study = optuna.create_study(direction="minimize", pruner=CurvePruner(max_steps=50))

Stops a trial when P(it beats the incumbent) stays low, shows why, and never raises into the study.

:class:`FreezeThaw` pauses and resumes trials, too, in the place of `study.optimize`.
"""

from lcsearch.checkpoint import Checkpoint
from lcsearch.schedulers.optuna._finish import FinishReport, finish
from lcsearch.schedulers.optuna._freeze_thaw import FreezeThaw
from lcsearch.schedulers.optuna._freeze_trial import FreezeThawTrial, Paused
from lcsearch.schedulers.optuna._pruner import CurvePruner
from lcsearch.schedulers.optuna._record import REASON, begun_as, decision_of, is_paused, resumed_from
from lcsearch.schedulers.optuna._sampler import ForecastSampler
from lcsearch.schedulers.optuna._snapshot import SCHEDULE, as_trial
from lcsearch.schedulers.optuna._stop_when import StopWhen
from lcsearch.schedulers.optuna._storage import adopt, withdraw_stop, write_stop
from lcsearch.schedulers.optuna._thaw import Thaw
from lcsearch.session.study_report import Stop, StudyReport

__all__ = [
    "REASON",
    "SCHEDULE",
    "Checkpoint",
    "CurvePruner",
    "FinishReport",
    "ForecastSampler",
    "FreezeThaw",
    "FreezeThawTrial",
    "Paused",
    "Stop",
    "StopWhen",
    "StudyReport",
    "Thaw",
    "adopt",
    "as_trial",
    "begun_as",
    "decision_of",
    "finish",
    "is_paused",
    "resumed_from",
    "withdraw_stop",
    "write_stop",
]
