"""What all begun trials are forecast to reach, and what follows for those that have not begun."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.linalg import LinAlgError

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Forecasts, Kind, Query
from lcsearch.forecast.network.columns import Plain
from lcsearch.forecast.network.context import Context, same
from lcsearch.forecast.network.firsts import Firsts, single
from lcsearch.forecast.network.unseen import Unseen
from lcsearch.study import Status, Trial

Pair = tuple[Kind, float]
"""What is asked: a kind, and a step."""


def unbegun(queries: Sequence[Query]) -> dict[Pair, list[int]]:
    """Rows of the queries about trials with a configuration and no report, of each pair."""
    found: dict[Pair, list[int]] = {}
    for i, (trial, kind, step) in enumerate(queries):
        if not trial.curve.n_reports and trial.params and math.isfinite(step):
            found.setdefault((kind, step), []).append(i)
    return found


def crowd_queries(context: Context, pair: Pair) -> list[Query]:
    """One about every context trial that did not fail; one that is complete has no more to say after its end."""
    kind, step = pair
    return [Query(trial, kind, min(step, _end(trial))) for trial, _ in _members(context)]


def _members(context: Context) -> list[tuple[Trial, Plain]]:
    pairs = zip(context.begun.trials, context.known, strict=True)
    return [(trial, known.params) for trial, known in pairs if trial.status is not Status.FAILED]


def _end(trial: Trial) -> float:
    return trial.curve.last_step if trial.status is Status.COMPLETE else math.inf


@dataclass(frozen=True, eq=False)
class Crowd:
    """What the begun trials of a context are forecast to reach, asked on their own: it hangs on the context alone.

    Attributes:
        said: a row for each of :func:`crowd_queries`; trials of a single report in the order of `firsts`.
        firsts: what binds other trials of a single report.
        places: uid -> the trial and its row.
        others: what follows for trials that have not begun; None where nothing does.
    """

    said: Forecasts
    firsts: Firsts
    places: dict[str, tuple[Trial, int]]
    others: Unseen | None

    @classmethod
    def of(cls, context: Context, said: Forecasts) -> Crowd:
        """Make it of their answers as the network gave them; what fails over trials that have not begun takes no other
        along."""
        members, others = _members(context), None
        firsts, knots = Firsts.of([trial for trial, _ in members], said), said.knots.copy()
        for i, (trial, _) in enumerate(members):
            if single(trial) and said.absent[i] is None:
                knots[i] = firsts.raised(trial, knots[i], said.levels[i])
        said = replace(said, knots=knots)
        with np.errstate(all="ignore"), suppress(LinAlgError, ValueError):
            others = Unseen.of([params for _, params in members], said)
        return cls(said, firsts, {trial.uid: (trial, i) for i, (trial, _) in enumerate(members)}, others)

    def row(self, trial: Trial, step: float) -> int | None:
        """Of a query about `trial` at the step of the crowd; None where it was not asked so."""
        found = self.places.get(trial.uid)
        return found[1] if found is not None and step <= _end(trial) and same(found[0], trial) else None

    def answers(self, asked: Sequence[Plain], n_knots: int) -> tuple[Floats, Floats, Floats] | None:
        """Knots, levels and tails of trials that have not begun; None: nothing is said."""
        if self.others is not None:
            with np.errstate(all="ignore"), suppress(LinAlgError, ValueError):
                return self.others.answers(asked, n_knots)
        return None
