"""Which running trials nobody trains any more: a killed process leaves its trials RUNNING. Pure, without a clock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from lcsearch.study import FinishedTrials, Trial, uid_sort_key

PATIENCE = 4
"""Whole trainings that every worker has done since a trial began, before it counts as abandoned."""


def abandoned(bank: FinishedTrials, live: Iterable[Trial], current: Trial | None = None) -> set[str]:
    """The uids of those of `live` that have stood still for too long by the study's own pace.

    Uids rise in the order in which trials begin. Since a trial began, those that began after it have made some reports;
    shared among as many workers as there are trials under way, that is the pace. A trial is abandoned when each worker
    has made PATIENCE times as many as a whole training has, or as the trial itself where it has more: a trial that is
    trained would have ended by then, though its steps took four times as long as the others'. Until it ends it is left
    out of what others are compared with, and nothing else: its own looks are made as ever.

    Args:
        bank: finished trials.
        live: running ones.
        current: the trial under a look, which is alive; it may be among `live`.
    """
    uids, reports = bank.begun
    whole, workers, under_way = bank.longest, 1, 0
    found: set[str] = set()
    if not whole:
        return found
    for trial in sorted(
        live, key=lambda trial: uid_sort_key(trial.uid), reverse=True
    ):  # those that began last are alive
        if current is not None and trial.uid == current.uid:
            continue
        since = reports[bisect_right(uids, uid_sort_key(trial.uid))] + under_way
        n = trial.curve.n_reports
        if since > PATIENCE * (workers + 1) * max(whole, n):
            found.add(trial.uid)
        else:
            workers += 1
            under_way += n
    return found
