"""Audits: stops that are not carried out, with a known probability, so that wrong ones can be counted. Pure.

Which trials are audited follows from the study's name, the trial's and its first report: the same in every process,
framework and replay, at each of its looks, and not known to whoever chose its configuration. No forecast stops an
audited trial any more. A stop is wrong when the trial would have beaten what it had to beat then.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from lcsearch.errors import InvalidValue
from lcsearch.stopping.calibration import clopper_pearson
from lcsearch.stopping.decision import percent
from lcsearch.stopping.e_process import Verdicts, audits_needed, verdicts
from lcsearch.stopping.risk import StopRecord
from lcsearch.study import Snapshot, Status, Trial, judged_loss, uid_sort_key

RECORD = "audit"
"""The stop record of a stop that was not carried out, see :attr:`lcsearch.study.Trial.stop_records`."""
PROMISED = 0.05
"""The rate of wrong stops that audits are held to where nobody has named one."""
LEAST_THRESHOLD = 1e-4
"""A threshold that audits have brought below this is 0: nothing is stopped any more."""


def released(share: float, study: str, trial: Trial) -> bool:
    """Is a trial audited, of which a `share` is? The answer is the same at each of its looks.

    >>> sum(released(0.2, "s", Trial(str(i))) for i in range(1000))
    194
    """
    if share <= 0.0:
        return False
    steps, values = trial.curve.reports()
    first = b"" if not steps.size else steps[:1].tobytes() + (values[:1] + 0.0).astype(np.float32).tobytes()
    key = f"lcsearch audit|{study}|{trial.uid}|".encode() + first
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) < share * 2.0**64


class Audit(NamedTuple):
    """An audit of which it is known what became of it.

    Attributes:
        study, trial: whose.
        p: P(beat) at the look that would have stopped it.
        propensity: with which probability it was released.
        wrong: did it beat what it had to beat then?
    """

    study: str
    trial: str
    p: float
    propensity: float
    wrong: bool

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Audit:
        """Read `_asdict` back.

        Raises:
            InvalidValue: it is none.
        """
        try:
            study, trial, wrong = record["study"], record["trial"], record["wrong"]
            p, propensity = float(record["p"]), float(record["propensity"])
            if not (isinstance(wrong, bool) and 0.0 <= p <= 1.0 and 0.0 < propensity <= 1.0):
                raise ValueError("numbers")
            return cls(str(study), str(trial), p, propensity, wrong)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidValue("an audit written by lcsearch", str(record)[:80], "Audit.from_record") from error


@dataclass(frozen=True)
class Audits:
    """The audits of a study.

    Attributes:
        ended: those that ran to their end, in the order of their trials' uids.
        under_way: how many have not ended.
        lost: how many never will: they failed, or something else ended them.
        stops: propensity -> how many stops had it, those that were carried out among them.
        promised: the rate of wrong stops that is not to be passed.
        earlier: audits that a file keeps, of other studies and of this one, in the order in which they became known.
    """

    ended: tuple[Audit, ...] = ()
    under_way: int = 0
    lost: int = 0
    stops: Mapping[float, int] = field(default_factory=dict)
    promised: float = PROMISED
    earlier: tuple[Audit, ...] = ()

    @property
    def n(self) -> int:
        """Trials that were audited."""
        return len(self.ended) + self.under_way + self.lost

    @property
    def rate(self) -> float | None:
        """The inverse-propensity estimate of the share of stops that are wrong; None without an audit that ended.

        sum(w_i / pi_i) / sum(1 / pi_i) within each propensity, weighted by how many stops had it.
        """
        parts = self._strata()
        total = sum(size for _, _, size in parts)
        return sum(size * wrong / n for n, wrong, size in parts) / total if total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """In which that share lies (95 %): within each propensity as Clopper and Pearson have it, shared over these."""
        parts = self._strata()
        total = sum(size for _, _, size in parts)
        if not total:
            return None
        level = 1.0 - 0.05 / len(parts)
        ends = [(size / total, clopper_pearson(wrong, n, level)) for n, wrong, size in parts]
        return sum(share * low for share, (low, _) in ends), sum(share * high for share, (_, high) in ends)

    def _strata(self) -> list[tuple[int, int, int]]:
        """Of each propensity with an audit that ended: audits, wrong ones, and stops."""
        counted: Counter[float] = Counter(one.propensity for one in self.ended)
        wrong: Counter[float] = Counter(one.propensity for one in self.ended if one.wrong)
        return [(n, wrong[pi], max(self.stops.get(pi, 0), n)) for pi, n in sorted(counted.items())]

    @property
    def verdicts(self) -> Verdicts:
        """What all audits that are known say of the promise, those of earlier sweeps first."""
        known = {one[:3] for one in self.earlier}  # as in their file: a study's name may come again
        new = [one.wrong for one in self.ended if one[:3] not in known]
        return verdicts([*(one.wrong for one in self.earlier), *new], self.promised, n_ordered=len(self.earlier))

    @property
    def sentence(self) -> str:
        """What so many audits can prove, and what they cannot."""
        known = self.verdicts
        audits, promise = (
            f"{known.n} audit{'s' * (known.n != 1)}",
            f"at most {percent(self.promised)} of stops are wrong",
        )
        if known.broken:
            return f"{audits}, {known.n_wrong} of them wrong: it is not so that {promise} (said wrongly in 5 % at most)"
        if known.kept:
            return f"{audits}, {known.n_wrong} of them wrong: {promise} (said wrongly in 5 % at most)"
        needed = audits_needed(self.promised)
        if not known.n:
            return f"no audit has ended yet, so nothing is proved; that {promise} takes {needed} without a failure"
        bound = clopper_pearson(known.n_wrong, known.n, 0.9)[1]
        return (
            f"{audits}, {known.n_wrong} of them wrong, prove that at most {percent(bound)} of stops are (95 %), and no "
            f"more: that {promise} takes {needed} without a failure, more than one sweep has"
        )

    @property
    def lines(self) -> list[str]:
        """For people; empty where nothing was audited and nothing is known of earlier."""
        if not self.n and not self.earlier:
            return []
        told = f"audited: {self.n} stop{'s' * (self.n != 1)} not carried out"
        if self.ended and self.rate is not None and self.interval is not None:
            low, high = self.interval
            told += f", {sum(one.wrong for one in self.ended)} of {len(self.ended)} that ended wrong: an estimated "
            told += f"{percent(self.rate)} of stops ({percent(low)} to {percent(high)})"
        told += f", {self.under_way} under way" if self.under_way else ""
        told += f", {self.lost} lost" if self.lost else ""
        return [told, f"  {self.sentence}"]


def audits_of(snapshot: Snapshot, promised: float = PROMISED, earlier: Iterable[Audit] = ()) -> Audits:
    """The audits of a study, from the records of its trials."""
    ended, under_way, lost = [], 0, 0
    stops: Counter[float] = Counter()
    for trial in sorted((*snapshot.bank, *snapshot.live, *snapshot.abandoned), key=lambda t: uid_sort_key(t.uid)):
        record, stop = trial.stop_records.get(RECORD), trial.stop_records.get("stop")
        pi = _propensity(record) or _propensity(stop)
        if pi is not None:
            stops[pi] += 1
        if not isinstance(record, StopRecord) or record.p is None or _propensity(record) is None:
            continue
        wrong = _wrong(snapshot, trial, record)
        if not trial.status.finished:
            under_way += 1
        elif wrong is None or pi is None:
            lost += 1
        else:
            ended.append(Audit(snapshot.study, trial.uid, record.p, pi, wrong))
    return Audits(tuple(ended), under_way, lost, dict(stops), promised, tuple(earlier))


def _wrong(snapshot: Snapshot, trial: Trial, record: StopRecord) -> bool | None:
    """Would the stop have been wrong? None where nobody knows. One that diverged later has beaten nothing."""
    stop = trial.stop_records.get("stop")
    if isinstance(stop, StopRecord) and stop.p is None:
        return False
    if trial.status is not Status.COMPLETE or record.target is None:
        return None
    return judged_loss(trial.curve, snapshot.goal)[0] < record.target


def _propensity(record: object) -> float | None:
    made = record.decision if isinstance(record, StopRecord) else None
    return None if made is None else made.propensity


def tracked(threshold: float, promised: float, wrong: Sequence[bool], *, most: float) -> float:
    """The threshold that audits have moved, of four digits; 0, and nothing is stopped, below LEAST_THRESHOLD.

    After each audit it is multiplied by exp(promised - wrong): steady where the rate of wrong stops is `promised`,
    whatever a forecaster calls its probabilities. A wrong one takes it to about two fifths, a right one gives back as
    much as `promised` says.

    Args:
        threshold: where it starts.
        promised: the rate of wrong stops that a user allows.
        wrong: of each audit, in order.
        most: what it never passes.
    """
    now = threshold
    for one in wrong:
        now = min(now * math.exp(promised - one), most)
        if now < LEAST_THRESHOLD:
            return 0.0
    return float(f"{now:.4g}")
