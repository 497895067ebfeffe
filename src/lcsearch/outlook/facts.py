"""The facts: one forecast a trial, and what the trials are compared with. Views phrase them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Absent, Answer, Forecasts, Query, judged_kind
from lcsearch.goal import Goal
from lcsearch.session.panel import Panel
from lcsearch.stopping.gates import target_of
from lcsearch.stopping.policy import Policy
from lcsearch.study import Incumbent, Snapshot, Status, Trial, judged_at_end, judged_loss, uid_sort_key

LEVELS = (0.1, 0.5, 0.9)
"""Of the quantiles: an interval of 80 % and the median."""
_ROUND = 32
"""Trials that are asked about at once: a host has a deadline for what it is asked."""
_ABANDONED, _UNSEEN = "abandoned", "unseen"


@dataclass(frozen=True)
class Forecast:
    """What is thought of one trial's judged value where it ends.

    Attributes:
        low, median, high: quantiles at LEVELS, in the metric's units.
        p_beat: P(better than `Outlook.target`); None where there is none.
        by: who said so; of several the one most in the trial's favour, as in a look.
    """

    low: float
    median: float
    high: float
    p_beat: float | None
    by: str


@dataclass(frozen=True)
class Prospect:
    """One trial, or one configuration that is not begun.

    Attributes:
        trial: as it stands; one without a report is not begun, and its uid says where it was read.
        state: a Status in lower case, "abandoned" (stands as running, and nobody trains it) or "unseen".
        end: the step at which it is judged.
        forecast: None where there is none.
        absent: forecaster -> why it gave no forecast; empty where nobody was asked.
        worth: the judged value of a COMPLETE trial, which needs no forecast; None for any other.
    """

    trial: Trial
    state: str
    end: float
    forecast: Forecast | None = None
    absent: Mapping[str, tuple[Absent, str]] | None = None
    worth: float | None = None


@dataclass(frozen=True)
class Outlook:
    """What is thought of a study.

    Attributes:
        goal: of the study.
        horizon: the step at which trials are judged in fact.
        incumbent: the best COMPLETE trial, or None.
        target: what must be passed for P(beat): the incumbent's value and the margin of a look; without an incumbent
            the best value that any begun trial has seen, failed ones apart; None where none has a finite one.
        forecasters: who was asked: name -> version.
        trials: the begun ones, the most promising first: by P(beat), then by the median; after them those without a
            forecast, the complete ones by value, the failed ones.
        unseen: configurations, likewise.
    """

    goal: Goal
    horizon: float
    incumbent: Incumbent | None
    target: float | None
    forecasters: Mapping[str, str]
    trials: tuple[Prospect, ...]
    unseen: tuple[Prospect, ...] = ()


@dataclass(frozen=True, eq=False)
class Fan:
    """Forecasts of what a trial will report on its way.

    Attributes:
        steps: (n,) rising, beyond its last report; whole where it reports at whole steps.
        low, median, high: (n,) quantiles at LEVELS, in the metric's units; NaN where there is no forecast.
    """

    steps: Floats
    low: Floats
    median: Floats
    high: Floats


def begun(snapshot: Snapshot) -> list[tuple[Trial, str]]:
    """Every trial with a report, and its state."""
    known = [(trial, trial.status.value) for trial in (*snapshot.bank, *snapshot.live)]
    known += [(trial, _ABANDONED) for trial in snapshot.abandoned]
    return [(trial, state) for trial, state in known if trial.curve.n_reports]


def look_ahead(snapshot: Snapshot, panel: Panel, unseen: Sequence[Trial] = ()) -> Outlook:
    """Ask `panel` what becomes of every begun trial, and of `unseen` ones.

    COMPLETE and FAILED trials are not asked about: the one's value is known, the other will have none. A forecast is
    of the judged value at the steps where the trial may end, their mixture where those differ, as in a look; what has
    to be beaten is what a look compares with, or before there is an incumbent the best value seen.

    Args:
        snapshot: the study.
        panel: who is asked.
        unseen: trials without a report, whose uids are no others'.
    """
    loss = target_of(Policy(), snapshot) if snapshot.incumbent is not None else _best_seen(snapshot)
    asked, rest = list[tuple[Trial, str]](), list[Prospect]()
    for trial, state in begun(snapshot):
        if trial.status in (Status.COMPLETE, Status.FAILED):
            found = judged_at_end(trial.curve, snapshot.goal) if trial.status is Status.COMPLETE else None
            rest.append(Prospect(trial, state, trial.curve.last_step, worth=None if found is None else found[0]))
        else:
            asked.append((trial, state))
    sign = snapshot.goal.sign
    trials = sorted([*_ask(snapshot, panel, asked, loss), *rest], key=lambda one: _rank(one, sign))
    # in rounds of their own: what fails over a configuration takes no begun trial's forecast with it
    new = _ask(snapshot, panel, [(trial, _UNSEEN) for trial in unseen], loss)
    return Outlook(
        snapshot.goal,
        snapshot.horizon,
        snapshot.incumbent,
        sign * loss if math.isfinite(loss) else None,
        panel.versions(),
        tuple(trials),
        tuple(sorted(new, key=lambda one: _rank(one, sign))),
    )


def _best_seen(snapshot: Snapshot) -> float:
    """The best loss of a begun trial that has not failed; NaN for none."""
    losses = [
        judged_loss(trial.curve, snapshot.goal)[0] for trial, _ in begun(snapshot) if trial.status is not Status.FAILED
    ]
    best = min(losses, default=math.inf)
    return best if math.isfinite(best) else math.nan


def _rank(one: Prospect, sign: float) -> tuple[int, float, float, tuple[int, str]]:
    """Where a trial stands in the list: by group, P, value."""
    uid = uid_sort_key(one.trial.uid)
    if one.forecast is not None:
        return 0, -(one.forecast.p_beat or 0.0), sign * one.forecast.median, uid
    if one.worth is not None:
        return 2, 0.0, sign * one.worth, uid
    return (1 if one.absent else 3), 0.0, 0.0, uid


def _ask(snapshot: Snapshot, panel: Panel, asked: Sequence[tuple[Trial, str]], loss: float) -> Iterator[Prospect]:
    kind = judged_kind(snapshot.goal)
    for first in range(0, len(asked), _ROUND):
        some = asked[first : first + _ROUND]
        ends = [snapshot.horizons(trial.curve.last_step) for trial, _ in some]
        queries = [Query(trial, kind, end) for (trial, _), steps in zip(some, ends, strict=True) for end in steps]
        heard = panel.ask([(snapshot, queries)])[0]
        at = 0
        for (trial, state), steps in zip(some, ends, strict=True):
            answers = {name: said[at : at + len(steps)] for name, said in heard.answers.items()}
            at += len(steps)
            forecast, absent = _weigh(answers, heard.errors, loss)
            yield Prospect(trial, state, steps[-1], forecast, absent)


def _weigh(
    answers: Mapping[str, Sequence[Answer]], errors: Mapping[str, str], loss: float
) -> tuple[Forecast | None, dict[str, tuple[Absent, str]]]:
    """The forecast most in the trial's favour, and who gave none."""
    best: tuple[float, Forecast] | None = None
    absent: dict[str, tuple[Absent, str]] = {}
    for name, said in answers.items():
        why = next((answer for answer in said if isinstance(answer, Absent)), None)
        if why is not None:
            absent[name] = (why, errors.get(name, ""))
            continue
        mixed = Forecasts.mixture([answer for answer in said if isinstance(answer, Forecasts)])
        low, median, high = (float(value) for value in mixed.quantile([LEVELS])[0])
        p = float(mixed.p_beat(mixed.sign * loss)[0]) if math.isfinite(loss) else None
        if not np.isfinite([low, median, high, p or 0.0]).all():
            absent[name] = (Absent.NONFINITE, "")
            continue
        favour = -mixed.sign * median if p is None else p
        if best is None or favour > best[0]:
            best = favour, Forecast(low, median, high, p, name)
    return (None if best is None else best[1]), absent


def fan(snapshot: Snapshot, panel: Panel, one: Prospect, most: int = 16) -> Fan | None:
    """Forecasts of what `one` will report, from its last report to where it is judged; None where nobody has any.

    By the forecaster whose word stands in `one`, at up to `most` steps.
    """
    last = max(one.trial.curve.last_step, 0.0)
    if one.forecast is None or not one.end > last:
        return None
    steps = np.linspace(last, one.end, most + 1)[1:]
    if (one.trial.curve.steps % 1 == 0).all():
        steps = np.unique(np.append(np.ceil(steps[:-1]), one.end))  # a forecast between two reports is of the later one
    queries = [Query(one.trial, "value", step) for step in steps.tolist()]
    said = panel.ask([(snapshot, queries)])[0].answers[one.forecast.by]
    found = np.full((len(steps), len(LEVELS)), np.nan)
    for row, answer in zip(found, said, strict=True):
        if isinstance(answer, Forecasts):
            row[:] = answer.quantile([LEVELS])[0]
    return Fan(steps, *found.T) if np.isfinite(found).all(1).any() else None
