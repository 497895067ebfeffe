"""When a trial's turn is over: what every adapter does at a report."""

from __future__ import annotations

from lcsearch.stopping.verdict import Verdict


def verdict_at(looked: Verdict, step: float, pause_at: float, horizon: float) -> Verdict:
    """What to do with a trial at a report, once it was looked at.

    A stop goes before a pause, for a trial that is paused first would wait with a stop that nobody carries out. Nothing
    is paused at the horizon or beyond, nor on the way there: a run may end a little before or after it.

    Args:
        looked: what the look at this report came to.
        step: of the report.
        pause_at: where its turn ends, see :class:`~lcsearch.allocation.contract.Move`.
        horizon: the goal's.

    >>> verdict_at(Verdict.CONTINUE, step=10, pause_at=9, horizon=50).name
    'PAUSE'
    """
    if looked is Verdict.STOP:
        return looked
    over = pause_at <= step < horizon and pause_at < horizon
    return Verdict.PAUSE if over else Verdict.CONTINUE
