"""Trials, the columnar bank of finished ones, and the snapshot a decision is made from. Immutable, numpy only."""

from __future__ import annotations

from lcsearch.study.bank import BOUNDS, Bank, judged_at_end, judged_loss
from lcsearch.study.snapshot import Incumbent, Snapshot, loss_at
from lcsearch.study.trial import Status, Trial, place, steps_trained, trained_by

__all__ = [
    "BOUNDS",
    "Bank",
    "Incumbent",
    "Snapshot",
    "Status",
    "Trial",
    "judged_at_end",
    "judged_loss",
    "loss_at",
    "place",
    "steps_trained",
    "trained_by",
]
