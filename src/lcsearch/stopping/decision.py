"""Decisions (pure: what, on which numbers, by which rule) and receipts (when, where, how fast)."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lcsearch.errors import InvalidValue
from lcsearch.stopping.rules import Rank
from lcsearch.stopping.seen import Seen
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Incumbent

_ALL_DIGITS = 14
UNCALIBRATED, CERTIFIED = "uncalibrated", "certified"
"""The state of P(beat) where nothing else is known, see :attr:`lcsearch.stopping.calibration.Calibration.state`."""
_SHOWN = 1e-4
"""Probabilities below are not told apart for people."""
_AGAINST = "against running trials {}, by what they are forecast to reach"
_EARLIER = re.compile(_AGAINST.format("(.+)"))
"""The detail of a look against rivals by an earlier lcsearch, which named them there alone."""


@dataclass(frozen=True)
class Look:
    """What was known of a trial at one report: the one that is looked at, or the one before.

    Attributes:
        step: the last step seen.
        n_observations: finite observations up to it.
        threshold: P(beat) must be below this.
        p: the highest P(beat) any forecaster gave; None when one was absent or none was asked.
        interval: (5 %, 50 %, 95 %) of the judged value, in the metric's units, from that forecaster.
        heard: forecaster -> its P(beat), or the name of the reason it gave none.
    """

    step: float
    n_observations: int
    threshold: float
    p: float | None = None
    interval: tuple[float, float, float] | None = None
    heard: tuple[tuple[str, float | str], ...] = ()

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Look:
        """Read it back from its part of :meth:`Decision.to_record`."""
        interval, p = record["interval"], record["p"]
        low, mid, high = (None,) * 3 if interval is None else map(float, interval)
        return cls(
            float(record["step"]),
            int(record["n_observations"]),
            float(record["threshold"]),
            None if p is None else float(p),
            None if low is None or mid is None or high is None else (low, mid, high),
            tuple((str(who), said if isinstance(said, str) else float(said)) for who, said in record["heard"].items()),
        )


@dataclass(frozen=True)
class Decision:
    """One look's outcome: equal histories give equal decisions.

    Attributes:
        study: name of the study.
        trial: uid of the trial.
        step: the step looked at.
        verdict: what to do.
        reason: the gate or rule that decided.
        detail: numbers behind a gate, in words; empty when the fields below say it.
        now: this look; None when a gate held before any forecast.
        before: the same by the curve up to the report before, whether there was a look then or not.
        incumbent: what had to be beaten.
        target: the value that had to be passed: the incumbent moved by epsilon, in the metric's units.
        horizon: the step at which the trial would have been judged.
        standing: rank at the trial's own step.
        bound: True when the incumbent is at the metric's bound: nothing is better, and to tie it counts as to beat it.
        risk: a bound of P(some stopped trial would have beaten the incumbent), this stop included; None when not worked
            out.
        independent: the same, were stopped trials independent.
        rivals: uids of the running trials that it was compared with, because too few had ended; empty where the
            incumbent alone decides.
        ends: the steps, rising and of equal weight, at which the trial may have been judged, where not `horizon`
            alone: the forecast is the mixture of those at each.
        propensity: the probability with which a stop like this one is not carried out but audited; None where none is.
        seen: digest of the curve that was judged; numbers and names may be those of another trial by now.
    """

    study: str
    trial: str
    step: float
    verdict: Verdict
    reason: Reason
    detail: str = ""
    now: Look | None = None
    before: Look | None = None
    incumbent: Incumbent | None = None
    target: float | None = None
    horizon: float | None = None
    standing: Rank | None = None
    risk: float | None = None
    bound: bool | None = None
    ends: tuple[float, ...] = ()
    seen: str = ""
    propensity: float | None = None
    independent: float | None = None
    rivals: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The reason in one line."""
        return f"step {self.step:g}: {self.why}"

    @property
    def why(self) -> str:
        """The line without the step."""
        if self.chance is None:
            return self.short
        i, rank = self.incumbent, f", {self.standing}" if self.standing else ""
        beside = "".join(f", {told}" for told in self._beside)
        led = "" if i is None else f", incumbent {i.value:.4g} of trial {i.uid}"
        return f"{self.short}{beside}{led}{rank}"

    @property
    def short(self) -> str:
        """The line without step, incumbent and rank."""
        if self.reason is Reason.DIVERGED:
            return f"diverged, {self.detail}"
        if self.chance is None or self.now is None or self.now.p is None or self.before is None:
            return self.detail or self.reason.advice
        p = percent(self.now.p, self.now.threshold)
        if self.before.p is not None:
            p += f" (was {percent(self.before.p, self.before.threshold)} at step {self.before.step:g})"
        return f"{self.chance} {p}, threshold {exactly(self.now.threshold)}"

    @property
    def chance(self) -> str | None:
        """What the probability that decided is called, "P(beat)" or "P(tie)"; None where none did."""
        if self.reason is Reason.DIVERGED or self.before is None:
            return None
        return self._chance if self.now is not None and self.now.p is not None else None

    @property
    def by_rivals(self) -> bool:
        """Was the trial compared with running ones, because too few had ended?"""
        return bool(self.rivals)

    @property
    def _beside(self) -> list[str]:
        """What is told beside the numbers."""
        against = _AGAINST.format(", ".join(self.rivals)) if self.rivals else ""
        return [told for told in (self.detail, against) if told]

    @property
    def _chance(self) -> str:
        return "P(tie)" if self.bound else "P(beat)"

    def _where(self, horizon: float) -> str:
        """ "step 49", or "where trials end: step 20 (1 in 4), 49 (3 in 4)"."""
        if not self.ends:
            return f"step {horizon:g}"
        counted, n = Counter(self.ends), len(self.ends)
        return "where trials end: step " + ", ".join(f"{end:g} ({m} in {n})" for end, m in sorted(counted.items()))

    @property
    def text(self) -> str:
        """The whole story, a few lines, as it is told when it is decided: of a P(beat) that nothing is known of."""
        return self.told(UNCALIBRATED)

    def told(self, state: str) -> str:
        """The whole story; `state` is that of P(beat), see :mod:`lcsearch.stopping.calibration`."""
        lines = [
            f"trial {self.trial}, step {self.step:g}: {self.verdict.name} ({self.reason.name})",
            self.reason.advice,
        ]
        lines += self._beside
        if self.incumbent is not None:
            i = self.incumbent
            line = f"incumbent: {i.value:.6g}, trial {i.uid} at step {i.step:g}"
            if self.bound:
                line += "; nothing is better, to tie it counts"
            elif self.target is not None and self.target != i.value:
                line += f"; to beat it counts from {self.target:.6g}"
            lines.append(line)
        for name, look in (("this look", self.now), ("report before", self.before)):
            if look is None:
                continue
            said = ", ".join(
                f"{who} {percent(p, look.threshold) if isinstance(p, float) else p}" for who, p in look.heard
            )
            line = f"{name}: step {look.step:g}, {look.n_observations} observations, {self._chance}: "
            line += f"{said or 'not asked'}; threshold {exactly(look.threshold)}"
            lines.append(line)
            if look.interval is not None and self.horizon is not None:
                low, mid, high = look.interval
                lines.append(f"  forecast by {self._where(self.horizon)}: {mid:.4g}, 90 % in [{low:.4g}, {high:.4g}]")
        if self.standing is not None:
            lines.append(str(self.standing))
        if self.reason is Reason.DIVERGED:
            lines.append("no forecast was made, so no risk is known for this stop")
        if self.reason is Reason.AUDITED and self.propensity is not None:
            lines.append(f"one of such stops in {1 / self.propensity:.3g} is not carried out (audit)")
        if self.risk is not None:
            told = risk_told(self.risk, self.independent, state)
            lines.append(f"risk that some stop by {self._chance} so far lost the winner: {told}")
        return "\n".join(lines)

    def to_record(self) -> dict[str, Any]:
        """Plain values for one JSON line."""
        record = _values(self)
        record["verdict"], record["reason"] = self.verdict.name, self.reason.name
        record["incumbent"] = None if self.incumbent is None else self.incumbent._asdict()
        record["standing"] = None if self.standing is None else _values(self.standing)
        for name, look in (("now", self.now), ("before", self.before)):
            record[name] = None if look is None else {**_values(look), "heard": dict(look.heard)}
        return {key: value for key, value in record.items() if value not in (None, "", ())}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Decision:
        """Read :meth:`to_record` back; what else stands in the record is passed over.

        Raises:
            InvalidValue: it is the record of no decision.
        """
        try:
            now, before, place = record.get("now"), record.get("before"), record.get("incumbent")
            rank, bound = record.get("standing"), record.get("bound")
            rivals, detail = rivals_of(record), str(record.get("detail", ""))
            target, horizon, risk, independent = (
                None if record.get(name) is None else float(record[name])
                for name in ("target", "horizon", "risk", "independent")
            )
            return cls(
                str(record.get("study", "")),
                str(record.get("trial", "")),
                float(record["step"]),
                Verdict[record["verdict"]],
                Reason[record["reason"]],
                "" if _EARLIER.fullmatch(detail) else detail,
                now=None if now is None else Look.from_record(now),
                before=None if before is None else Look.from_record(before),
                incumbent=None
                if place is None
                else Incumbent(float(place["value"]), str(place["uid"]), float(place["step"])),
                target=target,
                horizon=horizon,
                standing=None if rank is None else Rank(**{name: int(n) for name, n in rank.items()}),
                risk=risk,
                bound=None if bound is None else bool(bound),
                ends=tuple(map(float, record.get("ends", ()))),
                seen=str(record.get("seen", "")),
                propensity=None if record.get("propensity") is None else float(record["propensity"]),
                independent=independent,
                rivals=rivals,
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InvalidValue("a decision written by lcsearch", str(record)[:80], "a decision's record") from error


def rivals_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The rivals of :meth:`Decision.to_record`, or of a record by an earlier lcsearch."""
    if (earlier := _EARLIER.fullmatch(str(record.get("detail", "")))) is not None:
        return tuple(earlier[1].split(", "))
    known = record.get("rivals")
    return tuple(map(str, known)) if isinstance(known, list | tuple) else ()


def _values(one: Any) -> dict[str, Any]:
    """Of a dataclass, by name, as they are: `dataclasses.asdict` copies everything that is in them."""
    return {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}


def percent(p: float, threshold: float | None = None) -> str:
    """A probability for people: 0.8 %, 12 %, < 0.01 %; beside a threshold, digits enough to tell on which side it is.

    >>> percent(0.0123), percent(0.5), percent(2e-6)
    ('1.2 %', '50 %', '< 0.01 %')
    >>> percent(0.0499, 0.05), percent(0.0499)
    ('4.99 %', '5 %')
    """
    if p <= 0:
        return "0 %"
    if p < _SHOWN and (threshold is None or threshold >= _SHOWN):
        return "< 0.01 %"
    text = f"{100 * p:.2g}" if p < 0.1 else f"{100 * p:.0f}"
    if threshold is not None:
        limit = float(_in_percent(threshold))
        for digits in range(3, _ALL_DIGITS + 1):
            if (float(text) < limit) == (p < threshold):
                break
            text = f"{100 * p:.{digits}g}"
    return f"{text} %"


def risk_told(risk: float, independent: float | None, state: str = UNCALIBRATED, *, stops: bool = True) -> str:
    """The bound, and beside it what it is for independent trials, where that shows.

    Args:
        risk: see :func:`lcsearch.stopping.risk.risk_of`.
        independent: see :func:`lcsearch.stopping.risk.independent_risk_of`; None in records of an earlier lcsearch,
            whose risk was this, and no bound.
        state: what is known of the probabilities that it is made of.
        stops: False where there is none that has a probability.

    >>> risk_told(0.341, 0.301)
    'at most 34 % (uncalibrated); 30 % if stops err independently'
    >>> risk_told(0.02, 0.02), risk_told(0.0, 0.0), risk_told(0.21, None)
    ('at most 2 % (uncalibrated)', '0 % (uncalibrated)', '21 % (uncalibrated)')
    >>> risk_told(0.341, 0.341, CERTIFIED)
    'at most 34 % (weights certified)'
    >>> risk_told(0.0, 0.0, CERTIFIED, stops=False)
    '0 % (no trial is stopped by P(beat))'
    """
    if not stops:
        return f"{percent(0.0)} (no trial is stopped by P(beat))"
    bounds = independent is not None and risk >= _SHOWN
    known = f"weights {state}" if state == CERTIFIED else state  # the number itself is not what is certified
    text = f"{'at most ' * bounds}{percent(risk)} ({known})"
    if not bounds or independent is None or percent(independent) == percent(risk):
        return text
    return f"{text}; {percent(independent)} if stops err independently"


def exactly(threshold: float) -> str:
    """As its owner wrote it, in percent: 5 %, 0.125 %."""
    return f"{_in_percent(threshold)} %"


def _in_percent(threshold: float) -> str:
    return f"{100 * threshold:.12g}"


@dataclass(frozen=True)
class Receipt:
    """When, where and how fast a decision was made, and from which models; never part of the decision.

    Attributes:
        decision: what was decided.
        time: seconds since the epoch.
        latency: seconds from the look's start to its verdict.
        host, pid: the process that decided.
        models: forecaster name -> version.
        errors: forecaster name -> what went wrong, for the absent ones.
        saw: what else the decision is a function of, so that `lcsearch verify` can make it again; None: it is not kept.
    """

    decision: Decision
    time: float
    latency: float
    host: str
    pid: int
    models: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    saw: Seen | None = None

    def to_record(self) -> dict[str, Any]:
        """Plain values for one JSON line."""
        return {
            **self.decision.to_record(),
            "time": self.time,
            "latency": self.latency,
            "host": self.host,
            "pid": self.pid,
            "models": self.models,
            "errors": self.errors,
            **({} if self.saw is None else {"saw": self.saw.to_record()}),
        }
