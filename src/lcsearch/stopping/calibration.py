"""What became of trials of which something was forecast: the state of P(beat), a reliability diagram. Pure.

Compared are looks at trials that ran to their end (COMPLETE, audited ones among them): P(beat) then, and whether the
trial's judged value did pass the target of then. Stops take the losers away, so those that are left beat their targets
more often than was forecast; therefore trials stopped by P(beat) count, too: as not having beaten, and owed what the
stop's forecast gave them. (Right forecasts are a martingale: what they say at the stop is on average what they said
before.) A band is that of Clopper and Pearson (1934), its upper end that of all that beat and are owed. The unit is the
trial: in each bin it counts once, by its first look there, for its looks repeat each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lcsearch.errors import is_finite_number
from lcsearch.goal import Goal
from lcsearch.stopping.decision import CERTIFIED, UNCALIBRATED, percent, rivals_of
from lcsearch.stopping.risk import StopRecord
from lcsearch.study import Status, Trial, judged_loss

EDGES = (0.0, 0.05, 0.2, 0.5, 0.8, 1.0)
"""Of the bins of P(beat)."""
ENOUGH = 20
"""Trials that ended before `calibrated on n` is said; fewer contradict next to nothing."""
CONFIDENCE = 0.95


class Outcome(NamedTuple):
    """A look at a trial that ran to its end, or was stopped by P(beat).

    Attributes:
        trial: its uid.
        p: P(beat) at the look.
        beat: did the trial pass the target of then? A stopped one did not.
        owed: by the forecast at its stop, the probability that it would have passed it; None: it ran to its end.
    """

    trial: str
    p: float
    beat: bool
    owed: float | None = None


class Bin(NamedTuple):
    """Forecasts in [low, high) and what became of them.

    Attributes:
        low, high: of P(beat).
        n: trials with a look here.
        n_beat: of them, those that beat their target.
        forecast: the mean P(beat) of their first looks here.
        band: of the share that beats or would have, at CONFIDENCE.
        n_stopped: of the n, those that were stopped.
        owed: how many of these would have beaten their target, by the forecasts at their stops.
    """

    low: float
    high: float
    n: int
    n_beat: int
    forecast: float
    band: tuple[float, float]
    n_stopped: int = 0
    owed: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """How P(beat) fared in a study.

    Attributes:
        n: trials that ended with forecasts.
        bins: those with a look in them, rising.
        certificate: the line of the model's certificate that applies; "" where none does.
    """

    n: int = 0
    bins: tuple[Bin, ...] = ()
    certificate: str = ""

    @classmethod
    def of(cls, outcomes: Iterable[Outcome], certificate: str = "") -> Calibration:
        """Count outcomes, in the order of their looks."""
        first: dict[tuple[int, str], Outcome] = {}
        for one in outcomes:
            first.setdefault((_bin_of(one.p), one.trial), one)
        bins = []
        for at in sorted({at for at, _ in first}):
            here = [one for (bin_, _), one in first.items() if bin_ == at]
            k = sum(one.beat for one in here)
            mean = sum(one.p for one in here) / len(here)
            owed = [one.owed for one in here if one.owed is not None]
            band = _band(k, len(here), math.fsum(owed), CONFIDENCE)
            bins.append(Bin(EDGES[at], EDGES[at + 1], len(here), k, mean, band, len(owed), math.fsum(owed)))
        ended = {one.trial for one in first.values() if one.owed is None}
        return cls(len(ended), tuple(bins), certificate)

    @property
    def contradicted(self) -> Bin | None:
        """The first bin whose forecasts its trials contradict, at CONFIDENCE over all bins; None: there is none."""
        level = 1.0 - (1.0 - CONFIDENCE) / max(len(self.bins), 1)
        for one in self.bins:
            low, high = _band(one.n_beat, one.n, one.owed, level)
            if not low <= one.forecast <= high:
                return one
        return None

    @property
    def state(self) -> str:
        """`certified`, `calibrated on n` or `uncalibrated`: what a probability is called wherever it is shown."""
        if self.contradicted is not None:
            return UNCALIBRATED
        if self.certificate:
            return CERTIFIED
        return f"calibrated on {self.n}" if self.n >= ENOUGH else UNCALIBRATED

    @property
    def telling(self) -> bool:
        """Is its sentence worth a line unasked: are there enough trials, or a contradiction?"""
        return self.n >= ENOUGH or self.contradicted is not None

    @property
    def sentence(self) -> str:
        """What so many trials can prove, and what they cannot."""
        if (bad := self.contradicted) is not None:
            text = (
                f"P(beat) is off here: of {bad.n} trials with a forecast in {_range(bad)} {bad.n_beat} beat their "
                f"target, {bad.n * bad.forecast:.1f} were forecast to"
            )
            return f"{text} ({bad.n_stopped} were stopped, which takes {bad.owed:.1f})" if bad.n_stopped else text
        if not self.n:
            how = "run to its end" if self.bins else "ended"
            return f"no trial with a forecast has {how} yet, so nothing is known of how P(beat) fares here"
        few = f" (at least {ENOUGH} are asked for)" if self.n < ENOUGH else ""
        text = f"{_trials(self.n)} that ran to {'their' if self.n > 1 else 'its'} end "
        text += f"{'do' if self.n > 1 else 'does'} not contradict P(beat){few}"
        lowest = next((one for one in self.bins if one.low == 0.0), None)
        n_low = 0 if lowest is None else lowest.n - lowest.n_stopped
        if lowest is None or not n_low:
            return f"{text}; none had one below {percent(EDGES[1])}, so nothing is shown of the stops"
        bound = clopper_pearson(lowest.n_beat, n_low, 2 * CONFIDENCE - 1)[1]
        return (
            f"{text}; {_trials(n_low)} below {percent(EDGES[1])}: that at most {percent(bound)} of such win is all "
            "they can prove (95 %), and of stopped trials only audits can"
        )

    @property
    def lines(self) -> list[str]:
        """The state, the bins and the sentence, for people."""
        told = [f"P(beat) is {self.state}" + (f"; {self.certificate}" if self.certificate else "")]
        stopped = any(one.n_stopped for one in self.bins)
        if self.bins:
            more = f"{'stopped':>7}  " if stopped else ""
            told.append(f"{'P(beat)':>12}  {'trials':>6}  {more}{'forecast':>8}  {'beat':>6}  95 % band")
        for one in self.bins:
            low, high = one.band
            more = f"{one.n_stopped:7d}  " if stopped else ""
            told.append(
                f"{_range(one):>12}  {one.n:6d}  {more}{percent(one.forecast):>8}  {percent(one.n_beat / one.n):>6}  "
                f"{percent(low)} to {percent(high)}"
            )
        return [*told, self.sentence]


def outcomes_of(records: Iterable[Mapping[str, Any]], trials: Iterable[Trial], goal: Goal) -> list[Outcome]:
    """What became of looks, from the lines of a decision log, in their order.

    Left out are looks at trials that neither ran to their end nor were stopped by P(beat), and those against rivals:
    their P(beat) is not that of the target which they name.

    Args:
        records: as :meth:`lcsearch.stopping.decision.Decision.to_record` writes them.
        trials: of the study.
        goal: the study's.
    """
    trials = list(trials)
    ended = {t.uid: judged_loss(t.curve, goal)[0] for t in trials if t.status is Status.COMPLETE and len(t.curve)}
    stops = {t.uid: stop for t in trials if (stop := _stop_of(t)) is not None}
    found = []
    for record in records:
        uid, now, target = str(record.get("trial")), record.get("now"), record.get("target")
        if not isinstance(now, Mapping) or not is_finite_number(now.get("p")) or not is_finite_number(target):
            continue
        if rivals_of(record):
            continue
        p, passed = min(max(float(now["p"]), 0.0), 1.0), goal.sign * float(target)  # type: ignore[arg-type]
        if uid in ended:
            found.append(Outcome(uid, p, ended[uid] < passed))
        elif uid in stops:
            found.append(Outcome(uid, p, False, stops[uid].p_beat(passed)))
    return found


def _stop_of(trial: Trial) -> StopRecord | None:
    """The record of a stop by P(beat) that was carried out; None: there is none."""
    record = trial.stop_records.get("stop")
    stopped = trial.status is Status.STOPPED and isinstance(record, StopRecord) and record.p is not None
    return record if stopped else None


def _band(k: int, n: int, owed: float, confidence: float) -> tuple[float, float]:
    """Of `n` cases `k` were seen, and `owed` of the others would have been."""
    low, high = clopper_pearson(k, n, confidence)
    more = min(k + math.ceil(owed), n)
    return low, high if more == k else clopper_pearson(more, n, confidence)[1]


def clopper_pearson(k: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of a rate of which `k` in `n` independent cases were seen, Clopper and Pearson (1934).

    >>> [round(end, 4) for end in clopper_pearson(0, 6, 0.9)]
    [0.0, 0.393]
    """
    half = (1.0 - confidence) / 2
    low = 0.0 if k == 0 else _root(lambda p: 1.0 - _at_most(k - 1, n, p) - half)
    high = 1.0 if k == n else _root(lambda p: half - _at_most(k, n, p))
    return low, high


def _root(rises: Any) -> float:
    """Where a function that rises on [0, 1] is zero."""
    low, high = 0.0, 1.0
    for _ in range(60):
        mid = 0.5 * (low + high)
        low, high = (low, mid) if rises(mid) > 0 else (mid, high)
    return 0.5 * (low + high)


def _at_most(k: int, n: int, p: float) -> float:
    """P(Bin(n, p) <= k)."""
    if p <= 0.0 or p >= 1.0:
        return float(p <= 0.0 or k >= n)
    logs = (
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(k + 1)
    )
    return min(math.fsum(map(math.exp, logs)), 1.0)


def _bin_of(p: float) -> int:
    return next(at for at in range(len(EDGES) - 1) if p < EDGES[at + 1] or at == len(EDGES) - 2)


def _trials(n: int) -> str:
    return f"{n} trial{'s' * (n != 1)}"


def _range(one: Bin) -> str:
    return f"{100 * one.low:g} to {100 * one.high:g} %"
