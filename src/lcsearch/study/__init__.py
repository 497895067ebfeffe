"""Trials, the columnar bank of finished ones, and the snapshot a decision is made from. Immutable, numpy only."""

from __future__ import annotations

from lcsearch.study.bank import BOUNDS, FinishedTrials, judged_at_end, judged_loss, robust_range, trained_lengths
from lcsearch.study.snapshot import Incumbent, Snapshot, loss_at
from lcsearch.study.trial import Status, Trial, steps_trained, trained_by, uid_sort_key

__all__ = [
    "BOUNDS",
    "FinishedTrials",
    "Incumbent",
    "Snapshot",
    "Status",
    "Trial",
    "judged_at_end",
    "judged_loss",
    "loss_at",
    "robust_range",
    "steps_trained",
    "trained_by",
    "trained_lengths",
    "uid_sort_key",
]
