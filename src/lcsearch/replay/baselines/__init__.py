"""Rules of the field, to compare with: what Optuna, Ray Tune and the papers stop by, as stoppers.

    Never                nothing is stopped
    Patience             no improvement for so many reports        LC-PFN (Adriaensen et al. 2023), section 4.3
    Median               worse than the median at this step        optuna.pruners.MedianPruner
    SuccessiveHalving    not in the best 1/eta at a rung           optuna.pruners.SuccessiveHalvingPruner
    Hyperband            the same, in brackets                     optuna.pruners.HyperbandPruner
    Asha                 below the cutoff of a rung                ray.tune.schedulers.ASHAScheduler, one bracket
    Gated                any of these behind the gates of production

Each is a function of the snapshot and of the event's trial, and keeps nothing between looks. The originals keep notes
on trials (who has passed which rung, with which value); here they are read off the curves, where they stand as well: a
stopped trial's curve ends where it was stopped, and a trial that went on has passed every rung it reached. Each class
says how far that goes. The originals stop at any report, the last one too: whoever replays asks no look there, or lets
a trial that has reached its horizon be COMPLETE.
"""

from __future__ import annotations

from lcsearch.replay.baselines.asha import Asha
from lcsearch.replay.baselines.halving import Hyperband, SuccessiveHalving
from lcsearch.replay.baselines.median import Median
from lcsearch.replay.baselines.never_patience import Never, Patience
from lcsearch.replay.baselines.rule import (
    Bare,
    Gated,
    Rule,
    Said,
    at_least,
    first_at,
    judged_by,
    percentile,
    reported_at,
)

__all__ = [
    "Asha",
    "Bare",
    "Gated",
    "Hyperband",
    "Median",
    "Never",
    "Patience",
    "Rule",
    "Said",
    "SuccessiveHalving",
    "at_least",
    "first_at",
    "judged_by",
    "percentile",
    "reported_at",
]
